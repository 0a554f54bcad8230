"""The console's board: who follows by differences knows what there is, however far behind."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avatar_operator.api import board as module
from avatar_operator.api.board import Board, Place

SECTIONS = ("instances", "gpus")
KEYS = ("a", "b", "c", "d")


@dataclass
class Follower:
    """What the page does with differences (console/src/model.ts)."""

    version: int = 0
    known: dict[str, dict[str, Any]] = field(default_factory=dict)

    def look(self, board: Board) -> None:
        told = board.since(self.version)
        self.version = board.version
        if told.whole:
            self.known = {}
        for section, items in told.set.items():
            decoded = {key: msgspec.json.decode(piece) for key, piece in items.items()}
            self.known[section] = {**self.known.get(section, {}), **decoded}
        for section, keys in told.gone.items():
            for key in keys:
                self.known.get(section, {}).pop(key, None)


step = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(SECTIONS), st.sampled_from(KEYS), st.integers(0, 2)),
    st.tuples(st.just("drop"), st.sampled_from(SECTIONS), st.sampled_from(KEYS), st.just(0)),
    st.tuples(st.just("look"), st.just(""), st.just(""), st.integers(0, 2)),
)


@given(st.lists(step, max_size=60), st.sampled_from([2, 4, 5000]))
def test_followers_know_what_there_is(steps: list[tuple[str, str, str, int]], most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "GONE_MOST", most)
        board, truth = Board(), {section: {} for section in SECTIONS}  # type: ignore[var-annotated]
        followers = [Follower() for _ in range(3)]
        for what, section, key, number in steps:
            if what == "put":
                board.put(Place(section, key), {"n": number})
                truth[section][key] = {"n": number}
            elif what == "drop":
                board.put(Place(section, key), None)
                truth[section].pop(key, None)
            else:
                followers[number].look(board)
        for follower in followers:
            follower.look(board)
            known = {section: follower.known.get(section, {}) for section in SECTIONS}
            assert known == truth


def test_what_is_as_it_was_is_no_change() -> None:
    board = Board()
    board.put(Place("instances", "a"), {"n": 1})
    version = board.version
    board.put(Place("instances", "a"), {"n": 1})
    board.put(Place("instances", "never"), None)
    assert board.version == version
    assert board.since(version) == (False, {}, {})


def test_what_has_gone_does_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GONE_MOST", 100)
    board = Board()
    for number in range(10_000):
        place = Place("events", str(number))
        board.put(place, {"n": number})
        board.put(place, None)
    assert len(board._changed) <= 101
    assert board.since(1).whole
    assert not board.since(board.version - 2).whole
