"""From the offer to the first picture, against a bare aiortc server that sends a grey one.

    PYTHONPATH=runtime python -m bench.first_frame URL [--runs 30] [--viewers 0]

URL is an instance's address, http://192.0.2.7:8615. Both get the same client, one
after the other in turns; the bare server is a process on this machine, so the
difference holds the network to the instance, too. ``--viewers`` sessions watch
meanwhile. A time runs from before the offer is made (its gathering included)
to the first decoded picture.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fractions
import multiprocessing
import os
import statistics
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

import av
from aiohttp import web
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription, VideoStreamTrack

from avatar_client import AvatarSession

TIMEOUT_SECONDS = 30.0
SIZE = (450, 450)


class Grey(VideoStreamTrack):
    """The cheapest picture there is, 25 a second."""

    def __init__(self) -> None:
        super().__init__()
        self._frame = av.VideoFrame(*SIZE, "yuv420p")
        for plane in self._frame.planes:
            plane.update(b"\x80" * plane.buffer_size)
        self._count = 0
        self._began = time.monotonic()

    async def recv(self) -> av.VideoFrame:
        """The next one, when it is due."""
        await asyncio.sleep(max(0.0, self._began + self._count / 25 - time.monotonic()))
        self._frame.pts, self._frame.time_base = self._count * 3600, fractions.Fraction(1, 90000)
        self._count += 1
        return self._frame


def bare(told: Connection) -> None:
    """The process of the bare server; sends its port."""
    peers: set[RTCPeerConnection] = set()

    async def offer(request: web.Request) -> web.Response:
        body = await request.json()
        pc = RTCPeerConnection(RTCConfiguration([]))
        peers.add(pc)

        async def changed() -> None:
            if pc.connectionState in ("failed", "closed"):
                peers.discard(pc)

        pc.on("connectionstatechange", changed)
        await pc.setRemoteDescription(RTCSessionDescription(body["sdp"], body["type"]))
        pc.addTrack(Grey())
        await pc.setLocalDescription(await pc.createAnswer())
        local = pc.localDescription
        return web.json_response({"sdp": local.sdp, "type": local.type, "sessionid": str(id(pc))})

    async def serve() -> None:
        app = web.Application()
        app.add_routes([web.post("/offer", offer)])
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        told.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve())


async def first_frame(url: str) -> float:
    """Milliseconds."""
    async with AvatarSession.connect(url, timeout=TIMEOUT_SECONDS) as session:
        return session.first_frame * 1000


async def measure(url: str, other: str, runs: int, viewers: int) -> dict[str, list[float]]:
    """Milliseconds of each run; ``viewers`` sessions watch meanwhile."""
    found: dict[str, list[float]] = {"avatar": [], "bare aiortc": []}
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(viewers):
            await stack.enter_async_context(AvatarSession.connect(url, timeout=TIMEOUT_SECONDS))
        for _ in range(runs):
            found["avatar"].append(await first_frame(url))
            found["bare aiortc"].append(await first_frame(other))
    return found


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("url")
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--viewers", type=int, default=0)
    given = parser.parse_args()
    near, far = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=bare, args=(far,), daemon=True)
    process.start()
    try:
        if not near.poll(TIMEOUT_SECONDS):
            raise SystemExit("the bare server did not start")
        found: dict[str, Any] = asyncio.run(
            measure(given.url, f"http://127.0.0.1:{near.recv()}", given.runs, given.viewers)
        )
    finally:
        process.terminate()
        process.join()
    for name, values in found.items():
        deciles = statistics.quantiles(values, n=10)
        print(f"{name:12s} p50 {statistics.median(values):4.0f} ms   p90 {deciles[8]:4.0f} ms   best {min(values):.0f}")
    ratio = statistics.median(found["avatar"]) / statistics.median(found["bare aiortc"])
    print(f"ratio {ratio:.2f}   {given.runs} runs, {given.viewers} viewers, load {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
