"""Speech engines in real pods: from zero, shared, killed, never ready, without room, deleted; heard over WebRTC."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import datetime
from functools import partial
from typing import Any

import pytest

from avatar_client.analysis import Report, analyse
from avatar_client.errors import ClientError
from avatar_client.session import AvatarSession
from tests.e2e.conftest import RUNTIME_IMAGE, TTS_IMAGE
from tests.support.api import Json, until
from tests.support.world import World, condition, named

SENTENCE = "Good morning, everybody. Today we talk about the weather."
SPEECH_SECONDS = (2.0, 6.5)
SPEAKS = ["edgetts", "tacotron", "cosyvoice", "gpt-sovits", "omnitts"]
PORTS = {"edgetts": 5002, "tacotron": 5005, "cosyvoice": 5006, "sovits": 5007}
PROTOCOLS = {"sovits": "gpt-sovits"}


def spec(name: str, **over: Any) -> Json:
    """An engine of the chart's catalog."""
    port = PORTS[name]
    return {
        "image": TTS_IMAGE,
        "protocol": PROTOCOLS.get(name, name),
        "speaks": SPEAKS,
        "port": port,
        "args": ["--port", str(port), "--model_name", name],
        **over,
    }


@pytest.fixture
async def stage(world: World, ports: int) -> AsyncIterator[World]:
    """A namespace with a pool of ten ports whose avatars speak through engines, and the avatar ada."""
    pool = {
        "ports": {"base": ports, "count": 10},
        "maxInstances": 10,
        "runtime": {"image": RUNTIME_IMAGE},
        "termination": {"drainSeconds": 2},
    }
    await world.api.create("avatarpools", world.namespace, named("AvatarPool", "default", pool))
    await world.avatar("ada")
    yield world
    # So that the node has its room back before the next test.
    for item in await world.api.list("avatarinstances", world.namespace):
        await world.delete(item["metadata"]["name"])


async def speech(world: World, name: str, status: str, reason: str = "", timeout: float = 60) -> Json:
    """Wait for an instance's TTSReady."""
    return await world.until(
        name,
        f"TTSReady being {status} {reason}",
        lambda s: (
            condition(s, "TTSReady").get("status") == status and reason in ("", condition(s, "TTSReady").get("reason"))
        ),
        timeout,
    )


async def converse(url: str) -> Report:
    """Say the sentence in a session of its own; what was heard."""
    async with AvatarSession.connect(url) as session:
        await session.say(SENTENCE)
        await session.wait_speech_end(60)
    assert not [e for e in session.events if e["event"] == "error"], session.events
    return analyse(session.recording)


def assert_heard(report: Report) -> None:
    assert SPEECH_SECONDS[0] <= report.speech <= SPEECH_SECONDS[1], report
    assert report.peak > 0.05, report


def created(pod: Json) -> datetime:
    return datetime.fromisoformat(pod["metadata"]["creationTimestamp"])


async def events_of(world: World, reason: str) -> list[Json]:
    found = await world.api.list("events", world.namespace)
    return [e for e in found if e["involvedObject"]["kind"] == "TTSEngine" and e["reason"] == reason]


# ---- from zero and back --------------------------------------------------------------------


@pytest.mark.parametrize("name", PORTS)
async def test_each_engine_is_heard_through_its_contract(stage: World, name: str) -> None:
    await stage.engine(name, **spec(name))
    await stage.instance("ada", tts={"engine": name})
    await stage.phase("ada", "Running", timeout=60)
    status = await speech(stage, "ada", "True", "Ready")
    (pod,) = await stage.pods()
    arguments = pod["spec"]["containers"][0]["args"]
    assert f"--tts={PROTOCOLS.get(name, name)}" in arguments
    assert f"--TTS_SERVER=http://tts-{name}.{stage.namespace}.svc:{PORTS[name]}" in arguments
    assert_heard(await converse(status["webrtcUrl"]))


async def test_from_zero_together_and_collected_in_order(stage: World) -> None:
    await stage.engine("cosyvoice", **spec("cosyvoice", idleTimeoutSeconds=3))
    assert (await stage.engine_phase("cosyvoice", "Stopped"))["users"] == 0
    assert not await stage.engine_pods("cosyvoice")
    await stage.instance("ada", tts={"engine": "CosyVoice"}, idle={"timeoutSeconds": 3})
    await stage.phase("ada", "Running", timeout=60)
    status = await speech(stage, "ada", "True", "Ready")
    (avatar,), (engine,) = await stage.pods(), await stage.engine_pods("cosyvoice")
    # Both pods are made at once: neither waits for the other.
    assert abs((created(avatar) - created(engine)).total_seconds()) <= 1
    assert_heard(await converse(status["webrtcUrl"]))
    order: list[str] = []
    while len(order) < 2:
        left = {"instance": bool(await stage.get("ada")), "engine": bool(await stage.engine_pods("cosyvoice"))}
        order += [what for what, there in left.items() if not there and what not in order]
        if "instance" not in order:
            assert (await stage.engine_status("cosyvoice"))["phase"] == "Ready"
        await asyncio.sleep(0.2)
    assert order == ["instance", "engine"]
    stopped = await stage.engine_phase("cosyvoice", "Stopped")
    assert "startTime" not in stopped
    assert len(await events_of(stage, "IdleCollected")) == 1


async def test_ten_instances_start_one_engine_once(stage: World) -> None:
    await stage.engine("edgetts", **spec("edgetts"))
    names = [f"a{number}" for number in range(10)]
    await stage.avatar(*names[1:], data={"builtIn": True})
    pods: set[str] = set()
    watching = asyncio.create_task(_note_pods(stage, "edgetts", pods))
    try:
        # Nine avatars would need nine folders of data; each of these is a pod of ada all the same.
        await asyncio.gather(*(stage.instance(name, exclusive=True) for name in names))
        await asyncio.gather(*(speech(stage, name, "True", "Ready", 180) for name in names))
        await asyncio.gather(*(stage.phase(name, "Running", 180) for name in names))
        users = await until(
            "ten users", lambda: stage.engine_status("edgetts"), lambda s: s.get("users") == 10, timeout=20
        )
    finally:
        watching.cancel()
    assert users["readyReplicas"] == users["replicas"] == 1
    assert len(pods) == 1
    assert len(await events_of(stage, "Starting")) == 1


async def _subtitles(session: AvatarSession) -> list[str]:
    return [e["text"] for e in session.events if e["event"] == "subtitle"]


async def _note_pods(world: World, name: str, seen: set[str]) -> None:
    async for event in world.api.watch("pods", world.namespace):
        meta = event["object"]["metadata"]
        if meta.get("labels", {}).get("avatars.virtualtutor.io/tts-engine") == name:
            seen.add(meta["uid"])


# ---- trouble -------------------------------------------------------------------------------


async def test_killed_while_it_speaks(stage: World) -> None:
    """The session lives, its status says what is, and what is said next is heard."""
    await stage.engine("cosyvoice", **spec("cosyvoice", fallback="edgetts"))
    await stage.engine("edgetts", **spec("edgetts"))
    await stage.instance("ada", tts={"engine": "cosyvoice"})
    await stage.phase("ada", "Running", timeout=60)
    status = await speech(stage, "ada", "True", "Ready")
    (pod,) = await stage.engine_pods("cosyvoice")
    async with AvatarSession.connect(status["webrtcUrl"]) as session:
        await session.say("One, two, three, four, five, six, seven, eight, nine, ten, eleven, twelve.")
        await session.wait_event("speaking", 20)
        await stage.api.delete("pods", stage.namespace, pod["metadata"]["name"], {"gracePeriodSeconds": 0})
        await speech(stage, "ada", "False", "Starting")
        await session.wait_event("silent", 30)
        await speech(stage, "ada", "True", "Ready")
        again = "And here I am again."
        await session.say(again)
        await until("the next sentence", partial(_subtitles, session), lambda said: again in said, timeout=30)
        assert session.alive
    # A moment's silence is no reason for another voice.
    assert (await stage.engine_status("edgetts"))["phase"] == "Stopped"
    assert len(await events_of(stage, "Unready")) == 1


async def test_never_ready_another_speaks_until_it_is(stage: World) -> None:
    broken = {"args": ["--port", "0"], "startupTimeoutSeconds": 4}
    await stage.engine("cosyvoice", **spec("cosyvoice", fallback="edgetts", **broken))
    await stage.engine("edgetts", **spec("edgetts", idleTimeoutSeconds=3))
    await stage.instance("ada", tts={"engine": "cosyvoice"})
    await stage.phase("ada", "Running", timeout=60)
    status = await speech(stage, "ada", "False", "Fallback", 60)
    assert "edgetts" in condition(status, "TTSReady")["message"]
    engine = await stage.engine_phase("cosyvoice", "Fallback")
    assert (engine["fallback"], engine["users"]) == ("edgetts", 1)
    assert (await stage.engine_phase("edgetts", "Ready", 60))["users"] == 1
    assert_heard(await converse(status["webrtcUrl"]))

    fixed = {"spec": {"args": spec("cosyvoice")["args"]}}
    await stage.api.patch("ttsengines", stage.namespace, "cosyvoice", fixed)
    status = await speech(stage, "ada", "True", "Ready", 90)
    assert_heard(await converse(status["webrtcUrl"]))
    assert "fallback" not in await stage.engine_status("cosyvoice")
    await stage.engine_phase("edgetts", "Stopped", 60)
    assert len(await events_of(stage, "Recovered")) == 1


async def test_never_ready_and_nobody_stands_in(stage: World) -> None:
    """The avatar stays, mute: its client is told, sentence by sentence."""
    await stage.engine("tacotron", **spec("tacotron", args=["--port", "0"], startupTimeoutSeconds=4))
    await stage.instance("ada", tts={"engine": "TacoTron2"})
    await stage.phase("ada", "Running", timeout=60)
    status = await speech(stage, "ada", "False", "Failed")
    engine = await stage.engine_phase("tacotron", "Failed")
    assert engine["reason"] in ("StartupTimeout", "CrashLoop", "ServerConfigError")
    assert engine["message"]
    async with AvatarSession.connect(status["webrtcUrl"]) as session:
        await session.say("Nobody hears this.")
        with pytest.raises(ClientError, match="tts-tacotron"):
            await session.wait_speech_end(30)
        assert session.alive
    assert (await stage.status("ada"))["phase"] == "Running"


async def test_without_room_on_any_node(stage: World) -> None:
    wants = {"requests": {"cpu": "1000"}}
    await stage.engine("sovits", **spec("sovits", resources=wants, startupTimeoutSeconds=3, fallback="edgetts"))
    await stage.engine("edgetts", **spec("edgetts"))
    await stage.instance("ada", tts={"engine": "SoVITS"})
    await stage.phase("ada", "Running", timeout=60)
    status = await speech(stage, "ada", "False", "Fallback")
    engine = await stage.engine_status("sovits")
    assert engine["reason"] == "Unschedulable"
    assert "cpu" in engine["message"]
    await stage.engine_phase("edgetts", "Ready", 60)
    assert_heard(await converse(status["webrtcUrl"]))


async def test_deleted_by_hand(stage: World) -> None:
    """The Deployment comes back; the engine's end is said, and the next pod speaks through another."""
    await stage.engine("cosyvoice", **spec("cosyvoice"))
    await stage.engine("edgetts", **spec("edgetts"))
    await stage.instance("ada", tts={"engine": "cosyvoice"})
    await stage.phase("ada", "Running", timeout=60)
    await speech(stage, "ada", "True", "Ready")
    old = {p["metadata"]["uid"] for p in await stage.engine_pods("cosyvoice")}
    await stage.api.delete("apps/v1/deployments", stage.namespace, "tts-cosyvoice")
    await until(
        "another pod",
        lambda: stage.engine_pods("cosyvoice"),
        lambda pods: any(p["metadata"]["uid"] not in old for p in pods),
        timeout=60,
    )
    await stage.engine_phase("cosyvoice", "Ready", 60)
    status = await speech(stage, "ada", "True", "Ready")

    async with AvatarSession.connect(status["webrtcUrl"]) as session:
        await stage.api.delete("ttsengines", stage.namespace, "cosyvoice")
        await speech(stage, "ada", "False", "EngineDeleted")
        await until(
            "its objects being gone",
            lambda: stage.api.list("services", stage.namespace),
            lambda found: "tts-cosyvoice" not in {s["metadata"]["name"] for s in found},
            timeout=60,
        )
        assert session.alive
        assert (await stage.status("ada"))["phase"] == "Running"
    # Nobody looks any more: the pod is replaced by one that speaks through what is there.
    status = await stage.until(
        "ada",
        "speaking through another",
        lambda s: s.get("phase") == "Running" and condition(s, "TTSReady").get("reason") == "UnknownEngine",
        120,
    )
    with contextlib.suppress(ClientError):
        assert_heard(await converse(status["webrtcUrl"]))
