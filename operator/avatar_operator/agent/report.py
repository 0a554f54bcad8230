"""From what was read to what is reported, and whether that is worth a write. Pure: the time is passed in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import msgspec

from avatar_operator.domain.clock import floor
from avatar_operator.domain.gpunode import GpuNodeStatus, GpuReport, PodMemory
from avatar_operator.domain.resources import Condition
from avatar_operator.domain.status import merge_conditions

from .alerts import Busy, Thresholds, alerts, word
from .reading import NAMELESS, Reading, Snapshot, Trouble

# Memory that moved less than both is no reason to write.
MOVED_MIB, MOVED_SHARE = 256, 0.01
# lastReport has whole seconds and the clock of a loop jitters: due this much early is due.
SLACK = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class State:
    """What the agent knows: its newest report, and since when which GPU (by UUID) has been busy."""

    status: GpuNodeStatus = GpuNodeStatus()
    busy_since: Mapping[str, datetime] = field(default_factory=dict)


def report(
    before: State, snapshot: Snapshot, thresholds: Thresholds, heartbeat_seconds: int, now: datetime, node: str = ""
) -> State:
    """The next state. A GPU that was there before and is not in ``snapshot`` is reported as lost."""
    old = {gpu.uuid: gpu for gpu in before.status.gpus}
    busy = Busy(before.busy_since)
    gpus = []
    parents = {reading.uuid: reading for reading in snapshot.gpus if reading.trouble}
    for reading in snapshot.gpus:
        known = old.get(reading.uuid)
        gpu = _gpu(reading, known)
        shown = alerts(reading, gpu, known.alerts if known is not None else (), thresholds, busy, now)
        gpus.append(msgspec.structs.replace(gpu, alerts=shown))
    for gpu in missing(before.status, snapshot):
        parent = parents.get(gpu.mig.parent_uuid) if gpu.mig is not None else None
        gone = _gone(gpu, parent, snapshot.problem, node)
        lost = Reading(gpu.uuid, gpu.index, trouble=gone.reason, message=gone.message)
        gpus.append(msgspec.structs.replace(gone, alerts=alerts(lost, gone, gpu.alerts, thresholds, busy, now)))
    gpus.sort(key=lambda gpu: (gpu.index, gpu.mig is not None))
    status = GpuNodeStatus(
        last_report=floor(now),
        heartbeat_seconds=heartbeat_seconds,
        driver_version=snapshot.driver_version or before.status.driver_version,
        cuda_version=snapshot.cuda_version or before.status.cuda_version,
        gpus=tuple(gpus),
        # A GPU that is cut up counts as its parts: that is what pods are put on.
        gpu_count=sum(not gpu.mig_enabled for gpu in gpus),
        free_mib=sum(gpu.memory.free_mib for gpu in gpus if gpu.healthy and gpu.memory is not None),
        hottest_celsius=max((t for gpu in gpus if (t := gpu.temperature_celsius) is not None), default=None),
        alerts=tuple(dict.fromkeys(word(alert, gpu) for gpu in gpus for alert in gpu.alerts)),
        conditions=_conditions(before.status.conditions, gpus, now),
    )
    return State(status, busy.since)


def missing(known: GpuNodeStatus, snapshot: Snapshot) -> list[GpuReport]:
    """GPUs that were there and are no more.

    MIG devices come and go by the administrator's will; with a parent that tells nothing they are missing, too.
    """
    seen = {reading.uuid for reading in snapshot.gpus}
    well = {reading.uuid for reading in snapshot.gpus if not reading.trouble}
    gone = [g for g in known.gpus if g.uuid not in seen and not g.uuid.startswith(NAMELESS)]
    return [g for g in gone if g.mig is None or g.mig.parent_uuid not in well]


def suspects(known: GpuNodeStatus, snapshot: Snapshot) -> set[str]:
    """UUIDs of GPUs that ``snapshot`` has in trouble, and ``known`` has not: to be looked at twice."""
    was = {gpu.uuid for gpu in known.gpus if not gpu.healthy}
    bad = {r.uuid for r in snapshot.gpus if r.trouble and r.mig is None}
    return (bad | {gpu.uuid for gpu in missing(known, snapshot)}) - was


def worth_writing(old: GpuNodeStatus, new: GpuNodeStatus) -> bool:
    """Whether ``new`` must be written over ``old``: something real has changed, or a heartbeat is due.

    Temperature and utilization move all the time: they go along with the next write.
    """
    if old.last_report is None or new.last_report is None:
        return True
    if new.last_report - old.last_report >= timedelta(seconds=new.heartbeat_seconds) - SLACK:
        return True
    before, after = {gpu.uuid: gpu for gpu in old.gpus}, {gpu.uuid: gpu for gpu in new.gpus}
    if before.keys() != after.keys() or set(old.alerts) != set(new.alerts):
        return True
    if (old.driver_version, old.heartbeat_seconds) != (new.driver_version, new.heartbeat_seconds):
        return True
    return any(_moved(before[uuid], gpu) for uuid, gpu in after.items())


def _moved(old: GpuReport, new: GpuReport) -> bool:
    same = (old.healthy, old.reason, old.index, old.mig_enabled, old.mig, old.processes_known) == (
        new.healthy,
        new.reason,
        new.index,
        new.mig_enabled,
        new.mig,
        new.processes_known,
    )
    if not same or (old.memory is None) != (new.memory is None):
        return True
    total = 0
    if old.memory is not None and new.memory is not None:
        total = new.memory.total_mib
        if total != old.memory.total_mib or _far(old.memory.free_mib, new.memory.free_mib, total):
            return True
    was, now = {p.uid: p.used_mib for p in old.pods}, {p.uid: p.used_mib for p in new.pods}
    return any(_far(was.get(uid, 0), now.get(uid, 0), total) for uid in was.keys() | now.keys())


def _far(old: int, new: int, total: int) -> bool:
    return abs(new - old) >= max(MOVED_MIB, total * MOVED_SHARE)


def _gpu(reading: Reading, known: GpuReport | None) -> GpuReport:
    """One GPU without its alerts. One in trouble may tell nothing of itself: then what it told before stands."""
    pods: dict[str, int] = {}
    silent = bool(reading.trouble) and not reading.product
    told = reading.processes is not None and all(
        p.used_mib is not None and p.pod is not None for p in reading.processes
    )
    for process in reading.processes or ():
        if process.pod:
            pods[process.pod] = pods.get(process.pod, 0) + (process.used_mib or 0)
    return GpuReport(
        uuid=reading.uuid,
        index=reading.index,
        product=reading.product or (known.product if known is not None else ""),
        pci_bus_id=reading.pci_bus_id or (known.pci_bus_id if known is not None else ""),
        healthy=not reading.trouble,
        reason=reading.trouble,
        message=reading.message,
        memory=reading.memory,
        utilization_percent=reading.utilization_percent,
        temperature_celsius=reading.temperature_celsius,
        power_watts=reading.power_watts,
        power_limit_watts=reading.power_limit_watts,
        throttle_reasons=reading.throttle_reasons,
        mig_enabled=known.mig_enabled if silent and known is not None else reading.mig_enabled,
        mig=reading.mig,
        processes_known=told,
        pods=tuple(PodMemory(uid=uid, used_mib=mib) for uid, mib in sorted(pods.items())) if told else (),
    )


def _gone(gpu: GpuReport, parent: Reading | None, problem: str, node: str) -> GpuReport:
    why = problem or "the driver does not list it any more; a reboot of the node may bring it back"
    message = f"{why} (if it was taken out on purpose: kubectl delete gpunode {node or 'NODE'})"
    return GpuReport(
        uuid=gpu.uuid,
        index=gpu.index,
        product=gpu.product,
        pci_bus_id=gpu.pci_bus_id,
        healthy=False,
        reason=parent.trouble if parent is not None else Trouble.LOST,
        message=parent.message if parent is not None else message,
        mig_enabled=gpu.mig_enabled,
        mig=gpu.mig,
    )


def _conditions(current: tuple[Condition, ...], gpus: list[GpuReport], now: datetime) -> tuple[Condition, ...]:
    bad = [gpu for gpu in gpus if not gpu.healthy and gpu.mig is None]
    count = sum(gpu.mig is None for gpu in gpus)
    wanted = ("Healthy", "True", "AllHealthy", f"{count} of {count} GPUs can be used")
    if bad:
        named = "; ".join(f"GPU {gpu.index} ({gpu.uuid}): {gpu.reason}, {gpu.message}" for gpu in bad)
        wanted = ("Healthy", "False", f"GPU{bad[0].reason}", f"{len(bad)} of {count} GPUs cannot be used: {named}")
    own = [condition for condition in current if condition.type == "Healthy"]
    merged = merge_conditions(own, [wanted], now, generation=0)
    return tuple(own) if merged is None else msgspec.convert(merged, tuple[Condition, ...])
