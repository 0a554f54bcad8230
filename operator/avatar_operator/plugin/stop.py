"""`kubectl avatar stop`: delete instances that nobody uses, and wait until pod and port are released."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp
import msgspec
import typer

from avatar_operator.domain.meaning import meant
from avatar_operator.domain.names import SELECTOR, claim_name
from avatar_operator.domain.resources import Instance, Pod, Service
from avatar_operator.kube.errors import ApiError, ConflictError, NotFoundError
from avatar_operator.kube.kinds import INSTANCES, PODS, SERVICES

from . import screen, words
from .link import Link, Stop, Target

# The runtime is asked itself who is connected; it answers soon or not at all (seconds).
ASK_SECONDS = 2.0
ATTEMPTS = 6
LOOK_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class Held:
    """What an instance holds that goes with it, by UID."""

    pods: frozenset[str]
    services: frozenset[str]


async def run(
    target: Target, words_: Sequence[str], *, everything: bool, force: bool, yes: bool, timeout: float
) -> int | None:
    """The command. Exit code 1 when somebody is connected, or something is left at the end."""
    if bool(words_) == everything:
        raise Stop("name an avatar or an instance, or give --all" if not words_ else "either names or --all", 2)
    async with Link.open(target) as link:
        present = [i for i in await link.instances() if i.metadata.deletion_timestamp is None]
        chosen = _chosen(link, present, words_)
        if everything and not chosen:
            screen.err().print(f"No avatar instances in namespace {link.namespace}.", markup=False)
            return None
        if everything and not yes:
            _confirm(link, chosen)
        if not force:
            used = await _used(link, chosen, present)
            if used and not everything:
                raise Stop(_in_use(used))
            for item, number in used:
                screen.err().print(f"kept: {_phrase(item, number)}", markup=False)
            spared = {i.metadata.uid for i, _ in used}
            chosen = [i for i in chosen if i.metadata.uid not in spared]
        held = await _held(link, chosen, present)
        kept = [item for item in chosen if not await _delete(link, item, force=force)]
        _tell_shared(chosen, present)
        await _until_released(link, held, timeout)
        if everything and not force and (used or kept):
            raise Stop("not all were stopped: --force stops those that are in use, too")
    return None


def _chosen(link: Link, present: Sequence[Instance], texts: Sequence[str]) -> list[Instance]:
    if not texts:
        return list(present)
    result: dict[str, Instance] = {}
    for text in texts:
        found = meant(present, text)
        if not found:
            raise Stop(f"no instance and no avatar {text!r} runs in namespace {link.namespace}; kubectl avatar list")
        result |= {i.metadata.uid: i for i in found}
    return list(result.values())


def _confirm(link: Link, chosen: Sequence[Instance]) -> None:
    what = words.counted(len(chosen), "instance")
    where = f"{what} in namespace {link.namespace} of {link.context}"
    if not sys.stdin.isatty():
        raise Stop(f"nobody can be asked whether to stop {where}; say so with --yes", 2)
    if not typer.confirm(f"Stop {where}?", err=True):
        raise Stop("nothing was stopped")


# ---- who is connected --------------------------------------------------------------


async def _used(link: Link, chosen: Sequence[Instance], present: Sequence[Instance]) -> list[tuple[Instance, int]]:
    """Those of ``chosen`` that somebody uses, with how many."""
    going = {i.metadata.uid for i in chosen}
    # Who shares a pod that stays is not cut off.
    staying = {i.status.pod_name for i in present if i.metadata.uid not in going and i.status.pod_name}

    async def count(item: Instance) -> tuple[Instance, int]:
        known = item.counted_connections
        if known or item.status.pod_name in staying or item.status.phase not in ("Running", "Draining"):
            return item, known
        return item, await _sessions(link, item)

    numbers = await asyncio.gather(*(count(i) for i in chosen))
    return [(item, number) for item, number in numbers if number]


async def _sessions(link: Link, item: Instance) -> int:
    """What the runtime says through the API server; what the operator saw last where it does not answer."""
    pod, port = item.status.pod_name, item.status.port
    path = f"{PODS.path(item.metadata.namespace, f'{pod}:{port}', 'proxy')}/health"
    try:
        async with asyncio.timeout(ASK_SECONDS), link.session.get(link.server + path) as answer:
            found = msgspec.json.decode(await answer.read()) if answer.status == 200 else {}
            sessions = found.get("sessions") if isinstance(found, dict) else None
            if isinstance(sessions, int):
                return sessions
    except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError):
        # Not everybody may ask pods, and not every runtime tells.
        pass
    return item.status.observed_sessions or 0


def _phrase(item: Instance, number: int) -> str:
    name, avatar = item.metadata.name, item.spec.avatar_name
    return f"{words.counted(number, 'person/people')} connected to {avatar} (avatarinstance/{name})"


def _in_use(used: Sequence[tuple[Instance, int]]) -> str:
    told = "\n".join(_phrase(item, number) for item, number in used)
    return f"{told}\nnothing was stopped; wait until they have left, or cut them off with --force"


# ---- ending ------------------------------------------------------------------------


async def _held(link: Link, chosen: Sequence[Instance], present: Sequence[Instance]) -> Held:
    """Pods and Services that go with ``chosen``: not those that another instance goes on using."""
    going = {i.metadata.uid for i in chosen}
    staying = {i.status.port for i in present if i.metadata.uid not in going and i.status.port}
    ports = {i.status.port for i in chosen if i.status.port} - staying
    names = {claim_name(port) for port in ports if port is not None}
    pods, services = await _of_avatars(link)
    return Held(
        frozenset(p.metadata.uid for p in pods if p.metadata.name in names),
        frozenset(s.metadata.uid for s in services if s.metadata.name in names),
    )


async def _of_avatars(link: Link) -> tuple[list[Pod], list[Service]]:
    """Pods and Services of the operator; none where they may not be read."""
    try:
        pods, _ = await link.client.list_pages(PODS, link.namespace, SELECTOR)
        services, _ = await link.client.list_pages(SERVICES, link.namespace, SELECTOR)
    except ApiError as error:
        if error.status != 403:
            raise
        return [], []
    return msgspec.convert(pods, list[Pod]), msgspec.convert(services, list[Service])


async def _delete(link: Link, seen: Instance, *, force: bool) -> bool:
    """Delete it as it was seen: without ``force``, somebody who joins at this moment wins (False)."""
    item, console = seen, screen.err()
    for _ in range(ATTEMPTS):
        meta = item.metadata
        version = "" if force else meta.resource_version
        try:
            await link.client.delete(INSTANCES, meta.namespace, meta.name, uid=meta.uid, resource_version=version)
        except NotFoundError:
            return True
        except ConflictError:
            try:
                raw = await link.client.get(INSTANCES, meta.namespace, meta.name)
            except NotFoundError:
                return True
            item = msgspec.json.decode(raw, type=Instance)
            if item.metadata.uid != seen.metadata.uid:
                return True
            if item.counted_connections and not force:
                console.print(f"kept: {_phrase(item, item.counted_connections)}", markup=False)
                return False
            continue
        console.print(f"stopped {item.spec.avatar_name} (avatarinstance/{meta.name})", markup=False)
        return True
    raise Stop(f"avatarinstance/{seen.metadata.name} changes all the time; try again, or use --force")


def _tell_shared(chosen: Sequence[Instance], present: Sequence[Instance]) -> None:
    """Pods that go on, and for whom."""
    going = {i.metadata.uid for i in chosen}
    for pod in sorted({i.status.pod_name for i in chosen if i.status.pod_name}):
        others = [i.metadata.name for i in present if i.status.pod_name == pod and i.metadata.uid not in going]
        if others:
            screen.err().print(f"pod {pod} goes on for avatarinstance/{', '.join(others)}", markup=False)


async def _until_released(link: Link, held: Held, timeout: float) -> None:
    """Wait until the pods are gone and their ports free."""
    if not held.pods and not held.services:
        return
    console, began = screen.err(), time.monotonic()
    spinner = console.status("waiting for the pods to end and the ports to be free")
    with spinner:
        while True:
            pods, services = await _of_avatars(link)
            left = [p.metadata.name for p in pods if p.metadata.uid in held.pods]
            ports = [s.metadata.name for s in services if s.metadata.uid in held.services]
            if not left and not ports:
                break
            if time.monotonic() - began > timeout:
                raise Stop(_left(left, ports, timeout))
            spinner.update(f"waiting for {', '.join([*left, *(f'service/{p}' for p in ports)])}")
            await asyncio.sleep(LOOK_SECONDS)
    released = words.counted(len(held.services), "port")
    console.print(f"{released} free again after {time.monotonic() - began:.1f} s", markup=False)


def _left(pods: Sequence[str], ports: Sequence[str], timeout: float) -> str:
    if pods:
        return (
            f"after {timeout:.0f} s pod {', '.join(pods)} still ends: it lets its conversations finish "
            "(termination.drainSeconds of the AvatarPool); its port is released after that"
        )
    return (
        f"after {timeout:.0f} s Service {', '.join(ports)} still claims its port, though its pod is gone: "
        "does avatar-operator run in this cluster?"
    )
