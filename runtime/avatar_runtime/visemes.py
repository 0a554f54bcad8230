"""From phonemes (IPA) to mouth shapes, and from a timeline of them to a smooth curve. Pure.

A shape has three numbers in 0–1: `OPEN` (jaw and lips apart), `WIDTH` (corners apart; 0.5 at rest), `ROUND`
(lips pushed forward). Curves are float32 arrays of shape (n, 3), one row each 10 ms.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

STEP = 0.010
"""Seconds between two rows of a curve."""

OPEN, WIDTH, ROUND = 0, 1, 2
Shape = tuple[float, float, float]
Curve = NDArray[np.float32]

REST: Shape = (0.0, 0.5, 0.0)

_TABLE: dict[str, Shape] = {
    # lips shut
    "p": (0.0, 0.48, 0.0), "b": (0.0, 0.48, 0.0), "m": (0.0, 0.48, 0.0), "ɱ": (0.05, 0.5, 0.0),
    # lower lip to the teeth
    "f": (0.10, 0.55, 0.0), "v": (0.12, 0.55, 0.0), "ʋ": (0.15, 0.5, 0.1),
    # tongue at the teeth or the ridge
    "θ": (0.22, 0.55, 0.0), "ð": (0.24, 0.55, 0.0), "t": (0.20, 0.58, 0.0), "d": (0.24, 0.56, 0.0),
    "n": (0.24, 0.54, 0.0), "l": (0.36, 0.52, 0.0), "ɾ": (0.28, 0.54, 0.0), "s": (0.14, 0.64, 0.0),
    "z": (0.16, 0.62, 0.0), "ɬ": (0.22, 0.56, 0.0), "ts": (0.15, 0.62, 0.0), "dz": (0.16, 0.6, 0.0),
    # pushed forward
    "ʃ": (0.20, 0.34, 0.55), "ʒ": (0.22, 0.34, 0.55), "tʃ": (0.20, 0.36, 0.5), "dʒ": (0.22, 0.36, 0.5),
    "ɹ": (0.30, 0.38, 0.35), "r": (0.32, 0.45, 0.15), "ɻ": (0.30, 0.38, 0.35), "ʂ": (0.2, 0.4, 0.35),
    "w": (0.16, 0.20, 0.90), "ʍ": (0.16, 0.2, 0.9), "ɥ": (0.18, 0.25, 0.8),
    # back of the mouth: the lips hardly move
    "k": (0.28, 0.52, 0.0), "ɡ": (0.30, 0.52, 0.0), "g": (0.30, 0.52, 0.0), "ŋ": (0.28, 0.52, 0.0),
    "x": (0.28, 0.5, 0.0), "ɣ": (0.3, 0.5, 0.0), "h": (0.32, 0.52, 0.0), "ʔ": (0.2, 0.5, 0.0),
    "j": (0.28, 0.72, 0.0), "ç": (0.24, 0.64, 0.0), "ɲ": (0.26, 0.56, 0.0), "ʎ": (0.32, 0.58, 0.0),
    "ɕ": (0.2, 0.55, 0.1), "ʁ": (0.3, 0.5, 0.0), "q": (0.3, 0.5, 0.0), "ħ": (0.35, 0.5, 0.0),
    # vowels
    "i": (0.46, 0.86, 0.0), "ɪ": (0.50, 0.72, 0.0), "ᵻ": (0.46, 0.66, 0.0), "y": (0.40, 0.25, 0.85),
    "e": (0.60, 0.72, 0.0), "ɛ": (0.70, 0.66, 0.0), "æ": (0.86, 0.70, 0.0), "a": (0.95, 0.58, 0.0),
    "ɐ": (0.72, 0.54, 0.0), "ɑ": (1.00, 0.48, 0.05), "ɒ": (0.90, 0.38, 0.35), "ʌ": (0.74, 0.52, 0.0),
    "ə": (0.56, 0.52, 0.0), "ɚ": (0.54, 0.42, 0.25), "ɜ": (0.60, 0.42, 0.25), "ɝ": (0.58, 0.42, 0.25),
    "o": (0.66, 0.28, 0.80), "ɔ": (0.80, 0.32, 0.60), "ɤ": (0.60, 0.46, 0.0), "ø": (0.55, 0.3, 0.7),
    "œ": (0.65, 0.34, 0.6), "u": (0.42, 0.16, 1.00), "ʊ": (0.48, 0.28, 0.75), "ɯ": (0.42, 0.55, 0.1),
    "ɨ": (0.45, 0.62, 0.0), "ʉ": (0.42, 0.28, 0.7),
}  # fmt: skip
_UNKNOWN: Shape = (0.35, 0.5, 0.05)
_CLOSURES = frozenset("pbm")
_VOWELS = frozenset("iɪᵻyeɛæaɐɑɒʌəɚɜɝoɔɤøœuʊɯɨʉ")
_IGNORED = frozenset("ˈˌːˑ‿.̩̯͜͡ʰʲʷˠˤ̪̃'_| -")


def shapes_of(ipa: str) -> tuple[Shape, ...]:
    """Return the mouth shapes that one IPA symbol runs through: two for a diphthong, one otherwise.

    A pause (empty string) rests. Unknown symbols get a half-open mouth: some movement is better than none.
    """
    bare = "".join(c for c in ipa if c not in _IGNORED)
    if not bare:
        return (REST,)
    if bare in _TABLE:
        return (_TABLE[bare],)
    if len(bare) > 1 and bare[0] not in _VOWELS and bare[:2] in _TABLE:
        return (_TABLE[bare[:2]],)
    found = tuple(_TABLE[c] for c in bare if c in _TABLE)
    return found or (_UNKNOWN,)


def is_closure(ipa: str) -> bool:
    """Tell whether the lips must meet for this symbol, whatever its neighbours do."""
    return any(c in _CLOSURES for c in ipa)


def is_stressed(ipa: str) -> bool:
    """Tell whether the symbol carries the main stress."""
    return "ˈ" in ipa


def phoneme_curve(phonemes: Sequence[tuple[float, str]], duration: float) -> Curve:
    """Return the mouth's curve for phonemes given as (start in seconds, IPA).

    Starts out of order are sorted, those outside 0–`duration` are clipped. Neighbours blend into each other
    (coarticulation) without shifting in time, and closures are kept.
    """
    count = max(1, round(duration / STEP))
    target = np.tile(np.array(REST, dtype=np.float32), (count, 1))
    ordered = sorted(phonemes, key=lambda p: p[0])
    closures: list[tuple[float, float]] = []
    for index, (begun, ipa) in enumerate(ordered):
        following = ordered[index + 1][0] if index + 1 < len(ordered) else duration
        start, end = (max(0.0, min(t, duration)) for t in (begun, following))
        if end <= start:
            continue
        parts = shapes_of(ipa)
        for number, shape in enumerate(parts):
            left = start + (end - start) * number / len(parts)
            right = start + (end - start) * (number + 1) / len(parts)
            target[round(left / STEP) : round(right / STEP)] = shape
        if is_closure(ipa):
            closures.append((start, end))
    curve = smooth(target, sigma=0.026)
    times = np.arange(count) * STEP
    for start, end in closures:
        middle, half = (start + end) / 2, max(0.02, (end - start) / 2)
        dip = np.exp(-(((times - middle) / half) ** 4))
        curve[:, OPEN] *= (1 - dip).astype(np.float32)
    return curve


def loudness_curve(loudness: NDArray[np.float32]) -> Curve:
    """Return a mouth curve for speech of which only the loudness (0–1, one value each 10 ms) is known."""
    curve = np.tile(np.array(REST, dtype=np.float32), (len(loudness), 1))
    curve[:, OPEN] = 0.92 * loudness**0.8
    # A little life in the corners: wide at onsets, narrow while the sound fades.
    slope = np.gradient(loudness) if len(loudness) > 1 else np.zeros_like(loudness)
    curve[:, WIDTH] = np.clip(0.5 + 1.5 * slope, 0.3, 0.75)
    return smooth(curve, sigma=0.015)


def apply_loudness(curve: Curve, loudness: NDArray[np.float32]) -> Curve:
    """Scale a phoneme curve's opening by the loudness: the same vowel is wider when it is loud.

    The differences between vowels are made a little smaller: on a small picture a close vowel that is loud looks
    wrong with lips that hardly part. Closures stay shut.
    """
    count = min(len(curve), len(loudness))
    result = curve[:count].copy()
    result[:, OPEN] = result[:, OPEN].clip(min=0) ** 0.7 * (0.12 + 0.88 * loudness[:count])
    return result


def smooth(values: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Blur the rows with a Gaussian of `sigma` seconds, symmetric in time so that nothing shifts."""
    radius = max(1, round(3 * sigma / STEP))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) * STEP / sigma) ** 2)
    kernel /= kernel.sum()
    columns = values.reshape(len(values), -1)
    padded = np.pad(columns, ((radius, radius), (0, 0)), mode="edge")
    blurred = [np.convolve(padded[:, i], kernel, mode="valid") for i in range(columns.shape[1])]
    return np.stack(blurred, axis=1).astype(np.float32).reshape(values.shape)
