"""The agent's two loops: one reads, one writes the newest report. What is not written is overtaken, never queued."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from avatar_operator.domain.gpunode import STALE_HEARTBEATS, GpuNodeStatus
from avatar_operator.kube.errors import ApiError

from .alerts import Thresholds
from .faults import NoNvmlError
from .metrics import Metrics
from .nvml import Reader
from .publish import NodeMissingError, Publisher
from .reading import Snapshot
from .report import State, report, suspects, worth_writing

log = logging.getLogger(__name__)

T = TypeVar("T")

# A reading that takes longer hangs in the driver: only a restart may help.
HUNG_SECONDS = 20.0
# What looks lost is looked at again after this.
AGAIN_SECONDS = 1.0
# On a node without NVML, how often somebody may have installed it.
ABSENT_SECONDS = 60.0
BACKOFF_SECONDS = 1.0
BACKOFF_LIMIT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds between readings, and between reports when nothing changes."""

    period: float = 10.0
    heartbeat: int = 30


class Agent:
    """Run `read` and `write` side by side; the rest tells how it goes."""

    def __init__(self, reader: Reader, node: str, pace: Pace, thresholds: Thresholds) -> None:
        self._reader = reader
        self._node = node
        self._pace = pace
        self._thresholds = thresholds
        self._state = State()
        self._snapshot: Snapshot | None = None
        self._fresh = asyncio.Event()
        self._again = asyncio.Event()
        self._absent = ""
        self._reading_since: float | None = None
        self._wrote_at = self._started = time.monotonic()
        self._wrote = False
        self.metrics = Metrics(node, lambda: (self._snapshot, self._state.status))

    # ---- reading ---------------------------------------------------------------------------

    async def read(self) -> None:
        """Read for ever; raises DriverGoneError when only a new process can go on."""
        # Agents that were rolled out together do not report together.
        due = time.monotonic() + random.uniform(0, self._pace.period)  # noqa: S311 - jitter, not a secret
        while True:
            self._again.clear()
            pause = self._pace.period
            try:
                await self._look()
            except NoNvmlError as error:
                self._without(str(error))
                pause = max(pause, ABSENT_SECONDS)
            now = time.monotonic()
            if due <= now:
                due = max(due, now - pause) + pause
            await _wait(self._again, due - now)

    async def _look(self) -> None:
        before = self._state
        snapshot = await self._read_once()
        seen: set[str] = set()
        while doubtful := suspects(before.status, snapshot) - seen:
            seen |= doubtful
            await asyncio.sleep(AGAIN_SECONDS)
            snapshot = await self._read_once()
        self._absent = ""
        if self._state is before:
            # Else an earlier report was taken over meanwhile, and the next reading is due at once.
            self._observe(snapshot)

    async def _read_once(self) -> Snapshot:
        self._reading_since = began = time.monotonic()
        try:
            return await in_thread(self._reader.read)
        finally:
            self._reading_since = None
            self.metrics.read_seconds.set(time.monotonic() - began)

    def _without(self, problem: str) -> None:
        if problem != self._absent:
            log.info("no GPU to report: %s; looking again every %.0f s", problem, ABSENT_SECONDS)
        self._absent = problem
        if self._state.status.gpus:
            # There were some: whoever counts on them must hear of it.
            self._observe(Snapshot(problem=problem))

    def _observe(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._state = report(
            self._state, snapshot, self._thresholds, self._pace.heartbeat, datetime.now(UTC), self._node
        )
        self._fresh.set()

    # ---- writing ---------------------------------------------------------------------------

    async def write(self, publisher: Publisher) -> None:
        """Write for ever what is worth it, the newest only."""
        delay = BACKOFF_SECONDS
        adopted = False
        while True:
            try:
                if not adopted:
                    self._start_from(await publisher.adopt())
                    adopted = True
                await self._fresh.wait()
                self._fresh.clear()
                await self._write(publisher)
                delay = BACKOFF_SECONDS
            except (ApiError, NodeMissingError) as error:
                self.metrics.failures.inc()
                wait = delay * random.uniform(0.75, 1.25)  # noqa: S311 - jitter, not a secret
                asked = getattr(error, "retry_after", None) or 0.0
                log.warning("report not written: %s; again in %.1f s", error, max(wait, asked))
                await asyncio.sleep(max(wait, asked))
                delay = min(BACKOFF_LIMIT_SECONDS, delay * 2)
                self._fresh.set()

    async def _write(self, publisher: Publisher) -> None:
        status = self._state.status
        if not status.gpus or (self._wrote and not worth_writing(publisher.written, status)):
            return
        if not await publisher.publish(status):
            log.info("the GPUNode was deleted: starting anew with the GPUs that are there")
            self._start_from(GpuNodeStatus())
            return
        self._wrote, self._wrote_at = True, time.monotonic()
        self.metrics.reports.inc()

    def _start_from(self, status: GpuNodeStatus) -> None:
        """Take over an earlier report, and read at once to say what has become of it."""
        self._state = State(status)
        self._reader.remember({gpu.index: gpu.uuid for gpu in status.gpus if gpu.mig is None})
        self._fresh.clear()
        self._again.set()

    # ---- health ----------------------------------------------------------------------------

    def hung(self) -> str:
        """Why a restart is needed; empty = it is not."""
        since = self._reading_since
        took = time.monotonic() - since if since is not None else 0.0
        return f"NVML has not answered for {took:.0f} s" if took > HUNG_SECONDS else ""

    def silent(self) -> str:
        """Why nobody hears of the GPUs; empty = they do, or there are none."""
        if self._absent and not self._state.status.gpus:
            return ""
        if not self._wrote:
            return "no report has been written yet"
        age = time.monotonic() - self._wrote_at
        return f"no report written for {age:.0f} s" if age > STALE_HEARTBEATS * self._pace.heartbeat else ""


async def in_thread(work: Callable[[], T]) -> T:
    """``work`` in a thread that nobody waits for when the process ends: it may hang in the driver."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(set_it: Callable[[], None]) -> None:
        if not done.done():
            set_it()

    def run() -> None:
        try:
            result = work()
        except Exception as error:
            # It is raised where it is awaited.
            caught = error
            _tell(loop, lambda: settle(lambda: done.set_exception(caught)))
        else:
            _tell(loop, lambda: settle(lambda: done.set_result(result)))

    threading.Thread(target=run, name="nvml", daemon=True).start()
    return await done


def _tell(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(call)
    except RuntimeError:
        # The loop has been closed: the process ends.
        return


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
