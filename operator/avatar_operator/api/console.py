"""The web console: its files, and the stream of what it shows.

The files are built by ``scripts/console`` into ``bundle/`` beside this module. They hold nothing secret and need no
token; whatever they show comes through ``/console/live`` and the routes of the API, each with its token.
"""

from __future__ import annotations

import asyncio
import hashlib
import mimetypes
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from avatar_operator import __version__

from . import shapes
from .caller import Principal, Role
from .door import Door
from .edge import trail
from .feed import Feed
from .ice import Ice
from .metrics import ApiMetrics
from .problems import Problem, not_found
from .routes import path_id

BUNDLE = Path(__file__).parent / "bundle"
REMEDY = "the console has not been built: run scripts/console (images/build does, too), and start the API again"

STREAMS_MOST = 500
# A stream ends after so long (seconds, and a part of it more), and the page opens another: tokens end as well.
STREAM_SECONDS = 900.0
BEAT_SECONDS = 5.0

# Scripts and styles of our own files alone, nothing inline; the page may not be framed.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "media-src 'self' blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
PAGE_HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
IMMUTABLE = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class File:
    """One file of the bundle. ``immutable``: its name holds a hash of its content."""

    body: bytes
    kind: str
    tag: str
    immutable: bool


@dataclass(frozen=True, slots=True)
class Bundle:
    """The files by their path below /console/; empty: not built."""

    files: dict[str, File] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path = BUNDLE) -> Bundle:
        """Everything in a folder."""
        found: dict[str, File] = {}
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_file() and not path.name.startswith("."):
                body = path.read_bytes()
                kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
                kind += "; charset=utf-8" if kind.startswith("text/") else ""
                tag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
                found[name] = File(body, kind, tag, name.startswith("assets/"))
        return cls(found)


@dataclass(slots=True)
class Console:
    """Its routes. ``pool`` is where starts go that name none; ``alone``: there is no authentication."""

    feed: Feed
    door: Door
    ice: Ice
    closing: asyncio.Event
    metrics: ApiMetrics
    now: Callable[[], datetime]
    pool: str = "default"
    alone: bool = False
    bundle: Bundle = field(default_factory=Bundle)
    streams: int = 0

    async def root(self, request: Request) -> Response:
        """/console: what the page loads is relative to /console/."""
        trail(request.scope).route = "console"
        # Relative, too: there may be a proxy with a path of its own in front.
        return Response(status_code=307, headers={"Location": "console/"})

    async def file(self, request: Request) -> Response:
        """One file of the bundle."""
        trail(request.scope).route = "console"
        if not self.bundle.files:
            raise not_found(REMEDY)
        found = self.bundle.files.get(request.path_params["path"] or "index.html")
        if found is None:
            raise not_found("the console has no such file; it may have been replaced by a newer version: load it anew")
        caching = IMMUTABLE if found.immutable else "no-cache"
        headers = {"Cache-Control": caching, "ETag": found.tag, **PAGE_HEADERS}
        if request.headers.get("if-none-match") == found.tag:
            return Response(status_code=304, headers=headers)
        return Response(found.body, headers=headers, media_type=found.kind)

    async def ice_servers(self, request: Request) -> Response:
        """What a page needs before it makes an offer to this instance: RTCIceServers with credentials of its own."""
        who, path = await self.door.enter(request, "console-ice", Role.USER)
        await self.door.limit(who, "offers")
        text = path_id(request, "name")
        path.facts |= {"avatar_id": text}
        world = self.feed.world
        item = world.instance(text)
        pool = world.pool(item.spec.pool_ref) if item is not None else None
        if pool is None:
            raise not_found(f"there is no instance {text!r}")
        found = await self.ice.servers(pool, who.subject or "console", self.now())
        servers = [shapes.Ice(s.urls, s.username, s.credential) for s in found]
        return Response(msgspec.json.encode({"ice_servers": servers}), media_type="application/json")

    async def live(self, request: Request) -> Response:
        """Everything there is, then what changes, as server-sent events."""
        who, _ = await self.door.enter(request, "console-live", Role.VIEWER)
        if self.streams >= STREAMS_MOST:
            self.metrics.limited.labels("streams").inc()
            raise Problem(503, "too many consoles are open at once; try again", retry_after=10)
        return StreamingResponse(self._stream(who), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})

    async def _stream(self, who: Principal) -> AsyncIterator[bytes]:
        self.streams += 1
        seconds = STREAM_SECONDS * random.uniform(1, 1.2)  # noqa: S311 - spreads load
        deadline = self.now() + timedelta(seconds=seconds)
        version = 0
        try:
            with self.metrics.streams.track_inprogress(), self.feed.watching() as board:
                yield _event("hello", self._hello(who))
                while self.now() < deadline and not self.closing.is_set():
                    told = board.since(version)
                    version = board.version
                    change = {"now": _utc(self.now()), "trouble": self._trouble(), "set": told.set, "gone": told.gone}
                    yield _event("snapshot" if told.whole else "change", change)
                    await self.feed.news(BEAT_SECONDS)
        finally:
            self.streams -= 1

    def _hello(self, who: Principal) -> dict[str, Any]:
        return {
            "version": __version__,
            "namespace": self.feed.world.namespace,
            "pool": self.pool,
            "subject": who.subject,
            "role": who.role.name.lower(),
            "open": self.alone,
            "beat_seconds": BEAT_SECONDS,
        }

    def _trouble(self) -> str:
        """Why what is told may be out of date; empty: it is not."""
        return next((copy.trouble for copy in self.feed.world.reflectors.values() if copy.trouble), "")


def _utc(when: datetime) -> datetime:
    return when.astimezone(UTC)


def _event(name: str, data: object) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode(data) + b"\n\n"
