"""The work queue: each key once, never twice at a time, with delays and backoff.

What client-go's workqueue does, for asyncio (research: kopf has none; 30
patches made 30 serial handler calls there).
"""

from __future__ import annotations

import asyncio
import enum
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
# Of so many keys that are taken one is what is due, however much happens.
DUE_SHARE = 4


class Line(enum.IntEnum):
    """What a key waits in: it happened just now, its time has come, or it can wait for both."""

    LIVE = 0
    DUE = 1
    BACKLOG = 2


class WorkQueue(Generic[K]):
    """Keys to reconcile. Times are seconds of the monotonic clock."""

    def __init__(self) -> None:
        self._lines: dict[Line, deque[K]] = {line: deque() for line in Line}
        # In which line, and since when. What else is in the lines is void: it was brought forward.
        self._queued: dict[K, tuple[Line, float]] = {}
        self._taken = 0
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

        ``low``: behind everything else (a backlog after a restart must not
        make live events wait). Adding it normally as well brings it forward.
        A key that the API server asked to leave alone for a while
        (``at_least`` of retry()) is queued when that is over.
        """
        self._add(key, Line.BACKLOG if low else Line.LIVE)

    def _add(self, key: K, line: Line) -> None:
        now = time.monotonic()
        if key in self._not_before:
            wait = self._not_before[key] - now
            if wait > 0:
                self.add_after(key, wait)
                return
            del self._not_before[key]
        if key in self._running:
            self._again.add(key)
            return
        known, since = self._queued.get(key, (None, now))
        if known is not None and known <= line:
            return
        self._queued[key] = line, since
        self._lines[line].append(key)
        self._wakeup.set()

    def add_after(self, key: K, seconds: float) -> None:
        """Queue ``key`` in ``seconds``; of several calls the earliest counts.

        What happens meanwhile goes before it, but for a share: where thousands are due at once, a user who comes
        must not wait for them, nor they for ever.
        """
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
            line = self._line()
            if line is None:
                self._wakeup.clear()
                await self._wakeup.wait()
                continue
            key = self._lines[line].popleft()
            known, since = self._queued.get(key, (None, 0.0))
            if known is not line:
                continue
            del self._queued[key]
            self._running.add(key)
            self._taken += 1
            return key, time.monotonic() - since

    def _line(self) -> Line | None:
        if self._lines[Line.DUE] and self._taken % DUE_SHARE == 0:
            return Line.DUE
        return next((line for line, keys in self._lines.items() if keys), None)

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
                self._add(key, Line.DUE)
        self._arm()
