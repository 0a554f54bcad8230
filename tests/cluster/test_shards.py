"""Two operators that act at once, each in its share of the namespaces."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from avatar_operator.domain.shards import Shard
from tests.conftest import Cluster
from tests.support.api import Api, until
from tests.support.gpus import Gpus
from tests.support.operator import Operator, leads
from tests.support.world import World

pytestmark = [pytest.mark.cluster]

SHARDS = (Shard(0, 2), Shard(1, 2))


def names(shard: Shard) -> list[str]:
    """Two names of namespaces of the shard."""
    drawn = (f"shard-{secrets.token_hex(4)}" for _ in itertools.count())
    return list(itertools.islice((name for name in drawn if shard.has(name)), 2))


@pytest.fixture
async def worlds(api: Api, alone: None) -> AsyncIterator[dict[Shard, list[World]]]:
    """Two namespaces of each shard."""
    found = {shard: [World(api, name) for name in names(shard)] for shard in SHARDS}
    everything = list(itertools.chain.from_iterable(found.values()))
    for world in everything:
        await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": world.namespace}})
    yield found
    for world in everything:
        await api.delete("namespaces", "", world.namespace)


@contextlib.asynccontextmanager
async def acting(cluster: Cluster, worlds: dict[Shard, list[World]], folder: Path) -> AsyncIterator[list[Operator]]:
    """An operator for each shard; both see all of the namespaces, and each has a Lease of its own."""
    seen = tuple(world.namespace for group in worlds.values() for world in group)
    operators = [
        Operator(
            cluster.kubeconfig,
            folder / f"operator-{shard.index}.log",
            seen,
            (f"--shard={shard}", f"--lease={seen[0]}/operator-{shard.index}"),
        )
        for shard in SHARDS
    ]
    try:
        await asyncio.gather(*(operator.start() for operator in operators))
        yield operators
    finally:
        for operator in operators:
            operator.kill()


async def start(world: World, name: str) -> None:
    """An instance of an avatar of its own."""
    await world.avatar(name)
    await world.instance(name, name)


async def test_each_serves_its_share_and_nobody_the_rest(
    cluster: Cluster, worlds: dict[Shard, list[World]], tmp_path: Path
) -> None:
    async with acting(cluster, worlds, tmp_path) as operators:
        everything = [world for group in worlds.values() for world in group]
        for world in everything:
            await world.pool()
            await start(world, "ada")
        for world in everything:
            await world.phase("ada", "Running", timeout=40)
        assert [await leads(operator) for operator in operators] == [True, True]
        for operator, (shard, mine) in zip(operators, worlds.items(), strict=True):
            text = operator.log.read_text()
            assert all(f"namespace={world.namespace} port=" in text for world in mine)
            others = [w for other, group in worlds.items() if other != shard for w in group]
            assert not any(f"namespace={world.namespace} port=" in text for world in others)

        first, second = operators
        first.kill()
        for shard, (world, _) in worlds.items():
            await start(world, "bob")
            if shard == SHARDS[1]:
                await world.phase("bob", "Running", timeout=40)
        lonely = worlds[SHARDS[0]][0]
        assert await lonely.status("bob") == {}, "its operator is down, and the other one is for other namespaces"
        assert await leads(second)
        await first.start()
        await lonely.phase("bob", "Running", timeout=40)


async def test_they_share_the_gpus(
    cluster: Cluster, api: Api, worlds: dict[Shard, list[World]], tmp_path: Path
) -> None:
    """What one of them has reserved the other one sees: of four that ask at once there is room for two."""
    asking = [group[0] for group in worlds.values()]
    async with Gpus.playing(api, asking[0].namespace) as gpus:
        await gpus.node(12000)
        for world in asking:
            await world.pool(**gpus.pool())
        async with acting(cluster, worlds, tmp_path):
            await asyncio.gather(*(start(world, name) for world in asking for name in ("ada", "bob")))

            async def phases() -> list[str]:
                found = [await world.statuses() for world in asking]
                return sorted(str(status.get("phase")) for group in found for status in group.values())

            as_many_as_fit = ["Pending", "Pending", "Running", "Running"]
            await until("two of them running", phases, lambda seen: seen == as_many_as_fit, timeout=60)

            async def still() -> bool:
                return await phases() == as_many_as_fit

            await asking[0].stays("two of them running", still, 3)
