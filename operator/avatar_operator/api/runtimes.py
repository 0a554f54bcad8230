"""Calls of runtimes on behalf of clients: few at a time to each, refusals as problems, connections kept."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from avatar_operator.domain.resources import Instance
from avatar_operator.domain.signalling import refusal
from avatar_operator.kube.errors import ApiError
from avatar_operator.runtimes import http
from avatar_operator.runtimes.http import UNREACHABLE

from .metrics import ApiMetrics
from .pods import Pods
from .problems import Problem, unavailable
from .starts import from_kube

log = logging.getLogger(__name__)

# Requests to one runtime at a time: the rest is told to come again, so that one that hangs takes nothing from others.
EACH = 32
TOTAL = 512
# LiveTalking builds a session (weights, pictures) before it answers an offer.
OFFER_TIMEOUT = aiohttp.ClientTimeout(total=25, connect=3)
TALK_TIMEOUT = aiohttp.ClientTimeout(total=10, connect=3)
AUDIO_TIMEOUT = aiohttp.ClientTimeout(total=60, connect=3)


def session() -> aiohttp.ClientSession:
    """The HTTP session for runtimes: its connections are kept and used again."""
    connector = aiohttp.TCPConnector(limit=TOTAL, limit_per_host=EACH, keepalive_timeout=15)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())


@dataclass(slots=True)
class Runtimes:
    """``call`` is for clients, ``listed`` for ourselves."""

    http: aiohttp.ClientSession
    pods: Pods
    metrics: ApiMetrics
    _under_way: Counter[str] = field(default_factory=Counter)

    async def call(
        self,
        item: Instance,
        route: str,
        *,
        json: object = None,
        data: aiohttp.FormData | None = None,
        timeout: aiohttp.ClientTimeout = TALK_TIMEOUT,
    ) -> dict[str, Any]:
        """POST to the runtime of an instance; its answer, or the Problem that the client is told."""
        name = item.metadata.name
        if self._under_way[name] >= EACH:
            self.metrics.limited.labels("runtime").inc()
            raise unavailable("too many requests for this avatar at once; try again", 1)
        self._under_way[name] += 1
        began = time.monotonic()
        try:
            return await self._call(item, route, json, data, timeout)
        finally:
            self.metrics.runtime_seconds.labels(route).observe(time.monotonic() - began)
            self._under_way[name] -= 1
            if not self._under_way[name]:
                del self._under_way[name]

    async def _call(
        self, item: Instance, route: str, json: object, data: aiohttp.FormData | None, timeout: aiohttp.ClientTimeout
    ) -> dict[str, Any]:
        base = await self._base(item)
        try:
            answer = await http.request(self.http, "POST", f"{base}{route}", json=json, data=data, timeout=timeout)
        except aiohttp.ClientConnectorError as error:
            raise self._unreachable(item, route, error) from error
        except TimeoutError as error:
            self.pods.forget(item)
            raise Problem(504, "the avatar's runtime did not answer in time; try again", retry_after=2) from error
        except (*UNREACHABLE, ValueError) as error:
            raise self._unreachable(item, route, error) from error
        found = answer.document
        refused = refusal(answer.status, found)
        if refused is not None:
            raise Problem(refused.code, refused.message, retry_after=refused.retry_after)
        return found or {}

    async def _base(self, item: Instance) -> str:
        try:
            base = await self.pods.runtime(item)
        except ApiError as error:
            raise from_kube(error) from error
        if base is None:
            raise unavailable("the avatar has no pod at this moment; try again", 2)
        return base

    def _unreachable(self, item: Instance, route: str, error: Exception) -> Problem:
        self.pods.forget(item)
        log.warning("runtime of %s: %s: %s %s", item.metadata.name, route, type(error).__name__, error)
        return Problem(502, "the avatar's runtime cannot be reached; try again", retry_after=2)

    async def hang_up(self, item: Instance, runtime_session: str) -> None:
        """Tell the runtime that a peer has gone; stock LiveTalking has no such route and finds out by itself."""
        try:
            await self.call(item, "/hangup", json={"sessionid": runtime_session}, timeout=http.TIMEOUT)
        except Problem as problem:
            log.debug("hang up %s: %s", runtime_session, problem.message)

    async def listed(self, item: Instance) -> list[dict[str, Any]] | None:
        """The sessions of an instance's runtime; None when nobody knows: unreachable, or a runtime without a list."""
        try:
            base = await self.pods.runtime(item)
            return None if base is None else await http.sessions(self.http, base)
        except (*UNREACHABLE, ValueError, ApiError) as error:
            self.pods.forget(item)
            log.debug("sessions of %s: %s %s", item.metadata.name, type(error).__name__, error)
            return None


async def addresses(host: str) -> list[str]:
    """The IP addresses of ``host``, which is one or a name; none when it cannot be resolved in two seconds."""
    if not host:
        return []
    try:
        async with asyncio.timeout(2):
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=1)
    except (OSError, TimeoutError, UnicodeError) as error:
        log.warning("status.media.host %r cannot be resolved: %s", host, error)
        return []
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
