"""What systems of this kind are complained about (see tests/FAILURES.md), where no other test is about it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime

import aiohttp
import pytest

from tests.support.api import Json, until
from tests.support.operator import Operator
from tests.support.runtime import FakeRuntime, pods_at
from tests.support.world import World, condition

pytestmark = pytest.mark.cluster


@pytest.fixture
async def runtime() -> AsyncIterator[FakeRuntime]:
    async with FakeRuntime() as fake:
        yield fake


# ---- endings that hang -----------------------------------------------------------------------------


async def test_a_start_while_the_last_pod_hangs_in_its_end(world: World, operator: Operator) -> None:
    """Nobody is told a lie: the new instance waits, says for what, and starts when the port is really free."""
    await world.pool(ports={"count": 1}, runtime={"podAnnotations": {"avatars.test/delete-after": "4s"}})
    await world.avatar("ada")
    await world.instance("one")
    await world.phase("one", "Running")
    before = await world.pod_uids()
    await world.delete("one")
    await until("its pod ending", world.pods, lambda p: p and "deletionTimestamp" in p[0]["metadata"])
    await world.instance("two")
    status = await world.phase("two", "Pending", reason="Terminating")
    assert "previous pod" in status["message"]
    after = await world.phase("two", "Running", timeout=30)
    assert after["port"] == 8615
    assert await world.pod_uids() != before
    assert after.get("restarts", 0) == 0


async def test_a_start_slower_than_the_idle_timeout_is_not_reaped(world: World, operator: Operator) -> None:
    """The clock begins when it serves, not when it was asked for."""
    await world.pool(
        idle={"timeoutSeconds": 1},
        startupTimeoutSeconds=60,
        runtime={"podAnnotations": {"avatars.test/ready-after": "5s"}},
    )
    await world.avatar("ada")
    await world.instance("one")
    status = await world.phase("one", "Running", timeout=40)
    assert _time(status["readyTime"]) > _time(status["startTime"])
    assert _time(status["idleDeadline"]) >= _time(status["readyTime"]) + 1
    await world.gone("one")


# ---- who is taken when room is made ------------------------------------------------------------------


@pytest.mark.parametrize("limit", [{"ports": {"count": 1}, "maxInstances": None}, {"maxInstances": 1}])
async def test_a_pool_that_shrinks_takes_nobody_who_is_used(world: World, operator: Operator, limit: Json) -> None:
    """The unused ones go by their own clock; the used one stays, outside of the new range even; nobody new comes."""
    await world.pool(ports={"count": 4}, maxInstances=3, idle={"timeoutSeconds": 3})
    await world.avatar("idle 1", "idle 2", "busy", "new")
    for number in (1, 2):
        await world.instance(f"idle-{number}", f"idle {number}")
        await world.phase(f"idle-{number}", "Running")
    await world.instance("busy", "busy")
    await world.connections("busy", 1)
    busy = await world.phase("busy", "Running")
    assert busy["port"] == 8617
    await world.api.patch("avatarpools", world.namespace, "default", {"spec": limit})
    [pod] = [p for p in await world.pods() if p["metadata"]["name"] == busy["podName"]]
    await world.gone("idle-1")
    await world.gone("idle-2")
    await until("the ports of the idle ones being free", world.left, lambda left: len(left) == 2)
    await world.instance("new", "new")
    if "ports" not in limit:
        await world.until("new", "waiting", lambda s: s.get("phase") == "Pending" and s.get("queuePosition") == 1)

    async def kept() -> bool:
        pods = await world.pod_uids()
        return pods.get(busy["podName"]) == pod["metadata"]["uid"] and await world.is_in("busy", "Running")

    await world.stays("the used one", kept, 2)


async def test_collecting_one_touches_no_other(world: World, operator: Operator) -> None:
    await world.pool(ports={"count": 3}, idle={"timeoutSeconds": 1})
    await world.used("ada", "bob", "eve")
    pods = await world.pod_uids()
    doomed = (await world.status("bob"))["podName"]
    await world.connections("bob", 0)
    await world.gone("bob")
    await until("its pod going", world.pods, lambda p: len(p) == 2)
    assert await world.pod_uids() == {name: uid for name, uid in pods.items() if name != doomed}
    for name in ("ada", "eve"):
        status = await world.status(name)
        assert (status["phase"], status["connections"], status.get("restarts", 0)) == ("Running", 1, 0)


async def test_a_drain_whose_second_look_fails_ends(world: World, operator: Operator, runtime: FakeRuntime) -> None:
    """A drain never stays: who cannot be asked any more counts as used, and offers are taken again."""
    await world.pool(
        ports={"count": 1},
        idle={"timeoutSeconds": 1, "activitySource": "Runtime"},
        runtime=pods_at(runtime.address),
        health={"periodSeconds": 1},
    )
    await world.avatar("ada")
    looks = runtime.looks

    async def fall_silent() -> None:
        await until("being told to drain", lambda: asyncio.sleep(0, runtime.told), lambda told: told, timeout=30)
        await runtime.down()

    # It goes down between the mark and the second look, or right after.
    silent = asyncio.create_task(fall_silent())
    runtime.script = [0]
    await world.instance("one")
    await silent
    assert runtime.looks >= looks
    status = await world.status("one")
    if "gone" not in status:
        await world.until("one", "having decided", lambda s: "gone" in s or s.get("phase") in ("Running", "Starting"))


# ---- the poisoned one -----------------------------------------------------------------------------


async def test_a_poisoned_avatar_blocks_nobody(world: World, operator: Operator) -> None:
    """It fails at every start, is tried again with growing pauses, and the others start as ever."""
    await world.pool("poisoned", ports={"base": 9000, "count": 4}, runtime={"podLabels": {"avatars.test/fail": "true"}})
    await world.pool(ports={"count": 6})
    await world.avatar("ada", *(f"poison {number}" for number in range(4)), *(f"good {number}" for number in range(6)))
    for number in range(4):
        await world.instance(f"poison-{number}", f"poison {number}", poolRef="poisoned")
    for number in range(4):
        await world.until(f"poison-{number}", "failing", lambda s: s.get("restarts", 0) >= 1)
    for number in range(6):
        await world.instance(f"good-{number}", f"good {number}")
    for number in range(6):
        status = await world.phase(f"good-{number}", "Running")
        assert status.get("restarts", 0) == 0
    assert (await operator.readiness()) == "ok"
    poisoned = await world.until("poison-0", "backing off", lambda s: s.get("phase") == "Failed" and s.get("retryTime"))
    assert condition(poisoned, "Ready")["status"] == "False"


# ---- alive by noise -------------------------------------------------------------------------------


async def test_a_tab_that_only_pings_keeps_nothing_alive(
    world: World, operator: Operator, runtime: FakeRuntime
) -> None:
    """A backend counted the tab and forgot it; the tab goes on asking over HTTP. The runtime has no session of it."""
    await world.pool(
        ports={"count": 1},
        idle={"timeoutSeconds": 1, "activitySource": "Runtime", "connectionLeakSeconds": 2},
        runtime=pods_at(runtime.address),
        health={"periodSeconds": 1},
    )
    await world.avatar("ada")
    await world.instance("one")
    await world.phase("one", "Running")
    await world.connections("one", 1)

    async def ping() -> None:
        async with aiohttp.ClientSession() as session:
            while True:
                async with session.get(f"http://{runtime.address}:{runtime.port}/health") as answer:
                    await answer.read()
                await asyncio.sleep(0.2)

    pinging = asyncio.create_task(ping())
    try:
        await world.gone("one", timeout=30)
    finally:
        pinging.cancel()
        await asyncio.gather(pinging, return_exceptions=True)
    assert await world.events("CountCorrected")


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
