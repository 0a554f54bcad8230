"""Offers through the API: count the session, have the runtime answer, note what it calls the session.

A session is counted before the runtime is asked, so that nobody collects the
avatar meanwhile, and tentatively: whatever happens to this process on the way,
it ends by itself unless it is attached to a session of the runtime.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from avatar_operator.domain import progress, sdp
from avatar_operator.domain.progress import Refused, Wait
from avatar_operator.domain.resources import IceServer, Instance, Pool
from avatar_operator.domain.sessions import Answer, Attach, Detach, Foreign, Full, Join, Joined, Operation
from avatar_operator.domain.settings import nameless, resolve
from avatar_operator.domain.signalling import runtime_session
from avatar_operator.kube.client import KubeClient
from avatar_operator.kube.errors import ApiError, NotFoundError
from avatar_operator.kube.kinds import INSTANCES

from .caller import Principal
from .ice import Ice
from .metrics import ApiMetrics
from .problems import Problem, conflict, forbidden, not_found, unavailable
from .rolls import GoneError, Rolls
from .runtimes import OFFER_TIMEOUT, Runtimes, addresses
from .starts import from_kube
from .world import World

log = logging.getLogger(__name__)

# So many instances of an avatar are read again when none is known to have a session.
READ_MOST = 5


@dataclass(frozen=True, slots=True)
class Answered:
    """``sessionid`` is what the runtime calls it, as it said it; ``avatar_id`` what the API does."""

    instance: Instance
    sdp: str
    sessionid: Any
    avatar_id: str
    ice: list[IceServer]


@dataclass(slots=True)
class Offers:
    """What an offer needs, and what belongs to a session that came with one."""

    client: KubeClient
    world: World
    rolls: Rolls
    runtimes: Runtimes
    ice: Ice
    metrics: ApiMetrics
    now: Callable[[], datetime]

    async def answer(self, text: str, offer: str, avatar_id: str | None, who: Principal) -> Answered:
        """Have what ``text`` means answer an SDP offer; a Problem when it cannot be, and nothing is counted then."""
        try:
            found = await self._answer(text, offer, avatar_id, who)
        except Problem as problem:
            self.metrics.offers.labels("full" if problem.code == 409 else "refused").inc()
            raise
        self.metrics.offers.labels("answered").inc()
        return found

    async def _answer(self, text: str, offer: str, avatar_id: str | None, who: Principal) -> Answered:
        named = avatar_id or (text if self.world.of_session(text) else None)
        candidates = self._candidates(text, named)
        avatar_id = named or f"o-{secrets.token_hex(12)}"
        full: Full | None = None
        for candidate in candidates:
            pool = self.world.pool(candidate.spec.pool_ref)
            if pool is None:
                raise unavailable(f"the pool {candidate.spec.pool_ref!r} of the avatar is gone")
            joined, item = await self._join(candidate, pool, avatar_id, who)
            if isinstance(joined, Full):
                full = joined
                continue
            return await self._negotiate(item, pool, offer, joined, who)
        most = full.cap if full is not None else 0
        raise Problem(
            409, f"the avatar is full: {most} sessions are its most (maxSessions)", retry_after=progress.EXHAUSTED_RETRY
        )

    def _candidates(self, text: str, avatar_id: str | None) -> list[Instance]:
        """Those that serve, the one that has the session already first."""
        found = self.world.resolve(text)
        if not found:
            raise not_found(f"there is no avatar {text!r} running; start it first")
        serving = [i for i in found if progress.serves(i)]
        if not serving:
            now = self.now()
            verdict = progress.verdict(found[0], now, now)
            wait = verdict.retry_after if isinstance(verdict, (Wait, Refused)) else 2
            message = verdict.message if isinstance(verdict, (Wait, Refused)) else "it does not serve"
            raise unavailable(f"avatar {text!r} does not serve at this moment: {message}", wait)
        held = self.world.of_session(avatar_id) if avatar_id else []
        for other in held:
            if all(i.metadata.name != other.metadata.name for i in found):
                raise conflict(
                    f"avatar_id {avatar_id!r} has a session with avatar {other.spec.avatar_name!r} already; "
                    "disconnect it first, or use another avatar_id"
                )
        holding = {i.metadata.name for i in held}
        return sorted(serving, key=lambda i: i.metadata.name not in holding)

    async def _join(self, item: Instance, pool: Pool, avatar_id: str, who: Principal) -> tuple[Joined | Full, Instance]:
        avatar = self.world.avatar(item.spec.avatar_name) or nameless(item)
        cap = resolve(item, pool, avatar).max_sessions
        join = Join(avatar_id, who.caller, tentative=pool.spec.sessions.connect_seconds)
        answer, after = await self._submit(item, join, cap)
        if isinstance(answer, Foreign):
            raise forbidden(f"avatar_id {avatar_id!r} is the session of another user")
        if not isinstance(answer, (Joined, Full)):
            raise TypeError(f"a join was answered by {answer}")
        return answer, after

    async def _negotiate(self, item: Instance, pool: Pool, offer: str, joined: Joined, who: Principal) -> Answered:
        avatar_id, before = joined.session.id, joined.session.runtime_session_id
        if before:
            # The page was loaded anew: its old peer is not to take the place of the new one.
            await self.runtimes.hang_up(item, before)
        try:
            answer = await self.runtimes.call(
                item, "/offer", json={"sdp": sdp.completed(offer), "type": "offer"}, timeout=OFFER_TIMEOUT
            )
        except BaseException:
            await self._forget(item, avatar_id, "")
            raise
        text, name = answer.get("sdp"), runtime_session(answer.get("sessionid"))
        if not isinstance(text, str) or answer.get("type") != "answer" or name is None:
            await self._forget(item, avatar_id, "")
            raise Problem(502, "the avatar's runtime answered the offer without sdp, type and sessionid")
        await self._attach(item, Attach(avatar_id, who.caller, name))
        media = item.status.media
        told = await addresses(media.host) if media is not None else []
        ice = await self.ice.servers(pool, joined.session.user or avatar_id, self.now())
        return Answered(item, sdp.completed(sdp.rewritten(text, told)), answer["sessionid"], avatar_id, ice)

    async def _attach(self, item: Instance, attach: Attach) -> None:
        try:
            noted, _ = await self._submit(item, attach)
        except Problem:
            await self.runtimes.hang_up(item, attach.runtime_session)
            raise
        if not isinstance(noted, Joined):
            await self.runtimes.hang_up(item, attach.runtime_session)
            raise conflict("the session was ended while the avatar answered; send the offer again")

    async def _forget(self, item: Instance, avatar_id: str, runtime_session_id: str) -> None:
        """Take back what was counted; where that does not work, it lapses."""
        with contextlib.suppress(Problem):
            await self._submit(item, Detach(avatar_id, runtime_session_id))

    # ---- sessions that came with an offer ----------------------------------------------

    async def talking(self, text: str, sessionid: object, who: Principal) -> Instance:
        """The instance meant by ``text`` with the runtime session ``sessionid``; 403 if that is not the caller's."""
        name = runtime_session(sessionid)
        found = self.world.resolve(text)
        if not found:
            raise not_found(f"there is no avatar {text!r} running")
        holder = _holder(found, name)
        if holder is None:
            # Another replica may have noted it this moment; the API server knows.
            found = [now for item in found[:READ_MOST] if (now := await self._read(item)) is not None]
            holder = _holder(found, name)
        if holder is None:
            if who.caller.any and found and name is not None:
                # It came without us, by the instance's own port.
                return found[0]
            raise not_found(
                f"avatar {text!r} has no session {name!r}: it has ended, or its offer did not come this way"
            )
        if not any(who.caller.may_touch(s) for s in holder.status.sessions if s.runtime_session_id == name):
            raise forbidden("this is the session of another user")
        return holder

    async def end(self, text: str, avatar_id: str, who: Principal) -> bool:
        """End a session that came with an offer, here and in the runtime; whether there was one."""
        meant = self.world.resolve(text)
        held = {item.metadata.name for item in self.world.of_session(avatar_id)}
        found = [item for item in meant if item.metadata.name in held]
        if not found:
            # Another replica may have counted it this moment; the API server knows.
            found = [now for item in meant[:READ_MOST] if (now := await self._read(item)) is not None]
        for item in found:
            session = next((s for s in item.status.sessions if s.id == avatar_id), None)
            if session is None or not session.runtime_session_id:
                continue
            if not who.caller.may_touch(session):
                raise forbidden("this is the session of another user")
            await self.runtimes.hang_up(item, session.runtime_session_id)
            await self._submit(item, Detach(avatar_id, session.runtime_session_id))
            return True
        return False

    async def _read(self, item: Instance) -> Instance | None:
        try:
            raw = await self.client.get(INSTANCES, self.world.namespace, item.metadata.name)
        except NotFoundError:
            return None
        except ApiError as error:
            raise from_kube(error) from error
        return self.world.instances.offer(raw)

    async def _submit(self, item: Instance, operation: Operation, cap: int | None = None) -> tuple[Answer, Instance]:
        try:
            return await self.rolls.submit(self.world.namespace, item.metadata.name, operation, cap)
        except GoneError:
            raise conflict("the avatar was stopped at this moment; start it again") from None
        except ApiError as error:
            raise from_kube(error) from error


def _holder(found: list[Instance], name: str | None) -> Instance | None:
    if name is None:
        return None
    return next((i for i in found if any(s.runtime_session_id == name for s in i.status.sessions)), None)
