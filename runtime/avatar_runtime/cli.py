"""The process: reads its flags, serves, drains on SIGTERM."""

import asyncio
import contextlib
import errno
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web

from avatar_runtime import avatar as avatars
from avatar_runtime.config import RuntimeConfig, parse
from avatar_runtime.errors import EX_CONFIG, EX_PORT_IN_USE, ConfigError
from avatar_runtime.server import build
from avatar_runtime.service import Service

log = logging.getLogger("avatar_runtime")

TERMINATION_LOG = Path("/dev/termination-log")


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGTERM; return the exit status."""
    try:
        config = parse(argv)
        avatar = avatars.load(config.data_dir, config.avatar_id)
    except ConfigError as error:
        return _die(str(error), EX_CONFIG)
    logging.basicConfig(
        level=config.log_level.upper(), format="%(asctime)s level=%(levelname)s %(message)s", stream=sys.stderr
    )
    # aioice and aiortc tell every ICE check at INFO.
    for noisy in ("aioice", "aiortc"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        asyncio.run(_serve(config, avatar))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return _die(f"port {config.port} is in use by another process: use another --listenport", EX_PORT_IN_USE)
        raise
    return 0


def _die(message: str, status: int) -> int:
    text = f"avatar_runtime: {message}"
    with contextlib.suppress(OSError):
        if TERMINATION_LOG.exists():
            TERMINATION_LOG.write_text(text)
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - the last words belong to whoever started it
    return status


async def _serve(config: RuntimeConfig, avatar: avatars.Avatar) -> None:
    service = Service(config, avatar)
    signals = _Signals()
    async with service.tts:
        await service.prepare()
        runner = web.AppRunner(build(service), access_log=None, shutdown_timeout=2)
        await runner.setup()
        sweeper = asyncio.create_task(service.sweep())
        try:
            await web.TCPSite(runner, config.host, config.port, backlog=1024).start()
            log.info(
                "serving avatar=%r port=%d max_session=%d tts=%s server=%s voice=%s",
                avatar.name, config.port, service.max_session, service.engine, config.tts_server, service.voice,
            )  # fmt: skip
            await signals.first.wait()
            draining = asyncio.create_task(service.drain(config.drain_seconds))
            again = asyncio.create_task(signals.second.wait())
            await asyncio.wait([draining, again], return_when=asyncio.FIRST_COMPLETED)
            draining.cancel()
        finally:
            sweeper.cancel()
            await runner.cleanup()
            await asyncio.gather(*(service.close(s, "shutdown") for s in list(service.sessions)))
            service.shut()
    log.info("ended")


class _Signals:
    """SIGTERM or SIGINT: the first asks for a drain, the second for an end."""

    def __init__(self) -> None:
        self.first, self.second = asyncio.Event(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._came)

    def _came(self) -> None:
        (self.second if self.first.is_set() else self.first).set()
