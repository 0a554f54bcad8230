"""One gate for all questions to runtimes: so many at a time, fewer of them to one node, nobody waits inside.

A node that does not answer makes each question to it last until its timeout.
Whoever waited for that here would hold a worker, and soon all of them: those
that find the gate full are sent away, each with a time of its own to come back,
so that thousands of instances at one beat spread out by themselves.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator

# Of the 32 workers so many may be asking runtimes at once, and so many runtimes of one node: the rest is for writes.
TOTAL = 24
EACH = 4
# Those that are sent away come back one after the other, this far apart (seconds), and up to a quarter later.
SPACING_SECONDS = 0.01
# Nodes of which it is remembered when the last one sent away comes back.
MOST_NODES = 256


class Later(Exception):
    """The gate is full: come back in ``seconds``. Not an error, and nothing was done."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"too many runtimes are being asked; again in {seconds:.2f} s")
        self.seconds = seconds


class Gate:
    """Counts who is inside; never blocks. ``deferred`` is called for each that is sent away."""

    def __init__(
        self,
        deferred: Callable[[], None] = lambda: None,
        *,
        total: int = TOTAL,
        each: int = EACH,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._deferred = deferred
        self._total, self._each = total, each
        self._clock = clock
        self._inside: dict[str, int] = {}
        self._back: dict[str, float] = {}

    @contextlib.contextmanager
    def enter(self, node: str) -> Iterator[None]:
        """Be inside while asking a runtime on ``node``; Later when there is no room."""
        if sum(self._inside.values()) >= self._total or self._inside.get(node, 0) >= self._each:
            self._deferred()
            raise Later(self._turn(node))
        self._inside[node] = self._inside.get(node, 0) + 1
        try:
            yield
        finally:
            self._inside[node] -= 1
            if not self._inside[node]:
                del self._inside[node]

    def _turn(self, node: str) -> float:
        """Seconds until the next one of ``node`` that was sent away may come back."""
        now = self._clock()
        if len(self._back) >= MOST_NODES:
            self._back = {name: at for name, at in self._back.items() if at > now}
        at = self._back[node] = max(now, self._back.get(node, now)) + SPACING_SECONDS
        return (at - now) * random.uniform(1.0, 1.25)  # noqa: S311 - jitter, not a secret
