"""Decoding what a speech server sends while it sends it: samples come out as soon as they can be said."""

import io
import struct
from collections.abc import Iterator
from typing import Protocol

import av
import av.container
import av.error
import numpy as np

from avatar_runtime.pcm import RATE, AudioError, Samples, decode_wav, resample

LIMIT = 64 << 20
"""Bytes of one sentence: five minutes of any format here. More is no speech."""


class Decoder(Protocol):
    """Takes the body piece by piece; gives samples at ``rate``, which is known once samples come."""

    rate: int

    def feed(self, data: bytes, *, whole: bool) -> Samples:
        """Return what can be told by now. ``whole``: the piece is one that the server sent as one."""

    def finish(self) -> Samples:
        """Return the rest. `AudioError` when the body was no sound of this kind."""


class Pcm:
    """Bare samples: mono, signed 16 bit, little-endian."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._rest = b""

    def feed(self, data: bytes, *, whole: bool) -> Samples:
        """Return all samples but half of the last one."""
        data = self._rest + data
        even = len(data) - len(data) % 2
        self._rest = data[even:]
        return np.frombuffer(data[:even], "<i2").astype(np.int16)

    def finish(self) -> Samples:
        """Return nothing; half a sample more or less is not worth an error."""
        return np.zeros(0, np.int16)


class WavStream:
    """A WAV file, streamed or not. What is not mono of 16 bits is decoded when it is whole."""

    def __init__(self) -> None:
        self.rate = 0
        self._head = b""
        self._pcm: Pcm | None = None

    def feed(self, data: bytes, *, whole: bool) -> Samples:
        """Return the samples behind the header, once that is there."""
        if self._pcm is not None:
            return self._pcm.feed(data, whole=whole)
        self._head += data
        start = self._data_start()
        if start is None:
            return np.zeros(0, np.int16)
        self._pcm = Pcm(self.rate)
        return self._pcm.feed(self._head[start:], whole=whole)

    def finish(self) -> Samples:
        """Return a file that could not be streamed, or nothing."""
        if self._pcm is not None:
            return self._pcm.finish()
        samples, self.rate = decode_wav(self._head)
        return samples

    def _data_start(self) -> int | None:
        """Where the samples begin, in a WAV that can be read as it comes."""
        head, at = self._head, 12
        simple = False
        if len(head) < 44 or head[:4] != b"RIFF" or head[8:12] != b"WAVE":
            return None
        while at + 8 <= len(head):
            name, size = struct.unpack_from("<4sI", head, at)
            if name == b"fmt " and at + 24 <= len(head):
                kind, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", head, at + 8)
                simple = kind == 1 and channels == 1 and bits == 16 and 4000 <= rate <= 192000
                self.rate = rate
            if name == b"data":
                return at + 8 if simple else None
            at += 8 + size + (size & 1)
        return None


class OggFiles:
    """Compressed files one after the other, one in each piece that the server sent (GPT-SoVITS' stream)."""

    def __init__(self) -> None:
        self.rate = RATE
        self._rest = b""

    def feed(self, data: bytes, *, whole: bool) -> Samples:
        """Return the sound of each file that is complete."""
        self._rest += data
        if not whole or not self._rest:
            return np.zeros(0, np.int16)
        try:
            samples = decode_file(self._rest)
        except AudioError:
            # A proxy may have cut the pieces anew: the next one may complete it.
            return np.zeros(0, np.int16)
        self._rest = b""
        return samples

    def finish(self) -> Samples:
        """Return what is left."""
        return decode_file(self._rest) if self._rest else np.zeros(0, np.int16)


def decode_file(data: bytes, longest: float | None = None) -> Samples:
    """Return the sound of a file that ffmpeg knows, mono at 16 kHz.

    `AudioError` when it is none, or has more than `longest` seconds.
    """
    parts: list[Samples] = []
    count = 0
    try:
        with av.open(io.BytesIO(data), "r") as file:
            for part in _decoded(file):
                parts.append(part)
                count += len(part)
                if longest is not None and count > longest * RATE:
                    break
    except (av.error.FFmpegError, ValueError, IndexError, OSError) as error:
        raise AudioError(f"not a sound file: {type(error).__name__} {error}") from error
    if longest is not None and count > longest * RATE:
        raise AudioError(f"more than {longest:.0f} seconds of sound")
    return np.concatenate(parts) if parts else np.zeros(0, np.int16)


def _decoded(file: av.container.InputContainer) -> Iterator[Samples]:
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
    for frame in file.decode(audio=0):
        yield from (f.to_ndarray()[0].astype(np.int16) for f in resampler.resample(frame))
    yield from (f.to_ndarray()[0].astype(np.int16) for f in resampler.resample(None))


class Resampler:
    """`pcm.resample` over a stream: each piece is converted with its neighbours at hand, so that no seam is heard."""

    CONTEXT = 480
    """Samples on either side that the filter may look at; a multiple of every ratio's denominator here."""

    def __init__(self) -> None:
        self._before: Samples = np.zeros(0, np.int16)
        self._held: Samples = np.zeros(0, np.int16)

    def feed(self, samples: Samples, rate: int, *, last: bool = False) -> Samples:
        """Return what can be converted by now; ``last`` all of it."""
        self._held = np.concatenate([self._held, samples])
        if rate == RATE:
            out, self._held = self._held, self._held[:0]
            return out
        keep = 0 if last else self.CONTEXT
        ready = len(self._held) - keep
        # Whole cycles only: then every piece begins where a sample of the result is.
        cycle = rate // int(np.gcd(rate, RATE))
        ready -= 0 if last else ready % cycle
        if ready <= 0:
            return self._held[:0] if not last else self._flush(rate, len(self._held))
        return self._flush(rate, ready)

    def _flush(self, rate: int, ready: int) -> Samples:
        cycle = rate // int(np.gcd(rate, RATE))
        lead = len(self._before)
        whole = resample(np.concatenate([self._before, self._held]), rate)
        start, end = lead * RATE // rate, (lead + ready) * RATE // rate
        done, self._held = self._held[:ready], self._held[ready:]
        past = np.concatenate([self._before, done])
        # Cut to whole cycles, too, for the same reason.
        keep = min(len(past), self.CONTEXT)
        self._before = past[len(past) - keep + keep % cycle :] if keep >= cycle else past[:0]
        return whole[start:end]
