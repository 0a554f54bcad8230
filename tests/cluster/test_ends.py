"""Namespaces and the definitions themselves are deleted under live instances, with the operator up and down.

On a cluster of its own: the definitions are everybody's. (The release: tests/e2e/test_uninstall.py.)
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.api import Api, until
from tests.support.cluster import OwnCluster
from tests.support.operator import Operator
from tests.support.world import World

pytestmark = pytest.mark.cluster

KINDS = ("avatarinstances", "avatarpools", "avatars", "ttsengines", "gpunodes")
UP = pytest.mark.parametrize("up", [True, False], ids=["operator-up", "operator-down"])


@pytest.fixture(scope="module")
def own() -> Iterator[OwnCluster]:
    with OwnCluster("ends").up() as found:
        yield found


@contextlib.asynccontextmanager
async def living(own: OwnCluster, folder: Path) -> AsyncIterator[tuple[World, Operator]]:
    """Two instances, one of them in use, one shared; the operator serves all namespaces."""
    name = f"ends-{secrets.token_hex(3)}"
    operator = Operator(own.kubeconfig, folder / "operator.log")
    async with Api(own.kubeconfig) as api:
        await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        world = World(api, name)
        try:
            await operator.start()
            await world.pool()
            await world.avatar("ada", "bob")
            await world.instance("one", "ada")
            await world.instance("two", "ada")
            await world.instance("three", "bob")
            await world.phase("one", "Running")
            await world.phase("two", "Shared")
            await world.phase("three", "Running")
            await world.connections("three", 1)
            yield world, operator
        finally:
            operator.kill()
            await api.delete("namespaces", "", name)


@UP
async def test_a_namespace_is_deleted(own: OwnCluster, tmp_path: Path, up: bool) -> None:
    async with living(own, tmp_path) as (world, operator):
        if not up:
            operator.kill()
        await asyncio.to_thread(own.kubectl, "delete", "namespace", world.namespace, "--timeout=60s")
        if up:
            assert operator.running
            assert await operator.readiness() == "ok"


@UP
async def test_the_definitions_are_deleted(own: OwnCluster, tmp_path: Path, up: bool) -> None:
    """They and all that they defined go at once; when they are back, so is everything else."""
    async with living(own, tmp_path) as (world, operator):
        if not up:
            operator.kill()
        names = [f"{kind}.avatars.virtualtutor.io" for kind in KINDS]
        try:
            await asyncio.to_thread(own.kubectl, "delete", "crd", *names, "--timeout=60s")
            if up:
                # Without it that is the garbage collector's part, which leaves what belongs to a kind unknown to it.
                await until("the pods being collected", world.pods, lambda pods: not pods, timeout=60)
        finally:
            await asyncio.to_thread(own.define)
        # A watch that is refused for good ends the process, perhaps later than this.
        async with operator.kept_running():
            await world.nothing_left(60)
            await world.pool()
            await world.avatar("ada")
            await world.instance("one", "ada")
            await world.phase("one", "Running", timeout=90)
