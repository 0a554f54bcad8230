"""UDP ports that are open for a moment, so that somebody outside can find out whether media would come through.

They answer STUN binding requests with one secret transaction id and nothing
else. Through a TURN server the runtime asks itself: that is the way of a
client which relays, and nobody else has to hold credentials for it.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from aioice import ice, stun, turn
from aiortc.rtcicetransport import parse_stun_turn_uri

from avatar_runtime.addresses import MediaHost, in_place_of, written
from avatar_runtime.config import IceServer

log = logging.getLogger("avatar_runtime")

OPEN = 3.0
"""Seconds for which the ports stay open; who asks has to come within them."""

RELAY = 1.5
"""Most seconds for an allocation on the TURN server, and again for the way back."""

RESEND = 0.3


@dataclass(frozen=True)
class Opened:
    """What stands open. ``told``: host:port as peers are told; ``relayed``: whether ``relay`` led back to here."""

    told: list[str]
    transaction: str
    relay: str = ""
    relayed: bool = False


class Reach:
    """Opens ports on request; ``servers`` are those that sessions could use now."""

    def __init__(self, host: MediaHost, servers: Callable[[], Awaitable[list[IceServer]]]) -> None:
        self._host = host
        self._servers = servers
        self._lock = asyncio.Lock()
        self._open: list[asyncio.DatagramTransport] = []

    async def open(self) -> Opened:
        """Open a port on each address of this pod, and try the TURN server."""
        async with self._lock:
            # One set at a time: the pod may have a window of a few ports only.
            self.close()
            transaction = os.urandom(12)
            places = [await self._listen(address, transaction) for address in ice.get_host_addresses(True, True)]
            told = [place for some in places for place in some]
            asyncio.get_running_loop().call_later(OPEN, _close, self._open)
            server = next((s for s in await self._servers() if s.urls[0].startswith("turn") and s.credential), None)
            if server is None:
                return Opened([written(*place) for place in told], transaction.hex())
            relayed = await _through(server, told, transaction)
            return Opened([written(*place) for place in told], transaction.hex(), server.urls[0], relayed)

    def close(self) -> None:
        """Close what is open."""
        _close(self._open)
        self._open = []

    async def _listen(self, address: str, transaction: bytes) -> list[tuple[str, int]]:
        try:
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: _Responder(transaction), local_addr=(address, 0)
            )
        except OSError as error:
            log.warning("no UDP port on %s: %s", address, error)
            return []
        self._open.append(transport)
        port = transport.get_extra_info("sockname")[1]
        instead = in_place_of(address, await self._host.addresses())
        return [(str(a), port) for a in instead or [ip_address(address)]]


def _close(transports: list[asyncio.DatagramTransport]) -> None:
    for transport in transports:
        transport.close()


class _Responder(asyncio.DatagramProtocol):
    """Answers binding requests with the one transaction id; says nothing to anything else."""

    def __init__(self, transaction: bytes) -> None:
        self._transaction = transaction
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        if data[:2] != b"\x00\x01" or data[8:20] != self._transaction:
            return
        answer = stun.Message(
            message_method=stun.Method.BINDING,
            message_class=stun.Class.RESPONSE,
            transaction_id=self._transaction,
        )
        answer.attributes["XOR-MAPPED-ADDRESS"] = (addr[0], addr[1])
        self._transport.sendto(bytes(answer), addr)


class _Asker(asyncio.DatagramProtocol):
    """The relay's end of the way: hears the answer."""

    def __init__(self, transaction: bytes) -> None:
        self._transaction = transaction
        self.transport: Any = None
        self.answered = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: object) -> None:
        if data[:2] == b"\x01\x01" and data[8:20] == self._transaction:
            self.answered.set()


async def _through(server: IceServer, places: list[tuple[str, int]], transaction: bytes) -> bool:
    """Whether a request that leaves by the TURN server's relayed address comes to one of ``places`` and back."""
    parts = parse_stun_turn_uri(server.urls[0])
    request = stun.Message(
        message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST, transaction_id=transaction
    )
    try:
        async with asyncio.timeout(RELAY):
            transport, asker = await turn.create_turn_endpoint(
                lambda: _Asker(transaction),
                server_addr=(parts["host"], parts["port"]),
                username=server.username,
                password=server.credential,
                ssl=parts["scheme"] == "turns" or None,
                transport=parts["transport"],
            )
    except (OSError, TimeoutError, stun.TransactionError, ConnectionError) as error:
        log.warning("no relay on %s: %s %s", server.urls[0], type(error).__name__, error)
        return False
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RELAY):
                # A relayed address is of one family; an IPv4 one, unless somebody asked for another.
                while not asker.answered.is_set():
                    for place in places:
                        if ":" not in place[0]:
                            transport.sendto(bytes(request), place)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(RESEND):
                            await asker.answered.wait()
        return asker.answered.is_set()
    finally:
        transport.close()
