"""What every request passes before and after its route: ids, limits, origins, errors, the audit line.

Plain ASGI around the application. Whatever goes wrong inside, the answer is
JSON in the shape of all errors.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .auth import is_loopback
from .metrics import ApiMetrics
from .problems import Problem

log = logging.getLogger(__name__)
audit_log = logging.getLogger("avatar_operator.audit")

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
IN_FLIGHT_MOST = 6000
INTERNAL = "internal error; its request id is {}"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_FIXED_HEADERS = ((b"x-content-type-options", b"nosniff"),)
_UNCACHED = (b"cache-control", b"no-store")
_EXPOSED = b"X-Request-ID, Retry-After, Location, Link"


@dataclass(slots=True)
class Trail:
    """What is known of a request when its audit line is written."""

    request_id: str
    address: str
    route: str = "none"
    subject: str = ""
    role: str = ""
    facts: dict[str, object] = field(default_factory=dict)


def trail(scope: Any) -> Trail:
    """The trail of the request with this scope."""
    found = scope["avatar.trail"]
    if not isinstance(found, Trail):
        raise TypeError("the request did not come through the edge")
    return found


def error_body(message: str) -> bytes:
    """The body of every error."""
    # It may repeat what came in, half a surrogate pair included.
    message = message.encode("utf-8", "replace").decode()
    return msgspec.json.encode({"status": "error", "message": message})


class Edge:
    """``origins``: those whose pages may use the API. ``local``: authentication is off, so only this machine may."""

    def __init__(
        self, app: ASGIApp, metrics: ApiMetrics, origins: Collection[str] = (), *, local: bool = False
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._origins = frozenset(origins)
        self._local = local
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return
        began = time.monotonic()
        headers = {k: v for k, v in scope["headers"] if k in (b"x-request-id", b"origin", b"host")}
        address = scope["client"][0] if scope.get("client") else ""
        found = Trail(_request_id(headers.get(b"x-request-id", b"")), address)
        scope["avatar.trail"] = found
        answer = _Answer(send, found.request_id, self._allowed(headers.get(b"origin")))
        self._in_flight += 1
        try:
            await self._pass(scope, receive, answer, headers)
        finally:
            self._in_flight -= 1
            seconds = time.monotonic() - began
            self._metrics.requests.labels(found.route, str(answer.code or 499)).inc()
            self._metrics.seconds.labels(found.route).observe(seconds)
            if scope["method"] not in SAFE_METHODS and audit_log.isEnabledFor(logging.INFO):
                _audit(scope, found, answer.code, seconds)

    async def _pass(self, scope: Scope, receive: Receive, answer: _Answer, headers: dict[bytes, bytes]) -> None:
        try:
            self._check(scope, headers)
            if scope["method"] == "OPTIONS" and b"origin" in headers:
                await answer.preflight(_asked(scope))
                return
            await self._app(scope, receive, answer)
        except Problem as problem:
            await answer.problem(problem)
        except Exception:
            log.exception("request failed", extra={"request_id": answer.request_id, "route": trail(scope).route})
            if not answer.code:
                await answer.problem(Problem(500, INTERNAL.format(answer.request_id)))

    def _check(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        if self._in_flight > IN_FLIGHT_MOST:
            self._metrics.limited.labels("in-flight").inc()
            raise Problem(503, "too many requests at once; try again", retry_after=1)
        origin = headers.get(b"origin")
        foreign = origin is not None and self._allowed(origin) is None and not _is_own(scope, origin, headers)
        # A page of somebody else's may make a browser send a request though it may not read the answer.
        if foreign and (scope["method"] not in SAFE_METHODS or scope["method"] == "OPTIONS"):
            raise Problem(403, "this origin may not use the API (--cors-origin)")
        if self._local and not _is_local(headers.get(b"host", b"")):
            # A name that somebody else's DNS points here makes a page look like ours.
            raise Problem(403, "without authentication the server answers to localhost only")

    def _allowed(self, origin: bytes | None) -> bytes | None:
        if origin is None:
            return None
        text = origin.decode("latin-1")
        return origin if text in self._origins else b"*" if "*" in self._origins else None


@dataclass(slots=True)
class _Answer:
    """``send``, with the headers that all answers have."""

    send: Send
    request_id: str
    origin: bytes | None
    code: int = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.code = message["status"]
            given = list(message.get("headers", ()))
            # The console's files may be kept; what the API answers may not.
            cached = () if any(name == b"cache-control" for name, _ in given) else (_UNCACHED,)
            message = {**message, "headers": [*given, *cached, *self.headers()]}
        await self.send(message)

    def headers(self) -> Iterable[tuple[bytes, bytes]]:
        yield (b"x-request-id", self.request_id.encode())
        yield from _FIXED_HEADERS
        if self.origin is not None:
            yield (b"access-control-allow-origin", self.origin)
            yield (b"access-control-expose-headers", _EXPOSED)
            yield (b"vary", b"Origin")

    async def problem(self, problem: Problem) -> None:
        body = error_body(problem.message)
        extra = [(k.lower().encode(), v.encode("latin-1", "replace")) for k, v in problem.headers.items()]
        await self.whole(problem.code, body, [(b"content-type", b"application/json"), *extra])

    async def preflight(self, asked: bytes) -> None:
        await self.whole(
            204,
            b"",
            [
                (b"access-control-allow-methods", b"GET, POST, PATCH, DELETE"),
                (b"access-control-allow-headers", asked or b"Authorization, Content-Type"),
                (b"access-control-max-age", b"600"),
            ],
        )

    async def whole(self, code: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        length = [(b"content-length", str(len(body)).encode())] if code != 204 else []
        await self({"type": "http.response.start", "status": code, "headers": [*headers, *length]})
        await self.send({"type": "http.response.body", "body": body})


def _asked(scope: Scope) -> bytes:
    """The headers that a preflight asks for, if they are plain names."""
    found: bytes = next((v for k, v in scope["headers"] if k == b"access-control-request-headers"), b"")
    return found if re.fullmatch(rb"[A-Za-z0-9, -]{1,300}", found) else b""


def _request_id(given: bytes) -> str:
    text = given.decode("latin-1")
    return text if REQUEST_ID.fullmatch(text) else uuid.uuid4().hex


def _is_own(scope: Scope, origin: bytes, headers: dict[bytes, bytes]) -> bool:
    scheme: str = scope.get("scheme", "http")
    return origin == scheme.encode() + b"://" + headers.get(b"host", b"")


def _is_local(host: bytes) -> bool:
    try:
        name = urlsplit(f"//{host.decode('latin-1')}").hostname
    except ValueError:
        return False
    return is_loopback(name or "")


def plain(value: object) -> object:
    """A value that cannot break out of a line of a log."""
    if isinstance(value, str):
        return value if value.isprintable() else value.encode("unicode_escape").decode()
    return value


def _audit(scope: Scope, found: Trail, code: int, seconds: float) -> None:
    known = {
        "request_id": found.request_id,
        "subject": found.subject or "-",
        "role": found.role,
        "address": found.address,
        "code": code,
        "seconds": round(seconds, 4),
        **found.facts,
    }
    audit_log.info(found.route if found.route != "none" else "refused", extra={k: plain(v) for k, v in known.items()})
