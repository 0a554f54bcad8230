"""/metrics, /healthz and /readyz, and the truth behind the last two."""

from __future__ import annotations

import time
from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from .reconciler import Reconciler
from .resync import Resync

# A reconcile that takes longer than this hangs (its requests time out long before).
STUCK_SECONDS = 180.0
# After so many periods and so long without a successful resync nothing here is known to be true.
STALE_PERIODS, STALE_SECONDS = 3, 30.0


class Health:
    """Why the operator is not alive or not ready; an empty string = it is."""

    def __init__(self, resync: Resync, reconciler: Reconciler, tasks_failed: Callable[[], str]) -> None:
        self._resync = resync
        self._reconciler = reconciler
        self._tasks_failed = tasks_failed

    def dead(self) -> str:
        """What a restart would cure."""
        if failed := self._tasks_failed():
            return failed
        busy = self._reconciler.longest_busy()
        return f"a reconcile has been running for {busy:.0f} s" if busy > STUCK_SECONDS else ""

    def unready(self) -> str:
        """What keeps the operator from knowing or doing its work."""
        if dead := self.dead():
            return dead
        if self._resync.synced_at is None:
            return "not synced with the API server yet"
        age = time.monotonic() - self._resync.synced_at
        if age > STALE_PERIODS * self._resync.period + STALE_SECONDS:
            return f"no successful resync for {age:.0f} s"
        if self._resync.missed:
            return f"the watch missed {self._resync.missed} changes before the last resync"
        return ""


async def serve(listen: str, registry: CollectorRegistry, health: Health) -> web.AppRunner:
    """Serve on ``host:port``; the caller cleans the runner up."""

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    def answer(ask: Callable[[], str]) -> Callable[[web.Request], object]:
        async def handle(_: web.Request) -> web.Response:
            problem = ask()
            return web.Response(status=503 if problem else 200, text=f"{problem or 'ok'}\n")

        return handle

    app = web.Application()
    app.add_routes(
        [
            web.get("/metrics", metrics),
            web.get("/healthz", answer(health.dead)),  # type: ignore[arg-type]
            web.get("/readyz", answer(health.unready)),  # type: ignore[arg-type]
        ]
    )
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    host, _, port = listen.rpartition(":")
    await web.TCPSite(runner, host.strip("[]") or None, int(port), reuse_address=True).start()
    return runner
