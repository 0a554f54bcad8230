"""What Prometheus reads: `avatar_operator_gpu_*`, base units, labels as dcgm-exporter has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from avatar_operator import __version__
from avatar_operator.domain.gpunode import GpuNodeStatus

from .reading import Reading, Snapshot

MIB = float(1 << 20)
# As in dcgm-exporter: a MIG device has its parent's UUID and GPU_I_*. mig_uuid and node are ours. An empty label is
# for Prometheus the same as none, so that one set of labels joins both.
LABELS = [
    "gpu",
    "UUID",
    "pci_bus_id",
    "device",
    "modelName",
    "hostname",
    "GPU_I_PROFILE",
    "GPU_I_ID",
    "mig_uuid",
    "node",
]
ALERTS = ("Temperature", "Memory", "Utilization", "ECC", "XID", "Unhealthy")

_PREFIX = "avatar_operator_gpu_"
_GAUGES: dict[str, tuple[str, Callable[[Reading], float | None]]] = {
    "memory_total_bytes": ("Memory of the GPU", lambda r: r.memory.total_mib * MIB if r.memory is not None else None),
    "memory_used_bytes": (
        "Memory in use by anybody",
        lambda r: r.memory.used_mib * MIB if r.memory is not None else None,
    ),
    "memory_free_bytes": (
        "Memory that can be had",
        lambda r: r.memory.free_mib * MIB if r.memory is not None else None,
    ),
    "memory_reserved_bytes": (
        "Memory that the driver keeps",
        lambda r: r.memory.reserved_mib * MIB if r.memory is not None else None,
    ),
    "utilization_ratio": ("Share of time that it was busy", lambda r: _part(r.utilization_percent, 100)),
    "temperature_celsius": ("Temperature of the GPU", lambda r: r.temperature_celsius),
    "power_watts": ("Power drawn", lambda r: r.power_watts),
    "power_limit_watts": ("Power limit in force", lambda r: r.power_limit_watts),
    "ecc_uncorrected_errors": ("Uncorrected memory errors since the driver's start", lambda r: r.ecc_uncorrected),
}


class Metrics:
    """The agent's registry. ``look`` gives what was read last (None = nothing yet) and what is reported of it."""

    def __init__(self, node: str, look: Callable[[], tuple[Snapshot | None, GpuNodeStatus]]) -> None:
        self.registry = registry = CollectorRegistry()
        info = Gauge(f"{_PREFIX}agent_build_info", "Version of the agent", ["version"], registry=registry)
        info.labels(__version__).set(1)
        self.reports = Counter(f"{_PREFIX}reports_written", "Reports that the API server took", registry=registry)
        self.failures = Counter(f"{_PREFIX}reports_failed", "Reports that it did not take", registry=registry)
        self.events_dropped = Counter(f"{_PREFIX}events_dropped", "Events that were not posted", registry=registry)
        self.read_seconds = Gauge(f"{_PREFIX}read_seconds", "Time that the last reading took", registry=registry)
        registry.register(_GpuCollector(node, look))


class _GpuCollector(Collector):
    """Figures of the last reading, when somebody asks. What the driver does not tell has no sample."""

    def __init__(self, node: str, look: Callable[[], tuple[Snapshot | None, GpuNodeStatus]]) -> None:
        self._node = node
        self._look = look

    def collect(self) -> Iterable[Metric]:
        """One family for each figure, a sample for each GPU and MIG device."""
        snapshot, status = self._look()
        yield from self._figures(snapshot or Snapshot())
        yield from self._states(snapshot or Snapshot(), status)

    def describe(self) -> Iterable[Metric]:
        """Nothing in advance: registering must not read."""
        return []

    def _figures(self, snapshot: Snapshot) -> Iterator[Metric]:
        for name, (text, figure) in _GAUGES.items():
            family = GaugeMetricFamily(_PREFIX + name, text, labels=LABELS)
            for reading in snapshot.gpus:
                value = figure(reading)
                if value is not None:
                    family.add_metric(self._labels(reading), value)
            yield family
        xids = CounterMetricFamily(
            f"{_PREFIX}xid_errors", "XIDs that are no application's, since the agent's start", labels=[*LABELS, "xid"]
        )
        for reading in snapshot.gpus:
            for xid in reading.xids:
                xids.add_metric([*self._labels(reading), str(xid.code)], xid.count)
        yield xids
        errors = CounterMetricFamily(f"{_PREFIX}nvml_errors", "Errors that NVML answered with", labels=["error"])
        for error, count in snapshot.errors.items():
            errors.add_metric([error], count)
        yield errors
        driver = GaugeMetricFamily(f"{_PREFIX}driver_info", "Driver of the node", labels=["driver", "cuda", "node"])
        if snapshot.driver_version:
            driver.add_metric([snapshot.driver_version, snapshot.cuda_version, self._node], 1)
        yield driver

    def _states(self, snapshot: Snapshot, status: GpuNodeStatus) -> Iterator[Metric]:
        read = {reading.uuid: reading for reading in snapshot.gpus}
        healthy = GaugeMetricFamily(f"{_PREFIX}healthy", "1 = the GPU can be used", labels=LABELS)
        alert = GaugeMetricFamily(f"{_PREFIX}alert", "1 = a threshold is passed", labels=[*LABELS, "type"])
        for gpu in status.gpus:
            # One that has vanished is not among what was read, and still is to be heard of.
            seen = read.get(gpu.uuid) or Reading(
                gpu.uuid, gpu.index, product=gpu.product, pci_bus_id=gpu.pci_bus_id, mig=gpu.mig
            )
            labels = self._labels(seen)
            healthy.add_metric(labels, float(gpu.healthy))
            raised = {one.type for one in gpu.alerts}
            for kind in ALERTS:
                alert.add_metric([*labels, kind], float(kind in raised))
        yield healthy
        yield alert

    def _labels(self, reading: Reading) -> list[str]:
        mig = reading.mig
        return [
            str(reading.index),
            mig.parent_uuid if mig is not None else reading.uuid,
            reading.pci_bus_id,
            f"nvidia{reading.index if reading.minor is None else reading.minor}",
            reading.product,
            self._node,
            mig.profile if mig is not None else "",
            str(mig.gpu_instance) if mig is not None else "",
            reading.uuid if mig is not None else "",
            self._node,
        ]


def _part(value: int | None, whole: int) -> float | None:
    return None if value is None else value / whole
