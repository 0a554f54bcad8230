"""What the status of an AvatarPool and of an Avatar says."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from avatar_operator.domain.gpunode import Reserved
from avatar_operator.domain.ledger import Room
from avatar_operator.domain.placement import Device
from avatar_operator.domain.resources import (
    Avatar,
    AvatarStatus,
    Gpu,
    GpuSelector,
    Instance,
    InstanceStatus,
    Pool,
    PoolInstanceStatus,
    PoolPortStatus,
    PoolStatus,
    Ports,
    VramStatus,
)
from avatar_operator.domain.summaries import LISTED_PORTS, PoolGpus, avatar_patch, gpunode_patch, pool_patch
from tests.unit.builders import NOW, ago, avatar, instance, later, pool
from tests.unit.gpu_builders import A0, A1, B0, DRA, HAMI, PLUGIN, VISIBLE, device, gpu, gpunode


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


# ---- GPUs ---------------------------------------------------------------------------------


def available(kind: Pool, gpus: PoolGpus) -> tuple[str, str, str]:
    """GPUsAvailable of a pool: status, reason, message."""
    done = applied(kind, pool_patch(kind, [], [], [], 0, NOW, gpus))
    found = {c.type: c for c in done.status.conditions}
    ready, gpu = found["Ready"], found["GPUsAvailable"]
    assert ready.status == ("False" if gpu.status == "False" else "True")
    assert ready.status == "True" or (ready.reason, ready.message) == (gpu.reason, gpu.message)
    return gpu.status, gpu.reason, gpu.message


CORDONED = device(A1, 1, problem="cordoned")
BY_INDEX = Gpu(mode="DRA", primary=GpuSelector(indices=[1]))


@pytest.mark.parametrize(
    ("devices", "now", "expected"),
    [
        pytest.param([device(), CORDONED], NOW, ("True", "Reported", "1 of 2 GPUs can be used"), id="some"),
        pytest.param([device(free=0)], NOW, ("True", "Reported", "1 of 1 GPUs can be used"), id="full-is-usable"),
        pytest.param(
            [CORDONED], NOW, ("False", "NoEligibleGPU", "none of its GPUs can be used: GPU 1 of a: cordoned"), id="none"
        ),
        pytest.param([], NOW, ("False", "NoEligibleGPU", "no GPU that is reported matches spec.gpu"), id="no-match"),
        pytest.param(
            [device(), device(B0, on="b"), CORDONED],
            later(90),
            ("Unknown", "StaleTelemetry", "the last report of a, b is too old; placed there by reservations alone"),
            id="all-stale",
        ),
    ],
)
def test_gpus_of_a_pool(devices: list[Device], now: Any, expected: tuple[str, str, str]) -> None:
    assert available(VISIBLE, PoolGpus(True, tuple(devices), now)) == expected


def test_one_node_that_is_silent() -> None:
    silent = Device("b", gpu(B0), Room(24000, stale_at=NOW))
    found = available(VISIBLE, PoolGpus(True, (device(), silent), NOW))
    assert found == ("True", "StaleTelemetry", "the last report of b is too old; placed there by reservations alone")


@pytest.mark.parametrize(
    ("kind", "status", "reason", "message"),
    [
        pytest.param(VISIBLE, "Unknown", "NoTelemetry", "GPUs are given out in turn", id="visible"),
        pytest.param(PLUGIN, "Unknown", "NoTelemetry", "the scheduler decides alone", id="plugin"),
        pytest.param(HAMI, "Unknown", "NoTelemetry", "the scheduler decides alone", id="hami"),
        pytest.param(DRA, "Unknown", "NoTelemetry", "the scheduler decides alone", id="dra"),
        pytest.param(pool("index", gpu=BY_INDEX), "False", "NeedsAgent", "gpu.primary.indices", id="dra-by-index"),
    ],
)
def test_a_pool_without_telemetry(kind: Pool, status: str, reason: str, message: str) -> None:
    found = available(kind, PoolGpus())
    assert found[:2] == (status, reason)
    assert message in found[2]


RESERVED = [
    Reserved(uuid=A0, namespace="live", pod="avatar-8615", mib=4000),
    Reserved(uuid=A1, namespace="live", pod="avatar-8616", mib=5000),
]


def test_what_the_operator_says_of_a_node() -> None:
    node = gpunode("a", gpu(A0), gpu(A1, 1))
    change = gpunode_patch(node, RESERVED, [Room(external=1000), Room(external=500)])
    assert change == {
        "reservations": [
            {"uuid": A0, "namespace": "live", "pod": "avatar-8615", "memoryMiB": 4000},
            {"uuid": A1, "namespace": "live", "pod": "avatar-8616", "memoryMiB": 5000},
        ],
        "reservedMiB": 9000,
        "externalMiB": 1500,
    }
    nothing = {"reservedMiB": 0, "externalMiB": 0}
    assert gpunode_patch(gpunode("a"), [], [Room()]) == nothing, "kubectl shows zeros, no blanks"
    assert gpunode_patch(gpunode("a", reserved_mib=0, external_mib=0), [], [Room()]) is None


@pytest.mark.parametrize(
    ("reserved", "external", "fields"),
    [
        pytest.param(RESERVED, 1500, set(), id="the-same"),
        pytest.param(RESERVED, 1563, set(), id="a-little-more"),
        pytest.param(RESERVED, 1564, {"externalMiB"}, id="more"),
        pytest.param(RESERVED, 0, {"externalMiB"}, id="nothing-any-more"),
        pytest.param(RESERVED[:1], 1500, {"reservations", "reservedMiB"}, id="one-less"),
        pytest.param([], 1500, {"reservations", "reservedMiB"}, id="none-any-more"),
    ],
)
def test_only_news_of_a_node(reserved: list[Reserved], external: int, fields: set[str]) -> None:
    known = gpunode("a", gpu(A0), reservations=tuple(RESERVED), reserved_mib=9000, external_mib=1500)
    assert set(gpunode_patch(known, reserved, [Room(external=external)]) or ()) == fields


def knowing(observed: int, estimate: int, generation: int = 1) -> Avatar:
    """An Avatar of generation 1 of which something was learned."""
    status = AvatarStatus(
        observed_generation=generation,
        vram=VramStatus(observed_mib=observed, estimate_mib=estimate) if estimate else None,
    )
    return msgspec.structs.replace(avatar(), status=status)


@pytest.mark.parametrize(
    ("one", "observed", "vram"),
    [
        pytest.param(avatar(), 0, "same", id="nothing-seen"),
        pytest.param(avatar(), 4000, {"observedMiB": 4000, "estimateMiB": 4416}, id="the-first"),
        pytest.param(knowing(4000, 4416), 4010, "same", id="no-news"),
        pytest.param(knowing(4000, 4416), 5000, {"observedMiB": 5000, "estimateMiB": 5504}, id="more"),
        pytest.param(knowing(0, 9024), 5000, {"observedMiB": 5000, "estimateMiB": 9024}, id="less-than-was-too-little"),
        pytest.param(knowing(4000, 4416, 2), 5000, None, id="another-model-now"),
        pytest.param(knowing(0, 0, 2), 4000, {"observedMiB": 4000, "estimateMiB": 4416}, id="nothing-to-forget"),
    ],
)
def test_what_is_learned_of_an_avatar(one: Avatar, observed: int, vram: Any) -> None:
    change = avatar_patch(one, None, NOW, observed) or {}
    assert change.get("vram", "same") == vram


def test_a_namesake_learns_nothing() -> None:
    change = avatar_patch(avatar("Ada", name="copy"), avatar("Ada"), NOW, 0)
    assert change is not None
    assert "vram" not in change
