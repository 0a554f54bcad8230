"""Thresholds that a GPU has passed. An alert lasts until the figure is clearly below: it does not flap."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from avatar_operator.domain.clock import floor
from avatar_operator.domain.gpunode import Alert, GpuReport

from .reading import Reading

# How far below its threshold a figure must be for its alert to end: °C, percent, percent.
TEMPERATURE_BAND, MEMORY_BAND, UTILIZATION_BAND = 5, 2, 10
# An XID is news for so long.
XID_LASTS = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From where on there is an alert; 0 = never. The utilization must last for so many seconds."""

    temperature_celsius: int = 85
    memory_percent: int = 95
    utilization_percent: int = 98
    utilization_seconds: int = 300


class Busy:
    """Since when the utilization of each GPU has been above its threshold, from one report to the next."""

    def __init__(self, before: Mapping[str, datetime]) -> None:
        self._before = before
        self.since: dict[str, datetime] = {}

    def mark(self, uuid: str, now: datetime) -> datetime:
        """It is busy at this moment; since when."""
        return self.since.setdefault(uuid, self._before.get(uuid, now))


def alerts(
    reading: Reading, gpu: GpuReport, before: Iterable[Alert], thresholds: Thresholds, busy: Busy, now: datetime
) -> tuple[Alert, ...]:
    """The alerts of one GPU; ``since`` stays what it was in ``before`` for as long as an alert lasts."""
    since = {alert.type: alert.since for alert in before}
    messages = {
        "Unhealthy": reading.message if reading.trouble else "",
        "Temperature": _temperature(gpu, thresholds.temperature_celsius, "Temperature" in since),
        "Memory": _memory(gpu, thresholds.memory_percent, "Memory" in since),
        "Utilization": _utilization(gpu, thresholds, "Utilization" in since, busy, now),
        "ECC": f"{reading.ecc_uncorrected} uncorrected memory errors since the driver was loaded"
        if reading.ecc_uncorrected
        else "",
        "XID": _xid(reading, now),
    }
    return tuple(
        Alert(type=kind, message=text, since=since.get(kind) or floor(now)) for kind, text in messages.items() if text
    )


def word(alert: Alert, gpu: GpuReport) -> str:
    """An alert as one entry of the node's list: "Temperature GPU 1"."""
    part = f" MIG {gpu.mig.profile} {gpu.mig.gpu_instance}/{gpu.mig.compute_instance}" if gpu.mig is not None else ""
    return f"{alert.type} GPU {gpu.index}{part}"


def _temperature(gpu: GpuReport, limit: int, lasts: bool) -> str:
    now = gpu.temperature_celsius
    if not limit or now is None or now < limit - (TEMPERATURE_BAND if lasts else 0):
        return ""
    return f"{now} °C, the threshold is {limit} °C"


def _memory(gpu: GpuReport, limit: int, lasts: bool) -> str:
    if not limit or gpu.memory is None or not gpu.memory.total_mib:
        return ""
    taken = gpu.memory.total_mib - gpu.memory.free_mib
    percent = 100 * taken / gpu.memory.total_mib
    if percent < limit - (MEMORY_BAND if lasts else 0):
        return ""
    return f"{percent:.0f} % of the memory is taken ({gpu.memory.free_mib} MiB free), the threshold is {limit} %"


def _utilization(gpu: GpuReport, thresholds: Thresholds, lasts: bool, busy: Busy, now: datetime) -> str:
    percent, limit = gpu.utilization_percent, thresholds.utilization_percent
    if not limit or percent is None or percent < limit - (UTILIZATION_BAND if lasts else 0):
        return ""
    began = busy.mark(gpu.uuid, now)
    if not lasts and now - began < timedelta(seconds=thresholds.utilization_seconds):
        return ""
    return f"{percent} % busy, at or above {limit} % for {thresholds.utilization_seconds} s and more"


def _xid(reading: Reading, now: datetime) -> str:
    fresh = [xid for xid in reading.xids if now - xid.last < XID_LASTS]
    told = ", ".join(f"Xid {xid.code} ({xid.count} times, last {xid.last:%H:%M:%S} UTC)" for xid in fresh)
    return f"the driver told of {told}" if told else ""
