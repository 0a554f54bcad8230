"""The command: reads its flags, and tells faults by exit status and last words."""

import asyncio
import contextlib
import errno
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from avatar_runtime import avatar as avatars
from avatar_runtime.config import parse
from avatar_runtime.errors import EX_CONFIG, EX_PORT_IN_USE, ConfigError

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
    # Only now, because WebRTC and the codecs take most of a second to load and a wrong flag needs neither.
    from avatar_runtime.app import serve

    try:
        asyncio.run(serve(config, avatar))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return _die(f"port {config.port} is in use by another process: use another --listenport", EX_PORT_IN_USE)
        if error.errno in (errno.EACCES, errno.EADDRNOTAVAIL):
            return _die(f"cannot listen on {config.host}:{config.port}: {error.strerror}", EX_CONFIG)
        raise
    return 0


def _die(message: str, status: int) -> int:
    text = f"avatar_runtime: {message}"
    with contextlib.suppress(OSError):
        if TERMINATION_LOG.exists():
            TERMINATION_LOG.write_text(text)
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - the last words belong to whoever started it
    return status
