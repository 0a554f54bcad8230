"""An operator that knows too little, or too late: after a restart, behind a stale cache, as a successor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from tests.conftest import Cluster, MakeOperator
from tests.support.api import until
from tests.support.operator import leader_of
from tests.support.proxy import Call, Proxy, Rule, matching
from tests.support.world import World

pytestmark = pytest.mark.cluster


@pytest.fixture
async def proxy(cluster: Cluster) -> AsyncIterator[Proxy]:
    async with Proxy(cluster.kubeconfig) as found:
        yield found


async def test_a_restart_forgets_nobody(world: World, operator_factory: MakeOperator) -> None:
    """All still tracked, no new pods, counts kept, though the idle timeout is over by then."""
    operator = await operator_factory().start()
    names = [f"user-{number}" for number in range(8)]
    await world.pool(ports={"count": 10}, idle={"timeoutSeconds": 1})
    await world.used(*names)
    pods, statuses = await world.pod_uids(), await world.statuses()
    operator.kill()
    await asyncio.sleep(1.5)
    await operator.start()

    async def same() -> bool:
        return await world.pod_uids() == pods and await world.statuses() == statuses

    await world.stays("every instance in use", same, 3)
    # And it is tracked: the end of a session is seen, the others go on.
    await world.connections(names[0], 0)
    await world.gone(names[0])
    assert sorted(await world.statuses()) == names[1:]


async def test_missing_from_a_list_is_not_gone(
    world: World, proxy: Proxy, operator_factory: MakeOperator, tmp_path: Path
) -> None:
    """A list that comes empty, as a stale cache would answer: each object is asked for before it counts as gone."""
    await operator_factory(proxy.kubeconfig(tmp_path / "kubeconfig"), ("--resync-seconds=1",)).start()
    await world.pool()
    await world.used("ada", "bob")
    pods = await world.pod_uids()
    empty = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "items": []}

    async def nothing(_: Call) -> web.Response:
        return web.json_response({**empty, "metadata": {"resourceVersion": "1"}})

    listed = ("pods", "avatarinstances", "services")
    rule = Rule(lambda c: c.verb == "list" and c.resource in listed, nothing, -1)
    proxy.rules.append(rule)
    writes = len(proxy.writes("pods", "services"))
    await until("several comparisons", lambda: asyncio.sleep(0, rule.hits), lambda hits: hits >= 12, timeout=30)
    assert await world.pod_uids() == pods
    assert len(proxy.writes("pods", "services")) == writes, proxy.writes("pods", "services")[writes:]
    assert await world.is_in("ada", "Running")
    assert await world.is_in("bob", "Running")


async def test_a_successor_that_never_heard_of_an_instance_leaves_its_pod(
    world: World, proxy: Proxy, operator_factory: MakeOperator, tmp_path: Path
) -> None:
    """Its watch of instances has stalled, that of pods has not: a pod that nobody seems to want, with a client."""
    options = (f"--lease={world.namespace}/operator",)
    first = await operator_factory(options=options).start()
    assert await leader_of(first) is first
    second = await operator_factory(proxy.kubeconfig(tmp_path / "kubeconfig"), options).start()
    await world.pool()
    # Its first comparison, a second after the start, would find what is missing.
    await asyncio.sleep(3)
    proxy.stall_watches("avatarinstances")
    await world.used("ada")
    pods = await world.pod_uids()
    first.kill()
    assert await leader_of(second) is second

    async def same() -> bool:
        return await world.pod_uids() == pods and await world.is_in("ada", "Running")

    await world.stays("the pod of a used instance", same, 4)
    assert not [c for c in proxy.writes("pods") if c.verb == "delete"]


async def test_a_client_counted_right_before_a_roll_keeps_its_pod(
    world: World, proxy: Proxy, operator_factory: MakeOperator, tmp_path: Path
) -> None:
    await operator_factory(proxy.kubeconfig(tmp_path / "kubeconfig")).start()
    await world.pool()
    await world.avatar("ada")
    await world.instance("one")
    await world.phase("one", "Running")
    pods = await world.pod_uids()

    async def a_client_comes(_: Call) -> None:
        await world.connections("one", 1)

    def replaces(call: Call) -> bool:
        return matching("patch", "avatarinstances", "Starting")(call)

    rule = proxy.before(replaces, a_client_comes)
    await world.api.patch(
        "avatarpools", world.namespace, "default", {"spec": {"runtime": {"image": "runtime.test/avatar:2"}}}
    )
    await until("a try to replace", lambda: asyncio.sleep(0, rule.hits), bool)
    await world.until("one", "being in use", lambda s: s.get("phase") == "Running" and s.get("connections") == 1)

    async def same() -> bool:
        return await world.pod_uids() == pods

    await world.stays("the pod of a client", same, 2)
    await world.connections("one", 0)
    await until("a pod of the new image", world.pod_uids, lambda now: now and now != pods)
