"""One viewer's session: the peer connection, what it says, and what it tells the client."""

import asyncio
import contextlib
import json
import logging
import zlib
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from pathlib import Path

from aiortc import (
    RTCConfiguration,
    RTCDataChannel,
    RTCIceServer,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamTrack

from avatar_runtime.addresses import Address, told
from avatar_runtime.config import IceServer
from avatar_runtime.recorder import Recorder, RecordError
from avatar_runtime.renderer import Renderer
from avatar_runtime.sdp import has_media, repair_offer
from avatar_runtime.speech import Timeline, Utterance, split_sentences
from avatar_runtime.tracks import FaceTrack, MediaClock, SpeechTrack
from avatar_runtime.tts_client import TtsClient, TtsError

log = logging.getLogger("avatar_runtime")

LEAD = 0.15
"""Seconds between having speech and saying it: both tracks must still be before its first frame."""

TICK = 0.05
CLOSE_TIMEOUT = 5.0
QUEUE_LENGTH = 100
"""Sentences that may wait to be said in one session."""

RECORDED = 300.0
"""Seconds of recordings that may wait to be said in one session."""

IN_HAND = 20.0
"""Seconds of speech ready to be said, beyond which the next sentence is not fetched yet: memory has an end."""

CUT_AFTER = 0.03
"""Seconds from an interruption to silence: sound that has left already cannot fade out."""


class OfferError(ValueError):
    """The offer cannot be answered; the text is for the client."""


class Session:
    """A peer connection with an avatar at its other end. ``ended`` is called once when the peer is gone."""

    def __init__(
        self,
        sessionid: str,
        renderer: Renderer,
        artist: Executor,
        tts: TtsClient,
        servers: list[IceServer],
        addresses: list[Address],
        connected: Callable[[], None],
        ended: Callable[[str], Awaitable[None]],
    ) -> None:
        self.sessionid = sessionid
        self._tts = tts
        self._ended = ended
        self._connected = connected
        self._clock = MediaClock()
        self._timeline = Timeline()
        self._sentences: asyncio.Queue[str | Utterance] = asyncio.Queue(QUEUE_LENGTH)
        self._recorded = 0.0
        self._synthesising = False
        self._generation = 0
        self._fetching: asyncio.Task[None] | None = None
        self._channels: list[RTCDataChannel] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._addresses = addresses
        # An empty list is one: without any, aiortc asks a public STUN server, for 5 s where there is no way out.
        ice = [RTCIceServer([*s.urls], s.username or None, s.credential or None) for s in servers]
        self._pc = RTCPeerConnection(RTCConfiguration(iceServers=ice))
        self._face = FaceTrack(self._clock, self._timeline, renderer, artist, zlib.crc32(sessionid.encode()))
        self._voice = SpeechTrack(self._clock, self._timeline)
        self._tracks: dict[str, MediaStreamTrack] = {"audio": self._voice, "video": self._face}
        self.video = False
        """Whether the peer takes video."""
        self._packets = -1
        self._heard_at = 0.0

    async def answer(self, sdp: str, kind: str) -> RTCSessionDescription:
        """Return the answer to an offer; `OfferError` when it is none."""
        if kind != "offer" or not has_media(sdp):
            raise OfferError('send {"sdp": …, "type": "offer"} that asks for audio or video')
        self._pc.on("connectionstatechange", self._on_state)
        self._pc.on("datachannel", self._on_channel)
        try:
            await self._pc.setRemoteDescription(RTCSessionDescription(repair_offer(sdp), kind))
            for kind_offered in {t.kind for t in self._pc.getTransceivers()}:
                self._pc.addTrack(self._tracks[kind_offered])
                self.video = self.video or kind_offered == "video"
            await self._pc.setLocalDescription(await self._pc.createAnswer())
        except (ValueError, KeyError, IndexError, AttributeError, AssertionError, TypeError) as error:
            # What aiortc raises for SDP that it cannot read is not one kind of exception.
            raise OfferError(f"the offer's SDP cannot be used: {type(error).__name__} {error}") from error
        self._tasks = [asyncio.create_task(self._speak()), asyncio.create_task(self._tell())]
        answer: RTCSessionDescription = self._pc.localDescription
        return RTCSessionDescription(told(answer.sdp, self._addresses), answer.type)

    # ---- what it says --------------------------------------------------------------------

    def say(self, text: str) -> int:
        """Queue a text; return how many sentences it has. `asyncio.QueueFull` when too much waits."""
        sentences = split_sentences(text)
        if self._sentences.qsize() + len(sentences) > QUEUE_LENGTH:
            raise asyncio.QueueFull
        for sentence in sentences:
            self._sentences.put_nowait(sentence)
        return len(sentences)

    def play(self, recording: Utterance) -> None:
        """Queue a recording behind the texts that wait. `asyncio.QueueFull` when too much waits."""
        if self._recorded + recording.duration > RECORDED:
            raise asyncio.QueueFull
        self._sentences.put_nowait(recording)
        self._recorded += recording.duration

    def interrupt(self) -> None:
        """Stop what is being said and forget what waits."""
        self._generation += 1
        self._recorded = 0.0
        while not self._sentences.empty():
            self._sentences.get_nowait()
        if self._fetching is not None:
            # Ends the request, too: the engine need not speak to nobody.
            self._fetching.cancel()
        self._timeline.cut(self._clock.now() + CUT_AFTER)

    # ---- what is kept of it --------------------------------------------------------------

    @property
    def recording(self) -> bool:
        """Whether a recording runs."""
        return self._face.recorder is not None

    def start_record(self, folder: Path) -> None:
        """Begin to record; `RecordError` when one runs, or nothing can be written."""
        if self.recording:
            raise RecordError("a recording runs already: end_record ends it")
        if not self.video:
            raise RecordError("this session takes no video: there is nothing to record")
        self._face.recorder = self._voice.recorder = Recorder(folder, self.sessionid)

    async def end_record(self) -> None:
        """Finish the recording; `RecordError` when there is none, or it failed."""
        recorder = self._face.recorder
        if recorder is None:
            raise RecordError("no recording runs: start_record begins one")
        self._face.recorder = self._voice.recorder = None
        await asyncio.to_thread(recorder.stop)

    @property
    def frames(self) -> int:
        """Video frames handed to the peer so far."""
        return self._face.sent

    @property
    def first_frame(self) -> float | None:
        """When the first of them was (seconds since the epoch)."""
        return self._face.began

    @property
    def speaking(self) -> bool:
        """Whether something is being said, or will be."""
        return self._synthesising or not self._sentences.empty() or self._timeline.is_speaking(self._clock.now())

    async def _speak(self) -> None:
        while True:
            # An interruption may make room at any moment, so this is no single sleep.
            while self._timeline.end() - self._clock.now() > IN_HAND:  # noqa: ASYNC110
                await asyncio.sleep(TICK)
            sentence = await self._sentences.get()
            if isinstance(sentence, Utterance):
                self._recorded = max(0.0, self._recorded - sentence.duration)
                self._timeline.append(sentence, self._clock.now() + LEAD)
                continue
            generation, self._synthesising = self._generation, True
            self._fetching = asyncio.create_task(self._fetch(sentence, generation))
            try:
                # Not the task itself: an interruption cancels that, and must not end this.
                await asyncio.wait([self._fetching])
            finally:
                self._fetching.cancel()
                self._synthesising = False

    async def _fetch(self, sentence: str, generation: int) -> None:
        """Say a sentence as its speech comes, until somebody interrupts."""
        try:
            async with contextlib.aclosing(self._tts.speak(sentence)) as pieces:
                async for utterance in pieces:
                    # An interruption while the engine worked makes its result unwanted.
                    if generation != self._generation:
                        return
                    self._timeline.append(utterance, self._clock.now() + LEAD)
        except TtsError as error:
            log.warning("no speech session=%s error=%s", self.sessionid, error)
            self.send("error", message=str(error), text=sentence)
        except Exception as error:
            # One sentence that nobody thought of must not make the session mute for good.
            log.exception("no speech session=%s", self.sessionid)
            self.send("error", message=f"internal error: {type(error).__name__}", text=sentence)

    # ---- what it tells -------------------------------------------------------------------

    def send(self, event: str, **fields: object) -> None:
        """Send an event on the client's data channels; nothing when it has none."""
        text = json.dumps({"event": event, **fields}, ensure_ascii=False)
        for channel in self._channels:
            if channel.readyState == "open":
                channel.send(text)

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            for event in self._timeline.advance(self._clock.now()):
                timed = [{"at": at, "text": word} for at, word in event.words]
                self.send(
                    event.name, **({"text": event.text} if event.text else {}), **({"words": timed} if timed else {})
                )

    # ---- life and death ------------------------------------------------------------------

    def _on_channel(self, channel: RTCDataChannel) -> None:
        self._channels.append(channel)

    async def _on_state(self) -> None:
        state = self._pc.connectionState
        log.info("connection session=%s state=%s", self.sessionid, state)
        if state == "connected":
            self._connected()
        elif state in ("failed", "closed"):
            await self._ended(f"connection {state}")

    async def silent_for(self, now: float) -> float:
        """Return for how many seconds nothing has come from the peer (0 until it has connected)."""
        if self._pc.connectionState != "connected":
            self._heard_at = now
            return 0.0
        packets = 0
        for sender in self._pc.getSenders():
            for report in (await sender.getStats()).values():
                if report.type == "transport":
                    packets = max(packets, report.packetsReceived)
        if packets != self._packets:
            self._packets, self._heard_at = packets, now
        return now - self._heard_at

    async def close(self) -> None:
        """End it; safe to call twice."""
        for task in self._tasks:
            task.cancel()
        if self.recording:
            with contextlib.suppress(RecordError):
                await self.end_record()
        await self._tts.close()
        for track in self._tracks.values():
            track.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._pc.close()
