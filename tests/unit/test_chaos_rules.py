"""The chaos suite's observer sees what it is there for: histories that break each rule, and some that break none."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from chaos.deeds import Deeds, Talk
from chaos.objects import INSTANCES, LABEL_GROUP, LABEL_POOL, LABEL_PORT, LEASES
from chaos.rules import Rules
from tests.support.api import Json
from tests.support.history import Event


class Story:
    """Events one after the other, a tenth of a second apart unless ``wait`` says more."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.deeds = Deeds()
        self.now = 100.0
        self.version = 0
        self.pool()

    def wait(self, seconds: float) -> Story:
        self.now += seconds
        return self

    def pool(self, capacity: int = 2, idle: int = 1, kind: str = "ADDED", **more: Any) -> Story:
        spec = {"ports": {"base": 8615, "count": 5}, "maxInstances": capacity, "idle": {"timeoutSeconds": idle, **more}}
        return self._add("avatarpools", kind, "default", {}, {"spec": spec})

    def claim(self, port: int, group: str = "g1", kind: str = "ADDED") -> Story:
        return self._add("services", kind, f"avatar-{port}", _labels(port, group), {})

    def pod(
        self,
        port: int,
        group: str = "g1",
        kind: str = "ADDED",
        *,
        ready: bool = True,
        ending: bool = False,
        phase: str = "Running",
        owner: str = "one",
        name: str = "",
    ) -> Story:
        meta: Json = {"ownerReferences": [{"uid": f"uid-{owner}"}], **({"deletionTimestamp": "now"} if ending else {})}
        status = {"phase": phase, "conditions": [{"type": "Ready", "status": "True" if ready else "False"}]}
        return self._add("pods", kind, name or f"avatar-{port}", _labels(port, group), {"status": status}, meta)

    def instance(
        self, name: str = "one", kind: str = "MODIFIED", avatar: str = "Ada", idle: int | None = None, **status: Any
    ) -> Story:
        spec: Json = {"avatarName": avatar, "poolRef": "default"}
        if idle is not None:
            spec["idle"] = {"timeoutSeconds": idle}
        return self._add(INSTANCES, kind, name, {}, {"spec": spec, "status": status})

    def counted(self, name: str = "one") -> Story:
        """What came last was a backend's patch."""
        self.deeds.counted.add((f"uid-{name}", self.version))
        return self

    def lease(self, holder: str, kind: str = "MODIFIED") -> Story:
        spec = {"holderIdentity": holder, "leaseDurationSeconds": 4}
        return self._add(LEASES, kind, "operator", {}, {"spec": spec})

    def broken(self) -> list[str]:
        return [v.rule for v in Rules(self.deeds).check(self.events)]

    def _add(self, resource: str, kind: str, name: str, labels: Json, rest: Json, meta: Json | None = None) -> Story:
        self.version += 1
        self.now += 0.1
        body = {"metadata": {"name": name, "uid": f"uid-{name}", "labels": labels, **(meta or {})}, **rest}
        self.events.append(Event(self.version, self.now, resource, kind, body, 1_700_000_000 + self.now))
        return self


def _labels(port: int, group: str) -> Json:
    return {LABEL_PORT: str(port), LABEL_POOL: "default", LABEL_GROUP: group}


SERVING: Json = {"phase": "Running", "port": 8615, "podName": "avatar-8615", "webrtcUrl": "http://there"}


def _served() -> Story:
    """One instance, its claim, its pod, ready."""
    return Story().instance(kind="ADDED").claim(8615).pod(8615).instance(**SERVING)


def test_a_life_in_order_breaks_nothing() -> None:
    story = _served().wait(1).instance(**SERVING, connections=1).counted()
    story.wait(1).instance(**SERVING, connections=0).counted()
    story.wait(2).instance(**{**SERVING, "phase": "Draining"}).instance(kind="DELETED", **SERVING)
    story.pod(8615, kind="MODIFIED", ending=True).pod(8615, kind="DELETED", ending=True).claim(8615, kind="DELETED")
    assert story.broken() == []


def test_what_the_run_did_itself_is_no_violation() -> None:
    story = _served().instance(**SERVING, connections=1).counted()
    story.deeds.delete("uid-avatar-8615", "services/avatar-8615")
    story.claim(8615, kind="DELETED").claim(8615)
    story.pod(8615, kind="MODIFIED", ending=True).pod(8615, kind="DELETED", ending=True)
    story.deeds.delete("uid-one")
    assert story.instance(kind="DELETED", **SERVING, connections=1).broken() == []


def test_what_led_to_a_state_that_was_not_seen_is_not_judged() -> None:
    story = _served().instance(**SERVING, connections=2).counted().instance(**SERVING, connections=1)
    story.events[-1] = replace(story.events[-1], gap=True)
    assert story.broken() == []
    assert story.instance(**SERVING, connections=0).broken() == ["count changed by the operator"]


# ---- pods and claims -----------------------------------------------------------------------


def test_a_port_held_twice() -> None:
    story = _served().claim(8616, "g2").pod(8615, "g2", name="avatar-8616")
    assert "port held twice" in story.broken()


def test_two_pods_of_one_avatar() -> None:
    assert _served().claim(8616).pod(8616).broken() == ["two pods of one avatar"]


def test_a_new_pod_beside_one_that_failed_or_ends_is_right() -> None:
    story = _served().pod(8615, kind="MODIFIED", phase="Failed").claim(8616).pod(8616)
    assert story.broken() == []


def test_a_pod_without_a_claim() -> None:
    assert Story().instance(kind="ADDED").pod(8615).broken() == ["pod without a claim"]
    assert Story().claim(8615, "g2").pod(8615, "g1").broken() == ["pod without a claim"]


def test_a_claim_released_over_a_pod() -> None:
    assert _served().claim(8615, kind="DELETED").broken() == ["claim released over a pod"]


def test_a_pool_overfull() -> None:
    story = Story().claim(8615, "g1").claim(8616, "g2").claim(8617, "g3")
    assert story.broken() == ["pool overfull"]


def test_a_limit_that_was_lowered_a_moment_ago_is_not_known_yet() -> None:
    story = Story().claim(8615, "g1").pool(capacity=1, kind="MODIFIED")
    assert story.claim(8616, "g2").broken() == []
    assert story.wait(60).claim(8617, "g3").broken() == ["pool overfull"]


def test_a_port_shown_twice() -> None:
    story = _served().instance("two", kind="ADDED", avatar="Bob", **SERVING)
    assert story.broken() == ["port shown twice"]


# ---- in use --------------------------------------------------------------------------------


def test_an_instance_in_use_deleted() -> None:
    story = _served().instance(**SERVING, connections=1).counted()
    assert story.wait(5).instance(kind="DELETED", **SERVING, connections=1).broken() == ["instance in use deleted"]


def test_an_instance_with_a_session_deleted() -> None:
    used = {**SERVING, "connections": 0, "sessions": [{"id": "a"}]}
    story = _served().instance(**used).counted()
    assert story.wait(5).instance(kind="DELETED", **used).broken() == ["instance in use deleted"]


def test_put_to_sleep_in_use() -> None:
    story = _served().instance(**SERVING, connections=1).counted()
    assert story.wait(5).instance(phase="Stopped", reason="Idle", connections=1).broken() == ["put to sleep in use"]


@pytest.mark.parametrize("phase", ["Running", "Shared", "Draining"])
def test_a_pod_in_use_ended(phase: str) -> None:
    story = _served().instance(**{**SERVING, "phase": phase, "sharedWith": "x"}, connections=2).counted()
    assert story.pod(8615, kind="MODIFIED", ending=True).broken() == ["pod in use ended"]


def test_a_pod_in_use_gone_without_a_word() -> None:
    story = _served().instance(**SERVING, connections=2).counted()
    assert story.pod(8615, kind="DELETED").broken() == ["pod in use ended"]


@pytest.mark.parametrize("why", ["deleted", "broken", "unready", "orphaned", "outage"])
def test_a_pod_in_use_may_end_for_a_reason(why: str) -> None:
    story = _served().instance(**SERVING, connections=2).counted()
    if why == "deleted":
        story.deeds.delete("uid-avatar-8615")
    elif why == "broken":
        story.deeds.break_pod("uid-avatar-8615")
    elif why == "unready":
        story.pod(8615, kind="MODIFIED", ready=False)
    elif why == "orphaned":
        story.deeds.delete("uid-one")
        story.instance(kind="DELETED", **SERVING, connections=2)
    else:
        story.deeds.outages.append((story.now, story.now + 1))
    assert story.pod(8615, kind="MODIFIED", ending=True).broken() == []


def test_a_session_that_only_the_runtime_knows_cut_off() -> None:
    story = _served().wait(3)
    story.deeds.talks.append(Talk("uid-avatar-8615", story.now - 2))
    assert story.pod(8615, kind="MODIFIED", ending=True).broken() == ["session cut off"]
    story.deeds.talks[0] = Talk("uid-avatar-8615", story.now - 2, story.now - 1)
    assert story.broken() == []


def test_an_instance_deleted_under_such_a_session() -> None:
    story = _served().wait(3)
    story.deeds.talks.append(Talk("uid-avatar-8615", story.now - 2))
    assert story.instance(kind="DELETED", **SERVING).broken() == ["session cut off"]


def test_collected_too_early() -> None:
    story = Story().pool(idle=5, kind="MODIFIED").wait(20).instance(kind="ADDED").claim(8615).pod(8615)
    story.instance(**SERVING).wait(2)
    assert story.instance(kind="DELETED", **SERVING).broken() == ["collected too early"]


def test_collected_too_early_after_the_last_one_left() -> None:
    story = Story().pool(idle=5, kind="MODIFIED").wait(20).instance(kind="ADDED").claim(8615).pod(8615)
    story.instance(**SERVING).instance(**SERVING, connections=1).counted().wait(20)
    story.instance(**SERVING, connections=0).counted().wait(2)
    assert story.instance(phase="Stopped", reason="Idle").broken() == ["collected too early"]


def test_collected_though_it_never_should_be() -> None:
    story = Story().pool(idle=0, kind="MODIFIED").wait(20).instance(kind="ADDED").claim(8615).pod(8615)
    story.instance(**SERVING).wait(60)
    assert story.instance(kind="DELETED", **SERVING).broken() == ["collected though it never should be"]


# ---- counts --------------------------------------------------------------------------------


def test_a_negative_count() -> None:
    assert "negative count" in _served().instance(**SERVING, connections=-1).counted().broken()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_count_changed_by_the_operator(count: int) -> None:
    story = _served().instance(**SERVING, connections=2).counted()
    assert story.instance(**SERVING, connections=count).broken() == ["count changed by the operator"]


def test_a_lost_answer_may_have_counted() -> None:
    story = _served()
    story.deeds.perhaps.add(("uid-one", 2))
    assert story.instance(**SERVING, connections=2).broken() == []


def test_a_session_dropped_before_its_lease_is_over() -> None:
    for late, expected in ((60, ["count changed by the operator"]), (-1, [])):
        story = _served()
        ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(1_700_000_000 + story.now + late))
        story.instance(**SERVING, connections=2, sessions=[{"id": "a", "expires": ends}]).counted()
        assert story.instance(**SERVING, connections=1, sessions=[]).broken() == expected


def test_a_leaked_count_is_corrected_where_the_runtime_knows_better() -> None:
    for leak, expected in ((300, ["count changed by the operator"]), (3, [])):
        story = Story().pool(kind="MODIFIED", activitySource="Runtime", connectionLeakSeconds=leak)
        story.instance(kind="ADDED").claim(8615).pod(8615).instance(**SERVING)
        story.instance(**SERVING, connections=2).counted().wait(5)
        assert story.instance(**SERVING, connections=0).broken() == expected


def test_a_count_is_not_corrected_the_moment_that_somebody_connects() -> None:
    story = Story().pool(kind="MODIFIED", activitySource="Runtime", connectionLeakSeconds=3)
    story.instance(kind="ADDED").claim(8615).pod(8615).instance(**SERVING)
    story.instance(**SERVING, connections=1).counted().wait(9).instance(**SERVING, connections=2).counted()
    assert story.instance(**SERVING, connections=0).broken() == ["count changed by the operator"]


# ---- the rest ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "rule"),
    [
        ({"phase": "Sleeping"}, "unknown phase"),
        ({**SERVING, "port": 8616}, "port of another pod"),
        ({"phase": "Running", "podName": "avatar-8615"}, "serves without a port"),
        ({**SERVING, "phase": "Shared"}, "shares with nobody"),
    ],
)
def test_a_status_that_contradicts_itself(status: Json, rule: str) -> None:
    assert Story().instance(kind="ADDED", **status).broken() == [rule]


def test_a_lease_taken_early() -> None:
    story = Story().lease("a", "ADDED").wait(1).lease("a").wait(1).lease("b")
    assert story.broken() == ["lease taken early"]


def test_a_lease_taken_late_or_given_up_is_right() -> None:
    story = Story().lease("a", "ADDED").wait(5).lease("b").wait(1).lease("").lease("c")
    assert story.broken() == []
