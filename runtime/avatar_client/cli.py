"""Command line: talk to an avatar and look at what comes back."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from avatar_client.errors import ClientError
from avatar_client.recording import NoMedia
from avatar_client.talk import talk

GREETING = "Hello! I am a talking avatar, and I am glad that you came."


def main(argv: Sequence[str] | None = None) -> int:
    """Say a text, save a clip and a still, print the figures. Returns the exit status: 0, or 1 with the reason."""
    parser = argparse.ArgumentParser(
        prog="python -m avatar_client", description="talk to an avatar over WebRTC and save what comes back"
    )
    parser.add_argument("--url", required=True, help="http://HOST:8615, with or without /offer")
    parser.add_argument("--text", default=GREETING)
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="for clip.mp4 and still.png")
    parser.add_argument("--timeout", type=float, default=20, metavar="S", help="for the connection (20)")
    parser.add_argument("--limit", type=float, default=60, metavar="S", help="for the speech (60)")
    parser.add_argument("--stun", default="", metavar="URI", help="STUN server; none by default")
    args = parser.parse_args(argv)
    try:
        done = asyncio.run(talk(args.url, args.text, args.out, timeout=args.timeout, limit=args.limit, stun=args.stun))
    except (ClientError, NoMedia) as error:
        sys.stderr.write(f"avatar_client: {error}\n")
        return 1
    sys.stdout.write("\n".join(done.lines()) + "\n")
    return 0
