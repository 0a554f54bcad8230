"""The API server's history: every change of some resources, without gaps, in one order.

A Stream lists a resource and watches it from that version, and on from the last version seen. Played back, the events
of several streams are put in order by resourceVersion, which one etcd gives to all kinds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import aiohttp

from .api import Api, Json, path_of, until

GONE = 410
WATCH_SECONDS = 10


@dataclass(frozen=True)
class Event:
    """One change as the API server told it.

    ``at`` is the time of its arrival (monotonic), ``wall`` the same in Unix seconds. ``gap``: what came between this
    and what was known before is not known.
    """

    version: int
    at: float
    resource: str
    kind: str
    body: Json
    wall: float = 0.0
    gap: bool = False

    @property
    def name(self) -> str:
        """Of the object."""
        return str(self.body["metadata"]["name"])


@dataclass(frozen=True)
class Violation:
    """A rule that was broken, where in history, and how."""

    version: int
    rule: str
    text: str

    def __str__(self) -> str:
        return f"[{self.version}] {self.rule}: {self.text}"


class Stream:
    """All changes of one resource from a LIST on; ``gaps`` says where history may be missing.

    ``bridge``: an API server that was killed forgets the versions before; then what is there by now is compared with
    what was known, and the differences become events that say so.
    """

    def __init__(self, api: Api, resource: str, namespace: str, query: str = "", *, bridge: bool = False) -> None:
        self.resource = resource
        self.events: list[Event] = []
        self.gaps: list[str] = []
        self._api = api
        self._path = path_of(resource, namespace)
        self._query = query
        self._version = ""
        self._versions: dict[str, str] = {}
        self._known: dict[str, Json] = {}
        self._bridge = bridge

    async def begin(self) -> None:
        """LIST: what there is already."""
        answer = await self._list()
        for item in answer["items"]:
            self._take("ADDED", item)
        self._version = answer["metadata"]["resourceVersion"]

    async def follow(self) -> None:
        """WATCH for ever."""
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                await self._watch()
            await asyncio.sleep(0.1)

    async def caught_up(self, timeout: float = 30) -> None:
        """Return when every object of a LIST was seen in its version, and none that is not in it."""

        async def missing() -> list[str]:
            items = (await self._list())["items"]
            now = {i["metadata"]["uid"]: i["metadata"]["resourceVersion"] for i in items}
            return sorted(f"{uid} {version}" for uid, version in now.items() ^ self._versions.items())

        await until(f"the watch of {self.resource} having told all", missing, lambda m: not m, timeout, 0.2)

    async def _list(self) -> Json:
        return await self._api.call("GET", self._path + (f"?{self._query}" if self._query else ""))

    async def _watch(self) -> None:
        session = self._api._session
        assert session is not None
        query = f"?watch=true&allowWatchBookmarks=true&resourceVersion={self._version}&{self._query}"
        # An API server that was killed and started again may leave a stream behind that tells nothing: none lives long.
        query += f"&timeoutSeconds={WATCH_SECONDS}"
        timeout = aiohttp.ClientTimeout(total=WATCH_SECONDS + 5)
        async with session.get(self._path + query, timeout=timeout, read_bufsize=1 << 22) as response:
            if response.status != 200:
                await self._failed(response.status, await response.text())
                return
            async for line in response.content:
                if not line.endswith(b"\n"):
                    return
                event = json.loads(line)
                if event["type"] == "ERROR":
                    await self._failed(int(event["object"].get("code", 0)), json.dumps(event["object"]))
                    return
                self._version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    self._take(event["type"], event["object"])

    async def _failed(self, code: int, why: str) -> None:
        """An API server that is away misses nothing; one that has forgotten our version does."""
        if code == GONE and self._bridge:
            await self._compare()
        elif code == GONE:
            self.gaps.append(f"the watch of {self.resource} broke after version {self._version}: {why[:400]}")

    async def _compare(self) -> None:
        answer = await self._list()
        self._version = answer["metadata"]["resourceVersion"]
        there = {item["metadata"]["uid"] for item in answer["items"]}
        for uid, body in list(self._known.items()):
            if uid not in there:
                meta = {**body["metadata"], "resourceVersion": self._version}
                self._take("DELETED", {**body, "metadata": meta}, gap=True)
        for item in answer["items"]:
            meta = item["metadata"]
            if self._versions.get(meta["uid"]) != meta["resourceVersion"]:
                self._take("MODIFIED" if meta["uid"] in self._versions else "ADDED", item, gap=True)

    def _take(self, kind: str, body: Json, *, gap: bool = False) -> None:
        meta = body["metadata"]
        if kind == "DELETED":
            self._versions.pop(meta["uid"], None)
            self._known.pop(meta["uid"], None)
        else:
            self._versions[meta["uid"]] = meta["resourceVersion"]
            self._known[meta["uid"]] = body
        version = int(meta["resourceVersion"])
        self.events.append(Event(version, time.monotonic(), self.resource, kind, body, time.time(), gap))


@dataclass
class History:
    """Several streams. Use as ``async with History.recording(Stream(…), …) as history``; then read ``events``.

    ``restless`` names resources that never stand still long enough to be compared with a LIST at the end.
    """

    streams: list[Stream]
    restless: frozenset[str] = frozenset()
    events: list[Event] = field(default_factory=list)

    @classmethod
    @contextlib.asynccontextmanager
    async def recording(cls, *streams: Stream, restless: frozenset[str] = frozenset()) -> AsyncIterator[History]:
        """Record until the block ends; then ``events`` is filled, and the history has no gaps or this fails."""
        found = cls(list(streams), restless)
        for stream in streams:
            await stream.begin()
        tasks = [asyncio.create_task(stream.follow()) for stream in streams]
        try:
            yield found
            await asyncio.gather(*(s.caught_up() for s in streams if s.resource not in restless))
            await asyncio.sleep(0.3)
        finally:
            died = [t for t in tasks if t.done()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert not died, f"a watch ended: {died}"
        gaps = [gap for stream in streams for gap in stream.gaps]
        assert not gaps, gaps
        found.events = sorted((e for s in streams for e in s.events), key=lambda e: (e.version, e.at))
