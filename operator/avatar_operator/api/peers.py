"""Ends sessions whose peer has gone, by what the runtimes list: every replica looks, whoever is first ends it.

What a replica remembers between two looks is a doubt, no fact: without it the
session ends a look later.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from avatar_operator.domain import progress, signalling
from avatar_operator.domain.resources import Instance, Session
from avatar_operator.domain.sessions import Detach, Left
from avatar_operator.domain.signalling import Doubt
from avatar_operator.kube.errors import ApiError

from .metrics import ApiMetrics
from .problems import Problem
from .rolls import GoneError, Rolls
from .runtimes import Runtimes
from .world import World

log = logging.getLogger(__name__)

# From look to look at one runtime (seconds); with many runtimes longer, so that these are the most looks in a second.
LOOK_SECONDS = 3.0
LOOKS_A_SECOND = 50
AT_ONCE = 16
# A runtime must lack a session in two looks so far apart (seconds).
APART_SECONDS = 2.0


@dataclass(slots=True)
class Peers:
    """``doubts`` by the instance's UID, then by the runtime's session."""

    world: World
    rolls: Rolls
    runtimes: Runtimes
    metrics: ApiMetrics
    now: Callable[[], datetime]
    doubts: dict[str, dict[str, Doubt]] = field(default_factory=dict)

    async def sweep(self) -> None:
        """Look for ever."""
        gate = asyncio.Semaphore(AT_ONCE)

        async def look(item: Instance) -> None:
            async with gate:
                await self._look(item)

        while True:
            found = [i for i in self.world.attached() if progress.serves(i) or i.status.phase == "Draining"]
            known = {i.metadata.uid for i in self.world.attached()}
            self.doubts = {uid: d for uid, d in self.doubts.items() if uid in known}
            await asyncio.gather(*(look(item) for item in found))
            pause = max(LOOK_SECONDS, len(found) / LOOKS_A_SECOND)
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - replicas look at different times

    async def _look(self, item: Instance) -> None:
        listed = await self.runtimes.listed(item)
        if listed is None:
            return
        uid, pool = item.metadata.uid, self.world.pool(item.spec.pool_ref)
        over, self.doubts[uid] = signalling.ended(
            item.status.sessions,
            self.doubts.get(uid, {}),
            listed,
            self.now(),
            apart=APART_SECONDS,
            connect=pool.spec.sessions.connect_seconds if pool is not None else 60,
        )
        for session in over:
            with contextlib.suppress(GoneError, ApiError, Problem):
                await self._end(item, session)

    async def _end(self, item: Instance, session: Session) -> None:
        name = session.runtime_session_id
        # One that waits for its peer in vain is still there.
        await self.runtimes.hang_up(item, name)
        answer, _ = await self.rolls.submit(self.world.namespace, item.metadata.name, Detach(session.id, name))
        if isinstance(answer, Left) and answer.session is not None:
            self.metrics.peers_gone.inc()
            extra = {"instance": item.metadata.name, "avatar_id": session.id, "runtime_session": name}
            log.info("the peer of a session is gone", extra=extra)
