"""What a viewer would notice about a recording: length, loudness, lip movement, synchrony, frame rate. Pure numpy.

Conventions: times are seconds; an **offset** is in milliseconds and **positive when the picture is late**, that
is when the lips move after the sound. ITU-R BT.1359 puts the limits of what viewers notice at about 45 ms of late
and 125 ms of early picture in relation to the sound; we ask for −60…+40 ms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avatar_client import mouth
from avatar_client.recording import NoMedia, Recording

Series = NDArray[np.float64]

STEP = 0.010
"""Seconds between two values of a loudness envelope."""

MARGIN = 0.15
"""Seconds before and after the speech that are compared too: there the mouth must be shut."""

REACH = 0.4
"""Largest offset that is looked for, in seconds."""


@dataclass(frozen=True)
class Report:
    """The figures of one recording. ``start`` and ``end`` count from its first picture or sound."""

    fps: float
    width: int
    height: int
    pictures: int
    start: float
    end: float
    peak: float
    correlation: float
    offset_ms: float
    widest: int

    @property
    def speech(self) -> float:
        """Seconds from the first to the last sound of the speech."""
        return self.end - self.start


def envelope(samples: NDArray[np.int16], rate: int) -> Series:
    """Return the RMS of the samples each 10 ms, in parts of full scale."""
    hop = round(rate * STEP)
    count = len(samples) // hop
    blocks = samples[: count * hop].astype(np.float64).reshape(count, hop)
    result: Series = np.sqrt((blocks**2).mean(axis=1)) / 32768
    return result


def speech_span(loudness: Series) -> tuple[float, float]:
    """Return when the speech starts and ends, in seconds from the envelope's start; `NoMedia` when there is none.

    Sound is what exceeds 4 % of the loud parts. A lone click (under 30 ms) is none.
    """
    reference = float(np.percentile(loudness, 99)) if len(loudness) else 0.0
    if reference < 0.003:
        raise NoMedia("there is no speech in the recording, only silence")
    loud = loudness > 0.04 * reference
    steady = np.convolve(loud, np.ones(3), mode="same") >= 2
    where = np.flatnonzero(loud & steady)
    if not len(where):
        raise NoMedia("there is no speech in the recording, only clicks")
    return float(where[0] * STEP), float((where[-1] + 1) * STEP)


def blur(values: Series, sigma: float) -> Series:
    """Smooth an envelope with a Gaussian of ``sigma`` seconds, symmetric: nothing shifts."""
    radius = max(1, round(3 * sigma / STEP))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) * STEP / sigma) ** 2)
    return np.convolve(np.pad(values, radius, mode="edge"), kernel / kernel.sum(), mode="valid")


def correlate(a: Series, b: Series) -> float:
    """Pearson's correlation; 0 when one of the two does not move."""
    if len(a) < 3 or np.std(a) < 1e-12 or np.std(b) < 1e-12:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def offset(opening: Series, times: Series, loudness: Series, start: float, end: float) -> tuple[float, float]:
    """Return (correlation as received, offset in ms) of a mouth and a voice between ``start`` and ``end``.

    ``times`` are the pictures' and the envelope begins at 0 of the same clock. The offset is where the
    correlation of the mouth with the shifted envelope is best, refined by a parabola.
    """
    ticks = np.arange(len(loudness)) * STEP + STEP / 2
    chosen = (times >= start - MARGIN) & (times <= end + MARGIN)
    values, moments = opening[chosen], times[chosen]
    if len(values) < 5:
        raise NoMedia("there are no pictures of the speech")
    # A picture stands for the 40 ms that it is shown, and lips are slower than sound: compare the smooth loudness.
    smooth = blur(loudness, 0.03)

    def at(lag: float) -> float:
        return correlate(values, np.interp(moments - lag, ticks, smooth, left=0, right=0))

    lags = np.arange(-REACH, REACH + STEP / 4, STEP / 2)
    scores = np.array([at(float(lag)) for lag in lags])
    best = int(scores.argmax())
    shift = float(lags[best])
    if 0 < best < len(lags) - 1:
        left, middle, right = scores[best - 1 : best + 2]
        bend = left - 2 * middle + right
        if bend < -1e-12:
            shift += float((left - right) / (2 * bend)) * STEP / 2
    return at(0.0), shift * 1000


def fps(pts: Series) -> float:
    """Return the pictures per second of media time."""
    if len(pts) < 2 or pts[-1] <= pts[0]:
        raise NoMedia("there are fewer than two pictures")
    return float((len(pts) - 1) / (pts[-1] - pts[0]))


def analyse(recording: Recording) -> Report:
    """Judge a recording; `NoMedia` when it holds no pictures or no speech."""
    if not recording.pictures or not recording.sounds:
        raise NoMedia(f"{len(recording.pictures)} pictures and {len(recording.sounds)} pieces of audio came")
    video = recording.video_times()
    samples, rate, audio_start = recording.audio_track()
    loudness = envelope(samples, rate)
    start, end = speech_span(loudness)
    during = np.flatnonzero((video >= audio_start + start - 1) & (video <= audio_start + end + 1))
    if len(during) < 5:
        raise NoMedia("there are no pictures of the speech")
    # The encoder may change the size under way; the mouth is looked for in the pictures of one size.
    shape = recording.pictures[int(during[0])].luma.shape
    during = np.array([i for i in during if recording.pictures[int(i)].luma.shape == shape])
    opened = mouth.opening([recording.pictures[int(i)].luma for i in during])
    correlation, late = offset(opened, video[during] - audio_start, loudness, start, end)
    zero = min(float(video[0]), audio_start) - audio_start
    return Report(
        fps=fps(np.array([p.pts for p in recording.pictures])),
        width=shape[1],
        height=shape[0],
        pictures=len(recording.pictures),
        start=start - zero,
        end=end - zero,
        peak=float(np.percentile(loudness, 99)),
        correlation=correlation,
        offset_ms=late,
        widest=int(during[int(opened.argmax())]),
    )
