"""kill -9 at each write of the operator: a new process comes to the same result, nothing is leaked or doubled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conftest import Cluster, MakeOperator
from tests.support.api import Json, until
from tests.support.operator import Operator
from tests.support.proxy import Match, Proxy, matching
from tests.support.world import Invariants, World

pytestmark = pytest.mark.cluster

START: dict[str, Match] = {
    "service-created": matching("create", "services"),
    "pod-created": matching("create", "pods"),
    "status-starting": matching("patch", "avatarinstances", "Starting"),
    "status-running": matching("patch", "avatarinstances", "Running"),
}
DELETE: dict[str, Match] = {
    "status-draining": matching("patch", "avatarinstances", "Draining"),
    "instance-deleted": matching("delete", "avatarinstances"),
    "service-deleted": matching("delete", "services"),
}
SLEEP: dict[str, Match] = {
    "status-draining": matching("patch", "avatarinstances", "Draining"),
    "status-stopped": matching("patch", "avatarinstances", "Stopped"),
    "pod-deleted": matching("delete", "pods"),
    "service-deleted": matching("delete", "services"),
}
WHEN = pytest.mark.parametrize("when", ["before", "after"])


@pytest.fixture
async def proxy(cluster: Cluster) -> AsyncIterator[Proxy]:
    async with Proxy(cluster.kubeconfig) as found:
        yield found


@pytest.fixture
async def doomed(proxy: Proxy, operator_factory: MakeOperator, tmp_path: Path) -> Operator:
    """The operator that will be killed, ready, behind the proxy."""
    return await operator_factory(proxy.kubeconfig(tmp_path / "kubeconfig")).start()


async def _killed_then_restarted(proxy: Proxy, doomed: Operator) -> None:
    try:
        await asyncio.wait_for(proxy.killed.wait(), 15)
    except TimeoutError:
        raise AssertionError(f"the point never came; calls: {[str(c) for c in proxy.writes()]}") from None
    assert not doomed.running
    proxy.rules.clear()
    await doomed.start()


@WHEN
@pytest.mark.parametrize("point", START)
async def test_killed_while_starting(world: World, proxy: Proxy, doomed: Operator, point: str, when: str) -> None:
    await world.pool()
    await world.avatar("ada")
    proxy.kill_at(START[point], when, doomed.kill)
    async with Invariants.watching(world, capacity=1) as seen:
        await world.instance("one")
        await _killed_then_restarted(proxy, doomed)
        status = await world.phase("one", "Running")
        await until("one pod and one Service", world.left, lambda n: n == ["pod/avatar-8615", "svc/avatar-8615"])
    assert not seen.broken, seen.broken
    assert (status["port"], status.get("restarts", 0)) == (8615, 0)
    assert "lastTermination" not in status
    await world.delete("one")
    await world.nothing_left()


@WHEN
@pytest.mark.parametrize("point", DELETE)
async def test_killed_while_collecting_with_delete(
    world: World, proxy: Proxy, doomed: Operator, point: str, when: str
) -> None:
    await world.pool(idle={"timeoutSeconds": 1})
    await world.avatar("ada")
    proxy.kill_at(DELETE[point], when, doomed.kill)
    await world.instance("one")
    await _killed_then_restarted(proxy, doomed)
    await world.gone("one")
    await world.nothing_left()
    assert await doomed.metric("avatar_operator_culled_active_total") == 0


@WHEN
@pytest.mark.parametrize("point", SLEEP)
async def test_killed_while_collecting_with_sleep(
    world: World, proxy: Proxy, doomed: Operator, point: str, when: str
) -> None:
    await world.pool(idle={"timeoutSeconds": 1, "action": "Sleep"})
    await world.avatar("ada")
    proxy.kill_at(SLEEP[point], when, doomed.kill)
    await world.instance("one")
    await _killed_then_restarted(proxy, doomed)
    status = await world.phase("one", "Stopped")
    await world.nothing_left()
    assert status["lastTermination"]["reason"] == "Idle"
    assert status.get("restarts", 0) == 0


@WHEN
async def test_killed_while_sharers_are_collected(world: World, proxy: Proxy, doomed: Operator, when: str) -> None:
    """Between the follower's end and the server's."""
    await world.pool(idle={"timeoutSeconds": 1})
    await world.avatar("ada")
    proxy.kill_at(matching("delete", "avatarinstances"), when, doomed.kill)
    await world.instance("one")
    await world.instance("two")
    await _killed_then_restarted(proxy, doomed)
    await world.gone("two")
    await world.gone("one")
    await world.nothing_left()


@WHEN
async def test_killed_while_a_lost_pod_is_replaced(world: World, proxy: Proxy, doomed: Operator, when: str) -> None:
    await world.pool()
    await world.avatar("ada")
    await world.instance("one")
    await world.phase("one", "Running")
    proxy.kill_at(matching("create", "pods"), when, doomed.kill)
    await world.delete_pod("avatar-8615")
    await _killed_then_restarted(proxy, doomed)
    status = await world.phase("one", "Running")
    await until("one pod and one Service", world.left, lambda n: len(n) == 2)
    assert status.get("restarts", 0) <= 1


@WHEN
async def test_killed_while_the_second_takes_over(world: World, proxy: Proxy, doomed: Operator, when: str) -> None:
    await world.pool()
    await world.avatar("ada")
    await world.instance("one")
    await world.instance("two")
    await world.phase("two", "Shared")
    [pod] = await world.pods()
    await until("both owning the pod", world.pods, lambda p: len(p[0]["metadata"]["ownerReferences"]) == 2)
    proxy.kill_at(matching("patch", "avatarinstances", "Running"), when, doomed.kill)
    await world.delete("one")
    await _killed_then_restarted(proxy, doomed)
    status = await world.phase("two", "Running")
    assert status["podName"] == pod["metadata"]["name"]
    assert [p["metadata"]["uid"] for p in await world.pods()] == [pod["metadata"]["uid"]]


async def test_killed_in_the_middle_of_a_rush(world: World, proxy: Proxy, doomed: Operator) -> None:
    """Three kills while twenty start in a pool of five and leave again."""
    names = [f"i{number:02}" for number in range(20)]
    await world.pool()
    await world.avatar(*(f"avatar {name}" for name in names))
    async with Invariants.watching(world, capacity=5) as seen:
        proxy.kill_at(matching("create", "pods"), "after", doomed.kill)
        await asyncio.gather(*(world.instance(name, f"avatar {name}") for name in names))
        await _killed_then_restarted(proxy, doomed)
        statuses = await until("five running", world.statuses, lambda a: len(_running(a)) == 5, timeout=30)
        proxy.kill_at(matching("delete", "services"), "before", doomed.kill)
        await world.delete(*_running(statuses)[:3])
        await _killed_then_restarted(proxy, doomed)
        statuses = await until("five running", world.statuses, lambda a: len(_running(a)) == 5, timeout=30)
        await until(
            "positions 1 to 12",
            world.statuses,
            lambda a: (
                sorted(s.get("queuePosition", 0) for s in a.values() if s["phase"] == "Pending") == list(range(1, 13))
            ),
        )
        await asyncio.gather(*(world.delete(name) for name in names))
        await world.nothing_left()
    assert not seen.broken, seen.broken[:5]


def _running(statuses: dict[str, Json]) -> list[str]:
    return [name for name, status in statuses.items() if status.get("phase") == "Running"]
