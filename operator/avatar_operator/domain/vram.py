"""The memory of one GPU as people see it: what avatars use and reserve, what others use, what is free. MiB."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from .gpunode import GpuNode, GpuReport
from .ledger import Reservation, account
from .resources import Pod

Pods = Mapping[tuple[str, str], Pod]

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
