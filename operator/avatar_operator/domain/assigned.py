"""The GPU of an instance: what its status says of it, and whether the pod really has it."""

from __future__ import annotations

from datetime import timedelta

from .resources import GpuStatus, Instance, Pod, Pool
from .view import GpuView, GroupView

# A pod that has been ready for so long (seconds: three heartbeats of the agent) without a process on its GPU has none.
NO_PROCESS_SECONDS = 90

_HINT = (
    "check runtimeClassName (AvatarPool spec.gpu), and that the node's container toolkit lets unprivileged pods name "
    "GPUs (ACCEPT_NVIDIA_VISIBLE_DEVICES_ENVVAR_WHEN_UNPRIVILEGED)"
)


def gpu_status(gpu: GpuView, pool: Pool, pod: Pod | None = None) -> GpuStatus | None:
    """status.gpu of an instance whose claim or pod is there; None on a CPU pool."""
    reserved = gpu.reserved
    if pool.spec.gpu.mode == "None" or reserved is None:
        return None
    node = (pod.spec.node_name if pod else "") or reserved.node
    if reserved.uuid:
        return GpuStatus(node=node, index=reserved.index, uuid=reserved.uuid, reserved_mib=reserved.mib)
    if gpu.allocated is not None:
        got = gpu.allocated
        return GpuStatus(node=node, index=got.index, uuid=got.uuid, reserved_mib=got.mib)
    if gpu.report is not None:
        return GpuStatus(node=node, index=gpu.report.index, uuid=gpu.report.uuid, reserved_mib=reserved.mib)
    return GpuStatus(node=node, reserved_mib=reserved.mib)


def condition(view: GroupView, pool: Pool, pod: Pod) -> tuple[str, str, str, str] | None:
    """The condition GPUAssigned of a running instance; None on a CPU pool."""
    status = gpu_status(view.gpu, pool, pod)
    if pool.spec.gpu.mode == "None":
        return None
    if status is None:
        text = "the pod was made before the pool had GPUs; it is replaced when idle"
        return ("GPUAssigned", "False", "NotReserved", text)
    name = _named(status) if status.uuid else f"a {pool.spec.gpu.mode} GPU"
    where = f"{name} of {status.node}" if status.node else name
    if missing := _missing(view, status, pod):
        return ("GPUAssigned", "False", "NoGPUVisible", f"{where}: {missing}; {_HINT}")
    return ("GPUAssigned", *reserved(view.gpu, pool, status))


def reserved(gpu: GpuView, pool: Pool, status: GpuStatus) -> tuple[str, str, str]:
    """Status, reason and message of GPUAssigned for a reservation that stands."""
    if pool.spec.gpu.mode in ("DevicePlugin", "DRA") and not status.uuid:
        return ("True", "Scheduled", f"by {pool.spec.gpu.mode} on {status.node}" if status.node else "")
    what = f"{status.reserved_mib} MiB of {_named(status)}" + (f" of {status.node}" if status.node else "")
    if gpu.stale:
        return ("True", "StaleTelemetry", f"{what}, by reservations alone: the node's last report is too old")
    if gpu.report is None:
        return ("True", "NoTelemetry", f"{what}, in turn: no GPUNode reports this GPU")
    return ("True", "Reserved", what)


def released(instance: Instance, reason: str) -> tuple[tuple[str, str, str, str], ...]:
    """The condition GPUAssigned of an instance whose pod is gone; nothing for one that never had a GPU."""
    had = any(c.type == "GPUAssigned" for c in instance.status.conditions)
    return (("GPUAssigned", "False", reason, "released"),) if had else ()


def _named(status: GpuStatus) -> str:
    return f"GPU {status.uuid}" if status.index is None else f"GPU {status.index} ({status.uuid})"


def _missing(view: GroupView, status: GpuStatus, pod: Pod) -> str:
    """Why it looks as if the pod had no GPU, or not this one; empty = it does not.

    The runtime's own word counts. One that does not tell is judged by its
    processes, where the agent sees processes at all.
    """
    seen = view.runtime.activity.gpus if view.runtime.activity is not None else None
    if seen is not None:
        if not seen:
            return "the runtime sees no GPU"
        if status.uuid.startswith("GPU-") and status.uuid not in seen:
            return f"the runtime sees {', '.join(seen)} instead"
        return ""
    report, reported = view.gpu.report, view.gpu.reported
    since = pod.ready_since
    if report is None or reported is None or since is None or view.gpu.stale or not report.processes_known:
        return ""
    if reported < since + timedelta(seconds=NO_PROCESS_SECONDS) or any(p.uid == pod.metadata.uid for p in report.pods):
        return ""
    return f"no process of the pod is on it {NO_PROCESS_SECONDS} s after it was ready"


def reservation_holds(gpu: GpuView, pool: Pool) -> bool:
    """Whether the group's claim reserves what its pool's mode asks for; else it must be made anew."""
    mode = pool.spec.gpu.mode
    if (mode == "None") is (gpu.reserved is not None):
        return False
    if gpu.lost:
        return False
    if mode in ("VisibleDevices", "DevicePlugin", "DRA") and gpu.reserved is not None:
        # Made for another mode: a GPU that nobody will be put on, or none where one must be.
        return bool(gpu.reserved.uuid) is (mode == "VisibleDevices")
    return True
