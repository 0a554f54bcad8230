"""The table of pod ends: each row is reached by a pod that Kubernetes would make, and docs/pod-ends.md shows it."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from avatar_operator.domain.actions import Event, PatchStatus, Plan
from avatar_operator.domain.failure import BACKOFF_BASE_SECONDS, BACKOFF_LIMIT_SECONDS, CALM_SECONDS, fail
from avatar_operator.domain.plan import plan
from avatar_operator.domain.podends import ANSWERS, POD_ENDS, Blame, end_of, innocent
from avatar_operator.domain.podstate import RUNTIME, PodPhase, classify, disruption, ended_by
from avatar_operator.domain.resources import InstanceStatus, LastTermination, Pod, Terminated
from avatar_operator.domain.tts_plan import SPEECH
from avatar_operator.domain.view import GpuView, GroupView
from tests.unit.builders import (
    NOW,
    ago,
    bare_pod,
    condition,
    ending,
    having,
    instance,
    later,
    pod,
    running,
    service,
    terminated,
    view,
    waiting,
)

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "pod-ends.md"


def failed(reason: str, message: str = "") -> Pod:
    """A pod that the kubelet or a controller gave up."""
    return bare_pod(phase="Failed", reason=reason, message=message)


def crash(reason: str = "Error", words: str = "") -> Pod:
    """A container that crashes for the fourth time."""
    last = Terminated(exit_code=137 if reason == "OOMKilled" else 1, reason=reason, message=words)
    return bare_pod(phase="Running", container=waiting("CrashLoopBackOff", restarts=3, last=last))


def disrupted(reason: str) -> Pod:
    """A pod that something outside has deleted and said so."""
    return ending(bare_pod(phase="Running", conditions=(condition("DisruptionTarget", "True", reason),)))


# The reason, and pods that end so. What is deleted tells by its condition; the rest by its status.
CASES: list[tuple[str, Pod]] = [
    ("Completed", bare_pod(phase="Succeeded", container=terminated(0, "Completed"))),
    ("CrashLoop", crash(words="Traceback")),
    ("OOMKilled", crash("OOMKilled")),
    ("GPUOutOfMemory", bare_pod(phase="Running", container=terminated(1, message="CUDA out of memory"))),
    ("RuntimeConfigError", bare_pod(phase="Running", container=terminated(78, message="no avatar of that name"))),
    ("StartupTimeout", bare_pod(age=99, phase="Running", container=running(since=ago(31)))),
    ("PullTimeout", bare_pod(age=901, phase="Pending", container=waiting("ContainerCreating"))),
    *(
        ("ImagePullFailed", bare_pod(phase="Pending", container=waiting(reason, "manifest unknown")))
        for reason in end_of("ImagePullFailed").also
    ),
    *(
        (reason, bare_pod(phase="Pending", container=waiting(reason)))
        for reason in ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
    ),
    ("PodFailed", failed("", "")),
    ("PodFailed", failed("SomethingNew", "said the kubelet")),
    ("Evicted", failed("Evicted", "The node was low on resource: memory.")),
    ("Evicted", disrupted("EvictionByEvictionAPI")),
    ("Preempting", failed("Preempting", "Preempted in order to admit critical pod")),
    ("Preempting", disrupted("PreemptionByScheduler")),
    ("NodeShutdown", failed("Terminated", "Pod was terminated in response to imminent node shutdown.")),
    ("NodeShutdown", failed("NodeShutdown", "Pod was rejected as the node is shutting down.")),
    ("NodeShutdown", failed("Shutdown")),
    ("NodeLost", failed("NodeLost", "Node node-1 which was running pod is unresponsive")),
    ("NodeLost", disrupted("DeletionByPodGC")),
    ("NodeTainted", disrupted("DeletionByTaintManager")),
    ("OutOfcpu", failed("OutOfcpu", "Node didn't have enough resource: cpu, requested: 4000, used: 0, capacity: 2000")),
    ("OutOfmemory", failed("OutOfmemory")),
    ("OutOfpods", failed("OutOfpods")),
    ("OutOfResource", failed("OutOfnvidia.com/gpu", "Node didn't have enough resource: nvidia.com/gpu")),
    ("OutOfResource", failed("OutOfephemeral-storage")),
    *(
        (reason, failed(reason))
        for reason in (
            "UnexpectedAdmissionError",
            "NodeAffinity",
            "NodePorts",
            "SysctlForbidden",
            "TopologyAffinityError",
        )
    ),
    (
        "Unschedulable",
        bare_pod(age=30, phase="Pending", conditions=(condition("PodScheduled", "False", "Unschedulable", "0/3"),)),
    ),
    ("PodDeleted", ending(bare_pod(phase="Running"))),
]


def _end(item: Pod) -> tuple[str, str]:
    """Reason and message of a pod's end, as a plan finds them."""
    if item.metadata.deletion_timestamp is None:
        state = classify(item, NOW, startup_timeout=30, failures=3, was_ready=False)
        assert state.phase is PodPhase.FAILED
        return state.reason, state.message
    served = instance(status=InstanceStatus(phase="Running", ready_time=ago(50), pod_name="avatar-8615"))
    full = msgspec.structs.replace(pod([served], metadata={"deletion_timestamp": NOW}), status=item.status)
    (said,) = plan(view(served, claims=(service(served),), pods=(full,))).actions
    assert isinstance(said, PatchStatus)
    gone = plan(view(served, claims=(service(served),), ended=full)).actions
    assert [said] == gone, "so quickly gone that nobody saw it end"
    (event,) = said.events
    assert (event.type, event.reason) == ("Warning", said.status["lastTermination"]["reason"])
    return event.reason, event.message


@pytest.mark.parametrize(("reason", "item"), CASES, ids=[f"{r}-{n}" for n, (r, _) in enumerate(CASES)])
def test_each_end_has_its_reason_and_says_what_helps(reason: str, item: Pod) -> None:
    said, message = _end(item)
    assert said == reason
    if reason not in ("CrashLoop", "RuntimeConfigError"):
        # Those have the last words of the runtime, which say it best.
        assert message.endswith(RUNTIME.say(end_of(reason).remedy))
    if item.status.message:
        assert item.status.message.rstrip(".") in message


# These come from what is around the pod: a GPUNode, the API server, nothing at all, the runtime (test_flow).
ELSEWHERE = {"GPULost", "PodRejected", "PodLost", "MediaStalled"}


def _reason_of(group: GroupView) -> str:
    (said,) = [a for a in plan(group).actions if isinstance(a, PatchStatus)]
    return str(said.status["lastTermination"]["reason"])


def test_a_lost_gpu_a_refused_pod_and_a_vanished_one_have_their_rows() -> None:
    served = instance(status=InstanceStatus(phase="Running", ready_time=ago(50)))
    claims, here = (service(served),), pod([served])
    assert _reason_of(view(served, claims=claims)) == "PodLost"
    assert _reason_of(view(served, claims=claims, pods=(here,), gpu=GpuView(lost="GPU-1 is gone"))) == "GPULost"
    assert _reason_of(view(instance(), claims=claims, rejection=("PodRejected", "exceeded quota"))) == "PodRejected"


def test_every_row_has_a_case() -> None:
    assert {reason for reason, _ in CASES} | ELSEWHERE == {end.reason for end in POD_ENDS}


def test_what_the_kubelet_ends_is_told_by_its_own_reason() -> None:
    target = condition("DisruptionTarget", "True", "TerminationByKubelet")
    item = bare_pod(phase="Failed", reason="Evicted", conditions=(target,))
    assert disruption(item) is None
    assert _end(item)[0] == "Evicted"


@pytest.mark.parametrize("end", POD_ENDS, ids=lambda end: end.reason)
def test_reasons_fit_into_conditions_and_sentences_into_both_subjects(end: object) -> None:
    row = end_of(getattr(end, "reason"))  # noqa: B009 - parametrize hands out objects
    assert re.fullmatch(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", row.reason)
    for subject in (RUNTIME, SPEECH):
        message = ended_by(row, subject).message
        assert "{" not in message
        assert message.startswith(subject.say(row.meaning))


# ---- whose doing: counted or not, and never in a hurry ----------------------------------


def _after(reason: str, status: InstanceStatus) -> tuple[int, float | None]:
    """``restarts`` after an end of that reason, and the wait until the next try (None = at once)."""
    server, result = instance(status=status), Plan()
    fail(view(server), [server], ended_by(end_of(reason)), result)
    (action,) = result.actions
    assert isinstance(action, PatchStatus)
    restarts = action.status.get("restarts", status.restarts)
    return restarts, (result.wake - NOW).total_seconds() if result.wake else None


@pytest.mark.parametrize("end", [e for e in POD_ENDS if e.blame is Blame.CLUSTER], ids=lambda e: e.reason)
def test_an_end_from_outside_is_not_counted(end: object) -> None:
    reason = getattr(end, "reason")  # noqa: B009
    assert innocent(reason)
    restarts, wait = _after(reason, InstanceStatus(phase="Running", ready_time=ago(30), restarts=2))
    assert (restarts, wait) == (2, None)


@pytest.mark.parametrize("end", [e for e in POD_ENDS if e.blame is Blame.AVATAR], ids=lambda e: e.reason)
def test_the_avatars_own_end_is_counted(end: object) -> None:
    reason = getattr(end, "reason")  # noqa: B009
    assert not innocent(reason)
    restarts, wait = _after(reason, InstanceStatus(phase="Starting", restarts=2))
    assert restarts == 3
    assert wait is not None
    assert 4 * BACKOFF_BASE_SECONDS <= wait <= 4.4 * BACKOFF_BASE_SECONDS + 1


@pytest.mark.parametrize("reason", ["SysctlForbidden", "OutOfcpu", "UnexpectedAdmissionError", "NodeAffinity"])
def test_a_node_that_rejects_every_pod_is_asked_ever_more_slowly(reason: str) -> None:
    server, now, waits = instance(), NOW, list[float]()
    for _ in range(9):
        result = Plan()
        fail(view(server, now=now), [server], ended_by(end_of(reason)), result)
        (action,) = result.actions
        assert isinstance(action, PatchStatus)
        assert result.wake is not None
        waits.append((result.wake - now).total_seconds())
        last = LastTermination(time=now.replace(microsecond=0), reason=reason)
        server, now = having(server, phase="Failed", last_termination=last), result.wake
    assert waits[0] >= BACKOFF_BASE_SECONDS
    assert waits == sorted(waits)
    assert waits[3] >= 8 * waits[0] - 8
    assert BACKOFF_LIMIT_SECONDS <= waits[-1] <= 1.1 * BACKOFF_LIMIT_SECONDS + 1
    assert server.status.restarts == 0


@pytest.mark.parametrize(
    ("last", "waits"),
    [
        pytest.param(None, False, id="the-first"),
        pytest.param(LastTermination(time=ago(CALM_SECONDS), reason="Evicted"), False, id="after-a-calm-while"),
        pytest.param(LastTermination(time=ago(CALM_SECONDS - 1), reason="Evicted"), True, id="soon-again"),
        pytest.param(LastTermination(time=ago(1), reason="Outdated"), False, id="a-roll-is-no-end"),
    ],
)
def test_a_pod_that_served_is_made_good_at_once_unless_it_just_was(last: LastTermination | None, waits: bool) -> None:
    _, wait = _after("Evicted", InstanceStatus(phase="Running", ready_time=ago(20), last_termination=last))
    assert (wait is not None) is waits
    assert wait is None or BACKOFF_BASE_SECONDS <= wait <= 1.1 * BACKOFF_BASE_SECONDS + 1


def test_a_rejection_long_after_the_last_has_nothing_to_do_with_it() -> None:
    last = LastTermination(time=ago(3600), reason="OutOfcpu")
    _, wait = _after("OutOfcpu", InstanceStatus(phase="Starting", last_termination=last))
    assert wait is not None
    assert wait <= 1.1 * BACKOFF_BASE_SECONDS + 1


def test_its_next_failure_of_its_own_waits_no_longer_for_it() -> None:
    last = LastTermination(time=ago(30), reason="Evicted")
    restarts, wait = _after("CrashLoop", InstanceStatus(phase="Starting", last_termination=last))
    assert restarts == 1
    assert wait is not None
    assert wait <= 1.1 * BACKOFF_BASE_SECONDS + 1


def test_the_event_tells_when_it_is_tried_again() -> None:
    server, result = instance(), Plan()
    fail(view(server), [server], ended_by(end_of("OutOfpods")), result)
    (action,) = result.actions
    assert isinstance(action, PatchStatus)
    (event,) = action.events
    assert isinstance(event, Event)
    assert event.message.endswith(f"; next try at {result.wake:%H:%M:%S} UTC")
    assert result.wake is not None
    assert result.wake > later(0)


# ---- the page -----------------------------------------------------------------------------


def test_the_page_shows_the_table() -> None:
    """`docs/pod-ends.md` has each row in the table's words, and the two answers."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert lines == [_row(end.reason) for end in POD_ENDS]
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    for answer in ANSWERS.values():
        assert answer in text


def _row(reason: str) -> str:
    end = end_of(reason)
    also = ", ".join(f"`{name}`" for name in end.also if name != end.reason) or ""
    return f"| `{end.reason}` | {also} | {RUNTIME.say(end.meaning)} | {end.blame.value} | {RUNTIME.say(end.remedy)} |"
