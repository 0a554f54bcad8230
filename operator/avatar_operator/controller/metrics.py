"""What Prometheus reads: `avatar_operator_*`, base units."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from avatar_operator import __version__
from avatar_operator.domain.findings import RULES
from avatar_operator.domain.progress import EXHAUSTED
from avatar_operator.domain.resources import Instance, Pod, Service

from .keys import PoolKey
from .store import Store
from .tts_metrics import TtsMetrics, families

PHASES = ("Pending", "Starting", "Running", "Draining", "Stopped", "Shared", "Failed")


class Metrics:
    """All metrics of the operator in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        build = Gauge("avatar_operator_build_info", "Version of the operator", ["version"], registry=registry)
        build.labels(__version__).set(1)
        self.leader = Gauge(
            "avatar_operator_leader",
            "1 while this process acts for its shard, 0 while it stands by",
            ["shard"],
            registry=registry,
        )
        self.reconcile_seconds = Histogram(
            "avatar_operator_reconcile_seconds",
            "Time to bring one key to its desired state",
            ["kind"],
            buckets=(0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 1, 5, 30),
            registry=registry,
        )
        self.reconcile_errors = Counter(
            "avatar_operator_reconcile_errors_total", "Reconciles that failed and retry", ["reason"], registry=registry
        )
        self.queue_seconds = Histogram(
            "avatar_operator_workqueue_wait_seconds",
            "Time that a key waited for a worker",
            buckets=(0.001, 0.01, 0.05, 0.1, 0.5, 1, 5, 30),
            registry=registry,
        )
        self.queue_depth = Gauge("avatar_operator_workqueue_depth", "Keys that wait for a worker", registry=registry)
        self.api_seconds = Histogram(
            "avatar_operator_api_request_seconds",
            "Requests to the API server by verb, resource and HTTP code (0 = no answer)",
            ["verb", "resource", "code"],
            buckets=(0.005, 0.02, 0.05, 0.1, 0.5, 1, 5, 15),
            registry=registry,
        )
        self.start_seconds = Histogram(
            "avatar_operator_instance_start_seconds",
            "From the creation of an instance's pod to its first Ready",
            ["namespace", "pool"],
            buckets=(0.25, 0.5, 1, 2, 5, 10, 15, 30, 60, 300),
            registry=registry,
        )
        self.start_phase_seconds = Histogram(
            "avatar_operator_start_phase_seconds",
            "Parts of a cold start: queue (instance to pod), schedule, pull (to a running container), load (to the "
            "runtime's first answer), ready (to the instance's status), first_frame (to the first picture that "
            "somebody sees, waiting for somebody included); in whole seconds of Kubernetes",
            ["namespace", "pool", "phase"],
            buckets=(0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 900),
            registry=registry,
        )
        self.port_conflicts = Counter(
            "avatar_operator_port_conflicts_total",
            "Ports that turned out to be taken when they were claimed",
            ["namespace", "pool"],
            registry=registry,
        )
        self.collected = Counter(
            "avatar_operator_collected_total",
            "Instances collected: idle, never claimed by anybody (Unclaimed), or at their maximum age",
            ["namespace", "pool", "action", "reason"],
            registry=registry,
        )
        self.culled_active = Counter(
            "avatar_operator_culled_active_total",
            "Instances collected though a connection was counted in them: must stay 0",
            registry=registry,
        )
        self.pod_failures = Counter(
            "avatar_operator_pod_failures_total", "Runtime pods given up on", ["reason"], registry=registry
        )
        self.probes_deferred = Counter(
            "avatar_operator_probes_deferred_total",
            "Questions to runtimes put off because enough were being asked at that moment",
            registry=registry,
        )
        self.media_stalled = Counter(
            "avatar_operator_media_stalled_total",
            "Instances whose viewers were connected and got no video frames",
            ["namespace", "pool"],
            registry=registry,
        )
        self.placement_conflicts = Counter(
            "avatar_operator_placement_conflicts_total",
            "Claims taken back because another operator was faster on the GPU",
            registry=registry,
        )
        self.watch_events = Counter(
            "avatar_operator_watch_events_total", "Events that the watch delivered", ["resource"], registry=registry
        )
        self.resync_corrections = Counter(
            "avatar_operator_resync_corrections_total",
            "Objects that a resync had to correct because the watch had not",
            ["resource"],
            registry=registry,
        )
        self.resync_time = Gauge(
            "avatar_operator_resync_timestamp_seconds", "When the last resync succeeded", registry=registry
        )
        self.inconsistencies = Gauge(
            "avatar_operator_inconsistencies",
            "What the last audit found inconsistent, by kind (docs/audit.md)",
            ["kind"],
            registry=registry,
        )
        self.repairs = Counter(
            "avatar_operator_repairs_total",
            "Inconsistencies that were there at one audit and gone at the next",
            ["kind"],
            registry=registry,
        )
        for kind in RULES:
            self.inconsistencies.labels(kind).set(0)
            self.repairs.labels(kind).inc(0)
        self.events_dropped = Counter(
            "avatar_operator_events_dropped_total", "Kubernetes Events that could not be posted", registry=registry
        )
        self.bad_objects = Counter(
            "avatar_operator_undecodable_objects_total",
            "Objects of the API server that do not fit their schema and were skipped",
            ["resource"],
            registry=registry,
        )

        self.tts = TtsMetrics(registry)

    def observe_api(self, verb: str, resource: str, code: int, seconds: float) -> None:
        """One API request."""
        self.api_seconds.labels(verb, resource, str(code)).observe(seconds)


class StoreCollector(Collector):
    """The gauges that are counted from the store when somebody asks."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterable[Metric]:
        """One family for each gauge, a sample for each pool."""
        instances = GaugeMetricFamily(
            "avatar_operator_instances", "Instances by phase", labels=["namespace", "pool", "phase"]
        )
        connections = GaugeMetricFamily(
            "avatar_operator_connections", "Connections counted in status", labels=["namespace", "pool"]
        )
        used = GaugeMetricFamily(
            "avatar_operator_ports_in_use", "Ports of the range that are claimed", labels=["namespace", "pool"]
        )
        total = GaugeMetricFamily("avatar_operator_ports", "Ports in the range", labels=["namespace", "pool"])
        queue = GaugeMetricFamily(
            "avatar_operator_queue_length", "Instances that wait for a port", labels=["namespace", "pool"]
        )
        limit = GaugeMetricFamily(
            "avatar_operator_instance_limit",
            "Most instances that may have a port at once",
            labels=["namespace", "pool"],
        )
        waiting = GaugeMetricFamily(
            "avatar_operator_waiting_instances",
            "Instances that wait for room, by what there is none of",
            labels=["namespace", "pool", "reason"],
        )
        shared = GaugeMetricFamily(
            "avatar_operator_shared_avatars", "Avatars with more than one connection", labels=["namespace", "pool"]
        )
        for pool in self._store.pools():
            labels = [pool.metadata.namespace, pool.metadata.name]
            key = PoolKey(pool.metadata.namespace, pool.metadata.name)
            phases = dict.fromkeys(PHASES, 0)
            reasons = dict.fromkeys(sorted(EXHAUSTED), 0)
            avatars: Tally[str] = Tally()
            for member in self._store.members_of(key):
                phase = member.status.phase or "Pending"
                phases[phase] += 1
                avatars[member.spec.avatar_name] += member.counted_connections
                if phase == "Pending" and member.status.reason in reasons:
                    reasons[member.status.reason] += 1
            for phase, number in phases.items():
                instances.add_metric([*labels, phase], number)
            for reason, number in reasons.items():
                waiting.add_metric([*labels, reason], number)
            connections.add_metric(labels, avatars.total())
            shared.add_metric(labels, sum(count > 1 for count in avatars.values()))
            limit.add_metric(labels, pool.spec.capacity)
            used.add_metric(labels, len(self._store.held(key)))
            total.add_metric(labels, pool.spec.ports.count)
            queue.add_metric(labels, len(self._store.waiting(key)))
        known = GaugeMetricFamily("avatar_operator_known_objects", "Objects in the store", labels=["kind"])
        for kind in (Instance, Pod, Service):
            known.add_metric([kind.__name__], self._store.count(kind))
        pools = [instances, limit, waiting, connections, shared, used, total, queue]
        return [*pools, known, *self._gpus(), *families(self._store.tts)]

    def _gpus(self) -> list[Metric]:
        """What the operator makes of the agents' reports."""
        stale = GaugeMetricFamily(
            "avatar_operator_gpu_report_stale_timestamp_seconds",
            "When the newest report of a node's agent stops counting, unless another comes",
            labels=["node"],
        )
        reserved = GaugeMetricFamily(
            "avatar_operator_gpu_pods_reserved_bytes",
            "Memory that the operator keeps on a GPU for avatars and speech engines",
            labels=["node", "UUID"],
        )
        for report in self._store.gpus.reports():
            name = report.metadata.name
            if report.stale_at is not None:
                stale.add_metric([name], report.stale_at.timestamp())
            kept = Tally({gpu.uuid: 0 for gpu in report.status.gpus})
            for one in self._store.gpus.reserved_on(name):
                kept[one.uuid] += one.mib
            for uuid, mib in kept.items():
                reserved.add_metric([name, uuid], float(mib << 20))
        return [stale, reserved]
