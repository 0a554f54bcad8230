"""Both tracks against one clock that the test turns."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from aiortc.mediastreams import MediaStreamError
from av.frame import Frame

from avatar_runtime import avatar
from avatar_runtime.pcm import RATE
from avatar_runtime.renderer import Renderer
from avatar_runtime.speech import Timeline
from avatar_runtime.tracks import AUDIO_AHEAD, FaceTrack, MediaClock, SpeechTrack, picture_at
from tests.runtime.launch import AVATARS
from tests.runtime.test_speech import tone


class Hand:
    """Turns the clock; sleeping turns it too."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.time = 100.0
        self.slept: list[float] = []
        monkeypatch.setattr(asyncio, "sleep", self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds

    def __call__(self) -> float:
        return self.time


def pts_of(frame: Frame) -> int:
    assert frame.pts is not None
    return frame.pts


@pytest.fixture
def hand(monkeypatch: pytest.MonkeyPatch) -> Hand:
    return Hand(monkeypatch)


@pytest.fixture
def artist() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(avatar.load(AVATARS, "ada"))


async def test_sound_comes_every_20_ms_one_frame_early(hand: Hand) -> None:
    track = SpeechTrack(MediaClock(hand), Timeline())
    pts = []
    for _ in range(50):
        frame = await track.recv()
        pts.append(pts_of(frame))
        assert hand.time - 100 == pytest.approx(max(0.0, pts_of(frame) / RATE - AUDIO_AHEAD), abs=1e-6)
    assert set(np.diff(pts)) == {320}
    assert (frame.sample_rate, frame.samples, frame.layout.name) == (16000, 320, "mono")


async def test_pictures_come_at_25_a_second(hand: Hand, renderer: Renderer, artist: ThreadPoolExecutor) -> None:
    track = FaceTrack(MediaClock(hand), Timeline(), renderer, artist, seed=1)
    pts = [pts_of(await track.recv()) for _ in range(10)]
    assert set(np.diff(pts)) == {3600}
    assert hand.time - 100 == pytest.approx(9 / 25)


async def test_after_a_stall_both_tracks_are_back_on_the_clock(
    hand: Hand, renderer: Renderer, artist: ThreadPoolExecutor
) -> None:
    clock = MediaClock(hand)
    sound, face = SpeechTrack(clock, Timeline()), FaceTrack(clock, Timeline(), renderer, artist, seed=1)
    await sound.recv()
    await face.recv()
    hand.time += 2.0
    heard, seen = await sound.recv(), await face.recv()
    assert pts_of(heard) / 16000 == pytest.approx(2.0, abs=0.06)
    assert pts_of(seen) / 90000 == pytest.approx(2.0, abs=0.06)


async def test_a_short_hiccup_loses_no_sound(hand: Hand) -> None:
    track = SpeechTrack(MediaClock(hand), Timeline())
    await track.recv()
    hand.time += 0.2
    pts = [pts_of(await track.recv()) for _ in range(15)]
    assert set(np.diff(pts)) == {320}


async def test_the_mouth_moves_with_the_voice(hand: Hand) -> None:
    timeline = Timeline()
    timeline.append(tone(0.5), 0.4)
    shapes = [picture_at(timeline, n / 25, 1).mouth.open for n in range(40)]
    assert shapes[:9] == [0] * 9
    assert max(shapes) >= 8
    assert shapes[24:] == [0] * 16


async def test_a_stopped_track_ends(hand: Hand) -> None:
    track = SpeechTrack(MediaClock(hand), Timeline())
    track.stop()
    with pytest.raises(MediaStreamError):
        await track.recv()
