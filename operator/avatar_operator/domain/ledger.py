"""How much memory of a GPU is free for a new pod: what NVML measured, and what is reserved on it.

The sum that the old manager left out: it read NVML's free memory, and two
starts in one second read the same. Here a reservation counts from the moment
its claim is on the way until its pod is gone; a pod that still loads counts in
full; memory of anybody else, inside Kubernetes or not, is external use.

All memory in MiB.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from .gpunode import GpuReport

# A pod counts as loaded in a report that is younger than its readiness by this much: times have whole seconds, and
# a runtime may go on taking memory for its first frames.
LOADED_AFTER = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Reservation:
    """``mib`` of the GPU ``uuid`` for the pod ``name`` in ``namespace``.

    ``pod_uid`` is empty until the pod exists; ``ready`` is since when it is.
    """

    namespace: str
    name: str
    uuid: str
    node: str
    mib: int
    pod_uid: str = ""
    ready: datetime | None = None


@dataclass(frozen=True, slots=True)
class Room:
    """The account of one GPU. ``free`` may be negative: others took what was reserved.

    ``free`` holds while its report is fresh (until ``stale_at``); after that
    ``ledger`` does, which rests on reservations and on the last known external
    use alone. ``total`` 0 = NVML cannot tell.
    """

    total: int = 0
    reserved: int = 0
    external: int = 0
    free: int = 0
    ledger: int = 0
    stale_at: datetime | None = None

    def stale(self, now: datetime) -> bool:
        """Whether the report is too old to say what is free."""
        return self.stale_at is None or now >= self.stale_at

    def free_at(self, now: datetime) -> int:
        """What a new pod may reserve."""
        return self.ledger if self.stale(now) else self.free


def account(
    report: GpuReport,
    held: Collection[Reservation],
    departed: Collection[Reservation],
    reported: datetime | None,
    stale_at: datetime | None,
) -> Room:
    """The room on one GPU, given its report (made at ``reported``) and everything reserved on it.

    ``departed``: reservations that ended after the report; what their pods used
    in it is not external use. What ours use is measured per pod where the agent
    can tell processes apart. Elsewhere a loaded pod is taken to use what it
    reserved, so that the rest of NVML's figure is external.
    """
    reserved = sum(r.mib for r in held)
    memory = report.memory
    if memory is None:
        return Room(reserved=reserved, stale_at=stale_at)
    if report.processes_known:
        measured = {pod.uid: pod.used_mib for pod in report.pods}
        ours = sum(measured.get(r.pod_uid, 0) for r in (*held, *departed))
        # Reserved and not used yet; one that uses more than it reserved must not hide another that still loads.
        pending = sum(max(0, r.mib - measured.get(r.pod_uid, 0)) for r in held)
        taken = sum(max(r.mib, measured.get(r.pod_uid, 0)) for r in held)
    else:
        ours = sum(r.mib for r in (*held, *departed) if _loaded(r, reported))
        pending = reserved - min(memory.used_mib, sum(r.mib for r in held if _loaded(r, reported)))
        taken = reserved
    external = max(0, memory.used_mib - ours)
    # What the driver keeps for itself is nobody's, where NVML tells it apart from what is used.
    ledger = memory.total_mib - memory.reserved_mib - external - taken
    return Room(
        total=memory.total_mib,
        reserved=reserved,
        external=external,
        free=min(memory.free_mib - pending, ledger),
        ledger=ledger,
        stale_at=stale_at,
    )


def _loaded(reservation: Reservation, reported: datetime | None) -> bool:
    """Whether the report was made after the pod had loaded."""
    return reservation.ready is not None and reported is not None and reservation.ready + LOADED_AFTER <= reported
