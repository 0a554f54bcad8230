"""The screen of `kubectl avatar top`, line by line. Pure: what is known and the time go in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from rich.text import Text

from avatar_operator.domain.gpunode import GpuNode, GpuReport
from avatar_operator.domain.resources import Instance, Pool
from avatar_operator.domain.slots import Slot, slots
from avatar_operator.domain.tts import TtsEngine
from avatar_operator.domain.vram import Pods, vram

from . import words
from .listing import connections, gpu, idle_in, state
from .pools import port_range, ready
from .vram import bar, legend

# Ports are drawn one by one up to so many in a pool.
DRAWN_PORTS = 40
BAR = 24
# Most lines of a section where the screen ends somewhere; instances get what is left.
MOST = {"pools": 6, "gpus": 16, "engines": 6, "queue": 6}
LEAST_INSTANCES = 5
HOT_CELSIUS = 85

# What a port is, as (mark, style); they differ without colours, too.
MARKS = {
    Slot.IN_USE: ("●", "green"),
    Slot.UNUSED: ("○", "cyan"),
    Slot.MOVING: ("◐", "yellow"),
    Slot.CLAIMED: ("◌", "yellow"),
    Slot.FREE: ("·", "bright_black"),
}

# Who needs attention comes first.
_RANK = ("Failed", "Draining", "Starting", "Running", "Shared", "Stopped")


@dataclass(frozen=True, slots=True)
class Scene:
    """What is known at ``now``. ``trouble``: why it is not up to date, since ``trouble_since``."""

    now: datetime
    context: str = ""
    namespace: str = ""
    instances: Sequence[Instance] = ()
    pools: Sequence[Pool] = ()
    nodes: Sequence[GpuNode] = ()
    engines: Sequence[TtsEngine] = ()
    pods: Pods = field(default_factory=dict)
    trouble: str = ""
    trouble_since: datetime | None = None


def lines(scene: Scene, width: int, height: int | None = None) -> list[Text]:
    """The screen, ``width`` cells wide and at most ``height`` lines high (None: all there is)."""
    sections = {
        "pools": _pools(scene),
        "gpus": _gpus(scene),
        "engines": _engines(scene),
        "queue": _queue(scene),
        "instances": _instances(scene),
    }
    head, foot = _head(scene), _foot(scene)
    if height is not None:
        _fit(sections, height - len(head) - len(foot))
    result = list(head)
    for rows in sections.values():
        if rows:
            result += [Text(), *rows]
    result += foot
    for each in result:
        each.truncate(width, overflow="ellipsis")
    return result if height is None else result[:height]


def _fit(sections: dict[str, list[Text]], room: int) -> None:
    """Shorten sections (their first line is a heading) until all of them fit into ``room`` lines."""
    for name, most in MOST.items():
        sections[name] = _shorten(sections[name], most + 1)
    others = sum(len(rows) + 1 for name, rows in sections.items() if name != "instances" and rows)
    # A small screen: the sections that are longest give.
    while others + LEAST_INSTANCES + 2 > room:
        longest = max(MOST, key=lambda name: len(sections[name]))
        if len(sections[longest]) <= 3:
            break
        sections[longest] = _shorten(sections[longest], len(sections[longest]) - 1)
        others -= 1
    sections["instances"] = _shorten(sections["instances"], max(2, room - others - 1))


def _shorten(rows: list[Text], most: int) -> list[Text]:
    """At most so many lines, the last of which says how many are missing."""
    if len(rows) <= most:
        return rows
    hidden = len(rows) - most + 1
    if rows and rows[-1].plain.startswith("… and "):
        # It was shortened before.
        hidden += int(rows[-1].plain.split()[2]) - 1
    return [*rows[: most - 1], Text(f"… and {hidden} more", "dim")]


# ---- head --------------------------------------------------------------------------


def _head(scene: Scene) -> list[Text]:
    counts = Counter(i.status.phase or "Pending" for i in scene.instances)
    people = sum(i.counted_connections for i in scene.instances)
    title = Text("avatars ", "bold")
    title.append(scene.namespace or "all namespaces", "bold cyan")
    title.append(f"  {scene.context}  ", "dim")
    title.append(f"{scene.now:%H:%M:%S} UTC", "dim")
    summary = Text()
    for name in ("Running", "Shared", "Starting", "Pending", "Draining", "Stopped", "Failed"):
        if counts[name]:
            summary.append(f"{counts[name]} {name.lower()}  ", words.STYLES[name])
    if not counts:
        summary.append("no instances  ", "dim")
    summary.append(f"{words.counted(people, 'connection')}", "bold")
    if not scene.trouble:
        return [title, summary]
    since = scene.trouble_since or scene.now
    warning = Text(
        f"! out of date: what you see is from {since:%H:%M:%S} ({words.ago(since, scene.now)} ago): {scene.trouble}",
        "bold white on red",
    )
    return [title, summary, warning]


def _foot(scene: Scene) -> list[Text]:
    """What the marks mean."""
    told = (
        [Text("ports ", "bold") + words.legend((slot.value, mark) for slot, mark in MARKS.items())]
        if scene.pools
        else []
    )
    if any(node.status.gpus for node in scene.nodes):
        told.append(Text("GPUs  ", "bold") + legend())
    return [Text(), *told] if told else []


# ---- pools ---------------------------------------------------------------------------


def _pools(scene: Scene) -> list[Text]:
    rows: list[list[words.Cell]] = []
    for pool in sorted(scene.pools, key=lambda p: (p.metadata.namespace, p.metadata.name)):
        mine = [
            i
            for i in scene.instances
            if i.spec.pool_ref == pool.metadata.name and i.metadata.namespace == pool.metadata.namespace
        ]
        status = pool.status.ports
        rows.append(
            [
                *_place(scene, pool.metadata.namespace),
                pool.metadata.name,
                port_range(pool),
                _ports(pool, mine),
                str(status.used) if status else "?",
                str(status.free) if status else "?",
                str(pool.status.queue_length),
                ready(pool),
            ]
        )
    head = [*_place(scene, "NS"), "POOL", "PORTS", "", "USED", "FREE", "QUEUE", "READY"]
    return words.table(head, rows) if rows else []


def _ports(pool: Pool, mine: Iterable[Instance]) -> Text:
    """A mark for each port."""
    result = Text()
    if pool.spec.ports.count <= DRAWN_PORTS:
        for _, slot, _ in slots(pool, mine):
            result.append(*MARKS[slot])
    return result


# ---- GPUs ----------------------------------------------------------------------------


def _gpus(scene: Scene) -> list[Text]:
    rows: list[list[words.Cell]] = []
    for node in sorted(scene.nodes, key=lambda n: n.metadata.name):
        stale = node.stale_at is None or node.stale_at <= scene.now
        for report in sorted(node.status.gpus, key=lambda r: (r.index, r.uuid)):
            if report.mig_enabled and report.memory is None:
                # Its devices have lines of their own.
                continue
            rows.append(_gpu(scene, node, report, stale=stale))
    if not rows:
        return []
    return words.table(["GPU", "MODEL", "", "AVATARS", "OTHERS", "FREE", "TOTAL", "TEMP", "BUSY", "ALERTS"], rows)


def _gpu(scene: Scene, node: GpuNode, report: GpuReport, *, stale: bool) -> list[words.Cell]:
    room = vram(node, report, scene.pods)
    heat, busy = report.temperature_celsius, report.utilization_percent
    figures: list[words.Cell] = ["", "", "", ""]
    drawn = Text("·" * BAR, "dim")
    if room is not None:
        drawn = bar(room, BAR)
        taken = room.used + room.reserved
        figures = [words.gib(taken), words.gib(room.external), words.gib(room.free), f"{words.gib(room.total)} GiB"]
    return [
        f"{node.metadata.name}/{report.index}",
        report.product.removeprefix("NVIDIA").strip(" -"),
        drawn,
        *figures,
        Text(f"{heat} °C", "bold red" if heat >= HOT_CELSIUS else "") if heat is not None else "",
        f"{busy} %" if busy is not None else "",
        _alerts(scene, node, report, stale=stale),
    ]


def _alerts(scene: Scene, node: GpuNode, report: GpuReport, *, stale: bool) -> Text:
    if stale:
        last = node.status.last_report
        return Text(f"no report for {words.ago(last, scene.now)}" if last else "never reported", "bold red")
    if not report.healthy:
        return Text(report.reason or "unhealthy", "bold red")
    told = [a.type for a in report.alerts]
    if report.uuid in node.spec.cordoned:
        told.append("cordoned")
    return Text(", ".join(told), "bold yellow")


# ---- engines, queue, instances ---------------------------------------------------------


def _engines(scene: Scene) -> list[Text]:
    rows: list[list[words.Cell]] = []
    for engine in sorted(scene.engines, key=lambda e: (e.metadata.namespace, e.metadata.name)):
        status = engine.status
        replicas = f"{status.ready_replicas}/{status.replicas}" if status.replicas else ""
        cells: list[words.Cell] = [*_place(scene, engine.metadata.namespace), engine.metadata.name]
        cells += [words.phase(status.phase or "Pending"), str(status.users), replicas, status.message]
        rows.append(cells)
    return words.table([*_place(scene, "NS"), "ENGINE", "PHASE", "USERS", "READY", ""], rows) if rows else []


def _queue(scene: Scene) -> list[Text]:
    waiting = [i for i in scene.instances if i.status.phase in ("", "Pending")]
    rows: list[list[words.Cell]] = []
    for item in sorted(waiting, key=lambda i: (i.metadata.namespace, i.spec.pool_ref, i.status.queue_position or 0)):
        status, meta = item.status, item.metadata
        place = str(status.queue_position) if status.queue_position else "–"
        why = status.message or status.reason or "waiting for the operator"
        waited = words.ago(meta.creation_timestamp, scene.now)
        rows.append([*_place(scene, meta.namespace), place, item.spec.avatar_name, item.spec.pool_ref, waited, why])
    return words.table([*_place(scene, "NS"), "QUEUE", "AVATAR", "POOL", "WAITED", "WHY"], rows) if rows else []


def _instances(scene: Scene) -> list[Text]:
    shown = [i for i in scene.instances if i.status.phase not in ("", "Pending")]
    rows: list[list[words.Cell]] = []
    for item in sorted(shown, key=_attention):
        status, now = item.status, scene.now
        last = status.message if status.phase in ("Failed", "Draining") else status.node or ""
        rows.append(
            [
                *_place(scene, item.metadata.namespace),
                item.spec.avatar_name,
                words.phase(state(item)),
                str(status.port or ""),
                gpu(item),
                connections(item),
                idle_in(item, now),
                words.ago(item.metadata.creation_timestamp, now),
                last,
            ]
        )
    head = [*_place(scene, "NS"), "AVATAR", "PHASE", "PORT", "GPU", "CONN", "IDLE-IN", "AGE", "NODE"]
    return words.table(head, rows) if rows else []


def _attention(item: Instance) -> tuple[int, int, str, str]:
    phase = item.status.phase
    rank = _RANK.index(phase) if phase in _RANK else len(_RANK)
    return rank, -item.counted_connections, item.spec.avatar_name, item.metadata.name


def _place(scene: Scene, namespace: str) -> list[str]:
    """The column of namespaces, where there are several."""
    return [] if scene.namespace else [namespace]
