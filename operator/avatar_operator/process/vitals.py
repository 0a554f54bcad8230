"""How a process is: memory, CPU and open files, and whether its event loop keeps up."""

from __future__ import annotations

import asyncio
import time

from prometheus_client import CollectorRegistry, Gauge, Histogram, ProcessCollector

LOOK_SECONDS = 0.5


class Vitals:
    """The metrics that all processes have, in ``registry``, once each."""

    def __init__(self, registry: CollectorRegistry) -> None:
        ProcessCollector(registry=registry)
        self._lag = Histogram(
            "avatar_process_event_loop_lag_seconds",
            "How much later than it should the event loop woke a task that looks twice a second",
            buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2),
            registry=registry,
        )
        tasks = Gauge("avatar_process_tasks", "Tasks of the event loop", registry=registry)
        tasks.set_function(_tasks)

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            due = time.monotonic() + LOOK_SECONDS
            await asyncio.sleep(LOOK_SECONDS)
            self._lag.observe(max(0.0, time.monotonic() - due))


def _tasks() -> float:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        # Asked from outside of the event loop.
        return 0
