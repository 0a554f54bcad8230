"""Metrics of the REST API, on its own listener beside /healthz and /readyz."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class ApiMetrics:
    """Counters and histograms; label values come from fixed sets."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        prefix = "avatar_operator_api"

        self.requests = Counter(
            f"{prefix}_requests_total", "Requests by route and status code.", ["route", "code"], registry=self.registry
        )
        self.seconds = Histogram(
            f"{prefix}_request_duration_seconds",
            "Time to the last byte of an answer.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.starts = Counter(
            f"{prefix}_starts_total",
            "Starts by how they ended: new, joined, accepted, refused, gave_up.",
            ["outcome"],
            registry=self.registry,
        )
        self.offers = Counter(
            f"{prefix}_offers_total",
            "Offers that came through the API by how they ended: answered, full, refused.",
            ["outcome"],
            registry=self.registry,
        )
        self.runtime_seconds = Histogram(
            f"{prefix}_runtime_request_duration_seconds",
            "Requests to runtimes on behalf of clients, by the runtime's route.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.peers_gone = Counter(
            f"{prefix}_peers_gone_total",
            "Sessions ended as the runtime had their peer no more.",
            registry=self.registry,
        )
        self.waiting = Gauge(
            f"{prefix}_waiting_starts", "Starts that wait for their avatar at this moment.", registry=self.registry
        )
        self.streams = Gauge(f"{prefix}_event_streams", "Open event streams.", registry=self.registry)
        self.batch = Histogram(
            f"{prefix}_session_batch_size",
            "Changes of sessions that went into one patch.",
            buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
            registry=self.registry,
        )
        self.conflicts = Counter(
            f"{prefix}_session_conflicts_total",
            "Patches of sessions that lost to another writer.",
            registry=self.registry,
        )
        self.limited = Counter(
            f"{prefix}_limited_total", "Requests refused by a limit.", ["limit"], registry=self.registry
        )
        self.limiter_errors = Counter(
            f"{prefix}_limiter_errors_total",
            "Times that the shared limiter did not answer and this process counted alone.",
            registry=self.registry,
        )
        self.kube = Histogram(
            f"{prefix}_kube_request_duration_seconds",
            "Requests to the Kubernetes API.",
            ["verb", "resource"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.kube_errors = Counter(
            f"{prefix}_kube_errors_total",
            "Requests to the Kubernetes API by error code; 0 = no answer.",
            ["verb", "resource", "code"],
            registry=self.registry,
        )
        self.sessions_lapsed = Counter(
            f"{prefix}_sessions_lapsed_total", "Sessions ended as their lease had run out.", registry=self.registry
        )

    def observe_kube(self, verb: str, resource: str, code: int, seconds: float) -> None:
        """A request to the Kubernetes API has ended."""
        self.kube.labels(verb, resource).observe(seconds)
        if code == 0 or code >= 400:
            self.kube_errors.labels(verb, resource, str(code)).inc()
