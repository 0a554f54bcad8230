"""Counts held against what the runtime says."""

from __future__ import annotations

from datetime import timedelta

import pytest

from avatar_operator.domain.leak import CONDITION, Leak, look
from avatar_operator.domain.resources import Condition, InstanceStatus
from avatar_operator.domain.view import Activity
from tests.unit.builders import NOW

PATIENCE = 300
BEAT = 60


def contradicted(seconds: int) -> InstanceStatus:
    since = NOW - timedelta(seconds=seconds)
    return InstanceStatus(conditions=(Condition(type=CONDITION, status="False", last_transition_time=since),))


def seen(sessions: int | None, seconds_ago: float = 0) -> Activity:
    return Activity(NOW - timedelta(seconds=seconds_ago), sessions)


def ask(status: InstanceStatus, counted: int, activity: Activity | None) -> Leak:
    return look(status, counted, activity, NOW, beat=BEAT, patience=PATIENCE)


CLEAN = InstanceStatus()


@pytest.mark.parametrize(
    ("status", "counted", "activity", "expected"),
    [
        pytest.param(CLEAN, 0, None, Leak(), id="nobody counted: nothing to ask"),
        pytest.param(CLEAN, 1, None, Leak(probe=True), id="never asked"),
        pytest.param(CLEAN, 1, seen(1, BEAT), Leak(probe=True), id="asked a beat ago"),
        pytest.param(
            CLEAN, 1, seen(2), Leak(next_look=NOW + timedelta(seconds=BEAT)), id="the runtime has sessions too"
        ),
        pytest.param(CLEAN, 1, seen(None), Leak(next_look=NOW + timedelta(seconds=BEAT)), id="unknown says nothing"),
        pytest.param(contradicted(PATIENCE), 1, seen(0, 10), Leak(probe=True), id="due, but the answer is old"),
        pytest.param(contradicted(PATIENCE + 9), 1, seen(0), Leak(correct=True), id="due, and fresh"),
        pytest.param(
            contradicted(PATIENCE - 10),
            1,
            seen(0),
            Leak(next_look=NOW + timedelta(seconds=10)),
            id="contradicted, patience not over",
        ),
    ],
)
def test_look(status: InstanceStatus, counted: int, activity: Activity | None, expected: Leak) -> None:
    assert ask(status, counted, activity) == expected


def test_the_first_contradiction_is_noted() -> None:
    found = ask(CLEAN, 2, seen(0))
    assert found.condition is not None
    assert found.condition[:3] == (CONDITION, "False", "NoSession")
    assert not found.correct


@pytest.mark.parametrize(("counted", "sessions"), [(1, 1), (0, 0)])
def test_a_contradiction_that_ends_is_taken_back(counted: int, sessions: int) -> None:
    found = ask(contradicted(PATIENCE * 2), counted, seen(sessions))
    assert found.condition == (CONDITION, "True", "Confirmed", "")
    assert not found.correct


def test_short_patience_asks_more_often() -> None:
    found = look(CLEAN, 1, seen(1), NOW, beat=60, patience=4)
    assert found.next_look == NOW + timedelta(seconds=2)
