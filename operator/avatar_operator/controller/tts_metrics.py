"""What Prometheus reads of the speech engines; what they are asked and how fast they answer is in their own metrics."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric

from avatar_operator.domain.tts import TtsEngine
from avatar_operator.domain.tts_view import PHASES

from .tts_index import TtsIndex

LABELS = ("namespace", "engine")


class TtsMetrics:
    """Counters of what happens to engines."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.starts = Counter(
            "avatar_operator_tts_starts_total", "Starts of a speech engine from zero", LABELS, registry=registry
        )
        self.start_seconds = Histogram(
            "avatar_operator_tts_start_seconds",
            "From the first need of a speech engine to its first answer",
            LABELS,
            buckets=(0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300),
            registry=registry,
        )
        self.fallbacks = Counter(
            "avatar_operator_tts_fallbacks_total",
            "Times that another engine had to stand in",
            [*LABELS, "fallback"],
            registry=registry,
        )
        self.failures = Counter(
            "avatar_operator_tts_failures_total",
            "Times that an engine became unavailable and nobody stood in",
            [*LABELS, "reason"],
            registry=registry,
        )
        self.collected = Counter(
            "avatar_operator_tts_collected_total", "Engines stopped because nobody used them", LABELS, registry=registry
        )
        # Status keeps whole seconds; for those that this process saw begin there is more.
        self._began: dict[str, datetime] = {}

    def observe(self, engine: TtsEngine, change: Mapping[str, object], now: datetime) -> None:
        """The status of ``engine`` was changed so at ``now``."""
        meta, phase = engine.metadata, change.get("phase")
        labels = (meta.namespace, meta.name)
        if change.get("startTime") is not None:
            self.starts.labels(*labels).inc()
            self._began[meta.uid] = now
        if change.get("readyTime") is not None:
            began = self._began.get(meta.uid) or engine.status.start_time
            if began is not None:
                self.start_seconds.labels(*labels).observe((now - began).total_seconds())
        if phase == "Fallback":
            self.fallbacks.labels(*labels, str(change.get("fallback", ""))).inc()
        elif phase == "Failed":
            self.failures.labels(*labels, str(change.get("reason", engine.status.reason))).inc()
        elif phase == "Stopped" and engine.status.phase:
            self.collected.labels(*labels).inc()
            self._began.pop(meta.uid, None)


def families(index: TtsIndex) -> list[Metric]:
    """The gauges that are counted when somebody asks."""
    users = GaugeMetricFamily("avatar_operator_tts_users", "Instances that speak through the engine", labels=LABELS)
    phases = GaugeMetricFamily(
        "avatar_operator_tts_phase", "1 for the phase in which the engine is", labels=[*LABELS, "phase"]
    )
    for engine, count in index.every():
        labels = [engine.metadata.namespace, engine.name]
        users.add_metric(labels, count)
        for phase in PHASES:
            phases.add_metric([*labels, phase], float((engine.status.phase or "Stopped") == phase))
    return [users, phases]
