"""The local copy behind a proxy that cuts, expires, stalls and refuses: it ends up right, without a new LIST where
the version is still known."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from avatar_operator.domain.gpunode import GpuNode
from avatar_operator.domain.resources import Avatar, Instance
from avatar_operator.kube import credentials, stream
from avatar_operator.kube.client import KubeClient, Resource
from avatar_operator.kube.kinds import AVATARS, INSTANCES
from avatar_operator.kube.reflector import Reflector
from tests.conftest import Cluster
from tests.support.api import until
from tests.support.proxy import Proxy, matching
from tests.support.world import World

pytestmark = pytest.mark.cluster


@pytest.fixture
async def proxy(cluster: Cluster) -> AsyncIterator[Proxy]:
    async with Proxy(cluster.kubeconfig) as found:
        yield found


@contextlib.asynccontextmanager
async def client_of(proxy: Proxy, folder: Path) -> AsyncIterator[KubeClient]:
    found = credentials.find(str(proxy.kubeconfig(folder / "kubeconfig")))
    async with credentials.open_session(found, "test") as session:
        yield KubeClient(session, found.server)


@pytest.fixture
async def copy(proxy: Proxy, world: World, tmp_path: Path) -> AsyncIterator[Reflector[Instance]]:
    """Of the namespace's instances, synced."""
    async with client_of(proxy, tmp_path) as client:
        found = Reflector(client, INSTANCES, Instance, world.namespace)
        task = asyncio.create_task(found.run())
        await asyncio.wait_for(found.synced.wait(), 20)
        await until("its watch", _calls(proxy, "watch"), bool)
        yield found
        task.cancel()


def _calls(proxy: Proxy, verb: str):  # type: ignore[no-untyped-def]
    async def count() -> int:
        return sum(1 for c in proxy.calls if c.verb == verb)

    return count


async def seen(copy: Reflector[Instance]) -> dict[str, int]:
    return {i.metadata.name: i.status.connections for i in copy.values()}


async def test_it_follows(world: World, copy: Reflector[Instance]) -> None:
    await world.instance("one")
    await world.instance("two")
    await world.connections("one", 3)
    await until("both", lambda: seen(copy), lambda s: s == {"one": 3, "two": 0})
    with copy.changes(world.namespace, "two") as changed:
        await world.delete("two")
        await asyncio.wait_for(changed.wait(), 10)
    assert await seen(copy) == {"one": 3}


async def test_a_cut_stream_goes_on_where_it_was(world: World, proxy: Proxy, copy: Reflector[Instance]) -> None:
    await world.instance("one")
    for count in range(1, 4):
        proxy.cut_watches()
        await world.connections("one", count)
        await until(f"{count}", lambda: seen(copy), lambda s, c=count: s == {"one": c})  # type: ignore[misc]
    assert copy.relists == 1


async def test_what_happened_while_it_was_expired(world: World, proxy: Proxy, copy: Reflector[Instance]) -> None:
    await world.instance("stays")
    await world.instance("goes")
    await until("both", lambda: seen(copy), lambda s: len(s) == 2)
    proxy.expire_watches(2)
    proxy.refuse(matching("watch", "avatarinstances"), 503, times=2)
    proxy.cut_watches()
    await world.delete("goes")
    await world.connections("stays", 7)
    await until("the truth", lambda: seen(copy), lambda s: s == {"stays": 7})
    assert copy.relists >= 2


async def test_a_stream_that_says_nothing_more(
    world: World, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "WATCH_SECONDS", 2)
    monkeypatch.setattr("avatar_operator.kube.client.REQUEST_TIMEOUT_SECONDS", 1.0)
    async with client_of(proxy, tmp_path) as client:
        copy = Reflector(client, INSTANCES, Instance, world.namespace)
        task = asyncio.create_task(copy.run())
        await asyncio.wait_for(copy.synced.wait(), 20)
        await until("its watch", _calls(proxy, "watch"), bool)
        proxy.stall_watches()
        await world.instance("one")
        await asyncio.sleep(0.5)
        assert await seen(copy) == {}
        proxy._stall_new = False
        await until("the new one", lambda: seen(copy), lambda s: s == {"one": 0}, timeout=15)
        task.cancel()


async def test_our_own_write_is_not_undone_by_an_older_event(world: World, copy: Reflector[Instance]) -> None:
    old = await world.instance("one")
    await until("it", lambda: seen(copy), lambda s: "one" in s)
    await world.connections("one", 5)
    await until("five", lambda: seen(copy), lambda s: s == {"one": 5})
    import json

    copy.offer(json.dumps(old).encode())
    assert await seen(copy) == {"one": 5}
    await world.delete("one")
    await until("its end", lambda: seen(copy), lambda s: not s)
    copy.offer(json.dumps(old).encode())
    assert await seen(copy) == {}, "an answer that comes after the deletion brings nothing back"


async def test_of_what_is_never_taken_back_only_the_newest_are_kept(world: World, proxy: Proxy, tmp_path: Path) -> None:
    await world.avatar("a", "b", "c", "d")
    async with client_of(proxy, tmp_path) as client:
        copy = Reflector(client, AVATARS, Avatar, world.namespace, most=3)
        told: list[str] = []
        copy.listeners.append(
            lambda before, after: told.append(f"-{before.metadata.name}" if before and not after else "")
        )
        task = asyncio.create_task(copy.run())
        await asyncio.wait_for(copy.synced.wait(), 20)

        async def names() -> str:
            return "".join(sorted(item.metadata.name for item in copy.values()))

        assert await names() == "bcd"
        await world.api.patch("avatars", world.namespace, "b", {"metadata": {"labels": {"touched": "yes"}}})
        await until("b told anew", lambda: _labels(copy), lambda found: found.get("b") == {"touched": "yes"})
        await world.avatar("e")
        await until("c, which changed longest ago, forgotten", names, lambda found: found == "bde")
        assert [one for one in told if one] == ["-c"]
        await world.api.delete("avatars", world.namespace, "c")
        await world.api.delete("avatars", world.namespace, "d")
        await until("d being gone", names, lambda found: found == "be")
        task.cancel()


async def _labels(copy: Reflector[Avatar]) -> dict[str, dict[str, str]]:
    return {item.metadata.name: dict(item.metadata.labels) for item in copy.values()}


async def test_a_resource_that_is_not_there(world: World, proxy: Proxy, tmp_path: Path) -> None:
    async with client_of(proxy, tmp_path) as client:
        nothing = Reflector(client, Resource("avatars.virtualtutor.io", "v1alpha1", "nothings"), GpuNode, optional=True)
        task = asyncio.create_task(nothing.run())
        await asyncio.wait_for(nothing.synced.wait(), 10)
        assert nothing.values() == []
        task.cancel()
