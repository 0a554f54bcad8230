"""The observer of the cluster tests sees what it is there for: histories that break a rule, and some that do not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.api import Json
from tests.support.gpus import GPU_MIB, GPUNODES, LABEL_GPU
from tests.support.history import Event
from tests.support.observer import LABEL_PORT, Observer

GPU = "GPU-w-0"


class History:
    """Events one after the other, half a second apart unless ``wait`` says more."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.now = 100.0
        self.version = 0

    def wait(self, seconds: float) -> History:
        self.now += seconds
        return self

    def report(
        self, total: int = 10000, external: int = 0, healthy: bool = True, pods: dict[str, int] | None = None
    ) -> History:
        used = external + sum((pods or {}).values())
        memory = {"totalMiB": total, "usedMiB": used, "freeMiB": total - used}
        measured = [{"uid": uid, "usedMiB": mib} for uid, mib in (pods or {}).items()]
        gpu = {"uuid": GPU, "healthy": healthy, "memory": memory, "processesKnown": True, "pods": measured}
        return self._add(GPUNODES, "MODIFIED", "node-w", {}, {}, {"status": {"gpus": [gpu]}})

    def service(self, name: str, mib: int, kind: str = "ADDED", gpu: str = GPU) -> History:
        return self._add("services", kind, name, {LABEL_GPU: gpu}, {GPU_MIB: str(mib)}, {})

    def pod(self, name: str, mib: int, kind: str = "ADDED", env: str = GPU, gpu: str = GPU) -> History:
        container = {"env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": env}]}
        labels = {LABEL_PORT: "8615", **({LABEL_GPU: gpu} if gpu else {})}
        return self._add("pods", kind, name, labels, {GPU_MIB: str(mib)}, {"spec": {"containers": [container]}})

    def instance(self, name: str, pod: str, mib: int) -> History:
        status = {"podName": pod, "gpu": {"uuid": GPU, "reservedMiB": mib}}
        return self._add("avatarinstances", "MODIFIED", name, {}, {}, {"status": status})

    def judged(self, **options: Any) -> list[str]:
        """The rules that were broken."""
        seen = Observer(**{"min_free": 1000, "release_seconds": 3, **options})
        seen.check(self.events, "w")
        return [v.rule for v in seen.violations]

    def _add(self, resource: str, kind: str, name: str, labels: Json, annotations: Json, rest: Json) -> History:
        self.version += 1
        self.now += 0.5
        meta = {"name": name, "uid": f"uid-{name}", "labels": labels, "annotations": annotations}
        self.events.append(Event(self.version, self.now, resource, kind, {"metadata": meta, **rest}))
        return self


def _one() -> History:
    return History().report().service("a", 4000).pod("a", 4000).report(pods={"uid-a": 4000}).instance("one", "a", 4000)


def test_a_life_in_order_breaks_nothing() -> None:
    life = _one().service("b", 4000).pod("b", 4000).report(pods={"uid-a": 4000, "uid-b": 4000})
    life.pod("a", 4000, "DELETED").wait(3).service("a", 4000, "DELETED")
    life.report(pods={"uid-b": 4000})
    assert life.service("c", 4000).pod("c", 4000).judged() == []


@pytest.mark.parametrize(
    ("history", "rule"),
    [
        (_one().service("b", 4000).service("c", 4000), "over total"),
        (_one().service("b", 6500), "over-reserved"),
        (_one().report(external=3000, pods={"uid-a": 4000}).wait(3).service("b", 4000), "over-reserved"),
        (_one().report(pods={"uid-a": 7000}).wait(3).service("b", 4000), "no free memory"),
        (_one().pod("b", 4000, gpu=""), "unreserved"),
        (_one().pod("b", 2000), "unreserved"),
        (_one().service("b", 4000).pod("b", 4000, env="GPU-other"), "other GPU"),
        (_one().service("a", 4000, "DELETED"), "released early"),
        (_one().pod("a", 4000, "DELETED").service("a", 4000, "DELETED"), "released early"),
        (_one().report(healthy=False).wait(3).service("b", 4000), "lost GPU"),
        (History().service("a", 4000), "unknown GPU"),
        (_one().instance("two", "b", 4000).instance("three", "c", 4000), "status over total"),
    ],
)
def test_a_broken_rule_is_seen(history: History, rule: str) -> None:
    assert rule in history.judged()


def test_growth_that_nobody_could_have_seen_is_no_fault() -> None:
    life = _one().report(external=3000, pods={"uid-a": 4000}).service("b", 4000)
    assert "over-reserved" not in life.judged()


def test_processes_that_were_seen_to_leave_end_a_reservation() -> None:
    life = _one().pod("a", 4000, "DELETED").report().service("a", 4000, "DELETED")
    assert life.judged() == []


def test_two_operators_may_claim_at_once_but_not_start() -> None:
    race = _one().service("b", 4000).service("c", 4000)
    assert race.judged(operators=2) == []
    assert "over total" in race.pod("b", 4000).pod("c", 4000).judged(operators=2)


def test_a_claim_that_fits_no_more_must_go() -> None:
    race = _one().service("b", 4000).service("c", 4000).pod("b", 4000).wait(10).report(pods={"uid-a": 4000})
    assert "leaked claim" in race.judged(operators=2)
