"""What a person should hear of: the differences between two reports, as Kubernetes Events."""

from __future__ import annotations

from collections.abc import Iterator

from avatar_operator.domain.actions import Event
from avatar_operator.domain.gpunode import GpuNodeStatus, GpuReport

from .reading import Trouble


def events(old: GpuNodeStatus, new: GpuNodeStatus, node: str) -> list[Event]:
    """The events that lead from ``old`` (as last written) to ``new``."""
    return [*_driver(old, new, node), *_health(old, new, node), *_alerts(old, new, node)]


def _driver(old: GpuNodeStatus, new: GpuNodeStatus, node: str) -> Iterator[Event]:
    if old.driver_version and old.driver_version != new.driver_version:
        text = f"node {node}: the NVIDIA driver is now {new.driver_version} (it was {old.driver_version})"
        yield Event("Normal", "DriverChanged", text)


def _health(old: GpuNodeStatus, new: GpuNodeStatus, node: str) -> Iterator[Event]:
    was = {gpu.uuid: gpu for gpu in old.gpus}
    for gpu in new.gpus:
        before = was.get(gpu.uuid)
        if gpu.mig is not None or (before is not None and before.healthy == gpu.healthy):
            continue
        if gpu.healthy:
            if before is not None:
                yield Event("Normal", "GPURecovered", f"{_named(gpu, node)} is well again and takes new avatars")
        else:
            reason = "GPULost" if gpu.reason == Trouble.LOST else "GPUUnhealthy"
            text = f"{_named(gpu, node)} takes no new avatars ({gpu.reason}), other GPUs go on: {gpu.message}"
            yield Event("Warning", reason, text)


def _alerts(old: GpuNodeStatus, new: GpuNodeStatus, node: str) -> Iterator[Event]:
    was = {(gpu.uuid, alert.type) for gpu in old.gpus for alert in gpu.alerts}
    # Of one that is lost nobody knows whether it is still hot.
    present = {gpu.uuid for gpu in new.gpus if gpu.healthy}
    for gpu in new.gpus:
        for alert in gpu.alerts:
            # Trouble has an event of its own.
            if alert.type != "Unhealthy" and (gpu.uuid, alert.type) not in was:
                yield Event("Warning", "AlertRaised", f"{alert.type} alert for {_named(gpu, node)}: {alert.message}")
    now = {(gpu.uuid, alert.type) for gpu in new.gpus for alert in gpu.alerts}
    for gpu in old.gpus:
        for alert in gpu.alerts:
            if alert.type != "Unhealthy" and gpu.uuid in present and (gpu.uuid, alert.type) not in now:
                text = f"{alert.type} alert for {_named(gpu, node)} has ended"
                text += f" (it began at {alert.since:%Y-%m-%d %H:%M:%S} UTC)" if alert.since else ""
                yield Event("Normal", "AlertCleared", text)


def _named(gpu: GpuReport, node: str) -> str:
    part = f" MIG {gpu.mig.profile}" if gpu.mig is not None else ""
    return f"GPU {gpu.index}{part} of node {node} ({gpu.product or 'unknown model'}, {gpu.uuid})"
