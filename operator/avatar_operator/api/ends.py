"""Disconnect, heartbeat, stop, stop-all, restart."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from avatar_operator.domain import progress
from avatar_operator.domain import sessions as rules
from avatar_operator.domain.names import instance_name
from avatar_operator.domain.resources import Instance, Pod
from avatar_operator.domain.sessions import Caller, Foreign, Leave, LeaveOne, Left, Operation, Renew, Renewed
from avatar_operator.kube.client import KubeClient
from avatar_operator.kube.errors import ApiError, ConflictError, NotFoundError
from avatar_operator.kube.kinds import INSTANCES, PODS

from .caller import Principal
from .metrics import ApiMetrics
from .pods import Pods
from .problems import conflict, forbidden, not_found, unavailable
from .rolls import GoneError, Rolls
from .starts import Starts, from_kube
from .world import World

log = logging.getLogger(__name__)

# A session that another replica has just counted may come to us this much later (seconds).
BELIEVE_SECONDS = 0.15
STOP_ATTEMPTS = 6
# The operator ends lapsed sessions; where it has not after so long (seconds), it is down, and the API does.
LAPSED_SECONDS = 3.0
RESTARTED_RETRY = 2


@dataclass(frozen=True, slots=True)
class Disconnected:
    """``session`` None: there was none to end."""

    avatar_name: str | None
    session: str | None
    connections: int


@dataclass(slots=True)
class Ends:
    """What ends sessions and instances."""

    client: KubeClient
    world: World
    rolls: Rolls
    starts: Starts
    pods: Pods
    metrics: ApiMetrics
    now: Callable[[], datetime]

    # ---- sessions --------------------------------------------------------------------

    async def disconnect(
        self, avatar_id: str | None, avatar_name: str | None, pool: str, who: Principal
    ) -> Disconnected:
        """End a session by its id, or one of an avatar's by the avatar's name; unknown ones are no error."""
        if avatar_id is not None:
            return await self._disconnect_id(avatar_id, avatar_name, pool, who)
        return await self._disconnect_name(avatar_name or "", pool, who)

    async def _disconnect_id(self, avatar_id: str, avatar_name: str | None, pool: str, who: Principal) -> Disconnected:
        found = self.world.of_session(avatar_id)
        if not found and avatar_name is not None:
            # Another replica may have counted it this moment; the API server knows.
            name = instance_name(pool, avatar_name)
            answer, item = await self._submit(name, Leave(avatar_id, who.caller))
            return _disconnected(answer, item, avatar_name, avatar_id)
        if not found:
            await asyncio.sleep(BELIEVE_SECONDS)
            found = self.world.of_session(avatar_id)
        result = Disconnected(avatar_name, None, 0)
        for held in found:
            answer, item = await self._submit(held.metadata.name, Leave(avatar_id, who.caller))
            result = _disconnected(answer, item, held.spec.avatar_name, avatar_id)
        return result

    async def _disconnect_name(self, avatar_name: str, pool: str, who: Principal) -> Disconnected:
        candidates = [i for i in self.world.of_avatar(avatar_name, pool) if i.counted_connections]
        if who.subject:
            own = [i for i in candidates if any(s.user == who.subject for s in i.status.sessions)]
            candidates = own or candidates[:1]
        # The further ones of an avatar are emptied first.
        names = [i.metadata.name for i in reversed(candidates)] or [instance_name(pool, avatar_name)]
        answer, item = await self._submit(names[0], LeaveOne(who.caller))
        return _disconnected(answer, item, avatar_name, None)

    async def _submit(self, name: str, operation: Operation) -> tuple[rules.Answer | None, Instance | None]:
        try:
            return await self.rolls.submit(self.world.namespace, name, operation)
        except GoneError:
            return None, None
        except ApiError as error:
            raise from_kube(error) from error

    async def heartbeat(self, avatar_id: str, who: Principal) -> tuple[Renewed, Instance]:
        """Renew a lease; 404 when there is no such session."""
        found = self.world.of_session(avatar_id)
        if not found:
            await asyncio.sleep(BELIEVE_SECONDS)
            found = self.world.of_session(avatar_id)
        for held in found:
            pool = self.world.pool(held.spec.pool_ref)
            reconnect = pool.spec.sessions.reconnect_seconds if pool is not None else 0
            answer, item = await self._submit(held.metadata.name, Renew(avatar_id, who.caller, reconnect))
            if isinstance(answer, Foreign):
                raise forbidden(f"avatar_id {avatar_id!r} is the session of another user")
            if isinstance(answer, Renewed) and item is not None:
                return answer, item
        raise not_found(f"there is no session {avatar_id!r}: it was ended, or its lease ran out; start it again")

    async def sweep(self) -> None:
        """End lapsed sessions for ever, where the operator does not."""
        while True:
            await asyncio.sleep(1)
            limit = self.now() - timedelta(seconds=LAPSED_SECONDS)
            for item in self.world.leased():
                lapsed = len(item.status.sessions) - len(rules.lapse(rules.Roll.of(item.status), limit).sessions)
                if lapsed:
                    with contextlib.suppress(GoneError, ApiError):
                        # Whatever is asked of it, what has lapsed goes.
                        await self.rolls.submit(self.world.namespace, item.metadata.name, Renew("", Caller()))
                        self.metrics.sessions_lapsed.inc(lapsed)

    # ---- instances -------------------------------------------------------------------

    async def stop(self, text: str, *, force: bool) -> list[str]:
        """Delete what ``text`` means; without ``force`` only if nobody is connected (409)."""
        found = self.world.resolve(text)
        if not found:
            await asyncio.sleep(BELIEVE_SECONDS)
            found = self.world.resolve(text)
        if not found:
            raise not_found(f"there is no avatar {text!r} running")
        current = found if force else await asyncio.gather(*map(self._sure, found))
        if not force and (used := sum(item.counted_connections for item in current if item is not None)):
            raise _in_use(text, used)
        for item in current:
            if item is not None and (left := await self._delete(item, force=force)):
                raise _in_use(text, left)
        return [item.metadata.name for item in found]

    async def stop_all(self, *, force: bool) -> tuple[list[str], list[str]]:
        """Delete every instance of the namespace; names of the stopped and of the used ones."""
        found = self.world.instances.values()
        left = await asyncio.gather(*(self._delete(i, force=force) for i in found))
        names = [i.metadata.name for i in found]
        return (
            sorted(n for n, count in zip(names, left, strict=True) if not count),
            sorted(n for n, count in zip(names, left, strict=True) if count),
        )

    async def _delete(self, seen: Instance, *, force: bool) -> int:
        """Delete an instance; without ``force`` the number of connections that keep it, else 0."""
        item: Instance | None = seen
        for _ in range(STOP_ATTEMPTS):
            if item is None or item.metadata.uid != seen.metadata.uid:
                return 0
            if not force and item.counted_connections:
                return item.counted_connections
            meta = item.metadata
            try:
                # Without force, somebody who joins at this moment wins.
                version = "" if force else meta.resource_version
                await self.client.delete(INSTANCES, meta.namespace, meta.name, uid=meta.uid, resource_version=version)
            except NotFoundError:
                return 0
            except ConflictError:
                item = await self._read(meta.name)
            except ApiError as error:
                raise from_kube(error) from error
            else:
                return 0
        raise unavailable("too many writers at once; try again", 1)

    async def _sure(self, seen: Instance) -> Instance | None:
        """An instance that seems in use as it is now: another replica's disconnect may not have been heard of here."""
        return await self._read(seen.metadata.name) if seen.counted_connections else seen

    async def _read(self, name: str) -> Instance | None:
        try:
            return self.world.instances.offer(await self.client.get(INSTANCES, self.world.namespace, name))
        except NotFoundError:
            return None
        except ApiError as error:
            raise from_kube(error) from error

    async def restart(self, text: str, patience: float) -> Instance:
        """Replace the pod of an instance; its sessions stay counted. 503 when the new one takes longer."""
        found = self.world.resolve(text)
        if not found:
            raise not_found(f"there is no avatar {text!r} running")
        item = found[0]
        pod = await self._pod(item)
        if pod is None:
            raise conflict(f"avatar {text!r} has no pod to restart: {item.status.phase or 'Pending'}")
        try:
            meta = pod.metadata
            await self.client.delete(PODS, meta.namespace, meta.name, uid=meta.uid)
        except NotFoundError:
            pass
        except ApiError as error:
            raise from_kube(error) from error
        before, deadline = item.status, self.now() + timedelta(seconds=patience)
        down = False
        async for now in self.starts.follow(item.metadata.name, deadline):
            if now is None or now.metadata.uid != item.metadata.uid:
                raise conflict("it was stopped while it restarted")
            same = (now.status.ready_time, now.status.last_termination) == (before.ready_time, before.last_termination)
            down = down or not same or not progress.serves(now)
            if down and progress.serves(now):
                return now
            if self.now() >= deadline or self.starts.closing.is_set():
                break
        raise unavailable("the avatar restarts; its sessions are kept", RESTARTED_RETRY)

    async def _pod(self, item: Instance) -> Pod | None:
        try:
            return await self.pods.read(item)
        except ApiError as error:
            raise from_kube(error) from error


def _in_use(text: str, count: int) -> Exception:
    return conflict(f"{count} connected to avatar {text!r}; disconnect them first, or stop it with force")


def _disconnected(
    answer: rules.Answer | None, item: Instance | None, avatar_name: str | None, avatar_id: str | None
) -> Disconnected:
    if isinstance(answer, Foreign):
        raise forbidden(f"avatar_id {avatar_id!r} is the session of another user")
    if isinstance(answer, Left) and item is not None:
        ended = answer.session.id or None if answer.session is not None else None
        # A connection that was counted without a name has ended, too.
        return Disconnected(item.spec.avatar_name, ended or ("" if answer.session else None), answer.connections)
    return Disconnected(avatar_name, None, 0)
