"""The addresses that peers are told, where the pod's own are not the ones that they reach."""

import asyncio
import logging
import socket
import time
from collections.abc import Sequence
from copy import copy
from ipaddress import IPv4Address, IPv6Address, ip_address

from aiortc import RTCIceCandidate
from aiortc.sdp import SessionDescription

log = logging.getLogger("avatar_runtime")

LOOKUP = 1.0
"""Most seconds that an offer waits for a name."""

KEPT = 60.0
STEP = 1 << 8
"""One step of ICE's local preference: a second address of a socket comes after the first."""

Address = IPv4Address | IPv6Address


class MediaHost:
    """What ``AVATAR_MEDIA_HOST`` says: addresses, or a name whose addresses may change."""

    def __init__(self, hosts: Sequence[str]) -> None:
        self._hosts = tuple(hosts)
        self._known: list[Address] = []
        self._until = 0.0

    async def addresses(self) -> list[Address]:
        """The addresses to tell, in order; none = the own ones. A name that cannot be looked up keeps its last ones."""
        if time.monotonic() >= self._until:
            found = [await self._look_up(host) for host in self._hosts]
            if all(found):
                self._known = list(dict.fromkeys(a for some in found for a in some))
            self._until = time.monotonic() + KEPT
        return self._known

    async def _look_up(self, host: str) -> list[Address]:
        try:
            return [ip_address(host)]
        except ValueError:
            pass
        try:
            async with asyncio.timeout(LOOKUP):
                infos = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_DGRAM)
        except (OSError, TimeoutError) as error:
            log.warning("AVATAR_MEDIA_HOST=%s cannot be looked up, peers are told other addresses: %s", host, error)
            return []
        return [ip_address(info[4][0]) for info in infos]


def told(sdp: str, addresses: Sequence[Address]) -> str:
    """The answer ``sdp`` with ``addresses`` in place of the private ones of its host candidates."""
    if not addresses:
        return sdp
    description = SessionDescription.parse(sdp)
    for media in description.media:
        candidates: dict[tuple[object, ...], RTCIceCandidate] = {}
        for candidate in media.ice_candidates:
            instead = in_place_of(candidate.ip, addresses) if candidate.type == "host" else []
            for number, address in enumerate(instead or [candidate.ip]):
                one = copy(candidate)
                one.ip, one.priority = str(address), max(1, candidate.priority - number * STEP)
                # Sockets on several private addresses may have the same port: that is one place outside.
                candidates.setdefault((one.component, one.protocol, one.ip, one.port, one.type), one)
        media.ice_candidates = list(candidates.values())
        media.host = str(next(iter(in_place_of(media.host or "", addresses)), media.host or "")) or None
    return str(description)


def in_place_of(own: str, addresses: Sequence[Address]) -> list[Address]:
    """The addresses to tell in place of ``own``; none when it is no private one, or there is none of its family."""
    try:
        address = ip_address(own)
    except ValueError:
        return []
    private = not (address.is_global or address.is_unspecified or address.is_loopback or address.is_link_local)
    if not private or address in addresses:
        return []
    return [a for a in addresses if a.version == address.version]


def written(host: Address | str, port: int) -> str:
    """``192.0.2.7:50003`` or ``[2001:db8::7]:50003``."""
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
