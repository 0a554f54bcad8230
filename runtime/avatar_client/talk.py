"""Says one text to an avatar and keeps what came."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from aiortc import RTCIceServer

from avatar_client.analysis import Report, analyse
from avatar_client.clip import save_clip, save_still
from avatar_client.recording import Recording
from avatar_client.session import AvatarSession


@dataclass(frozen=True)
class Heard:
    """What came of one text: the recording, its figures, and seconds from the offer to the first picture."""

    recording: Recording
    report: Report
    first_frame: float

    def lines(self) -> list[str]:
        """The figures as lines of text."""
        r = self.report
        return [
            f"first frame  {self.first_frame * 1000:.0f} ms after the offer",
            f"picture      {r.width}×{r.height}, {r.fps:.2f} fps",
            f"speech       {r.speech:.2f} s, loudness {r.peak:.2f} of full scale",
            f"lips         correlation of mouth opening and loudness {r.correlation:.2f} (≥ 0.6 is lip-synced)",
            f"synchrony    {_when(r.offset_ms)} (−60…+40 ms goes unnoticed)",
        ]


@dataclass(frozen=True)
class Talk:
    """A conversation's figures and files."""

    heard: Heard
    clip: Path
    still: Path

    @property
    def report(self) -> Report:
        """The figures."""
        return self.heard.report

    @property
    def first_frame(self) -> float:
        """Seconds from the offer to the first picture."""
        return self.heard.first_frame

    def lines(self) -> list[str]:
        """Figures and files as lines of text."""
        return [*self.heard.lines(), f"clip         {self.clip}", f"still        {self.still}"]


def _when(offset_ms: float) -> str:
    return f"offset {offset_ms:+.0f} ms, picture {'late' if offset_ms > 0 else 'early'}"


async def converse(
    url: str,
    text: str,
    *,
    timeout: float = 20.0,
    limit: float = 60.0,
    stun: str = "",
    http: aiohttp.ClientSession | None = None,
) -> Heard:
    """Connect, say ``text``, wait for the end, hang up.

    ``limit`` bounds the speech in seconds; ``http`` is a session for signalling. Raises `ClientError`, or
    `recording.NoMedia` for silence.
    """
    async with AvatarSession.connect(
        url, timeout=timeout, colour=True, limit=limit + 10, ice_servers=[RTCIceServer(stun)] if stun else (), http=http
    ) as session:
        await session.say(text)
        await session.wait_speech_end(limit)
    report = await asyncio.to_thread(analyse, session.recording)
    return Heard(session.recording, report, session.first_frame)


async def talk(url: str, text: str, out: Path, *, timeout: float = 20.0, limit: float = 60.0, stun: str = "") -> Talk:
    """As `converse`; write a clip and a still into the folder ``out``."""
    heard = await converse(url, text, timeout=timeout, limit=limit, stun=stun)

    def write() -> Talk:
        out.mkdir(parents=True, exist_ok=True)
        clip = save_clip(heard.recording, heard.report, out)
        return Talk(heard, clip, save_still(heard.recording, heard.report, out / "still.png"))

    return await asyncio.to_thread(write)
