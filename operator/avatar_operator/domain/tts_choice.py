"""Which engine an instance speaks through, and what its status says of it.

A pool with ``tts.url`` has a server of its own: no TTSEngine is looked at.
Otherwise the name is looked up among the TTSEngines of the namespace: by name,
by alias, by the old manager's spellings; what nobody knows is the default.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .engines import DEFAULT_ENGINE, known, normalise, runtime_flag
from .names import ANNOTATION_TTS, tts_name
from .resources import Meta
from .tts import TtsEngine

Saying = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class Choice:
    """What a pod is started with. ``name`` is a TTSEngine's, or empty where there is none to start.

    ``label`` is what people call it, ``flag`` the runtime's ``--tts``, ``url`` its ``--TTS_SERVER``;
    ``unknown`` the spelling that nobody knows.
    """

    label: str
    flag: str
    url: str = ""
    name: str = ""
    unknown: str = ""


def service_url(engine: TtsEngine) -> str:
    """The address of an engine inside the cluster; the same whoever speaks in its place."""
    return f"http://{tts_name(engine.name)}.{engine.metadata.namespace}.svc:{engine.spec.port}"


def choose(asked: str, fixed_url: str, engines: Sequence[TtsEngine]) -> Choice:
    """The engine that ``asked`` means. ``fixed_url``: the pool's own server; ``engines``: those of the namespace."""
    if fixed_url:
        plain = normalise(asked)
        return Choice(plain, runtime_flag(plain), fixed_url, unknown="" if known(asked) else asked)
    found = find(asked, engines)
    unknown = ""
    if found is None:
        # Also a name of the old manager for which nobody made an engine here.
        unknown = asked if engines or not known(asked) else ""
        found = find(DEFAULT_ENGINE, engines)
    if found is None:
        plain = normalise(asked)
        return Choice(plain, runtime_flag(plain), unknown=unknown)
    return Choice(found.name, found.spec.protocol, service_url(found), found.name, unknown)


def find(asked: str, engines: Sequence[TtsEngine]) -> TtsEngine | None:
    """The engine that a spelling means, the oldest where several claim it."""
    there = sorted(
        (e for e in engines if e.metadata.deletion_timestamp is None),
        key=lambda e: (str(e.metadata.creation_timestamp), e.name),
    )
    spelling = asked.strip()
    folded = spelling.lower()
    tests = (
        lambda e: e.name == spelling,
        lambda e: folded in {alias.lower() for alias in e.spec.aliases},
        lambda e: e.name == folded,
        lambda e: known(spelling) and e.name == normalise(spelling),
    )
    return next((e for test in tests for e in there if test(e)), None)


def engine_of_pod(meta: Meta) -> str | None:
    """The TTSEngine that a pod was started with, "" for none; None = the pod does not say (an older operator's)."""
    return meta.annotations.get(ANNOTATION_TTS)


def conditions(choice: Choice, pod: Meta | None, engines: Sequence[TtsEngine], fixed_url: str) -> tuple[Saying, ...]:
    """The condition TTSReady of an instance, or nothing where a server of the pool's own is used.

    ``pod``: metadata of its pod, which keeps the engine that it was started with.
    """
    made_for = engine_of_pod(pod) if pod is not None else None
    name = choice.name if made_for is None else made_for
    if not name and (fixed_url or not (engines or choice.unknown)):
        return ()
    note = ""
    if choice.unknown:
        note = f"{choice.unknown!r} is no TTSEngine here (kubectl get tts), {choice.label} speaks; "
    if not name:
        text = "no TTSEngine here; create one, or name a server in spec.tts.url of the AvatarPool"
        if choice.name:
            text = f"the pod was started without {choice.name}; it is replaced when nobody uses it"
        return (("TTSReady", "False", "NoEngine", note + text),)
    engine = next((e for e in engines if e.name == name and e.metadata.deletion_timestamp is None), None)
    if engine is None:
        text = f"TTSEngine {name} was deleted; the pod is replaced by one that has another when nobody uses it"
        return (("TTSReady", "False", "EngineDeleted", note + text),)
    return (("TTSReady", *_state(engine, note, unknown=bool(choice.unknown))),)


def _state(engine: TtsEngine, note: str, *, unknown: bool) -> tuple[str, str, str]:
    """No figures here: each change of the text is a write for every instance."""
    status, more = engine.status, f"(kubectl describe tts {engine.name})"
    match status.phase:
        case "Ready":
            return ("True", "UnknownEngine" if unknown else "Ready", f"{note}{engine.name} at {service_url(engine)}")
        case "Fallback":
            text = f"{engine.name} is unavailable, {status.fallback} speaks in its place: {status.reason} {more}"
            return ("False", "Fallback", note + text)
        case "Failed":
            return ("False", "Failed", f"{note}{engine.name} is unavailable: {status.reason} {more}")
        case "Pending":
            return ("False", "Starting", f"{note}{engine.name} waits: {status.reason} {more}")
    return ("False", "Starting", f"{note}{engine.name} is starting")
