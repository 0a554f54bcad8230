"""GPUNode as frozen structs: what a node's agent reports of its GPUs, and what is reserved on them.

``crds/gpunodes.yaml`` is the source of the fields (tests/unit/test_crd_drift.py).
Memory in MiB, temperatures in °C, power in W.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec import field

from .resources import Condition, Meta, Model

# Telemetry older than so many heartbeats is stale (design §4).
STALE_HEARTBEATS = 3


class Memory(Model, frozen=True):
    """Memory of one GPU as NVML has it; ``used`` holds what the driver reserves where NVML does not tell them apart."""

    total_mib: int = field(name="totalMiB")
    used_mib: int = field(name="usedMiB")
    free_mib: int = field(name="freeMiB")
    reserved_mib: int = field(default=0, name="reservedMiB")


class PodMemory(Model, frozen=True):
    """Memory that the processes of one pod use on one GPU."""

    uid: str
    used_mib: int = field(default=0, name="usedMiB")


class MigDevice(Model, frozen=True):
    """What a MIG device is a part of."""

    parent_uuid: str = field(name="parentUUID")
    profile: str = ""
    gpu_instance: int = 0
    compute_instance: int = 0


class Alert(Model, frozen=True):
    """A threshold that is passed: Temperature, Memory, Utilization, ECC, XID or Unhealthy."""

    type: str
    message: str = ""
    since: datetime | None = None


class GpuReport(Model, frozen=True):
    """status.gpus[]: one GPU, or one MIG device.

    ``memory`` is None where NVML cannot tell (unified memory, a MIG parent):
    unknown, not zero. ``pods`` means something only where ``processes_known``.
    """

    uuid: str
    index: int = 0
    product: str = ""
    pci_bus_id: str = field(default="", name="pciBusID")
    healthy: bool = True
    reason: str = ""
    message: str = ""
    memory: Memory | None = None
    utilization_percent: int | None = None
    temperature_celsius: int | None = None
    power_watts: int | None = None
    power_limit_watts: int | None = None
    throttle_reasons: tuple[str, ...] = ()
    mig_enabled: bool = False
    mig: MigDevice | None = None
    processes_known: bool = False
    pods: tuple[PodMemory, ...] = ()
    alerts: tuple[Alert, ...] = ()


class Reserved(Model, frozen=True):
    """status.reservations[]: what the operator keeps free on a GPU for one pod."""

    uuid: str
    namespace: str
    pod: str
    mib: int = field(name="memoryMiB")


class GpuNodeSpec(Model, frozen=True):
    """GPUNode.spec: the administrator's. ``cordoned``: UUIDs that get no new pods."""

    cordoned: tuple[str, ...] = ()


class GpuNodeStatus(Model, frozen=True):
    """GPUNode.status: the agent's, but ``reservations``, ``reserved_mib`` and ``external_mib``: the operator's."""

    last_report: datetime | None = None
    heartbeat_seconds: int = 30
    driver_version: str = ""
    cuda_version: str = ""
    gpus: tuple[GpuReport, ...] = ()
    gpu_count: int = 0
    free_mib: int = field(default=0, name="freeMiB")
    hottest_celsius: int | None = None
    alerts: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()
    reservations: tuple[Reserved, ...] = ()
    reserved_mib: int | None = field(default=None, name="reservedMiB")
    external_mib: int | None = field(default=None, name="externalMiB")


class GpuNode(Model, frozen=True):
    """GPUNode. Its name is that of the Node."""

    metadata: Meta
    spec: GpuNodeSpec = GpuNodeSpec()
    status: GpuNodeStatus = GpuNodeStatus()

    @property
    def stale_at(self) -> datetime | None:
        """When its report stops being telemetry; None = it never reported."""
        last = self.status.last_report
        return last and last + timedelta(seconds=STALE_HEARTBEATS * self.status.heartbeat_seconds)


def lost(uuid: str, where: str, report: GpuReport | None, node: GpuNode | None, now: datetime) -> str:
    """Why a pod on the GPU ``uuid`` cannot go on there; empty = it can, as far as anybody knows.

    ``report`` is the newest one of the GPU, from the node ``where``; without one, ``node`` is the
    GPUNode of the node that it was on.
    """
    if report is not None:
        why = report.message or report.reason or "unhealthy"
        return "" if report.healthy else f"GPU {report.index} of {where}: {why}"
    fresh = node is not None and node.stale_at is not None and now < node.stale_at
    # A young report without it; a missing or an old report says nothing.
    return f"{uuid} is no longer among the GPUs of {where}" if fresh and is_gpu(uuid) else ""


def is_gpu(uuid: str) -> bool:
    """Whether it is a UUID by which NVML knows a GPU; a pool may name them otherwise where nobody reports them."""
    return uuid.startswith(("GPU-", "MIG-"))


class Taint(Model, frozen=True):
    """spec.taints[] of a Node."""

    key: str
    effect: str
    value: str = ""


class NodeSpec(Model, frozen=True):
    """The parts of a Node's spec that placement reads."""

    unschedulable: bool = False
    taints: tuple[Taint, ...] = ()


class NodeStatus(Model, frozen=True):
    """The parts of a Node's status that placement reads; quantities as Kubernetes writes them."""

    allocatable: dict[str, str] = field(default_factory=dict)
    conditions: tuple[Condition, ...] = ()


class Node(Model, frozen=True):
    """A Node, as far as placement reads it."""

    metadata: Meta
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()
