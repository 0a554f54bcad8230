"""What the status of an AvatarPool and of an Avatar says."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .devices import dra_problem
from .estimate import learn
from .gpunode import GpuNode, Reserved
from .ledger import Room
from .placement import Device
from .ports import overlap
from .resources import Avatar, Instance, Pool, PoolInstanceStatus, PoolPortStatus
from .status import full, merge_conditions

NAMED = 3
# A node's external use is written when it has moved this much (MiB).
EXTERNAL_STEP = 64

# More ports than this are counted, not listed.
LISTED_PORTS = 100


@dataclass(frozen=True, slots=True)
class PoolGpus:
    """The GPUs that a pool's selectors pick, at ``now``; without ``telemetry`` nobody reports any."""

    telemetry: bool = False
    devices: tuple[Device, ...] = ()
    now: datetime | None = None


NO_GPUS = PoolGpus()


def pool_patch(
    pool: Pool,
    others: list[Pool],
    members: list[Instance],
    held: list[int],
    queue_length: int,
    now: datetime,
    gpus: PoolGpus = NO_GPUS,
) -> dict[str, Any] | None:
    """The merge patch for the pool's status, or None when it is right already.

    ``others``: the other pools of the namespace; ``held``: claimed ports.
    """
    phases: dict[str, int] = {}
    for member in members:
        phase = (member.status.phase or "Pending").lower()
        phases[phase] = phases.get(phase, 0) + 1
    wanted = {
        "observedGeneration": pool.metadata.generation,
        "queueLength": queue_length,
    }
    current = pool.status
    changed: dict[str, Any] = {}
    if current.observed_generation != wanted["observedGeneration"]:
        changed["observedGeneration"] = wanted["observedGeneration"]
    if current.queue_length != queue_length:
        changed["queueLength"] = queue_length
    ports = PoolPortStatus(used=len(held), free=max(0, pool.spec.ports.count - len(held)), in_use=held[:LISTED_PORTS])
    if current.ports != ports:
        changed["ports"] = full(ports)
    instances = PoolInstanceStatus(**phases)
    if current.instances != instances:
        changed["instances"] = full(instances)
    conditions = merge_conditions(
        current.conditions,
        _conditions(pool, others, gpus),
        now,
        generation=pool.metadata.generation,
        drop=("GPUsAvailable",) if pool.spec.gpu.mode == "None" else (),
    )
    if conditions is not None:
        changed["conditions"] = conditions
    return changed or None


def _conditions(pool: Pool, others: list[Pool], gpus: PoolGpus) -> tuple[tuple[str, str, str, str], ...]:
    available = _gpus_available(pool, gpus)
    clash = sorted(o.metadata.name for o in others if overlap(pool.spec.ports, o.spec.ports))
    if clash:
        message = (
            f"spec.ports overlaps that of AvatarPool {', '.join(clash)} in this namespace; a port goes to whoever "
            "claims it first. Give each pool a range of its own (spec.ports.base, spec.ports.count)"
        )
        return (
            ("PortRangeValid", "False", "Overlapping", message),
            *available,
            ("Ready", "False", "PortRangeOverlaps", message),
        )
    ready = ("Ready", "True", "Accepted", "")
    for _, status, reason, message in available:
        if status == "False":
            ready = ("Ready", "False", reason, message)
    return (("PortRangeValid", "True", "Valid", ""), *available, ready)


def _gpus_available(pool: Pool, gpus: PoolGpus) -> tuple[tuple[str, str, str, str], ...]:
    """The condition GPUsAvailable: whether any GPU can be used at all, full ones included."""
    mode = pool.spec.gpu.mode
    if mode == "None":
        return ()
    if not gpus.telemetry:
        if problem := dra_problem(pool.spec.gpu, known=False):
            return (("GPUsAvailable", "False", "NeedsAgent", problem),)
        how = "GPUs are given out in turn" if mode == "VisibleDevices" else "the scheduler decides alone"
        text = f"no node reports its GPUs (run the node agent: agent.enabled of the chart); {how}"
        return (("GPUsAvailable", "Unknown", "NoTelemetry", text),)
    usable = [d for d in gpus.devices if not d.problem]
    if not usable:
        named = "; ".join(f"{d.name}: {d.problem}" for d in gpus.devices[:NAMED])
        text = f"none of its GPUs can be used: {named}" if named else "no GPU that is reported matches spec.gpu"
        return (("GPUsAvailable", "False", "NoEligibleGPU", text),)
    now = gpus.now
    old = sorted({d.node for d in usable if now is not None and d.room.stale(now)})
    if old:
        text = f"the last report of {', '.join(old[:NAMED])} is too old; placed there by reservations alone"
        return (("GPUsAvailable", "Unknown" if len(old) == len(usable) else "True", "StaleTelemetry", text),)
    return (("GPUsAvailable", "True", "Reported", f"{len(usable)} of {len(gpus.devices)} GPUs can be used"),)


def gpunode_patch(node: GpuNode, reservations: list[Reserved], rooms: list[Room]) -> dict[str, Any] | None:
    """The merge patch for the operator's part of a GPUNode's status, or None when it is right already."""
    status = node.status
    external = sum(room.external for room in rooms)
    changed: dict[str, Any] = {}
    if list(status.reservations) != reservations:
        changed["reservations"] = [full(r) for r in reservations]
    reserved = sum(r.mib for r in reservations)
    if status.reserved_mib != reserved:
        changed["reservedMiB"] = reserved
    # A figure that always moves a little is no news.
    known = status.external_mib
    if known is None or abs(known - external) >= EXTERNAL_STEP or (external == 0 and known):
        changed["externalMiB"] = external
    return changed or None


def avatar_patch(avatar: Avatar, first: Avatar | None, now: datetime, observed: int = 0) -> dict[str, Any] | None:
    """The merge patch for an Avatar's status, or None when it is right already.

    ``first``: an older Avatar of the same avatarName, which is the one that counts.
    ``observed``: the most GPU memory that a pod of it uses by now, in MiB.
    """
    meta = avatar.metadata
    wanted = ("Ready", "True", "Accepted", "")
    if first is not None:
        message = (
            f"spec.avatarName {avatar.spec.avatar_name!r} is that of the older Avatar {first.metadata.name!r}, which "
            "is used; delete one of the two or give this one another avatarName"
        )
        wanted = ("Ready", "False", "DuplicateName", message)
    changed: dict[str, Any] = {}
    if avatar.status.observed_generation != meta.generation:
        changed["observedGeneration"] = meta.generation
        if avatar.status.observed_generation and avatar.status.vram is not None:
            # Another model or other data: what was learned of the old ones says nothing.
            changed["vram"] = None
    if observed and "vram" not in changed and (vram := learn(avatar.status.vram, observed)) is not None:
        changed["vram"] = full(vram)
    conditions = merge_conditions(avatar.status.conditions, (wanted,), now, generation=meta.generation)
    if conditions is not None:
        changed["conditions"] = conditions
    return changed or None
