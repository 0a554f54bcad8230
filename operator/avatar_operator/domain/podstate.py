"""What a Pod's status means for an instance: one table for every way a pod can be.

Sources: the failure lists in research (Agones #1028, #2683, #4188; kubespawner
#223, #714): evicted, OutOf…, NodeLost, Completed, image errors, crash loops.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from .names import RUNTIME_CONTAINER
from .resources import ContainerStatus, Pod

# Exit status of a runtime whose configuration no restart can cure (sysexits.h EX_CONFIG).
EX_CONFIG = 78

# A pull may take long (tens of GB); an instance waits this many seconds at least.
PULL_TIMEOUT = 900

_PULL_ERRORS = {
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
    "RegistryUnavailable",
}
# What PyTorch, CUDA's driver and CUDA's runtime say.
_GPU_MEMORY = ("CUDA out of memory", "OutOfMemoryError", "CUDA_ERROR_OUT_OF_MEMORY", "cudaErrorMemoryAllocation")
_CONFIG_ERRORS = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}


class PodPhase(Enum):
    """How far a pod is, in the terms that the plan needs."""

    WAITING = "Waiting"  # not scheduled, or its image is being pulled
    STARTING = "Starting"  # its container runs and does not answer yet
    READY = "Ready"
    UNREADY = "Unready"  # was ready; its container restarts or does not answer
    FAILED = "Failed"  # will not become ready by waiting
    ENDING = "Ending"  # deletion asked for, not gone


@dataclass(frozen=True, slots=True)
class PodState:
    """A pod's phase with the reason (CamelCase) and a message for its users."""

    phase: PodPhase
    reason: str = ""
    message: str = ""
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose pod it is, for the sentences: the container's name, what it is called, the fields behind it."""

    container: str = RUNTIME_CONTAINER
    noun: str = "runtime"
    image_fields: str = "spec.runtime.image and imagePullSecrets of the AvatarPool"
    config_reason: str = "RuntimeConfigError"


RUNTIME = Subject()


def classify(
    pod: Pod, now: datetime, *, startup_timeout: int, failures: int, was_ready: bool, of: Subject = RUNTIME
) -> PodState:
    """Say what ``pod`` is at ``now``.

    ``startup_timeout`` (seconds) counts from the start of the container, or
    from the pod's creation while no node takes it; ``failures`` is how many
    container restarts are suffered before the pod counts as failed.
    """
    if pod.metadata.deletion_timestamp is not None:
        return PodState(PodPhase.ENDING, "Terminating", f"pod {pod.metadata.name} is terminating")
    if pod.status.phase in ("Failed", "Succeeded"):
        return _ended(pod, of)
    container = _container(pod, of)
    if container is None:
        return _unscheduled(pod, now, startup_timeout)
    broken = _broken(container, failures, of)
    if broken is not None:
        return broken
    ready = pod.condition("Ready")
    if ready is not None and ready.status == "True":
        return PodState(PodPhase.READY)
    if was_ready:
        reason, message = _why_unready(container, of)
        return PodState(PodPhase.UNREADY, reason, message)
    return _not_ready_yet(pod, container, now, startup_timeout, of)


def _container(pod: Pod, of: Subject) -> ContainerStatus | None:
    return next((c for c in pod.status.container_statuses if c.name == of.container), None)


def _ended(pod: Pod, of: Subject) -> PodState:
    container = _container(pod, of)
    ended = container.state.terminated if container else None
    if pod.status.phase == "Succeeded":
        return PodState(
            PodPhase.FAILED,
            "Completed",
            f"the {of.noun} ended by itself with exit code 0; it should serve for ever",
        )
    reason = pod.status.reason or (ended.reason if ended and ended.reason else "PodFailed")
    message = pod.status.message or (ended.message if ended else "") or f"pod {pod.metadata.name} failed"
    return PodState(PodPhase.FAILED, reason, message.strip(), ended.exit_code if ended else None)


def _broken(container: ContainerStatus, failures: int, of: Subject) -> PodState | None:
    waiting, ended = container.state.waiting, container.state.terminated
    last = ended or container.last_state.terminated
    if waiting and waiting.reason in _PULL_ERRORS:
        return PodState(
            PodPhase.FAILED,
            "ImagePullFailed",
            f"{waiting.message or waiting.reason}; check {of.image_fields}",
        )
    if waiting and waiting.reason in _CONFIG_ERRORS:
        return PodState(PodPhase.FAILED, waiting.reason, waiting.message or waiting.reason)
    if last is not None and last.exit_code == EX_CONFIG and container.state.running is None:
        return PodState(PodPhase.FAILED, of.config_reason, _tail(last.message), last.exit_code)
    if last is not None and container.state.running is None and any(word in last.message for word in _GPU_MEMORY):
        # Starting again on the same reservation would end the same way.
        return PodState(PodPhase.FAILED, "GPUOutOfMemory", _tail(last.message), last.exit_code)
    if last is not None and container.restart_count >= failures and container.state.running is None:
        reason = "OOMKilled" if last.reason == "OOMKilled" else "CrashLoop"
        text = f"the {of.noun} ended {container.restart_count + 1} times, last with exit code {last.exit_code}"
        tail = _tail(last.message)
        return PodState(PodPhase.FAILED, reason, f"{text}: {tail}" if tail else text, last.exit_code)
    return None


def _unscheduled(pod: Pod, now: datetime, startup_timeout: int) -> PodState:
    scheduled = pod.condition("PodScheduled")
    if scheduled is not None and scheduled.status == "False":
        created = pod.metadata.creation_timestamp or now
        message = scheduled.message or "no node takes the pod"
        if now >= created + timedelta(seconds=startup_timeout):
            return PodState(PodPhase.FAILED, "Unschedulable", f"not scheduled in {startup_timeout} s: {message}")
        return PodState(PodPhase.WAITING, "Unschedulable", message)
    return PodState(PodPhase.WAITING, "Scheduling", "waiting for a node")


def _not_ready_yet(pod: Pod, container: ContainerStatus, now: datetime, startup_timeout: int, of: Subject) -> PodState:
    running, waiting = container.state.running, container.state.waiting
    if running is None and container.restart_count == 0 and container.state.terminated is None:
        since = pod.status.start_time or pod.metadata.creation_timestamp or now
        limit = max(PULL_TIMEOUT, startup_timeout)
        if now >= since + timedelta(seconds=limit):
            return PodState(PodPhase.FAILED, "PullTimeout", f"the container did not start in {limit} s")
        reason = waiting.reason if waiting and waiting.reason else "ContainerCreating"
        return PodState(PodPhase.WAITING, reason, (waiting.message if waiting else "") or "preparing the container")
    since = started_at(pod, of) or now
    if now >= since + timedelta(seconds=startup_timeout):
        _, why = _why_unready(container, of)
        return PodState(
            PodPhase.FAILED,
            "StartupTimeout",
            f"not ready in startupTimeoutSeconds ({startup_timeout} s): {why}",
        )
    return PodState(PodPhase.STARTING, "Starting", f"the {of.noun} is loading")


def started_at(pod: Pod, of: Subject = RUNTIME) -> datetime | None:
    """When the pod's first container start was: what startup timeouts count from.

    A container that restarted hides its first start; the pod's own start
    stands in, so that a crash loop cannot put the deadline off for ever.
    """
    container = _container(pod, of)
    if container is None:
        return None
    if container.restart_count > 0 or container.state.terminated is not None:
        return pod.status.start_time
    return container.state.running.started_at if container.state.running is not None else None


def running_since(pod: Pod, of: Subject = RUNTIME) -> datetime | None:
    """When the container that runs now was started; None while none runs."""
    container = _container(pod, of)
    return container.state.running.started_at if container is not None and container.state.running is not None else None


def _why_unready(container: ContainerStatus, of: Subject) -> tuple[str, str]:
    ended = container.state.terminated or container.last_state.terminated
    if container.state.running is None and ended is not None:
        tail = _tail(ended.message)
        return "ContainerRestarting", f"the {of.noun} ended with exit code {ended.exit_code}" + (
            f": {tail}" if tail else ""
        )
    return "NotAnswering", f"the {of.noun} runs and does not answer its readiness probe"


def _tail(message: str, limit: int = 800) -> str:
    """The end of a container's last words; the kubelet gives up to 4 KiB of them."""
    text = message.strip()
    return text if len(text) <= limit else "…" + text[-limit:]
