"""A viewer as a process of its own, because it has to be in a network namespace: prints what came as JSON.

python -m tests.runtime.viewer URL [--turn URI --username … --credential …] [--relay] [--timeout 10]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from typing import Any

from aiortc import RTCIceServer

import avatar_client.session
from avatar_client import AvatarSession, ConnectTimeout
from avatar_client.signalling import Signalling
from tests.runtime.test_browser_offers import hidden, unfinished


class Hiding(Signalling):
    """Offers like Firefox: no addresses but mDNS names, and nobody says that these are all."""

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """As ever, with another offer."""
        if "sdp" in body:
            body = {**body, "sdp": unfinished(hidden(body["sdp"]))}
        return await super().post(path, body)


async def view(url: str, servers: list[RTCIceServer], *, relay: bool, timeout: float) -> dict[str, object]:
    """``{"flows": true, "pair": [local, remote]}`` once a picture has come; why not otherwise."""
    try:
        async with AvatarSession.connect(url, timeout=timeout, ice_servers=servers, relay=relay) as session:
            (ice,) = {s.transport.transport for s in session.pc.getReceivers() if s.transport is not None}
            [pair] = ice._connection._nominated.values()
            answer = session.pc.remoteDescription.sdp
            return {
                "flows": True,
                "local": pair.local_candidate.type,
                "remote": pair.remote_addr[0],
                "told": [line for line in answer.splitlines() if line.startswith("a=candidate")],
            }
    except ConnectTimeout as error:
        return {"flows": False, "why": str(error), "connected": error.connected}


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--turn", default="")
    parser.add_argument("--username")
    parser.add_argument("--credential")
    parser.add_argument("--relay", action="store_true")
    parser.add_argument("--hidden", action="store_true")
    parser.add_argument("--timeout", type=float, default=10)
    given = parser.parse_args()
    if given.hidden:
        avatar_client.session.Signalling = Hiding  # type: ignore[misc]
    servers = [RTCIceServer(given.turn, given.username, given.credential)] if given.turn else []
    found = asyncio.run(view(given.url, servers, relay=given.relay, timeout=given.timeout))
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
