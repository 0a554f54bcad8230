"""Command line of the TTS server."""

import argparse
import asyncio
import errno
import logging
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from avatar_tts.backends import Backend

EX_CONFIG = 78
EX_PORT_IN_USE = 98
KEEPALIVE_SECONDS = 3600


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"avatar_tts: {message}\n")
        raise SystemExit(EX_CONFIG)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = _Parser(
        prog="python -m avatar_tts",
        description="One speech server behind the engines' HTTP contracts",
        allow_abbrev=False,
    )
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on")  # noqa: S104
    parser.add_argument("--port", type=int, default=5002)
    parser.add_argument("--model_name", default="edgetts", help="the engine that it stands for: its default voice")
    parser.add_argument("--backend", default="espeak", choices=("espeak", "edge"), help="what makes the speech")
    parser.add_argument("--use_gpu", default="false", help="accepted for the engines' sake; not used")
    args = parser.parse_args(argv)
    if not 1 <= args.port <= 65535:
        parser.error(f"--port {args.port} is not a port: use 1–65535")
    return args


def _backend(name: str, model: str) -> "Backend":
    from avatar_tts.backends import EdgeBackend, EspeakBackend

    if name == "edge":
        return EdgeBackend()
    from avatar_tts.espeak import Engine
    from avatar_tts.voices import DEFAULT

    engine = Engine()
    # The first sentence loads the dictionary, which takes as long as some hundred sentences: not a viewer's.
    engine.speak("Ready.", DEFAULT)
    return EspeakBackend(engine, model)


async def _serve(args: argparse.Namespace) -> int:
    from aiohttp import web

    from avatar_tts.codec import warm
    from avatar_tts.server import build
    from avatar_tts.speech import EspeakError

    log = logging.getLogger("avatar_tts")
    host, port = args.host, args.port
    try:
        backend = _backend(args.backend, args.model_name)
    except EspeakError as error:
        sys.stderr.write(f"avatar_tts: {error}\n")
        return EX_CONFIG
    except ImportError as error:
        sys.stderr.write(f"avatar_tts: --backend {args.backend}: {error}; use the image that has it (tts-edge)\n")
        return EX_CONFIG
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    # A conversation keeps its connection, and with it its voice, through its pauses.
    application = build(backend, args.model_name)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=10, keepalive_timeout=KEEPALIVE_SECONDS)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        await runner.cleanup()
        if error.errno != errno.EADDRINUSE:
            raise
        sys.stderr.write(f"avatar_tts: port {port} is in use; stop what listens there or choose another --port\n")
        return EX_PORT_IN_USE
    log.info("listening host=%s port=%d engine=%s as=%s", host, port, backend.name, args.model_name)
    if args.model_name == "sovits":
        # Its contract is compressed sound; the library for that takes a moment to load, which nobody waits for here.
        asyncio.get_running_loop().run_in_executor(None, warm)
    await stop.wait()
    log.info("stopping")
    await runner.cleanup()
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the server until SIGTERM. Returns the exit code: 0, 78 (configuration) or 98 (port in use)."""
    args = _parse(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    return asyncio.run(_serve(args))
