"""`kubectl avatar pool`: pools as rows, one pool with its ports and conditions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec
from rich.text import Text

from avatar_operator.domain.resources import Instance, Pool
from avatar_operator.kube.kinds import POOLS

from . import screen, words
from .link import Link, Stop, Target
from .listing import connections, state
from .options import Output

HEADERS = ("NAME", "PORTS", "USED", "FREE", "INSTANCES", "QUEUE", "NETWORK", "GPU", "READY", "AGE")
KIND = "avatarpool.avatars.virtualtutor.io"
PHASES = ("running", "starting", "draining", "pending", "shared", "stopped", "failed")


def port_range(pool: Pool) -> str:
    """First and last port."""
    ports = pool.spec.ports
    return f"{ports.base}–{ports.base + ports.count - 1}"


def phases(pool: Pool) -> str:
    """How many instances are in which phase; those that are in none are left out."""
    status = pool.status.instances
    numbers = [(name, getattr(status, name)) for name in PHASES] if status is not None else []
    return ", ".join(f"{number} {name}" for name, number in numbers if number) or "none"


def ready(pool: Pool) -> Text:
    """The condition Ready with its reason where that matters."""
    condition = next((c for c in pool.status.conditions if c.type == "Ready"), None)
    if condition is None:
        return Text("not seen by the operator yet", "yellow")
    if condition.status == "True":
        return Text("yes", "green")
    return Text(condition.reason or "no", "bold red")


def row(pool: Pool, now: datetime, *, namespaces: bool = False) -> list[words.Cell]:
    """One pool."""
    meta, status = pool.metadata, pool.status
    return [
        *([meta.namespace] if namespaces else []),
        meta.name,
        port_range(pool),
        str(status.ports.used) if status.ports else "",
        str(status.ports.free) if status.ports else "",
        phases(pool),
        str(status.queue_length),
        pool.spec.network.mode,
        pool.spec.gpu.mode,
        ready(pool),
        words.ago(meta.creation_timestamp, now),
    ]


def detail(pool: Pool, instances: Sequence[Instance], now: datetime) -> list[Text]:
    """Everything about one pool: rules, each port, the queue, the conditions."""
    spec, mine = pool.spec, [i for i in instances if i.spec.pool_ref == pool.metadata.name]
    limit = f", {spec.max_instances} instances at most" if spec.max_instances is not None else ""
    idle = f"after {words.span(timedelta(seconds=spec.idle.timeout_seconds))}: {spec.idle.action}"
    facts = [
        ("Pool", pool.metadata.name),
        ("Image", spec.runtime.image),
        ("Network", spec.network.mode + (f", {spec.network.external_host}" if spec.network.external_host else "")),
        ("GPU", _gpu(pool)),
        ("Ports", f"{port_range(pool)}{limit}"),
        ("Instances", phases(pool)),
        ("Queue", f"{pool.status.queue_length} of {spec.queue.max_length}"),
        ("Idle", idle if spec.idle.timeout_seconds else "never collected"),
    ]
    result = [words.line((f"{name}:", value), (10, 0)) for name, value in facts]
    if rows_of_ports := _ports(pool, mine, now):
        result += [Text(), *rows_of_ports]
    waiting = sorted((i for i in mine if i.status.queue_position), key=lambda i: i.status.queue_position or 0)
    if waiting:
        rows = [
            [str(i.status.queue_position), i.metadata.name, i.spec.avatar_name, i.status.reason, i.status.message]
            for i in waiting
        ]
        result += [Text(), *words.table(("PLACE", "NAME", "AVATAR", "WHY", "MESSAGE"), rows)]
    if pool.status.conditions:
        rows = [[c.type, c.status, c.reason, c.message] for c in pool.status.conditions]
        result += [Text(), *words.table(("CONDITION", "STATUS", "REASON", "MESSAGE"), rows)]
    return result


async def show(target: Target, name: str, form: Output, *, everywhere: bool) -> int | None:
    """The command."""
    async with Link.open(target) as link:
        raw, _ = await link.client.list_pages(POOLS, "" if everywhere else link.namespace)
        raw = [o for o in raw if name in ("", o["metadata"]["name"])]
        if name and not raw:
            raise Stop(f"there is no AvatarPool {name!r} in namespace {link.namespace}; kubectl avatar pool lists them")
        if form not in (Output.TABLE, Output.WIDE):
            screen.dump([{"apiVersion": POOLS.api_version, "kind": "AvatarPool", **o} for o in raw], form, KIND)
            return None
        pools = sorted(msgspec.convert(raw, list[Pool]), key=lambda p: (p.metadata.namespace, p.metadata.name))
        now = datetime.now(UTC)
        if name and not everywhere:
            screen.show(detail(pools[0], await link.instances(), now))
        elif pools:
            head = [*(["NAMESPACE"] if everywhere else []), *HEADERS]
            screen.show(words.table(head, [row(p, now, namespaces=everywhere) for p in pools]))
        else:
            where = "any namespace" if everywhere else f"namespace {link.namespace}"
            screen.err().print(f"No AvatarPool in {where}.", markup=False)
    return None


def _gpu(pool: Pool) -> str:
    gpu = pool.spec.gpu
    if gpu.mode == "None":
        return "None"
    return f"{gpu.mode}, {words.gib(gpu.per_instance_mib)} GiB each, {words.gib(gpu.min_free_mib)} GiB must be free"


def _ports(pool: Pool, mine: Sequence[Instance], now: datetime) -> list[Text]:
    """A row for each claimed port; free ones are counted."""
    claimed = pool.status.ports.in_use if pool.status.ports else []
    holders = {i.status.port: i for i in mine if i.status.port and i.status.phase != "Shared"}
    rows: list[list[words.Cell]] = []
    for port in sorted({*claimed, *holders}):
        item = holders.get(port)
        if item is None:
            rows.append([str(port), "", "", words.phase("being released"), "", "", ""])
            continue
        since = words.ago(item.status.ready_time or item.status.start_time, now)
        name, avatar, node = item.metadata.name, item.spec.avatar_name, item.status.node or ""
        rows.append([str(port), name, avatar, words.phase(state(item)), connections(item), node, since])
    return words.table(("PORT", "NAME", "AVATAR", "PHASE", "CONNECTIONS", "NODE", "SINCE"), rows) if rows else []
