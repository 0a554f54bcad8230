"""The life of real instances: used, shared, idle, asleep, ended, with real pods and real clients."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from avatar_client.errors import ClientError
from avatar_client.session import AvatarSession
from tests.conftest import Cluster
from tests.e2e.conftest import SYSTEM, leading_pod, pause
from tests.e2e.conftest import run as command
from tests.support.api import Json, until
from tests.support.world import World

IDLE = 4


async def test_a_client_that_nobody_counted_keeps_its_avatar(real: World) -> None:
    await real.instance("ada", idle={"timeoutSeconds": IDLE})
    status = await real.phase("ada", "Running", timeout=60)
    async with AvatarSession.connect(status["webrtcUrl"]) as session:
        await pause(2.5 * IDLE)
        seen = await real.status("ada")
        assert seen["phase"] == "Running"
        assert seen["connections"] == 0
        assert session.alive
    await real.gone("ada", timeout=60)
    await real.nothing_left(timeout=30)


async def test_sleep_and_wake(real: World) -> None:
    await real.instance("ada", idle={"timeoutSeconds": 2, "action": "Sleep"})
    first = await real.phase("ada", "Running", timeout=60)
    await real.phase("ada", "Stopped", timeout=60)
    await real.nothing_left(timeout=30)
    await real.connections("ada", 1)
    woken = await real.phase("ada", "Running", timeout=60)
    assert woken["port"] == first["port"]
    async with AvatarSession.connect(woken["webrtcUrl"]) as session:
        await session.say("I am awake.")
        await session.wait_speech_end(30)


async def test_takeover_does_not_interrupt_a_conversation(real: World) -> None:
    await real.instance("first")
    await real.phase("first", "Running", timeout=60)
    await real.instance("second")
    shared = await real.phase("second", "Shared", timeout=30)
    uid = (await real.pods())[0]["metadata"]["uid"]
    async with AvatarSession.connect(shared["webrtcUrl"]) as session:
        await session.say("This sentence is long enough that the first user can leave while it is being said.")
        await real.delete("first")
        after = await real.phase("second", "Running", timeout=30)
        await session.wait_speech_end(60)
        assert session.alive
    assert after["webrtcUrl"] == shared["webrtcUrl"]
    assert [p["metadata"]["uid"] for p in await real.pods()] == [uid]


async def test_deleting_an_instance_lets_a_sentence_end(real: World) -> None:
    """The runtime drains: it refuses offers and waits for its sessions, drainSeconds at most."""
    await real.api.patch("avatarpools", real.namespace, "default", {"spec": {"termination": {"drainSeconds": 30}}})
    await real.instance("ada")
    status = await real.phase("ada", "Running", timeout=60)
    async with AvatarSession.connect(status["webrtcUrl"]) as session:
        await session.say("One, two, three, four, five, six, seven, eight, nine, ten.")
        await session.wait_event("speaking", 20)
        await real.delete("ada")
        await session.wait_event("draining", 20)
        with pytest.raises(ClientError):
            async with AvatarSession.connect(status["webrtcUrl"], timeout=5):
                pass
        await session.wait_speech_end(30)
        assert session.alive
    await real.nothing_left(timeout=60)


async def test_the_operator_is_killed_while_somebody_talks(real: World) -> None:
    await real.instance("ada", idle={"timeoutSeconds": 8})
    status = await real.phase("ada", "Running", timeout=60)
    async with AvatarSession.connect(status["webrtcUrl"]) as session:
        await session.say("The operator may come and go; I go on talking, as long as somebody listens to me.")
        leader = await leading_pod(real.api)
        await real.api.delete("pods", SYSTEM, leader, {"gracePeriodSeconds": 0})
        await session.wait_speech_end(60)
        assert session.alive
    await leading_pod(real.api, other_than=leader)
    await real.gone("ada", timeout=90)
    await real.nothing_left(timeout=30)


async def test_a_crashed_runtime_restarts_in_place(real: World, cluster: Cluster) -> None:
    await real.instance("ada")
    before = await real.phase("ada", "Running", timeout=60)
    kill = "import os, signal; os.kill(1, signal.SIGTERM); os.kill(1, signal.SIGTERM)"
    with contextlib.suppress(AssertionError):
        command(cluster, "kubectl", "-n", real.namespace, "exec", before["podName"], "--", "python3", "-c", kill)
    await until("the container being ready again", real.pods, _restarted_and_ready, timeout=60)
    after = await real.phase("ada", "Running", timeout=60)
    assert after["port"] == before["port"]
    async with AvatarSession.connect(after["webrtcUrl"]) as session:
        await session.say("Here I am again.")
        await session.wait_speech_end(30)


def _restarted_and_ready(pods: list[Json]) -> bool:
    container = pods[0]["status"]["containerStatuses"][0]
    return bool(container["restartCount"] >= 1 and container["ready"])


async def test_more_users_than_sessions_are_told_so(real: World) -> None:
    await real.instance("ada", maxSessions=2)
    url = (await real.phase("ada", "Running", timeout=60))["webrtcUrl"]

    async def come() -> str:
        try:
            async with AvatarSession.connect(url, timeout=20):
                await asyncio.sleep(3)
        except ClientError as error:
            return str(error)
        return "served"

    answers = await asyncio.gather(*(come() for _ in range(4)))
    assert answers.count("served") == 2, answers
    assert all("limit reached" in a for a in answers if a != "served"), answers
