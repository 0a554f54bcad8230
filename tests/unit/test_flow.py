"""Media that stands still: told after one period, acted upon only when a second source agrees."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import msgspec
import pytest

from avatar_operator.domain.actions import DeletePod, PatchStatus, Plan, ProbeActivity
from avatar_operator.domain.flow import CONDITION, STALLED, Flow, look, mark, overdue_at
from avatar_operator.domain.plan import plan
from avatar_operator.domain.resources import Condition, Health, InstanceStatus, Pod
from avatar_operator.domain.view import Activity, FrameMark, GroupView, RuntimeView
from tests.unit.builders import (
    NOW,
    ago,
    condition,
    having,
    instance,
    later,
    patches,
    pod,
    pool,
    running,
    seen,
    service,
    view,
)

PERIOD = 60
POD = pod([instance()], age=3600)


def answer(frames: int | None, viewers: int = 1, *, at: datetime = NOW) -> Activity:
    return seen(viewers, at=at, frames=frames, viewers=viewers)


def after(*answers: Activity) -> RuntimeView:
    """What is remembered after these answers."""
    found: FrameMark | None = None
    for one in answers:
        found = mark(found, one)
    return RuntimeView(activity=answers[-1], frames=found)


def status(*conditions: Condition) -> InstanceStatus:
    return InstanceStatus(phase="Running", conditions=conditions)


def stalled(since: datetime) -> Condition:
    return condition(CONDITION, "False", STALLED, "…", since)


def test_frames_that_move_are_not_worth_a_word() -> None:
    runtime = after(answer(100, at=ago(120)), answer(1600, at=ago(60)), answer(3100))
    assert look(status(), POD, runtime, NOW, period=PERIOD) == Flow()


def test_frames_that_stand_still_for_a_period_are_told_once() -> None:
    runtime = after(answer(99, at=ago(PERIOD + 60)), answer(100, at=ago(PERIOD)), answer(100))
    found = look(status(), POD, runtime, NOW, period=PERIOD)
    assert found.condition is not None
    assert found.condition[:3] == (CONDITION, "False", STALLED)
    assert "11:59:00 UTC" in found.condition[3]
    assert found.event is not None
    assert (found.event.type, found.event.reason) == ("Warning", STALLED)
    assert found.stalled_since == NOW
    again = look(status(stalled(ago(1))), POD, runtime, NOW, period=PERIOD)
    assert again == Flow(stalled_since=ago(1))


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param([answer(100, at=ago(PERIOD - 1)), answer(100)], id="two-looks-in-one-period"),
        pytest.param([answer(100)], id="one-look"),
        pytest.param([answer(None, at=ago(600)), answer(None)], id="a-runtime-that-does-not-count"),
        pytest.param([answer(0, 0, at=ago(600)), answer(0, 0)], id="nobody-watches"),
        pytest.param([answer(100, 0, at=ago(600)), answer(100)], id="somebody-has-just-come"),
        pytest.param([answer(100, at=ago(600)), answer(100, 0, at=ago(60)), answer(100)], id="others-have-just-come"),
        pytest.param([answer(100, at=ago(600)), answer(7)], id="counted-anew-after-a-restart"),
        pytest.param([answer(100, at=ago(600)), seen(None)], id="it-does-not-answer"),
    ],
)
def test_nothing_is_said(answers: list[Activity]) -> None:
    assert look(status(), POD, after(*answers), NOW, period=PERIOD) == Flow()


def test_an_unanswered_look_in_between_hides_nothing() -> None:
    runtime = after(answer(100, at=ago(120)), seen(None, at=ago(60)), answer(100))
    assert look(status(), POD, runtime, NOW, period=PERIOD).stalled_since == NOW


def test_it_is_taken_back_when_frames_move_again() -> None:
    runtime = after(answer(100, at=ago(60)), answer(101))
    assert look(status(stalled(ago(300))), POD, runtime, NOW, period=PERIOD).condition == (
        CONDITION,
        "True",
        "Flowing",
        "",
    )


def test_a_new_process_goes_on_where_the_last_one_was() -> None:
    """Its first answer proves nothing; since when it has stood still is in the condition."""
    known = status(stalled(ago(300)))
    assert look(known, POD, RuntimeView(), NOW, period=PERIOD) == Flow(stalled_since=ago(300))
    assert look(known, POD, after(answer(100)), NOW, period=PERIOD) == Flow(stalled_since=ago(300))


@pytest.mark.parametrize(
    ("made", "runtime"),
    [
        pytest.param(POD, after(answer(100, at=ago(60)), answer(100, 0)), id="the-last-viewer-left"),
        pytest.param(pod([instance()], age=100), RuntimeView(), id="another-pod"),
        pytest.param(pod([instance()], age=3600, container_statuses=()), RuntimeView(), id="no-container-runs"),
    ],
)
def test_it_is_dropped_with_what_it_was_about(made: Pod, runtime: RuntimeView) -> None:
    assert look(status(stalled(ago(300))), made, runtime, NOW, period=PERIOD) == Flow(drop=True)


def test_overdue_after_so_many_looks() -> None:
    assert overdue_at(Flow(), period=60, failures=3) is None
    assert overdue_at(Flow(stalled_since=NOW), period=60, failures=3) == later(120)
    assert overdue_at(Flow(stalled_since=NOW), period=60, failures=1) == NOW


# ---- what a plan does about it ------------------------------------------------------------


def group(runtime: RuntimeView, since: datetime, *, ready: bool = True, age: float = 3600) -> GroupView:
    """An instance with a viewer whose media has stood still since then."""
    one = having(
        instance(status=InstanceStatus(phase="Running", ready_time=ago(age - 1), idle_deadline=None)),
        connections=1,
        conditions=(stalled(since),),
    )
    made = pod([one], age=age, state="ready" if ready else "unready", in_pool=POOL)
    return view(one, pool=POOL, claims=(service(one),), pods=(made,), runtime=runtime)


POOL = pool(health=Health(period_seconds=PERIOD, failures=3))
STILL = after(answer(100, at=ago(600)), answer(100))


def replaced(result: Plan) -> bool:
    reasons = [a.reason for a in result.actions if isinstance(a, DeletePod)]
    assert reasons in ([], [STALLED])
    return bool(reasons)


def test_one_source_touches_nothing_however_long_it_lasts() -> None:
    assert not replaced(plan(group(STILL, ago(36_000), age=72_000)))


def test_a_pod_that_is_not_ready_either_is_replaced_and_says_why() -> None:
    result = plan(group(STILL, ago(120), ready=False))
    assert replaced(result)
    said = patches(result)["one"]
    assert (said["lastTermination"]["reason"], said["restarts"]) == (STALLED, 1)


def test_so_is_one_that_does_not_answer() -> None:
    silent = RuntimeView(activity=seen(None, error="timeout"), frames=STILL.frames)
    assert replaced(plan(group(silent, ago(120))))


@pytest.mark.parametrize("ready", [True, False])
def test_not_before_its_time(ready: bool) -> None:
    silent = RuntimeView(activity=seen(None), frames=STILL.frames)
    result = plan(group(silent, ago(119), ready=ready))
    assert not replaced(result)
    assert result.wake is not None
    assert result.wake <= later(1)


def test_it_is_asked_once_more_before() -> None:
    old = RuntimeView(activity=answer(100, at=ago(30)), frames=STILL.frames)
    result = plan(group(old, ago(130), ready=False))
    assert [type(a) for a in result.actions] == [ProbeActivity]
    moved = after(answer(100, at=ago(30)), answer(101))
    result = plan(group(moved, ago(130), ready=False))
    assert not replaced(result)
    (said,) = [a for a in result.actions if isinstance(a, PatchStatus)]
    assert [c["status"] for c in said.status["conditions"] if c["type"] == CONDITION] == ["True"]


def test_a_container_that_restarts_in_place_is_given_its_chance() -> None:
    found = group(STILL, ago(600), ready=False)
    (here,) = found.pods
    begun = msgspec.structs.replace(here.status, container_statuses=(running(since=ago(5), restarts=1),))
    assert not replaced(plan(replace(found, pods=(msgspec.structs.replace(here, status=begun),))))
