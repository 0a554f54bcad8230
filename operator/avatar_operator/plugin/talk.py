"""`kubectl avatar talk`: an avatar says a text over real WebRTC, and what came is saved.

Signalling goes to the instance's URL or, where that is out of reach, through
the API server to the pod; media always go the direct way.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import msgspec
from rich.console import Console
from rich.markup import escape

from avatar_operator.domain import progress
from avatar_operator.domain.meaning import meant
from avatar_operator.domain.resources import Instance, Pool
from avatar_operator.kube.errors import ApiError
from avatar_operator.kube.kinds import PODS, POOLS

from . import screen
from .link import Link, Stop, Target
from .start import Ask, bring_up, real_name

if TYPE_CHECKING:
    from avatar_client.talk import Heard

# The instance's URL is out of reach when it has not answered in this time (seconds).
DIRECT_SECONDS = 3.0

MEDIA = {
    "HostNetwork": "this machine must reach UDP ports of node {node} (the pool's network.mode is HostNetwork): open "
    "them in the firewall, or talk from a machine in that network",
    "HostPort": "this machine must reach the pool's UDP window on node {node} (network.mode HostPort, "
    "network.udpPortBase): open it in the firewall",
    "Pod": "this machine must reach the pod's own address (the pool's network.mode is Pod): talk from inside the "
    "cluster, route the pod network here, or have clients use a TURN relay (network.iceServers)",
    "Relay": "clients of this pool go through its TURN servers (network.mode is Relay), and this command does not: "
    "talk from inside the cluster, or in a browser",
}


BUSY = "the runtime may be too busy: see kubectl avatar logs and top, and give it longer (--timeout)"


@dataclass(frozen=True, slots=True)
class Words:
    """What the options say. Times in seconds; ``save`` None: a name is made of the avatar's and the time."""

    text: str
    save: Path | None = None
    timeout: float = 20.0
    limit: float = 60.0
    stun: str = ""


async def run(target: Target, word: str, words: Words, start: Ask | None) -> int | None:
    """The command; ``start``: what to start when it does not serve."""
    _client()
    console = screen.err()
    async with Link.open(target) as link:
        item = await _serving(link, word, start)
        path = words.save or Path(f"{_slug(item.spec.avatar_name)}-{datetime.now(UTC):%H%M%S}.mp4")
        _check_form(path)
        url, http = await _way(link, item, console)
        with console.status(f"{escape(item.spec.avatar_name)} talks…"):
            heard = await _converse(link, item, words, url, http)
            await asyncio.to_thread(_write, heard, path)
    for line in heard.lines():
        screen.out().print(line, markup=False)
    screen.out().print(f"clip         {path}", markup=False)
    return None


def _client() -> None:
    try:
        import avatar_client.talk  # noqa: F401
    except ImportError as error:
        raise Stop(
            f"talking needs the WebRTC client ({error}); install it: pip install 'avatar-operator[plugin,talk]'", 2
        ) from error


def _check_form(path: Path) -> None:
    """Before anything is said: a clip that cannot be written would be lost."""
    from avatar_client.clip import form_of

    try:
        form_of(path)
    except ValueError as error:
        raise Stop(str(error), 2) from error
    if not path.absolute().parent.is_dir():
        raise Stop(f"{path}: there is no folder {path.absolute().parent}", 2)


def _write(heard: Heard, path: Path) -> None:
    from avatar_client.clip import write_clip

    try:
        write_clip(heard.recording, heard.report, path)
    except OSError as error:
        raise Stop(f"{path} cannot be written: {error}") from error


async def _serving(link: Link, word: str, start: Ask | None) -> Instance:
    present = [i for i in await link.instances() if i.metadata.deletion_timestamp is None]
    found = meant(present, word) or meant(present, real_name(word, await link.avatars()))
    serving = next((i for i in found if progress.serves(i)), None)
    if serving is not None:
        return serving
    if start is not None:
        return await bring_up(link, start)
    if found:
        status = found[0].status
        state = f"is {status.phase or 'Pending'} ({status.message or status.reason or 'not started yet'})"
        raise Stop(f"{word} {state}; --start waits until it serves")
    raise Stop(f"no instance and no avatar {word!r} runs in namespace {link.namespace}; --start starts it")


async def _way(link: Link, item: Instance, console: Console) -> tuple[str, aiohttp.ClientSession | None]:
    """The URL for signalling, and the session that it needs (None: any)."""
    status = item.status
    base = str(status.webrtc_url).removesuffix("/offer")
    try:
        async with asyncio.timeout(DIRECT_SECONDS), aiohttp.ClientSession() as http, http.get(f"{base}/health"):
            return base, None
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
        console.print(f"{base} is out of reach from here; signalling goes through the API server", markup=False)
    pod = f"{status.pod_name}:{status.port}"
    return link.server + PODS.path(item.metadata.namespace, pod, "proxy"), link.session


async def _converse(link: Link, item: Instance, words: Words, url: str, http: aiohttp.ClientSession | None) -> Heard:
    from avatar_client.errors import ClientError, ConnectTimeout, Refused, SpeechError
    from avatar_client.recording import NoMedia
    from avatar_client.talk import converse

    name = f"{item.spec.avatar_name} (avatarinstance/{item.metadata.name})"
    try:
        return await converse(url, words.text, timeout=words.timeout, limit=words.limit, stun=words.stun, http=http)
    except ConnectTimeout as error:
        advice = BUSY if error.connected else await _media_advice(link, item)
        raise Stop(f"{name}: {error}\nwhat to do: {advice}") from error
    except Refused as error:
        raise Stop(f"{name} refuses: {error}") from error
    except (SpeechError, NoMedia) as error:
        raise Stop(f"{name} did not speak: {error}; its speech engine may say why: kubectl get tts") from error
    except ClientError as error:
        text = f"{name}: {error}"
        if http is not None:
            text += "\nsignalling through the API server needs the right to create pods/proxy in this namespace"
        raise Stop(text) from error


async def _media_advice(link: Link, item: Instance) -> str:
    try:
        raw = await link.client.get(POOLS, link.namespace, item.spec.pool_ref)
        mode = msgspec.json.decode(raw, type=Pool).spec.network.mode
    except ApiError:
        mode = "HostNetwork"
    return MEDIA[mode].format(node=item.status.node or "of the pod")


def _slug(name: str) -> str:
    return re.sub(r"[^\w]+", "-", name.lower()).strip("-") or "avatar"
