"""What a start is doing, in a line for people. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from avatar_operator.domain import podstate
from avatar_operator.domain.names import RUNTIME_CONTAINER
from avatar_operator.domain.podstate import PodPhase
from avatar_operator.domain.progress import EXHAUSTED
from avatar_operator.domain.resources import Instance, Meta, Model, Pod

# An operator that runs looks at a new instance within this time (seconds).
TAKEN_UP_SECONDS = 5
# No start is called late here: that is the operator's to say.
_PATIENT = 1 << 20

REMEDIES = {
    "PoolFull": "stop an avatar (kubectl avatar list, kubectl avatar stop NAME), or raise maxInstances or ports.count "
    "of the AvatarPool",
    "PortsExhausted": "stop an avatar (kubectl avatar list, kubectl avatar stop NAME), or widen spec.ports of the "
    "AvatarPool",
    "GPUExhausted": "stop an avatar that uses a GPU, or see who else does: kubectl avatar top",
    "QueueFull": "try again later, or raise spec.queue.maxLength of the AvatarPool",
    "QueueTimeout": "try again later, or raise spec.queue.timeoutSeconds of the AvatarPool",
    "CrashLoop": "read what it said: kubectl avatar logs {name}",
    "StartupTimeout": "read what it says: kubectl avatar logs {name}; a model that loads for longer needs a larger "
    "startupTimeoutSeconds",
    "Unschedulable": "compare spec.runtime.nodeSelector, tolerations and resources of the AvatarPool with the nodes: "
    "kubectl describe nodes",
    "OOMKilled": "raise the memory in spec.runtime.resources of the AvatarPool",
}


class Involved(Model, frozen=True):
    """involvedObject of an Event."""

    name: str = ""
    uid: str = ""


class Told(Model, frozen=True):
    """An Event, as far as it tells of a pod's start."""

    metadata: Meta
    reason: str = ""
    message: str = ""
    involved_object: Involved = Involved()


def step(item: Instance, pod: Pod | None, events: Sequence[Told], now: datetime) -> str:
    """What ``item`` is doing at ``now``; ``events`` are of pulls, of any pods."""
    status = item.status
    if not status.phase:
        created = item.metadata.creation_timestamp or now
        if now - created > timedelta(seconds=TAKEN_UP_SECONDS):
            return "waiting for the operator, which has not taken it up: does avatar-operator run in this cluster?"
        return "waiting for the operator"
    if status.phase == "Pending" and status.reason in EXHAUSTED:
        place = f", place {status.queue_position}" if status.queue_position else ""
        return f"in the queue{place}: {status.message}"
    if status.phase == "Failed":
        return failure(item, now)
    if status.phase == "Stopped":
        return "asleep; waking it"
    if status.phase != "Starting":
        return f"{status.phase}: {status.message or status.reason}" if status.message or status.reason else status.phase
    port = f" on port {status.port}" if status.port else ""
    if pod is None or not alive(pod):
        return f"making the pod{port}"
    return f"pod {pod.metadata.name}{port}: {_pod(pod, events, now)}"


def alive(pod: Pod) -> bool:
    """Whether it is not on its way out."""
    return pod.metadata.deletion_timestamp is None


def _pod(pod: Pod, events: Sequence[Told], now: datetime) -> str:
    seen = podstate.classify(pod, now, startup_timeout=_PATIENT, failures=_PATIENT, was_ready=False)
    if seen.phase is PodPhase.READY:
        return "it answers"
    started = any(c.name == RUNTIME_CONTAINER and c.state.running for c in pod.status.container_statuses)
    pull = next((e for e in events if e.involved_object.uid == pod.metadata.uid), None)
    if pull is not None and not started and seen.phase is PodPhase.WAITING:
        # The kubelet's words: Pulling image "…"
        return pull.message[:1].lower() + pull.message[1:]
    return seen.message or seen.reason


def failure(item: Instance, now: datetime) -> str:
    """Why it failed, and when it is tried again."""
    status = item.status
    again = status.retry_time
    tail = f"; tried again in {max(0, int((again - now).total_seconds()))} s" if again is not None else ""
    return f"{status.reason}: {status.message or 'no message'}{tail}"


def remedy(reason: str, name: str) -> str:
    """What to do about a reason whose message does not say it; empty when it does."""
    return REMEDIES.get(reason, "").format(name=name)
