"""What Prometheus reads: `avatar_operator_*`, base units."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from avatar_operator import __version__
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
            "avatar_operator_leader", "1 while this process acts, 0 while it stands by", registry=registry
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
        for pool in self._store.pools():
            labels = [pool.metadata.namespace, pool.metadata.name]
            key = PoolKey(pool.metadata.namespace, pool.metadata.name)
            phases = dict.fromkeys(PHASES, 0)
            counted = 0
            for member in self._store.members_of(key):
                phases[member.status.phase or "Pending"] += 1
                counted += member.counted_connections
            for phase, number in phases.items():
                instances.add_metric([*labels, phase], number)
            connections.add_metric(labels, counted)
            used.add_metric(labels, len(self._store.held(key)))
            total.add_metric(labels, pool.spec.ports.count)
            queue.add_metric(labels, len(self._store.waiting(key)))
        known = GaugeMetricFamily("avatar_operator_known_objects", "Objects in the store", labels=["kind"])
        for kind in (Instance, Pod, Service):
            known.add_metric([kind.__name__], self._store.count(kind))
        return [instances, connections, used, total, queue, known, *families(self._store.tts)]
