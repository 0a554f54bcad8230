"""One user's WebRTC session with an avatar."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aiohttp
import av
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCIceServer,
    RTCIceTransportPolicy,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError

from avatar_client.errors import ClientError, ConnectTimeout, SpeechError
from avatar_client.recording import Recording
from avatar_client.signalling import Signalling

POLL = 0.1
"""Seconds between two questions whether the avatar still speaks."""

TAIL = 0.35
"""Seconds of media to wait for after the runtime says that it is silent: what is on the way belongs to it."""


class AvatarSession:
    """A session with media flowing. Make it with `connect`; everything received is in `recording`.

    ``events`` holds the runtime's messages (``{"event": "speaking", …}``) in order; ``first_frame`` is the time
    from the offer to the first picture, in seconds.
    """

    def __init__(self, signalling: Signalling, ice: RTCConfiguration, *, colour: bool, limit: float) -> None:
        self.pc = RTCPeerConnection(ice)
        self.recording = Recording(colour=colour, limit=limit)
        self.events: list[dict[str, Any]] = []
        self.sessionid: Any = None
        self.first_frame = 0.0
        self._signalling = signalling
        self._news = asyncio.Condition()
        self._readers: list[asyncio.Task[None]] = []
        self._notes: set[asyncio.Task[None]] = set()
        self._pictured = asyncio.Event()
        self._over = asyncio.Event()
        self._said_at = 0  # events before this index belong to earlier texts
        self._began = time.monotonic()

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(
        cls,
        url: str,
        *,
        timeout: float = 20.0,
        colour: bool = False,
        limit: float = 120.0,
        ice_servers: Sequence[RTCIceServer] = (),
        relay: bool = False,
        http: aiohttp.ClientSession | None = None,
    ) -> AsyncIterator[AvatarSession]:
        """Open a session and wait for its first picture; it is closed at the end of the block.

        ``url`` is the runtime's base URL, with or without ``/offer``. ``colour`` keeps the pictures' colours
        (three times the memory). ``ice_servers`` are STUN and TURN servers to use, with ``relay`` nothing but TURN.
        ``http`` is the HTTP session for signalling, its own by default.
        Raises `Refused`, `ConnectTimeout` or `ClientError`.
        """
        signalling = Signalling(url, timeout, http)
        policy = RTCIceTransportPolicy.RELAY if relay else RTCIceTransportPolicy.ALL
        session = cls(signalling, RTCConfiguration([*ice_servers], policy), colour=colour, limit=limit)
        try:
            await session._open(timeout)
            yield session
        finally:
            await session.close()

    async def _open(self, timeout: float) -> None:
        self.pc.addTransceiver("audio", direction="recvonly")
        self.pc.addTransceiver("video", direction="recvonly")
        channel = self.pc.createDataChannel("events")
        channel.on("message", self._on_message)
        self.pc.on("track", self._on_track)
        self.pc.on("connectionstatechange", self._on_state)
        await self.pc.setLocalDescription(await self.pc.createOffer())
        offer = self.pc.localDescription
        answer = await self._signalling.post("/offer", {"sdp": offer.sdp, "type": offer.type})
        try:
            description = RTCSessionDescription(sdp=answer["sdp"], type=answer["type"])
            self.sessionid = answer["sessionid"]
            await self.pc.setRemoteDescription(description)
        except (KeyError, ValueError, TypeError) as error:
            raise ClientError(f"{self._signalling.base}/offer answered no usable SDP: {error!r}") from error
        rest = timeout - (time.monotonic() - self._began)
        try:
            async with asyncio.timeout(max(0.1, rest)):
                await self._pictured.wait()
        except TimeoutError:
            connected = self.pc.connectionState == "connected"
            what = "media may flow, but no picture came" if connected else "signalling works, the UDP way does not"
            raise ConnectTimeout(
                f"no picture within {timeout:.0f} s (connection {self.pc.connectionState}, ICE "
                f"{self.pc.iceConnectionState}): {what}",
                connected=connected,
            ) from None

    def _on_state(self) -> None:
        if self.pc.connectionState in ("failed", "closed"):
            self._over.set()

    def _on_track(self, track: MediaStreamTrack) -> None:
        self._readers.append(asyncio.create_task(self._read(track)))

    async def _read(self, track: MediaStreamTrack) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                arrival = time.monotonic()
                if isinstance(frame, av.VideoFrame):
                    self.recording.add_video(frame, arrival)
                    if not self._pictured.is_set():
                        self.first_frame = arrival - self._began
                        self._pictured.set()
                elif isinstance(frame, av.AudioFrame):
                    self.recording.add_audio(frame, arrival)
        self._over.set()

    def _on_message(self, message: str | bytes) -> None:
        try:
            event = json.loads(message)
        except ValueError:
            return
        if isinstance(event, dict):
            note = asyncio.get_running_loop().create_task(self._note({**event, "arrival": time.monotonic()}))
            self._notes.add(note)
            note.add_done_callback(self._notes.discard)

    async def _note(self, event: dict[str, Any]) -> None:
        async with self._news:
            self.events.append(event)
            self._news.notify_all()

    @property
    def alive(self) -> bool:
        """False once the runtime ended the session or the connection broke."""
        return not self._over.is_set()

    async def wait_closed(self, timeout: float) -> None:
        """Wait until the runtime ends the session; TimeoutError if it does not."""
        async with asyncio.timeout(timeout):
            await self._over.wait()

    async def say(self, text: str, *, interrupt: bool = False) -> None:
        """Have the avatar say a text; returns when the runtime has accepted it."""
        self._said_at = len(self.events)
        body = {"sessionid": self.sessionid, "text": text, "type": "echo", "interrupt": interrupt}
        await self._signalling.post("/human", body)

    async def interrupt(self) -> None:
        """Cut the avatar short."""
        await self._signalling.post("/interrupt_talk", {"sessionid": self.sessionid})

    async def is_speaking(self) -> bool:
        """Ask the runtime whether it says something, or has something to say."""
        answer = await self._signalling.post("/is_speaking", {"sessionid": self.sessionid})
        return bool(answer.get("data"))

    async def wait_event(self, name: str, timeout: float, *, since: int = 0) -> dict[str, Any]:
        """Return the first event of that name from index ``since`` on, waiting for it; TimeoutError else."""

        def found() -> dict[str, Any] | None:
            return next((e for e in self.events[since:] if e.get("event") == name), None)

        async with asyncio.timeout(timeout), self._news:
            await self._news.wait_for(lambda: found() is not None)
        event = found()
        assert event is not None
        return event

    async def wait_speech_end(self, timeout: float = 60.0) -> None:
        """Wait until the text last said is spoken and its media has come.

        Works with the data channel's events and, for a runtime without them, by polling ``/is_speaking``.
        Raises `SpeechError` when the runtime reports a fault or does not finish in time.
        """
        deadline = time.monotonic() + timeout
        heard = False
        while True:
            news = self._news_of_speech()
            heard = heard or any(e.get("event") in ("speaking", "silent") for e in news)
            if await self.is_speaking():
                heard = True
            elif heard:
                break
            if time.monotonic() > deadline:
                doing = "still speaks" if heard else "did not begin to speak"
                raise SpeechError(f"the avatar {doing} after {timeout:.0f} s")
            await asyncio.sleep(POLL)
        await asyncio.sleep(TAIL)
        # It may fall silent because of a fault whose news is still on its way.
        self._news_of_speech()

    def _news_of_speech(self) -> list[dict[str, Any]]:
        """Return the events since the text last said; `SpeechError` when a fault is among them."""
        news = self.events[self._said_at :]
        fault = next((e for e in news if e.get("event") == "error"), None)
        if fault is not None:
            raise SpeechError(str(fault.get("msg") or fault.get("message") or fault))
        return news

    async def close(self) -> None:
        """End the session; the recording stays. Safe to call twice."""
        await self.pc.close()
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        self._readers.clear()
        await self._signalling.close()
