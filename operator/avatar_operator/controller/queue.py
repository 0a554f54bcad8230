"""The work queue: each key once, never twice at a time, with delays and backoff.

What client-go's workqueue does, for asyncio (research: kopf has none; 30
patches made 30 serial handler calls there).
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import time
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

BACKOFF_BASE_SECONDS = 0.05
BACKOFF_LIMIT_SECONDS = 60.0
# So many keys at a time are a quiet day; with more, what can wait does.
QUIET = 8


class WorkQueue(Generic[K]):
    """Keys to reconcile. Times are seconds of the monotonic clock."""

    def __init__(self) -> None:
        self._ready: deque[K] = deque()
        self._later: deque[K] = deque()
        self._queued: dict[K, float] = {}
        self._low: set[K] = set()
        self._running: set[K] = set()
        self._again: set[K] = set()
        self._failures: dict[K, int] = {}
        self._not_before: dict[K, float] = {}
        self._timers: list[tuple[float, int, K]] = []
        self._due: dict[K, float] = {}
        self._serial = itertools.count()
        self._handle: asyncio.TimerHandle | None = None
        self._wakeup = asyncio.Event()

    def __len__(self) -> int:
        return len(self._queued)

    @property
    def busy(self) -> bool:
        """Whether so much is waited for or worked on that what is less urgent should wait."""
        return len(self._queued) + len(self._running) > QUIET

    def add(self, key: K, *, low: bool = False) -> None:
        """Queue ``key`` unless it is queued; one that is being worked on comes again after.

        ``low``: behind everything that was added normally (a backlog after a
        restart must not make live events wait). Adding it normally as well
        brings it forward. A key that the API server asked to leave alone for
        a while (``at_least`` of retry()) is queued when that is over.
        """
        if key in self._not_before:
            wait = self._not_before[key] - time.monotonic()
            if wait > 0:
                self.add_after(key, wait)
                return
            del self._not_before[key]
        if key in self._running:
            self._again.add(key)
            return
        if key in self._queued and (low or key not in self._low):
            return
        self._queued.setdefault(key, time.monotonic())
        if low:
            self._low.add(key)
        else:
            self._low.discard(key)
        (self._later if low else self._ready).append(key)
        self._wakeup.set()

    def add_after(self, key: K, seconds: float) -> None:
        """Queue ``key`` in ``seconds``; of several calls the earliest counts."""
        due = time.monotonic() + max(0.0, seconds)
        if key in self._due and self._due[key] <= due:
            return
        self._due[key] = due
        heapq.heappush(self._timers, (due, next(self._serial), key))
        self._arm()

    def retry(self, key: K, at_least: float | None = None) -> float:
        """Queue ``key`` after its backoff (exponential, with jitter); the delay in seconds.

        ``at_least`` is what the API server asked for: no event brings the key back earlier.
        """
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(BACKOFF_LIMIT_SECONDS, BACKOFF_BASE_SECONDS * 2.0 ** min(failures, 20))
        delay = max(delay * random.uniform(0.75, 1.25), at_least or 0.0)  # noqa: S311 - jitter, not a secret
        if at_least:
            self._not_before[key] = time.monotonic() + at_least
        self.add_after(key, delay)
        return delay

    def forget(self, key: K) -> None:
        """``key`` went well: its next failure starts a new backoff."""
        self._failures.pop(key, None)

    def failing(self, key: K) -> bool:
        """Whether ``key`` failed last time, and will be tried again by itself."""
        return key in self._failures

    async def get(self) -> tuple[K, float]:
        """The next key and the seconds that it waited. Call done() after."""
        while True:
            line = self._ready or self._later
            if line:
                key = line.popleft()
                if (key in self._low) is not (line is self._later):
                    # Brought forward since, or served already: this entry is void.
                    continue
                since = self._queued.pop(key)
                self._low.discard(key)
                self._running.add(key)
                return key, time.monotonic() - since
            self._wakeup.clear()
            await self._wakeup.wait()

    def done(self, key: K) -> None:
        """The work on ``key`` has ended; it comes again if it was added meanwhile."""
        self._running.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def _arm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if self._timers:
            delay = max(0.0, self._timers[0][0] - time.monotonic())
            self._handle = asyncio.get_running_loop().call_later(delay, self._fire)

    def _fire(self) -> None:
        self._handle = None
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            due, _, key = heapq.heappop(self._timers)
            # An earlier call for the same key has overtaken this entry.
            if self._due.get(key) == due:
                del self._due[key]
                self.add(key)
        self._arm()
