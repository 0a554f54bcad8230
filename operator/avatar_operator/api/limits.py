"""How often somebody may start avatars: so many in a window, counted by all replicas together where Redis is there.

A sliding window of two fixed ones: exact at their borders, within a few
percent between them, and two small numbers for each name.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from .metrics import ApiMetrics

log = logging.getLogger(__name__)

# Names that this process remembers; the one not seen for longest is forgotten.
NAMES_MOST = 50_000
REDIS_TIMEOUT_SECONDS = 0.25
# After an error of Redis this process counts alone for so long.
REDIS_PAUSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Rate:
    """``count`` in ``seconds``; 0 = no limit."""

    count: int
    seconds: int

    @classmethod
    def parse(cls, text: str) -> Rate:
        """From ``30/60`` (30 in 60 seconds); ``0`` is no limit."""
        count, _, seconds = text.partition("/")
        rate = cls(int(count), int(seconds or 60))
        if rate.count < 0 or not 1 <= rate.seconds <= 86400:
            raise ValueError(f"{text!r}: give COUNT/SECONDS, for example 30/60")
        return rate

    def used(self, before: int, current: int, now: float) -> float:
        """How many count at ``now``: this window's, and the share of the last one's that is still in sight."""
        return current + before * (1 - (now % self.seconds) / self.seconds)

    def retry_after(self, before: int, current: int, now: float) -> int:
        """Whole seconds until one more is taken."""
        left = self.seconds - now % self.seconds
        over = self.used(before, current, now) + 1 - self.count
        if over <= 0:
            return 1
        if before and over / before * self.seconds <= left:
            return max(1, math.ceil(over / before * self.seconds))
        return max(1, math.ceil(left + self.seconds * max(0.0, 1 - (self.count - 1) / max(1, current))))


class Limiter(Protocol):
    """``take`` is asked before the work is done."""

    async def take(self, kind: str, name: str, rate: Rate) -> int:
        """0 and counted, or the seconds after which it may be tried again."""
        ...


class LocalLimiter:
    """Counts in this process alone."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._counts: OrderedDict[tuple[str, str], tuple[int, int, int]] = OrderedDict()

    async def take(self, kind: str, name: str, rate: Rate) -> int:
        """As Limiter."""
        return self.take_now(kind, name, rate)

    def take_now(self, kind: str, name: str, rate: Rate) -> int:
        """The same without waiting."""
        if not rate.count:
            return 0
        now = self._clock()
        window = int(now // rate.seconds)
        key = (kind, name)
        seen, before, current = self._counts.get(key, (window, 0, 0))
        if seen != window:
            before, current = (current if seen == window - 1 else 0), 0
        if rate.used(before, current, now) + 1 > rate.count:
            return rate.retry_after(before, current, now)
        self._counts[key] = (window, before, current + 1)
        self._counts.move_to_end(key)
        if len(self._counts) > NAMES_MOST:
            self._counts.popitem(last=False)
        return 0


class RedisLimiter:
    """Counts in Redis, for all replicas; alone while Redis does not answer."""

    def __init__(self, url: str, metrics: ApiMetrics, prefix: str = "avatar-operator") -> None:
        # Only those who configure it need it.
        import redis.asyncio as redis

        self._errors: tuple[type[Exception], ...] = (redis.RedisError, OSError, TimeoutError)
        self._redis: Any = redis.Redis.from_url(
            url,
            socket_timeout=REDIS_TIMEOUT_SECONDS,
            socket_connect_timeout=REDIS_TIMEOUT_SECONDS,
            max_connections=32,
        )
        self._metrics = metrics
        self._prefix = prefix
        self._alone = LocalLimiter()
        self._until = 0.0

    async def take(self, kind: str, name: str, rate: Rate) -> int:
        """As Limiter."""
        if not rate.count:
            return 0
        if time.monotonic() < self._until:
            return self._alone.take_now(kind, name, rate)
        try:
            return await self._take(kind, name, rate)
        except self._errors as error:
            self._until = time.monotonic() + REDIS_PAUSE_SECONDS
            self._metrics.limiter_errors.inc()
            log.warning("the shared limiter does not answer, counting alone: %s", type(error).__name__)
            return self._alone.take_now(kind, name, rate)

    async def _take(self, kind: str, name: str, rate: Rate) -> int:
        now = time.time()
        window = int(now // rate.seconds)
        digest = hashlib.sha256(name.encode()).hexdigest()[:24]
        key = f"{self._prefix}:{kind}:{digest}"
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.incr(f"{key}:{window}")
            pipe.expire(f"{key}:{window}", 2 * rate.seconds)
            pipe.get(f"{key}:{window - 1}")
            current, _, last = await pipe.execute()
        before, mine = int(last or 0), int(current) - 1
        if rate.used(before, mine, now) + 1 > rate.count:
            # Not taken, so not counted: who asks too often is let in again when the window allows it.
            await self._redis.decr(f"{key}:{window}")
            return rate.retry_after(before, mine, now)
        return 0

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
