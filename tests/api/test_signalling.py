"""Signalling through the API: real offers, a real runtime behind a pod's address, a real operator."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from avatar_client import AvatarSession
from tests.runtime.launch import Running, call, offer, start_runtime, start_tts
from tests.support.api import Json, until
from tests.support.operator import Operator
from tests.support.rest import Rest, RestServer
from tests.support.runtime import own_address
from tests.support.world import World

pytestmark = pytest.mark.cluster
MakePod = Callable[..., Awaitable[Running]]


@pytest.fixture(scope="module")
def tts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A TTS server."""
    one = start_tts(tmp_path_factory.mktemp("tts"))
    yield one
    one.stop()


@pytest.fixture
def make_pod(world: World, operator: Operator, tmp_path: Path, tts: Running) -> Iterator[MakePod]:
    """``await make_pod("--max_session", "3", sessions={…})``: the pool and avatar g, whose pod is a real runtime."""
    made: list[Running] = []

    async def make(*flags: str, **pool: Any) -> Running:
        host = own_address()
        one = await asyncio.to_thread(start_runtime, tmp_path, *flags, tts=tts.url, host=host, port=8615)
        made.append(one)
        await world.pool(runtime={"podAnnotations": {"avatars.test/pod-ip": host}}, **pool)
        await world.avatar("g")
        return one

    yield make
    for one in made:
        one.stop()


async def only(world: World) -> Json:
    [status] = (await world.statuses()).values()
    return dict(status)


def ids(status: Json) -> list[str]:
    return [s["id"] for s in status.get("sessions", [])]


async def started(rest: Rest, world: World) -> str:
    """g runs, and nobody is counted; the instance's name."""
    assert (await rest.start("first", "g")).code == 200
    assert (await rest.disconnect(avatar_id="first")).data["disconnected"]
    [name] = await world.statuses()
    return name


async def sessions_of(runtime: Running) -> list[str]:
    _, found = await call("GET", f"{runtime.url}/api/admin/sessions")
    return [s["sessionid"] for s in found["data"]["sessions"]]


async def test_an_offer_connects_counts_and_ends_with_its_peer(
    world: World, make_pod: MakePod, rest: Rest, server: RestServer
) -> None:
    runtime = await make_pod()
    name = await started(rest, world)
    assert await rest.post("/avatar/nobody/offer", await offer()) is not None
    async with AvatarSession.connect(f"{server.url}/avatar/g") as session:
        status = await only(world)
        [record] = status["sessions"]
        assert (status["connections"], record["runtimeSessionId"]) == (1, session.sessionid)
        assert "expires" not in record
        assert await sessions_of(runtime) == [session.sessionid]
        await session.say("Good morning.")
        await session.wait_event("speaking", 20)
        assert await session.is_speaking()
        await session.interrupt()
        await session.wait_event("silent", 20)
        # By the instance's name and by the session's id, too.
        for text in (name, record["id"]):
            spoken = await rest.post(f"/avatar/{text}/is_speaking", {"sessionid": session.sessionid})
            assert (spoken.code, spoken.body) == (200, {"status": "success", "data": False})
    after = await until("the end of the record", lambda: only(world), lambda s: not s.get("sessions"), timeout=30)
    assert after["connections"] == 0
    assert (await rest.get("/avatar/info/g")).data["running"]
    assert await server.metric("avatar_operator_api_peers_gone_total") == 1
