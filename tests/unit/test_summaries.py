"""What the status of an AvatarPool and of an Avatar says."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from avatar_operator.domain.resources import (
    Avatar,
    AvatarStatus,
    Instance,
    InstanceStatus,
    Pool,
    PoolInstanceStatus,
    PoolPortStatus,
    PoolStatus,
    Ports,
)
from avatar_operator.domain.summaries import LISTED_PORTS, avatar_patch, pool_patch
from tests.unit.builders import NOW, ago, avatar, instance, later, pool


def applied(item: Pool, change: dict[str, Any] | None) -> Pool:
    """The pool after a merge patch of its status."""
    assert change is not None
    merged = {**msgspec.to_builtins(item.status), **change}
    return msgspec.structs.replace(item, status=msgspec.convert(merged, PoolStatus))


def of(phase: str) -> Instance:
    return instance(phase or "none", status=InstanceStatus(phase=phase))


def test_a_new_pool_says_everything_once() -> None:
    members = [of(p) for p in ("Running", "Shared", "Starting", "Pending", "", "Failed", "Stopped", "Draining")]
    change = pool_patch(pool(), [], members, [8615, 8616], 2, NOW)
    done = applied(pool(), change)
    assert done.status.ports == PoolPortStatus(used=2, free=3, in_use=[8615, 8616])
    assert done.status.instances == PoolInstanceStatus(
        running=1, shared=1, starting=1, pending=2, failed=1, stopped=1, draining=1
    )
    assert (done.status.queue_length, done.status.observed_generation) == (2, 1)
    assert {c.type: c.status for c in done.status.conditions} == {"PortRangeValid": "True", "Ready": "True"}
    assert pool_patch(done, [], members, [8615, 8616], 2, later(60)) is None


@pytest.mark.parametrize(
    ("members", "held", "waiting", "expected"),
    [
        pytest.param([], [], 7, {"queueLength": 7}, id="queue"),
        pytest.param([], [8617], 0, {"ports": {"used": 1, "free": 4, "inUse": [8617]}}, id="ports"),
        pytest.param(
            [of("Running")],
            [],
            0,
            {
                "instances": {
                    "running": 1,
                    "starting": 0,
                    "pending": 0,
                    "failed": 0,
                    "stopped": 0,
                    "shared": 0,
                    "draining": 0,
                }
            },
            id="instances",
        ),
    ],
)
def test_only_what_differs(members: list[Instance], held: list[int], waiting: int, expected: dict[str, Any]) -> None:
    idle = applied(pool(), pool_patch(pool(), [], [], [], 0, NOW))
    assert pool_patch(idle, [], members, held, waiting, later(1)) == expected


def test_counts_go_back_to_nothing() -> None:
    busy = applied(pool(), pool_patch(pool(), [], [of("Running")], [8615], 3, NOW))
    idle = applied(busy, pool_patch(busy, [], [], [], 0, later(1)))
    assert idle.status.ports == PoolPortStatus(used=0, free=5, in_use=[])
    assert idle.status.instances == PoolInstanceStatus()
    assert idle.status.queue_length == 0


def test_a_long_list_of_ports_is_cut() -> None:
    big = pool(ports=Ports(base=10_000, count=500))
    done = applied(big, pool_patch(big, [], [], list(range(10_000, 10_300)), 0, NOW))
    assert done.status.ports is not None
    assert done.status.ports.used == 300
    assert len(done.status.ports.in_use) == LISTED_PORTS


def test_overlapping_ranges_name_the_others() -> None:
    others = [pool("b", ports=Ports(base=8619, count=1)), pool("a"), pool("far", ports=Ports(base=9000, count=5))]
    done = applied(pool(), pool_patch(pool(), others, [], [], 0, NOW))
    valid, ready = done.status.conditions
    assert (valid.type, valid.status, valid.reason) == ("PortRangeValid", "False", "Overlapping")
    assert "AvatarPool a, b in this namespace" in valid.message
    assert (ready.type, ready.status, ready.reason) == ("Ready", "False", "PortRangeOverlaps")
    cured = applied(done, pool_patch(done, [], [], [], 0, later(60)))
    assert {(c.status, c.last_transition_time) for c in cured.status.conditions} == {("True", later(60))}


def test_an_avatar_is_accepted_once() -> None:
    one = avatar("Ada")
    change = avatar_patch(one, None, NOW)
    assert change is not None
    done: Avatar = msgspec.structs.replace(one, status=msgspec.convert(change, AvatarStatus))
    assert [(c.type, c.status, c.reason) for c in done.status.conditions] == [("Ready", "True", "Accepted")]
    assert avatar_patch(done, None, later(9)) is None


def test_a_namesake_is_told_which_one_counts() -> None:
    change = avatar_patch(avatar("Ada", name="copy"), avatar("Ada", name="first", created=ago(9)), NOW)
    assert change is not None
    (ready,) = change["conditions"]
    assert (ready["status"], ready["reason"]) == ("False", "DuplicateName")
    assert "'first'" in ready["message"]
