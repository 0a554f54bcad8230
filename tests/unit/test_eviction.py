"""When a pod may be evicted: what its marks follow, and how sparingly."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from avatar_operator.domain import objects
from avatar_operator.domain.actions import MarkInUse, ProbeActivity
from avatar_operator.domain.eviction import (
    ALL_PODS,
    NEW,
    NEW_SECONDS,
    RECHECK_BEATS,
    UNUSED_SECONDS,
    Protection,
    budget,
    look,
    marks,
)
from avatar_operator.domain.idle import FRESH_SECONDS
from avatar_operator.domain.names import ANNOTATION_SAFE_TO_EVICT, ANNOTATION_TEMPLATE, LABEL_IN_USE
from avatar_operator.domain.plan import plan
from avatar_operator.domain.resources import InstanceStatus, Pod
from avatar_operator.domain.settings import resolve
from avatar_operator.domain.view import RuntimeView
from tests.unit.builders import NOW, ago, avatar, group_of, having, instance, later, pod, pool, seen, service, view

BEAT = 60
READY_LONG_AGO = InstanceStatus(phase="Running", ready_time=ago(3600))
BORN = pod([instance()])


def marked(in_use: bool | None) -> Pod:
    """None: nobody has come yet."""
    labels = BORN.metadata.labels | ({LABEL_IN_USE: NEW} if in_use is None else marks(in_use)[0])
    return msgspec.structs.replace(BORN, metadata=msgspec.structs.replace(BORN.metadata, labels=labels))


def looked(
    in_use: bool | None,
    status: InstanceStatus = READY_LONG_AGO,
    counted: int = 0,
    runtime: RuntimeView | None = None,
    *,
    timeout: int = 1800,
    ask_runtime: bool = True,
) -> Protection:
    found = runtime or RuntimeView()
    return look(marked(in_use), status, counted, found, NOW, timeout=timeout, beat=BEAT, ask_runtime=ask_runtime)


def knows(sessions: int | None, *, age: float = 0, **fields: float) -> RuntimeView:
    return RuntimeView(activity=seen(sessions, at=ago(age), **fields))


@pytest.mark.parametrize(("connections", "mark"), [(0, NEW), (1, "true")])
def test_a_pod_is_new_until_somebody_comes_or_waits_for_it(connections: int, mark: str) -> None:
    made = pod([instance(), having(instance("b"), connections=connections)], new=True)
    assert made.metadata.labels[LABEL_IN_USE] == mark
    assert made.metadata.annotations[ANNOTATION_SAFE_TO_EVICT] == "false", "the autoscaler leaves a new one, too"


def test_a_pool_cannot_take_the_protection_away() -> None:
    item, given = (
        having(instance(), connections=1),
        {"podLabels": {LABEL_IN_USE: "false"}, "podAnnotations": {ANNOTATION_SAFE_TO_EVICT: "true"}},
    )
    spec = pool(runtime={"pod_labels": given["podLabels"], "pod_annotations": given["podAnnotations"]})
    made = objects.pod(spec, [item], resolve(item, spec, avatar()), group_of(item), 8615)["metadata"]
    assert made["labels"][LABEL_IN_USE] == "true"
    assert made["annotations"][ANNOTATION_SAFE_TO_EVICT] == "false"


@pytest.mark.parametrize(("in_use", "mark"), [pytest.param(True, None, id="protected"), (False, True), (None, True)])
def test_a_counted_connection_protects_at_once(in_use: bool | None, mark: bool | None) -> None:
    assert looked(in_use, counted=1) == Protection(mark)
    assert looked(in_use, counted=1, ask_runtime=False) == Protection(mark)
    assert looked(in_use, counted=1, runtime=knows(0)) == Protection(mark)


@pytest.mark.parametrize("sessions", [1, None], ids=["in-use", "unknown-is-not-unused"])
@pytest.mark.parametrize(("in_use", "mark"), [(True, None), (False, True)])
def test_so_does_what_the_runtime_says(in_use: bool, mark: bool | None, sessions: int | None) -> None:
    found = looked(in_use, runtime=knows(sessions, age=10))
    assert found == Protection(mark, next_look=later(BEAT - 10))


@pytest.mark.parametrize(
    ("status", "used_at", "timeout", "due"),
    [
        pytest.param({"ready_time": ago(10)}, None, 1800, UNUSED_SECONDS - 10, id="since-it-was-ready"),
        pytest.param({"last_activity_time": ago(20)}, None, 1800, UNUSED_SECONDS - 20, id="since-the-last-one-left"),
        pytest.param({}, ago(5), 0, UNUSED_SECONDS - 5, id="never-collected-and-somebody-was-counted"),
        pytest.param({"ready_time": ago(10)}, None, 30, 5, id="half-of-a-short-timeout"),
    ],
)
def test_it_stays_protected_for_a_while(status: dict[str, object], used_at: object, timeout: int, due: float) -> None:
    served = msgspec.structs.replace(READY_LONG_AGO, **status)
    runtime = RuntimeView(used_at=used_at)  # type: ignore[arg-type]
    assert looked(True, served, runtime=runtime, timeout=timeout) == Protection(next_look=later(due))


def test_then_the_runtime_is_asked_and_nobody_there_lets_it_go() -> None:
    assert looked(True) == Protection(probe=True)
    assert looked(True, runtime=knows(0, age=FRESH_SECONDS + 1)) == Protection(probe=True)
    assert looked(True, runtime=knows(0, age=1)) == Protection(in_use=False)


def test_without_a_count_in_the_runtime_status_decides() -> None:
    assert looked(True, ask_runtime=False) == Protection(in_use=False)
    assert looked(False, ask_runtime=False) == Protection()


def test_one_that_left_a_moment_ago_whom_only_the_runtime_saw_is_waited_for() -> None:
    found = looked(True, runtime=knows(0, age=1, idle_seconds=9))
    assert found == Protection(next_look=later(UNUSED_SECONDS - 9 - 1))
    # Its time has come while the answer is young still: asked again, not looked at for ever.
    assert looked(True, runtime=knows(0, age=2, idle_seconds=UNUSED_SECONDS - 2)) == Protection(probe=True)


def test_an_evictable_pod_is_asked_again_now_and_then() -> None:
    again = RECHECK_BEATS * BEAT
    assert looked(False, runtime=knows(0, age=again - 1)) == Protection(next_look=later(1))
    assert looked(False, runtime=knows(0, age=again)) == Protection(probe=True)
    assert looked(False, runtime=RuntimeView(known_since=ago(again - 1))) == Protection(next_look=later(1))


def test_a_new_pod_s_runtime_is_asked_often_who_came_past_status() -> None:
    young = msgspec.structs.replace(READY_LONG_AGO, ready_time=ago(UNUSED_SECONDS - 3))
    assert looked(None, young) == Protection(probe=True)
    assert looked(None, young, runtime=knows(0, age=NEW_SECONDS)) == Protection(probe=True)
    assert looked(None, young, runtime=knows(0, age=NEW_SECONDS - 2)) == Protection(next_look=later(2))
    assert looked(None, young, runtime=knows(0, age=1)) == Protection(next_look=later(3)), "it is no longer new then"
    assert looked(None, young, runtime=knows(1)).in_use is True
    assert looked(None, young, ask_runtime=False) == Protection(next_look=later(3))


def test_a_pod_of_an_older_operator_is_as_good_as_new() -> None:
    bare = msgspec.structs.replace(BORN, metadata=msgspec.structs.replace(BORN.metadata, labels={}))
    young = msgspec.structs.replace(READY_LONG_AGO, ready_time=ago(1))
    for status in (young, READY_LONG_AGO):
        for counted in (0, 1):
            found = look(bare, status, counted, RuntimeView(), NOW, timeout=1800, beat=BEAT, ask_runtime=True)
            assert found == looked(None, status, counted)


def test_one_that_nobody_has_come_to_may_go_without_having_been_protected() -> None:
    assert looked(None, ask_runtime=False) == Protection(in_use=False)
    assert looked(None) == Protection(probe=True)
    assert looked(None, runtime=knows(0, age=1)) == Protection(in_use=False)


def test_plan_marks_and_asks_no_more_than_once() -> None:
    one = instance(status=msgspec.structs.replace(READY_LONG_AGO, idle_deadline=later(99), observed_sessions=0))
    group = view(one, claims=(service(one),), pods=(pod([one]),))
    assert len([a for a in plan(group).actions if isinstance(a, ProbeActivity)]) == 1
    (mark,) = [a for a in plan(replace(group, runtime=knows(0))).actions if isinstance(a, MarkInUse)]
    assert mark.in_use is False


def test_marks_make_no_pod_outdated() -> None:
    """A pod is not made anew for what follows its use."""
    one = having(instance(status=READY_LONG_AGO), connections=1)
    here = msgspec.structs.replace(pod([one]), metadata=marked(False).metadata)
    assert here.metadata.annotations[ANNOTATION_TEMPLATE] == BORN.metadata.annotations[ANNOTATION_TEMPLATE]
    actions = plan(view(one, claims=(service(one),), pods=(here,))).actions
    assert [a.in_use for a in actions if isinstance(a, MarkInUse)] == [True]
    assert not [a for a in actions if type(a).__name__ == "DeletePod"]


def test_the_budget_lets_no_pod_in_use_go() -> None:
    """Pods without a scale need a number that is never reached: maxUnavailable and percentages are refused for them."""
    made = budget(pool("gold"))
    assert made["spec"]["minAvailable"] == ALL_PODS
    assert made["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    labels = made["spec"]["selector"]["matchLabels"]
    assert labels[LABEL_IN_USE] == "true"
    item = having(instance(pool_ref="gold"), connections=1)
    assert labels.items() <= pod([item], in_pool=pool("gold")).metadata.labels.items()
    (owner,) = made["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"]) == ("AvatarPool", "gold")
