"""Sessions through the live API: leases, windows, disconnects, caps, spill, waiting, restarts."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.support.api import Json, until
from tests.support.operator import Operator
from tests.support.rest import Rest
from tests.support.world import World

pytestmark = pytest.mark.cluster
Avatars = Callable[..., Awaitable[None]]


async def only(world: World) -> Json:
    [status] = (await world.statuses()).values()
    return status


def ids(status: Json) -> list[str]:
    return [s["id"] for s in status.get("sessions", [])]


# ---- leases --------------------------------------------------------------------------


async def test_a_browser_that_vanishes(world: World, avatars: Avatars, operator: Operator, rest: Rest) -> None:
    """Its session ends after the window; one that sends heartbeats and one without a lease stay."""
    await avatars("g", pool={"sessions": {"connectSeconds": 3, "reconnectSeconds": 1}})
    gone = await rest.start("gone", "g", ttl_seconds=2)
    assert gone.data["expires"] is not None
    await rest.start("alive", "g", ttl_seconds=2)
    await rest.start("old", "g")

    async def beat() -> None:
        while True:
            assert (await rest.post("/avatar/heartbeat", {"avatar_id": "alive"})).code == 200
            await asyncio.sleep(0.7)

    beating = asyncio.create_task(beat())
    status = await until("the lapsed one being gone", lambda: only(world), lambda s: "gone" not in ids(s), timeout=15)
    assert ids(status) == ["alive", "old"]
    assert status["connections"] == 2
    assert (await rest.post("/avatar/heartbeat", {"avatar_id": "gone"})).code == 404
    await asyncio.sleep(3)
    assert ids(await only(world)) == ["alive", "old"]
    beating.cancel()
    # It had a heartbeat, so it has ttl and the reconnect window now, not the connect window.
    await until("the other being gone", lambda: only(world), lambda s: ids(s) == ["old"], timeout=15)


async def test_heartbeats_are_not_a_write_each(world: World, avatars: Avatars, operator: Operator, rest: Rest) -> None:
    await avatars("g")
    await rest.start("a", "g", ttl_seconds=600)
    first = await rest.post("/avatar/heartbeat", {"avatar_id": "a"})
    version = (await world.api.list("avatarinstances", world.namespace))[0]["metadata"]["resourceVersion"]
    answers = await asyncio.gather(*(rest.post("/avatar/heartbeat", {"avatar_id": "a"}) for _ in range(50)))
    assert {a.data["expires"] for a in answers} == {first.data["expires"]}
    assert (await world.api.list("avatarinstances", world.namespace))[0]["metadata"]["resourceVersion"] == version


# ---- disconnects ---------------------------------------------------------------------


async def test_disconnects_are_idempotent_and_never_below_zero(
    world: World, avatars: Avatars, operator: Operator, rest: Rest
) -> None:
    await avatars("g")
    await rest.start("g_user_1", "g")
    await rest.start("g_user_2", "g")
    answers = [await rest.disconnect(avatar_id="g_user_1") for _ in range(3)]
    assert (answers[0].data["connections"], answers[0].data["disconnected"]) == (1, True)
    assert [a.code for a in answers] == [200, 200, 200]
    assert ids(await only(world)) == ["g_user_2"]
    for _ in range(3):
        assert (await rest.disconnect(avatar_name="g")).data["connections"] == 0
    assert (await only(world))["connections"] == 0
    assert (await rest.disconnect(avatar_name="never heard of")).data == {
        "avatar_name": "never heard of",
        "avatar_id": None,
        "connections": 0,
        "disconnected": False,
    }
    assert (await rest.disconnect()).code == 400


async def test_a_disconnect_right_after_the_start_through_another_replica(
    world: World, avatars: Avatars, operator: Operator, rest: Rest, servers: Any
) -> None:
    await avatars("g")
    other = await servers()
    async with Rest(other.url) as second:
        for n in range(20):
            await rest.start(f"u{n}", "g")
            assert (await second.disconnect(avatar_id=f"u{n}", avatar_name="g")).data["disconnected"]
    assert (await only(world))["connections"] == 0


async def test_a_backend_that_patches_counts_beside_the_api(
    world: World, avatars: Avatars, operator: Operator, rest: Rest
) -> None:
    await avatars("g")
    await rest.start("a", "g")
    [name] = await world.statuses()
    await world.connections(name, 4)
    assert (await rest.start("b", "g")).data["connections"] == 5
    assert (await rest.disconnect(avatar_id="b", avatar_name="g")).data["connections"] == 4


async def test_avatars_idle_after_the_last_disconnect(
    world: World, avatars: Avatars, operator: Operator, rest: Rest
) -> None:
    """The old README's scenario of two users, to its end."""
    await avatars("g", pool={"idle": {"timeoutSeconds": 1}})
    first = await rest.start("g_user_1", "g")
    second = await rest.start("g_user_2", "g")
    assert (first.data["connections"], second.data["connections"]) == (1, 2)
    assert first.data["port"] == second.data["port"]
    await rest.disconnect(avatar_name="g")
    assert (await rest.get("/avatar/info/g")).data["connections"] == 1
    await rest.disconnect(avatar_name="g")
    await until("its collection", world.statuses, lambda a: not a)
    await world.nothing_left()


# ---- caps ----------------------------------------------------------------------------


async def test_a_full_avatar_refuses(world: World, avatars: Avatars, operator: Operator, rest: Rest) -> None:
    await avatars("g", pool={"defaults": {"maxSessions": 2}})
    answers = await asyncio.gather(*(rest.start(f"u{n}", "g") for n in range(5)))
    assert sorted(a.code for a in answers) == [200, 200, 409, 409, 409]
    assert (await only(world))["connections"] == 2


async def test_a_full_avatar_spills(world: World, avatars: Avatars, operator: Operator, rest: Rest) -> None:
    await avatars("g", pool={"defaults": {"maxSessions": 2}, "sessions": {"spill": "Spill"}})
    answers = await asyncio.gather(*(rest.start(f"u{n}", "g") for n in range(5)))
    assert [a.code for a in answers] == [200] * 5, answers
    assert len({a.data["port"] for a in answers}) == 3
    assert sorted(s["connections"] for s in (await world.statuses()).values()) == [1, 2, 2]
    again = await asyncio.gather(*(rest.start(f"u{n}", "g") for n in range(5)))
    assert [a.data["port"] for a in again] == [a.data["port"] for a in answers]
    assert sum(s["connections"] for s in (await world.statuses()).values()) == 5
    for n in range(5):
        assert (await rest.disconnect(avatar_id=f"u{n}", avatar_name="g")).data["disconnected"]
    assert sum(s["connections"] for s in (await world.statuses()).values()) == 0


# ---- waiting -------------------------------------------------------------------------


async def test_a_start_that_takes_longer_gives_the_session_back(
    world: World, avatars: Avatars, operator: Operator, rest: Rest
) -> None:
    await avatars("g", pool={"runtime": {"podAnnotations": {"avatars.test/ready-after": "4s"}}})
    began = time.monotonic()
    answer = await rest.start("u", "g", headers={"Prefer": "wait=1"})
    assert (answer.code, time.monotonic() - began < 4) == (503, True)
    assert int(answer.headers["Retry-After"]) > 0
    status = await only(world)
    assert (status["connections"], status["phase"]) == (0, "Starting")
    assert (await rest.start("u", "g")).data["is_new"] is False


async def test_a_start_that_is_answered_at_once_and_followed(
    world: World, avatars: Avatars, operator: Operator, rest: Rest
) -> None:
    await avatars("g", pool={"runtime": {"podAnnotations": {"avatars.test/ready-after": "1s"}}})
    accepted = await rest.start("u 1", "g", headers={"Prefer": "respond-async"})
    assert (accepted.code, accepted.body["status"], accepted.data["running"]) == (202, "accepted", False)
    events = []
    async with rest.session.get(rest.url + accepted.headers["Location"]) as stream:
        assert stream.content_type == "text/event-stream"
        async for line in stream.content:
            if line.startswith(b"event: "):
                events.append([line[7:].decode().strip()])
            elif line.startswith(b"data: "):
                events[-1].append(json.loads(line[6:]))
    assert [e[0] for e in events[-1:]] == ["ready"]
    assert {e[1]["phase"] for e in events} >= {"Starting", "Running"}
    assert events[-1][1]["webrtc_url"].endswith("/offer")
    at_once = await rest.start("u 2", "g", headers={"Prefer": "respond-async"})
    assert (at_once.code, at_once.data["running"]) == (200, True)
    assert (await rest.get("/avatar/events/nobody")).code == 404


async def test_a_full_pool_is_said_at_once_and_waited_for_when_asked(
    world: World, avatars: Avatars, operator: Operator, rest: Rest
) -> None:
    await avatars("g", "h", pool={"ports": {"count": 1}})
    await rest.start("a", "g")
    began = time.monotonic()
    answer = await rest.start("b", "h")
    assert (answer.code, time.monotonic() - began < 10) == (503, True)
    assert "runs 1 of 1 instances" in answer.body["message"]
    await until("the one that waited being gone", world.statuses, lambda all_: len(all_) == 1)
    waiting = asyncio.create_task(rest.start("b", "h", wait_seconds=20))
    await until("it to wait", world.statuses, lambda a: any(s.get("queuePosition") == 1 for s in a.values()))
    assert (await rest.get("/status")).data["manager"]["phases"] == {"Running": 1, "Pending": 1}
    await rest.post("/avatar/stop", {"avatar_id": "g"})
    assert (await waiting).data["running"] is True


async def test_a_start_wakes_a_sleeping_one(world: World, avatars: Avatars, operator: Operator, rest: Rest) -> None:
    await avatars("g", pool={"idle": {"timeoutSeconds": 1, "action": "Sleep"}})
    await rest.start("a", "g")
    await rest.disconnect(avatar_id="a")
    await until("its sleep", lambda: only(world), lambda s: s["phase"] == "Stopped")
    await world.nothing_left()
    woken = await rest.start("b", "g")
    assert (woken.data["is_new"], woken.data["running"]) == (True, True)


async def test_starts_against_collection(world: World, avatars: Avatars, operator: Operator, rest: Rest) -> None:
    """An idle timeout that is always about to fire: no start is lost to it."""
    await avatars("g", pool={"idle": {"timeoutSeconds": 1}})
    for n in range(12):
        answer = await rest.start(f"u{n}", "g")
        assert answer.data["running"] is True
        status = await only(world)
        assert (ids(status), status["phase"]) == ([f"u{n}"], "Running")
        await rest.disconnect(avatar_id=f"u{n}", avatar_name="g")
        await asyncio.sleep(0.8 + n / 25)


# ---- stop, restart -------------------------------------------------------------------


async def test_stop_without_force(world: World, avatars: Avatars, operator: Operator, rest: Rest) -> None:
    await avatars("g")
    await rest.start("a", "g")
    await rest.start("b", "g")
    refused = await rest.post("/avatar/stop", {"avatar_id": "g", "force": False})
    assert (refused.code, refused.body["message"].startswith("2 connected")) == (409, True)
    kept = await rest.post("/avatar/stop-all", {"force": False})
    assert (kept.data["stopped"], len(kept.data["in_use"])) == ([], 1)
    for one in "ab":
        await rest.disconnect(avatar_id=one, avatar_name="g")
    assert (await rest.post("/avatar/stop", {"avatar_id": "g", "force": False})).code == 200
    await world.nothing_left()
    assert (await rest.post("/avatar/stop", {"avatar_id": "g"})).code == 404


async def test_restart_keeps_sessions_and_says_so(
    world: World, avatars: Avatars, operator: Operator, rest: Rest
) -> None:
    await avatars("g", pool={"runtime": {"podAnnotations": {"avatars.test/ready-after": "2s"}}})
    await rest.start("a", "g", ttl_seconds=60)
    [pod] = await world.pods()
    restarting = asyncio.create_task(rest.post("/avatar/restart", {"avatar_id": "g"}))
    await until("it being down", lambda: rest.get("/avatar/info/g"), lambda a: not a.data["running"])
    beat = await rest.post("/avatar/heartbeat", {"avatar_id": "a"})
    assert (beat.data["running"], "Retry-After" in beat.headers) == (False, True)
    meanwhile = await rest.start("a", "g", headers={"Prefer": "wait=0"})
    assert (meanwhile.code, "Retry-After" in meanwhile.headers) == (503, True)
    answer = await restarting
    assert (answer.data["running"], answer.data["connections"]) == (True, 1)
    assert ids(await only(world)) == ["a"]
    [other] = await world.pods()
    assert other["metadata"]["uid"] != pod["metadata"]["uid"]


async def test_turn_credentials_end(world: World, avatars: Avatars, operator: Operator, rest: Rest) -> None:
    secret = b"north wind"
    body = {"metadata": {"name": "turn"}, "data": {"secret": base64.b64encode(secret).decode()}}
    await world.api.create("secrets", world.namespace, body)
    servers = [{"urls": ["stun:stun.test:3478"]}, {"urls": ["turn:turn.test:3478"]}]
    network = {"iceServers": servers, "turnSecretRef": {"name": "turn"}, "turnTTLSeconds": 600}
    await avatars("g", pool={"network": network})
    stun, turn = (await rest.start("a", "g")).data["ice_servers"]
    assert stun == {"urls": ["stun:stun.test:3478"]}
    until_, _, _ = turn["username"].partition(":")
    assert 590 < int(until_) - time.time() < 610
    made = base64.b64encode(hmac.new(secret, turn["username"].encode(), hashlib.sha1).digest()).decode()
    assert turn["credential"] == made
