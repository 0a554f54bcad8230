"""All sessions of the process: opening, closing, deadlines, drain."""

import asyncio
import logging
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiortc import RTCSessionDescription

from avatar_runtime import motion
from avatar_runtime.addresses import MediaHost
from avatar_runtime.avatar import Avatar
from avatar_runtime.config import DEFAULT_VOICE, RuntimeConfig
from avatar_runtime.features import Mouth
from avatar_runtime.gpus import GpuView
from avatar_runtime.ice import IceServers
from avatar_runtime.reach import Reach
from avatar_runtime.renderer import Picture, Renderer
from avatar_runtime.session import Session
from avatar_runtime.sessions import Registry, State
from avatar_runtime.tts_client import TtsClient
from avatar_runtime.visemes import REST

log = logging.getLogger("avatar_runtime")

DEFAULT_MAX_SESSION = 100
SWEEP = 1.0
WARM_PAUSE = 0.02


class Service:
    """The avatar and everybody who looks at it."""

    def __init__(self, config: RuntimeConfig, avatar: Avatar) -> None:
        self.config = config
        self.avatar = avatar
        self.model = config.model or avatar.model or "musetalk"
        self.max_session = config.max_session or avatar.max_session or DEFAULT_MAX_SESSION
        self.engine = config.tts_engine or avatar.tts_engine or "edgetts"
        self.voice = config.voice or avatar.voice or DEFAULT_VOICE
        self.registry = Registry(self.max_session, time.monotonic())
        self.sessions: dict[str, Session] = {}
        self.gpus = GpuView()
        self.ice = IceServers(config.media.ice_servers, config.media.secret_file)
        self.media_host = MediaHost(config.media.hosts)
        self.reach = Reach(self.media_host, self.ice.usable)
        self._frames_before = 0
        self._first_frame: float | None = None
        self._renderer = Renderer(avatar)
        # The renderer belongs to one thread, and a new shape takes too long for the event loop.
        self._artist = ThreadPoolExecutor(1, thread_name_prefix="artist")
        self._gone = asyncio.Event()

    async def prepare(self) -> None:
        """Draw the first picture: who is asked for a session can show a face at once."""
        await self._draw(0)

    async def warm(self) -> None:
        """Draw the other poses of the head too, one by one, so that the first session's frames are not late."""
        for pose in range(1, motion.POSES):
            await self._draw(pose)
            # Room for the frames of a session that began meanwhile.
            await asyncio.sleep(WARM_PAUSE)

    async def _draw(self, pose: int) -> None:
        picture = Picture(pose=pose, mouth=Mouth.of(*REST))
        await asyncio.get_running_loop().run_in_executor(self._artist, self._renderer.frame, picture)

    async def open(self, sdp: str, kind: str) -> tuple[str, RTCSessionDescription]:
        """Answer an offer. Raises `sessions.Refused` or `session.OfferError`."""
        sessionid = str(uuid.uuid4())
        self.registry.open(sessionid, time.monotonic())

        def connected() -> None:
            self.registry.connect(sessionid, time.monotonic())

        async def ended(why: str) -> None:
            await self.close(sessionid, why)

        try:
            servers = await self.ice.usable() if self.config.media.use == "all" else []
            addresses = await self.media_host.addresses()
            tts = TtsClient(self.config.tts_server, self.voice, self.engine)
            session = Session(sessionid, self._renderer, self._artist, tts, servers, addresses, connected, ended)
            self.sessions[sessionid] = session
            answer = await session.answer(sdp, kind)
        except BaseException:
            await self.close(sessionid, "offer not answered")
            raise
        log.info("opened session=%s sessions=%d/%d", sessionid, len(self.registry), self.max_session)
        return sessionid, answer

    async def close(self, sessionid: str, why: str) -> None:
        """End a session and free its slot; nothing when it is ending already."""
        if not self.registry.closing(sessionid):
            return
        session = self.sessions.pop(sessionid, None)
        try:
            if session is not None:
                self._frames_before += session.frames
                self._first_frame = self._first_frame or session.first_frame
                await session.close()
        finally:
            self.registry.close(sessionid, time.monotonic())
            log.info("closed session=%s why=%s sessions=%d/%d", sessionid, why, len(self.registry), self.max_session)
            if not len(self.registry):
                self._gone.set()

    async def sweep(self) -> None:
        """Close what never connected and what has fallen silent; until cancelled."""
        while True:
            await asyncio.sleep(SWEEP)
            now = time.monotonic()
            for sessionid in self.registry.overdue(now, self.config.connect_timeout):
                await self.close(sessionid, f"not connected in {self.config.connect_timeout:.0f} s")
            for sessionid, session in list(self.sessions.items()):
                try:
                    silent = await session.silent_for(now)
                except Exception:
                    # The sweeper guards all sessions: one that cannot be asked must not end it.
                    log.exception("cannot ask session=%s", sessionid)
                    continue
                if silent > self.config.peer_timeout:
                    await self.close(sessionid, f"nothing heard for {silent:.0f} s")

    def set_draining(self, draining: bool) -> int:
        """Refuse new sessions, or take them again; tell the clients. Return how many there are."""
        if draining != self.registry.draining:
            log.info("draining=%s sessions=%d", draining, len(self.registry))
            self.registry.draining = draining
            if draining:
                for session in self.sessions.values():
                    session.send("draining")
        return len(self.registry)

    async def drain(self, seconds: float) -> None:
        """Wait until the last session has ended by itself, `seconds` at most, then end the rest."""
        self.set_draining(True)
        self._gone.clear()
        if len(self.registry):
            try:
                async with asyncio.timeout(seconds):
                    await self._gone.wait()
            except TimeoutError:
                log.warning("drain ended by its deadline sessions=%d", len(self.registry))
        await asyncio.gather(*(self.close(sessionid, "drained") for sessionid in list(self.sessions)))

    async def shut(self) -> None:
        """Release the drawing thread, the probe's ports and the questions to ICE servers."""
        self.reach.close()
        await self.ice.close()
        self._artist.shutdown(wait=False, cancel_futures=True)

    def health(self) -> dict[str, Any]:
        """What ``GET /health`` says. ``frames`` only grows: what sessions got that have ended counts on.

        ``first_frame_at``: when this process showed its first picture to anybody, in seconds since the epoch.
        """
        first = [self._first_frame, *(s.first_frame for s in self.sessions.values())]
        connected = {e.sessionid for e in self.registry.entries.values() if e.state is State.CONNECTED}
        return {
            "status": "draining" if self.registry.draining else "healthy",
            "service": "webrtc",
            "sessions": len(self.registry),
            "max_sessions": self.max_session,
            "idle_seconds": round(self.registry.idle_seconds(time.monotonic()), 3),
            "speaking": sum(s.speaking for s in self.sessions.values()),
            "viewers": sum(s.video and sessionid in connected for sessionid, s in self.sessions.items()),
            "frames": self._frames_before + sum(s.frames for s in self.sessions.values()),
            "first_frame_at": min((moment for moment in first if moment is not None), default=None),
            "avatar": self.avatar.name,
            **({} if self.gpus.seen is None else {"gpus": self.gpus.seen}),
        }

    def listed(self) -> list[dict[str, Any]]:
        """The sessions as ``GET /api/admin/sessions`` lists them, connecting ones included."""
        result = []
        for sessionid, entry in self.registry.entries.items():
            session = self.sessions.get(sessionid)
            result.append(
                {
                    "sessionid": sessionid,
                    "state": entry.state.value,
                    "speaking": session.speaking if session else False,
                    "recording": session.recording if session else False,
                    "model": self.model,
                    "avatar_id": self.avatar.name,
                    "REF_FILE": self.voice,
                    "transport": "webrtc",
                    "seconds": round(time.monotonic() - entry.created, 1),
                }
            )
        return result

    def session(self, sessionid: str) -> Session | None:
        """The session that a client means, if it still takes orders."""
        entry = self.registry.entries.get(sessionid)
        if entry is None or entry.state is State.CLOSING:
            return None
        return self.sessions.get(sessionid)
