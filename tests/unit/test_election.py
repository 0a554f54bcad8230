"""Who may write its name into a Lease, and who may act: times are monotonic seconds of one process."""

from __future__ import annotations

import pytest

from avatar_operator.domain.election import Record, Sighting, Timings, holds, may_take, sight

TIMINGS = Timings()


def record(holder: str, version: str = "1") -> Record:
    return Record(holder=holder, version=version, duration=4.0)


@pytest.mark.parametrize(
    ("seen", "now", "may"),
    [
        pytest.param(None, 0.0, True, id="there-is-none"),
        pytest.param(Sighting(record(""), 0.0, 0.0), 0.0, True, id="released"),
        pytest.param(Sighting(record("me"), 0.0, 0.0), 0.0, True, id="ours"),
        pytest.param(Sighting(record("other"), 0.0, 0.0), 3.9, False, id="renewed-a-moment-ago"),
        pytest.param(Sighting(record("other"), 0.0, 0.0), 4.0, True, id="its-holder-is-silent"),
    ],
)
def test_who_may_take_it(seen: Sighting | None, now: float, may: bool) -> None:
    assert may_take(seen, "me", now) is may


def test_a_lease_is_as_old_as_its_last_change_here() -> None:
    first = sight(None, record("other", "7"), 10.0)
    again = sight(first, record("other", "7"), 13.0)
    assert (again.since, again.looked) == (10.0, 13.0)
    assert sight(again, record("other", "7"), 16.0).since == 10.0
    assert sight(again, record("other", "8"), 13.0).since == 13.0


def test_who_could_not_look_has_not_seen_a_silence() -> None:
    """The API server was away for minutes: the leader, for which it was away as well, is given its time again."""
    before = sight(None, record("other"), 10.0)
    back = sight(before, record("other"), 310.0)
    assert not may_take(back, "me", 310.0)
    still = sight(back, record("other"), 312.0)
    assert not may_take(still, "me", 313.9)
    assert may_take(still, "me", 314.0), "it has not come back: dead, not cut off"


def test_the_old_leader_has_stopped_before_a_new_one_may_begin() -> None:
    """The leader counts from when it asked, the others from when they saw: theirs is never earlier."""
    assert TIMINGS.deadline < TIMINGS.duration
    renewed = 100.0
    for delay in (0.0, 0.4, 2.0):
        others = Sighting(record("leader"), renewed + delay, renewed + delay)
        first_taken = others.since + TIMINGS.duration
        assert may_take(others, "me", first_taken)
        assert not holds(renewed, first_taken, TIMINGS)
    assert holds(renewed, renewed + TIMINGS.renew, TIMINGS)
    assert not holds(None, 0.0, TIMINGS)
