"""Counts that the runtime contradicts."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from avatar_operator.domain.leak import Leak, look
from avatar_operator.domain.resources import Instance, InstanceStatus
from avatar_operator.domain.view import Activity
from tests.unit.builders import NOW, ago, condition, later, seen

BEAT, PATIENCE = 60, 300
DOUBT = ("CountConfirmed", "False", "NoSession", "2 connections are counted, and the runtime has no session")
CONFIRMED = ("CountConfirmed", "True", "Confirmed", "")


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


MORE = (*DOUBT[:3], "3 connections are counted, and the runtime has no session")
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


@pytest.mark.parametrize(
    ("counted", "since", "expected"),
    [
        pytest.param(2, 299, Leak(next_look=later(1)), id="the-same-number-and-others"),
        pytest.param(2, 300, Leak(correct=True), id="as-long-as-the-doubt"),
        pytest.param(3, 10, Leak(MORE, next_look=later(BEAT)), id="more"),
        pytest.param(2, None, Leak(correct=True), id="counted-by-nobody-else"),
    ],
)
def test_who_was_counted_last_has_the_whole_time(counted: int, since: float | None, expected: Leak) -> None:
    """Also where no operator saw them come: two while one was gone, or another in their place."""
    told = None if since is None else ago(since)
    assert look(doubted(1000), counted, seen(0), NOW, beat=BEAT, patience=PATIENCE, counted_since=told) == expected


def managed(manager: str, seconds: float, *fields: str) -> dict[str, Any]:
    """An entry of managedFields as the API server writes it."""
    owned = {"f:status": {field: {} for field in fields}}
    return {"manager": manager, "operation": "Update", "time": ago(seconds), "fieldsV1": owned, "subresource": "status"}


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        pytest.param((), None, id="nobody"),
        pytest.param((managed("curl", 9, "f:connections"),), 9, id="a-backend"),
        pytest.param((managed("avatar-operator-api", 9, "f:connections", "f:sessions"),), 9, id="the-api"),
        pytest.param((managed("curl", 9, "f:connections"), managed("api", 5, "f:sessions")), 5, id="the-last"),
        pytest.param((managed("avatar-operator", 9, "f:connections", "f:phase"),), None, id="the-operator-itself"),
        pytest.param((managed("curl", 9, "f:webrtcUrl"),), None, id="of-other-fields"),
        pytest.param(({"manager": "kubectl", "fieldsV1": {"f:spec": {}}},), None, id="of-the-spec"),
    ],
)
def test_since_when_it_is_counted(entries: tuple[dict[str, Any], ...], expected: float | None) -> None:
    body = {"metadata": {"name": "one", "managedFields": list(entries)}, "spec": {"avatarName": "ada"}}
    assert msgspec.convert(body, Instance).counted_since == (None if expected is None else ago(expected))
