"""Command line of the TTS server."""

import argparse
import asyncio
import errno
import logging
import signal
import sys
from typing import NoReturn

EX_CONFIG = 78
EX_PORT_IN_USE = 98


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"avatar_tts: {message}\n")
        raise SystemExit(EX_CONFIG)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = _Parser(prog="python -m avatar_tts", description="espeak-ng behind the TTS contract", allow_abbrev=False)
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on")  # noqa: S104
    parser.add_argument("--port", type=int, default=5002)
    parser.add_argument("--model_name", default="espeak-ng", help="accepted for the engines' sake; not used")
    parser.add_argument("--use_gpu", default="false", help="accepted for the engines' sake; not used")
    args = parser.parse_args(argv)
    if not 1 <= args.port <= 65535:
        parser.error(f"--port {args.port} is not a port: use 1–65535")
    return args


async def _serve(host: str, port: int) -> int:
    from aiohttp import web

    from avatar_tts.espeak import Engine, EspeakError
    from avatar_tts.server import build
    from avatar_tts.voices import DEFAULT

    log = logging.getLogger("avatar_tts")
    try:
        engine = Engine()
        # The first sentence loads the dictionary, which takes as long as some hundred sentences: not a viewer's.
        engine.speak("Ready.", DEFAULT)
    except EspeakError as error:
        sys.stderr.write(f"avatar_tts: {error}\n")
        return EX_CONFIG
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    runner = web.AppRunner(build(engine), access_log=None, shutdown_timeout=10)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        await runner.cleanup()
        if error.errno != errno.EADDRINUSE:
            raise
        sys.stderr.write(f"avatar_tts: port {port} is in use; stop what listens there or choose another --port\n")
        return EX_PORT_IN_USE
    log.info("listening host=%s port=%d", host, port)
    await stop.wait()
    log.info("stopping")
    await runner.cleanup()
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the server until SIGTERM. Returns the exit code: 0, 78 (configuration) or 98 (port in use)."""
    args = _parse(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    return asyncio.run(_serve(args.host, args.port))
