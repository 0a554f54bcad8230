"""The serving process from its first draw to its drain."""

import asyncio
import logging
import signal

from aiohttp import web

from avatar_runtime.avatar import Avatar
from avatar_runtime.config import RuntimeConfig
from avatar_runtime.server import build
from avatar_runtime.service import Service

log = logging.getLogger("avatar_runtime")


async def serve(config: RuntimeConfig, avatar: Avatar) -> None:
    """Serve the avatar until SIGTERM has been answered. `OSError` when the port cannot be had."""
    service = Service(config, avatar)
    signals = _Signals()
    service.gpus.look()
    drawn = asyncio.create_task(service.prepare())
    # Known before the first offer comes, which need not wait for it then.
    asked = asyncio.create_task(service.ice.usable())
    runner = web.AppRunner(build(service), access_log=None, shutdown_timeout=2)
    await runner.setup()
    sweeper = asyncio.create_task(service.sweep())
    try:
        await web.TCPSite(runner, config.host or None, config.port, backlog=1024).start()
        log.info(
            "serving avatar=%r port=%d max_session=%d tts=%s server=%s voice=%s",
            avatar.name, config.port, service.max_session, service.engine, config.tts_server, service.voice,
        )  # fmt: skip
        # Offers take longer to answer than the first picture to draw. If it cannot be drawn, nothing can.
        await drawn
        warming = asyncio.create_task(service.warm())
        await signals.first.wait()
        warming.cancel()
        draining = asyncio.create_task(service.drain(config.drain_seconds))
        again = asyncio.create_task(signals.second.wait())
        await asyncio.wait([draining, again], return_when=asyncio.FIRST_COMPLETED)
        draining.cancel()
    finally:
        sweeper.cancel()
        asked.cancel()
        await runner.cleanup()
        await asyncio.gather(*(service.close(s, "shutdown") for s in list(service.sessions)))
        await service.shut()
    log.info("ended")


class _Signals:
    """SIGTERM or SIGINT: the first asks for a drain, the second for an end."""

    def __init__(self) -> None:
        self.first, self.second = asyncio.Event(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._came)

    def _came(self) -> None:
        (self.second if self.first.is_set() else self.first).set()
