"""Choosing ports, and names that claims and groups have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avatar_operator.domain.names import claim_name, group_id
from avatar_operator.domain.ports import Admission, admit, lowest_free, overlap
from avatar_operator.domain.resources import PoolSpec, Ports, Runtime

FIVE = Ports(base=8615, count=5)


@pytest.mark.parametrize(
    ("taken", "port"),
    [
        pytest.param(set(), 8615, id="all-free"),
        pytest.param({8615, 8617}, 8616, id="a-hole"),
        pytest.param({8615, 8616, 8617, 8618}, 8619, id="the-last"),
        pytest.param(set(range(8615, 8620)), None, id="none"),
        pytest.param({1, 9000}, 8615, id="others-do-not-matter"),
    ],
)
def test_lowest_free(taken: set[int], port: int | None) -> None:
    assert lowest_free(FIVE, sorted(taken)) == port


@given(base=st.integers(8610, 8620), count=st.integers(1, 8), taken=st.sets(st.integers(8608, 8632)))
def test_the_lowest_is_the_one_that_a_look_at_each_finds(base: int, count: int, taken: set[int]) -> None:
    found = next((port for port in range(base, base + count) if port not in taken), None)
    assert lowest_free(Ports(base=base, count=count), sorted(taken)) == found


@pytest.mark.parametrize(
    ("capacity", "held", "rank", "taken", "expected"),
    [
        pytest.param(5, 0, 0, set(), (8615, 0, ""), id="first"),
        pytest.param(5, 0, 4, set(), (8615, 0, ""), id="room-for-all-that-wait-before"),
        pytest.param(5, 0, 5, set(), (None, 1, "PoolFull"), id="one-too-many-is-next"),
        pytest.param(5, 5, 0, set(range(8615, 8620)), (None, 1, "PoolFull"), id="full"),
        pytest.param(5, 5, 7, set(range(8615, 8620)), (None, 8, "PoolFull"), id="full-eighth"),
        pytest.param(5, 3, 3, {8615, 8616, 8617}, (None, 2, "PoolFull"), id="two-go-before"),
        pytest.param(2, 2, 0, {8615, 8616}, (None, 1, "PoolFull"), id="maxInstances-below-the-range"),
        pytest.param(
            2, 4, 1, {8615, 8616, 8617, 8618}, (None, 2, "PoolFull"), id="maxInstances-lowered-below-what-runs"
        ),
        pytest.param(5, 4, 0, set(range(8615, 8620)), (None, 1, "PortsExhausted"), id="a-port-quarantined"),
        pytest.param(5, 3, 1, set(range(8615, 8619)), (None, 1, "PortsExhausted"), id="one-port-for-two"),
        pytest.param(5, 3, 0, set(range(8615, 8619)), (8619, 0, ""), id="one-port-for-the-first-of-two"),
        pytest.param(
            5, 3, 2, set(range(8615, 8620)), (None, 3, "PoolFull"), id="positions-go-on-behind-exhausted-ports"
        ),
    ],
)
def test_admit(capacity: int, held: int, rank: int, taken: set[int], expected: tuple[int | None, int, str]) -> None:
    found = admit(FIVE, capacity, held, rank, sorted(taken))
    assert (found.port, found.position, found.reason) == expected
    assert bool(found.message) is (found.port is None)


@given(
    count=st.integers(1, 8),
    capacity=st.integers(1, 8),
    held=st.integers(0, 8),
    taken=st.sets(st.integers(8615, 8624)),
    waiting=st.integers(0, 12),
)
def test_positions_have_no_gap_and_no_port_is_taken_twice(
    count: int, capacity: int, held: int, taken: set[int], waiting: int
) -> None:
    ports = Ports(base=8615, count=count)
    line: list[Admission] = [admit(ports, capacity, held, rank, sorted(taken)) for rank in range(waiting)]
    admitted = [a for a in line if a.port is not None]
    assert line[: len(admitted)] == admitted, "somebody behind in the queue goes first"
    assert len(admitted) <= max(0, capacity - held)
    assert len(admitted) <= len(set(range(8615, 8615 + count)) - taken)
    assert all(a.port in ports and a.port not in taken for a in admitted if a.port)
    assert [a.position for a in line[len(admitted) :]] == list(range(1, waiting - len(admitted) + 1))


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        pytest.param(FIVE, FIVE, True, id="same"),
        pytest.param(FIVE, Ports(base=8620, count=5), False, id="right-behind"),
        pytest.param(FIVE, Ports(base=8610, count=5), False, id="right-before"),
        pytest.param(FIVE, Ports(base=8619, count=1), True, id="the-last-port"),
        pytest.param(FIVE, Ports(base=8600, count=100), True, id="inside"),
    ],
)
def test_overlap(one: Ports, other: Ports, expected: bool) -> None:
    assert overlap(one, other) is expected
    assert overlap(other, one) is expected


def test_a_range_contains_its_ports() -> None:
    assert [p for p in range(8610, 8625) if p in FIVE] == [8615, 8616, 8617, 8618, 8619]


@pytest.mark.parametrize(("asked", "capacity"), [(None, 5), (3, 3), (5, 5), (9, 5)])
def test_capacity(asked: int | None, capacity: int) -> None:
    assert PoolSpec(runtime=Runtime(image="x"), max_instances=asked).capacity == capacity


# ---- names -----------------------------------------------------------------------


def test_claim_name() -> None:
    assert claim_name(8615) == "avatar-8615"


@given(st.text(min_size=1, max_size=128))
def test_group_id_is_a_label_value_whatever_the_avatar_is_called(avatar_name: str) -> None:
    found = group_id("default", avatar_name)
    assert len(found) == 16
    assert set(found) <= set("0123456789abcdef")
    assert found == group_id("default", avatar_name)


def test_group_id_tells_apart_what_differs() -> None:
    asked = [
        ("p", "Ada", ""),
        ("p", "ada", ""),
        ("q", "Ada", ""),
        ("p", "Ada", "uid-1"),
        ("p", "Ada", "uid-2"),
        ("pA", "da", ""),
    ]
    assert len({group_id(*a) for a in asked}) == len(asked)
