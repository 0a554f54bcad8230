"""Where the time of a cold start went: five phases that add up, none of them invented."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avatar_operator.domain.coldstart import PHASES, first_frame, phases
from avatar_operator.domain.resources import LastTermination, Pod
from avatar_operator.domain.view import Activity
from tests.unit.builders import NOW, ago, bare_pod, condition, having, instance, running, waiting

# Instance made 60 s ago, pod 50, scheduled 48, container 30, answered 5, and now it serves.
STARTED = {"queue": 10.0, "schedule": 2.0, "pull": 18.0, "load": 25.0, "ready": 5.0}


def started_pod(**more: Any) -> Pod:
    """A pod that took those times."""
    conditions = (condition("PodScheduled", "True", since=ago(48)),)
    return bare_pod(**{"age": 50, "container": running(since=ago(30)), "conditions": conditions, **more})


def test_a_start_is_the_sum_of_its_phases() -> None:
    found = phases(instance(age=60), started_pod(), ago(5), NOW)
    assert found == STARTED
    assert tuple(found) == PHASES
    assert sum(found.values()) == 60


def test_whoever_sees_it_answer_first_counts() -> None:
    """The operator asks more often than the kubelet; where it did not, the kubelet's Ready counts."""
    ready = (condition("PodScheduled", "True", since=ago(48)), condition("Ready", "True", since=ago(3)))
    pod = started_pod(conditions=ready)
    assert phases(instance(age=60), pod, ago(5), NOW)["load"] == 25
    assert phases(instance(age=60), pod, ago(1), NOW)["load"] == 27
    assert phases(instance(age=60), pod, None, NOW)["load"] == 27
    assert not {"load", "ready"} & phases(instance(age=60), started_pod(), None, NOW).keys()


@pytest.mark.parametrize(
    ("pod", "missing"),
    [
        (started_pod(conditions=()), {"schedule", "pull"}),
        (started_pod(conditions=(condition("PodScheduled", "False", since=ago(48)),)), {"schedule", "pull"}),
        (started_pod(container=None), {"pull", "load"}),
        (started_pod(container=running(since=ago(7), restarts=1)), {"pull", "load"}),
        (started_pod(container=waiting("ContainerCreating")), {"pull", "load"}),
    ],
)
def test_what_cannot_be_told_is_left_out(pod: Pod, missing: set[str]) -> None:
    assert phases(instance(age=60), pod, ago(5), NOW).keys() == set(PHASES) - missing


@pytest.mark.parametrize(
    ("ready", "seen", "since", "expected"),
    [
        (ago(10), ago(7), ago(60), 3.0),
        (ago(10), ago(10.4), ago(60), 0.0),
        (ago(10), None, ago(60), None),
        (None, ago(7), ago(60), None),
        (ago(10), ago(7), ago(5), None),
    ],
    ids=["seen", "seconds are whole in Kubernetes", "nobody looked", "not ready", "ready before this process was"],
)
def test_the_first_picture(
    ready: datetime | None, seen: datetime | None, since: datetime, expected: float | None
) -> None:
    pod = bare_pod(conditions=(condition("Ready", "True", since=ready),) if ready else ())
    assert first_frame(pod, Activity(NOW, 1, first_frame=seen), since) == expected


def test_an_instance_that_ran_before_did_not_queue_since_its_creation() -> None:
    woken = having(instance(age=86400), last_termination=LastTermination(time=ago(3600), reason="Idle"))
    found = phases(woken, started_pod(), ago(5), NOW)
    assert "queue" not in found
    assert found["schedule"] == 2


SECONDS = st.integers(min_value=0, max_value=900)


@given(SECONDS, SECONDS, SECONDS, SECONDS, st.none() | SECONDS)
def test_no_clock_makes_a_phase_negative(made: int, pod: int, placed: int, ran: int, answered: int | None) -> None:
    item = started_pod(
        age=pod, container=running(since=ago(ran)), conditions=(condition("PodScheduled", "True", since=ago(placed)),)
    )
    said: datetime | None = None if answered is None else ago(answered)
    assert all(seconds >= 0 for seconds in phases(instance(age=made), item, said, NOW).values())
