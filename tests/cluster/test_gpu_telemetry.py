"""What the agents report, what they cannot, and what follows: room, release, estimates, what people read.

Figures, unless a test says otherwise: GPUs of 24576 MiB, 5000 MiB per instance, 6000 MiB must be free. On an empty GPU
the instances find 24576, 19576, 14576 and 9576 MiB free, the fifth 4576: four fit.
"""

from __future__ import annotations

import asyncio
import re

import pytest

from tests.conftest import MakeOperator, RunKubectl
from tests.support.api import Json, until
from tests.support.gpus import GPU_MIB, LABEL_GPU, Gpus, dump, visible
from tests.support.observer import Observer
from tests.support.placing import NAMES, placed, tells
from tests.support.world import World, condition

pytestmark = pytest.mark.cluster


async def test_stale_telemetry_leaves_the_ledger(world: World, gpus: Gpus, operator_factory: MakeOperator) -> None:
    """4000 MiB of others were reported last: 20576, 15576, 10576, then 5576 are too few."""
    gpus.heartbeat = 1
    node = await gpus.node(24576)
    node.gpus[0].outside(4000)
    await gpus.reported()
    node.silent = True
    await asyncio.sleep(3.5)
    await world.pool(**gpus.pool())
    await world.avatar(*NAMES[:4])
    await operator_factory().start()
    async with Observer.watching(world.api, world.namespace, gpus.world, ledger_only=True) as seen:
        for name in NAMES[:3]:
            assert (await placed(world, name))["uuid"] == node.gpus[0].uuid
            assigned = condition(await world.status(name), "GPUAssigned")
            assert "StaleTelemetry" in (assigned["reason"], assigned.get("message")), assigned
            assert node.name in assigned["message"], assigned
        await world.instance(NAMES[3], NAMES[3])
        await world.phase(NAMES[3], "Pending", reason="GPUExhausted")
        await world.until(NAMES[3], "telling what is missing", lambda s: tells(s, 6000, 5576))
        # The agent is back and knows better: the others have left.
        node.gpus[0].outside(0)
        node.silent = False
        await world.phase(NAMES[3], "Running")
    seen.assert_kept()


async def test_processes_that_nvml_does_not_tell_apart(
    world: World, gpus: Gpus, operator_factory: MakeOperator
) -> None:
    """What is used is then taken for ours as far as it is reserved for loaded pods; the rest is external."""
    node = await gpus.node(24576)
    node.gpus[0].processes_known = False
    # Ready means loaded (the runtime listens when its model is in memory), and all that was reserved is used.
    gpus.share, gpus.loading = 5000, 0
    node.gpus[0].outside(4000)
    await gpus.reported()
    await world.pool(**gpus.pool())
    await world.avatar(*NAMES[:4])
    await operator_factory().start()
    async with Observer.watching(world.api, world.namespace, gpus.world) as seen:
        for name in NAMES[:3]:
            await placed(world, name)
        await world.instance(NAMES[3], NAMES[3])
        await world.phase(NAMES[3], "Pending", reason="GPUExhausted")
        await asyncio.sleep(2)
        await world.until(NAMES[3], "telling what is missing", lambda s: tells(s, 6000, 5576))
        books = await until("the books", lambda: gpus.status(node), lambda s: s.get("externalMiB") == 4000)
        assert books["reservedMiB"] == 15000
    seen.assert_kept()


async def test_without_any_gpunode_the_gpus_take_turns(
    world: World, gpus: Gpus, operator_factory: MakeOperator
) -> None:
    """Nothing is known of memory: primary and backup by their indices, each as often as the other."""
    node = await gpus.node(agent=False)
    await world.pool(**gpus.pool(primary={"indices": [1]}, backup={"indices": [0]}))
    await world.avatar(*NAMES[:4])
    await operator_factory().start()
    took = []
    for name in NAMES[:4]:
        await world.instance(name, name)
        status = await world.phase(name, "Running")
        assert status["node"] == node.name
        pod = await world.api.get("pods", world.namespace, status["podName"])
        assert pod is not None
        took.append(visible(pod))
        assigned = condition(status, "GPUAssigned")
        assert assigned["status"] == "True", assigned
        assert "telemetry" in assigned["message"].lower() or "gpunode" in assigned["message"].lower(), assigned
    assert sorted(map(str, took)) == ["0", "0", "1", "1"]
    assert took[0] == "1", "the primary is the first"
    assert took[0] != took[1]


async def test_external_growth_is_seen_before_the_next_start(
    world: World, gpus: Gpus, operator_factory: MakeOperator
) -> None:
    """Another process takes 12000 MiB beside two pods: 2576 are left, though 10000 of 24576 are reserved."""
    node = await gpus.node(24576)
    await world.pool(**gpus.pool())
    await world.avatar(*NAMES[:3])
    await operator_factory().start()
    async with Observer.watching(world.api, world.namespace, gpus.world) as seen:
        for name in NAMES[:2]:
            await placed(world, name)
        await asyncio.sleep(gpus.loading + 0.5)
        node.gpus[0].outside(12000)
        await gpus.reported()
        await until("the books", lambda: gpus.status(node), lambda s: s.get("externalMiB") == 12000)
        await world.instance(NAMES[2], NAMES[2])
        await world.phase(NAMES[2], "Pending", reason="GPUExhausted")
        await world.until(NAMES[2], "telling what is missing", lambda s: tells(s, 6000, 2576))
        node.gpus[0].outside(8000)
        await world.phase(NAMES[2], "Running")
    seen.assert_kept()


async def test_memory_is_given_on_when_the_pod_is_gone_and_time_has_passed(
    world: World, gpus: Gpus, operator_factory: MakeOperator
) -> None:
    """The agent says nothing, the pod takes two seconds to end: then four more."""
    gpus.heartbeat = 1
    node = await gpus.node(8000)
    pool = gpus.pool()
    pool["runtime"]["podAnnotations"] = {"avatars.test/delete-after": "2s"}
    await world.pool(**pool, termination={"gpuReleaseSeconds": 4})
    await world.avatar("ada", "bob")
    await operator_factory().start()
    options = {"release_seconds": 4, "ledger_only": True}
    async with Observer.watching(world.api, world.namespace, gpus.world, **options) as seen:
        await placed(world, "ada")
        await world.instance("bob", "bob")
        await world.phase("bob", "Pending", reason="GPUExhausted")
        node.silent = True
        await world.delete("ada")
        await world.phase("bob", "Running", timeout=30)
    seen.assert_kept()
    assert max(seen.most.values()) == 5000


async def test_memory_is_given_on_sooner_when_it_is_seen_to_be_free(
    world: World, gpus: Gpus, operator_factory: MakeOperator
) -> None:
    await gpus.node(8000)
    gpus.lingering = 1.5
    await world.pool(**gpus.pool(), termination={"gpuReleaseSeconds": 600})
    await world.avatar("ada", "bob")
    await operator_factory().start()
    async with Observer.watching(world.api, world.namespace, gpus.world, release_seconds=600) as seen:
        ada = await placed(world, "ada")
        # The agent must have seen it there, to see it leave.
        await asyncio.sleep(gpus.loading + 0.5)
        await world.instance("bob", "bob")
        await world.phase("bob", "Pending", reason="GPUExhausted")
        await world.delete("ada")
        bob = await world.phase("bob", "Running", timeout=30)
        assert bob["gpu"]["uuid"] == ada["uuid"]
    seen.assert_kept()


@pytest.mark.parametrize(
    ("estimates", "share", "expected"),
    [
        ("AtLeast", 7000, range(7000, 8001)),
        ("AtLeast", 3000, range(5000, 5001)),
        ("Learned", 3000, range(3000, 4001)),
        ("Fixed", 7000, range(5000, 5001)),
    ],
)
async def test_the_estimate_learns(
    world: World,
    gpus: Gpus,
    operator_factory: MakeOperator,
    estimates: str,
    share: int,
    expected: range,
) -> None:
    """What a pod was seen to use is in the Avatar's status, and the next start reserves by it (some spare is fine)."""
    await gpus.node(24576)
    gpus.share = share
    await world.pool(**gpus.pool(estimates=estimates))
    await world.avatar("ada")
    operator = await operator_factory().start()
    async with Observer.watching(world.api, world.namespace, gpus.world) as seen:
        await world.instance("one")
        assert (await world.phase("one", "Running"))["gpu"]["reservedMiB"] == 5000
        learned = await until(
            "the use being in the avatar's status",
            lambda: _vram(world, "ada"),
            lambda v: share - 64 <= v.get("observedMiB", 0) <= share,
            timeout=30,
        )
        if estimates != "Fixed":
            assert learned["estimateMiB"] >= learned["observedMiB"], learned
        await world.delete("one")
        await world.nothing_left(timeout=30)
        # It is kept where a restart finds it.
        operator.kill()
        await operator.start()
        await world.instance("two")
        status = await world.phase("two", "Running")
        assert status["gpu"]["reservedMiB"] in expected, dump(status)
        [service] = await world.services()
        assert int(service["metadata"]["annotations"][GPU_MIB]) in expected
    seen.assert_kept()


async def test_kubectl_tells_who_uses_which_gpu(
    world: World, gpus: Gpus, operator_factory: MakeOperator, kubectl: RunKubectl
) -> None:
    node = await gpus.node()
    node.gpus[0].outside(20000)
    node.gpus[1].outside(3000)
    await gpus.reported()
    await world.pool(**gpus.pool())
    await world.avatar("ada", "big", vramMiB=5000)
    await world.avatar("giant", vramMiB=30000)
    await operator_factory().start()
    await placed(world, "ada")
    await world.instance("giant", "giant")
    await world.phase("giant", "Pending", reason="GPUExhausted")
    await until("the books", lambda: gpus.status(node), lambda s: s.get("reservedMiB") == 5000)
    await until("others' use", lambda: gpus.status(node), lambda s: s.get("externalMiB") == 23000)
    await asyncio.sleep(gpus.loading + 0.5)

    row = _row(kubectl, "get", "avi", "ada", "-n", world.namespace)
    assert (row["GPU"], row["PHASE"]) == ("1", "Running"), row
    row = _row(kubectl, "get", "gpun", node.name)
    assert row["NAME"] == node.name
    assert row["GPUS"] == "2"
    assert row["FREE-MIB"] == str(2 * 24576 - 23000 - 4500), row
    assert row["AVATARS-MIB"] == "5000"
    assert row["EXTERNAL-MIB"] == "23000"
    assert row["HOTTEST-C"] == "40"
    assert re.fullmatch(r"\d+s", row["REPORTED"]), row
    status = await gpus.status(node)
    [reservation] = status["reservations"]
    assert reservation == {
        "uuid": node.gpus[1].uuid,
        "namespace": world.namespace,
        "pod": (await world.status("ada"))["podName"],
        "memoryMiB": 5000,
    }

    [service] = await world.services()
    assert service["metadata"]["labels"][LABEL_GPU] == node.gpus[1].uuid
    waiting = await world.status("giant")
    assert tells(waiting, 30000, 24576), waiting["message"]
    assert condition(waiting, "GPUAssigned").get("status") == "False", dump(waiting)
    [event] = [e for e in await world.events("GPUExhausted") if e["involvedObject"]["name"] == "giant"]
    assert "30000 MiB" in event["message"], event["message"]
    assigned = condition(await world.status("ada"), "GPUAssigned")
    assert assigned["status"] == "True"
    assert "GPU 1" in assigned["message"], assigned
    assert node.name in assigned["message"], assigned
    assert "5000 MiB" in assigned["message"], assigned


# ---- small parts -------------------------------------------------------------------------


async def _vram(world: World, avatar: str) -> Json:
    found = await world.api.get("avatars", world.namespace, avatar)
    return dict((found or {}).get("status", {}).get("vram", {}))


def _row(kubectl: RunKubectl, *args: str) -> dict[str, str]:
    """kubectl's table with one row, by its header. Columns are where the header's words begin."""
    header, line = kubectl(*args, check=True).stdout.rstrip("\n").split("\n")
    starts = [m.start() for m in re.finditer(r"\S+", header)]
    ends = [*starts[1:], None]
    return {header[a:b].strip(): line[a:b].strip() for a, b in zip(starts, ends, strict=True)}
