"""The runtimes behind a run's pods: one played runtime a port, begun anew with each pod that comes there."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from typing import Self

from tests.support.history import Event, Stream
from tests.support.runtime import FakeRuntime, own_address

from .deeds import Deeds, Talk
from .objects import ready

TICK = 0.02


class Runtimes:
    """Use as ``async with Runtimes.playing(ports, pods, deeds)``; ``pods`` is the recorded stream of pods."""

    def __init__(self, ports: Iterable[int], pods: Stream, deeds: Deeds) -> None:
        self.address = own_address()
        self._fakes = {port: FakeRuntime(port, address=self.address) for port in sorted(set(ports))}
        self._pods = pods
        self._deeds = deeds
        # The pod that serves on a port, by UID.
        self._serving: dict[int, str] = {}
        self._taken = 0
        self._away = 0

    @classmethod
    @contextlib.asynccontextmanager
    async def playing(cls, ports: Iterable[int], pods: Stream, deeds: Deeds) -> AsyncIterator[Self]:
        """Listen and follow the pods until the block ends."""
        found = cls(ports, pods, deeds)
        for fake in found._fakes.values():
            await fake.up()
        task = asyncio.create_task(found._follow())
        try:
            yield found
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            for fake in found._fakes.values():
                await fake.down()

    async def talk(self, port: int, seconds: float) -> None:
        """A client's session: refused by a runtime that drains or is not there."""
        fake = self._fakes.get(port)
        pod = self._serving.get(port)
        if fake is None or pod is None or fake.draining:
            return
        fake.use(fake.sessions + 1)
        at = len(self._deeds.talks)
        self._deeds.talks.append(Talk(pod, time.monotonic()))
        await asyncio.sleep(seconds)
        if self._serving.get(port) == pod:
            fake.use(max(0, fake.sessions - 1))
            self._deeds.talks[at] = replace(self._deeds.talks[at], ended=time.monotonic())

    async def away(self, seconds: float) -> None:
        """None of them answers for a while."""
        began = time.monotonic()
        self._deeds.outages.append((began, began + seconds + 5))
        self._away += 1
        if self._away == 1:
            for fake in self._fakes.values():
                await fake.down()
        await asyncio.sleep(seconds)
        self._away -= 1
        if self._away == 0:
            # The last of several outages that overlap.
            for fake in self._fakes.values():
                await fake.up()

    async def _follow(self) -> None:
        while True:
            for event in self._pods.events[self._taken :]:
                self._take(event)
                self._taken += 1
            await asyncio.sleep(TICK)

    def _take(self, event: Event) -> None:
        meta = event.body["metadata"]
        port = int(meta["name"].removeprefix("avatar-"))
        if port not in self._fakes:
            return
        ending = event.kind == "DELETED" or "deletionTimestamp" in meta
        if ending:
            if self._serving.get(port) == meta["uid"]:
                # Whoever was there is cut off with the pod.
                del self._serving[port]
                self._fakes[port].use(0)
        elif self._serving.get(port) != meta["uid"] and ready(event.body):
            fake = self._fakes[port]
            fake.told.clear()
            fake.use(0)
            self._serving[port] = meta["uid"]
