"""The timeline of what a session says. Pure: no clock of its own, no I/O.

Times are seconds since the session's media began. Audio frames and video frames are both cut from this one
timeline, which is what keeps the mouth and the voice together.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from avatar_runtime import visemes
from avatar_runtime.pcm import CHUNK, RATE, Samples, loudness
from avatar_runtime.visemes import REST, STEP, Curve, Shape

FADE = 160
"""Samples (10 ms) over which speech that is cut off fades out, so that it does not click."""


@dataclass(frozen=True)
class Utterance:
    """One sentence, or a piece of it, ready to be played: 16 kHz samples and the mouth's curve (rows of 10 ms).

    A piece that ``continues`` follows the one before without a pause; the text is the first one's. ``words``: when
    each begins, in seconds from the start; empty where nobody knows.
    """

    text: str
    samples: Samples
    curve: Curve
    stresses: tuple[float, ...] = ()
    continues: bool = False
    words: tuple[tuple[float, str], ...] = ()

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return len(self.samples) / RATE


def prepare(text: str, samples: Samples, phonemes: Sequence[tuple[float, str]] | None) -> Utterance:
    """Build the utterance; without phonemes the mouth follows the loudness alone."""
    loud = loudness(samples)
    if not phonemes:
        return Utterance(text, samples, visemes.loudness_curve(loud))
    curve = visemes.phoneme_curve(phonemes, len(samples) / RATE)
    stresses = tuple(t for t, ipa in phonemes if visemes.is_stressed(ipa))
    return Utterance(text, samples, visemes.apply_loudness(curve, loud), stresses)


@dataclass(frozen=True)
class Event:
    """Something for the client: ``speaking``, ``subtitle`` (with the text, and its words' times) or ``silent``."""

    name: str
    text: str = ""
    words: tuple[tuple[float, str], ...] = ()


@dataclass
class _Placed:
    start: int  # first sample
    utterance: Utterance
    end: int  # one past the last sample
    announced: bool = False


@dataclass
class Timeline:
    """Utterances placed one after the other."""

    gap: float = 0.12
    _placed: list[_Placed] = field(default_factory=list)
    _speaking: bool = False

    def append(self, utterance: Utterance, not_before: float) -> float:
        """Place an utterance behind all others, at `not_before` at the earliest; return its start in seconds."""
        start = -(-int(not_before * RATE) // CHUNK) * CHUNK
        if self._placed:
            pause = 0 if utterance.continues else int(self.gap * RATE)
            start = max(start, self._placed[-1].end + pause)
        if len(utterance.samples):
            self._placed.append(_Placed(start, utterance, start + len(utterance.samples)))
        return start / RATE

    def cut(self, now: float) -> bool:
        """Silence everything from `now` on; tell whether anything was cut."""
        at = int(now * RATE)
        before = len(self._placed)
        kept = [p for p in self._placed if p.start < at]
        cut = len(kept) < before
        for placed in kept:
            if placed.end > at + FADE:
                placed.end = at + FADE
                cut = True
        self._placed = kept
        return cut

    def end(self) -> float:
        """Return when the last utterance ends (0 when there is none)."""
        return self._placed[-1].end / RATE if self._placed else 0.0

    def is_speaking(self, now: float) -> bool:
        """Tell whether anything is being said or still to be said at `now`."""
        return self.end() > now

    def audio(self, start: int, count: int = CHUNK) -> Samples:
        """Return `count` samples from sample number `start`; silence where nothing is said."""
        result = np.zeros(count, np.int16)
        for placed in self._placed:
            left, right = max(start, placed.start), min(start + count, placed.end)
            if left >= right:
                continue
            piece = placed.utterance.samples[left - placed.start : right - placed.start]
            full_end = placed.start + len(placed.utterance.samples)
            if placed.end < full_end:  # cut off
                ramp = (placed.end - np.arange(left, left + len(piece))) / FADE
                piece = (piece * np.clip(ramp, 0, 1)).astype(np.int16)
            result[left - start : left - start + len(piece)] = piece
        return result

    def mouth(self, t: float) -> Shape:
        """Return the mouth's shape at time `t`."""
        sample = t * RATE
        for placed in self._placed:
            if not placed.start <= sample < placed.end:
                continue
            curve = placed.utterance.curve
            row = (sample - placed.start) / RATE / STEP - 0.5
            low = max(0, min(int(row), len(curve) - 1))
            high = min(low + 1, len(curve) - 1)
            part = max(0.0, min(1.0, row - low))
            shape = curve[low] * (1 - part) + curve[high] * part
            return float(shape[0]), float(shape[1]), float(shape[2])
        return REST

    def emphasis(self, t: float) -> float:
        """Return 0–1: how close `t` is to a stressed syllable (the brows rise with it)."""
        for placed in self._placed:
            local = t - placed.start / RATE
            if -0.2 <= local <= placed.utterance.duration + 0.2 and t * RATE < placed.end:
                near = min((abs(local - s - 0.08) for s in placed.utterance.stresses[::2]), default=1.0)
                return max(0.0, 1 - near / 0.22)
        return 0.0

    def advance(self, now: float) -> list[Event]:
        """Return what happened up to `now` since the last call, and forget what is long over."""
        events: list[Event] = []
        at = now * RATE
        for placed in self._placed:
            if placed.start <= at and not placed.announced:
                placed.announced = True
                if not self._speaking:
                    self._speaking = True
                    events.append(Event("speaking"))
                if placed.utterance.text:
                    events.append(Event("subtitle", placed.utterance.text, placed.utterance.words))
        if self._speaking and not self.is_speaking(now):
            self._speaking = False
            events.append(Event("silent"))
        self._placed = [p for p in self._placed if p.end > at - RATE]
        return events


def split_sentences(text: str, longest: int = 220) -> list[str]:
    """Cut a text where a speaker would breathe, so that the first words are heard early.

    Sentences end at . ! ? … ; : and their full-width relatives or at a line's end; an overlong sentence is cut
    at a comma, else at a space, else at `longest` characters. No character but white space is lost.
    """
    sentences: list[str] = []
    for line in text.splitlines():
        current = ""
        for index, char in enumerate(line):
            current += char
            following = line[index + 1 : index + 2]
            ends = char in "。！？；…" or (char in ".!?;:" and (not following or following.isspace()))
            if ends and len(current.strip()) > 1:
                sentences.append(current)
                current = ""
        sentences.append(current)
    result: list[str] = []
    for sentence in (s.strip() for s in sentences):
        rest = sentence
        while len(rest) > longest:
            window = rest[:longest]
            cut = max(window.rfind(", "), window.rfind("，"), window.rfind("、"))
            cut = cut if cut > longest // 3 else window.rfind(" ")
            cut = cut + 1 if cut > 0 else longest
            result.append(rest[:cut].strip())
            rest = rest[cut:].strip()
        if rest:
            result.append(rest)
    return [s for s in result if any(c.isalnum() for c in s)]
