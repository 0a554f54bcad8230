"""Which GPU a pod gets, on a real API server and scheduler.

Figures, unless a test says otherwise: GPUs of 24576 MiB, 5000 MiB per instance, 6000 MiB must be free. On an empty GPU
the instances find 24576, 19576, 14576 and 9576 MiB free, the fifth 4576: four fit.
"""

from __future__ import annotations

import pytest

from tests.conftest import MakeOperator
from tests.support.api import until
from tests.support.gpus import Gpus
from tests.support.observer import Observer
from tests.support.placing import BACKUP, NAMES, PRIMARY, placed, tells
from tests.support.world import World

pytestmark = pytest.mark.cluster


async def test_primary_full_then_backup_then_the_queue(
    world: World, gpus: Gpus, operator_factory: MakeOperator
) -> None:
    first, second = await gpus.node(24576, tier="primary"), await gpus.node(24576, tier="backup")
    names = NAMES[:10]
    await world.pool(**gpus.pool(primary=PRIMARY, backup=BACKUP))
    await world.avatar(*names)
    await operator_factory().start()
    async with Observer.watching(world.api, world.namespace, gpus.world) as seen:
        gpu_of = [await placed(world, name) for name in names[:8]]
        assert [g["uuid"] for g in gpu_of] == [first.gpus[0].uuid] * 4 + [second.gpus[0].uuid] * 4
        assert [g["node"] for g in gpu_of] == [first.name] * 4 + [second.name] * 4
        assert {(g["index"], g["reservedMiB"]) for g in gpu_of} == {(0, 5000)}
        for name in names[8:]:
            await world.instance(name, name)
        head = await world.phase(names[8], "Pending", reason="GPUExhausted")
        await world.until(names[9], "being second", lambda s: s.get("queuePosition") == 2)
        assert head["queuePosition"] == 1
        await world.until(names[8], "telling what is missing", lambda s: tells(s, 6000, 4576))
        # A place on the backup: the primary is still full.
        await world.delete(names[7])
        status = await world.phase(names[8], "Running")
        assert status["gpu"]["uuid"] == second.gpus[0].uuid
        await world.delete(names[0])
        status = await world.phase(names[9], "Running")
        assert status["gpu"]["uuid"] == first.gpus[0].uuid
    seen.assert_kept()


@pytest.mark.parametrize(
    ("policy", "order", "best"),
    [
        # GPU 0 has 14576 MiB free, GPU 1 22576: 1 (22576), 1 (17576), 0 (14576), 1 (12576), 0 (9576), 1 (7576).
        ("MostFree", [1, 1, 0, 1, 0, 1], 4576),
        # Least that is enough: 0 (14576), 0 (9576), then 4576 is too little; 1 from 22576 on.
        ("BinPack", [0, 0, 1, 1, 1, 1], 4576),
        # The old box: GPU 1 first, GPU 0 when it is full.
        ("PrimaryFirst", [1, 1, 1, 1, 0, 0], 4576),
    ],
)
async def test_policies(
    world: World, gpus: Gpus, operator_factory: MakeOperator, policy: str, order: list[int], best: int
) -> None:
    node = await gpus.node()
    node.gpus[0].outside(10000)
    node.gpus[1].outside(2000)
    await gpus.reported()
    selectors = {"primary": {"indices": [1]}, "backup": {"indices": [0]}} if policy == "PrimaryFirst" else {}
    await world.pool(**gpus.pool(policy=policy, **selectors))
    await world.avatar(*NAMES[:7])
    await operator_factory().start()
    async with Observer.watching(world.api, world.namespace, gpus.world) as seen:
        assert [(await placed(world, name))["index"] for name in NAMES[:6]] == order
        await world.instance(NAMES[6], NAMES[6])
        await world.phase(NAMES[6], "Pending", reason="GPUExhausted")
        await world.until(NAMES[6], "telling what is missing", lambda s: tells(s, 6000, best))
    seen.assert_kept()


async def test_an_avatars_own_figures_go_before_the_pools(
    world: World, gpus: Gpus, operator_factory: MakeOperator
) -> None:
    await gpus.node(24576)
    await world.pool(**gpus.pool())
    await world.avatar("big", vramMiB=15000, minFreeMiB=1000)
    await world.avatar("shy", minFreeMiB=12000)
    await world.avatar("small", vramMiB=1000, minFreeMiB=2000)
    gpus.shares = {"big": 15000, "small": 1000}
    await operator_factory().start()
    async with Observer.watching(world.api, world.namespace, gpus.world, min_free=0) as seen:
        assert (await placed(world, "big"))["reservedMiB"] == 15000
        await world.instance("shy", "shy")
        await world.phase("shy", "Pending", reason="GPUExhausted")
        await world.until("shy", "telling what is missing", lambda s: tells(s, 12000, 9576))
        await world.delete("shy")
        await world.gone("shy")
        assert (await placed(world, "small"))["reservedMiB"] == 1000
        pod = await world.api.get("pods", world.namespace, (await world.status("small"))["podName"])
        assert pod is not None
        env = {e["name"]: e.get("value") for e in pod["spec"]["containers"][0]["env"]}
        assert env["NVIDIA_VISIBLE_DEVICES"] == gpus.all[0].uuid
        assert env["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    seen.assert_kept()


async def test_sharers_reserve_once_and_sleepers_nothing(
    world: World, gpus: Gpus, operator_factory: MakeOperator
) -> None:
    node = await gpus.node(24576)
    await world.pool(**gpus.pool(), idle={"timeoutSeconds": 2, "action": "Sleep"})
    await world.avatar("ada")
    await operator_factory().start()
    async with Observer.watching(world.api, world.namespace, gpus.world) as seen:
        await world.instance("one")
        await world.instance("two")
        one = await world.phase("one", "Running")
        two = await world.phase("two", "Shared")
        assert one["gpu"] == two["gpu"]
        await until("5000 MiB in the books", lambda: gpus.status(node), lambda s: s.get("reservedMiB") == 5000)
        await world.phase("one", "Stopped", timeout=30)
        await world.nothing_left(timeout=30)
        asleep = await until("empty books", lambda: gpus.status(node), lambda s: not s.get("reservedMiB"))
        assert not asleep.get("reservations")
        assert "gpu" not in await world.status("one")
        await world.connections("one", 1)
        assert (await world.phase("one", "Running"))["gpu"]["reservedMiB"] == 5000
    seen.assert_kept()
    assert max(seen.most.values()) == 5000


async def test_a_pod_that_is_replaced_keeps_its_place(world: World, gpus: Gpus, operator_factory: MakeOperator) -> None:
    """On a full GPU its own reservation is not in its way, and nobody in the queue takes it meanwhile."""
    await gpus.node(8000)
    await world.pool(**gpus.pool())
    await world.avatar("ada", "bob")
    await operator_factory().start()
    async with Observer.watching(world.api, world.namespace, gpus.world) as seen:
        await placed(world, "ada")
        await world.connections("ada", 1)
        await world.instance("bob", "bob")
        await world.phase("bob", "Pending", reason="GPUExhausted")
        [pod] = await world.pods()
        await world.delete_pod(pod["metadata"]["name"])
        await until(
            "another pod",
            world.pods,
            lambda pods: [p["metadata"]["uid"] for p in pods] not in ([], [pod["metadata"]["uid"]]),
        )
        status = await world.phase("ada", "Running")
        assert status["gpu"]["reservedMiB"] == 5000
        assert (await world.status("bob"))["phase"] == "Pending"
    seen.assert_kept()
