"""`kubectl avatar top`: the screen of `frame`, once a second, from watches."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from rich.console import Console, Group
from rich.live import Live

from avatar_operator.domain.gpunode import GpuNode
from avatar_operator.domain.names import SELECTOR
from avatar_operator.domain.resources import Instance, Pod, Pool
from avatar_operator.domain.tts import TtsEngine
from avatar_operator.kube.errors import ApiError, BusyError
from avatar_operator.kube.kinds import ENGINES, GPUNODES, INSTANCES, PODS, POOLS
from avatar_operator.kube.reflector import Reflector

from . import frame, screen
from .link import Link, Stop, Target

FRAME_SECONDS = 1.0
FIRST_LOOK_SECONDS = 30.0
# A connection that died without a word is found out by asking; watches alone would be silent for a minute.
BEAT_SECONDS = 3.0
BEAT_TIMEOUT = 3.0
# Output that goes into a file or a pipe is as wide as it needs to be.
PIPE_WIDTH = 400


Copy = Reflector[Instance] | Reflector[Pool] | Reflector[TtsEngine] | Reflector[GpuNode] | Reflector[Pod]


@dataclass(slots=True)
class Copies:
    """Local copies of everything on the screen."""

    link: Link
    namespace: str
    instances: Reflector[Instance] = field(init=False)
    pools: Reflector[Pool] = field(init=False)
    engines: Reflector[TtsEngine] = field(init=False)
    nodes: Reflector[GpuNode] = field(init=False)
    pods: Reflector[Pod] = field(init=False)
    unheard: str = ""
    troubled_since: datetime | None = None

    def __post_init__(self) -> None:
        client, where = self.link.client, self.namespace
        self.instances = Reflector(client, INSTANCES, Instance, where)
        self.pools = Reflector(client, POOLS, Pool, where, optional=True)
        self.engines = Reflector(client, ENGINES, TtsEngine, where, optional=True)
        # Of the whole cluster: not everybody may read them.
        self.nodes = Reflector(client, GPUNODES, GpuNode, "", optional=True)
        self.pods = Reflector(client, PODS, Pod, "", optional=True, selector=SELECTOR)

    @property
    def all(self) -> tuple[Copy, ...]:
        """All of them."""
        return (self.instances, self.pools, self.engines, self.nodes, self.pods)

    @contextlib.asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Keep them up to date for the length of the block."""
        tasks = [asyncio.create_task(work) for work in (*(copy.run() for copy in self.all), self._beat())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _beat(self) -> None:
        """Ask whether the API server is there."""
        while True:
            try:
                await self.link.client.answers(BEAT_TIMEOUT)
                self.unheard = ""
            except ApiError as error:
                self.unheard = str(error) if isinstance(error, BusyError) else ""
            await asyncio.sleep(BEAT_SECONDS)

    async def synced(self) -> None:
        """Wait until everything was read once; Stop when that takes too long."""
        try:
            async with asyncio.timeout(FIRST_LOOK_SECONDS):
                await asyncio.gather(*(copy.synced.wait() for copy in self.all))
        except TimeoutError:
            trouble = next((copy.trouble for copy in self.all if copy.trouble), "no answer")
            raise Stop(f"the API server does not tell after {FIRST_LOOK_SECONDS:.0f} s: {trouble}") from None

    def scene(self, now: datetime) -> frame.Scene:
        """What the screen shows at ``now``."""
        trouble = next((copy.trouble for copy in self.all if copy.trouble), "") or self.unheard
        if not trouble:
            self.troubled_since = None
        elif self.troubled_since is None:
            self.troubled_since = now
        return frame.Scene(
            now=now,
            context=self.link.context,
            namespace=self.namespace,
            instances=self.instances.values(),
            pools=self.pools.values(),
            nodes=self.nodes.values(),
            engines=self.engines.values(),
            pods={(p.metadata.namespace, p.metadata.name): p for p in self.pods.values()},
            trouble=f"{'the API server does not answer' if self.unheard else trouble}; still trying" if trouble else "",
            trouble_since=self.troubled_since,
        )


async def run(target: Target, *, everywhere: bool, once: bool) -> int | None:
    """The command, until Ctrl-C; ``once`` prints one screen and ends."""
    async with Link.open(target) as link:
        # What is wrong from the beginning is no outage to wait out.
        await link.client.list_pages(INSTANCES, "" if everywhere else link.namespace)
        copies = Copies(link, "" if everywhere else link.namespace)
        async with copies.following():
            await copies.synced()
            console = Console(highlight=False)
            if once or not console.is_terminal:
                width = console.width if console.is_terminal else PIPE_WIDTH
                screen.show(frame.lines(copies.scene(datetime.now(UTC)), width))
                return None
            await _live(console, copies)
    return None


async def _live(console: Console, copies: Copies) -> None:
    with Live(console=console, screen=True, auto_refresh=False) as live, contextlib.suppress(asyncio.CancelledError):
        while True:
            began = time.monotonic()
            size = console.size
            live.update(Group(*frame.lines(copies.scene(datetime.now(UTC)), size.width, size.height)), refresh=True)
            await asyncio.sleep(max(0.05, FRAME_SECONDS - (time.monotonic() - began)))
