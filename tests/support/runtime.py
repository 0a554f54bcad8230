"""A lip-sync runtime played by the test: it counts what the test says and remembers what it was told."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web

_SERIAL = itertools.count(1)


def own_address() -> str:
    """A loopback address that no other fake runtime has: of this process, and hardly one of another test run."""
    number = next(_SERIAL)
    return f"127.{100 + os.getpid() % 100}.{number // 200}.{number % 200 + 1}"


def pods_at(address: str) -> dict[str, Any]:
    """Of a pool's spec.runtime: kwok gives its pods this address, where a fake runtime listens."""
    return {"podAnnotations": {"avatars.test/pod-ip": address}}


@dataclass
class FakeRuntime:
    """Answers on ``address:port`` as design §5 says. Use as ``async with``.

    ``frames``: what it has sent, one more at each look while ``flowing``; None = it does not count them.
    ``sessions`` is what /health says. ``late``: so many whose offers were taken right before it was told to drain.
    ``told`` are the drain values that came in. ``gpus``: the UUIDs that it sees; None = it does not tell.
    ``reach``: it opens a UDP port for a probe, at that address ("" = its own); None = it has no such route.
    ``talks``: it takes offers and texts, too, and remembers nothing of them. ``ports``: how many it listens on.
    """

    port: int = 8615
    address: str = field(default_factory=own_address)
    sessions: int = 0
    late: int = 0
    looks: int = 0
    told: list[bool] = field(default_factory=list)
    gpus: list[str] | None = None
    frames: int | None = None
    flowing: bool = True
    reach: str | None = None
    ports: int = 1
    talks: bool = False
    idle_since: float = field(default_factory=time.monotonic)

    async def __aenter__(self) -> Self:
        await self.up()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.down()

    async def up(self) -> None:
        """Listen."""
        app = web.Application()
        app.add_routes([web.get("/health", self._health), web.post("/api/admin/drain", self._drain)])
        if self.reach is not None:
            app.add_routes([web.post("/api/admin/media", self._media)])
        if self.talks:
            app.add_routes([web.post("/offer", self._offer)])
            app.add_routes(
                web.post(f"/{r}", self._ok) for r in ("human", "interrupt_talk", "is_speaking", "humanaudio")
            )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        for port in range(self.port, self.port + self.ports):
            await web.TCPSite(self._runner, self.address, port, reuse_address=True).start()

    async def down(self) -> None:
        """Stop listening: connections are refused from now on."""
        await self._runner.cleanup()

    @property
    def draining(self) -> bool:
        """What it was told last."""
        return bool(self.told) and self.told[-1]

    def use(self, sessions: int) -> None:
        """Sessions begin or end now."""
        self.sessions = sessions
        self.idle_since = time.monotonic()

    async def _health(self, _: web.Request) -> web.Response:
        self.looks += 1
        sessions = self.sessions
        idle = 0.0 if sessions else time.monotonic() - self.idle_since
        body: dict[str, object] = {"service": "webrtc", "max_sessions": 100, "speaking": 0, "avatar": "test"}
        if self.gpus is not None:
            body["gpus"] = self.gpus
        if self.frames is not None:
            self.frames += self.flowing
            body |= {"frames": self.frames, "viewers": sessions}
        status = "draining" if self.draining else "healthy"
        return web.json_response({**body, "status": status, "sessions": sessions, "idle_seconds": round(idle, 3)})

    async def _offer(self, request: web.Request) -> web.Response:
        offer = await request.json()
        return web.json_response({"sdp": offer["sdp"], "type": "answer", "sessionid": next(_SERIAL)})

    async def _ok(self, _: web.Request) -> web.Response:
        return web.json_response({"code": 0, "msg": "ok", "data": False})

    async def _drain(self, request: web.Request) -> web.Response:
        self.told.append(bool((await request.json())["drain"]))
        self.sessions, self.late = self.sessions + self.late, 0
        return web.json_response({"code": 0, "data": {"sessions": self.sessions}})

    async def _media(self, _: web.Request) -> web.Response:
        transaction = os.urandom(12)
        transport, _responder = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Responder(transaction), local_addr=(self.address, 0)
        )
        asyncio.get_running_loop().call_later(3, transport.close)
        told = f"{self.reach or self.address}:{transport.get_extra_info('sockname')[1]}"
        return web.json_response({"code": 0, "data": {"told": [told], "transaction": transaction.hex()}})


class _Responder(asyncio.DatagramProtocol):
    """Answers STUN binding requests with one transaction id."""

    def __init__(self, transaction: bytes) -> None:
        self._transaction = transaction

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if data[8:20] == self._transaction:
            self._transport.sendto(b"\x01\x01" + data[2:20], addr)
