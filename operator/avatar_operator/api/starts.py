"""POST /avatar/start: get or create the avatar's instance, join it, wait until it serves.

Nothing here is remembered: whichever replica gets a start, or its repetition,
comes to the same instance and the same session.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import msgspec

from avatar_operator.domain import progress
from avatar_operator.domain.names import API_VERSION, LABEL_CREATED_BY, instance_name
from avatar_operator.domain.progress import EXHAUSTED, Ready, Refused, Verdict, Wait
from avatar_operator.domain.resources import Avatar, Instance, Pool, Session
from avatar_operator.domain.sessions import Caller, Foreign, Full, Join, Joined, Lease, Leave
from avatar_operator.domain.settings import resolve
from avatar_operator.kube.client import KubeClient
from avatar_operator.kube.errors import AlreadyExistsError, ApiError, ConflictError, NotFoundError, RejectedError
from avatar_operator.kube.kinds import AVATARS, INSTANCES

from .caller import Principal
from .metrics import ApiMetrics
from .problems import Problem, conflict, forbidden, not_found, unavailable
from .rolls import GoneError, Rolls
from .world import World

log = logging.getLogger(__name__)

# A full pool is waited for so long by those who did not say how long they wait: something may just be ending.
EXHAUSTED_SECONDS = 2.0
# An instance may go, and come again, so often while one start tries to join it.
JOIN_ATTEMPTS = 8
WAITING_MOST = 5000


@dataclass(frozen=True, slots=True)
class Start:
    """One request. ``patience``: seconds; ``explicit``: the client named it. ``respond_async``: do not wait."""

    avatar_id: str
    avatar_name: str
    pool: str
    ttl: int | None
    patience: float
    explicit: bool = False
    respond_async: bool = False


@dataclass(frozen=True, slots=True)
class Started:
    """A session, and the instance that has it. ``serves`` False: accepted, on its way."""

    instance: Instance
    session: Session
    connections: int
    is_new: bool
    serves: bool
    pool: Pool


@dataclass(slots=True)
class _Ticket:
    """A join that is waited for. ``fresh``: this request counted the session."""

    name: str
    uid: str
    joined: Joined
    is_new: bool
    fresh: bool


@dataclass(slots=True)
class _Waiters:
    """Requests of this process that wait with one session; the last to give up gives it back."""

    count: int = 0
    fresh: bool = False


@dataclass(slots=True)
class Starts:
    """What a start needs; ``closing`` is set when this process is about to end."""

    client: KubeClient
    world: World
    rolls: Rolls
    metrics: ApiMetrics
    now: Callable[[], datetime]
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    _waiting: dict[str, _Waiters] = field(default_factory=dict)
    _making: dict[str, asyncio.Future[None]] = field(default_factory=dict)

    async def start(self, ask: Start, who: Principal) -> Started:
        """Problem when it cannot be; the session is given back then, if this request counted it."""
        try:
            pool, avatar = self._pool(ask.pool), await self._avatar(ask.avatar_name)
            ticket = await self._join(ask, who.caller, pool, avatar)
            if ask.respond_async:
                item = self.world.instance(ticket.name)
                if item is None:
                    raise conflict("the avatar was stopped at this moment; start it again")
                self.metrics.starts.labels("accepted").inc()
                return self._started(item, ticket, pool, ticket.joined.session)
            started = await self._wait(ask, who.caller, pool, ticket)
        except Problem as problem:
            self.metrics.starts.labels("gave_up" if problem.code == 503 else "refused").inc()
            raise
        self.metrics.starts.labels("new" if started.is_new else "joined").inc()
        return started

    # ---- what it is about ------------------------------------------------------------

    def _pool(self, name: str) -> Pool:
        pool = self.world.pool(name)
        if pool is None:
            raise not_found(f"there is no AvatarPool {name!r} in namespace {self.world.namespace!r}")
        return pool

    async def _avatar(self, name: str) -> Avatar:
        avatar = self.world.avatar(name)
        if avatar is None:
            # It may have been applied a moment ago.
            selector = "spec.avatarName=" + re.sub(r"([\\,=])", r"\\\1", name)
            try:
                found, _ = await self.client.list_pages(AVATARS, self.world.namespace, fields=selector)
            except ApiError as error:
                raise from_kube(error) from error
            for item in msgspec.convert(found, list[Avatar]):
                avatar = self.world.avatars.put(item)
        if avatar is None:
            raise not_found(f"there is no avatar {name!r}; an Avatar with this avatarName makes it known")
        return avatar

    # ---- joining ---------------------------------------------------------------------

    async def _join(self, ask: Start, caller: Caller, pool: Pool, avatar: Avatar) -> _Ticket:
        join = Join(ask.avatar_id, caller, _lease(ask, pool))
        names = [instance_name(pool.metadata.name, ask.avatar_name, n) for n in self._ordinals(pool)]
        for held in self.world.of_session(ask.avatar_id):
            if held.spec.avatar_name != ask.avatar_name or held.spec.pool_ref != pool.metadata.name:
                raise conflict(
                    f"avatar_id {ask.avatar_id!r} has a session with avatar {held.spec.avatar_name!r} already; "
                    "disconnect it first, or use another avatar_id"
                )
            # It is there already, perhaps on a further one.
            names = [held.metadata.name, *(n for n in names if n != held.metadata.name)]
        full: Full | None = None
        for ordinal, name in enumerate(names):
            found = await self._join_one(ask, join, name, ordinal, pool, avatar)
            if not isinstance(found, Full):
                return found
            full = found
        count = full.connections if full is not None else 0
        raise Problem(
            409,
            f"avatar {ask.avatar_name!r} has {count} sessions already, which is its most (maxSessions)",
            retry_after=progress.EXHAUSTED_RETRY,
        )

    def _ordinals(self, pool: Pool) -> range:
        return range(pool.spec.capacity if pool.spec.sessions.spill == "Spill" else 1)

    async def _join_one(
        self, ask: Start, join: Join, name: str, ordinal: int, pool: Pool, avatar: Avatar
    ) -> _Ticket | Full:
        created = False
        for attempt in range(JOIN_ATTEMPTS):
            if attempt:
                await asyncio.sleep(0.02 * 2**attempt)
            item = self.world.instance(name)
            if item is None or item.metadata.deletion_timestamp is not None:
                item, created = await self._ensure(ask, name, exclusive=ordinal > 0)
                if item is None:
                    continue
            if item.spec.avatar_name != ask.avatar_name:
                raise conflict(
                    f"AvatarInstance {name!r} is of avatar {item.spec.avatar_name!r}, though its name says "
                    f"{ask.avatar_name!r}; somebody made it by hand: delete it"
                )
            asleep = item.status.phase == "Stopped"
            cap = resolve(item, pool, avatar).max_sessions
            try:
                answer, after = await self.rolls.submit(self.world.namespace, name, join, cap)
            except GoneError:
                continue
            except ApiError as error:
                raise from_kube(error) from error
            if isinstance(answer, Foreign):
                raise forbidden(f"avatar_id {ask.avatar_id!r} is the session of another user")
            if isinstance(answer, Full):
                return answer
            if not isinstance(answer, Joined):
                raise TypeError(f"a join was answered by {answer}")
            return _Ticket(name, after.metadata.uid, answer, created or asleep, answer.fresh)
        raise unavailable(f"avatar {ask.avatar_name!r} is being stopped again and again; try later", 2)

    async def _ensure(self, ask: Start, name: str, *, exclusive: bool) -> tuple[Instance | None, bool]:
        """Get or create, once for all in this process who want the same; True for the one who created it."""
        making = self._making.get(name)
        if making is not None:
            # What becomes of it they learn by joining.
            await asyncio.wait([making])
            return self.world.instance(name), False
        making = self._making[name] = asyncio.get_running_loop().create_future()
        try:
            made = await self._create(ask, name, exclusive=exclusive)
            return made or await self._read(name), made is not None
        finally:
            del self._making[name]
            making.set_result(None)

    async def _create(self, ask: Start, name: str, *, exclusive: bool) -> Instance | None:
        body = {
            "apiVersion": API_VERSION,
            "kind": "AvatarInstance",
            "metadata": {"name": name, "labels": {LABEL_CREATED_BY: "api"}},
            "spec": {
                "avatarName": ask.avatar_name,
                "avatarId": ask.avatar_id,
                "poolRef": ask.pool,
                **({"exclusive": True} if exclusive else {}),
            },
        }
        try:
            return self.world.instances.offer(await self.client.create(INSTANCES, self.world.namespace, body))
        except AlreadyExistsError:
            return None
        except ApiError as error:
            raise from_kube(error) from error

    async def _read(self, name: str) -> Instance | None:
        try:
            return self.world.instances.offer(await self.client.get(INSTANCES, self.world.namespace, name))
        except NotFoundError:
            return None
        except ApiError as error:
            raise from_kube(error) from error

    # ---- waiting ---------------------------------------------------------------------

    async def _wait(self, ask: Start, caller: Caller, pool: Pool, ticket: _Ticket) -> Started:
        item = self.world.instance(ticket.name)
        if item is not None and item.metadata.uid == ticket.uid and progress.serves(item):
            return self._started(item, ticket, pool, ticket.joined.session)
        if len(self._waiting) >= WAITING_MOST:
            await self._give_back(ask, caller, ticket)
            raise unavailable(f"{WAITING_MOST} starts wait already")
        with self._counted(ask.avatar_id, fresh=ticket.fresh) as waiters, self.metrics.waiting.track_inprogress():
            try:
                item = await self._until_it_serves(ask, caller, pool, ticket)
            except Problem:
                if waiters.count == 1 and waiters.fresh and not self.closing.is_set():
                    await self._give_back(ask, caller, ticket)
                raise
        session = next((s for s in item.status.sessions if s.id == ask.avatar_id), ticket.joined.session)
        # The time to connect begins when there is something to connect to.
        session = await self._rejoin(ask, caller, pool, item) or session
        return self._started(item, ticket, pool, session)

    async def _keep(self, ask: Start, caller: Caller, pool: Pool, item: Instance, now: datetime) -> None:
        """Hold the lease of one that waits: it cannot connect yet."""
        session = next((s for s in item.status.sessions if s.id == ask.avatar_id), None)
        if session is None:
            raise conflict("the session was ended while the avatar started; start it again")
        if session.expires is not None and session.expires - now < timedelta(
            seconds=pool.spec.sessions.connect_seconds / 2
        ):
            await self._rejoin(ask, caller, pool, item)

    async def _rejoin(self, ask: Start, caller: Caller, pool: Pool, item: Instance) -> Session | None:
        lease = _lease(ask, pool)
        if lease is not None:
            with contextlib.suppress(GoneError, ApiError, Problem):
                join = Join(ask.avatar_id, caller, lease)
                answer, _ = await self.rolls.submit(self.world.namespace, item.metadata.name, join)
                return answer.session if isinstance(answer, Joined) else None
        return None

    @contextlib.contextmanager
    def _counted(self, avatar_id: str, *, fresh: bool) -> Iterator[_Waiters]:
        waiters = self._waiting.setdefault(avatar_id, _Waiters())
        waiters.count += 1
        waiters.fresh = waiters.fresh or fresh
        try:
            yield waiters
        finally:
            waiters.count -= 1
            if not waiters.count:
                self._waiting.pop(avatar_id, None)

    async def _until_it_serves(self, ask: Start, caller: Caller, pool: Pool, ticket: _Ticket) -> Instance:
        deadline = self.now() + timedelta(seconds=ask.patience)
        exhausted_at: datetime | None = None
        async for item in self.follow(ticket.name, deadline):
            if item is None or item.metadata.uid != ticket.uid:
                raise conflict("the avatar was stopped while it started; start it again")
            now = self.now()
            await self._keep(ask, caller, pool, item, now)
            verdict = progress.verdict(item, now, deadline)
            if isinstance(verdict, Ready):
                return item
            if isinstance(verdict, Refused):
                raise _refusal(verdict)
            exhausted_at = (exhausted_at or now) if verdict.full else None
            wait_for_room = (
                ask.explicit or exhausted_at is None or (now - exhausted_at).total_seconds() < EXHAUSTED_SECONDS
            )
            if now >= deadline or self.closing.is_set() or not wait_for_room:
                raise _not_now(verdict, closing=self.closing.is_set())
        raise unavailable("the avatar did not start in time")

    async def follow(self, name: str, deadline: datetime, beat: float = 1.0) -> AsyncIterator[Instance | None]:
        """The instance now, whenever it changes, and every ``beat`` seconds, until a little after ``deadline``."""
        with self.world.instances.changes(self.world.namespace, name) as changed:
            while True:
                changed.clear()
                yield self.world.instance(name)
                left = (deadline - self.now()).total_seconds()
                if left <= -beat:
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(beat, max(left, 0.01))):
                        await changed.wait()

    async def _give_back(self, ask: Start, caller: Caller, ticket: _Ticket) -> None:
        """End the session, and the instance too where it only waits for room and nobody else does with it."""
        with contextlib.suppress(GoneError, ApiError, Problem):
            _, item = await self.rolls.submit(self.world.namespace, ticket.name, Leave(ask.avatar_id, caller))
            status, meta = item.status, item.metadata
            waits = status.phase == "Pending" and status.reason in EXHAUSTED
            if waits and not item.counted_connections and meta.labels.get(LABEL_CREATED_BY) == "api":
                await self.client.delete(
                    INSTANCES, meta.namespace, meta.name, uid=meta.uid, resource_version=meta.resource_version
                )

    def _started(self, item: Instance, ticket: _Ticket, pool: Pool, session: Session) -> Started:
        return Started(item, session, ticket.joined.connections, ticket.is_new, progress.serves(item), pool)


def session_id(key: str, subject: str, avatar_name: str) -> str:
    """The session of an Idempotency-Key without avatar_id: the same wherever and whenever it is asked for."""
    return "s-" + hashlib.sha256("\0".join((subject, avatar_name, key)).encode()).hexdigest()[:24]


def _lease(ask: Start, pool: Pool) -> Lease | None:
    rules = pool.spec.sessions
    return Lease(ask.ttl, rules.connect_seconds, rules.reconnect_seconds) if ask.ttl else None


def _refusal(verdict: Refused) -> Problem:
    if verdict.missing:
        return not_found(verdict.message)
    return unavailable(verdict.message, verdict.retry_after)


def _not_now(verdict: Verdict, *, closing: bool) -> Problem:
    if closing:
        return unavailable("this server is about to stop; ask again", 1)
    if isinstance(verdict, Wait):
        return unavailable(f"{verdict.message}; the session is given back, ask again", verdict.retry_after)
    return unavailable("the avatar does not serve")


def from_kube(error: ApiError) -> Problem:
    """What an error of the Kubernetes API means to a client of ours."""
    log.warning("Kubernetes API: %s", error)
    if isinstance(error, ConflictError):
        return unavailable("too many writers at once; try again", 1)
    if isinstance(error, NotFoundError):
        return not_found("it is not there any more")
    if isinstance(error, RejectedError):
        if error.status == 422:
            return Problem(400, f"the Kubernetes API refuses it: {error.message}")
        return unavailable("the Kubernetes API does not allow it (quota, or this server's rights)", 30)
    return unavailable("the Kubernetes API does not answer; try again", int(error.retry_after or 2))
