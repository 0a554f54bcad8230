"""A runtime whose health route answers and that sends nothing: told at once, ended only when something else agrees."""

from __future__ import annotations

import pytest

from tests.support.api import until
from tests.support.operator import Operator
from tests.support.runtime import FakeRuntime, pods_at
from tests.support.world import World, condition

pytestmark = pytest.mark.cluster


async def _watched(world: World, runtime: FakeRuntime) -> None:
    """An instance in use, looked at every second."""
    notes = pods_at(runtime.address)
    idle = {"timeoutSeconds": 600, "activitySource": "Runtime"}
    await world.pool(idle=idle, health={"periodSeconds": 1, "failures": 3}, runtime=notes)
    await world.avatar("ada")
    await world.instance("one")
    await world.phase("one", "Running")
    await world.connections("one", 1)


async def test_frames_that_stand_still_are_told_and_the_session_is_left_alone(world: World, operator: Operator) -> None:
    """One source is not enough; and a restarted operator still knows since when."""
    async with FakeRuntime(sessions=1, frames=100) as runtime:
        await _watched(world, runtime)
        await until("some looks", lambda: _looks(runtime), lambda looks: looks >= 3)
        assert not condition(await world.status("one"), "MediaFlowing")
        [pod] = await world.pods()
        runtime.flowing = False
        told = await world.until("one", "saying so", lambda s: condition(s, "MediaFlowing").get("status") == "False")
        since = condition(told, "MediaFlowing")["lastTransitionTime"]
        assert await operator.metric("avatar_operator_media_stalled_total") == 1
        operator.kill()
        await operator.start()
        looks = runtime.looks
        await until("more looks", lambda: _looks(runtime), lambda n: n >= looks + 5)
        [same] = await world.pods()
        assert same["metadata"]["uid"] == pod["metadata"]["uid"]
        assert "deletionTimestamp" not in same["metadata"]
        now = await world.status("one")
        assert (now["phase"], condition(now, "MediaFlowing")["lastTransitionTime"]) == ("Running", since)
        assert len(await world.events("MediaStalled")) == 1
        runtime.flowing = True
        await world.until("one", "flowing", lambda s: condition(s, "MediaFlowing").get("status") == "True")


async def test_frames_that_stand_still_in_a_pod_that_is_not_ready_end_it(world: World, operator: Operator) -> None:
    async with FakeRuntime(sessions=1, frames=100) as runtime:
        await _watched(world, runtime)
        [pod] = await world.pods()
        runtime.flowing = False
        await world.until("one", "saying so", lambda s: condition(s, "MediaFlowing").get("status") == "False")
        await world.patch_pod("avatar-8615", labels={"avatars.test/unready": "true"})
        after = await world.until(
            "one", "having been replaced", lambda s: s.get("lastTermination", {}).get("reason") == "MediaStalled"
        )
        assert after["restarts"] == 1
        runtime.flowing = True
        await world.phase("one", "Running", timeout=30)
        [new] = await world.pods()
        assert new["metadata"]["uid"] != pod["metadata"]["uid"]
        await world.until("one", "being rid of it", lambda s: not condition(s, "MediaFlowing"))


async def test_a_runtime_that_does_not_count_frames_is_never_judged(world: World, operator: Operator) -> None:
    """Stock LiveTalking."""
    async with FakeRuntime(sessions=1) as runtime:
        await _watched(world, runtime)
        await until("some looks", lambda: _looks(runtime), lambda looks: looks >= 5)
        assert not condition(await world.status("one"), "MediaFlowing")
        assert not await world.events("MediaStalled")


async def test_what_a_probe_found_stands_in_status(world: World, operator: Operator) -> None:
    """And a restarted operator neither forgets it nor says it anew."""
    async with FakeRuntime(reach="") as runtime:
        notes = pods_at(runtime.address)
        await world.pool(network={"mode": "HostNetwork"}, runtime=notes)
        await world.avatar("ada")
        await world.instance("one")
        told = await world.until("one", "being reached", lambda s: s.get("media", {}).get("reachable") == "True")
        assert told["media"]["candidates"] == [runtime.address]
        assert told["media"]["mode"] == "HostNetwork"
        assert (condition(told, "MediaReachable")["status"], told["phase"]) == ("True", "Running")
        operator.kill()
        await operator.start()
        await world.connections("one", 1)
        await world.until("one", "being in use", lambda s: "idleDeadline" not in s)
        now = await world.status("one")
        assert now["media"] == told["media"]


async def test_media_that_cannot_be_reached_is_told(world: World, operator: Operator) -> None:
    async with FakeRuntime(reach="127.0.0.1") as runtime:
        notes = pods_at(runtime.address)
        await world.pool(network={"mode": "HostNetwork"}, runtime=notes)
        await world.avatar("ada")
        await world.instance("one")
        told = await world.until("one", "saying so", lambda s: s.get("media", {}).get("reachable") == "False")
        assert condition(told, "MediaReachable")["reason"] == "NoAnswer"
        assert "firewall" in told["media"]["message"]
        assert told["phase"] == "Running"


async def test_mode_pod_says_who_gets_a_picture(world: World, operator: Operator) -> None:
    async with FakeRuntime(reach="") as runtime:
        notes = pods_at(runtime.address)
        await world.pool(network={"mode": "Pod"}, runtime=notes)
        await world.avatar("ada")
        await world.instance("one")
        told = await world.phase("one", "Running")
        assert condition(told, "MediaReachable")["reason"] == "PodAddressesOnly"
        assert runtime.address in told["media"]["message"]


async def _looks(runtime: FakeRuntime) -> int:
    return runtime.looks
