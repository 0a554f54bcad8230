"""The idle clock: every way it can start, stand, run and end."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from avatar_operator.domain.idle import (
    FRESH_SECONDS,
    UNSEEN_SECONDS,
    Clock,
    look,
    patience_ends,
    unknown_since,
    unseen_ends,
)
from avatar_operator.domain.resources import InstanceStatus
from avatar_operator.domain.view import Activity
from tests.unit.builders import NOW, ago, condition, later, seen

TIMEOUT, BEAT = 100, 20


def status(**fields: Any) -> InstanceStatus:
    """A status of an instance that runs."""
    return InstanceStatus(phase="Running", ready_time=ago(500), **fields)


def unknown(since: datetime, **fields: Any) -> InstanceStatus:
    """The same while nobody knows whether it is in use."""
    return status(conditions=(condition("ActivityKnown", "False", "Unreachable", "", since),), **fields)


def at(found: InstanceStatus, activity: Activity | None = None, *, counted: int = 0, **rules: Any) -> Clock:
    """look() at NOW."""
    return look(found, counted, activity, NOW, **{"timeout": TIMEOUT, "beat": BEAT, "ask_runtime": True, **rules})


DEADLINE = later(TIMEOUT)


@pytest.mark.parametrize(
    ("found", "activity", "rules", "expected"),
    [
        # -- never
        pytest.param(
            status(last_activity_time=ago(9), observed_sessions=2),
            None,
            {"timeout": 0},
            Clock(None, ago(9), 2),
            id="timeout-0",
        ),
        pytest.param(status(idle_deadline=ago(9)), None, {"timeout": 0}, Clock(), id="timeout-0-drops-a-deadline"),
        # -- counted
        pytest.param(status(), None, {"counted": 1}, Clock(None, NOW), id="first-use"),
        pytest.param(
            status(idle_deadline=later(9), last_activity_time=ago(91)),
            None,
            {"counted": 1},
            Clock(None, NOW),
            id="use-stops-the-clock",
        ),
        pytest.param(
            status(idle_deadline=ago(9), last_activity_time=ago(109)),
            None,
            {"counted": 1},
            Clock(None, NOW),
            id="use-after-the-deadline",
        ),
        pytest.param(
            status(last_activity_time=ago(30)),
            None,
            {"counted": 2},
            Clock(None, ago(30)),
            id="in-use-writes-nothing-more",
        ),
        pytest.param(
            status(last_activity_time=ago(30)), seen(3), {"counted": 2}, Clock(None, ago(30), 3), id="in-use-and-asked"
        ),
        pytest.param(
            status(last_activity_time=ago(30), observed_sessions=3),
            seen(None),
            {"counted": 2},
            Clock(None, ago(30), 3),
            id="in-use-and-no-answer",
        ),
        pytest.param(
            unknown(ago(5), last_activity_time=ago(30)),
            None,
            {"counted": 1},
            Clock(None, ago(30)),
            id="in-use-makes-known",
        ),
        # -- the clock starts
        pytest.param(status(), None, {}, Clock(DEADLINE, None, 0, next_look=DEADLINE), id="first-Ready"),
        pytest.param(
            status(last_activity_time=ago(30)),
            None,
            {},
            Clock(DEADLINE, NOW, 0, next_look=DEADLINE),
            id="the-last-counted-one-left",
        ),
        pytest.param(
            status(last_activity_time=ago(30), observed_sessions=1),
            None,
            {},
            Clock(None, ago(30), 1, probe=True),
            id="left-but-the-runtime-knew-of-sessions",
        ),
        # -- the clock runs
        pytest.param(
            status(idle_deadline=later(1), last_activity_time=ago(99)),
            None,
            {},
            Clock(later(1), ago(99), 0, next_look=later(1)),
            id="before-the-deadline",
        ),
        pytest.param(status(idle_deadline=NOW), None, {}, Clock(NOW, None, 0, probe=True), id="at-the-deadline-ask"),
        pytest.param(
            status(idle_deadline=ago(3)),
            seen(0, at=ago(4)),
            {},
            Clock(ago(3), None, 0, probe=True),
            id="an-answer-from-before-the-deadline-does-not-count",
        ),
        pytest.param(
            status(idle_deadline=ago(30)),
            seen(0, at=ago(FRESH_SECONDS + 1)),
            {},
            Clock(ago(30), None, 0, probe=True),
            id="an-old-answer-does-not-count",
        ),
        pytest.param(status(idle_deadline=NOW), seen(0), {}, Clock(NOW, None, 0, collect=True), id="nobody-is-there"),
        pytest.param(
            status(idle_deadline=NOW),
            seen(0, idle_seconds=TIMEOUT),
            {},
            Clock(NOW, None, 0, collect=True),
            id="idle-for-as-long-as-we-think",
        ),
        pytest.param(
            status(idle_deadline=NOW),
            seen(0, idle_seconds=TIMEOUT - 0.9),
            {},
            Clock(NOW, None, 0, collect=True),
            id="idle-but-for-a-rounded-second",
        ),
        pytest.param(
            status(idle_deadline=ago(5)),
            seen(0, at=ago(5)),
            {},
            Clock(ago(5), None, 0, collect=True),
            id="an-answer-that-is-just-fresh",
        ),
        # -- the page alone knew
        pytest.param(
            status(idle_deadline=NOW), seen(2), {}, Clock(None, NOW, 2, next_look=later(BEAT)), id="page-only-use"
        ),
        pytest.param(
            status(idle_deadline=later(50)),
            seen(1),
            {},
            Clock(None, NOW, 1, next_look=later(BEAT)),
            id="page-only-use-seen-early",
        ),
        pytest.param(
            status(idle_deadline=later(50)),
            seen(1, at=ago(FRESH_SECONDS)),
            {},
            Clock(later(50), None, 0, next_look=later(50)),
            id="page-only-use-long-ago",
        ),
        pytest.param(
            status(observed_sessions=2, last_activity_time=ago(9)),
            seen(2, at=ago(BEAT - 1)),
            {},
            Clock(None, ago(9), 2, next_look=later(1)),
            id="page-only-use-within-a-beat",
        ),
        pytest.param(
            status(observed_sessions=2, last_activity_time=ago(9)),
            seen(2, at=ago(BEAT)),
            {},
            Clock(None, ago(9), 2, probe=True),
            id="page-only-use-after-a-beat",
        ),
        pytest.param(
            status(observed_sessions=2, last_activity_time=ago(9)),
            None,
            {},
            Clock(None, ago(9), 2, probe=True),
            id="page-only-use-after-the-operator's-restart",
        ),
        pytest.param(
            status(observed_sessions=2, last_activity_time=ago(9)),
            seen(0, idle_seconds=4.0),
            {},
            Clock(later(96), ago(4), 0, next_look=later(96)),
            id="the-page-was-closed",
        ),
        pytest.param(
            status(observed_sessions=2, last_activity_time=ago(9)),
            seen(0),
            {},
            Clock(DEADLINE, NOW, 0, next_look=DEADLINE),
            id="the-page-was-closed-nobody-says-when",
        ),
        pytest.param(
            status(observed_sessions=2),
            seen(0, idle_seconds=900.0),
            {},
            Clock(NOW, ago(900), 0, next_look=NOW),
            id="the-page-was-closed-long-ago",
        ),
        pytest.param(
            status(idle_deadline=NOW, last_activity_time=ago(100)),
            seen(0, idle_seconds=40.0),
            {},
            Clock(later(60), ago(40), 0, next_look=later(60)),
            id="somebody-came-and-went-unseen",
        ),
        pytest.param(
            status(idle_deadline=NOW, last_activity_time=ago(100)),
            seen(0, idle_seconds=7.0),
            {},
            Clock(later(93), ago(7), 0, next_look=later(93)),
            id="the-runtime-restarted-in-the-middle",
        ),
        # -- nobody knows
        pytest.param(
            status(idle_deadline=NOW, last_activity_time=ago(100)),
            seen(None),
            {},
            Clock(None, ago(100), known=False, next_look=later(BEAT)),
            id="no-answer-stops-the-clock",
        ),
        pytest.param(
            unknown(ago(5)),
            seen(None, at=ago(5)),
            {},
            Clock(None, None, None, known=False, next_look=later(BEAT - 5)),
            id="unknown-within-a-beat",
        ),
        pytest.param(
            unknown(ago(50)),
            seen(None, at=ago(BEAT)),
            {},
            Clock(None, None, None, known=False, probe=True),
            id="unknown-asked-again-each-beat",
        ),
        pytest.param(
            unknown(ago(50)),
            None,
            {},
            Clock(None, None, None, known=False, probe=True),
            id="unknown-after-the-operator's-restart",
        ),
        pytest.param(
            status(observed_sessions=1, last_activity_time=ago(50)),
            seen(None),
            {},
            Clock(None, ago(50), 1, known=False, next_look=later(BEAT)),
            id="in-use-by-the-page-then-no-answer",
        ),
        pytest.param(
            unknown(ago(50), last_activity_time=ago(80)),
            seen(3),
            {},
            Clock(None, ago(80), 3, next_look=later(BEAT)),
            id="known-again-in-use",
        ),
        pytest.param(
            unknown(ago(50), last_activity_time=ago(80)),
            seen(0, idle_seconds=60.0),
            {},
            Clock(later(40), ago(60), 0, next_look=later(40)),
            id="known-again-with-idle-seconds",
        ),
        pytest.param(
            unknown(ago(50), last_activity_time=ago(80)),
            seen(0),
            {},
            Clock(later(70), ago(30), 0, next_look=later(70)),
            id="known-again-what-was-spent-before-counts",
        ),
        pytest.param(
            unknown(ago(50), last_activity_time=ago(950)),
            seen(0),
            {},
            Clock(NOW, ago(100), 0, next_look=NOW),
            id="known-again-all-was-spent-before",
        ),
        pytest.param(
            unknown(ago(50)), seen(0), {}, Clock(DEADLINE, NOW, 0, next_look=DEADLINE), id="known-again-never-used"
        ),
        pytest.param(
            unknown(ago(50), last_activity_time=ago(10)),
            seen(0),
            {},
            Clock(DEADLINE, NOW, 0, next_look=DEADLINE),
            id="known-again-used-while-unknown",
        ),
        # -- by status alone
        pytest.param(
            status(),
            seen(5),
            {"ask_runtime": False},
            Clock(DEADLINE, None, next_look=DEADLINE),
            id="by-status-first-Ready",
        ),
        pytest.param(
            status(last_activity_time=ago(30)),
            None,
            {"ask_runtime": False},
            Clock(DEADLINE, NOW, next_look=DEADLINE),
            id="by-status-left",
        ),
        pytest.param(
            status(idle_deadline=later(1), last_activity_time=ago(99)),
            None,
            {"ask_runtime": False},
            Clock(later(1), ago(99), next_look=later(1)),
            id="by-status-before",
        ),
        pytest.param(
            status(idle_deadline=NOW),
            seen(5),
            {"ask_runtime": False},
            Clock(NOW, None, collect=True, next_look=NOW),
            id="by-status-at-the-deadline",
        ),
        pytest.param(
            status(idle_deadline=later(5)),
            None,
            {"ask_runtime": False, "counted": 1},
            Clock(None, NOW),
            id="by-status-in-use",
        ),
    ],
)
def test_look(found: InstanceStatus, activity: Activity | None, rules: dict[str, Any], expected: Clock) -> None:
    assert at(found, activity, **rules) == expected


@pytest.mark.parametrize(
    ("found", "activity", "rules", "expected"),
    [
        pytest.param(status(), None, {}, Clock(later(30), None, 0, next_look=later(30), unclaimed=True), id="starts"),
        pytest.param(
            status(idle_deadline=NOW),
            seen(0, idle_seconds=30),
            {},
            Clock(NOW, None, 0, collect=True, unclaimed=True),
            id="nobody-came",
        ),
        pytest.param(
            status(idle_deadline=NOW),
            seen(1),
            {},
            Clock(None, NOW, 1, next_look=later(BEAT), unclaimed=True),
            id="somebody-came-whom-the-runtime-alone-knows",
        ),
        pytest.param(status(idle_deadline=later(9)), None, {"counted": 1}, Clock(None, NOW), id="somebody-was-counted"),
        pytest.param(
            status(last_activity_time=ago(40)),
            None,
            {},
            Clock(DEADLINE, NOW, 0, next_look=DEADLINE),
            id="who-left-is-given-the-idle-timeout",
        ),
        pytest.param(status(), None, {"timeout": 0}, Clock(), id="never-is-never"),
        pytest.param(
            status(),
            None,
            {"ask_runtime": False},
            Clock(later(30), next_look=later(30), unclaimed=True),
            id="by-status",
        ),
        pytest.param(
            status(),
            None,
            {"claim_timeout": 900},
            Clock(later(900), None, 0, next_look=later(900), unclaimed=True),
            id="longer-than-the-idle-timeout",
        ),
    ],
)
def test_nobody_has_come_yet(
    found: InstanceStatus, activity: Activity | None, rules: dict[str, Any], expected: Clock
) -> None:
    assert at(found, activity, **{"claim_timeout": 30, **rules}) == expected


def test_only_a_fresh_answer_of_nobody_collects() -> None:
    for sessions in (None, 1):
        assert not at(status(idle_deadline=ago(1000)), seen(sessions)).collect
    assert not at(status(idle_deadline=ago(1000))).collect


@pytest.mark.parametrize(
    ("not_before", "expected"),
    [
        (NOW, Clock(NOW, None, 0, collect=True)),
        (later(7), Clock(later(7), None, 0, next_look=later(7))),
    ],
)
def test_the_deadline_of_one_who_is_waited_for_is_later(not_before: datetime, expected: Clock) -> None:
    assert at(status(idle_deadline=NOW), seen(0, idle_seconds=TIMEOUT), not_before=not_before) == expected


def test_who_is_waited_for() -> None:
    assert patience_ends(None, None, TIMEOUT, None) is None
    assert patience_ends(ago(3), None, TIMEOUT, None) == later(TIMEOUT + 1 - 3), "times of creation are cut"
    assert patience_ends(ago(3), None, TIMEOUT, 20) == later(20 + 1 - 3)
    assert patience_ends(ago(30), ago(9), TIMEOUT, 20) == later(TIMEOUT - 9)
    assert unseen_ends(None, TIMEOUT) is None
    assert unseen_ends(ago(2), TIMEOUT) == later(UNSEEN_SECONDS - 2)
    assert unseen_ends(ago(2), 5) == later(3)


def test_unknown_since() -> None:
    assert unknown_since(status()) is None
    assert unknown_since(status(conditions=(condition("ActivityKnown", "True", "", "", ago(9)),))) is None
    assert unknown_since(unknown(ago(9))) == ago(9)
