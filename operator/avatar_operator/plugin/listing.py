"""`kubectl avatar list`: instances as rows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

from avatar_operator.domain.progress import EXHAUSTED
from avatar_operator.domain.resources import Instance
from avatar_operator.kube.kinds import INSTANCES
from avatar_operator.kube.reflector import Reflector

from . import screen, words
from .link import Link, Stop, Target
from .options import Output

HEADERS = ("NAME", "AVATAR", "PHASE", "PORT", "GPU", "CONNECTIONS", "IDLE-IN", "AGE", "NODE")
WIDE = ("POOL", "POD", "URL")
KIND = "avatarinstance.avatars.virtualtutor.io"


def state(item: Instance) -> str:
    """The phase, and what one must know with it: the reason, or the place in the queue."""
    status = item.status
    name = status.phase or "Pending"
    if name == "Pending" and status.reason in EXHAUSTED and status.queue_position:
        return f"{name} ({status.reason}, place {status.queue_position})"
    if name in ("Failed", "Pending") and status.reason:
        return f"{name} ({status.reason})"
    if name == "Shared" and status.shared_with:
        return f"{name} ({status.shared_with})"
    if name == "Starting" and status.reason not in ("", "Starting"):
        return f"{name} ({status.reason})"
    return name


def connections(item: Instance) -> str:
    """The connections that were counted, and the sessions that the runtime was seen to have beyond them."""
    seen = item.status.observed_sessions or 0
    known = item.counted_connections
    return f"{known} ({seen} seen)" if seen > known else str(known)


def idle_in(item: Instance, now: datetime) -> str:
    """When it is collected unless somebody comes."""
    deadline = item.status.idle_deadline
    if deadline is None:
        return ""
    return words.span(deadline - now) if deadline > now else "now"


def gpu(item: Instance) -> str:
    """The index of its GPU; ``?`` while it is not known which."""
    if item.status.gpu is None:
        return ""
    return "?" if item.status.gpu.index is None else str(item.status.gpu.index)


def headers(*, wide: bool, namespaces: bool) -> list[str]:
    """The headings of `row`."""
    return [*(["NAMESPACE"] if namespaces else []), *HEADERS, *(WIDE if wide else ())]


def row(item: Instance, now: datetime, *, wide: bool = False, namespaces: bool = False) -> list[words.Cell]:
    """One instance."""
    meta, status = item.metadata, item.status
    cells: list[words.Cell] = [meta.namespace] if namespaces else []
    cells += [
        meta.name,
        item.spec.avatar_name,
        words.phase(state(item)),
        str(status.port or ""),
        gpu(item),
        connections(item),
        idle_in(item, now),
        words.ago(meta.creation_timestamp, now),
        status.node or "",
    ]
    return [*cells, item.spec.pool_ref, status.pod_name or "", status.webrtc_url or ""] if wide else cells


def ordered(items: Iterable[Instance]) -> list[Instance]:
    """By namespace and avatar, of one avatar the oldest first."""
    return sorted(items, key=lambda i: (i.metadata.namespace, i.spec.avatar_name, i.age_key))


async def show(target: Target, word: str, form: Output, *, everywhere: bool, watch: bool) -> int | None:
    """The command."""
    if watch and form not in (Output.TABLE, Output.WIDE):
        raise Stop("--watch writes rows: leave --output out, or choose wide", 2)
    wide = form is Output.WIDE
    async with Link.open(target) as link:
        raw, _ = await link.client.list_pages(INSTANCES, "" if everywhere else link.namespace)
        items = [i for i in msgspec.convert(raw, list[Instance]) if _matches(i, word)]
        if form not in (Output.TABLE, Output.WIDE):
            keep = {(i.metadata.namespace, i.metadata.name) for i in items}
            chosen = [o for o in raw if (o["metadata"]["namespace"], o["metadata"]["name"]) in keep]
            typed = [{"apiVersion": INSTANCES.api_version, "kind": "AvatarInstance", **o} for o in chosen]
            screen.dump(typed, form, KIND)
            return None
        if not items and not watch:
            where = "in any namespace" if everywhere else f"in namespace {link.namespace}"
            what = f"of avatar {word!r} " if word else ""
            text = f"No avatar instances {what}{where}. Start one: kubectl avatar start AVATAR"
            screen.err().print(text, markup=False)
            return None
        now = datetime.now(UTC)
        head = headers(wide=wide, namespaces=everywhere)
        rows = [row(i, now, wide=wide, namespaces=everywhere) for i in ordered(items)]
        if not watch:
            screen.show(words.table(head, rows))
            return None
        await _follow(link, word, head, wide=wide, everywhere=everywhere)
    return None


async def _follow(link: Link, word: str, head: list[str], *, wide: bool, everywhere: bool) -> None:
    """Rows as they change, until somebody ends it."""
    # What is shown is compared, not what is written: a heartbeat is no news.
    shown: dict[tuple[str, str], list[str]] = {}
    sizes = [max(len(name), 12) for name in head]
    console = screen.out()
    console.print(words.line(head, sizes, "bold"))

    def changed(before: Instance | None, after: Instance | None) -> None:
        item = after or before
        if item is None or not _matches(item, word):
            return
        key = (item.metadata.namespace, item.metadata.name)
        cells = row(item, datetime.now(UTC), wide=wide, namespaces=everywhere)
        if after is None:
            shown.pop(key, None)
            cells[3 if everywhere else 2] = words.phase("gone")
        else:
            idle_and_age = len(HEADERS) - 3 + everywhere
            plain = [str(c) for i, c in enumerate(cells) if i not in (idle_and_age, idle_and_age + 1)]
            if shown.get(key) == plain:
                return
            shown[key] = plain
        sizes[:] = [max(*pair) for pair in zip(sizes, words.widths([cells]), strict=True)]
        console.print(words.line(cells, sizes))

    copy = Reflector(link.client, INSTANCES, Instance, "" if everywhere else link.namespace)
    copy.listeners.append(changed)
    await asyncio.create_task(copy.run())


def _matches(item: Instance, word: str) -> bool:
    return not word or word in (item.metadata.name, item.spec.avatar_name)
