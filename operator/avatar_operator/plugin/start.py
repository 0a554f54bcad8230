"""`kubectl avatar start`: get or create the avatar's instance, and show how it comes up."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import typer
from rich.console import Console
from rich.markup import escape

from avatar_operator.domain import progress, sessions
from avatar_operator.domain.meaning import of_avatar
from avatar_operator.domain.names import API_VERSION, LABEL_CREATED_BY, LABEL_GROUP, group_id, instance_name
from avatar_operator.domain.progress import Ready, Refused
from avatar_operator.domain.resources import Avatar, Instance, InstanceMeta, InstanceSpec, LastTermination, Pod, Pool
from avatar_operator.domain.settings import check
from avatar_operator.kube.errors import AlreadyExistsError, ConflictError, NotFoundError, RejectedError
from avatar_operator.kube.kinds import EVENTS, INSTANCES, PODS, POOLS
from avatar_operator.kube.reflector import Reflector

from . import screen, steps
from .link import Link, Stop, Target
from .listing import gpu, idle_in

CREATED_BY = "kubectl-avatar"
# An instance that is woken counts as used for so long (seconds), until its idle clock takes over.
WAKE_SECONDS = 30
ATTEMPTS = 5
# What is said of an instance that is there and does not serve.
JOINED = {"Stopped": "sleeps", "Draining": "was about to be collected", "Failed": "is tried again and again"}
BEAT_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Ask:
    """What the options say. ``name`` empty: the one name that the avatar has in its pool; ``spec``: overrides."""

    avatar: str
    pool: str = "default"
    name: str = ""
    exclusive: bool = False
    spec: dict[str, Any] | None = None
    wait: bool = True
    timeout: float = 60.0


async def run(target: Target, ask: Ask) -> int | None:
    """The command; the URL goes to stdout, all else to stderr."""
    async with Link.open(target) as link:
        item = await bring_up(link, ask)
        if progress.serves(item):
            typer.echo(item.status.webrtc_url)
    return None


async def bring_up(link: Link, ask: Ask) -> Instance:
    """The instance, serving, or with ``wait`` False as it is; Stop says why not."""
    console, began = screen.err(), time.monotonic()
    real = await _admit(link, ask)
    item, made = await _get_or_create(link, ask, real)
    name = item.metadata.name
    if not made:
        _tell_joined(console, ask, item)
        if not progress.serves(item) and item.status.phase in ("Stopped", "Draining"):
            item = await _wake(link, item)
    else:
        console.print(f"created avatarinstance/{name} for avatar {escape(real)} in pool {ask.pool}")
    if progress.serves(item):
        _tell_ready(console, item, None)
        return item
    if not ask.wait:
        console.print(f"not waiting for it: kubectl avatar list {escape(name)} --watch shows how it comes up")
        return item
    try:
        item = await _until_ready(link, ask, item, console)
    except asyncio.CancelledError:
        console.print(f"left alone; avatarinstance/{name} goes on starting. To end it: kubectl avatar stop {name}")
        raise
    _tell_ready(console, item, time.monotonic() - began)
    return item


# ---- what is wanted --------------------------------------------------------------


async def _admit(link: Link, ask: Ask) -> str:
    """The avatar's real name; Stop when the operator would refuse it anyway."""
    try:
        avatars = await link.avatars()
        pools, _ = await link.client.list_pages(POOLS, link.namespace)
    except RejectedError:
        # Who may not read them may start one nevertheless: the operator will say what is wrong.
        return ask.avatar
    real = real_name(ask.avatar, avatars)
    avatar = next((a for a in avatars if a.spec.avatar_name == real), None)
    pool = next((p for p in msgspec.convert(pools, list[Pool]) if p.metadata.name == ask.pool), None)
    spec = {"avatarName": real, "poolRef": ask.pool, **(ask.spec or {})}
    wanted = Instance(InstanceMeta(name=ask.name, namespace=link.namespace), msgspec.convert(spec, InstanceSpec))
    problem = check(wanted, pool, avatar)
    if problem is None:
        return real
    hint = ""
    if problem.reason == "AvatarNotFound":
        known = [a.spec.avatar_name for a in avatars]
        near = difflib.get_close_matches(ask.avatar, known, n=1)
        hint = f"\ndid you mean {near[0]!r}?" if near else f"\nthere are: {', '.join(sorted(known)) or 'none'}"
    raise Stop(f"{problem.reason}: {problem.message}{hint}")


def real_name(text: str, avatars: list[Avatar]) -> str:
    """An avatar's real name, also by the name of its Avatar object; the text itself where there is none."""
    if any(a.spec.avatar_name == text for a in avatars):
        return text
    return next((a.spec.avatar_name for a in avatars if a.metadata.name == text), text)


async def _get_or_create(link: Link, ask: Ask, real: str) -> tuple[Instance, bool]:
    """The instance, and whether it was made now."""
    if not ask.name and not ask.exclusive:
        alive = [i for i in await link.instances() if i.metadata.deletion_timestamp is None and not i.spec.exclusive]
        if found := of_avatar(alive, real, ask.pool):
            return next((i for i in found if progress.serves(i)), found[0]), False
    name = ask.name or instance_name(ask.pool, real)
    spec = {"avatarName": real, "poolRef": ask.pool, **({"exclusive": True} if ask.exclusive else {})}
    meta: dict[str, Any] = {"labels": {LABEL_CREATED_BY: CREATED_BY}}
    # Exclusive ones are many: the API server numbers them.
    meta |= {"generateName": f"{name[:50]}-"} if ask.exclusive and not ask.name else {"name": name}
    body = {"apiVersion": API_VERSION, "kind": "AvatarInstance", "metadata": meta, "spec": {**spec, **(ask.spec or {})}}
    for _ in range(ATTEMPTS):
        try:
            return _decode(await link.client.create(INSTANCES, link.namespace, body)), True
        except AlreadyExistsError:
            with contextlib.suppress(NotFoundError):
                found_one = _decode(await link.client.get(INSTANCES, link.namespace, name))
                if found_one.spec.avatar_name != real or found_one.spec.pool_ref != ask.pool:
                    of = f"avatar {found_one.spec.avatar_name!r} in pool {found_one.spec.pool_ref!r}"
                    raise Stop(f"avatarinstance/{name} exists and is of {of}; choose another --name") from None
                if found_one.metadata.deletion_timestamp is None:
                    return found_one, False
            await asyncio.sleep(BEAT_SECONDS)
    raise Stop(f"avatarinstance/{name} is being deleted again and again; try later")


def _tell_joined(console: Console, ask: Ask, item: Instance) -> None:
    status, name = item.status, item.metadata.name
    state = "runs already" if progress.serves(item) else JOINED.get(status.phase, "is on its way already")
    console.print(f"joined: avatar {escape(item.spec.avatar_name)} {state}, as avatarinstance/{name}")
    if ask.spec:
        given = ", ".join(ask.spec)
        console.print(f"it keeps its own settings ({given} of this command not applied); --exclusive makes another one")


async def _wake(link: Link, item: Instance) -> Instance:
    """Count a session on it that ends by itself: a sleeping instance wakes, one that is being collected stays."""
    lease = sessions.Lease(ttl=WAKE_SECONDS, connect=WAKE_SECONDS)
    join = sessions.Join(CREATED_BY, sessions.Caller(any=True), lease)
    name = item.metadata.name
    for _ in range(ATTEMPTS):
        roll, _answers = sessions.apply(sessions.Roll.of(item.status), [join], datetime.now(UTC))
        body = {"metadata": {"resourceVersion": item.metadata.resource_version}, "status": roll.status()}
        try:
            return _decode(await link.client.merge_patch(INSTANCES, link.namespace, name, body, "status"))
        except ConflictError:
            item = _decode(await link.client.get(INSTANCES, link.namespace, name))
    raise Stop(f"avatarinstance/{name} is written by too many at once; try again")


# ---- waiting ---------------------------------------------------------------------


async def _until_ready(link: Link, ask: Ask, item: Instance, console: Console) -> Instance:
    meta = item.metadata
    began, until = time.monotonic(), datetime.now(UTC) + timedelta(seconds=ask.timeout)
    group = group_id(ask.pool, item.spec.avatar_name, meta.uid if item.spec.exclusive else "")
    last = ""
    async with _watching(link, item, group) as (instances, pods, pulls):
        with _Teller(console) as tell, instances.changes(meta.namespace, meta.name) as changed:
            while True:
                changed.clear()
                now = datetime.now(UTC)
                current = instances.get(meta.namespace, meta.name) if instances.synced.is_set() else item
                if current is None or current.metadata.uid != meta.uid:
                    raise Stop(f"avatarinstance/{meta.name} was deleted while it started")
                verdict = progress.verdict(current, now, until)
                if isinstance(verdict, Ready):
                    return current
                # A failure from before is waited out until the next try; a new one is told at once.
                new = current.status.phase == "Failed" and _record(current) != _record(item)
                if isinstance(verdict, Refused) or new:
                    raise _refused(current, now)
                live = [p for p in pods.values() if steps.alive(p)]
                text = steps.step(current, next(iter(live), None), pulls.values(), now)
                if instances.trouble:
                    text = "the API server does not answer; still trying"
                if text != last:
                    tell(time.monotonic() - began, text)
                    last = text
                if now >= until:
                    raise _late(current, ask.timeout, text)
                left = max(0.01, (until - now).total_seconds())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(BEAT_SECONDS, left)):
                        await changed.wait()


@contextlib.asynccontextmanager
async def _watching(
    link: Link, item: Instance, group: str
) -> AsyncIterator[tuple[Reflector[Instance], Reflector[Pod], Reflector[steps.Told]]]:
    """The instance, its pods and their pulls; the last two only add detail and may be forbidden."""
    meta, client = item.metadata, link.client
    instances = Reflector(client, INSTANCES, Instance, meta.namespace, fields=f"metadata.name={meta.name}")
    pods = Reflector(client, PODS, Pod, meta.namespace, optional=True, selector=f"{LABEL_GROUP}={group}")
    of_pulls = "involvedObject.kind=Pod,reason=Pulling"
    pulls = Reflector(client, EVENTS, steps.Told, meta.namespace, optional=True, fields=of_pulls)
    tasks = [asyncio.create_task(work) for work in (instances.run(), pods.run(), pulls.run())]
    try:
        yield instances, pods, pulls
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Teller:
    """Shows the step that is going on: on a terminal one line that moves, else a line for each."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status = console.status("") if console.is_terminal else None

    def __call__(self, seconds: float, text: str) -> None:
        if self._status is not None:
            self._status.update(escape(text))
        else:
            self._console.print(f"{seconds:6.1f} s  {escape(text)}")

    def __enter__(self) -> _Teller:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()


def _record(item: Instance) -> tuple[int, LastTermination | None]:
    """What changes with each failure."""
    return item.status.restarts, item.status.last_termination


def _refused(item: Instance, now: datetime) -> Stop:
    name = item.metadata.name
    advice = steps.remedy(item.status.reason, name)
    lines = [f"avatarinstance/{name} failed: {steps.failure(item, now)}"]
    lines += [f"what to do: {advice}"] if advice else []
    if item.status.retry_time is not None:
        lines.append(f"the operator goes on trying; to end that: kubectl avatar stop {name}")
    return Stop("\n".join(lines))


def _late(item: Instance, seconds: float, text: str) -> Stop:
    name, status = item.metadata.name, item.status
    lines = [f"avatarinstance/{name} does not serve after {seconds:.0f} s: {text}"]
    if advice := steps.remedy(status.reason, name):
        lines.append(f"what to do: {advice}")
    stays = "it keeps its place in the queue" if status.queue_position else "it goes on starting"
    lines.append(f"{stays}; kubectl avatar list {name} shows it, kubectl avatar stop {name} ends it")
    return Stop("\n".join(lines))


def _tell_ready(console: Console, item: Instance, seconds: float | None) -> None:
    status, now = item.status, datetime.now(UTC)
    where = [f"port {status.port}", f"node {status.node}" if status.node else ""]
    where += [f"GPU {index}" if (index := gpu(item)) else ""]
    if status.phase == "Shared" and status.shared_with:
        where.append(f"shares the pod of avatarinstance/{status.shared_with}")
    took = f" after {seconds:.1f} s" if seconds is not None else ""
    idle = f"; collected in {idle} unless somebody connects" if (idle := idle_in(item, now)) else ""
    text = escape(f"{item.spec.avatar_name} serves{took}: {', '.join(w for w in where if w)}{idle}")
    console.print(f"[green]{text}[/]")


def _decode(raw: bytes) -> Instance:
    return msgspec.json.decode(raw, type=Instance)
