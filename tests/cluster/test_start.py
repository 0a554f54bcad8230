"""A start from nothing: what the instance says, and what it costs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.conftest import Cluster, MakeOperator
from tests.support.api import Json, until
from tests.support.operator import Operator
from tests.support.proxy import Proxy
from tests.support.world import Invariants, World, condition

pytestmark = pytest.mark.cluster


async def test_a_cold_start_costs_four_writes(
    cluster: Cluster, world: World, operator_factory: MakeOperator, tmp_path: Path
) -> None:
    await world.pool()
    await world.avatar("ada")
    async with Proxy(cluster.kubeconfig) as proxy:
        operator = await operator_factory(proxy.kubeconfig(tmp_path / "kubeconfig")).start()
        await until("the pool's status", lambda: _pool_status(world), lambda s: "ports" in s)
        proxy.calls.clear()
        await world.instance("one")
        status = await world.phase("one", "Running")
        await asyncio.sleep(0.7)
        mine = [str(call) for call in proxy.writes("services", "pods", "avatarinstances")]
        pool = proxy.writes("avatarpools")
        operator.stop()
    assert len(mine) <= 4, mine
    # The pool's own books are kept at most every half second, for all of its instances together.
    assert len(pool) <= 2, [str(call) for call in pool]
    assert status["port"] == 8615
    assert status["webrtcUrl"] == f"http://avatar-8615.{world.namespace}.svc:8615/offer"
    assert status["podName"] == "avatar-8615"
    assert status["node"].startswith("fake-")
    assert condition(status, "Ready")["status"] == "True"
    assert condition(status, "PortClaimed")["status"] == "True"
    assert status["startTime"] <= status["readyTime"]
    assert status.get("restarts", 0) == 0
    audited = cluster.writes_of("avatar-operator/", world.namespace)
    if audited is not None:
        kinds = ("services", "pods", "avatarinstances")
        counted = [e for e in audited if e["objectRef"]["resource"] in kinds]
        assert len(counted) == len(mine), counted


async def test_a_join_costs_two_writes(
    cluster: Cluster, world: World, operator_factory: MakeOperator, tmp_path: Path
) -> None:
    """The status of the second, and its name on the pod (so that deleting the first does not end it)."""
    await world.pool()
    await world.avatar("ada")
    async with Proxy(cluster.kubeconfig) as proxy:
        operator = await operator_factory(proxy.kubeconfig(tmp_path / "kubeconfig")).start()
        await world.instance("one")
        await world.phase("one", "Running")
        await asyncio.sleep(0.3)
        proxy.calls.clear()
        await world.instance("two")
        await world.phase("two", "Shared")
        await asyncio.sleep(0.3)
        joined = [str(call) for call in proxy.writes("services", "pods", "avatarinstances")]
        operator.stop()
    assert len(joined) <= 2, joined


async def test_forty_instances_in_a_pool_of_five(world: World, operator: Operator) -> None:
    names = [f"i{number:02}" for number in range(40)]
    await world.pool()
    await world.avatar(*(f"avatar {name}" for name in names))
    async with Invariants.watching(world, capacity=5) as seen:
        await asyncio.gather(*(world.instance(name, f"avatar {name}") for name in names))
        statuses = await until(
            "5 Running and 35 Pending with positions 1 to 35",
            world.statuses,
            lambda all_: (
                sum(s.get("phase") == "Running" for s in all_.values()) == 5
                and sorted(s.get("queuePosition", 0) for s in all_.values() if s.get("phase") == "Pending")
                == list(range(1, 36))
            ),
            timeout=60,
            interval=0.2,
        )
        assert {s["reason"] for s in statuses.values() if s["phase"] == "Pending"} == {"PoolFull"}
        items = await world.api.list("avatarinstances", world.namespace)
        order = sorted(items, key=lambda i: (i["metadata"]["creationTimestamp"], i["metadata"]["name"]))
        waiting = [i["metadata"]["name"] for i in order if i["status"]["phase"] == "Pending"]
        assert [statuses[name]["queuePosition"] for name in waiting] == list(range(1, 36))
        ports = sorted(s["port"] for s in statuses.values() if s["phase"] == "Running")
        assert ports == [8615, 8616, 8617, 8618, 8619]

        first = next(name for name, s in statuses.items() if s["phase"] == "Running")
        await world.delete(first)
        head = await world.phase(waiting[0], "Running")
        assert head["port"] == statuses[first]["port"]
        await until(
            "the others moving up",
            world.statuses,
            lambda all_: [all_[name].get("queuePosition") for name in waiting[1:]] == list(range(1, 35)),
        )

        gone = {first}
        while len(gone) < len(names):
            now = await until(
                "somebody running in a queue that is not empty",
                world.statuses,
                lambda all_: [n for n, s in all_.items() if s.get("phase") == "Running"],
            )
            running = [name for name, s in now.items() if s.get("phase") == "Running"]
            await world.delete(*running)
            gone.update(running)
        await world.nothing_left()
    assert not seen.broken, seen.broken[:5]
    assert seen.most == 5
    status = await until(
        "the pool's books being empty",
        lambda: _pool_status(world),
        lambda s: s["ports"]["used"] == 0 and s["queueLength"] == 0,
    )
    assert status["ports"] == {"used": 0, "free": 5, "inUse": []}


async def test_the_next_starts_when_the_pod_is_gone(world: World, operator: Operator) -> None:
    """Not before: a port is free when nothing can be bound to it any more."""
    await world.pool(
        ports={"count": 1}, runtime={"podAnnotations": {"avatars.test/delete-after": "1500ms"}}, maxInstances=1
    )
    await world.avatar("ada", "bob")
    await world.instance("one", "ada")
    await world.phase("one", "Running")
    old = (await world.pods())[0]["metadata"]["uid"]
    await world.instance("two", "bob")
    queued = await world.phase("two", "Pending")
    assert queued["queuePosition"] == 1
    await world.delete("one")
    await world.until("two", "having a port", lambda s: s.get("port"), timeout=10)
    assert [p["metadata"]["uid"] for p in await world.pods()] != [old]
    assert len(await world.pods()) == 1
    await world.phase("two", "Running", timeout=5)


async def test_a_host_network_pod_says_the_nodes_address(world: World, operator: Operator) -> None:
    await world.pool(network={"mode": "HostNetwork"}, ports={"base": 7615})
    await world.avatar("ada")
    await world.instance("one")
    status = await world.phase("one", "Running")
    pod = (await world.pods())[0]
    assert pod["spec"]["hostNetwork"] is True
    assert status["webrtcUrl"] == f"http://{pod['status']['hostIP']}:7615/offer"


async def _pool_status(world: World, name: str = "default") -> Json:
    pool = await world.api.get("avatarpools", world.namespace, name)
    return dict((pool or {}).get("status", {}))
