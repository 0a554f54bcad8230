"""The STUN and TURN servers that a session is given: those that answer now.

The ICE agent waits 5 s for a server that does not answer, and whoever has sent
an offer waits with it. So each server is asked apart from the offer, for half a
second at most, and one that is silent is left out until it answers again.
"""

import asyncio
import base64
import hashlib
import hmac
import logging
import socket
import time
from dataclasses import dataclass, replace
from pathlib import Path

from aioice import stun
from aiortc.rtcicetransport import parse_stun_turn_uri

from avatar_runtime.config import IceServer

log = logging.getLogger("avatar_runtime")

CHECK = 0.5
"""Most seconds that an offer waits for servers of which nothing is known."""

GOOD = 10.0
BAD = 30.0
"""Seconds for which an answer, or its absence, is believed."""

RESEND = 0.2
CREDENTIAL_SECONDS = 86400
"""Credentials are made anew for every session and leave the pod only towards the TURN server."""


@dataclass
class _Server:
    uri: str
    username: str
    credential: str
    scheme: str
    host: str
    port: int
    transport: str
    reachable: bool | None = None
    until: float = 0.0
    check: asyncio.Task[None] | None = None


class IceServers:
    """The servers of the command line and the environment; one whose address cannot be read is left out."""

    def __init__(self, servers: tuple[IceServer, ...], secret_file: Path | None = None) -> None:
        parsed = (_parsed(s, uri) for s in servers for uri in s.urls)
        self._servers = [s for s in parsed if s is not None]
        self._secret_file = secret_file

    async def usable(self) -> list[IceServer]:
        """The first STUN and the first TURN server that answer, each by one URI: the ICE agent takes one of each."""
        await self._look()
        found = []
        for kind in ("stun", "turn"):
            server = next((s for s in self._servers if s.scheme.startswith(kind) and s.reachable), None)
            if server is not None:
                found.append(IceServer((server.uri,), server.username, server.credential))
        return [self._with_credentials(s) for s in found]

    async def close(self) -> None:
        """End what is still being asked."""
        checks = [s.check for s in self._servers if s.check is not None]
        for check in checks:
            check.cancel()
        await asyncio.gather(*checks, return_exceptions=True)

    async def _look(self) -> None:
        """Ask those of whom nothing is known now; wait for those that may answer, not for those known to be silent."""
        now = time.monotonic()
        waiting = []
        for server in self._servers:
            if now < server.until:
                continue
            if server.check is None or server.check.done():
                server.check = asyncio.create_task(self._check(server))
            if server.reachable is not False:
                waiting.append(server.check)
        if waiting:
            await asyncio.wait(waiting)

    async def _check(self, server: _Server) -> None:
        try:
            async with asyncio.timeout(CHECK):
                await (_bind(server) if server.transport == "udp" else _connect(server))
            reachable = True
        except (OSError, TimeoutError):
            reachable = False
        if reachable is not server.reachable:
            log.log(
                logging.INFO if reachable else logging.WARNING,
                "ice server=%s %s", server.uri, "answers" if reachable else "does not answer: sessions go without it",
            )  # fmt: skip
        server.reachable = reachable
        server.until = time.monotonic() + (GOOD if reachable else BAD)

    def _with_credentials(self, server: IceServer) -> IceServer:
        """A TURN server without credentials gets some by the shared secret (TURN REST convention)."""
        if server.username or not server.urls[0].startswith("turn") or self._secret_file is None:
            return server
        try:
            # At each use: Kubernetes replaces the file when the Secret changes.
            secret = self._secret_file.read_bytes().strip()
        except OSError as error:
            log.warning("no TURN credentials: %s", error)
            return server
        name = f"{int(time.time()) + CREDENTIAL_SECONDS}:{socket.gethostname()}"
        password = base64.b64encode(hmac.new(secret, name.encode(), hashlib.sha1).digest()).decode()
        return replace(server, username=name, credential=password)


def _parsed(server: IceServer, uri: str) -> _Server | None:
    try:
        parts = parse_stun_turn_uri(uri)
    except ValueError as error:
        # A browser may understand it all the same: it is no reason not to serve.
        log.warning("ice server=%r: %s; use stun:host:port or turn:host:port?transport=udp", uri, error)
        return None
    if parts["scheme"] == "stuns":
        # None of the ICE agent's.
        return None
    transport = parts.get("transport", "udp")
    return _Server(uri, server.username, server.credential, parts["scheme"], parts["host"], parts["port"], transport)


async def _connect(server: _Server) -> None:
    _, writer = await asyncio.open_connection(server.host, server.port)
    writer.close()


class _Asker(asyncio.DatagramProtocol):
    def __init__(self, transaction: bytes) -> None:
        self._transaction = transaction
        self.answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: object) -> None:
        if data[8:20] == self._transaction and not self.answer.done():
            self.answer.set_result(None)

    def error_received(self, exc: Exception) -> None:
        # Nobody listens there: that is known sooner than by waiting.
        if not self.answer.done():
            self.answer.set_exception(exc)


async def _bind(server: _Server) -> None:
    """Have a binding request answered; TURN servers answer them as well, and without credentials."""
    request = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
    loop = asyncio.get_running_loop()
    transport, asker = await loop.create_datagram_endpoint(
        lambda: _Asker(request.transaction_id), remote_addr=(server.host, server.port)
    )
    try:
        while True:
            transport.sendto(bytes(request))
            done, _ = await asyncio.wait([asker.answer], timeout=RESEND)
            if done:
                return asker.answer.result()
    finally:
        transport.close()
        asker.answer.cancel()
