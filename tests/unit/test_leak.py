"""Counts that the runtime contradicts."""

from __future__ import annotations

from typing import Any

import pytest

from avatar_operator.domain.leak import Leak, look
from avatar_operator.domain.resources import InstanceStatus, Session
from avatar_operator.domain.view import Activity
from tests.unit.builders import NOW, ago, condition, later, seen

BEAT, PATIENCE = 60, 300
DOUBT = ("CountConfirmed", "False", "NoSession", "2 connections are counted, and the runtime has no session")
CONFIRMED = ("CountConfirmed", "True", "Confirmed", "")


def by_name(*ids: str) -> list[Session]:
    """Sessions that came one after the other."""
    return [Session(id=name, since=ago(60 - number)) for number, name in enumerate(ids)]


def doubted(seconds: float) -> InstanceStatus:
    """A status whose count has been contradicted for so many seconds."""
    return InstanceStatus(connections=2, conditions=(condition(*DOUBT, ago(seconds)),))


def new_pod(seconds: float) -> InstanceStatus:
    """In doubt for long, and in a pod that became ready so many seconds ago."""
    return InstanceStatus(connections=2, ready_time=ago(seconds), conditions=doubted(1000).conditions)


def ready_again(seconds: float) -> InstanceStatus:
    """In doubt for long, and in a pod that was not ready until so many seconds ago."""
    ready = condition("Ready", "True", "Serving", "", ago(seconds))
    return InstanceStatus(connections=2, ready_time=ago(2000), conditions=(ready, *doubted(1000).conditions))


RECOUNTED = ("CountConfirmed", "Unknown", "Recounted", "3 connections are counted, and the runtime has no session")
AGAIN = ("CountConfirmed", "False", "NoSession", RECOUNTED[3])
FINE = InstanceStatus(connections=2)
CLEARED = InstanceStatus(connections=2, conditions=(condition(*CONFIRMED, ago(9)),))


@pytest.mark.parametrize(
    ("status", "counted", "activity", "expected"),
    [
        pytest.param(FINE, 0, None, Leak(), id="nothing-counted"),
        pytest.param(doubted(9), 0, None, Leak(CONFIRMED), id="taken-back-by-the-backend"),
        pytest.param(FINE, 2, None, Leak(probe=True), id="ask"),
        pytest.param(FINE, 2, seen(2, at=ago(BEAT)), Leak(probe=True), id="ask-again-after-a-beat"),
        pytest.param(FINE, 2, seen(2, at=ago(10)), Leak(next_look=later(50)), id="confirmed"),
        pytest.param(CLEARED, 2, seen(1), Leak(next_look=later(BEAT)), id="confirmed-before"),
        pytest.param(doubted(200), 2, seen(1), Leak(CONFIRMED, next_look=later(BEAT)), id="confirmed-after-all"),
        pytest.param(FINE, 2, seen(None), Leak(next_look=later(BEAT)), id="unknown"),
        pytest.param(doubted(1000), 2, seen(None), Leak(next_look=later(BEAT)), id="unknown-never-corrects"),
        pytest.param(FINE, 2, seen(0), Leak(DOUBT, next_look=later(BEAT)), id="contradicted"),
        pytest.param(CLEARED, 2, seen(0), Leak(DOUBT, next_look=later(BEAT)), id="contradicted-again"),
        pytest.param(doubted(200), 2, seen(0), Leak(next_look=later(BEAT)), id="for-a-while"),
        pytest.param(doubted(290), 2, seen(0), Leak(next_look=later(10)), id="nearly-long-enough"),
        pytest.param(doubted(310), 2, seen(0, at=ago(11)), Leak(probe=True), id="the-last-answer-is-too-old"),
        pytest.param(doubted(302), 2, seen(0, at=ago(3)), Leak(probe=True), id="an-answer-from-before-does-not-count"),
        pytest.param(doubted(300), 2, seen(0), Leak(correct=True), id="long-enough"),
        pytest.param(doubted(300), 3, seen(0), Leak(RECOUNTED, next_look=NOW), id="somebody-came"),
        pytest.param(
            InstanceStatus(conditions=(condition(*RECOUNTED, NOW),)),
            3,
            seen(0),
            Leak(AGAIN, next_look=later(BEAT)),
            id="doubted-anew",
        ),
        pytest.param(new_pod(290), 2, seen(0), Leak(next_look=later(10)), id="a-new-pod-is-given-the-same-time"),
        pytest.param(new_pod(300), 2, seen(0), Leak(correct=True), id="long-enough-in-the-new-pod"),
        pytest.param(ready_again(290), 2, seen(0), Leak(next_look=later(10)), id="nobody-could-come-back-meanwhile"),
        pytest.param(ready_again(300), 2, seen(0), Leak(correct=True), id="long-enough-since-they-can"),
    ],
)
def test_look(status: InstanceStatus, counted: int, activity: Activity | None, expected: Leak) -> None:
    assert look(status, counted, activity, NOW, beat=BEAT, patience=PATIENCE) == expected


@pytest.mark.parametrize(("patience", "next_look"), [(10, 5), (1, 1), (300, 60)])
def test_a_short_patience_asks_more_often(patience: int, next_look: float) -> None:
    rules: dict[str, Any] = {"beat": BEAT, "patience": patience}
    assert look(FINE, 2, seen(1), NOW, **rules).next_look == later(next_look)


def test_one_who_comes_while_another_goes_has_the_whole_time() -> None:
    rules: dict[str, Any] = {"beat": BEAT, "patience": PATIENCE}
    first = look(FINE, 2, seen(0), NOW, sessions=by_name("a"), **rules).condition
    assert first is not None
    assert first[3] == "2 connections are counted (1 with a session, the last one a), and the runtime has no session"
    doubt = InstanceStatus(connections=2, conditions=(condition(*first, ago(1000)),))
    assert look(doubt, 2, seen(0), NOW, sessions=by_name("a"), **rules).correct
    # Joined while no operator looked, and the lease of another was over: the same number.
    again = look(doubt, 2, seen(0), NOW, sessions=by_name("b"), **rules)
    assert (again.correct, again.next_look) == (False, NOW)
    assert again.condition is not None
    assert again.condition[:3] == ("CountConfirmed", "Unknown", "Recounted")
