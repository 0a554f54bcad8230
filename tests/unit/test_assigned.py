"""What an instance says of its GPU, and whether its claim is still good for it."""

from __future__ import annotations

from typing import Any

import pytest

from avatar_operator.domain.assigned import NO_PROCESS_SECONDS, condition, gpu_status, released, reservation_holds
from avatar_operator.domain.placement import Placement
from avatar_operator.domain.resources import GpuStatus, InstanceStatus, Pod, Pool
from avatar_operator.domain.view import GpuView, RuntimeView
from tests.unit import builders
from tests.unit.builders import NOW, ago, instance, later, pool, seen, view
from tests.unit.gpu_builders import A0, A1, DRA, HAMI, PLUGIN, VISIBLE, gpu, gpu_pod

CPU = pool()
ON_A0 = Placement(4000, "a", A0, 0)
BARE = Placement(4000, "likely")


def running(reserved: Placement = ON_A0) -> Pod:
    return gpu_pod(instance(), reserved, on="a")


@pytest.mark.parametrize(
    ("kind", "known", "expected"),
    [
        pytest.param(CPU, GpuView(reserved=ON_A0), None, id="cpu"),
        pytest.param(VISIBLE, GpuView(), None, id="nothing-reserved"),
        pytest.param(VISIBLE, GpuView(reserved=ON_A0), ("a", 0, A0, 4000), id="placed"),
        pytest.param(VISIBLE, GpuView(reserved=Placement(4000, uuid="all")), ("a", None, "all", 4000), id="blind"),
        pytest.param(PLUGIN, GpuView(reserved=BARE), ("a", None, "", 4000), id="not-found-yet"),
        pytest.param(PLUGIN, GpuView(reserved=BARE, report=gpu(A1, 1)), ("a", 1, A1, 4000), id="found-by-processes"),
        pytest.param(
            DRA, GpuView(reserved=BARE, allocated=Placement(5000, "a", A1, 1)), ("a", 1, A1, 5000), id="allocated"
        ),
    ],
)
def test_gpu_status(kind: Pool, known: GpuView, expected: tuple[Any, ...] | None) -> None:
    found = gpu_status(known, kind, running())
    assert (found and (found.node, found.index, found.uuid, found.reserved_mib)) == expected


def test_the_likely_node_until_there_is_a_pod() -> None:
    assert gpu_status(GpuView(reserved=BARE), PLUGIN) == GpuStatus(node="likely", reserved_mib=4000)


@pytest.mark.parametrize(
    ("kind", "known", "status", "reason", "message"),
    [
        pytest.param(
            VISIBLE,
            GpuView(reserved=ON_A0, report=gpu(A0)),
            "True",
            "Reserved",
            f"4000 MiB of GPU 0 ({A0}) of a",
            id="fine",
        ),
        pytest.param(
            VISIBLE,
            GpuView(reserved=ON_A0, report=gpu(A0), stale=True),
            "True",
            "StaleTelemetry",
            "by reservations",
            id="old",
        ),
        pytest.param(VISIBLE, GpuView(reserved=ON_A0), "True", "NoTelemetry", "in turn", id="blind"),
        pytest.param(VISIBLE, GpuView(), "False", "NotReserved", "made before the pool had GPUs", id="of-a-cpu-pool"),
        pytest.param(PLUGIN, GpuView(reserved=BARE), "True", "Scheduled", "by DevicePlugin on a", id="plugin"),
        pytest.param(
            DRA,
            GpuView(reserved=BARE, allocated=Placement(4000, "a", A1, 1), report=gpu(A1, 1)),
            "True",
            "Reserved",
            f"4000 MiB of GPU 1 ({A1}) of a",
            id="dra",
        ),
    ],
)
def test_condition(kind: Pool, known: GpuView, status: str, reason: str, message: str) -> None:
    found = condition(view(instance(), pool=kind, gpu=known), kind, running())
    assert found is not None
    assert found[:3] == ("GPUAssigned", status, reason)
    assert message in found[3]


def test_a_cpu_pool_says_nothing() -> None:
    assert condition(view(instance(), gpu=GpuView()), CPU, builders.pod([instance()])) is None


@pytest.mark.parametrize(
    ("runtime", "missing"),
    [
        pytest.param((A0,), "", id="this-one"),
        pytest.param((A1, A0), "", id="among-others"),
        pytest.param((), "the runtime sees no GPU", id="none"),
        pytest.param((A1,), f"the runtime sees {A1} instead", id="another"),
        pytest.param(None, "", id="does-not-tell"),
    ],
)
def test_the_runtimes_word(runtime: tuple[str, ...] | None, missing: str) -> None:
    known = GpuView(reserved=ON_A0, report=gpu(A0), reported=ago(0))
    told = RuntimeView(activity=seen(0, gpus=runtime))
    found = condition(view(instance(), pool=VISIBLE, gpu=known, runtime=told), VISIBLE, running())
    assert found is not None
    assert (found[2] == "NoGPUVisible") is bool(missing)
    assert missing in found[3]
    assert not missing or found[3].startswith(f"GPU 0 ({A0}) of a: {missing}; check runtimeClassName")


READY_FOR = 50
LATE = NO_PROCESS_SECONDS - READY_FOR


@pytest.mark.parametrize(
    ("report", "reported", "stale", "said", "missing"),
    [
        pytest.param(gpu(A0), LATE, False, None, True, id="no-process"),
        pytest.param(gpu(A0), LATE - 1, False, None, False, id="not-for-long-enough"),
        pytest.param(gpu(A0), LATE, True, None, False, id="an-old-report"),
        pytest.param(gpu(A0, known=False), LATE, False, None, False, id="sees-no-processes"),
        pytest.param(gpu(A0, pods={"uid-avatar-8615": 100}), LATE, False, None, False, id="a-process"),
        pytest.param(gpu(A0, pods={"x": 100}), LATE, False, None, True, id="another-pods"),
        pytest.param(gpu(A0), LATE, False, (A0,), False, id="the-runtime-knows-better"),
        pytest.param(None, LATE, False, None, False, id="no-report"),
    ],
)
def test_a_runtime_that_does_not_tell(
    report: Any, reported: int, stale: bool, said: tuple[str, ...] | None, missing: bool
) -> None:
    known = GpuView(reserved=ON_A0, report=report, reported=later(reported) if report else None, stale=stale)
    told = RuntimeView(activity=seen(0, gpus=said))
    found = condition(view(instance(), pool=VISIBLE, gpu=known, runtime=told), VISIBLE, running())
    assert found is not None
    assert (found[2] == "NoGPUVisible") is missing
    assert ("no process of the pod is on it 90 s after it was ready" in found[3]) is missing


@pytest.mark.parametrize(
    ("kind", "reserved", "holds"),
    [
        pytest.param(CPU, None, True, id="cpu"),
        pytest.param(CPU, ON_A0, False, id="cpu-now"),
        pytest.param(VISIBLE, None, False, id="no-cpu-any-more"),
        pytest.param(VISIBLE, ON_A0, True, id="visible"),
        pytest.param(VISIBLE, Placement(4000, uuid="1", index=1), True, id="visible-blind"),
        pytest.param(VISIBLE, BARE, False, id="visible-now"),
        pytest.param(HAMI, ON_A0, True, id="hami"),
        pytest.param(HAMI, BARE, True, id="hami-blind"),
        pytest.param(PLUGIN, BARE, True, id="plugin"),
        pytest.param(PLUGIN, ON_A0, False, id="plugin-now"),
        pytest.param(DRA, Placement(4000), True, id="dra"),
        pytest.param(DRA, ON_A0, False, id="dra-now"),
    ],
)
def test_a_claim_of_another_mode_does_not_hold(kind: Pool, reserved: Placement | None, holds: bool) -> None:
    assert reservation_holds(GpuView(reserved=reserved), kind) is holds
    assert not reservation_holds(GpuView(reserved=reserved, lost="lost"), kind) or kind is CPU


def test_released_is_said_only_by_those_that_had_one() -> None:
    assert released(instance(), "OOMKilled") == ()
    had = instance(status=InstanceStatus(conditions=(builders.condition("GPUAssigned", "True", since=NOW),)))
    assert released(had, "OOMKilled") == (("GPUAssigned", "False", "OOMKilled", "released"),)
