"""Many starts at once, two operators, killed operators: no GPU is ever reserved beyond what it has.

The judge is tests/support/observer.py.
Figures, unless a test says otherwise: GPUs of 24576 MiB, 5000 MiB per instance, 6000 MiB must be free. On an empty GPU
the instances find 24576, 19576, 14576 and 9576 MiB free, the fifth 4576: four fit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Cluster, MakeOperator
from tests.support.api import Json, until
from tests.support.gpus import Gpus
from tests.support.observer import Observer
from tests.support.placing import NAMES, in_line, in_phase, reserved_mib, tells
from tests.support.proxy import Match, Proxy, matching
from tests.support.world import World

pytestmark = pytest.mark.cluster


async def test_twenty_at_once_beside_a_growing_process(
    world: World, gpus: Gpus, operator_factory: MakeOperator
) -> None:
    await _rush_begins(world, gpus)
    await operator_factory().start()
    async with Observer.watching(world.api, world.namespace, gpus.world) as seen:
        await asyncio.gather(*(world.instance(name, name) for name in NAMES))
        await _as_many_as_fit(world, gpus)
        queue = await _memory_frees(world, gpus)
        await _everybody_gets_a_turn(world, gpus)
    seen.assert_kept()
    assert seen.decisions >= 20
    # Admitted one after the other; their claims are written side by side, so one may overtake another on the way.
    # Before the process grew, there may have been claims of some of them, which were taken back.
    placed = [name for name in seen.placed if name in queue][-len(queue) :]
    assert sorted(placed) == sorted(queue)
    late = {name: placed.index(name) - queue.index(name) for name in queue}
    assert max(late.values()) < 4, f"they start in the order of the queue, {queue}; it was {placed}"


async def test_twenty_at_once_with_two_operators(world: World, gpus: Gpus, operator_factory: MakeOperator) -> None:
    """As the chart runs them: one acts by the Lease. Each is killed once, the other goes on where it was."""
    await _rush_begins(world, gpus)
    options = (f"--lease={world.namespace}/operator",)
    one, two = operator_factory(options=options), operator_factory(options=options)
    await asyncio.gather(one.start(), two.start())
    async with Observer.watching(world.api, world.namespace, gpus.world) as seen:
        await asyncio.gather(*(world.instance(name, name) for name in NAMES))
        await until("three running", world.statuses, lambda a: len(in_phase(a, "Running")) >= 3, timeout=30)
        two.kill()
        await _as_many_as_fit(world, gpus)
        await two.start()
        await _memory_frees(world, gpus)
        one.kill()
        await _everybody_gets_a_turn(world, gpus)
    seen.assert_kept()
    assert seen.decisions >= 20


async def test_two_operators_and_room_for_one(world: World, gpus: Gpus, operator_factory: MakeOperator) -> None:
    """Without a Lease both act: sixteen want the one place of a GPU, again and again. Always one gets it."""
    await gpus.node(8000)
    await world.pool(**gpus.pool())
    names = NAMES[:16]
    await world.avatar(*names)
    one, two = operator_factory(), operator_factory()
    await asyncio.gather(one.start(), two.start())
    async with Observer.watching(world.api, world.namespace, gpus.world, operators=2) as seen:
        await asyncio.gather(*(world.instance(name, name) for name in names))
        left = set(names)
        for _ in range(3):
            statuses = await until("one running", world.statuses, _running(1), timeout=30)
            [winner] = in_phase(statuses, "Running")
            await world.delete(winner)
            await world.gone(winner)
            left.remove(winner)
        await asyncio.gather(*(world.delete(name) for name in left))
        await world.nothing_left(timeout=30)
    seen.assert_kept()
    assert max(seen.most.values()) == 5000


POINTS: dict[str, Match] = {
    "claim-created": matching("create", "services"),
    "pod-created": matching("create", "pods"),
    "status-starting": matching("patch", "avatarinstances", "Starting"),
    "claim-released": matching("delete", "services"),
}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("point", POINTS)
async def test_killed_in_the_middle(
    cluster: Cluster,
    world: World,
    gpus: Gpus,
    operator_factory: MakeOperator,
    tmp_path: Path,
    point: str,
    when: str,
) -> None:
    """Nothing is reserved twice and nothing leaks: the claim is the reservation."""
    await gpus.node(24576)
    await world.pool(**gpus.pool())
    names = NAMES[:8]
    await world.avatar(*names)
    async with Proxy(cluster.kubeconfig) as proxy:
        operator = await operator_factory(proxy.kubeconfig(tmp_path / "kubeconfig")).start()
        async with Observer.watching(world.api, world.namespace, gpus.world) as seen:
            if point != "claim-released":
                proxy.kill_at(POINTS[point], when, operator.kill)
            await asyncio.gather(*(world.instance(name, name) for name in names))
            if point == "claim-released":
                statuses = await _four_of_eight(world)
                proxy.kill_at(POINTS[point], when, operator.kill)
                await world.delete(*in_phase(statuses, "Running")[:2])
            await asyncio.wait_for(proxy.killed.wait(), 20)
            proxy.rules.clear()
            await operator.start()
            if point == "claim-released":
                await until("four running again", world.statuses, _running(4), timeout=30)
            else:
                await _four_of_eight(world)
            services = await world.services()
            assert len(services) == 4, [s["metadata"]["name"] for s in services]
            assert len(await world.pods()) == 4
            await asyncio.gather(*(world.delete(name) for name in names))
            await world.nothing_left(timeout=30)
        operator.stop()
    seen.assert_kept()


# ---- small parts -------------------------------------------------------------------------


async def _rush_begins(world: World, gpus: Gpus) -> None:
    """Two nodes with two GPUs of 24 GiB; on each GPU somebody has 2000 MiB and grows to 11000 in six seconds."""
    for _ in range(2):
        await gpus.node()
    await world.pool(**gpus.pool())
    await world.avatar(*NAMES)
    for gpu in gpus.all:
        gpu.outside(2000, grow_to=11000, rate=1500)
    await gpus.reported()


async def _as_many_as_fit(world: World, gpus: Gpus) -> None:
    """It becomes quiet with every GPU too full for one more, and the others know what is missing."""
    await until("all placed or waiting", world.statuses, _all_decided, timeout=60, interval=0.2)
    await gpus.still()
    await asyncio.sleep(1)
    statuses = await until("all placed or waiting", world.statuses, _all_decided, timeout=60, interval=0.2)
    running, waiting = in_phase(statuses, "Running"), in_phase(statuses, "Pending")
    # 24576 less 11000 has room for two instances, less 2000 for four.
    assert 8 <= len(running) <= 16, running
    reserved = await reserved_mib(world, gpus)
    for gpu in gpus.all:
        free = gpu.total - gpu.external - reserved[gpu.uuid]
        assert free < 6000, f"{waiting} wait though {free} MiB are left on {gpu}"
    assert sorted(statuses[name]["queuePosition"] for name in waiting) == list(range(1, len(waiting) + 1))
    best = max(0, round(max(gpu.total - gpu.external - reserved[gpu.uuid] for gpu in gpus.all)))
    for name in waiting:
        # The first in line keeps up with the figures; those behind it have them as they were when they came there.
        figures = (6000, best) if statuses[name]["queuePosition"] == 1 else (6000,)
        await world.until(name, f"telling {figures}", lambda s, f=figures: tells(s, *f))


async def _memory_frees(world: World, gpus: Gpus) -> list[str]:
    """The others shrink to 1000 MiB: four fit on each GPU, the last four of the queue still wait. The queue before."""
    queue = in_line(await world.statuses())
    for gpu in gpus.all:
        gpu.outside(1000)
    statuses = await until(
        "16 running and 4 waiting",
        world.statuses,
        lambda a: len(in_phase(a, "Running")) == 16 and len(in_phase(a, "Pending")) == 4,
        timeout=60,
        interval=0.2,
    )
    assert set(in_line(statuses)) == set(queue[-4:]), f"the queue was {queue}, {in_line(statuses)} are left"
    assert set((await reserved_mib(world, gpus)).values()) == {20000}
    return queue


async def _everybody_gets_a_turn(world: World, gpus: Gpus) -> None:
    """Four leave, the last four start, all leave, nothing stays reserved."""
    statuses = await world.statuses()
    await world.delete(*in_phase(statuses, "Running")[:4])
    await until(
        "all 16 that are left running",
        world.statuses,
        lambda a: len(in_phase(a, "Running")) == 16 == len(a),
        timeout=60,
    )
    await asyncio.gather(*(world.delete(name) for name in NAMES))
    await world.nothing_left(timeout=60)
    for node in gpus.nodes:
        status = await until("empty books", lambda n=node: gpus.status(n), lambda s: not s.get("reservedMiB"))
        assert not status.get("reservations")


async def _four_of_eight(world: World) -> dict[str, Json]:
    return await until(
        "four running and four waiting",
        world.statuses,
        lambda a: _running(4)(a) and [a[name].get("queuePosition") for name in in_line(a)] == [1, 2, 3, 4],
        timeout=40,
    )


def _running(count: int) -> Callable[[dict[str, Json]], bool]:
    return lambda statuses: len(in_phase(statuses, "Running")) == count


def _all_decided(statuses: dict[str, Json]) -> bool:
    return all(
        s.get("phase") == "Running" or (s.get("phase") == "Pending" and s.get("reason") == "GPUExhausted")
        for s in statuses.values()
    )
