"""The client's measurements, on recordings of which the truth is known."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avatar_client import analysis, mouth
from avatar_client.recording import AUDIO_HOLD, VIDEO_HOLD, NoMedia, Picture, Recording, Sound, Times, origin
from avatar_client.signalling import base_url

RATE = 48000
FPS = 25


def syllables(seconds: float, seed: int = 1) -> np.ndarray:
    """A loudness curve like speech, at 1 kHz: silence, bumps at four a second, silence."""
    random = np.random.default_rng(seed)
    times = np.arange(round(seconds * 1000)) / 1000
    curve = np.zeros_like(times)
    at = 0.6
    while at < seconds - 0.8:
        width, height = random.uniform(0.04, 0.09), random.uniform(0.4, 1.0)
        curve += height * np.exp(-0.5 * ((times - at - width) / width) ** 2)
        at += random.uniform(0.18, 0.34)
    return np.clip(curve, 0, 1)


def face(opening: float, sway: float = 0.0) -> np.ndarray:
    """A face's luma, 176 × 176: skin, hair, and a mouth with teeth."""
    luma = np.full((176, 176), 180, np.uint8)
    luma[:, :36] = luma[:, 140:] = 60
    centre, middle = 88 + round(sway), 116
    half = round(opening * 14)
    if half:
        luma[middle - half : middle + half, centre - 16 : centre + 16] = 30
        luma[middle - half : middle - half + half // 3, centre - 14 : centre + 14] = 230
    return luma


def recording(late: float = 0.0, *, seconds: float = 5.0, jitter: float = 0.0, follows: bool = True) -> Recording:
    """A recording whose picture is ``late`` seconds behind its sound, with arrivals as aiortc's buffers make them."""
    random = np.random.default_rng(7)
    loud = syllables(seconds)
    other = loud if follows else syllables(seconds, seed=99)
    result = Recording()
    zero_video, zero_audio = 1000.31, 1000.04
    for number in range(round(seconds * FPS)):
        pts = number / FPS
        told = zero_video + pts - late - zero_audio  # what the sound is at when the picture was made for it
        value = float(np.interp(told, np.arange(len(other)) / 1000, other, left=0, right=0))
        held = VIDEO_HOLD / FPS + abs(random.normal(0, jitter))
        result.pictures.append(Picture(face(value, 2 * np.sin(pts)), pts, zero_video + pts + held))
    carrier = np.sin(2 * np.pi * 180 * np.arange(round(seconds * RATE)) / RATE)
    curve = np.interp(np.arange(len(carrier)) / RATE, np.arange(len(loud)) / 1000, loud)
    samples = (9000 * curve * carrier).astype(np.int16)
    for at in range(0, len(samples) - 959, 960):
        held = AUDIO_HOLD * 0.02 + abs(random.normal(0, jitter))
        result.sounds.append(Sound(samples[at : at + 960], RATE, at / RATE, zero_audio + at / RATE + held))
    return result


@pytest.mark.parametrize("late", [-0.2, -0.06, 0.0, 0.04, 0.15])
def test_a_known_offset_is_found(late: float) -> None:
    report = analysis.analyse(recording(late))
    assert report.offset_ms == pytest.approx(late * 1000, abs=12)
    assert report.fps == pytest.approx(25)
    assert (report.width, report.height) == (176, 176)


def test_jitter_of_arrivals_does_not_move_the_offset() -> None:
    assert analysis.analyse(recording(0.03, jitter=0.02)).offset_ms == pytest.approx(30, abs=15)


def test_a_mouth_that_follows_the_voice_is_told_from_one_that_does_not() -> None:
    assert analysis.analyse(recording()).correlation > 0.85
    assert analysis.analyse(recording(follows=False)).correlation < 0.5
    assert analysis.analyse(recording(0.25)).correlation < 0.5


def test_speech_is_measured_from_first_to_last_sound() -> None:
    found = recording()
    loud = syllables(5.0)
    voiced = np.flatnonzero(loud > 0.04 * np.percentile(loud, 99)) / 1000
    report = analysis.analyse(found)
    assert report.speech == pytest.approx(voiced[-1] - voiced[0], abs=0.05)
    assert report.start == pytest.approx(voiced[0], abs=0.05)
    assert report.peak == pytest.approx(9000 / 32768 / np.sqrt(2), rel=0.15)
    opened = mouth.opening([p.luma for p in found.pictures])
    assert opened[report.widest] == opened.max()


def test_the_mouth_is_found_and_measured() -> None:
    values = np.clip(np.abs(np.sin(np.arange(100) / 3)), 0, 1)
    pictures = [face(float(v), 2 * np.sin(i / 25)) for i, v in enumerate(values)]
    box = mouth.find(pictures)
    assert box.top < 104 < 128 < box.bottom
    assert box.left < 76 < 100 < box.right
    assert box.bottom - box.top < 70
    assert np.corrcoef(mouth.opening(pictures, box), values)[0, 1] > 0.98


def test_a_still_face_has_no_correlation() -> None:
    found = recording()
    found.pictures = [Picture(face(0), p.pts, p.arrival) for p in found.pictures]
    assert analysis.analyse(found).correlation == 0


def test_too_little_is_said_so() -> None:
    with pytest.raises(NoMedia, match="0 pictures"):
        analysis.analyse(Recording())
    silent = recording()
    silent.sounds = [Sound(np.zeros_like(s.samples), s.rate, s.pts, s.arrival) for s in silent.sounds]
    with pytest.raises(NoMedia, match="no speech"):
        analysis.analyse(silent)
    deaf = recording()
    deaf.pictures = deaf.pictures[:3]
    with pytest.raises(NoMedia, match="no pictures of the speech"):
        analysis.analyse(deaf)


@settings(max_examples=30)
@given(st.lists(st.floats(0, 0.5), min_size=40, max_size=40), st.integers(0, 4))
def test_the_origin_is_a_median(delays: list[float], hold: int) -> None:
    """Less than half of the frames may be late by any amount."""
    pts: Times = np.asarray(np.arange(100) * 0.02, dtype=np.float64)
    arrivals: Times = np.asarray(50.0 + pts + hold * 0.02, dtype=np.float64)
    arrivals[10:50] += delays
    assert origin(pts, arrivals, hold) == pytest.approx(50.0, abs=1e-6)


def test_lost_audio_is_silence_in_its_place() -> None:
    found = recording()
    whole, rate, zero = found.audio_track()
    del found.sounds[100]
    gap, _, zero_after = found.audio_track()
    assert (rate, len(gap)) == (RATE, len(whole))
    assert zero_after == pytest.approx(zero, abs=1e-6)
    assert not gap[100 * 960 : 101 * 960].any()
    assert np.array_equal(gap[101 * 960 :], whole[101 * 960 :])


def test_frames_are_kept_cheaply_and_only_up_to_the_limit() -> None:
    found = Recording(limit=1.0)
    for number in range(50):
        video = av.VideoFrame.from_ndarray(np.full((96, 64), number, np.uint8), format="yuv420p")
        video.pts, video.time_base = number * 3600, Fraction(1, 90000)
        found.add_video(video, number / 25)
        audio = av.AudioFrame.from_ndarray(np.array([[100, 300] * 960], np.int16), format="s16", layout="stereo")
        audio.sample_rate, audio.pts, audio.time_base = RATE, number * 960, Fraction(1, RATE)
        found.add_audio(audio, number / 50)
    assert (len(found.pictures), found.truncated) == (26, True)
    assert found.pictures[3].luma.shape == (64, 64)
    assert (found.pictures[3].luma == 3).all()
    assert (found.sounds[0].samples == 200).all()
    assert found.sounds[10].pts == pytest.approx(0.2)
    with pytest.raises(ValueError, match="colour"):
        _ = found.pictures[0].rgb


@pytest.mark.parametrize("url", ["http://h:8615", "http://h:8615/", "http://h:8615/offer", "http://h:8615/offer/"])
def test_urls_with_and_without_the_route(url: str) -> None:
    assert base_url(url) == "http://h:8615"
