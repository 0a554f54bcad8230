"""Sample rate conversion and WAV, with the standard library alone."""

import io
import math
import wave
from array import array
from itertools import repeat
from typing import TypeAlias

Samples: TypeAlias = "array[int]"
"""Mono, signed 16 bit."""

RATE = 24000
"""Samples per second of everything that the server answers, unless its contract says otherwise."""


def resample(samples: "array[int]", source: int, target: int) -> "array[int]":
    """Convert mono s16 samples from `source` to `target` Hz by Catmull-Rom interpolation.

    Made for small upsampling steps such as 22 050 → 24 000 Hz, where it needs no low-pass filter. It works
    phase by phase over slices: the ratio is rational, so every `up`-th output sample has the same weights.
    """
    if source == target or not samples:
        return array("h", samples)
    divisor = math.gcd(source, target)
    down, up = source // divisor, target // divisor
    length = len(samples) * up // down
    padded = [samples[0], *samples, samples[-1], samples[-1], samples[-1]]
    result = array("h", bytes(2 * length))
    for phase in range(min(up, length)):
        start, rest = divmod(phase * down, up)
        f = rest / up
        weights = (
            f * (-0.5 + f - 0.5 * f * f),
            1 + f * f * (-2.5 + 1.5 * f),
            f * (0.5 + 2 * f - 1.5 * f * f),
            f * f * (-0.5 + 0.5 * f),
        )
        count = (length - phase + up - 1) // up
        taps = [padded[start + k :: down][:count] for k in range(4)]
        values = map(_mix, *taps, repeat(weights))
        column = array("h", values)
        result[phase::up] = column
    return result


def _mix(a: int, b: int, c: int, d: int, weights: tuple[float, float, float, float]) -> int:
    value = int(a * weights[0] + b * weights[1] + c * weights[2] + d * weights[3])
    return max(-32768, min(32767, value))


def wav_header(rate: int) -> bytes:
    """Return the header of a mono s16 WAV whose length nobody knows yet."""
    head = bytearray(wav(array("h"), rate))
    # Sizes that cannot be: players and decoders take what comes.
    head[4:8] = head[40:44] = b"\xff\xff\xff\xff"
    return bytes(head)


def wav(samples: "array[int]", rate: int) -> bytes:
    """Return a mono s16 WAV file."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return buffer.getvalue()
