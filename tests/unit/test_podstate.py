"""Every way a pod can be, and what that means for an instance."""

from __future__ import annotations

from typing import Any

import pytest

from avatar_operator.domain.podstate import PULL_TIMEOUT, PodPhase, classify, started_at
from avatar_operator.domain.resources import ContainerState, ContainerStatus, Pod, Terminated
from tests.unit.builders import NOW, ago, bare_pod, condition, ending, running, terminated, waiting

READY = (condition("Ready", "True"),)
UNREADY = (condition("Ready", "False"),)
LOG_TAIL = "Traceback (most recent call last):\nRuntimeError: no such model"


def loop(restarts: int, exit_code: int = 1, reason: str = "Error", message: str = LOG_TAIL) -> ContainerStatus:
    """A container in CrashLoopBackOff."""
    last = Terminated(exit_code=exit_code, reason=reason, message=message)
    return waiting("CrashLoopBackOff", "back-off 10s restarting failed container", restarts=restarts, last=last)


def unscheduled(age: float) -> Pod:
    """A pod that no node takes."""
    why = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    return bare_pod(age=age, phase="Pending", conditions=(condition("PodScheduled", "False", "Unschedulable", why),))


def failed(reason: str, message: str = "", container: ContainerStatus | None = None) -> Pod:
    """A pod that the kubelet or the node controller gave up."""
    return bare_pod(phase="Failed", reason=reason, message=message, container=container)


WAIT, START, FAIL = PodPhase.WAITING, PodPhase.STARTING, PodPhase.FAILED


@pytest.mark.parametrize(
    ("pod", "was_ready", "phase", "reason", "says"),
    [
        # -- before its container runs
        pytest.param(bare_pod(phase="Pending"), False, WAIT, "Scheduling", "waiting for a node", id="pending"),
        pytest.param(unscheduled(5), False, WAIT, "Unschedulable", "Insufficient nvidia.com/gpu", id="unschedulable"),
        pytest.param(unscheduled(29), False, WAIT, "Unschedulable", "", id="unschedulable-just-before-timeout"),
        pytest.param(
            unscheduled(30),
            False,
            FAIL,
            "Unschedulable",
            "not scheduled in 30 s: 0/3 nodes",
            id="unschedulable-for-too-long",
        ),
        pytest.param(
            bare_pod(phase="Pending", container=waiting("ContainerCreating")),
            False,
            WAIT,
            "ContainerCreating",
            "preparing",
            id="pulling",
        ),
        pytest.param(
            bare_pod(age=600, phase="Pending", container=waiting("ContainerCreating")),
            False,
            WAIT,
            "ContainerCreating",
            "",
            id="a-pull-longer-than-the-startup-timeout-is-no-failure",
        ),
        pytest.param(
            bare_pod(age=PULL_TIMEOUT, phase="Pending", container=waiting("ContainerCreating")),
            False,
            FAIL,
            "PullTimeout",
            "900 s",
            id="a-pull-for-ever",
        ),
        pytest.param(
            bare_pod(phase="Pending", container=waiting("ErrImagePull", "dial tcp: i/o timeout")),
            False,
            WAIT,
            "ErrImagePull",
            "i/o timeout",
            id="first-pull-error-is-tried-again-by-the-kubelet",
        ),
        *(
            pytest.param(
                bare_pod(phase="Pending", container=waiting(reason, f"{reason}: manifest unknown")),
                False,
                FAIL,
                "ImagePullFailed",
                "manifest unknown; check spec.runtime.image",
                id=reason,
            )
            for reason in (
                "ImagePullBackOff",
                "InvalidImageName",
                "ErrImageNeverPull",
                "ImageInspectError",
                "RegistryUnavailable",
            )
        ),
        pytest.param(
            bare_pod(phase="Pending", container=waiting("ImagePullBackOff")),
            False,
            FAIL,
            "ImagePullFailed",
            "ImagePullBackOff; check",
            id="ImagePullBackOff-without-words",
        ),
        pytest.param(
            bare_pod(phase="Pending", container=waiting("CreateContainerConfigError", 'secret "tts" not found')),
            False,
            FAIL,
            "CreateContainerConfigError",
            'secret "tts" not found',
            id="CreateContainerConfigError",
        ),
        pytest.param(
            bare_pod(phase="Pending", container=waiting("CreateContainerError")),
            False,
            FAIL,
            "CreateContainerError",
            "security context",
            id="CreateContainerError",
        ),
        pytest.param(
            bare_pod(phase="Pending", container=waiting("RunContainerError", "exec: no such file")),
            False,
            FAIL,
            "RunContainerError",
            "no such file",
            id="RunContainerError",
        ),
        # -- starting
        pytest.param(
            bare_pod(phase="Running", container=running(since=ago(5))),
            False,
            START,
            "Starting",
            "loading",
            id="starting",
        ),
        pytest.param(
            bare_pod(phase="Running", conditions=UNREADY, container=running(since=ago(29))),
            False,
            START,
            "Starting",
            "",
            id="one-second-before-the-deadline",
        ),
        pytest.param(
            bare_pod(phase="Running", conditions=UNREADY, container=running(since=ago(30))),
            False,
            FAIL,
            "StartupTimeout",
            "startupTimeoutSeconds (30 s)",
            id="startup-timeout-exactly-at-the-deadline",
        ),
        pytest.param(
            bare_pod(
                age=700, phase="Running", conditions=UNREADY, container=running(since=ago(10)), start_time=ago(700)
            ),
            False,
            START,
            "Starting",
            "",
            id="the-timeout-counts-from-the-container's-start-not-the-pull",
        ),
        pytest.param(
            bare_pod(phase="Running", conditions=UNREADY, container=terminated(1, message=LOG_TAIL), start_time=ago(5)),
            False,
            START,
            "Starting",
            "",
            id="first-crash-while-starting-is-suffered",
        ),
        pytest.param(
            bare_pod(
                phase="Running", conditions=UNREADY, container=running(since=ago(1), restarts=2), start_time=ago(31)
            ),
            False,
            FAIL,
            "StartupTimeout",
            "",
            id="restarts-do-not-put-the-deadline-off",
        ),
        pytest.param(
            bare_pod(phase="Running", conditions=UNREADY, container=loop(2), start_time=ago(31)),
            False,
            FAIL,
            "StartupTimeout",
            "no such model",
            id="startup-timeout-names-the-log's-tail",
        ),
        # -- ready and after
        pytest.param(
            bare_pod(phase="Running", conditions=READY, container=running(ready=True)),
            True,
            PodPhase.READY,
            "",
            "",
            id="ready",
        ),
        pytest.param(
            bare_pod(phase="Running", conditions=READY, container=running(ready=True)),
            False,
            PodPhase.READY,
            "",
            "",
            id="ready-first",
        ),
        pytest.param(
            bare_pod(age=900, phase="Running", conditions=UNREADY, container=running(since=ago(890))),
            True,
            PodPhase.UNREADY,
            "NotAnswering",
            "readiness probe",
            id="unready-after-ready",
        ),
        pytest.param(
            bare_pod(age=900, phase="Running", conditions=UNREADY, container=terminated(137, message="Killed")),
            True,
            PodPhase.UNREADY,
            "ContainerRestarting",
            "exit code 137: Killed",
            id="restarting",
        ),
        pytest.param(
            bare_pod(age=900, phase="Running", conditions=UNREADY, container=loop(2, message="")),
            True,
            PodPhase.UNREADY,
            "ContainerRestarting",
            "the runtime ended with exit code 1",
            id="restarting-after-ready-in-backoff",
        ),
        pytest.param(
            bare_pod(age=900, phase="Running", conditions=UNREADY, container=running(since=ago(1), restarts=5)),
            True,
            PodPhase.UNREADY,
            "NotAnswering",
            "",
            id="many-restarts-but-running-again",
        ),
        # -- failed by itself
        pytest.param(
            bare_pod(phase="Running", container=loop(3)),
            False,
            FAIL,
            "CrashLoop",
            "ended 4 times, last with exit code 1: Traceback",
            id="crash-loop",
        ),
        pytest.param(
            bare_pod(phase="Running", container=loop(3, message="")),
            True,
            FAIL,
            "CrashLoop",
            "last with exit code 1",
            id="crash-loop-after-ready",
        ),
        pytest.param(
            bare_pod(phase="Running", container=loop(3, 137, "OOMKilled", "")),
            True,
            FAIL,
            "OOMKilled",
            "exit code 137",
            id="OOMKilled",
        ),
        pytest.param(
            bare_pod(phase="Running", container=terminated(1, restarts=3)),
            False,
            FAIL,
            "CrashLoop",
            "ended 4 times",
            id="crash-loop-before-the-backoff",
        ),
        pytest.param(
            bare_pod(phase="Running", container=terminated(78, message="avatar 'Eve' has no data\n")),
            False,
            FAIL,
            "RuntimeConfigError",
            "avatar 'Eve' has no data",
            id="exit-78",
        ),
        pytest.param(
            bare_pod(phase="Running", container=loop(1, 78, message="bad flag")),
            True,
            FAIL,
            "RuntimeConfigError",
            "bad flag",
            id="exit-78-in-backoff",
        ),
        pytest.param(
            bare_pod(phase="Succeeded", container=terminated(0, "Completed")),
            True,
            FAIL,
            "Completed",
            "exit code 0",
            id="Succeeded",
        ),
        # -- failed from outside
        pytest.param(
            failed("Evicted", "The node was low on resource: ephemeral-storage."),
            True,
            FAIL,
            "Evicted",
            "low on resource",
            id="Evicted",
        ),
        pytest.param(
            failed("OutOfcpu", "Pod was rejected: node is out of cpu"),
            False,
            FAIL,
            "OutOfcpu",
            "out of cpu",
            id="OutOfcpu",
        ),
        pytest.param(
            failed("NodeLost", "Node node-1 which was running pod is unresponsive"),
            True,
            FAIL,
            "NodeLost",
            "unresponsive",
            id="NodeLost",
        ),
        pytest.param(
            failed("UnexpectedAdmissionError", "Allocate failed due to no healthy devices"),
            False,
            FAIL,
            "UnexpectedAdmissionError",
            "devices",
            id="UnexpectedAdmissionError",
        ),
        pytest.param(
            failed("SysctlForbidden", 'forbidden sysctl: "net.ipv4.ip_local_port_range"'),
            False,
            FAIL,
            "SysctlForbidden",
            "forbidden sysctl",
            id="SysctlForbidden",
        ),
        pytest.param(
            failed("", "", terminated(137, "OOMKilled", "Killed")),
            True,
            FAIL,
            "OOMKilled",
            "Killed",
            id="failed-says-the-container's-reason",
        ),
        pytest.param(failed(""), True, FAIL, "PodFailed", "avatar-8615 failed", id="failed-without-a-word"),
        # -- ending
        pytest.param(
            ending(bare_pod(phase="Running", conditions=READY, container=running(ready=True))),
            True,
            PodPhase.ENDING,
            "Terminating",
            "",
            id="terminating",
        ),
        pytest.param(
            ending(failed("Evicted")), True, PodPhase.ENDING, "Terminating", "", id="terminating-after-it-failed"
        ),
    ],
)
def test_classify(pod: Pod, was_ready: bool, phase: PodPhase, reason: str, says: str) -> None:
    state = classify(pod, NOW, startup_timeout=30, failures=3, was_ready=was_ready)
    assert (state.phase, state.reason) == (phase, reason)
    assert says in state.message


@pytest.mark.parametrize(
    ("pod", "exit_code"),
    [
        pytest.param(bare_pod(container=terminated(78)), 78, id="exit-78"),
        pytest.param(bare_pod(container=loop(3, 139)), 139, id="crash-loop"),
        pytest.param(failed("Evicted", container=terminated(143)), 143, id="evicted"),
        pytest.param(failed("Evicted"), None, id="evicted-before-it-ran"),
    ],
)
def test_exit_code_is_told(pod: Pod, exit_code: int | None) -> None:
    assert classify(pod, NOW, startup_timeout=30, failures=3, was_ready=False).exit_code == exit_code


def test_a_longer_startup_timeout_is_a_longer_patience_with_pulls() -> None:
    pulling = bare_pod(age=PULL_TIMEOUT + 1, phase="Pending", container=waiting("ContainerCreating"))
    state = classify(pulling, NOW, startup_timeout=PULL_TIMEOUT + 2, failures=3, was_ready=False)
    assert state.phase is WAIT


def test_a_long_log_keeps_its_end() -> None:
    text = "\n".join(f"line {n}" for n in range(1000))
    state = classify(
        bare_pod(container=terminated(78, message=text)), NOW, startup_timeout=30, failures=3, was_ready=False
    )
    assert state.message.startswith("…")
    assert state.message.endswith("line 999")
    assert len(state.message) <= 801


def test_other_containers_do_not_count() -> None:
    sidecar = ContainerStatus(name="proxy", state=ContainerState(terminated=Terminated(exit_code=78)))
    pod = bare_pod(phase="Running", container=sidecar)
    assert classify(pod, NOW, startup_timeout=30, failures=3, was_ready=False).reason == "Scheduling"
    assert started_at(pod) is None


@pytest.mark.parametrize(
    ("container", "status", "expected"),
    [
        pytest.param(running(since=ago(7)), {}, ago(7), id="running"),
        pytest.param(running(since=ago(7), restarts=1), {"start_time": ago(50)}, ago(50), id="restarted"),
        pytest.param(terminated(1), {"start_time": ago(50)}, ago(50), id="ended"),
        pytest.param(waiting("ContainerCreating"), {"start_time": ago(50)}, None, id="not-yet"),
    ],
)
def test_started_at(container: ContainerStatus, status: dict[str, Any], expected: object) -> None:
    assert started_at(bare_pod(container=container, **status)) == expected
