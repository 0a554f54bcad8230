"""The memory of GPUs as bars: what avatars use and reserve, what others use, what is free. Pure; MiB."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
from rich.text import Text

from avatar_operator.domain.gpunode import GpuNode, GpuReport
from avatar_operator.domain.ledger import Reservation, account
from avatar_operator.domain.resources import Pod

from . import words

Pods = Mapping[tuple[str, str], Pod]

# Mark and style of each part, in the order of the bar.
USED, RESERVED, EXTERNAL, FREE = ("█", "green"), ("▒", "green"), ("▓", "magenta"), ("░", "bright_black")
_EPOCH = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class Vram:
    """One GPU. ``used`` by avatars and engines, ``reserved`` for them beyond that, ``external`` by others."""

    total: int
    used: int
    reserved: int
    external: int

    @property
    def free(self) -> int:
        """What is left for a new pod; never negative."""
        return max(0, self.total - self.used - self.reserved - self.external)


def vram(node: GpuNode, report: GpuReport, pods: Pods) -> Vram | None:
    """The account of one GPU by the operator's own rules; None where NVML cannot tell.

    ``pods``: the operator's by namespace and name. Where one of a reservation
    is not among them (they may not be read), it counts as loaded.
    """
    if report.memory is None:
        return None
    held, known = [], report.processes_known
    for entry in node.status.reservations:
        if entry.uuid == report.uuid:
            pod = pods.get((entry.namespace, entry.pod))
            known = known and pod is not None
            uid, ready = (pod.metadata.uid, pod.ready_since) if pod is not None else ("", _EPOCH)
            held.append(Reservation(entry.namespace, entry.pod, entry.uuid, node.metadata.name, entry.mib, uid, ready))
    seen = report if known else msgspec.structs.replace(report, processes_known=False)
    room = account(seen, held, (), node.status.last_report, node.stale_at)
    used = min(report.memory.used_mib - min(room.external, report.memory.used_mib), room.total)
    return Vram(room.total, used, max(0, room.reserved - used), room.external)


def bar(room: Vram, width: int) -> Text:
    """``width`` cells; whatever is there shows at least one."""
    parts = [(room.used, USED), (room.reserved, RESERVED), (room.external, EXTERNAL)]
    result, left = Text(), width
    for mib, (mark, style) in parts:
        cells = min(left, max(1, round(width * mib / room.total))) if mib > 0 and room.total else 0
        result.append(mark * cells, style)
        left -= cells
    result.append(FREE[0] * left, FREE[1])
    return result


def legend() -> Text:
    """What the marks of a bar mean."""
    return words.legend((("avatars", USED), ("reserved for them", RESERVED), ("others", EXTERNAL), ("free", FREE)))
