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

from avatar_operator.domain.view import Activity

log = logging.getLogger(__name__)

# LiveTalking joins render threads on its event loop (about a second each), so
# an answer may take a while (research: runtime 2.3).
TIMEOUT = aiohttp.ClientTimeout(total=4, connect=2)
BODY_LIMIT = 1 << 20
# Whether a starting runtime serves is asked again soon.
READY_TIMEOUT = 1.0


class RuntimeProbe:
    """HTTP to the runtimes; every call ends within TIMEOUT and raises nothing."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def activity(self, host: str, port: int) -> Activity:
        """How many sessions the runtime at ``host:port`` has, connecting ones included."""
        base = _base(host, port)
        try:
            health = await self._json("GET", f"{base}/health")
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
            )
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return Activity(datetime.now(UTC), None, error=f"{base}/health: {type(error).__name__} {error}".strip())

    async def _by_list(self, base: str) -> Activity:
        listed = await self._json("GET", f"{base}/api/admin/sessions")
        data = listed.get("data") if listed else None
        sessions = data.get("sessions") if isinstance(data, dict) else None
        if not isinstance(sessions, list):
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
            async with self._session.get(f"{_base(host, port)}{path}", timeout=timeout, allow_redirects=False) as found:
                return found.status < 400
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return False

    async def set_draining(self, host: str, port: int, *, draining: bool) -> str:
        """Why the runtime could not be reached; empty = told, or it has no such route (stock LiveTalking)."""
        url = f"{_base(host, port)}/api/admin/drain"
        try:
            await self._json("POST", url, {"drain": draining})
        except ValueError as error:
            # It answers and cannot do it: no better and no worse than one without the route.
            log.warning("%s drain=%s: %s", url, draining, error)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return f"{url}: {type(error).__name__} {error}".strip()
        return ""

    async def _json(self, verb: str, url: str, body: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """The answer as an object; None for 404 and 405 (the route is not there)."""
        async with self._session.request(verb, url, json=body, timeout=TIMEOUT, allow_redirects=False) as response:
            if response.status in (404, 405):
                return None
            if (response.content_length or 0) > BODY_LIMIT:
                raise ValueError(f"the answer has {response.content_length} bytes")
            content = await response.read()
            if response.status >= 400:
                raise ValueError(f"HTTP {response.status}")
            found = msgspec.json.decode(content)
            if not isinstance(found, dict):
                raise ValueError("the answer is not a JSON object")  # noqa: TRY004 - it came over the wire
            return found


def _base(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _gpus(health: dict[str, Any]) -> tuple[str, ...] | None:
    """The UUIDs that the runtime sees; None when it does not tell."""
    seen = health.get("gpus")
    if not isinstance(seen, list) or not all(isinstance(uuid, str) for uuid in seen):
        return None
    return tuple(seen)


def _count(health: dict[str, Any], name: str) -> int | None:
    """A number that the runtime tells; None when it does not."""
    found = health.get(name)
    return found if isinstance(found, int) and found >= 0 else None
