"""Small factories for GPUs: reports, nodes, reservations. MiB; every time is relative to NOW."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from avatar_operator.domain import objects
from avatar_operator.domain.gpunode import (
    GpuNode,
    GpuNodeSpec,
    GpuNodeStatus,
    GpuReport,
    Memory,
    MigDevice,
    Node,
    NodeSpec,
    NodeStatus,
    PodMemory,
    Taint,
)
from avatar_operator.domain.ledger import Reservation, Room
from avatar_operator.domain.placement import Device, Placement
from avatar_operator.domain.resources import Condition, Gpu, GpuSelector, Instance, Pod
from tests.unit.builders import NAMESPACE, NOW, PORT, ago, condition, group_of, later, meta, pod, pool

TOTAL = 24000
A0, A1, B0, B1 = "GPU-a0", "GPU-a1", "GPU-b0", "GPU-b1"

VISIBLE = pool("visible", gpu=Gpu(mode="VisibleDevices", min_free_mib=8000, per_instance_mib=4000))
PLUGIN = pool("plugin", gpu=Gpu(mode="DevicePlugin", min_free_mib=8000, per_instance_mib=4000))
DRA = pool("dra", gpu=Gpu(mode="DRA", min_free_mib=8000, per_instance_mib=4000))
HAMI = pool("hami", gpu=Gpu(mode="HAMi", min_free_mib=8000, per_instance_mib=4000))


def gpu(
    uuid: str,
    index: int = 0,
    *,
    used: int | None = 0,
    total: int = TOTAL,
    kept: int = 0,
    known: bool = True,
    **more: Any,
) -> GpuReport:
    """A GPU with so much in use, ``kept`` by the driver itself; ``used`` None = NVML cannot tell."""
    pods = tuple(PodMemory(uid=uid, used_mib=mib) for uid, mib in more.pop("pods", {}).items())
    memory = None
    if used is not None:
        memory = Memory(total_mib=total, used_mib=used, free_mib=total - used - kept, reserved_mib=kept)
    return GpuReport(uuid=uuid, index=index, memory=memory, processes_known=known, pods=pods, **more)


def mig(uuid: str, parent: str, index: int = 0, **more: Any) -> GpuReport:
    """A MIG device of ``parent``."""
    return gpu(uuid, index, mig=MigDevice(parent_uuid=parent, profile="1g.5gb"), **more)


def gpunode(
    name: str,
    *gpus: GpuReport,
    at: datetime | None = NOW,
    cordoned: tuple[str, ...] = (),
    version: int = 1,
    **status: Any,
) -> GpuNode:
    """The report of a node, made at ``at``; its heartbeat is 30 s."""
    return GpuNode(
        metadata=meta(name, namespace="", resource_version=str(version)),
        spec=GpuNodeSpec(cordoned=cordoned),
        status=GpuNodeStatus(last_report=at, gpus=gpus, **status),
    )


def node(name: str, *, ready: bool = True, taints: tuple[Taint, ...] = (), version: int = 1, **fields: Any) -> Node:
    """A Node that takes pods; ``fields``: labels, unschedulable, allocatable."""
    return Node(
        metadata=meta(name, namespace="", labels=fields.get("labels", {}), resource_version=str(version)),
        spec=NodeSpec(unschedulable=fields.get("unschedulable", False), taints=taints),
        status=NodeStatus(
            allocatable=fields.get("allocatable", {"nvidia.com/gpu": "2"}),
            conditions=(Condition(type="Ready", status="True" if ready else "False"),),
        ),
    )


def device(
    uuid: str = A0, index: int = 0, free: int | None = None, *, on: str = "a", problem: str = "", **more: Any
) -> Device:
    """A GPU with a fresh report and so much free; ``more``: labels, reserved, external, total, and the report's."""
    total = more.pop("total", TOTAL)
    free = total if free is None else free
    room = Room(total, more.pop("reserved", 0), more.pop("external", 0), free, free, later(90))
    labels = more.pop("labels", {})
    return Device(on, gpu(uuid, index, total=total, **more), room, problem, labels)


def reservation(
    name: str = "avatar-8615", mib: int = 4000, uuid: str = A0, *, pod_uid: str = "", ready: datetime | None = None
) -> Reservation:
    """So much of a GPU of node a."""
    return Reservation(NAMESPACE, name, uuid, "a", mib, pod_uid, ready)


def gpu_pod(
    server: Instance, placement: Placement, *, port: int = PORT, on: str = "", ready: bool = True, **made: Any
) -> Pod:
    """A pod with its part of a GPU, on a node if ``on`` names it; ``made``: metadata."""
    kind = {"VisibleDevices": VISIBLE, "DevicePlugin": PLUGIN, "DRA": DRA}[made.pop("mode", "VisibleDevices")]
    body = objects.pod(
        kind, [server], _settings(server), group_of(server), port, placement, made.pop("claim", "avatar-8615-1")
    )
    plain = pod([server], in_pool=kind, port=port, state="ready" if ready else "pending")
    fields = {"labels": body["metadata"]["labels"], "annotations": body["metadata"]["annotations"], **made}
    status = plain.status
    if ready:
        status = msgspec.structs.replace(status, conditions=(condition("Ready", "True", since=ago(50)),))
    spec = msgspec.convert({**body["spec"], "nodeName": on}, type(plain.spec))
    return Pod(metadata=msgspec.structs.replace(plain.metadata, **fields), spec=spec, status=status)


def _settings(server: Instance) -> Any:
    from avatar_operator.domain.settings import resolve
    from tests.unit.builders import avatar

    return resolve(server, VISIBLE, avatar(server.spec.avatar_name))


__all__ = [
    "A0",
    "A1",
    "B0",
    "B1",
    "DRA",
    "HAMI",
    "PLUGIN",
    "TOTAL",
    "VISIBLE",
    "GpuSelector",
    "Taint",
    "device",
    "gpu",
    "gpu_pod",
    "gpunode",
    "mig",
    "node",
    "reservation",
]
