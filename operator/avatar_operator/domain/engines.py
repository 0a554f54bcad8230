"""TTS engine names: every spelling that the old manager's configs hold, to one."""

from __future__ import annotations

DEFAULT_ENGINE = "edgetts"

# The old README's normalisation table, by lower-cased spelling.
_ALIASES = {
    "edgetts": "edgetts",
    "edge": "edgetts",
    "tacotron": "tacotron",
    "tacotron2": "tacotron",
    "cosyvoice": "cosyvoice",
    "cosyvoice2": "cosyvoice",
    "sovits": "sovits",
    "gpt-sovits": "sovits",
}

# The runtime's own name for an engine where it differs (research: LiveTalking's
# --tts knows gpt-sovits, not sovits; the old manager's engine never started).
_RUNTIME_FLAG = {"sovits": "gpt-sovits"}


def normalise(name: str) -> str:
    """The engine that a spelling means; an empty or unknown one means the default."""
    return _ALIASES.get(name.strip().lower(), DEFAULT_ENGINE)


def known(name: str) -> bool:
    """Whether the old manager knew the spelling; one that says nothing is no mistake."""
    return not name.strip() or name.strip().lower() in _ALIASES


def runtime_flag(engine: str) -> str:
    """The value of the runtime's ``--tts`` for a normalised engine name."""
    return _RUNTIME_FLAG.get(engine, engine)
