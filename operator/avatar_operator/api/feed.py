"""Keeps the board of the console up to date from the local copies, as long as somebody looks."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TypeVar

from avatar_operator.domain.resources import Avatar, Instance, Pod, Pool
from avatar_operator.kube.reflector import HasMeta, Reflector

from . import scenes
from .board import Board, Place
from .world import World

# Changes within so many seconds are told together.
TOGETHER_SECONDS = 0.2
EVENTS_MOST = 300
_EPOCH = datetime.fromtimestamp(0, UTC)
# Pods are not read: what a GPU's reservations have not loaded yet is estimated without them.
_NO_PODS: dict[tuple[str, str], Pod] = {}

T = TypeVar("T", bound=HasMeta)


class Feed:
    """``board`` is up to date while there are watchers."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.board = Board()
        self.watchers = 0
        self._dirty: dict[str, set[str]] = {}
        self._work = asyncio.Event()
        self._news = asyncio.Event()
        _listen(world.instances, self._instance)
        _listen(world.pools, self._pool)
        _listen(world.avatars, self._avatar)
        _listen(world.gpus, lambda item: self._touch("gpus", item.metadata.name))
        _listen(world.engines, lambda item: self._touch("engines", item.metadata.name))
        _listen(world.events, lambda _: self._touch("events", ""))

    # ---- following -------------------------------------------------------------------

    @contextlib.contextmanager
    def watching(self) -> Iterator[Board]:
        """The board, kept up to date for the length of the block."""
        if not self.watchers:
            self._everything()
            self._write()
        self.watchers += 1
        try:
            yield self.board
        finally:
            self.watchers -= 1

    async def news(self, seconds: float) -> None:
        """Wait until there is something new, or for so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()

    def wake(self) -> None:
        """Let all who wait look."""
        self._news.set()
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Write what has changed, until cancelled."""
        while True:
            await self._work.wait()
            await asyncio.sleep(TOGETHER_SECONDS)
            self._work.clear()
            if self.watchers:
                version = self.board.version
                self._write()
                if self.board.version != version:
                    self.wake()

    # ---- what has changed ------------------------------------------------------------

    def _touch(self, section: str, *keys: str) -> None:
        # While nobody looks nothing is noted: the next one who does has it all written.
        if self.watchers:
            self._dirty.setdefault(section, set()).update(keys)
            self._work.set()

    def _instance(self, item: Instance) -> None:
        self._touch("instances", item.metadata.name)
        self._touch("pools", item.spec.pool_ref)

    def _pool(self, item: Pool) -> None:
        self._touch("pools", item.metadata.name)
        if self.watchers:
            # What holds for its instances may have changed with it.
            mine = (i.metadata.name for i in self.world.instances.values() if i.spec.pool_ref == item.metadata.name)
            self._touch("instances", *mine)

    def _avatar(self, item: Avatar) -> None:
        self._touch("avatars", item.metadata.name)
        if self.watchers:
            found = self.world.of_avatar(item.spec.avatar_name)
            self._touch("instances", *(i.metadata.name for i in found))

    def _everything(self) -> None:
        world = self.world
        self._dirty = {
            "instances": {i.metadata.name for i in world.instances.values()} | set(self.board.keys("instances")),
            "pools": {p.metadata.name for p in world.pools.values()} | set(self.board.keys("pools")),
            "avatars": {a.metadata.name for a in world.avatars.values()} | set(self.board.keys("avatars")),
            "engines": {e.metadata.name for e in world.engines.values()} | set(self.board.keys("engines")),
            "gpus": {n.metadata.name for n in world.gpus.values()}
            | {key.partition("/")[0] for key in self.board.keys("gpus")},
            "events": {""},
        }

    # ---- writing ---------------------------------------------------------------------

    def _write(self) -> None:
        dirty, self._dirty = self._dirty, {}
        world, put = self.world, self.board.put
        for name in dirty.get("instances", ()):
            item = world.instance(name)
            told = None
            if item is not None:
                told = scenes.instance(item, world.pool(item.spec.pool_ref), world.avatar(item.spec.avatar_name))
            put(Place("instances", name), told)
        for name in dirty.get("pools", ()):
            pool = world.pool(name)
            mine = (i for i in world.instances.values() if i.spec.pool_ref == name)
            put(Place("pools", name), scenes.pool(pool, mine) if pool is not None else None)
        for name in dirty.get("avatars", ()):
            avatar = world.avatars.get(world.namespace, name)
            put(Place("avatars", name), scenes.avatar(avatar) if avatar is not None else None)
        for name in dirty.get("engines", ()):
            engine = world.engines.get(world.namespace, name)
            put(Place("engines", name), scenes.engine(engine) if engine is not None else None)
        for name in dirty.get("gpus", ()):
            self._write_gpus(name)
        if "events" in dirty:
            self._write_events()

    def _write_gpus(self, name: str) -> None:
        node = self.world.gpus.get("", name)
        found = scenes.gpus(node, _NO_PODS) if node is not None else {}
        for key in self.board.keys("gpus"):
            if key.partition("/")[0] == name and key not in found:
                self.board.put(Place("gpus", key), None)
        for key, gpu in found.items():
            self.board.put(Place("gpus", key), gpu)

    def _write_events(self) -> None:
        newest = heapq.nlargest(EVENTS_MOST, self.world.events.values(), key=lambda told: told.at or _EPOCH)
        found = {told.metadata.uid or told.metadata.name: told for told in newest}
        for key in self.board.keys("events"):
            if key not in found:
                self.board.put(Place("events", key), None)
        for key, told in found.items():
            self.board.put(Place("events", key), scenes.event(told))


def _listen(copy: Reflector[T], changed: Callable[[T], None]) -> None:
    """Call with each object that is new, other or gone."""

    def listener(before: T | None, after: T | None) -> None:
        item = after if after is not None else before
        if item is not None:
            changed(item)

    copy.listeners.append(listener)
