"""The operator in each GPU mode, with the real API server, scheduler and controllers; kwok plays the nodes.

The amounts are chosen so that two instances of 11 GiB fit on a GPU of 24 GiB: 24576, 13312, then 2048 MiB are free.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Cluster, MakeOperator
from tests.support import dra
from tests.support.api import Json, until
from tests.support.gpus import GIB_24, GPU_MIB, LABEL_GPU, FakeGpuNode, Gpus, Use, dump, visible
from tests.support.placing import NAMES, in_phase, placed, tells
from tests.support.proxy import Proxy, matching
from tests.support.runtime import FakeRuntime, pods_at
from tests.support.world import World, condition

pytestmark = pytest.mark.cluster

PART = 11 * 1024
GPU_1_THEN_0 = {"primary": {"indices": [1]}, "backup": {"indices": [0]}}
OUT_OF_MEMORY = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 24 GiB"


@pytest.fixture
async def proxy(cluster: Cluster) -> AsyncIterator[Proxy]:
    async with Proxy(cluster.kubeconfig) as found:
        yield found


def pool_of(gpus: Gpus, mode: str, /, runtime: Json | None = None, **gpu: Any) -> Json:
    """A pool of the mode in which an instance takes PART of a GPU."""
    pool = gpus.pool(**{"mode": mode, "perInstanceMiB": PART, "minFreeMiB": PART, **gpu})
    pool["runtime"] |= runtime or {}
    return pool


async def give(world: World, node: FakeGpuNode, **resources: str) -> None:
    """What a device plugin tells the kubelet of the node."""
    status = {"allocatable": resources, "capacity": resources}
    await world.api.patch("nodes", "", node.name, {"status": status}, "status")


async def publish(world: World, *nodes: FakeGpuNode) -> None:
    """A DRA driver's ResourceSlice of each node."""
    await dra.install(world.api)
    for node in nodes:
        await dra.publish(world.api, node.name, *(dra.FakeGpu(g.uuid, g.index, mib=g.total) for g in node.gpus))


async def claims(world: World) -> list[Json]:
    return await world.api.list(dra.CLAIMS, world.namespace)


async def allocated(world: World, name: str) -> Json:
    """status.gpu of a running instance, once the operator has read what the scheduler gave it."""
    status = await world.until(
        name, "telling its GPU", lambda s: s.get("phase") == "Running" and s.get("gpu", {}).get("uuid")
    )
    return dict(status["gpu"])


async def no_claims(world: World) -> None:
    await until("no ResourceClaim being left", lambda: claims(world), lambda found: not found)


async def pod_of(world: World, name: str) -> Json:
    pod = await world.api.get("pods", world.namespace, (await world.status(name))["podName"])
    assert pod is not None
    return pod


def compute(gpus: Gpus, uuid: str, pod: Json, mib: int = PART) -> None:
    """From now on the pod's processes are on that GPU, whoever chose it."""
    gpus.of(uuid).uses[pod["metadata"]["uid"]] = Use(mib, loading=0, ready_at=0)


async def available(world: World, reason: str) -> Json:
    """The pool's condition GPUsAvailable, once it has the reason."""

    async def look() -> Json:
        pool = await world.api.get("avatarpools", world.namespace, "default")
        return condition((pool or {}).get("status", {}), "GPUsAvailable")

    return await until(f"GPUsAvailable being {reason}", look, lambda c: c.get("reason") == reason)


# ---- DRA ---------------------------------------------------------------------------------


async def test_dra_primary_then_backup_then_the_queue(world: World, gpus: Gpus, operator_factory: MakeOperator) -> None:
    node = await gpus.node()
    await publish(world, node)
    await world.pool(**pool_of(gpus, "DRA", **GPU_1_THEN_0))
    await world.avatar(*NAMES[:5])
    await operator_factory().start()
    for name, index in zip(NAMES[:4], (1, 1, 0, 0), strict=True):
        await world.instance(name, name)
        got = await allocated(world, name)
        assert got == {"node": node.name, "uuid": node.gpus[index].uuid, "index": index, "reservedMiB": PART}
        # The pod was there first: the claim knows its UID.
        uid = (await pod_of(world, name))["metadata"]["uid"]
        [claim] = [c for c in await claims(world) if c["metadata"]["ownerReferences"][0]["uid"] == uid]
        [result] = claim["status"]["allocation"]["devices"]["results"]
        assert (result["pool"], result["device"]) == (node.name, f"gpu-{index}")
        assert condition(await world.status(name), "GPUAssigned")["status"] == "True"
    await until("the books", lambda: gpus.status(node), lambda s: s.get("reservedMiB") == 4 * PART)
    await world.instance(NAMES[4], NAMES[4])
    await world.phase(NAMES[4], "Pending", reason="GPUExhausted")
    await world.until(NAMES[4], "telling what is missing", lambda s: tells(s, PART, 2048))
    await world.delete(NAMES[0])
    got = await allocated(world, NAMES[4])
    assert (got["index"], got["uuid"]) == (1, node.gpus[1].uuid)
    await world.delete(*NAMES[1:5])
    await world.nothing_left()
    await no_claims(world)
    await until("empty books", lambda: gpus.status(node), lambda s: not s.get("reservedMiB"))


async def test_dra_leaves_out_a_gpu_that_others_fill(world: World, gpus: Gpus, operator_factory: MakeOperator) -> None:
    """The scheduler does not see them: for it both GPUs are empty."""
    node = await gpus.node()
    node.gpus[1].outside(20000)
    await gpus.reported()
    await publish(world, node)
    await world.pool(**pool_of(gpus, "DRA", **GPU_1_THEN_0))
    await world.avatar(*NAMES[:2])
    await operator_factory().start()
    await world.instance(NAMES[0], NAMES[0])
    assert (await allocated(world, NAMES[0]))["index"] == 0
    node.gpus[0].outside(10000)
    await gpus.reported()
    await world.instance(NAMES[1], NAMES[1])
    await world.phase(NAMES[1], "Pending", reason="GPUExhausted")
    node.gpus[1].outside(0)
    assert (await allocated(world, NAMES[1]))["index"] == 1


async def test_dra_without_telemetry_is_the_schedulers(
    world: World, gpus: Gpus, operator_factory: MakeOperator
) -> None:
    node = await gpus.node(GIB_24, agent=False)
    await publish(world, node)
    await world.pool(**pool_of(gpus, "DRA", primary={"products": ["NVIDIA-L4"]}))
    await world.avatar(*NAMES[:3])
    await operator_factory().start()
    whole = {"node": node.name, "uuid": node.gpus[0].uuid, "index": 0, "reservedMiB": PART}
    for name in NAMES[:2]:
        await world.instance(name, name)
        assert await allocated(world, name) == whole
    assert (await available(world, "NoTelemetry"))["status"] == "Unknown"
    await world.instance(NAMES[2], NAMES[2])
    await world.until(NAMES[2], "telling why", lambda s: "cannot allocate all claims" in s.get("message", ""))
    status = await world.status(NAMES[2])
    assert (status["phase"], status["reason"]) == ("Starting", "Unschedulable")
    await world.delete(NAMES[0])
    assert await allocated(world, NAMES[2]) == whole
    await world.delete(*NAMES[1:3])
    await world.nothing_left()
    await no_claims(world)


async def test_dra_without_telemetry_cannot_ask_for_indices(
    world: World, gpus: Gpus, operator_factory: MakeOperator
) -> None:
    node = await gpus.node(agent=False)
    await publish(world, node)
    await world.pool(**pool_of(gpus, "DRA", **GPU_1_THEN_0))
    await world.avatar("ada")
    await operator_factory().start()
    told = await available(world, "NeedsAgent")
    assert told["status"] == "False"
    await world.instance("ada")
    status = await world.phase("ada", "Pending")
    for text in (told["message"], status["message"]):
        assert "gpu.primary.indices" in text, text
        assert "node agent" in text, text
        assert "gpu.primary.uuids" in text, text
    await world.stays("no pod", lambda: _nothing(world), 1)
    # What the message says helps.
    spec = {"gpu": {"primary": {"indices": None, "uuids": [node.gpus[1].uuid]}, "backup": None}}
    await world.api.patch("avatarpools", world.namespace, "default", {"spec": spec})
    assert (await allocated(world, "ada"))["uuid"] == node.gpus[1].uuid


async def _nothing(world: World) -> bool:
    return not await world.left()


async def test_dra_a_rush_for_the_last_room(world: World, gpus: Gpus, operator_factory: MakeOperator) -> None:
    """Others use 10000 MiB of each GPU, which the scheduler does not see: one instance fits on each, not two."""
    node = await gpus.node()
    for gpu in node.gpus:
        gpu.outside(10000)
    await gpus.reported()
    await publish(world, node)
    await world.pool(**pool_of(gpus, "DRA"))
    await world.avatar(*NAMES[:4])
    await operator_factory().start()
    await asyncio.gather(*(world.instance(name, name) for name in NAMES[:4]))
    await until("two running", world.statuses, lambda all_: len(in_phase(all_, "Running")) == 2)
    await until("the books", lambda: gpus.status(node), lambda s: s.get("reservedMiB") == 2 * PART)
    await asyncio.sleep(1)
    statuses = await world.statuses()
    assert len(in_phase(statuses, "Running")) == 2, dump(statuses)
    assert {statuses[name]["gpu"]["uuid"] for name in in_phase(statuses, "Running")} == {g.uuid for g in node.gpus}
    for name in in_phase(statuses, "Pending"):
        assert statuses[name]["reason"] == "GPUExhausted", dump(statuses[name])
    assert len(await world.pods()) == 2
    node.gpus[0].outside(0)
    await until("three running", world.statuses, lambda all_: len(in_phase(all_, "Running")) == 3)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", ["pods", "resourceclaims"])
async def test_dra_killed_while_the_claim_is_made(
    world: World, gpus: Gpus, operator_factory: MakeOperator, proxy: Proxy, tmp_path: Path, what: str, when: str
) -> None:
    node = await gpus.node(GIB_24)
    await publish(world, node)
    await world.pool(**pool_of(gpus, "DRA"))
    await world.avatar("ada")
    operator = await operator_factory(proxy.kubeconfig(tmp_path / "kubeconfig")).start()
    proxy.kill_at(matching("create", what), when, operator.kill)
    await world.instance("ada")
    await asyncio.wait_for(proxy.killed.wait(), 15)
    proxy.rules.clear()
    await operator.start()
    got = await allocated(world, "ada")
    assert got == {"node": node.name, "uuid": node.gpus[0].uuid, "index": 0, "reservedMiB": PART}
    assert (await world.status("ada")).get("restarts", 0) == 0
    pods, found = await world.pods(), await claims(world)
    assert [c["metadata"]["ownerReferences"][0]["uid"] for c in found] == [p["metadata"]["uid"] for p in pods]
    # A third process reads of the allocation in the instance's status.
    operator.kill()
    await operator.start()
    await until("the books", lambda: gpus.status(node), lambda s: s.get("reservedMiB") == PART)
    await world.delete("ada")
    await world.nothing_left()
    await no_claims(world)


async def test_dra_a_lost_pod_gets_a_claim_of_its_own(world: World, gpus: Gpus, operator_factory: MakeOperator) -> None:
    node = await gpus.node(GIB_24)
    await publish(world, node)
    await world.pool(**pool_of(gpus, "DRA"))
    await world.avatar("ada")
    await operator_factory().start()
    await world.instance("ada")
    await allocated(world, "ada")
    before = await pod_of(world, "ada")
    await world.delete_pod(before["metadata"]["name"])

    async def another() -> bool:
        pods = await world.pods()
        status = await world.status("ada")
        new = [p["metadata"]["uid"] for p in pods] not in ([], [before["metadata"]["uid"]])
        return new and status.get("phase") == "Running" and status.get("gpu", {}).get("uuid") == node.gpus[0].uuid

    await until("another pod running on the GPU", another, bool)
    now = await pod_of(world, "ada")
    found = await until("one claim", lambda: claims(world), lambda c: len(c) == 1)
    assert found[0]["metadata"]["ownerReferences"][0]["uid"] == now["metadata"]["uid"]


# ---- DevicePlugin ------------------------------------------------------------------------


async def test_device_plugin_node_by_telemetry_and_as_many_as_it_has(
    world: World, gpus: Gpus, operator_factory: MakeOperator
) -> None:
    full, node = await gpus.node(), await gpus.node()
    for gpu in full.gpus:
        gpu.outside(20000)
    await gpus.reported()
    for one in (full, node):
        await give(world, one, **{"nvidia.com/gpu": "2"})
    await world.pool(**pool_of(gpus, "DevicePlugin"))
    await world.avatar(*NAMES[:3])
    await operator_factory().start()
    for name, index in zip(NAMES[:2], (1, 0), strict=True):
        assert await placed(world, name) == {"node": node.name, "uuid": "", "reservedMiB": PART}
        pod = await pod_of(world, name)
        assert pod["spec"]["nodeName"] == node.name
        assert pod["spec"]["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "1"}
        # The agent finds the pod's processes on the GPU that the plugin picked.
        compute(gpus, node.gpus[index].uuid, pod)
        status = await world.until(name, "telling its GPU", lambda s: s["gpu"].get("uuid"))
        assert (status["gpu"]["uuid"], status["gpu"]["index"]) == (node.gpus[index].uuid, index)
        assigned = condition(status, "GPUAssigned")
        assert assigned["status"] == "True", assigned
    books = await until("the books", lambda: gpus.status(node), lambda s: s.get("reservedMiB") == 2 * PART)
    assert {r["uuid"] for r in books["reservations"]} == {g.uuid for g in node.gpus}
    await world.instance(NAMES[2], NAMES[2])
    waiting = await world.phase(NAMES[2], "Pending", reason="GPUExhausted")
    assert "every nvidia.com/gpu" in waiting["message"], waiting["message"]
    assert "in use" in waiting["message"], waiting["message"]
    await world.delete(NAMES[0])
    assert (await world.phase(NAMES[2], "Running"))["gpu"]["node"] == node.name


async def test_device_plugin_without_telemetry_is_the_schedulers(
    world: World, gpus: Gpus, operator_factory: MakeOperator
) -> None:
    node = await gpus.node(agent=False)
    await give(world, node, **{"nvidia.com/gpu": "2"})
    await world.pool(**pool_of(gpus, "DevicePlugin"))
    await world.avatar(*NAMES[:3])
    await operator_factory().start()
    for name in NAMES[:2]:
        assert await placed(world, name) == {"node": node.name, "uuid": "", "reservedMiB": PART}
        assert condition(await world.status(name), "GPUAssigned")["status"] == "True"
    await world.instance(NAMES[2], NAMES[2])
    await world.until(NAMES[2], "telling why", lambda s: "Insufficient nvidia.com/gpu" in s.get("message", ""))
    await world.delete(NAMES[1])
    await world.phase(NAMES[2], "Running")


async def test_device_plugin_counts_where_pods_are_not_where_they_were_expected(
    world: World, gpus: Gpus, operator_factory: MakeOperator
) -> None:
    """Somebody else's pod has the better node's only slot; when it leaves, that node is for the next instance."""
    better, other = await gpus.node(GIB_24), await gpus.node(GIB_24)
    other.gpus[0].outside(2000)
    await gpus.reported()
    for one in (better, other):
        await give(world, one, **{"nvidia.com/gpu": "1"})
    container = {"name": "c", "image": "x", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
    spec = {
        "containers": [container],
        "nodeSelector": {"kubernetes.io/hostname": better.name},
        "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
    }
    await world.api.create("pods", world.namespace, {"metadata": {"name": "stranger"}, "spec": spec})
    await until(
        "the stranger running",
        lambda: world.api.get("pods", world.namespace, "stranger"),
        lambda pod: pod and pod["status"].get("phase") == "Running",
    )
    await world.pool(**pool_of(gpus, "DevicePlugin"))
    await world.avatar(*NAMES[:2])
    await operator_factory().start()
    assert (await placed(world, NAMES[0]))["node"] == other.name
    await world.delete_pod("stranger")
    assert (await placed(world, NAMES[1]))["node"] == better.name


# ---- HAMi --------------------------------------------------------------------------------


async def test_hami_is_told_gpu_and_amount(world: World, gpus: Gpus, operator_factory: MakeOperator) -> None:
    node = await gpus.node()
    await give(world, node, **{"nvidia.com/gpu": "20", "nvidia.com/gpumem": str(2 * GIB_24)})
    await world.pool(**pool_of(gpus, "HAMi", **GPU_1_THEN_0))
    await world.avatar(*NAMES[:5])
    await operator_factory().start()
    for name, index in zip(NAMES[:4], (1, 1, 0, 0), strict=True):
        uuid = node.gpus[index].uuid
        assert await placed(world, name) == {"node": node.name, "uuid": uuid, "index": index, "reservedMiB": PART}
        pod = await pod_of(world, name)
        assert pod["metadata"]["annotations"]["nvidia.com/use-gpuuuid"] == uuid
        assert pod["metadata"]["annotations"][GPU_MIB] == str(PART)
        assert pod["metadata"]["labels"][LABEL_GPU] == uuid
        limits = pod["spec"]["containers"][0]["resources"]["limits"]
        assert limits == {"nvidia.com/gpu": "1", "nvidia.com/gpumem": str(PART)}
        assert visible(pod) is None
    books = await until("the books", lambda: gpus.status(node), lambda s: s.get("reservedMiB") == 4 * PART)
    assert sorted(r["memoryMiB"] for r in books["reservations"]) == [PART] * 4
    await world.instance(NAMES[4], NAMES[4])
    await world.phase(NAMES[4], "Pending", reason="GPUExhausted")
    await world.until(NAMES[4], "telling what is missing", lambda s: tells(s, PART, 2048))
    await world.delete(NAMES[3])
    assert (await world.phase(NAMES[4], "Running"))["gpu"]["uuid"] == node.gpus[0].uuid


# ---- what the pod itself sees -------------------------------------------------------------


@pytest.fixture
async def runtime() -> AsyncIterator[FakeRuntime]:
    """The runtime behind the pod of a pool from `seeing`."""
    async with FakeRuntime() as fake:
        yield fake


def seeing(gpus: Gpus, runtime: FakeRuntime) -> Json:
    """A pool whose only pod is `runtime`."""
    pool = pool_of(gpus, "VisibleDevices", pods_at(runtime.address))
    return {**pool, "ports": {"base": runtime.port, "count": 1}, "maxInstances": 1}


async def test_a_runtime_that_sees_no_gpu(
    world: World, gpus: Gpus, operator_factory: MakeOperator, runtime: FakeRuntime
) -> None:
    runtime.gpus = []
    node = await gpus.node(GIB_24)
    await world.pool(**seeing(gpus, runtime))
    await world.avatar("ada")
    await operator_factory().start()
    await placed(world, "ada")
    status = await world.until(
        "ada", "seeing none", lambda s: condition(s, "GPUAssigned").get("reason") == "NoGPUVisible"
    )
    assigned = condition(status, "GPUAssigned")
    assert assigned["status"] == "False"
    for word in ("sees no GPU", node.gpus[0].uuid, node.name, "runtimeClassName"):
        assert word in assigned["message"], assigned["message"]
    # It serves all the same: whether it can, its own users will see.
    assert status["phase"] == "Running"
    # Looked at again and again, said once.
    for _ in range(3):
        await world.connections("ada", 1)
        await asyncio.sleep(0.5)
        await world.connections("ada", 0)
        await gpus.reported()
    [event] = await world.events("NoGPUVisible")
    assert event["type"] == "Warning"
    assert "runtimeClassName" in event["message"], event["message"]


async def test_a_runtime_that_sees_its_gpu(
    world: World, gpus: Gpus, operator_factory: MakeOperator, runtime: FakeRuntime
) -> None:
    node = await gpus.node(GIB_24)
    runtime.gpus = [node.gpus[0].uuid]
    await world.pool(**seeing(gpus, runtime))
    await world.avatar("ada")
    await operator_factory().start()
    await placed(world, "ada")
    await until("the runtime being asked", _looks(runtime), lambda looks: looks > 0)
    await asyncio.sleep(0.5)
    assigned = condition(await world.status("ada"), "GPUAssigned")
    assert (assigned["status"], assigned["reason"]) == ("True", "Reserved"), assigned
    assert not await world.events("NoGPUVisible")


async def test_a_runtime_that_sees_another_gpu(
    world: World, gpus: Gpus, operator_factory: MakeOperator, runtime: FakeRuntime
) -> None:
    runtime.gpus = ["GPU-of-another"]
    node = await gpus.node(GIB_24)
    await world.pool(**seeing(gpus, runtime))
    await world.avatar("ada")
    await operator_factory().start()
    await placed(world, "ada")
    status = await world.until("ada", "seeing another", lambda s: condition(s, "GPUAssigned").get("status") == "False")
    assigned = condition(status, "GPUAssigned")
    assert assigned["reason"] == "NoGPUVisible"
    assert "sees GPU-of-another instead" in assigned["message"], assigned["message"]
    assert node.gpus[0].uuid in assigned["message"], assigned["message"]


def _looks(runtime: FakeRuntime) -> Any:
    async def look() -> int:
        return runtime.looks

    return look


# ---- out of memory -----------------------------------------------------------------------


@pytest.mark.parametrize("ready", [True, False], ids=["in service", "while loading"])
async def test_out_of_gpu_memory_reserves_more_next_time(
    world: World, gpus: Gpus, operator_factory: MakeOperator, ready: bool
) -> None:
    """One that was ready starts again at once, one that was not after a pause: both with a quarter more."""
    node = await gpus.node(GIB_24)
    runtime: Json = {"podAnnotations": {"avatars.test/exit-message": OUT_OF_MEMORY}}
    if not ready:
        runtime["podLabels"] = {"avatars.test/crash": "true"}
    await world.pool(**pool_of(gpus, "VisibleDevices", runtime, perInstanceMiB=5000, minFreeMiB=6000))
    await world.avatar("ada")
    await operator_factory().start()
    await world.instance("ada")
    if ready:
        status = await world.phase("ada", "Running")
        assert status["gpu"]["reservedMiB"] == 5000
        await world.patch_pod(status["podName"], labels={"avatars.test/crash": "true"})
    else:
        status = await world.phase("ada", "Failed", reason="GPUOutOfMemory")
        assert status["retryTime"]
        spec = {"runtime": {"podLabels": None}}
        await world.api.patch("avatarpools", world.namespace, "default", {"spec": spec})
    raised = await until("the estimate", lambda: _vram(world, "ada"), lambda v: v.get("estimateMiB", 0) > 5000)
    assert 1.25 * 5000 <= raised["estimateMiB"] <= 1.25 * 5000 + 64
    [event] = await until("the event", lambda: world.events("EstimateRaised"), lambda found: found)
    assert (event["involvedObject"]["kind"], event["type"]) == ("Avatar", "Warning")
    assert str(raised["estimateMiB"]) in event["message"], event["message"]
    [failed] = await until("the event", lambda: world.events("GPUOutOfMemory"), lambda found: found)
    assert "CUDA out of memory" in failed["message"], failed["message"]
    status = await world.until(
        "ada",
        "running with more",
        lambda s: s.get("phase") == "Running" and s["gpu"]["reservedMiB"] == raised["estimateMiB"],
    )
    assert status["lastTermination"]["reason"] == "GPUOutOfMemory", dump(status)
    pod = await pod_of(world, "ada")
    assert pod["metadata"]["annotations"][GPU_MIB] == str(raised["estimateMiB"])
    await until("the books", lambda: gpus.status(node), lambda s: s.get("reservedMiB") == raised["estimateMiB"])


async def _vram(world: World, avatar: str) -> Json:
    found = await world.api.get("avatars", world.namespace, avatar)
    return dict((found or {}).get("status", {}).get("vram", {}))


# ---- without the right to read nodes -------------------------------------------------------


async def test_without_nodes_the_indices_take_turns(
    world: World, gpus: Gpus, operator_factory: MakeOperator, proxy: Proxy, tmp_path: Path
) -> None:
    node = await gpus.node()
    await world.pool(**pool_of(gpus, "VisibleDevices", **GPU_1_THEN_0))
    await world.avatar(*NAMES[:4])
    forbidden = ("nodes", "gpunodes", "resourceslices")
    for resource in forbidden:
        proxy.refuse(matching("", resource), 403, times=-1, reason="Forbidden")
    operator = operator_factory(proxy.kubeconfig(tmp_path / "kubeconfig"), options=("--no-nodes",))
    await operator.start()
    took = []
    for name in NAMES[:4]:
        status = await placed(world, name)
        assert (status["node"], status["reservedMiB"]) == (node.name, PART)
        took.append(visible(await pod_of(world, name)))
        assigned = condition(await world.status(name), "GPUAssigned")
        assert (assigned["status"], assigned["reason"]) == ("True", "NoTelemetry"), assigned
    assert took == ["1", "0", "1", "0"]
    assert not [str(call) for call in proxy.calls if call.resource in forbidden]
    await world.delete(*NAMES[:4])
    await world.nothing_left()
