"""GPUs and nodes that go, are cordoned, or cannot be used.

Figures, unless a test says otherwise: GPUs of 24576 MiB, 5000 MiB per instance, 6000 MiB must be free. On an empty GPU
the instances find 24576, 19576, 14576 and 9576 MiB free, the fifth 4576: four fit.
"""

from __future__ import annotations

import asyncio
import re

import pytest

from tests.conftest import MakeOperator
from tests.support.gpus import Gpus, dump
from tests.support.observer import Observer
from tests.support.placing import BACKUP, NAMES, PRIMARY, placed
from tests.support.world import World

pytestmark = pytest.mark.cluster


async def test_a_used_instance_moves_off_a_lost_gpu(world: World, gpus: Gpus, operator_factory: MakeOperator) -> None:
    lost, other = await gpus.node(24576, tier="primary"), await gpus.node(24576, tier="backup")
    await world.pool(**gpus.pool(primary=PRIMARY, backup=BACKUP))
    await world.avatar("ada", "bob", "cy")
    await operator_factory().start()
    async with Observer.watching(world.api, world.namespace, gpus.world) as seen:
        before = await placed(world, "ada")
        assert before["uuid"] == lost.gpus[0].uuid
        await world.connections("ada", 2)
        lost.gpus[0].healthy = False
        status = await world.until(
            "ada",
            "running on the other GPU",
            lambda s: s.get("phase") == "Running" and s.get("gpu", {}).get("uuid") == other.gpus[0].uuid,
            timeout=30,
        )
        assert status["connections"] == 2
        assert status["node"] == other.name
        [event] = [e for e in await world.events("GPULost") if e["involvedObject"]["name"] == "ada"]
        assert event["type"] == "Warning"
        message = event["message"]
        assert lost.name in message, message
        assert "GPU 0" in message or lost.gpus[0].uuid in message, message
        assert re.search(r"mov|another|start", message), message
        # The lost one is the primary and has all its memory: nobody new goes there.
        assert (await placed(world, "bob"))["uuid"] == other.gpus[0].uuid
        lost.gpus[0].healthy = True
        await gpus.reported(lost)
        assert (await placed(world, "cy"))["uuid"] == lost.gpus[0].uuid
        assert (await world.status("ada"))["gpu"]["uuid"] == other.gpus[0].uuid
    seen.assert_kept()


async def test_a_lost_gpu_without_another_means_waiting(
    world: World, gpus: Gpus, operator_factory: MakeOperator
) -> None:
    lost = await gpus.node(24576)
    await world.pool(**gpus.pool())
    await world.avatar("ada")
    await operator_factory().start()
    async with Observer.watching(world.api, world.namespace, gpus.world) as seen:
        await placed(world, "ada")
        await world.connections("ada", 1)
        lost.gpus[0].healthy = False
        waiting = await world.phase("ada", "Pending", reason="GPUExhausted", timeout=30)
        assert waiting["connections"] == 1
        assert "gpu" not in waiting, dump(waiting)
        await world.until("ada", "telling why", lambda s: lost.name in s.get("message", ""))
        await world.nothing_left()
        second = await gpus.node(24576)
        status = await world.phase("ada", "Running")
        assert status["gpu"]["uuid"] == second.gpus[0].uuid
        assert status["connections"] == 1
    seen.assert_kept()


async def test_a_cordoned_gpu_keeps_what_it_has_and_gets_nothing_new(
    world: World, gpus: Gpus, operator_factory: MakeOperator
) -> None:
    node = await gpus.node()
    await world.pool(**gpus.pool(primary={"indices": [0]}, backup={"indices": [1]}))
    await world.avatar(*NAMES[:6])
    await operator_factory().start()
    async with Observer.watching(world.api, world.namespace, gpus.world) as seen:
        assert (await placed(world, NAMES[0]))["index"] == 0
        [pod] = await world.pods()
        await gpus.cordon(node, node.gpus[0])
        await asyncio.sleep(0.5)
        assert [(await placed(world, name))["index"] for name in NAMES[1:5]] == [1, 1, 1, 1]
        await world.instance(NAMES[5], NAMES[5])
        waiting = await world.phase(NAMES[5], "Pending", reason="GPUExhausted")
        assert "cordon" in waiting["message"], waiting["message"]
        now = await world.api.get("pods", world.namespace, pod["metadata"]["name"])
        assert now is not None
        assert now["metadata"]["uid"] == pod["metadata"]["uid"], "what ran there runs on"
        await gpus.cordon(node)
        status = await world.phase(NAMES[5], "Running")
        assert status["gpu"]["index"] == 0
    seen.assert_kept()


async def test_an_unschedulable_node_and_unknown_memory_get_nothing(
    world: World, gpus: Gpus, operator_factory: MakeOperator
) -> None:
    closed, odd, open_ = await gpus.node(24576), await gpus.node(24576), await gpus.node(12000)
    await world.api.patch("nodes", "", closed.name, {"spec": {"unschedulable": True}})
    odd.gpus[0].memory_known = False
    await gpus.reported()
    await world.pool(**gpus.pool(policy="MostFree"))
    await world.avatar("ada", "bob", "cy")
    await operator_factory().start()
    async with Observer.watching(world.api, world.namespace, gpus.world) as seen:
        assert [(await placed(world, name))["node"] for name in ("ada", "bob")] == [open_.name] * 2
        await world.instance("cy", "cy")
        await world.phase("cy", "Pending", reason="GPUExhausted")
        await world.api.patch("nodes", "", closed.name, {"spec": {"unschedulable": None}})
        assert (await world.phase("cy", "Running"))["gpu"]["node"] == closed.name
    seen.assert_kept()
