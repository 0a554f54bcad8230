"""Offers as browsers make them: addresses hidden behind mDNS names, no end of candidates; and what pages may call."""

from __future__ import annotations

import asyncio
import re
import time

import aiohttp
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from tests.runtime.launch import Running, call


def hidden(sdp: str) -> str:
    """The offer of a browser that may not tell its addresses."""
    return re.sub(
        r"(a=candidate:\S+ \d udp \d+ )\S+( \d+ typ host)", r"\g<1>0f1e2d3c-aaaa-bbbb-cccc-0123456789ab.local\2", sdp
    )


def unfinished(sdp: str) -> str:
    """The offer of a browser that does not say that its candidates are complete."""
    return sdp.replace("a=end-of-candidates\r\n", "")


@pytest.mark.parametrize("change", [hidden, unfinished, lambda sdp: unfinished(hidden(sdp))])
async def test_media_flows_all_the_same(shared_runtime: Running, change: object) -> None:
    assert callable(change)
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    try:
        pc.addTransceiver("audio", direction="recvonly")
        pc.addTransceiver("video", direction="recvonly")
        pictured = asyncio.Event()

        @pc.on("track")
        def on_track(track: object) -> None:
            async def read() -> None:
                await track.recv()  # type: ignore[attr-defined]
                pictured.set()

            if getattr(track, "kind", "") == "video":
                tasks.append(asyncio.create_task(read()))

        tasks: list[asyncio.Task[None]] = []
        await pc.setLocalDescription(await pc.createOffer())
        sdp = change(pc.localDescription.sdp)
        assert sdp != pc.localDescription.sdp
        began = time.monotonic()
        _, answer = await call("POST", f"{shared_runtime.url}/offer", {"sdp": sdp, "type": "offer"})
        assert time.monotonic() - began < 3, "an answer waits for no name to be resolved"
        await pc.setRemoteDescription(RTCSessionDescription(answer["sdp"], answer["type"]))
        await asyncio.wait_for(pictured.wait(), 15)
    finally:
        await pc.close()


async def test_pages_may_talk_but_not_administer(shared_runtime: Running) -> None:
    async with aiohttp.ClientSession() as http:
        for route, open_to_pages in (
            ("/human", True),
            ("/offer", True),
            ("/health", True),
            ("/api/admin/drain", False),
        ):
            async with http.options(f"{shared_runtime.url}{route}", headers={"Origin": "http://page"}) as answer:
                assert ("Access-Control-Allow-Origin" in answer.headers) is open_to_pages, route
        # What a page of any origin can send without asking first.
        async with http.post(f"{shared_runtime.url}/api/admin/drain", data='{"drain": true}') as answer:
            assert (await answer.json())["code"] == -1
        async with http.get(f"{shared_runtime.url}/health") as answer:
            assert (await answer.json())["status"] == "healthy"
