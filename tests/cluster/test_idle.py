"""Idle collection: never somebody who is used, and nothing forgotten."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime

import pytest

from tests.conftest import MakeOperator
from tests.support.api import Json, until
from tests.support.operator import Operator
from tests.support.runtime import FakeRuntime, pods_at
from tests.support.world import World, condition

pytestmark = pytest.mark.cluster


@pytest.fixture
async def runtime() -> AsyncIterator[FakeRuntime]:
    """The runtime behind the pod, on an address that `runtime_pool` gives the pod."""
    async with FakeRuntime() as fake:
        yield fake


async def runtime_pool(world: World, runtime: FakeRuntime, **idle: object) -> None:
    """A pool of one port whose pod is `runtime`, which is asked who uses it."""
    await world.pool(
        ports={"count": 1},
        idle={"timeoutSeconds": 1, "activitySource": "Runtime", **idle},
        runtime=pods_at(runtime.address),
        health={"periodSeconds": 1},
    )
    await world.avatar("ada")


# ---- by status alone ---------------------------------------------------------------------


async def test_idle_with_delete_leaves_nothing(world: World, operator: Operator) -> None:
    await world.pool(idle={"timeoutSeconds": 1})
    await world.avatar("ada")
    await world.instance("one")
    status = await world.phase("one", "Running")
    assert _seconds(status["readyTime"], status["idleDeadline"]) >= 1
    await world.gone("one")
    await world.nothing_left()
    [event] = await until("an event", lambda: world.events("IdleCollected"), lambda e: e)
    assert "idle.timeoutSeconds" in event["message"]


async def test_idle_with_sleep_and_a_connection_wakes_it(world: World, operator: Operator) -> None:
    await world.pool(idle={"timeoutSeconds": 1, "action": "Sleep"})
    await world.avatar("ada")
    await world.instance("one")
    await world.phase("one", "Running")
    status = await world.phase("one", "Stopped")
    assert status["lastTermination"]["reason"] == "Idle"
    assert not {"port", "webrtcUrl", "podName", "idleDeadline"} & status.keys()
    await world.nothing_left()

    await world.connections("one", 1)
    woken = await world.phase("one", "Running")
    assert woken["port"]
    await world.stays("a woken instance that is used", lambda: world.is_in("one", "Running"), 2)
    await world.connections("one", 0)
    await world.phase("one", "Stopped")
    await world.nothing_left()


async def test_never_while_connections_are_counted(world: World, operator: Operator) -> None:
    await world.pool(idle={"timeoutSeconds": 1})
    await world.avatar("ada")
    await world.instance("one")
    await world.phase("one", "Running")
    await world.connections("one", 2)
    await world.until("one", "having no deadline", lambda s: "idleDeadline" not in s)
    await world.stays("a used instance", lambda: world.is_in("one", "Running"), 3)
    await world.connections("one", 0)
    await world.until("one", "having a deadline", lambda s: "idleDeadline" in s or "gone" in s)
    await world.gone("one")


async def test_a_timeout_of_zero_never_collects(world: World, operator: Operator) -> None:
    await world.pool(idle={"timeoutSeconds": 1})
    await world.avatar("ada")
    await world.instance("one", idle={"timeoutSeconds": 0})
    status = await world.phase("one", "Running")
    assert "idleDeadline" not in status
    await world.stays("an instance that never idles", lambda: world.is_in("one", "Running"), 2.5)


async def test_keep_warm_never_collects(world: World, operator: Operator) -> None:
    await world.pool(idle={"timeoutSeconds": 1})
    await world.avatar("ada", keepWarm=True)
    await world.instance("one")
    await world.phase("one", "Running")
    await world.stays("an avatar that is kept warm", lambda: world.is_in("one", "Running"), 2.5)


async def test_a_restart_neither_resets_nor_shortens_the_deadline(world: World, operator_factory: MakeOperator) -> None:
    operator = await operator_factory().start()
    await world.pool(idle={"timeoutSeconds": 5})
    await world.avatar("ada")
    await world.instance("one")
    before = await world.phase("one", "Running")
    operator.kill()
    await asyncio.sleep(1)
    await operator.start()
    after = await world.status("one")
    assert after["idleDeadline"] == before["idleDeadline"]
    deleted = await _when_gone(world, "one", timeout=15)
    assert deleted >= datetime.fromisoformat(before["idleDeadline"]).timestamp()


async def test_a_deadline_that_passed_while_the_operator_was_down_is_kept(
    world: World, operator_factory: MakeOperator
) -> None:
    operator = await operator_factory().start()
    await world.pool(idle={"timeoutSeconds": 1, "action": "Sleep"})
    await world.avatar("ada")
    await world.instance("one", idle={"timeoutSeconds": 2})
    await world.phase("one", "Running")
    operator.kill()
    await world.connections("one", 1)
    await asyncio.sleep(2.5)
    # A client came while nobody watched: the passed deadline must not end it.
    await operator.start()
    await world.stays("a used instance", lambda: world.is_in("one", "Running"), 2)


# ---- by asking the runtime ---------------------------------------------------------------


async def test_an_idle_runtime_is_asked_and_collected(world: World, operator: Operator, runtime: FakeRuntime) -> None:
    await runtime_pool(world, runtime)
    await world.instance("one")
    await world.phase("one", "Running")
    await world.gone("one")
    await world.nothing_left()
    assert runtime.looks >= 2, "it is looked at before and after offers are refused"
    assert runtime.told == [True]


async def test_never_while_the_runtime_has_a_session_that_nobody_counted(
    world: World, operator: Operator, runtime: FakeRuntime
) -> None:
    await runtime_pool(world, runtime)
    runtime.use(1)
    await world.instance("one")
    await world.phase("one", "Running")
    await world.until("one", "saying what the runtime says", lambda s: s.get("observedSessions") == 1)
    await world.stays("an instance with a client in the page", lambda: world.is_in("one", "Running"), 3)
    assert True not in runtime.told
    runtime.use(0)
    await world.gone("one")


async def test_nobody_came_in_the_time_to_claim_it(world: World, operator: Operator, runtime: FakeRuntime) -> None:
    await runtime_pool(world, runtime, timeoutSeconds=600, claimTimeoutSeconds=2, action="Sleep")
    await world.instance("one")
    status = await world.phase("one", "Stopped", reason="Unclaimed")
    assert status["lastTermination"]["reason"] == "Unclaimed"
    [event] = await until("an event", lambda: world.events("UnclaimedCollected"), lambda e: e)
    assert "idle.claimTimeoutSeconds" in event["message"]
    assert await operator.metric("avatar_operator_collected_total", world.namespace) == 1
    # Somebody comes this time, and leaves: from then on it is the idle timeout that counts.
    await world.connections("one", 1)
    await world.phase("one", "Running")
    await world.connections("one", 0)
    status = await world.until("one", "its clock running", lambda s: s.get("idleDeadline"))
    assert _seconds(status["lastActivityTime"], status["idleDeadline"]) >= 600


async def test_an_old_pod_ends_with_its_last_session(world: World, operator: Operator, runtime: FakeRuntime) -> None:
    """maxAgeSeconds refuses whoever comes and waits for who is there."""
    await runtime_pool(world, runtime, timeoutSeconds=600, maxAgeSeconds=3)
    await world.instance("one")
    await world.phase("one", "Running")
    runtime.use(1)
    await world.connections("one", 1)
    status = await world.phase("one", "Draining", reason="MaxAge")
    assert "drainDeadline" not in status
    await until("offers refused", _value(runtime.told), lambda told: told == [True])
    await world.stays("the session on an old pod", lambda: world.is_in("one", "Draining"), 2)
    await world.connections("one", 0)
    await world.stays("a session that the runtime alone knows", lambda: world.is_in("one", "Draining"), 2)
    runtime.use(0)
    await world.gone("one")
    await world.nothing_left()
    assert runtime.told == [True]
    assert await operator.metric("avatar_operator_culled_active_total") == 0


async def test_unknown_is_not_idle(world: World, operator: Operator, runtime: FakeRuntime) -> None:
    await runtime_pool(world, runtime)
    await runtime.down()
    await world.instance("one")
    await world.phase("one", "Running")
    status = await world.until("one", "not knowing", lambda s: condition(s, "ActivityKnown").get("status") == "False")
    assert runtime.address in condition(status, "ActivityKnown")["message"]
    await world.stays("an instance of which nothing is known", lambda: world.is_in("one", "Running"), 3)
    await runtime.up()
    await world.gone("one")
    await world.nothing_left()


async def test_a_client_that_comes_while_draining_is_not_thrown_out(
    world: World, operator: Operator, runtime: FakeRuntime
) -> None:
    """The second look, after offers are refused, finds a session: back to Running, offers again."""
    await runtime_pool(world, runtime)
    runtime.late = 1
    phases = _Phases(world, "one")
    async with phases:
        await world.instance("one")
        await until("offers refused and taken again", _value(runtime.told), lambda t: t[:2] == [True, False])
        await world.until(
            "one",
            "being back in service",
            lambda s: s.get("phase") == "Running" and s.get("observedSessions") == 1,
        )
        await world.stays("an instance with a client", lambda: world.is_in("one", "Running"), 2)
    assert phases.seen == ["Starting", "Running", "Draining", "Running"]
    assert not runtime.draining
    runtime.use(0)
    await world.gone("one")


async def test_a_connection_counted_while_draining_calls_it_off(
    world: World, operator: Operator, runtime: FakeRuntime
) -> None:
    await runtime_pool(world, runtime, action="Sleep")
    counted = asyncio.Event()

    async def count_when_draining() -> None:
        async for event in world.api.watch("avatarinstances", world.namespace):
            if event["object"].get("status", {}).get("phase") == "Draining":
                await world.connections("one", 1)
                counted.set()
                return

    backend = asyncio.create_task(count_when_draining())
    await world.instance("one")
    await asyncio.wait_for(counted.wait(), 15)
    await backend
    # Whoever won the race: in the end the client has an instance that runs and takes offers.
    await world.phase("one", "Running")
    await world.stays("an instance with a counted client", lambda: world.is_in("one", "Running"), 2)
    assert not runtime.draining or await world.pods()
    assert (await world.status("one"))["connections"] == 1


async def test_asleep_and_woken_by_a_connection_with_a_runtime(
    world: World, operator: Operator, runtime: FakeRuntime
) -> None:
    await runtime_pool(world, runtime, action="Sleep")
    await world.instance("one")
    await world.phase("one", "Stopped")
    await world.nothing_left()
    runtime.told.clear()
    await world.connections("one", 1)
    await world.phase("one", "Running")
    assert True not in runtime.told


async def test_a_session_that_ends_restarts_the_clock_from_its_end(
    world: World, operator: Operator, runtime: FakeRuntime
) -> None:
    await runtime_pool(world, runtime, timeoutSeconds=3)
    runtime.use(1)
    await world.instance("one")
    await world.phase("one", "Running")
    await world.until("one", "saying what the runtime says", lambda s: s.get("observedSessions") == 1, timeout=20)
    runtime.use(0)
    ended = asyncio.get_running_loop().time()
    await world.gone("one", timeout=25)
    assert asyncio.get_running_loop().time() - ended >= 2.0


# ---- parts -------------------------------------------------------------------------------


class _Phases:
    """The phases that an instance goes through while the block runs."""

    def __init__(self, world: World, name: str) -> None:
        self.seen: list[str] = []
        self._world, self._name = world, name
        self._opened = asyncio.Event()

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._follow())
        # A pod that kwok plays is ready at once: a watch that is opened a moment later sees no Starting.
        await asyncio.wait_for(self._opened.wait(), 15)

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self) -> None:
        async for event in self._world.api.watch("avatarinstances", self._world.namespace, self._opened):
            phase = event["object"].get("status", {}).get("phase")
            if event["object"]["metadata"]["name"] == self._name and phase and self.seen[-1:] != [phase]:
                self.seen.append(phase)


def _value(thing: list[bool]) -> Callable[[], Awaitable[list[bool]]]:
    async def look() -> list[bool]:
        return thing

    return look


async def _when_gone(world: World, name: str, timeout: float) -> float:
    """The time at which an instance is gone, and its last status must not be needed."""
    last: Json = await world.until(name, "being gone", lambda s: "gone" in s, timeout, interval=0.02)
    assert last
    return datetime.now().astimezone().timestamp()


def _seconds(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


# ---- counts that nobody takes back ---------------------------------------------------------


async def three_contradicted(world: World, runtime: FakeRuntime, patience: int) -> Json:
    """An instance on which three are counted of whom the runtime knows nothing; its status when that is said."""
    await runtime_pool(world, runtime, timeoutSeconds=600, connectionLeakSeconds=patience)
    await world.instance("one")
    await world.phase("one", "Running")
    await world.connections("one", 3)
    return await world.until(
        "one", "being contradicted", lambda s: condition(s, "CountConfirmed").get("status") == "False"
    )


async def test_a_count_that_the_runtime_contradicts_is_corrected(
    world: World, operator: Operator, runtime: FakeRuntime
) -> None:
    seen = await three_contradicted(world, runtime, patience=2)
    assert seen["connections"] == 3
    await world.until("one", "being corrected", lambda s: s["connections"] == 0 and s.get("idleDeadline"))
    [event] = await until("an event", lambda: world.events("CountCorrected"), lambda e: e)
    assert "counted 3 connections" in event["message"]


async def test_who_comes_while_no_operator_looks_does_not_inherit_the_doubt(
    world: World, operator: Operator, runtime: FakeRuntime
) -> None:
    """Three in doubt, one more comes and another goes: three again, and no condition says that they are others."""
    await three_contradicted(world, runtime, patience=4)
    # Ended in peace, so that the next acts at once.
    operator.stop()
    await asyncio.sleep(4)
    await world.connections("one", 4)
    await world.connections("one", 3)
    came = time.monotonic()
    await operator.start()
    await world.until("one", "being corrected", lambda s: s["connections"] == 0, interval=0.02)
    # The API server tells whole seconds.
    assert time.monotonic() - came >= 3


async def test_a_count_that_the_runtime_confirms_stays(world: World, operator: Operator, runtime: FakeRuntime) -> None:
    await runtime_pool(world, runtime, timeoutSeconds=600, connectionLeakSeconds=1)
    runtime.sessions = 1
    await world.instance("one")
    await world.phase("one", "Running")
    await world.connections("one", 1)

    async def counted() -> bool:
        return bool((await world.status("one"))["connections"] == 1)

    await world.stays("the count", counted, 4)
