"""Visemes, the speech timeline, sentences and PCM: pure, on any machine."""

from __future__ import annotations

import io
import struct
import wave

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avatar_runtime import visemes
from avatar_runtime.pcm import CHUNK, RATE, AudioError, decode_wav, loudness, resample
from avatar_runtime.speech import FADE, Timeline, Utterance, prepare, split_sentences

IPA = st.sampled_from([*"abdefghijklmnopstuvwzæɑɛɪʊʃʒŋθð", "aɪ", "oʊ", "tʃ", "ˈɑː", "", "ʘ", "xyz", "ˌ"])
PHONEMES = st.lists(st.tuples(st.floats(-1, 5, allow_nan=False), IPA), max_size=30)


def tone(seconds: float, hertz: float = 220, amplitude: float = 8000, rate: int = RATE) -> np.ndarray:
    """A sine."""
    times = np.arange(round(seconds * rate)) / rate
    return (amplitude * np.sin(2 * np.pi * hertz * times)).astype(np.int16)


def said(seconds: float, text: str = "words") -> Utterance:
    return prepare(text, tone(seconds), [(0.0, "a")])


# ---- visemes


@given(PHONEMES, st.floats(0, 4))
def test_a_curve_is_as_long_as_the_speech_and_within_bounds(phonemes: list[tuple[float, str]], seconds: float) -> None:
    curve = visemes.phoneme_curve(phonemes, seconds)
    assert curve.shape == (max(1, round(seconds / visemes.STEP)), 3)
    assert np.isfinite(curve).all()
    assert curve.min() >= -1e-6
    assert curve.max() <= 1 + 1e-6


@pytest.mark.parametrize("closed", ["p", "b", "m"])
def test_lips_meet_for_closures_between_open_vowels(closed: str) -> None:
    curve = visemes.phoneme_curve([(0.0, "ɑ"), (0.3, closed), (0.38, "ɑ")], 0.7)
    opening = curve[:, visemes.OPEN]
    assert opening[34] < 0.1
    assert opening[15] > 0.8
    assert opening[55] > 0.8


def test_a_curve_does_not_shift_in_time() -> None:
    curve = visemes.phoneme_curve([(0.0, ""), (0.5, "ɑ"), (0.7, "")], 1.2)[:, visemes.OPEN]
    centre = (curve * np.arange(len(curve))).sum() / curve.sum() * visemes.STEP
    assert centre == pytest.approx(0.6, abs=0.015)


def test_symbols_with_marks_diphthongs_and_strangers_have_shapes() -> None:
    assert visemes.shapes_of("ˈɑː") == visemes.shapes_of("ɑ")
    assert len(visemes.shapes_of("aɪ")) == 2
    assert visemes.shapes_of("") == (visemes.REST,)
    assert visemes.shapes_of("ʘ")[0][visemes.OPEN] > 0


def test_without_phonemes_the_mouth_follows_the_loudness() -> None:
    samples = np.concatenate([np.zeros(RATE // 2, np.int16), tone(0.5), np.zeros(RATE // 2, np.int16)])
    curve = prepare("x", samples, None).curve[:, visemes.OPEN]
    assert curve[:40].max() < 0.1
    assert curve[60:90].min() > 0.6
    assert curve[-40:].max() < 0.1


# ---- timeline


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0.05, 1)), min_size=1, max_size=6))
def test_utterances_never_overlap_and_are_played_whole(wanted: list[tuple[float, float]]) -> None:
    timeline = Timeline()
    end = 0.0
    total = 0
    for not_before, seconds in wanted:
        one = said(seconds)
        start = timeline.append(one, not_before)
        assert start >= end
        assert start >= not_before - 1 / RATE
        end = start + one.duration
        total += int(np.abs(one.samples.astype(np.int64)).sum())
    chunks = [timeline.audio(at) for at in range(0, round(end * RATE) + CHUNK, CHUNK)]
    assert sum(int(np.abs(c.astype(np.int64)).sum()) for c in chunks) == total
    assert timeline.end() == pytest.approx(end, abs=1 / RATE)


def test_cut_silences_quickly_without_a_click() -> None:
    timeline = Timeline()
    timeline.append(said(2.0), 0.0)
    timeline.append(said(1.0), 0.0)
    assert timeline.cut(1.0)
    samples = timeline.audio(0, 4 * RATE)
    assert not samples[RATE + FADE :].any()
    assert np.abs(np.diff(samples[RATE - 100 : RATE + FADE + 100].astype(int))).max() < 1000
    assert timeline.mouth(1.2) == visemes.REST
    assert not timeline.cut(1.5)


def test_events_come_once_and_in_order() -> None:
    timeline = Timeline()
    timeline.append(said(0.5, "one"), 0.2)
    timeline.append(said(0.5, "two"), 0.2)
    heard = []
    for tick in range(40):
        heard += [(e.name, e.text) for e in timeline.advance(tick * 0.05)]
    assert heard == [("speaking", ""), ("subtitle", "one"), ("subtitle", "two"), ("silent", "")]
    assert not timeline.is_speaking(2.0)


def test_the_mouth_moves_with_the_audio() -> None:
    timeline = Timeline()
    start = timeline.append(said(0.6), 0.3)
    assert timeline.mouth(start - 0.01) == visemes.REST
    assert timeline.mouth(start + 0.3)[visemes.OPEN] > 0.5
    assert timeline.mouth(start + 0.61) == visemes.REST


def test_an_empty_utterance_is_nothing() -> None:
    timeline = Timeline()
    timeline.append(Utterance("", np.zeros(0, np.int16), np.zeros((1, 3), np.float32)), 1.0)
    assert not timeline.is_speaking(0.0)
    assert timeline.advance(2.0) == []


# ---- sentences


@given(st.text(max_size=600))
def test_no_word_is_lost_in_sentences(text: str) -> None:
    parts = split_sentences(text)
    assert all(0 < len(p) <= 220 for p in parts)
    spoken = "".join(c for c in "".join(parts) if c.isalnum())
    assert spoken == "".join(c for c in text if c.isalnum())


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Hello! How are you? 3.5 is a number.", ["Hello!", "How are you?", "3.5 is a number."]),
        ("你好。今天好吗？", ["你好。", "今天好吗？"]),
        ("one\ntwo", ["one", "two"]),
        ("... !!! ?", []),
        ("", []),
    ],
)
def test_sentences(text: str, parts: list[str]) -> None:
    assert split_sentences(text) == parts


# ---- PCM


def wav(samples: np.ndarray, rate: int, width: int = 2, channels: int = 1) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return buffer.getvalue()


def test_wav_of_all_widths_means_the_same() -> None:
    samples = tone(0.1)
    whole = np.frombuffer(b"".join(struct.pack("<i", int(s) << 16)[1:] for s in samples), np.uint8)
    found = {
        1: decode_wav(wav(((samples >> 8) + 128).astype(np.uint8), RATE, 1))[0],
        2: decode_wav(wav(samples, RATE, 2))[0],
        3: decode_wav(wav(whole, RATE, 3))[0],
        4: decode_wav(wav(samples.astype(np.int32) << 16, RATE, 4))[0],
    }
    assert np.array_equal(found[2], samples)
    assert np.array_equal(found[3], samples)
    assert np.array_equal(found[4], samples)
    assert np.abs(found[1].astype(int) - samples).max() < 256


def test_stereo_is_mixed_and_streamed_headers_are_repaired() -> None:
    samples = tone(0.1)
    stereo = np.stack([samples, np.zeros_like(samples)], axis=1)
    assert np.array_equal(decode_wav(wav(stereo, RATE, 2, 2))[0], (samples / 2).astype(np.int16))
    for size in (0, 0xFFFFFFFF):
        data = bytearray(wav(samples, RATE))
        struct.pack_into("<I", data, 40, size)
        assert np.array_equal(decode_wav(bytes(data))[0], samples)


@given(st.binary(max_size=200))
def test_anything_else_is_an_audio_error(data: bytes) -> None:
    for raw in (data, b"RIFF\x00\x00\x00\x00WAVE" + data, wav(tone(0.01), RATE)[: len(data)]):
        try:
            samples, rate = decode_wav(raw)
        except AudioError:
            continue
        assert rate >= 4000
        assert samples.dtype == np.int16


@pytest.mark.parametrize("source", [8000, 16000, 22050, 24000, 44100, 48000])
def test_resampling_keeps_pitch_level_and_time(source: int) -> None:
    result = resample(tone(1.0, 440, rate=source), source)
    expected = tone(1.0, 440)
    assert len(result) == pytest.approx(RATE, abs=2)
    middle = slice(1000, 15000)
    assert np.abs(result[middle].astype(int) - expected[middle]).max() < 0.03 * 8000


def test_loudness_is_relative_and_silence_is_silent() -> None:
    quiet, loud = loudness(tone(0.5, amplitude=500)), loudness(tone(0.5, amplitude=20000))
    assert quiet[10:40] == pytest.approx(loud[10:40], abs=0.05)
    assert not loudness(np.zeros(8000, np.int16)).any()
    assert len(loudness(np.zeros(0, np.int16))) == 1
