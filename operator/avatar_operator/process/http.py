"""/metrics, /healthz and /readyz of a process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from .vitals import Vitals


class Health(Protocol):
    """The truth behind the two health pages; an empty string = all is well."""

    def dead(self) -> str:
        """What a restart would cure."""
        ...

    def unready(self) -> str:
        """What keeps the process from doing its work."""
        ...


async def serve(listen: str, registry: CollectorRegistry, health: Health) -> web.AppRunner:
    """Serve on ``host:port``; the caller cleans the runner up. The process's vitals are among the metrics."""
    vitals = Vitals(registry)

    async def look(_: web.Application) -> AsyncIterator[None]:
        looking = asyncio.create_task(vitals.run())
        yield
        looking.cancel()
        await asyncio.wait([looking])

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    def answer(ask: Callable[[], str]) -> Callable[[web.Request], object]:
        async def handle(_: web.Request) -> web.Response:
            problem = ask()
            return web.Response(status=503 if problem else 200, text=f"{problem or 'ok'}\n")

        return handle

    app = web.Application()
    app.cleanup_ctx.append(look)
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
