"""The stream behind every view: everything, then what changes; for those with a token, and until the server goes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.api.conftest import MakeServer
from tests.support.operator import Operator
from tests.support.rest import RestServer
from tests.support.tokens import hs256
from tests.support.world import World

pytestmark = pytest.mark.cluster
Told = tuple[str, dict[str, Any], str]


async def stream(url: str, token: str = "") -> AsyncIterator[Told]:
    """Events with their data, and the data as it was sent."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    limit = aiohttp.ClientTimeout(total=60)
    async with (
        aiohttp.ClientSession(headers=headers, timeout=limit) as session,
        session.get(f"{url}/console/live") as answer,
    ):
        assert (answer.status, answer.content_type) == (200, "text/event-stream")
        assert answer.headers["Cache-Control"] == "no-store"
        name = ""
        async for raw in answer.content:
            line = raw.decode().rstrip("\n")
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield name, json.loads(line.removeprefix("data: ")), line


async def until(told: AsyncIterator[Told], section: str, key: str, **fields: Any) -> None:
    """Read on until a piece has these fields (``gone=True``: until it has gone)."""
    async for _, data, _ in told:
        piece = data["set"].get(section, {}).get(key)
        if fields.get("gone"):
            if key in data["gone"].get(section, ()):
                return
        elif piece is not None and {k: piece[k] for k in fields} == fields:
            return
    raise AssertionError(f"the stream ended before {section}/{key} was {fields}")


async def test_everything_then_what_changes(world: World, operator: Operator, server: RestServer) -> None:
    await world.pool()
    await world.avatar("ada")
    await world.instance("one")
    await world.phase("one", "Running")
    await world.set_status("one", {"connections": 1, "sessions": [{"id": "secret-id", "user": "secret-user"}]})
    told = stream(server.url, hs256("vic", "viewer"))
    name, hello, _ = await anext(told)
    assert (name, hello["subject"], hello["role"], hello["open"]) == ("hello", "vic", "viewer", False)
    name, data, text = await anext(told)
    assert (name, data["gone"], data["trouble"]) == ("snapshot", {}, "")
    assert (data["set"]["instances"]["one"]["phase"], data["set"]["avatars"]["ada"]["avatar"]) == ("Running", "ada")
    assert data["set"]["pools"]["default"]["ports"][0]["instance"] == "one"
    assert "secret" not in text
    await world.connections("one", 7)
    await until(told, "instances", "one", connections=7)
    await world.engine("edgetts", image="tts.test/engine:1", protocol="edgetts")
    await until(told, "engines", "edgetts", protocol="edgetts")
    # What pool and avatar say of an instance is the instance's news.
    await world.api.patch("avatars", world.namespace, "ada", {"spec": {"tts": {"voice": "en-US-AriaNeural"}}})
    await until(told, "instances", "one", voice="en-US-AriaNeural")
    await world.delete("one")
    await until(told, "instances", "one", gone=True)
    # Who comes later sees what is left, and what happened.
    later = stream(server.url, hs256("vic", "viewer"))
    await anext(later)
    _, data, _ = await anext(later)
    assert "one" not in data["set"].get("instances", {})
    assert "Ready" in {event["reason"] for event in data["set"]["events"].values()}
    # A server that stops lets nobody wait.
    assert await asyncio.to_thread(server.stop) == 0
    assert [name async for name, _, _ in told if name != "change"] == []


async def test_without_the_console_its_rights_are_not_used(servers: MakeServer, world: World) -> None:
    await world.pool()
    server = await servers("--auth=none", "--no-console")
    async with aiohttp.ClientSession() as session:
        for path in ("/console", "/console/", "/console/live"):
            async with session.get(f"{server.url}{path}") as answer:
                assert (path, answer.status) == (path, 404)
