"""The smallest patch that makes a status say what it should."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avatar_operator.domain.actions import Event, PatchStatus, Plan
from avatar_operator.domain.resources import Condition, GpuStatus, InstanceStatus, LastTermination
from avatar_operator.domain.status import NO_POD, Desired, merge_conditions, patch, planned, say
from tests.unit.builders import NOW, ago, condition, having, instance, later

SETTLED = instance(
    status=InstanceStatus(
        phase="Running",
        reason="Serving",
        observed_generation=1,
        port=8615,
        pod_name="avatar-8615",
        ready_time=ago(60),
        conditions=(condition("Ready", "True", "Serving", "", ago(60)),),
    )
)
SAME: dict[str, Any] = {"port": 8615, "podName": "avatar-8615", "readyTime": ago(60)}
READY = (("Ready", "True", "Serving", ""),)


@pytest.mark.parametrize(
    "desired",
    [
        pytest.param(Desired("Running", "Serving", "", SAME, READY), id="everything"),
        pytest.param(Desired("Running", "Serving"), id="what-is-not-named-stays"),
        pytest.param(Desired("Running", "Serving", "", {"node": None, "queuePosition": None}), id="nothing-and-None"),
        pytest.param(Desired("Running", "Serving", "", {"webrtcUrl": ""}), id="nothing-and-empty"),
    ],
)
def test_nothing_to_say_is_no_patch(desired: Desired) -> None:
    assert patch(SETTLED, desired, NOW) is None


@pytest.mark.parametrize(
    ("desired", "expected"),
    [
        pytest.param(Desired("Draining", "Serving"), {"phase": "Draining"}, id="phase"),
        pytest.param(Desired("Running"), {"reason": None}, id="a-reason-is-removed"),
        pytest.param(Desired("Running", "Serving", "hm"), {"message": "hm"}, id="message"),
        pytest.param(Desired("Running", "Serving", "", {"port": 8616}), {"port": 8616}, id="a-number"),
        pytest.param(
            Desired("Running", "Serving", "", dict(NO_POD)),
            {"port": None, "podName": None, "readyTime": None},
            id="only-what-is-there-is-removed",
        ),
        pytest.param(
            Desired("Running", "Serving", "", {"readyTime": NOW}), {"readyTime": "2026-03-01T12:00:00Z"}, id="a-time"
        ),
        pytest.param(
            Desired("Running", "Serving", "", {"gpu": GpuStatus(node="n1")}),
            {"gpu": {"node": "n1", "index": None, "uuid": "", "reservedMiB": 0}},
            id="a-struct-with-all-its-fields",
        ),
    ],
)
def test_only_what_differs_is_patched(desired: Desired, expected: dict[str, Any]) -> None:
    assert patch(SETTLED, desired, NOW) == expected


def test_a_new_generation_is_observed() -> None:
    newer = instance(metadata={"generation": 2}, status=SETTLED.status)
    assert patch(newer, Desired("Running", "Serving"), NOW) == {"observedGeneration": 2}


def test_a_new_termination_leaves_nothing_of_the_old_one() -> None:
    old = having(
        SETTLED, last_termination=LastTermination(time=ago(60), reason="OOMKilled", message="x", exit_code=137)
    )
    change = patch(
        old, Desired("Running", "Serving", "", {"lastTermination": LastTermination(time=NOW, reason="Idle")}), NOW
    )
    assert change == {
        "lastTermination": {
            "time": "2026-03-01T12:00:00Z",
            "reason": "Idle",
            "message": "",
            "exitCode": None,
            "idleSeconds": None,
            "podUid": "",
        }
    }


# ---- conditions --------------------------------------------------------------------

CURRENT = (
    condition("Ready", "False", "Starting", "the runtime is starting", ago(60)),
    condition("PortClaimed", "True", "Claimed", "Service avatar-8615", ago(60)),
)


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param((), id="none"),
        pytest.param((("Ready", "False", "Starting", "the runtime is starting"),), id="one-the-same"),
        pytest.param(tuple((c.type, c.status, c.reason, c.message) for c in CURRENT), id="all-the-same"),
    ],
)
def test_conditions_that_hold_are_not_written(wanted: tuple[tuple[str, str, str, str], ...]) -> None:
    assert merge_conditions(CURRENT, wanted, NOW, generation=1) is None


@pytest.mark.parametrize(
    ("wanted", "moved"),
    [
        pytest.param(("Ready", "True", "Serving", ""), True, id="status-changes"),
        pytest.param(("Ready", "False", "Unschedulable", "the runtime is starting"), False, id="reason-changes"),
        pytest.param(("Ready", "False", "Starting", "other words"), False, id="message-changes"),
    ],
)
def test_transition_times_move_with_the_status_only(wanted: tuple[str, str, str, str], moved: bool) -> None:
    merged = merge_conditions(CURRENT, (wanted,), later(0.7), generation=3)
    assert merged is not None
    ready, claimed = merged
    assert ready["lastTransitionTime"] == ("2026-03-01T12:00:00Z" if moved else "2026-03-01T11:59:00Z")
    assert (ready["status"], ready["reason"], ready["message"]) == wanted[1:]
    assert ready["observedGeneration"] == 3
    assert claimed["lastTransitionTime"] == "2026-03-01T11:59:00Z"


def test_a_new_condition_joins_and_all_are_complete() -> None:
    merged = merge_conditions(CURRENT, (("ActivityKnown", "True", "Answered", ""),), NOW, generation=1)
    assert merged is not None
    assert [c["type"] for c in merged] == ["Ready", "PortClaimed", "ActivityKnown"]
    # What the schema requires of each, an empty message too.
    assert all({"type", "status", "reason", "message", "lastTransitionTime"} <= set(c) for c in merged)


WANTED = st.tuples(
    st.sampled_from(["Ready", "PortClaimed", "ActivityKnown"]),
    st.sampled_from(["True", "False", "Unknown"]),
    st.sampled_from(["A", "B"]),
    st.sampled_from(["", "words"]),
)


@given(st.lists(WANTED, unique_by=lambda w: w[0]), st.lists(WANTED, unique_by=lambda w: w[0]))
def test_merging_twice_is_merging_once(
    first: list[tuple[str, str, str, str]], second: list[tuple[str, str, str, str]]
) -> None:
    import msgspec

    conditions: tuple[Condition, ...] = CURRENT
    for wanted, when in ((first, NOW), (second, later(10))):
        merged = merge_conditions(conditions, wanted, when, generation=1)
        if merged is None:
            continue
        before = {c.type: c for c in conditions}
        conditions = msgspec.convert(merged, tuple[Condition, ...])
        assert merge_conditions(conditions, wanted, later(99), generation=1) is None
        for c in conditions:
            same = c.type in before and before[c.type].status == c.status
            assert c.last_transition_time == (before[c.type].last_transition_time if same else when)


# ---- say and planned ----------------------------------------------------------------


def test_say_carries_the_event_and_the_precondition() -> None:
    result = Plan()
    say(NOW, SETTLED, Desired("Draining", "Idle"), result, Event("Normal", "Idle", "x"), exact=True)
    (action,) = result.actions
    assert isinstance(action, PatchStatus)
    assert action.exact
    assert [e.reason for e in action.events] == ["Idle"]


def test_say_the_same_plans_nothing_and_tells_nobody() -> None:
    result = Plan()
    say(NOW, SETTLED, Desired("Running", "Serving"), result, Event("Normal", "Again", "x"))
    assert result.actions == []


def test_planned_is_the_status_after_the_patch() -> None:
    result = Plan()
    assert planned(SETTLED, result) == SETTLED.status
    say(NOW, SETTLED, Desired("Failed", "PodLost", "gone", {**NO_POD, "retryTime": later(5)}), result)
    found = planned(SETTLED, result)
    assert (found.phase, found.reason, found.port, found.ready_time) == ("Failed", "PodLost", None, None)
    assert found.retry_time == later(5)
    assert found.conditions == SETTLED.status.conditions
