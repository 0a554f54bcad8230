"""STUN binding requests to UDP addresses: who answers (RFC 8489, without credentials)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ipaddress import ip_address

# A request is lost now and then, and a first packet waits for the neighbour's address.
TRIES = 3
EACH_SECONDS = 0.3
_HEADER = bytes.fromhex("000100002112a442")
_SUCCESS = bytes.fromhex("0101")


async def answering(addresses: Sequence[str], transaction: bytes) -> tuple[str, ...]:
    """Those of ``addresses`` ("192.0.2.7:50003", "[2001:db8::7]:50003") that answer a binding request in time.

    ``transaction`` (12 bytes) is the id that they expect. All are asked at the same
    time; it takes no longer than TRIES × EACH_SECONDS, and raises nothing.
    """
    answers = await asyncio.gather(*(_answers(a, _HEADER + transaction) for a in addresses))
    return tuple(a for a, answered in zip(addresses, answers, strict=True) if answered)


class _Asker(asyncio.DatagramProtocol):
    def __init__(self, request: bytes) -> None:
        self._wanted = _SUCCESS, request[4:20]
        self.answered = asyncio.Event()

    def datagram_received(self, data: bytes, addr: object) -> None:
        if (data[:2], data[4:20]) == self._wanted:
            self.answered.set()


async def _answers(address: str, request: bytes) -> bool:
    loop = asyncio.get_running_loop()
    try:
        host, _, port = address.rpartition(":")
        place = str(ip_address(host.strip("[]"))), int(port)
        transport, asker = await loop.create_datagram_endpoint(lambda: _Asker(request), remote_addr=place)
    except (OSError, ValueError):
        # No route of that family from here, or nothing that is an address.
        return False
    try:
        for _ in range(TRIES):
            transport.sendto(request)
            try:
                async with asyncio.timeout(EACH_SECONDS):
                    await asker.answered.wait()
                    return True
            except TimeoutError:
                continue
        return False
    finally:
        transport.close()
