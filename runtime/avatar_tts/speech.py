"""Speech with its phonemes, as espeak-ng makes it."""

from array import array
from dataclasses import dataclass


class EspeakError(RuntimeError):
    """The library could not be loaded or could not speak the text."""


@dataclass(frozen=True)
class Phoneme:
    """A phoneme and where it starts, in seconds from the start of the speech; ``ipa`` is "" for a pause."""

    t: float
    ipa: str


@dataclass(frozen=True)
class Word:
    """A word of the text: where it starts in seconds, its first character, and how many it has."""

    t: float
    start: int
    length: int


@dataclass(frozen=True)
class Speech:
    """Mono signed 16-bit samples at `rate` Hz with their timeline of phonemes and words."""

    rate: int
    samples: "array[int]"
    phonemes: tuple[Phoneme, ...]
    words: tuple[Word, ...] = ()
