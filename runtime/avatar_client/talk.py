"""Says one text to an avatar and keeps what came."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from avatar_client.analysis import Report, analyse
from avatar_client.clip import save_clip, save_still
from avatar_client.session import AvatarSession


@dataclass(frozen=True)
class Talk:
    """A conversation's figures and files."""

    report: Report
    first_frame: float
    clip: Path
    still: Path

    def lines(self) -> list[str]:
        """The figures as lines of text."""
        r = self.report
        return [
            f"first frame  {self.first_frame * 1000:.0f} ms after the offer",
            f"picture      {r.width}×{r.height}, {r.fps:.2f} fps",
            f"speech       {r.speech:.2f} s, loudness {r.peak:.2f} of full scale",
            f"lips         correlation of mouth opening and loudness {r.correlation:.2f} (≥ 0.6 is lip-synced)",
            f"synchrony    {_when(r.offset_ms)} (−60…+40 ms goes unnoticed)",
            f"clip         {self.clip}",
            f"still        {self.still}",
        ]


def _when(offset_ms: float) -> str:
    return f"offset {offset_ms:+.0f} ms, picture {'late' if offset_ms > 0 else 'early'}"


async def talk(url: str, text: str, out: Path, *, timeout: float = 20.0, limit: float = 60.0, stun: str = "") -> Talk:
    """Connect, say ``text``, wait for the end, hang up; write a clip and a still into the folder ``out``.

    ``limit`` bounds the speech in seconds. Raises `ClientError`, or `recording.NoMedia` for silence.
    """
    async with AvatarSession.connect(url, timeout=timeout, colour=True, limit=limit + 10, stun=stun) as session:
        await session.say(text)
        await session.wait_speech_end(limit)
    recording = session.recording

    def write() -> Talk:
        out.mkdir(parents=True, exist_ok=True)
        report = analyse(recording)
        return Talk(
            report,
            session.first_frame,
            save_clip(recording, report, out),
            save_still(recording, report, out / "still.png"),
        )

    return await asyncio.to_thread(write)
