"""The timeline of a session's speech."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avatar_runtime.pcm import CHUNK, RATE
from avatar_runtime.speech import FADE, Event, Timeline, Utterance, prepare, split_sentences
from avatar_runtime.visemes import REST


def tone(seconds: float, level: int = 9000, text: str = "la") -> Utterance:
    count = round(seconds * RATE)
    samples = (level * np.sin(2 * np.pi * 200 * np.arange(count) / RATE)).astype(np.int16)
    return prepare(text, samples, [(0.0, "a")])


def heard(timeline: Timeline, seconds: float) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    return np.concatenate([timeline.audio(i * CHUNK) for i in range(round(seconds * RATE / CHUNK))])


@given(st.lists(st.tuples(st.floats(0.02, 0.6), st.floats(0, 2)), min_size=1, max_size=6))
def test_utterances_keep_their_order_and_never_overlap(parts: list[tuple[float, float]]) -> None:
    timeline = Timeline()
    utterances = [tone(length) for length, _ in parts]
    starts = [timeline.append(u, at) for u, (_, at) in zip(utterances, parts, strict=True)]
    for (start, utterance), following in zip(zip(starts, utterances, strict=True), starts[1:], strict=False):
        assert following >= start + utterance.duration + timeline.gap - 1e-6
    for start, (_, at) in zip(starts, parts, strict=True):
        assert start >= at - 1e-3
    total = sum(len(u.samples) for u in utterances)
    loud = np.count_nonzero(heard(timeline, timeline.end() + 0.1))
    assert 0.95 * total < loud <= total, "no sample is said twice or lost"


def test_sound_and_mouth_begin_and_end_together() -> None:
    timeline = Timeline()
    start = timeline.append(tone(0.5), 1.0)
    sound = heard(timeline, 2)
    first, last = np.flatnonzero(sound)[[0, -1]] / RATE
    moving = [t / 1000 for t in range(0, 2000, 5) if timeline.mouth(t / 1000)[0] > 0.05]
    assert start == pytest.approx(1.0)
    assert abs(first - moving[0]) < 0.03
    assert abs(last - moving[-1]) < 0.03
    assert timeline.mouth(0.5) == timeline.mouth(1.8) == REST


def test_a_cut_silences_at_once_without_a_click() -> None:
    timeline = Timeline()
    timeline.append(tone(1.0), 0.0)
    timeline.append(tone(1.0), 0.0)
    assert timeline.cut(0.5)
    sound = heard(timeline, 3).astype(int)
    assert not sound[round(0.5 * RATE) + FADE :].any()
    assert sound[: round(0.5 * RATE)].any()
    assert np.abs(np.diff(sound)).max() < 1500
    assert not timeline.is_speaking(0.6)
    assert timeline.mouth(0.6) == REST
    assert not timeline.cut(0.6)


def test_events_come_once_and_in_order() -> None:
    timeline = Timeline()
    timeline.append(tone(0.3, text="one"), 0.2)
    timeline.append(tone(0.3, text="two"), 0.2)
    told = [e for t in range(0, 120) for e in timeline.advance(t / 100)]
    assert told == [Event("speaking"), Event("subtitle", "one"), Event("subtitle", "two"), Event("silent")]
    timeline.append(tone(0.1, text="three"), 2.0)
    assert timeline.advance(2.05) == [Event("speaking"), Event("subtitle", "three")]
    assert timeline.advance(2.2) == [Event("silent")]


def test_a_cut_before_the_first_word_tells_nothing() -> None:
    timeline = Timeline()
    timeline.append(tone(0.3), 1.0)
    timeline.cut(0.5)
    assert [e for t in range(0, 200) for e in timeline.advance(t / 100)] == []


def test_what_is_over_is_forgotten() -> None:
    timeline = Timeline()
    for second in range(50):
        timeline.append(tone(0.2), float(second))
        timeline.advance(second + 0.9)
    assert len(timeline._placed) <= 3


def test_without_phonemes_the_mouth_follows_the_loudness() -> None:
    quiet, loud = tone(0.3, 600).samples, tone(0.3, 12000).samples
    utterance = prepare("x", np.concatenate([quiet, loud]), None)
    timeline = Timeline()
    timeline.append(utterance, 0.0)
    assert timeline.mouth(0.45)[0] > 3 * timeline.mouth(0.15)[0]


def test_empty_audio_is_no_speech() -> None:
    timeline = Timeline()
    timeline.append(prepare("x", np.zeros(0, np.int16), None), 0.0)
    assert not timeline.is_speaking(0.0)
    assert timeline.advance(1.0) == []


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Hello there. How are you? Fine!", ["Hello there.", "How are you?", "Fine!"]),
        ("Version 1.5 costs 3.20", ["Version 1.5 costs 3.20"]),
        ("你好。今天好吗？", ["你好。", "今天好吗？"]),
        ("one\ntwo", ["one", "two"]),
        ("... ?!", []),
        ("  ", []),
    ],
)
def test_sentences(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences


@given(st.text(max_size=400), st.integers(10, 100))
def test_splitting_loses_no_word_and_keeps_the_limit(text: str, longest: int) -> None:
    parts = split_sentences(text, longest)
    assert all(len(p) <= longest for p in parts)
    letters = [c for c in text if c.isalnum()]
    assert [c for p in parts for c in p if c.isalnum()] == letters
