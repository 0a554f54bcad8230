"""Sessions: what joins, leaves and leases do to a roll, as a table and as properties."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avatar_operator.domain import names
from avatar_operator.domain.resources import InstanceStatus, Session
from avatar_operator.domain.sessions import (
    Answer,
    Attach,
    Caller,
    Detach,
    Foreign,
    Full,
    Join,
    Joined,
    Lease,
    Leave,
    LeaveOne,
    Left,
    Operation,
    Renew,
    Renewed,
    Roll,
    Unknown,
    apply,
    lapse,
    next_lapse,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOBODY, ADMIN = Caller(any=True), Caller("root", any=True)
ANN, BOB = Caller("ann"), Caller("bob")
LEASE = Lease(ttl=20, connect=60, reconnect=10)


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def do(roll: Roll, *operations: Operation, cap: int | None = None, at: float = 0) -> tuple[Roll, list[Answer]]:
    return apply(roll, operations, later(at), cap)


def ids(roll: Roll) -> list[str]:
    return [s.id for s in roll.sessions]


def test_joins_count_one_after_the_other() -> None:
    roll, answers = do(Roll(), Join("a", ANN), Join("b", BOB), Join("a", ANN))
    assert [(a.connections, a.fresh) for a in answers if isinstance(a, Joined)] == [(1, True), (2, True), (2, False)]
    assert (ids(roll), roll.connections) == (["a", "b"], 2)
    assert roll.sessions[0] == Session(id="a", user="ann", since=NOW)


def test_a_session_that_came_with_an_offer_lasts_as_long_as_its_peer() -> None:
    roll, _ = do(Roll(), Join("a", ANN, tentative=60))
    assert roll.sessions == (Session(id="a", user="ann", since=NOW, expires=later(60)),)
    assert lapse(roll, later(61)) == Roll()
    # Again, before the first was answered: its time begins anew.
    again, _ = do(roll, Join("a", ANN, tentative=60), at=30)
    assert again.sessions[0].expires == later(90)
    attached, answers = do(again, Attach("a", BOB, "7"), Attach("b", ANN, "7"), Attach("a", ANN, "7"), at=31)
    assert answers[:2] == [Foreign(), Unknown()]
    assert attached.sessions == (Session(id="a", user="ann", since=NOW, runtime_session_id="7"),)
    # Loaded anew: one session, and the end of the old peer is not its end.
    reloaded, answers = do(attached, Join("a", ANN, tentative=60), Attach("a", ANN, "8"), Detach("a", "7"), Detach("a"))
    assert ([s.runtime_session_id for s in reloaded.sessions], reloaded.connections) == (["8"], 1)
    assert answers[2:] == [Left(None, 1), Left(None, 1)]
    ended, answers = do(reloaded, Detach("a", "8"), Detach("a", "8"))
    assert (ended, answers[1]) == (Roll(), Left(None, 0))


def test_what_a_start_or_a_lease_counts_outlasts_an_offer_that_failed() -> None:
    for start in (Join("a", ANN), Join("a", ANN, LEASE)):
        before, _ = do(Roll(), start)
        assert do(before, Join("a", ANN, tentative=60), Detach("a"))[0] == before
        # In the other order, too.
        after, _ = do(Roll(), Join("a", ANN, tentative=60), start, Detach("a"))
        assert ids(after) == ["a"]
        assert after.sessions[0].ttl_seconds == before.sessions[0].ttl_seconds
    tentative, _ = do(Roll(), Join("a", ANN, tentative=60), Detach("a"))
    assert tentative == Roll()


def test_a_lease_outlasts_the_peer() -> None:
    leased, _ = do(Roll(), Join("a", ANN, LEASE), Attach("a", ANN, "7"))
    assert leased.sessions[0].expires == later(60)
    left, answers = do(leased, Detach("a", "7"))
    assert answers == [Left(None, 1)]
    assert left.sessions == (Session(id="a", user="ann", since=NOW, expires=later(60), ttl_seconds=20),)


def test_a_full_instance_refuses_the_next_and_knows_the_old_ones() -> None:
    roll, answers = do(Roll(), Join("a", ANN), Join("b", BOB), Join("a", ANN), Leave("a", ANN), Join("c", BOB), cap=1)
    assert answers[1] == Full(1, 1)
    assert isinstance(answers[2], Joined)
    assert isinstance(answers[4], Joined)
    assert ids(roll) == ["c"]


@pytest.mark.parametrize("operation", [Join("a", BOB), Leave("a", BOB), Renew("a", BOB), Renew("a", Caller())])
def test_nobody_touches_the_session_of_another(operation: Operation) -> None:
    roll, _ = do(Roll(), Join("a", ANN, LEASE))
    after, answers = do(roll, operation, at=30)
    assert answers == [Foreign()]
    assert after == roll


@pytest.mark.parametrize("caller", [ADMIN, NOBODY])
def test_an_admin_and_a_server_without_users_may(caller: Caller) -> None:
    roll, _ = do(Roll(), Join("a", ANN))
    after, answers = do(roll, Join("a", caller), Leave("a", caller))
    assert [type(a) for a in answers] == [Joined, Left]
    assert after == Roll()


def test_leaving_twice_is_leaving_once() -> None:
    roll, answers = do(Roll(), Join("a", ANN), Join("b", BOB), Leave("a", ANN), Leave("a", ANN), Leave("never", ANN))
    assert [a.connections for a in answers[2:] if isinstance(a, Left)] == [1, 1, 1]
    assert ids(roll) == ["b"]


def test_leaving_by_name_alone_takes_the_oldest_of_ones_own() -> None:
    roll, _ = do(Roll(), Join("a", ANN), Join("b", BOB), Join("c", BOB))
    roll, answers = do(roll, LeaveOne(BOB), LeaveOne(ADMIN), LeaveOne(NOBODY))
    assert [a.session.id if isinstance(a, Left) and a.session else None for a in answers] == ["b", None, "a"]
    roll, answers = do(roll, LeaveOne(NOBODY), LeaveOne(NOBODY), LeaveOne(NOBODY))
    assert roll == Roll()
    assert answers[-1] == Left(None, 0)


def test_connections_that_a_backend_counted_are_kept() -> None:
    roll, _ = do(Roll.of(InstanceStatus(connections=3)), Join("a", ANN))
    assert (ids(roll), roll.connections) == (["a"], 4)
    roll, _ = do(roll, Leave("a", ANN))
    assert (ids(roll), roll.connections) == ([], 3)
    roll, _ = do(roll, LeaveOne(NOBODY))
    assert roll.connections == 2
    assert Roll.of(InstanceStatus(connections=0, sessions=(Session(id="x"),))).connections == 1


# ---- leases --------------------------------------------------------------------------


def test_a_lease_begins_with_the_connect_window_and_goes_on_by_signs_of_life() -> None:
    roll, _ = do(Roll(), Join("a", ANN, LEASE))
    assert roll.sessions[0].expires == later(60)
    roll, answers = do(roll, Renew("a", ANN, LEASE.reconnect), at=5)
    assert roll.sessions[0].expires == later(5 + 20 + 10)
    assert isinstance(answers[0], Renewed)
    soon, _ = do(roll, Renew("a", ANN, LEASE.reconnect), at=9)
    assert soon == roll, "four seconds of twenty are not worth a write"
    roll, _ = do(roll, Renew("a", ANN, LEASE.reconnect), at=10)
    assert roll.sessions[0].expires == later(40)
    roll, _ = do(roll, Join("a", ANN, LEASE), at=30)
    assert roll.sessions[0].expires == later(90), "who starts again has to connect again"


def test_a_lapsed_session_is_gone_and_the_others_are_not() -> None:
    roll, _ = do(Roll(connections=1), Join("a", ANN, LEASE), Join("b", BOB))
    assert next_lapse(roll.sessions) == later(60)
    assert lapse(roll, later(59)) is roll
    left = lapse(roll, later(60))
    assert (ids(left), left.connections) == (["b"], 2)
    assert next_lapse(left.sessions) is None
    after, answers = do(roll, Renew("a", ANN), at=60)
    assert answers == [Unknown()]
    assert after == left


def test_a_lapsed_session_makes_room() -> None:
    roll, _ = do(Roll(), Join("a", ANN, LEASE), cap=1)
    roll, answers = do(roll, Join("b", BOB), cap=1, at=61)
    assert isinstance(answers[0], Joined)
    assert ids(roll) == ["b"]


def test_a_session_without_a_lease_has_no_end() -> None:
    roll, _ = do(Roll(), Join("a", ANN))
    after, answers = do(roll, Renew("a", ANN), at=1e7)
    assert isinstance(answers[0], Renewed)
    assert after == roll


# ---- properties ----------------------------------------------------------------------

CALLERS = st.sampled_from([ANN, BOB, ADMIN, NOBODY])
IDS = st.sampled_from("abcdef")
LEASES = st.none() | st.builds(Lease, st.integers(1, 100), st.integers(1, 100), st.integers(0, 30))
OPERATIONS = st.one_of(
    st.builds(Join, IDS, CALLERS, LEASES, st.none() | st.integers(1, 60)),
    st.builds(Attach, IDS, CALLERS, st.sampled_from("12")),
    st.builds(Detach, IDS, st.sampled_from(["", "1", "2"])),
    st.builds(Leave, IDS, CALLERS),
    st.builds(LeaveOne, CALLERS),
    st.builds(Renew, IDS, CALLERS, st.integers(0, 30)),
)
ROLLS = st.builds(
    lambda ids, extra: Roll(tuple(Session(id=i, user="ann") for i in ids), len(ids) + extra),
    st.lists(IDS, unique=True),
    st.integers(0, 3),
)
BATCHES = st.lists(st.tuples(st.integers(0, 40), OPERATIONS), max_size=30)


def _may_end(operation: Operation, session: Session) -> bool:
    if isinstance(operation, Detach):
        return (operation.id, operation.runtime_session) == (session.id, session.runtime_session_id)
    return operation.caller.may_touch(session)


@given(ROLLS, BATCHES, st.integers(1, 8))
def test_whatever_is_asked(roll: Roll, batch: list[tuple[int, Operation]], cap: int) -> None:
    at = 0
    for wait, operation in batch:
        at += wait
        before = lapse(roll, later(at))
        roll, [answer] = do(roll, operation, cap=cap, at=at)
        assert roll.connections >= len(roll.sessions) >= 0
        assert len(set(ids(roll))) == len(roll.sessions)
        assert roll.connections <= max(before.connections, cap)
        assert all(s.expires is None or s.expires > later(at) for s in roll.sessions)
        if isinstance(answer, (Foreign, Full, Unknown)):
            assert roll == before
        if isinstance(answer, Joined):
            assert roll.connections == before.connections + answer.fresh == answer.connections
        # Nobody but the caller of this operation lost anything.
        kept = {s.id for s in before.sessions if not _may_end(operation, s)}
        assert kept <= set(ids(roll))


@given(ROLLS, st.lists(OPERATIONS, max_size=20), st.integers(1, 8))
def test_a_batch_is_the_same_as_one_by_one(roll: Roll, operations: list[Operation], cap: int) -> None:
    together, answers = do(roll, *operations, cap=cap)
    single = []
    for operation in operations:
        roll, [answer] = do(roll, operation, cap=cap)
        single.append(answer)
    assert (together, answers) == (roll, single)


# ---- names ---------------------------------------------------------------------------


@given(st.text(min_size=1, max_size=128), st.text(min_size=1, max_size=128), st.integers(0, 998))
def test_names_of_instances_are_names_and_tell_avatars_apart(one: str, other: str, ordinal: int) -> None:
    import re

    name = names.instance_name("default", one, ordinal)
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)
    assert len(name) <= 63
    assert (name == names.instance_name("default", other, ordinal)) == (one == other)
    assert name != names.instance_name("gold", one, ordinal)


def test_names_of_instances_are_readable() -> None:
    assert names.instance_name("default", "test 3").startswith("test-3-")
    assert names.instance_name("default", "小明").startswith("avatar-")
    assert names.instance_name("default", "g", 1).endswith("-2")
