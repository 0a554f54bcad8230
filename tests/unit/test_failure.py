"""Backoff, and what a failure makes of a status."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avatar_operator.domain.actions import PatchStatus, Plan
from avatar_operator.domain.failure import (
    BACKOFF_BASE_SECONDS,
    BACKOFF_LIMIT_SECONDS,
    FORGIVE_SECONDS,
    backoff,
    fail,
)
from avatar_operator.domain.podstate import PodPhase, PodState
from avatar_operator.domain.resources import InstanceStatus
from tests.unit.builders import NOW, ago, instance, later, view

OOM = PodState(PodPhase.FAILED, "OOMKilled", "the runtime ended", 137)


@given(st.text(), st.integers(0, 10_000))
def test_backoff_is_bounded_and_deterministic(seed: str, failures: int) -> None:
    wait = backoff(failures, seed).total_seconds()
    assert wait == backoff(failures, seed).total_seconds()
    assert BACKOFF_BASE_SECONDS <= wait <= 1.1 * BACKOFF_LIMIT_SECONDS


@given(st.text())
def test_backoff_grows_up_to_its_limit(seed: str) -> None:
    waits = [backoff(n, seed).total_seconds() for n in range(1, 20)]
    rising = waits[:7]
    assert rising == sorted(rising)
    assert all(BACKOFF_LIMIT_SECONDS <= w <= 1.1 * BACKOFF_LIMIT_SECONDS for w in waits[6:])


def test_backoff_spreads_those_that_failed_together() -> None:
    assert len({backoff(3, f"uid-{n}") for n in range(50)}) > 40


@pytest.mark.parametrize(
    ("status", "phase", "restarts"),
    [
        pytest.param({}, "Failed", 1, id="never-ready"),
        pytest.param({"restarts": 2}, "Failed", 3, id="again"),
        pytest.param({"ready_time": ago(20)}, "Starting", 1, id="first-loss-after-ready-is-made-good-at-once"),
        pytest.param({"ready_time": ago(20), "restarts": 1}, "Failed", 2, id="second-loss-waits"),
        pytest.param(
            {"ready_time": ago(FORGIVE_SECONDS - 1), "restarts": 4}, "Failed", 5, id="not-ready-for-long-enough"
        ),
        pytest.param({"ready_time": ago(FORGIVE_SECONDS), "restarts": 4}, "Starting", 1, id="forgiven"),
    ],
)
def test_fail(status: dict[str, object], phase: str, restarts: int) -> None:
    server = instance(status=InstanceStatus(phase="Running", **status))  # type: ignore[arg-type]
    result = Plan()
    fail(view(server), [server], OOM, result)
    (action,) = result.actions
    assert isinstance(action, PatchStatus)
    said = action.status
    assert (said.get("phase", "Running"), said["restarts"]) == (phase, restarts)
    assert said["reason"] == "OOMKilled"
    assert said["lastTermination"]["exitCode"] == 137
    if phase == "Failed":
        assert result.wake is not None
        assert later(BACKOFF_BASE_SECONDS) <= result.wake <= later(1.1 * BACKOFF_LIMIT_SECONDS + 1)
        assert result.wake.microsecond == 0
        assert said["retryTime"] == result.wake.isoformat().replace("+00:00", "Z")
        assert "next try at" in action.events[0].message
    else:
        assert "retryTime" not in said
        assert result.wake is None
    assert NOW.isoformat().replace("+00:00", "Z") == said["lastTermination"]["time"]
