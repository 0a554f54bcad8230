"""Which GPU a new pod gets: the pool's policy over the room that the ledger finds.

PrimaryFirst is the old manager's rule: the primary GPU (its GPU 1) while it
has enough memory free, else the backup (GPU 0). Ties are broken by node and
index, so that two operators come to the same end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from .gpunode import GpuReport, Node
from .ledger import Room
from .resources import Gpu, GpuSelector, Runtime

# Longest value of a label, where a reservation keeps the GPU's UUID.
LABEL_LENGTH = 63
# Those that wait for a GPU are looked at this often (seconds), whatever is heard meanwhile.
LOOK_FOR_GPU_SECONDS = 10
# So many GPUs are named in a refusal; the others are counted.
NAMED = 3


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a pod goes, and what is reserved for it there (MiB).

    Modes differ in how much is decided here. VisibleDevices and HAMi: ``node``,
    ``uuid`` and ``index`` of one GPU (without any telemetry ``node`` is empty
    and ``uuid`` may be an index). DevicePlugin: ``nodes`` with room, the best
    first; the kubelet picks the GPU. DRA: the UUIDs ``primary`` and ``backup``
    that have room, of which the scheduler picks one; both empty = any device.
    """

    mib: int
    node: str = ""
    uuid: str = ""
    index: int | None = None
    nodes: tuple[str, ...] = ()
    primary: tuple[str, ...] = ()
    backup: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """No GPU for it now. ``hopeless``: none would do even if it were empty, so nobody should wait behind it."""

    message: str
    hopeless: bool = False


@dataclass(frozen=True, slots=True)
class Need:
    """What a pod asks for: ``mib`` to reserve, on a GPU with at least ``min_free`` free.

    ``learned``: more than the administrator said, because of what was seen.
    """

    mib: int
    min_free: int
    learned: bool = False

    @property
    def free(self) -> int:
        """The free memory that a GPU must have for it."""
        return max(self.mib, self.min_free)


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU (or MIG device) with its account. ``problem``: why nobody may get it now, or empty."""

    node: str
    report: GpuReport
    room: Room
    problem: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For people: "GPU 1 of gpu-a"."""
        mig = f" ({self.report.mig.profile} MIG device)" if self.report.mig else ""
        return f"GPU {self.report.index} of {self.node}{mig}"


def place(gpu: Gpu, need: Need, devices: Iterable[Device], now: datetime) -> Placement | Refusal:
    """The GPU for a pod of a pool with the rules ``gpu``, or what is missing (modes VisibleDevices and HAMi)."""
    tiers = _tiers(gpu, devices)
    for tier in tiers:
        fitting = [d for d in tier if not d.problem and d.room.free_at(now) >= need.free]
        if fitting:
            best = min(fitting, key=_merit(gpu, now))
            return Placement(need.mib, best.node, best.report.uuid, best.report.index)
    return _refusal(gpu, need, [d for tier in tiers for d in tier], now)


def place_nodes(
    gpu: Gpu, need: Need, devices: Iterable[Device], slots: Callable[[str], int], now: datetime
) -> Placement | Refusal:
    """The nodes for a pod whose GPU the kubelet picks (mode DevicePlugin), the best first.

    ``slots(node)``: how many more pods of ours the node's device plugin would take.
    """
    tiers = _tiers(gpu, devices)
    nodes: list[str] = []
    for tier in tiers:
        fitting = [d for d in tier if not d.problem and d.room.free_at(now) >= need.free and slots(d.node) > 0]
        nodes += [d.node for d in sorted(fitting, key=_merit(gpu, now))]
    if nodes:
        return Placement(need.mib, nodes=tuple(dict.fromkeys(nodes)))
    every = [d for tier in tiers for d in tier]
    if any(not d.problem and d.room.free_at(now) >= need.free for d in every):
        return Refusal(f"every {gpu.resource_name} of the nodes with enough free memory is in use; waiting for one")
    return _refusal(gpu, need, every, now)


def place_claim(gpu: Gpu, need: Need, devices: Iterable[Device], now: datetime) -> Placement | Refusal:
    """The GPUs that a ResourceClaim may be met by (mode DRA), the best first."""

    def fitting(tier: list[Device]) -> tuple[str, ...]:
        room = [d for d in tier if not d.problem and d.room.free_at(now) >= need.free]
        return tuple(d.report.uuid for d in sorted(room, key=_merit(gpu, now)))

    tiers = _tiers(gpu, devices)
    uuids = [fitting(tier) for tier in tiers]
    if not any(uuids):
        return _refusal(gpu, need, [d for tier in tiers for d in tier], now)
    first, *rest = [u for u in uuids if u]
    return Placement(need.mib, primary=first, backup=rest[0] if rest else ())


def place_blind(gpu: Gpu, need: Need, held: Callable[[str], int]) -> Placement:
    """Without any telemetry: round-robin over the GPUs that the pool names, the primary ones first.

    ``held(uuid)``: reservations on it. A GPU is named by its UUID or, where
    the pool only gives indices, by that: NVIDIA_VISIBLE_DEVICES takes both.
    """
    named = [*_named(gpu.primary), *_named(gpu.backup)]
    if not named:
        return Placement(need.mib, uuid="all")
    uuid = min(dict.fromkeys(named), key=held)
    return Placement(need.mib, uuid=uuid, index=int(uuid) if uuid.isdigit() else None)


def matches(selector: GpuSelector, device: Device) -> bool:
    """Whether a selector picks the GPU: all fields that are given must match."""
    report = device.report
    return (
        (not selector.indices or report.index in selector.indices)
        and (not selector.uuids or report.uuid in selector.uuids or _parent(report) in selector.uuids)
        and (not selector.products or _product(report.product) in {_product(p) for p in selector.products})
        and all(device.labels.get(key) == value for key, value in selector.node_selector.items())
    )


def selected(gpu: Gpu, devices: Iterable[Device]) -> list[Device]:
    """The GPUs that the pool's selectors pick, the ones to try first before the others."""
    return [device for tier in _tiers(gpu, devices) for device in tier]


def node_problem(node: Node | None, name: str, runtime: Runtime) -> str:
    """Why no pod of the pool may go to the node now; empty = it may."""
    if node is None:
        return f"node {name} does not exist"
    if node.spec.unschedulable:
        return f"node {name} is cordoned"
    ready = next((c for c in node.status.conditions if c.type == "Ready"), None)
    if ready is not None and ready.status != "True":
        return f"node {name} is not ready"
    labels = node.metadata.labels
    if not all(labels.get(key) == value for key, value in runtime.node_selector.items()):
        return f"node {name} does not match spec.runtime.nodeSelector of the AvatarPool"
    for taint in node.spec.taints:
        if taint.effect != "PreferNoSchedule" and not any(
            _tolerates(t, taint.key, taint.value, taint.effect) for t in runtime.tolerations
        ):
            return f"node {name} has the taint {taint.key}:{taint.effect}, which spec.runtime.tolerations lacks"
    return ""


def device_problem(report: GpuReport, cordoned: Sequence[str]) -> str:
    """Why no pod may go to the GPU now, whatever its memory; empty = it may."""
    if not report.healthy:
        return (report.message or report.reason or "unhealthy").rstrip(".")
    if report.uuid in cordoned or _parent(report) in cordoned:
        return "cordoned (spec.cordoned of its GPUNode)"
    if report.mig_enabled:
        return "split into MIG devices"
    if report.memory is None:
        return "its driver does not tell its memory"
    if "/" in report.uuid or len(report.uuid) > LABEL_LENGTH:
        return "its UUID is of the form that drivers before 470 used; a label cannot hold it"
    return ""


# ---- inside ----------------------------------------------------------------------


def _tiers(gpu: Gpu, devices: Iterable[Device]) -> list[list[Device]]:
    """The GPUs to try, in order; PrimaryFirst has two tiers, other policies one."""
    every = list(devices)
    primary = [d for d in every if gpu.primary is None or matches(gpu.primary, d)]
    chosen = {d.report.uuid for d in primary}
    backup = [d for d in every if gpu.backup and d.report.uuid not in chosen and matches(gpu.backup, d)]
    if gpu.policy == "PrimaryFirst":
        return [primary, backup]
    return [[*primary, *backup]]


def _merit(gpu: Gpu, now: datetime) -> Callable[[Device], tuple[int, str, int, str]]:
    """Sort key: the best GPU first."""
    sign = 1 if gpu.policy == "BinPack" else -1

    def merit(device: Device) -> tuple[int, str, int, str]:
        return sign * device.room.free_at(now), device.node, device.report.index, device.report.uuid

    return merit


def _refusal(gpu: Gpu, need: Need, devices: list[Device], now: datetime) -> Refusal:
    if not devices:
        fields = "spec.gpu.primary" + (" or spec.gpu.backup" if gpu.backup else "")
        which = f"matches {fields} of the AvatarPool" if gpu.primary else "is reported by any GPUNode"
        return Refusal(f"no GPU {which}; `kubectl get gpun` lists those that there are", hopeless=True)
    usable = sorted((d for d in devices if not d.problem), key=lambda d: -d.room.free_at(now))
    asked = f"needs {need.free} MiB free on one GPU"
    hopeless = not any(_may_do(d, need) for d in devices)
    if not usable:
        named = "; ".join(f"{d.name}: {d.problem}" for d in devices[:NAMED])
        return Refusal(f"{asked}, and none can be used: {named}{_others(devices)}", hopeless)
    biggest = max(_in_all(d) for d in usable)
    if need.free > biggest:
        message = f"{asked}, and the biggest has {biggest} MiB in all; {_lower(need)}"
        return Refusal(f"{message}, or add a bigger GPU", hopeless)
    best = usable[0]
    missing = need.free - best.room.free_at(now)
    parts = [
        f"{asked}, {missing} MiB are missing; {best.name} has most: {max(0, best.room.free_at(now))} of "
        f"{best.room.total} MiB ({best.room.reserved} reserved for avatars, {best.room.external} used by others)"
    ]
    if len(usable) > 1:
        parts.append(f"{len(usable) - 1} other GPUs have no more" if len(usable) > 2 else "the other one has no more")
    parts += [f"{d.name}: {d.problem}" for d in devices if d.problem][:NAMED]
    return Refusal("; ".join(parts))


def _may_do(device: Device, need: Need) -> bool:
    """Whether the GPU would do if it were empty and well. One that is lost does not tell its memory: perhaps."""
    report = device.report
    if report.memory is None:
        return not report.healthy and not report.mig_enabled
    return need.free <= _in_all(device)


def _in_all(device: Device) -> int:
    """The memory that pods could have if there were nobody else."""
    return device.room.total - (device.report.memory.reserved_mib if device.report.memory else 0)


def _lower(need: Need) -> str:
    """What to lower so that it fits."""
    if need.mib > need.min_free:
        return "reset status.vram of the Avatar, from which that is learned" if need.learned else "lower its vramMiB"
    return "lower minFreeMiB of the Avatar or of the pool"


def _others(devices: list[Device]) -> str:
    return f"; and {len(devices) - NAMED} more" if len(devices) > NAMED else ""


def _named(selector: GpuSelector | None) -> list[str]:
    if selector is None:
        return []
    return [*selector.uuids, *(() if selector.uuids else map(str, selector.indices))]


def _parent(report: GpuReport) -> str:
    return report.mig.parent_uuid if report.mig else ""


def _product(name: str) -> str:
    """A product's name as the node label nvidia.com/gpu.product has it: no spaces."""
    return name.replace(" ", "-").lower()


def _tolerates(toleration: Mapping[str, object], key: str, value: str, effect: str) -> bool:
    """Kubernetes' rule: an empty key with Exists tolerates everything, an empty effect all effects."""
    if toleration.get("effect") not in (None, "", effect):
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return toleration.get("key") in (None, "", key)
    return toleration.get("key") == key and (toleration.get("value") or "") == value
