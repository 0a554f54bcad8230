"""Mouth shapes from phonemes and from loudness."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avatar_runtime import visemes
from avatar_runtime.visemes import OPEN, ROUND, STEP, WIDTH

SYMBOLS = [*visemes._TABLE, "", "ˈoʊ", "ˌaɪ", "iː", "tʃ", "t͡s", "ɛɹ", "!", "漢"]
timelines = st.lists(st.tuples(st.floats(-1, 5), st.sampled_from(SYMBOLS) | st.text(max_size=4)), max_size=40)


@pytest.mark.parametrize("symbol", ["p", "b", "m"])
def test_lips_meet_for_closures(symbol: str) -> None:
    assert visemes.shapes_of(symbol)[0][OPEN] == 0
    assert visemes.is_closure(symbol)


@pytest.mark.parametrize(
    ("wide", "narrow", "number"),
    [("ɑ", "i", OPEN), ("æ", "t", OPEN), ("i", "u", WIDTH), ("u", "a", ROUND), ("ʃ", "s", ROUND), ("o", "e", ROUND)],
)
def test_shapes_are_ordered_as_speakers_make_them(wide: str, narrow: str, number: int) -> None:
    assert visemes.shapes_of(wide)[0][number] > visemes.shapes_of(narrow)[0][number]


def test_stress_length_and_ties_change_no_shape() -> None:
    assert visemes.shapes_of("ˈiː") == visemes.shapes_of("i")
    assert visemes.shapes_of("t͡ʃ") == visemes.shapes_of("tʃ")


def test_a_diphthong_runs_through_two_shapes() -> None:
    first, second = visemes.shapes_of("ˈaʊ")
    assert first[OPEN] > second[OPEN]
    assert second[ROUND] > first[ROUND]


def test_a_pause_rests_and_the_unknown_moves() -> None:
    assert visemes.shapes_of("") == (visemes.REST,)
    assert visemes.shapes_of("漢")[0][OPEN] > 0


@given(timelines, st.floats(0.01, 4))
def test_any_timeline_gives_a_curve_of_the_right_length_and_range(
    phonemes: list[tuple[float, str]], duration: float
) -> None:
    curve = visemes.phoneme_curve(phonemes, duration)
    assert len(curve) == max(1, round(duration / STEP))
    assert np.isfinite(curve).all()
    assert curve.min() >= -1e-6
    assert curve.max() <= 1 + 1e-6


def test_neighbours_blend_without_a_shift() -> None:
    """A vowel between silences opens the mouth most in its own middle."""
    curve = visemes.phoneme_curve([(0.0, ""), (0.4, "a"), (0.6, "")], 1.0)[:, OPEN]
    middle = float((curve * np.arange(len(curve))).sum() / curve.sum()) * STEP
    assert abs(middle - 0.495) < 0.002
    assert curve[0] == curve[-1] == 0
    assert np.abs(np.diff(curve)).max() < 0.25


def test_a_closure_between_vowels_shuts_the_mouth() -> None:
    curve = visemes.phoneme_curve([(0.0, "ɑ"), (0.3, "m"), (0.38, "ɑ")], 0.7)[:, OPEN]
    assert curve[34] < 0.05
    assert curve[20] > 0.8
    assert curve[50] > 0.8


def test_a_curve_from_loudness_follows_it() -> None:
    t = np.arange(200) * STEP
    loud = (np.clip(np.sin(2 * np.pi * 2 * t), 0, 1)).astype(np.float32)
    curve = visemes.loudness_curve(loud)
    assert np.corrcoef(curve[:, OPEN], loud)[0, 1] > 0.95
    assert curve[:, OPEN].max() > 0.6


def test_quiet_speech_opens_the_mouth_less() -> None:
    curve = visemes.phoneme_curve([(0.0, "a")], 0.5)
    count = len(curve)
    loud = visemes.apply_loudness(curve, np.ones(count, np.float32))
    quiet = visemes.apply_loudness(curve, np.full(count, 0.2, np.float32))
    assert 0 < quiet[25, OPEN] < 0.6 * loud[25, OPEN]
    assert quiet[25, WIDTH] == loud[25, WIDTH]
