"""What a session received, with media time and arrival time, and the common timeline of its two tracks.

**The timeline.** Each track counts its own media time (``pts``) from its own first frame, so the two have no
common zero. RTCP sender reports would tell it, but aiortc keeps them to itself. What is left is the receiver's
clock: a track's zero is the median of *arrival − pts* over the whole recording, which smooths network and
scheduling jitter. aiortc's jitter buffers hold frames back, and differently for the two kinds: a picture comes
out when the first packet of the next one arrives, a piece of audio when the fourth after it arrives. That is no
delay of the sender, and browsers (which align tracks by the sender's clock) have none of it. So an arrival is
paired with the pts of the packet that truly arrived at that moment. Both tracks are then on the clock of the
moment at which their packets reached this machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import av
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.uint8]
Samples = NDArray[np.int16]
Times = NDArray[np.float64]

VIDEO_HOLD, AUDIO_HOLD = 1, 4
"""How many frames of its kind aiortc's jitter buffer waits for before it lets one go."""


class NoMedia(ValueError):
    """There is too little in the recording to say anything about it."""


@dataclass(frozen=True)
class Picture:
    """A received picture: its luma (height × width), media time and arrival time (monotonic), both in seconds."""

    luma: Plane
    pts: float
    arrival: float
    frame: av.VideoFrame | None = None

    @property
    def rgb(self) -> NDArray[np.uint8]:
        """The colours (height × width × 3), converted now. ValueError if the recording keeps luma only."""
        if self.frame is None:
            raise ValueError("this recording keeps no colour: connect with colour=True")
        return np.asarray(self.frame.to_ndarray(format="rgb24"), dtype=np.uint8)


@dataclass(frozen=True)
class Sound:
    """A received piece of mono audio, with the times of its first sample."""

    samples: Samples
    rate: int
    pts: float
    arrival: float


@dataclass
class Recording:
    """All that came. Stops at ``limit`` seconds of each track (``truncated``), to bound the memory."""

    colour: bool = False
    limit: float = 120.0
    pictures: list[Picture] = field(default_factory=list)
    sounds: list[Sound] = field(default_factory=list)
    truncated: bool = False

    def add_video(self, frame: av.VideoFrame, arrival: float) -> None:
        """Keep a picture. Cheap: one copy of the luma plane, colours are converted when asked for."""
        pts = _seconds(frame)
        if self._is_full(self.pictures, pts):
            return
        plane = frame.planes[0]
        luma = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: frame.height, : frame.width]
        kept = frame if self.colour else None
        self.pictures.append(Picture(luma if kept is not None else luma.copy(), pts, arrival, kept))

    def add_audio(self, frame: av.AudioFrame, arrival: float) -> None:
        """Keep a piece of audio, mixed down to mono."""
        pts = _seconds(frame)
        if self._is_full(self.sounds, pts):
            return
        channels = len(frame.layout.channels)
        values = frame.to_ndarray().reshape(-1, channels) if not frame.format.is_planar else frame.to_ndarray().T
        mono = values[:, 0] if channels == 1 else values.astype(np.int32).mean(axis=1)
        self.sounds.append(Sound(mono.astype(np.int16), frame.sample_rate, pts, arrival))

    def _is_full(self, track: Sequence[Picture] | Sequence[Sound], pts: float) -> bool:
        full = bool(track) and pts - track[0].pts > self.limit
        self.truncated |= full
        return full

    def video_times(self) -> Times:
        """When each picture's packets came, smoothed: seconds of the receiver's monotonic clock."""
        pts = np.array([p.pts for p in self.pictures])
        return pts + origin(pts, np.array([p.arrival for p in self.pictures]), VIDEO_HOLD)

    def audio_track(self) -> tuple[Samples, int, float]:
        """The whole sound: mono samples, rate, and the time of the first one on the same clock.

        Pieces lie where their pts says; what was lost is silence.
        """
        pts = np.array([s.pts for s in self.sounds])
        zero = origin(pts, np.array([s.arrival for s in self.sounds]), AUDIO_HOLD)
        rate, first = self.sounds[0].rate, float(pts[0])
        last = self.sounds[-1]
        whole = np.zeros(round((last.pts - first) * rate) + len(last.samples), np.int16)
        for sound in self.sounds:
            at = round((sound.pts - first) * rate)
            if at >= 0:
                whole[at : at + len(sound.samples)] = sound.samples[: len(whole) - at]
        return whole, rate, zero + first


def origin(pts: Times, arrivals: Times, hold: int) -> float:
    """The moment on the receiver's clock at which a track's media time was zero.

    ``hold`` is the number of later frames whose arrival lets a frame go (see the module). Raises `NoMedia` when
    there are not enough frames.
    """
    if len(pts) <= hold + 1:
        raise NoMedia(f"only {len(pts)} frames came")
    return float(np.median(arrivals[: len(arrivals) - hold] - pts[hold:]))


def _seconds(frame: av.VideoFrame | av.AudioFrame) -> float:
    if frame.pts is None or frame.time_base is None:
        raise NoMedia("a frame without a timestamp")
    return float(frame.pts * frame.time_base)
