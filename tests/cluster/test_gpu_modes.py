"""Each GPU mode's pod before the real API server and the real scheduler; kwok plays the nodes, `dra` a DRA driver."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from avatar_operator.domain import devices, objects
from avatar_operator.domain.placement import Placement
from avatar_operator.domain.resources import Avatar, Instance, Meta, Pool
from avatar_operator.domain.settings import resolve
from tests.support import dra
from tests.support.api import Api, Json, Refused, until
from tests.support.dra import FakeGpu
from tests.support.nodes import make_node
from tests.support.world import World

pytestmark = pytest.mark.cluster

UUIDS = [f"GPU-8932f937-d72c-4106-c12f-20bd9faed9f{number}" for number in range(4)]
PART = 11 * 1024


@dataclass
class Stage:
    """The namespace with GPU nodes of its own, and pods as the operator makes them."""

    world: World
    pods: int = 0

    @property
    def api(self) -> Api:
        return self.world.api

    def name(self, node: int) -> str:
        return f"{self.world.namespace}-{node}"

    async def nodes(self, count: int, **resources: str) -> tuple[str, ...]:
        for number in range(count):
            await make_node(self.api, self.name(number), {"type": self.world.namespace}, **resources)
        return tuple(self.name(number) for number in range(count))

    async def pool(self, gpu: Json, **runtime: Any) -> Pool:
        """An AvatarPool as the API server gives it back, for pods on this stage's nodes."""
        runtime = {"nodeSelector": {"type": self.world.namespace}, **runtime}
        await self.world.avatar("ada")
        return msgspec.convert(await self.world.pool(gpu=gpu, runtime=runtime), Pool)

    async def body(self, pool: Pool, placement: Placement) -> tuple[Json, str]:
        """The next pod and its claim's name; every one has another port and an owner of its own."""
        self.pods += 1
        one = msgspec.convert(await self.world.instance(f"one-{self.pods}"), Instance)
        found = await self.api.get("avatars", self.world.namespace, "ada")
        port = pool.spec.ports.base + self.pods
        claim = f"claim-{self.pods}" if pool.spec.gpu.mode == "DRA" else ""
        settings = resolve(one, pool, msgspec.convert(found, Avatar))
        return objects.pod(pool, [one], settings, f"group-{self.pods}", port, placement, claim), claim

    async def start(self, pool: Pool, placement: Placement) -> str:
        """Create a pod, then its claim: the order that the operator has to take."""
        body, claim = await self.body(pool, placement)
        made = await self.api.create("pods", self.world.namespace, body)
        if claim:
            await self.claim(pool, made, placement, claim)
        return str(made["metadata"]["name"])

    async def claim(self, pool: Pool, pod: Json, placement: Placement, name: str) -> Json:
        body = devices.resource_claim(pool, msgspec.convert(pod["metadata"], Meta), placement, name)
        return await self.api.create(dra.CLAIMS, self.world.namespace, body)

    async def ready(self, name: str) -> str:
        """The node of the pod, once it is Ready there."""

        def good(pod: Json | None) -> bool:
            return bool(pod) and any(
                c["type"] == "Ready" and c["status"] == "True" for c in (pod or {})["status"].get("conditions", [])
            )

        pod = await until(f"{name} being Ready", lambda: self.api.get("pods", self.world.namespace, name), good)
        assert pod is not None
        return str(pod["spec"]["nodeName"])

    async def refused(self, name: str) -> str:
        """Why the scheduler finds no place for the pod."""
        pod = await until(
            f"{name} being unschedulable",
            lambda: self.api.get("pods", self.world.namespace, name),
            lambda pod: bool(_unschedulable(pod)),
        )
        return _unschedulable(pod)

    async def got(self, pod: str) -> tuple[str, str, int | None, int] | None:
        """What the claim of a pod got, by the function that the operator uses."""
        body = await self.api.get("pods", self.world.namespace, pod)
        assert body is not None
        claim = body["spec"]["resourceClaims"][0]["resourceClaimName"]
        found = await self.api.get(dra.CLAIMS, self.world.namespace, claim)
        assert found is not None
        return devices.allocated(found, await self.api.list(dra.SLICES))

    async def claims(self) -> list[str]:
        return [c["metadata"]["name"] for c in await self.api.list(dra.CLAIMS, self.world.namespace)]

    async def clear(self) -> None:
        """Pods first: with no node left nobody would say that they have ended."""
        for pod in await self.api.list("pods", self.world.namespace):
            await self.api.delete("pods", self.world.namespace, pod["metadata"]["name"], {"gracePeriodSeconds": 0})
        for node in await self.api.list("nodes"):
            if node["metadata"]["name"].startswith(f"{self.world.namespace}-"):
                await self.api.delete("nodes", "", node["metadata"]["name"])


def _unschedulable(pod: Json | None) -> str:
    conditions = (pod or {}).get("status", {}).get("conditions", [])
    return next((str(c["message"]) for c in conditions if c.get("reason") == "Unschedulable"), "")


@pytest.fixture
async def stage(world: World) -> AsyncIterator[Stage]:
    found = Stage(world)
    yield found
    await found.clear()


def env_of(pod: Json | None) -> dict[str, str]:
    assert pod is not None
    return {entry["name"]: entry.get("value", "") for entry in pod["spec"]["containers"][0]["env"]}


# ---- without a resource ------------------------------------------------------------------


async def test_none(stage: Stage) -> None:
    (node,) = await stage.nodes(1)
    pool = await stage.pool({"mode": "None"})
    assert await stage.ready(await stage.start(pool, Placement(mib=0))) == node


async def test_visible_devices_go_to_the_named_node(stage: Stage) -> None:
    nodes = await stage.nodes(3)
    runtime_class = {"metadata": {"name": stage.world.namespace}, "handler": "nvidia"}
    await stage.api.create("node.k8s.io/v1/runtimeclasses", "", runtime_class)
    # The pool's own rule stays in force beside ours.
    not_the_first = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": [nodes[0]]}]},
                    {"matchExpressions": [{"key": "no-such-label", "operator": "Exists"}]},
                ]
            }
        }
    }
    pool = await stage.pool(
        {"mode": "VisibleDevices", "runtimeClassName": stage.world.namespace},
        affinity=not_the_first,
        env=[{"name": "OWN", "value": "$(NVIDIA_VISIBLE_DEVICES)"}],
    )
    try:
        for node in (nodes[2], nodes[1], nodes[2]):
            placement = Placement(mib=PART, node=node, uuid=UUIDS[1], index=1)
            name = await stage.start(pool, placement)
            assert await stage.ready(name) == node
            pod = await stage.api.get("pods", stage.world.namespace, name)
            assert env_of(pod)["NVIDIA_VISIBLE_DEVICES"] == UUIDS[1]
            assert env_of(pod)["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
            assert devices.placement_of(msgspec.convert((pod or {})["metadata"], Meta)) == placement
        name = await stage.start(pool, Placement(mib=PART, node=nodes[0], uuid=UUIDS[0], index=0))
        assert "didn't match Pod's node affinity" in await stage.refused(name)
    finally:
        await stage.api.delete("node.k8s.io/v1/runtimeclasses", "", stage.world.namespace)


async def test_a_runtime_class_that_is_not_there_is_refused_at_once(stage: Stage) -> None:
    pool = await stage.pool({"mode": "VisibleDevices", "runtimeClassName": "no-such-class"})
    with pytest.raises(Refused, match=r'RuntimeClass "no-such-class" not found'):
        await stage.start(pool, Placement(mib=PART, uuid="0"))


# ---- extended resources ------------------------------------------------------------------


async def test_the_scheduler_counts_what_a_device_plugin_has(stage: Stage) -> None:
    first, second = await stage.nodes(2, **{"nvidia.com/gpu": "1"})
    pool = await stage.pool({"mode": "DevicePlugin"}, resources={"requests": {"cpu": "100m"}})
    placement = Placement(mib=PART, nodes=(second, first))
    one = await stage.start(pool, placement)
    assert await stage.ready(one) == second, "the better node of the two"
    assert await stage.ready(await stage.start(pool, placement)) == first, "the better one is full"
    three = await stage.start(pool, placement)
    assert "Insufficient nvidia.com/gpu" in await stage.refused(three)
    await stage.world.delete_pod(one)
    assert await stage.ready(three) == second


async def test_a_resource_by_another_name(stage: Stage) -> None:
    (node,) = await stage.nodes(1, **{"nvidia.com/gpu": "1", "nvidia.com/gpu.shared": "2"})
    pool = await stage.pool({"mode": "DevicePlugin", "resourceName": "nvidia.com/gpu.shared"})
    names = [await stage.start(pool, Placement(mib=PART)) for _ in range(3)]
    assert [await stage.ready(name) for name in names[:2]] == [node, node]
    assert "Insufficient nvidia.com/gpu.shared" in await stage.refused(names[2])


async def test_hami_is_asked_for_memory_of_one_gpu(stage: Stage) -> None:
    first, second = await stage.nodes(2)
    for node in (first, second):
        given = {"nvidia.com/gpu": "10", "nvidia.com/gpumem": "24576"}
        await stage.api.patch("nodes", "", node, {"status": {"allocatable": given, "capacity": given}}, "status")
    pool = await stage.pool({"mode": "HAMi"})
    placement = Placement(mib=PART, node=second, uuid=UUIDS[1], index=1)
    names = [await stage.start(pool, placement) for _ in range(3)]
    assert [await stage.ready(name) for name in names[:2]] == [second, second]
    assert "Insufficient nvidia.com/gpumem" in await stage.refused(names[2])
    pod = await stage.api.get("pods", stage.world.namespace, names[0])
    assert pod is not None
    assert pod["metadata"]["annotations"]["nvidia.com/use-gpuuuid"] == UUIDS[1]
    assert pod["spec"]["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "1", "nvidia.com/gpumem": "11264"}


# ---- DRA ---------------------------------------------------------------------------------


async def two_gpus(stage: Stage, *, shared: bool = True) -> str:
    """A node with two GPUs of 24 GiB."""
    (node,) = await stage.nodes(1)
    await dra.install(stage.api)
    await dra.publish(stage.api, node, *(FakeGpu(UUIDS[index], index, shared=shared) for index in range(2)))
    return node


async def test_claims_share_the_primary_then_the_backup(stage: Stage) -> None:
    node = await two_gpus(stage)
    pool = await stage.pool({"mode": "DRA"})
    placement = Placement(mib=PART, primary=(UUIDS[1],), backup=(UUIDS[0],))
    names = []
    for index in (1, 1, 0, 0):
        names.append(await stage.start(pool, placement))
        assert await stage.ready(names[-1]) == node
        assert await stage.got(names[-1]) == (node, UUIDS[index], index, PART)
    fifth = await stage.start(pool, placement)
    assert "cannot allocate all claims" in await stage.refused(fifth)
    assert await stage.got(fifth) is None
    # Memory that is given back is given on.
    await stage.world.delete_pod(names[1])
    assert await stage.ready(fifth) == node
    assert await stage.got(fifth) == (node, UUIDS[1], 1, PART)


async def test_the_primary_is_preferred_on_another_node_too(stage: Stage) -> None:
    nodes = await stage.nodes(2)
    await dra.install(stage.api)
    for number, node in enumerate(nodes):
        await dra.publish(stage.api, node, FakeGpu(UUIDS[number]))
    pool = await stage.pool({"mode": "DRA"})
    for primary in (1, 0):
        placement = Placement(mib=1024, primary=(UUIDS[primary],), backup=(UUIDS[1 - primary],))
        for _ in range(3):
            assert await stage.ready(await stage.start(pool, placement)) == nodes[primary]


async def test_a_claim_may_come_after_its_pod_and_goes_with_it(stage: Stage) -> None:
    node = await two_gpus(stage)
    pool = await stage.pool({"mode": "DRA"})
    placement = Placement(mib=PART)
    body, claim = await stage.body(pool, placement)
    pod = await stage.api.create("pods", stage.world.namespace, body)
    name = pod["metadata"]["name"]
    # The scheduler does not even try until the claim is there, and says nothing about it.
    await asyncio.sleep(1)
    waiting = await stage.api.get("pods", stage.world.namespace, name)
    assert waiting is not None
    assert "nodeName" not in waiting["spec"]
    assert not any(c["type"] == "PodScheduled" for c in waiting["status"].get("conditions", []))
    began = time.monotonic()
    await stage.claim(pool, pod, placement, claim)
    assert await stage.ready(name) == node
    print(f"Ready {time.monotonic() - began:.3f} s after the claim")
    began = time.monotonic()
    await stage.world.delete_pod(name)
    await until("the claim going with its pod", stage.claims, lambda names: not names)
    print(f"claim gone {time.monotonic() - began:.3f} s after the pod's deletion")


async def test_a_driver_that_does_not_share_gives_whole_gpus(stage: Stage) -> None:
    """NVIDIA's driver as it is without its gate: the amount asked for is a filter then."""
    node = await two_gpus(stage, shared=False)
    pool = await stage.pool({"mode": "DRA"})
    names = [await stage.start(pool, Placement(mib=PART)) for _ in range(3)]
    assert [await stage.ready(name) for name in names[:2]] == [node, node]
    got = sorted([str(await stage.got(name)) for name in names[:2]])
    assert got == [str((node, UUIDS[index], index, 24 * 1024)) for index in range(2)]
    assert "cannot allocate all claims" in await stage.refused(names[2])
    too_much = await stage.start(pool, Placement(mib=24 * 1024 + 1))
    assert "cannot allocate all claims" in await stage.refused(too_much)


async def test_a_pools_selectors_without_telemetry(stage: Stage) -> None:
    (node,) = await stage.nodes(1)
    await dra.install(stage.api)
    gpus = [FakeGpu(UUIDS[0], 0, "NVIDIA L4"), FakeGpu(UUIDS[1], 1, "NVIDIA A100-SXM4-40GB", mib=40 * 1024)]
    await dra.publish(stage.api, node, *gpus)
    pool = await stage.pool(
        {
            "mode": "DRA",
            # As the node label has it, and as the driver has it.
            "primary": {"products": ["NVIDIA-A100-SXM4-40GB", "NVIDIA-A100-SXM4-80GB"]},
            "backup": {"products": ["NVIDIA L4"], "uuids": UUIDS},
        }
    )
    assert devices.dra_problem(pool.spec.gpu, known=False) == ""
    for index in (1, 0):
        name = await stage.start(pool, Placement(mib=23 * 1024))
        assert await stage.ready(name) == node
        assert await stage.got(name) == (node, UUIDS[index], index, 23 * 1024)


async def test_lists_as_long_as_a_pool_allows_are_taken(stage: Stage) -> None:
    """256 UUIDs of 128 characters and 64 products, twice: the API server's bounds for length and cost of CEL."""
    node = await two_gpus(stage)
    others = [f"GPU-{number:0124}" for number in range(256)]
    products = [f"{number:0128}" for number in range(64)]
    pool = await stage.pool(
        {
            "mode": "DRA",
            "primary": {"uuids": others, "products": products},
            "backup": {"uuids": [*others[1:], UUIDS[1]], "products": ["NVIDIA-L4", *products[1:]]},
        }
    )
    name = await stage.start(pool, Placement(mib=PART))
    assert await stage.ready(name) == node
    assert await stage.got(name) == (node, UUIDS[1], 1, PART)


async def test_many_nodes_are_taken(stage: Stage) -> None:
    """The largest affinity that we write passes the API server, and the scheduler finds the one node that exists."""
    (node,) = await stage.nodes(1, **{"nvidia.com/gpu": "1"})
    pool = await stage.pool({"mode": "DevicePlugin"})
    nodes = (*(f"no-such-node-{number}" for number in range(devices.MAX_NODES - 1)), node, "one-too-many")
    assert await stage.ready(await stage.start(pool, Placement(mib=PART, nodes=nodes))) == node
