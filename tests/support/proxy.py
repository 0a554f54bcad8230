"""A reverse proxy in front of the API server that counts, refuses, delays, cuts, and kills.

The operator's kubeconfig points here. Everything passes unchanged (tokens, watches) but what a test asked for.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp
import yaml
from aiohttp import web

from avatar_operator.kube.credentials import from_kubeconfig

_VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_HOP = {"host", "connection", "transfer-encoding", "content-length", "keep-alive"}


@dataclass
class Call:
    """One request of the operator. ``code`` is the answer's status, 0 = none was given; ``at`` is monotonic."""

    verb: str
    resource: str
    namespace: str
    name: str
    subresource: str
    body: Any
    agent: str
    code: int = 0
    at: float = field(default_factory=time.monotonic)

    @property
    def writes(self) -> bool:
        """Whether it changes something."""
        return self.verb not in ("get", "list", "watch")

    @property
    def phase(self) -> str:
        """The phase that a status patch sets, if it does."""
        if isinstance(self.body, list):
            sets = (one for one in self.body if (one["op"], one["path"]) == ("add", "/status/phase"))
            return next((str(one["value"]) for one in sets), "")
        status = self.body.get("status") if isinstance(self.body, dict) else None
        return str(status.get("phase", "")) if isinstance(status, dict) else ""

    def __str__(self) -> str:
        target = "/".join(part for part in (self.resource, self.name, self.subresource) if part)
        return f"{self.verb} {target}{f' phase={self.phase}' if self.phase else ''} → {self.code}"


Match = Callable[[Call], bool]


def matching(verb: str = "", resource: str = "", phase: str = "") -> Match:
    """A match by verb, resource and the phase that a status patch sets; an empty one matches all."""
    return lambda call: (
        verb in ("", call.verb) and resource in ("", call.resource) and (not phase or call.phase == phase)
    )


@dataclass
class Rule:
    """What to do with calls that match, ``times`` times (-1 = always)."""

    match: Match
    act: Callable[[Call], Awaitable[web.StreamResponse | None]]
    times: int = 1
    hits: int = 0


@dataclass
class _Stream:
    """A watch that is open. ``tear``: the next thing told is cut in the middle, and the connection with it."""

    call: Call
    request: web.Request
    stalled: bool = False
    tear: bool = False


@dataclass
class Proxy:
    """Use as ``async with Proxy(kubeconfig)``; ``calls`` grows, ``rules`` may be changed at any time."""

    upstream: Path
    calls: list[Call] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    killed: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0

    def __post_init__(self) -> None:
        self._found = from_kubeconfig(self.upstream)
        self._streams: list[_Stream] = []
        self._after: list[tuple[Match, Callable[[], None]]] = []
        self._stall_new = False
        self._late: tuple[Match, float] = (lambda call: False, 0.0)
        self._lost: list[Rule] = []
        self._lists: dict[str, tuple[bytes, dict[str, str]]] = {}
        self._stale = False

    async def __aenter__(self) -> Self:
        tls: Any = self._found.tls if self._found.tls is not None else True
        connector = aiohttp.TCPConnector(limit=0, ssl=tls)
        self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        app = web.Application(client_max_size=1 << 26)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = int(self._runner.addresses[0][1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut_watches()
        await self._runner.cleanup()
        await self._session.close()

    def kubeconfig(self, path: Path) -> Path:
        """Write a kubeconfig that leads here with the same credentials."""
        config = yaml.safe_load(self.upstream.read_text())
        for cluster in config["clusters"]:
            cluster["cluster"] = {"server": f"http://127.0.0.1:{self.port}"}
        path.write_text(json.dumps(config))
        return path

    # ---- what tests ask for --------------------------------------------------------------

    def writes(self, *resources: str) -> list[Call]:
        """The writes so far, of the resources named (default: all but events)."""
        wanted = [c for c in self.calls if c.writes and c.resource != "events"]
        return [c for c in wanted if c.resource in resources] if resources else wanted

    def refuse(
        self, match: Match, status: int, *, times: int = 1, retry_after: int | None = None, reason: str = "Injected"
    ) -> Rule:
        """Answer with an error instead of forwarding."""

        async def act(_: Call) -> web.Response:
            headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
            body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status, "reason": reason}
            return web.json_response({**body, "message": "injected"}, status=status, headers=headers)

        return self._rule(Rule(match, act, times))

    def delay(self, match: Match, seconds: float, *, times: int = -1) -> Rule:
        """Forward later."""

        async def act(_: Call) -> None:
            await asyncio.sleep(seconds)

        return self._rule(Rule(match, act, times))

    def delay_answers(self, match: Match, seconds: float) -> None:
        """Forward at once, answer later: the watch tells of a write before its answer does."""
        self._late = (match, seconds)

    def before(self, match: Match, do: Callable[[Call], Awaitable[None]], *, times: int = 1) -> Rule:
        """Do something (as another client would) right before a call is forwarded."""

        async def act(call: Call) -> None:
            await do(call)

        return self._rule(Rule(match, act, times))

    def kill_at(self, match: Match, when: str, kill: Callable[[], None]) -> None:
        """``when`` "before" forwarding the next matching call, or "after" it was answered, call ``kill``."""
        self.killed.clear()
        if when == "after":
            self._after.append((match, kill))
            return

        async def act(_: Call) -> web.Response:
            kill()
            self.killed.set()
            return web.Response(status=502)

        self._rule(Rule(match, act))

    def expire_watches(self, times: int) -> None:
        """The next watches hear at once that their resourceVersion is too old, as the API server says it."""

        async def act(_: Call) -> web.Response:
            status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410, "reason": "Expired"}
            return web.json_response({"type": "ERROR", "object": {**status, "message": "too old resource version"}})

        self._rule(Rule(lambda call: call.verb == "watch", act, times))

    def cut_watches(self, resource: str = "") -> int:
        """Break the watches that are open, in the middle of the stream; how many."""
        cut = [s for s in self._streams if resource in ("", s.call.resource)]
        for stream in cut:
            _break_off(stream.request)
        return len(cut)

    def lose_answers(self, match: Match, times: int = 1) -> Rule:
        """Forward, and break the connection instead of answering: who asked cannot know whether it was done."""

        async def act(_: Call) -> None:
            """Nothing before; the rule counts the hits."""

        rule = Rule(match, act, times)
        self._lost.append(rule)
        return rule

    def tear_watches(self, resource: str = "") -> None:
        """The next event of each open watch comes half; then the connection breaks."""
        for stream in self._streams:
            if resource in ("", stream.call.resource):
                stream.tear = True

    def stale_lists(self, *, on: bool) -> None:
        """From now on lists that were asked for before are answered as they were then, as a cache behind would."""
        self._stale = on

    def heal(self) -> None:
        """End every fault; what is stalled is cut."""
        self.rules.clear()
        self._lost.clear()
        self._after.clear()
        self._late = (lambda call: False, 0.0)
        self._stale = False
        for stream in self._streams:
            stream.tear = False
        self.unstall()

    def stall_watches(self, resource: str = "", *, new: bool = True) -> None:
        """Half-open: the connection stays, nothing comes any more; ``new`` watches hear nothing either."""
        self._stall_new = new
        for stream in self._streams:
            if resource in ("", stream.call.resource):
                stream.stalled = True

    def unstall(self) -> None:
        """New watches work again; the stalled ones are cut."""
        self._stall_new = False
        for stream in self._streams:
            if stream.stalled:
                _break_off(stream.request)

    def _rule(self, rule: Rule) -> Rule:
        self.rules.append(rule)
        return rule

    # ---- passing on ----------------------------------------------------------------------

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        call = _parse(request, body)
        self.calls.append(call)
        for rule in list(self.rules):
            if rule.times != 0 and rule.match(call):
                rule.times -= 1
                rule.hits += 1
                answer = await rule.act(call)
                if answer is not None:
                    call.code = answer.status
                    return answer
        # The same list may be asked for as whole objects and as their metadata.
        listed = f"{request.path_qs} {request.headers.get('Accept', '')}"
        if self._stale and call.verb == "list" and listed in self._lists:
            content, kept = self._lists[listed]
            call.code = 200
            return web.Response(body=content, headers=kept)
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOP}
        url = self._found.server.rstrip("/") + request.path_qs
        try:
            async with self._session.request(
                request.method, url, data=body or None, headers=headers, timeout=aiohttp.ClientTimeout(total=None)
            ) as upstream:
                call.code = upstream.status
                kept = {k: v for k, v in upstream.headers.items() if k.lower() not in _HOP}
                if call.verb == "watch" and upstream.status == 200:
                    return await self._stream(request, call, upstream, kept)
                content = await upstream.read()
        except aiohttp.ClientError:
            # The API server itself is away: nobody answers, an error of the proxy's own least of all.
            _break_off(request)
            return web.Response(status=502)
        if call.verb == "list" and call.code == 200:
            self._lists[listed] = (content, kept)
        if self._late[0](call):
            await asyncio.sleep(self._late[1])
        for item in list(self._after):
            match, kill = item
            if match(call):
                self._after.remove(item)
                kill()
                self.killed.set()
        if self._loses(call):
            _break_off(request)
        return web.Response(status=call.code, body=content, headers=kept)

    def _loses(self, call: Call) -> bool:
        for rule in self._lost:
            if rule.times != 0 and rule.match(call):
                rule.times -= 1
                rule.hits += 1
                return True
        return False

    async def _stream(
        self, request: web.Request, call: Call, upstream: aiohttp.ClientResponse, headers: dict[str, str]
    ) -> web.StreamResponse:
        response = web.StreamResponse(status=200, headers=headers)
        stream = _Stream(call, request, self._stall_new)
        self._streams.append(stream)
        try:
            await response.prepare(request)
            async for chunk in upstream.content.iter_any():
                if stream.tear:
                    await response.write(chunk[: len(chunk) // 2])
                    _break_off(request)
                    break
                if not stream.stalled:
                    await response.write(chunk)
        except (ConnectionError, aiohttp.ClientError):
            pass
        finally:
            self._streams.remove(stream)
        return response


def _break_off(request: web.Request) -> None:
    """Break the connection, as a network does."""
    if request.transport is not None and not request.transport.is_closing():
        request.transport.abort()


def _parse(request: web.Request, body: bytes) -> Call:
    parts = request.path.strip("/").split("/")
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    namespace = ""
    if len(rest) > 2 and rest[0] == "namespaces":
        namespace, rest = rest[1], rest[2:]
    rest += [""] * (3 - len(rest))
    verb = _VERBS.get(request.method, request.method.lower())
    if verb == "get" and not rest[1]:
        verb = "watch" if request.query.get("watch") in ("true", "1") else "list"
    try:
        content = json.loads(body) if body else None
    except ValueError:
        content = None
    return Call(verb, rest[0], namespace, rest[1], rest[2], content, request.headers.get("User-Agent", ""))
