"""Maps the timbre names that people configure onto espeak-ng voices.

Avatars are configured with the names of the neural voices they would have on a GPU box
(``en-US-BrianNeural``), with a short friendly name (``Brian``) or with an espeak-ng voice (``en-gb+f3``).
"""

import re
from dataclasses import dataclass, replace
from pathlib import PurePath


@dataclass(frozen=True)
class Voice:
    """An espeak-ng voice: language plus variant, words per minute, pitch 0–99."""

    espeak: str
    rate: int = 165
    pitch: int = 50
    range: int = 60

    def at_pitch(self, percent: int) -> "Voice":
        """Return the voice at another pitch, 0–100 (Tacotron's prompt_text; 45 is the voice's own)."""
        return replace(self, pitch=max(0, min(99, self.pitch + percent - OWN_PITCH)))


OWN_PITCH = 45
DEFAULT = Voice("en-us+m3", rate=165, pitch=42)

_FEMALE = {
    "ana", "aria", "ava", "clara", "elsa", "emily", "emma", "eloise", "denise", "elvira", "isabella", "jenny",
    "katja", "leah", "libby", "maisie", "michelle", "molly", "nanami", "natasha", "neerja", "seraphina", "sonia",
    "sunhi", "xiaoxiao", "xiaoyi", "yan", "francisca", "svetlana", "ada", "female", "woman",
}  # fmt: skip

_FRIENDLY = {
    "default": DEFAULT,
    "ada": Voice("en-us+f2", rate=165, pitch=58),
    "bruno": Voice("en-us+m3", rate=160, pitch=36),
    "brian": Voice("en-us+m3", rate=165, pitch=42),
    "guy": Voice("en-us+m1", rate=170, pitch=40),
    "andrew": Voice("en-us+m7", rate=160, pitch=44),
    "christopher": Voice("en-us+m2", rate=155, pitch=35),
    "eric": Voice("en-us+m4", rate=165, pitch=45),
    "roger": Voice("en-us+m5", rate=165, pitch=40),
    "steffan": Voice("en-us+m6", rate=165, pitch=46),
    "aria": Voice("en-us+f2", rate=170, pitch=56),
    "jenny": Voice("en-us+f3", rate=165, pitch=60),
    "ava": Voice("en-us+f4", rate=165, pitch=54),
    "emma": Voice("en-us+f1", rate=160, pitch=58),
    "michelle": Voice("en-us+f5", rate=165, pitch=55),
    "ana": Voice("en-us+f4", rate=170, pitch=75),
    "ryan": Voice("en-gb+m3", rate=165, pitch=42),
    "thomas": Voice("en-gb+m2", rate=160, pitch=38),
    "sonia": Voice("en-gb+f2", rate=165, pitch=56),
    "libby": Voice("en-gb+f3", rate=165, pitch=60),
    "xiaoxiao": Voice("cmn+f2", rate=165, pitch=58),
    "yunxi": Voice("cmn+m3", rate=165, pitch=45),
    "yunxia": Voice("cmn+m7", rate=165, pitch=60),
}

# espeak-ng's name for a language where it is not simply the BCP 47 one in small letters.
_LANGUAGES = {"en-us": "en-us", "en-gb": "en-gb", "zh-cn": "cmn", "zh-tw": "cmn", "zh-hk": "yue", "pt-br": "pt-br"}
_NEURAL = re.compile(r"^([a-z]{2,3})-([A-Za-z]{2,4})-(.+?)(?:Multilingual)?Neural$")
_ESPEAK = re.compile(r"^[a-z]{2,3}(?:-[a-z0-9]{1,8}){0,3}(?:\+[A-Za-z0-9_]{1,20})?$")


# Who speaks when nobody asks for a voice: the stand-ins of the four engines are told apart by ear.
_DEFAULTS = {
    "tacotron": Voice("en-us+f2", rate=150, pitch=55),
    "cosyvoice": Voice("en-us+f4", rate=160, pitch=54),
    "sovits": Voice("en-us+m7", rate=160, pitch=48),
}


def default_for(model: str) -> Voice:
    """Return the voice that an engine has of itself."""
    return _DEFAULTS.get(model, DEFAULT)


def timbre_of(reference: str) -> str:
    """Return the name of the voice that a reference recording stands for: ``/voices/Brian.wav`` is Brian."""
    path = PurePath(reference.strip())
    return path.stem if path.suffix.lower() in (".wav", ".mp3", ".ogg", ".flac", ".m4a") else reference.strip()


def resolve(name: str | None, default: Voice = DEFAULT) -> Voice:
    """Return the voice for a timbre name; anything unknown gets the default, never an error.

    A wrong timbre is a cosmetic fault: an avatar that speaks with another voice is better than a mute one.
    """
    text = (name or "").strip()
    friendly = _FRIENDLY.get(text.lower())
    if friendly is not None:
        return friendly
    match = _NEURAL.match(text)
    if match is not None:
        language, region, person = match.group(1).lower(), match.group(2).lower(), match.group(3).lower()
        known = _FRIENDLY.get(person)
        espeak = _LANGUAGES.get(f"{language}-{region}", language)
        if known is not None and known.espeak.split("+")[0] == espeak:
            return known
        female = person in _FEMALE
        return Voice(f"{espeak}+{'f2' if female else 'm3'}", pitch=56 if female else 42)
    if _ESPEAK.match(text):
        return Voice(text)
    return default


def names() -> list[str]:
    """Return the friendly timbre names, sorted."""
    return sorted(_FRIENDLY)
