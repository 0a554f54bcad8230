"""What the status of an AvatarPool and of an Avatar says."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from .ports import overlap
from .resources import Avatar, Instance, Pool, PoolInstanceStatus, PoolPortStatus
from .status import full, merge_conditions

# More ports than this are counted, not listed.
LISTED_PORTS = 100


def pool_patch(
    pool: Pool, others: list[Pool], members: list[Instance], held: list[int], queue_length: int, now: datetime
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
        current.conditions, _conditions(pool, others), now, generation=pool.metadata.generation
    )
    if conditions is not None:
        changed["conditions"] = conditions
    return changed or None


def _conditions(pool: Pool, others: list[Pool]) -> tuple[tuple[str, str, str, str], ...]:
    clash = sorted(o.metadata.name for o in others if overlap(pool.spec.ports, o.spec.ports))
    if clash:
        message = (
            f"spec.ports overlaps that of AvatarPool {', '.join(clash)} in this namespace; a port goes to whoever "
            "claims it first. Give each pool a range of its own (spec.ports.base, spec.ports.count)"
        )
        return (
            ("PortRangeValid", "False", "Overlapping", message),
            ("Ready", "False", "PortRangeOverlaps", message),
        )
    if pool.spec.gpu.mode not in ("None", "DevicePlugin"):
        message = f"spec.gpu.mode {pool.spec.gpu.mode} needs the node agent, which this version does not have yet"
        return (("PortRangeValid", "True", "Valid", ""), ("Ready", "False", "GPUModeUnavailable", message))
    return (("PortRangeValid", "True", "Valid", ""), ("Ready", "True", "Accepted", ""))


def avatar_patch(avatar: Avatar, first: Avatar | None, now: datetime) -> dict[str, Any] | None:
    """The merge patch for an Avatar's status, or None when it is right already.

    ``first``: an older Avatar of the same avatarName, which is the one that counts.
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
    conditions = merge_conditions(avatar.status.conditions, (wanted,), now, generation=meta.generation)
    if conditions is not None:
        changed["conditions"] = conditions
    return changed or None
