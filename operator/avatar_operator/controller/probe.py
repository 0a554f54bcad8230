"""Asking a runtime who uses it, and telling it to refuse or take offers.

The contract is design §5. Stock LiveTalking has no /health and no drain
route: the session list stands in for the first, and a missing second is no error.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import Any

import aiohttp
import msgspec

from avatar_operator.domain.media import MOST, MediaReport
from avatar_operator.domain.view import Activity
from avatar_operator.runtimes import http
from avatar_operator.runtimes.http import UNREACHABLE, base_url

from .stun import answering

log = logging.getLogger(__name__)

# Whether a starting runtime serves is asked again soon.
READY_TIMEOUT = 1.0


class _Opened(msgspec.Struct):
    """What a runtime says of the UDP ports that it has opened for a probe; ``transaction``: 24 hex digits."""

    told: tuple[str, ...] = ()
    transaction: str = ""
    relay: str = ""
    relayed: bool = False


class RuntimeProbe:
    """HTTP to the runtimes; every call ends within http.TIMEOUT and raises nothing."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def activity(self, host: str, port: int) -> Activity:
        """How many sessions the runtime at ``host:port`` has, connecting ones included."""
        base = base_url(host, port)
        try:
            health = await http.ask(self._session, "GET", f"{base}/health")
            if health is None or not isinstance(health.get("sessions"), int):
                return await self._by_list(base)
            idle = health.get("idle_seconds")
            return Activity(
                datetime.now(UTC),
                max(0, health["sessions"]),
                float(idle) if isinstance(idle, (int, float)) else None,
                draining=health.get("status") == "draining",
                gpus=_gpus(health),
                frames=_count(health, "frames"),
                viewers=_count(health, "viewers") or 0,
                first_frame=_moment(health, "first_frame_at"),
            )
        except (*UNREACHABLE, ValueError) as error:
            return Activity(datetime.now(UTC), None, error=f"{base}/health: {type(error).__name__} {error}".strip())

    async def _by_list(self, base: str) -> Activity:
        sessions = await http.sessions(self._session, base)
        if sessions is None:
            return Activity(datetime.now(UTC), None, error=f"{base}: neither /health nor /api/admin/sessions counts")
        return Activity(datetime.now(UTC), len(sessions))

    async def serves(self, host: str, port: int, path: str) -> bool:
        """Whether ``path`` is answered with 2xx or 3xx; without a path, whether the port is open."""
        try:
            if not path:
                async with asyncio.timeout(READY_TIMEOUT):
                    _, writer = await asyncio.open_connection(host, port)
                writer.close()
                return True
            timeout = aiohttp.ClientTimeout(total=READY_TIMEOUT)
            async with self._session.get(
                f"{base_url(host, port)}{path}", timeout=timeout, allow_redirects=False
            ) as found:
                return found.status < 400
        except (*UNREACHABLE, ValueError):
            return False

    async def set_draining(self, host: str, port: int, *, draining: bool) -> str:
        """Why the runtime could not be reached; empty = told, or it has no such route (stock LiveTalking)."""
        url = f"{base_url(host, port)}/api/admin/drain"
        try:
            await http.ask(self._session, "POST", url, {"drain": draining})
        except ValueError as error:
            # It answers and cannot do it: no better and no worse than one without the route.
            log.warning("%s drain=%s: %s", url, draining, error)
        except UNREACHABLE as error:
            return f"{url}: {type(error).__name__} {error}".strip()
        return ""

    async def media(self, host: str, port: int) -> MediaReport:
        """Whether UDP reaches the runtime at ``host:port`` where it says that its peers should send it."""
        url = f"{base_url(host, port)}/api/admin/media"
        try:
            answer = await http.ask(self._session, "POST", url, {"open": True})
            now = datetime.now(UTC)
            data = answer.get("data") if answer is not None else None
            if not isinstance(data, dict):
                return MediaReport(now, supported=False)
            opened = msgspec.convert(data, _Opened)
            told = opened.told[:MOST]
            answered = await answering(told, bytes.fromhex(opened.transaction))
            return MediaReport(now, told, answered, opened.relay, opened.relayed)
        except (*UNREACHABLE, ValueError) as error:
            return MediaReport(datetime.now(UTC), error=f"{url}: {type(error).__name__} {error}".strip())


def _gpus(health: dict[str, Any]) -> tuple[str, ...] | None:
    """The UUIDs that the runtime sees; None when it does not tell."""
    seen = health.get("gpus")
    if not isinstance(seen, list) or not all(isinstance(uuid, str) for uuid in seen):
        return None
    return tuple(seen)


def _moment(health: dict[str, Any], name: str) -> datetime | None:
    """Seconds since the epoch that the runtime tells, as a moment; None when it tells none that could be one."""
    found = health.get(name)
    try:
        return datetime.fromtimestamp(found, UTC) if isinstance(found, (int, float)) and found > 0 else None
    except (ValueError, OverflowError, OSError):
        return None


def _count(health: dict[str, Any], name: str) -> int | None:
    """A number that the runtime tells; None when it does not."""
    found = health.get(name)
    return found if isinstance(found, int) and found >= 0 else None
