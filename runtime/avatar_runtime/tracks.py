"""The audio and the video track of a session, both cut from one timeline by one clock."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from fractions import Fraction

from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import AudioFrame, VideoFrame

from avatar_runtime import motion
from avatar_runtime.features import Mouth
from avatar_runtime.pcm import CHUNK, RATE
from avatar_runtime.recorder import Recorder
from avatar_runtime.renderer import Picture, Renderer
from avatar_runtime.speech import Timeline

FPS = 25
VIDEO_CLOCK = 90000
TICKS = VIDEO_CLOCK // FPS

AUDIO_AHEAD = 0.020
"""Seconds by which sound leaves before its time: aiortc's resampler holds one frame back on the way to Opus."""

MOUTH_AHEAD = 0.010
"""Seconds by which the mouth is ahead: a picture stands for the 40 ms that it is shown, and early is better than
late (viewers notice late lips at half the offset of early ones)."""

AUDIO_LATE = 0.25
"""Seconds behind the clock after which sound is left out instead of caught up with."""

VIDEO_LATE = 0.12
"""The same for pictures: a picture left out is hardly seen, a mouth that stays behind the voice is."""


class MediaClock:
    """Seconds since the session's media began: since the first frame that either track was asked for."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._began: float | None = None

    def now(self) -> float:
        """Return the media time; 0 before it began."""
        return 0.0 if self._began is None else self._monotonic() - self._began

    async def until(self, t: float) -> float:
        """Sleep until media time `t`; return how late it is already, in seconds."""
        if self._began is None:
            self._began = self._monotonic()
        wait = t - self.now()
        if wait > 0:
            await asyncio.sleep(wait)
        return max(0.0, -wait)


class SpeechTrack(MediaStreamTrack):
    """16 kHz mono audio in frames of 20 ms."""

    kind = "audio"

    def __init__(self, clock: MediaClock, timeline: Timeline) -> None:
        super().__init__()
        self._clock = clock
        self._timeline = timeline
        self._next = 0
        self.recorder: Recorder | None = None

    async def recv(self) -> AudioFrame:
        """Return the next frame when its time has come."""
        if self.readyState != "live":
            raise MediaStreamError
        late = await self._clock.until(self._next / RATE - AUDIO_AHEAD)
        if late > AUDIO_LATE:
            self._next += int(late * RATE) // CHUNK * CHUNK
        samples = self._timeline.audio(self._next)
        if self.recorder is not None:
            self.recorder.audio(self._next / RATE, samples)
        frame = AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = RATE
        frame.pts = self._next
        frame.time_base = Fraction(1, RATE)
        self._next += CHUNK
        return frame


class FaceTrack(MediaStreamTrack):
    """25 pictures a second of the face that says what the timeline holds."""

    kind = "video"

    def __init__(self, clock: MediaClock, timeline: Timeline, renderer: Renderer, artist: Executor, seed: int) -> None:
        super().__init__()
        self._clock = clock
        self._timeline = timeline
        self._renderer = renderer
        self._artist = artist
        self._seed = seed
        self._next = 0
        self.recorder: Recorder | None = None
        self.sent = 0
        """Pictures handed to the peer so far."""
        self.began: float | None = None
        """When the first one was (seconds since the epoch)."""

    async def recv(self) -> VideoFrame:
        """Return the next picture when its time has come."""
        if self.readyState != "live":
            raise MediaStreamError
        late = await self._clock.until(self._next / FPS)
        if late > VIDEO_LATE:
            self._next += int(late * FPS)
        picture = picture_at(self._timeline, self._next / FPS, self._seed)
        loop = asyncio.get_running_loop()
        planes = await loop.run_in_executor(self._artist, self._renderer.frame, picture)
        if self.recorder is not None:
            self.recorder.video(self._next / FPS, planes)
        frame = VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.pts = self._next * TICKS
        frame.time_base = Fraction(1, VIDEO_CLOCK)
        self._next += 1
        self.sent += 1
        self.began = self.began or time.time()
        return frame


def picture_at(timeline: Timeline, t: float, seed: int) -> Picture:
    """Return what the face looks like at media time `t`."""
    return Picture(
        pose=motion.pose_at(t),
        mouth=Mouth.of(*timeline.mouth(t + MOUTH_AHEAD)),
        lid=motion.lid_at(t, seed),
        gaze=motion.gaze_at(t, seed),
        brow=round(timeline.emphasis(t) * 2),
    )
