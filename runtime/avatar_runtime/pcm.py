"""Audio in memory: WAV decoding, resampling to the renderer's rate, loudness. Pure numpy."""

import io
import struct
import wave
from math import gcd

import numpy as np
from numpy.typing import NDArray

from avatar_runtime.visemes import STEP, smooth

RATE = 16000
"""Samples per second inside the runtime, mono."""

CHUNK = 320
"""Samples of one audio frame (20 ms)."""

Samples = NDArray[np.int16]


class AudioError(ValueError):
    """The bytes are no audio that this runtime understands."""


def decode_wav(data: bytes) -> tuple[Samples, int]:
    """Return (mono samples, rate) of a PCM WAV file of 8, 16, 24 or 32 bits and any channel count.

    Streaming servers write a length of 0 or 0xFFFFFFFF into the header; the data that came counts.
    """
    try:
        with wave.open(io.BytesIO(_repair(data))) as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            raw = file.readframes(file.getnframes())
    except (wave.Error, EOFError, struct.error, RuntimeError, ValueError) as error:
        # RuntimeError is what the standard library raises for a chunk that ends outside the file.
        raise AudioError(f"not a PCM WAV file: {error}") from error
    if not 4000 <= rate <= 192000 or channels < 1 or not 1 <= width <= 4:
        raise AudioError(f"WAV with {channels} channels of {8 * width} bits at {rate} Hz")
    raw = raw[: len(raw) - len(raw) % (width * channels)]
    if width == 1:
        values = (np.frombuffer(raw, np.uint8).astype(np.int16) - 128) << 8
    elif width == 2:
        values = np.frombuffer(raw, "<i2").astype(np.int16)
    elif width == 3:
        values = np.frombuffer(raw, np.uint8).reshape(-1, 3)[:, 1:].copy().view("<i2").reshape(-1)
    else:
        values = (np.frombuffer(raw, "<i4") >> 16).astype(np.int16)
    if channels > 1:
        values = values.reshape(-1, channels).mean(axis=1).astype(np.int16)
    return values.astype(np.int16), rate


def _repair(data: bytes) -> bytes:
    """Put the true sizes into the header of a WAV that was streamed."""
    if len(data) < 44 or data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise AudioError("not a WAV file")
    position = 12
    while position + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, position)
        if name == b"data":
            rest = len(data) - position - 8
            if size == 0 or size > rest:
                head = bytearray(data)
                struct.pack_into("<I", head, position + 4, rest)
                struct.pack_into("<I", head, 4, len(data) - 8)
                return bytes(head)
            return data
        position += 8 + size + (size & 1)
    return data


def resample(samples: Samples, source: int, target: int = RATE) -> Samples:
    """Convert mono samples with a windowed-sinc polyphase filter; no shift in time."""
    if source == target or not len(samples):
        return samples.astype(np.int16)
    divisor = gcd(source, target)
    up, down = target // divisor, source // divisor
    if up > 1000:
        return _resample_linear(samples, source, target)
    half = 16 * max(1.0, down / up)
    taps = int(np.ceil(half))
    cutoff = min(1.0, up / down) * 0.95
    length = len(samples) * up // down
    padded = np.concatenate([np.zeros(taps, np.float32), samples.astype(np.float32), np.zeros(taps + 1, np.float32)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * taps + 1)
    result = np.empty(length, np.float32)
    offsets = np.arange(-taps, taps + 1)
    for phase in range(min(up, length)):
        start, rest = divmod(phase * down, up)
        distance = offsets - rest / up
        kernel = cutoff * np.sinc(cutoff * distance) * (0.5 + 0.5 * np.cos(np.pi * np.clip(distance / half, -1, 1)))
        count = (length - phase + up - 1) // up
        result[phase::up] = windows[start::down][:count] @ (kernel / kernel.sum()).astype(np.float32)
    return np.clip(np.round(result), -32768, 32767).astype(np.int16)


def _resample_linear(samples: Samples, source: int, target: int) -> Samples:
    length = len(samples) * target // source
    positions = np.arange(length) * (source / target)
    result: Samples = np.interp(positions, np.arange(len(samples)), samples).astype(np.int16)
    return result


def loudness(samples: Samples) -> NDArray[np.float32]:
    """Return the loudness of 16 kHz speech each 10 ms, 0–1 where 1 is a loud syllable of this very speech."""
    hop = round(RATE * STEP)
    count = max(1, len(samples) // hop)
    power = np.zeros(count * hop, np.float32)
    power[: min(len(samples), count * hop)] = samples[: count * hop].astype(np.float32) ** 2
    rms = np.sqrt(smooth(power.reshape(count, hop).mean(axis=1), sigma=0.012).clip(min=0))
    reference = float(np.percentile(rms, 92))
    if reference < 20:  # digital silence or noise far below any voice
        return np.zeros(count, np.float32)
    result: NDArray[np.float32] = np.clip(rms / reference, 0, 1).astype(np.float32)
    return result
