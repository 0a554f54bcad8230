"""The demo's user: a WebRTC client that has the avatar say a sentence."""

from __future__ import annotations

import sys
from pathlib import Path

# The client lives beside the runtime and is no installed package; the demo runs from a checkout.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "runtime"))

from avatar_client import talk as client
from avatar_client.errors import ClientError
from avatar_client.recording import NoMedia
from demo.shell import DemoError


async def talk(url: str, text: str, out: Path) -> list[str]:
    """Say ``text`` to the avatar at ``url``; save clip and still in ``out``. Lines for the demo's screen.

    Raises `DemoError` when the avatar cannot be reached or stays silent.
    """
    try:
        done = await client.talk(url, text, out)
    except (ClientError, NoMedia) as error:
        raise DemoError(f"the avatar at {url} did not talk: {error}") from error
    report = done.report
    good = report.correlation >= 0.6 and -60 <= report.offset_ms <= 40
    verdict = "[green]lip-synced[/]" if good else "[yellow]not in time: is this machine very busy?[/]"
    return [
        f"first picture [bold]{done.first_frame * 1000:.0f} ms[/] after the offer; "
        f"{report.width}×{report.height} at [bold]{report.fps:.1f} fps[/]",
        f"[bold]{report.speech:.1f} s[/] of speech received, loudness {report.peak:.2f} of full scale",
        f"mouth opening follows loudness: correlation [bold]{report.correlation:.2f}[/]; "
        f"picture {'late' if report.offset_ms > 0 else 'early'} by [bold]{abs(report.offset_ms):.0f} ms[/]: {verdict}",
        f"clip   {_shown(done.clip)}",
        f"still  {_shown(done.still)}",
    ]


def _shown(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
