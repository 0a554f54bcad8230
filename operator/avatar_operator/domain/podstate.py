"""What a Pod's status means for an instance: every way a pod can be. How it can end is the table of ``podends``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from .names import RUNTIME_CONTAINER
from .podends import PodEnd, end_of
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
    where: str = "spec.runtime of the AvatarPool"

    def say(self, text: str) -> str:
        """A sentence of the table of pod ends, about this one."""
        return text.format(noun=self.noun, where=self.where, image=self.image_fields)


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
        return _unscheduled(pod, now, startup_timeout, of)
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
    code = ended.exit_code if ended else None
    if pod.status.phase == "Succeeded":
        end, tail = end_of("Completed"), _tail(ended.message) if ended else ""
        return ended_by(end, of, f"{of.say(end.meaning)}: {tail}" if tail else "", code)
    said = pod.status.reason or (ended.reason if ended else "")
    disrupted = disruption(pod)
    end = disrupted if disrupted is not None and not pod.status.reason else end_of(said)
    words = (pod.status.message or (ended.message if ended else "")).strip()
    if end.reason == "PodFailed":
        words = ": ".join(part for part in (said, words) if part) or f"pod {pod.metadata.name} failed"
    return ended_by(end, of, words, code)


def disruption(pod: Pod) -> PodEnd | None:
    """Who ends a pod from outside (a drain, the scheduler, a taint), if Kubernetes says so."""
    target = pod.condition("DisruptionTarget")
    if target is None or target.status != "True" or target.reason == "TerminationByKubelet":
        # The kubelet's own reason stands in the status.
        return None
    return end_of(target.reason)


def ended_by(end: PodEnd, of: Subject = RUNTIME, words: str = "", exit_code: int | None = None) -> PodState:
    """A pod that ended so. The message: what was said of it, or what it means; then what helps."""
    said = (_tail(words) or of.say(end.meaning)).rstrip(".")
    return PodState(PodPhase.FAILED, end.reason, f"{said}; {of.say(end.remedy)}", exit_code)


def _broken(container: ContainerStatus, failures: int, of: Subject) -> PodState | None:
    waiting, ended = container.state.waiting, container.state.terminated
    last = ended or container.last_state.terminated
    if waiting and waiting.reason in _PULL_ERRORS:
        return ended_by(end_of(waiting.reason), of, waiting.message or waiting.reason)
    if waiting and waiting.reason in _CONFIG_ERRORS:
        return ended_by(end_of(waiting.reason), of, waiting.message)
    if last is not None and last.exit_code == EX_CONFIG and container.state.running is None:
        return PodState(PodPhase.FAILED, of.config_reason, _tail(last.message), last.exit_code)
    if last is not None and container.state.running is None and any(word in last.message for word in _GPU_MEMORY):
        # Starting again on the same reservation would end the same way.
        return ended_by(end_of("GPUOutOfMemory"), of, last.message, last.exit_code)
    if last is not None and container.restart_count >= failures and container.state.running is None:
        text = f"the {of.noun} ended {container.restart_count + 1} times, last with exit code {last.exit_code}"
        tail = _tail(last.message)
        if last.reason == "OOMKilled":
            return ended_by(end_of("OOMKilled"), of, f"{text}: {tail}" if tail else text, last.exit_code)
        # Its own last words are what helps.
        return PodState(PodPhase.FAILED, "CrashLoop", f"{text}: {tail}" if tail else text, last.exit_code)
    return None


def _unscheduled(pod: Pod, now: datetime, startup_timeout: int, of: Subject) -> PodState:
    scheduled = pod.condition("PodScheduled")
    if scheduled is not None and scheduled.status == "False":
        created = pod.metadata.creation_timestamp or now
        message = scheduled.message or "no node takes the pod"
        if now >= created + timedelta(seconds=startup_timeout):
            return ended_by(end_of("Unschedulable"), of, f"not scheduled in {startup_timeout} s: {message}")
        return PodState(PodPhase.WAITING, "Unschedulable", message)
    return PodState(PodPhase.WAITING, "Scheduling", "waiting for a node")


def _not_ready_yet(pod: Pod, container: ContainerStatus, now: datetime, startup_timeout: int, of: Subject) -> PodState:
    running, waiting = container.state.running, container.state.waiting
    if running is None and container.restart_count == 0 and container.state.terminated is None:
        since = pod.status.start_time or pod.metadata.creation_timestamp or now
        limit = max(PULL_TIMEOUT, startup_timeout)
        if now >= since + timedelta(seconds=limit):
            return ended_by(end_of("PullTimeout"), of, f"the container did not start in {limit} s")
        reason = waiting.reason if waiting and waiting.reason else "ContainerCreating"
        return PodState(PodPhase.WAITING, reason, (waiting.message if waiting else "") or "preparing the container")
    since = started_at(pod, of) or now
    if now >= since + timedelta(seconds=startup_timeout):
        _, why = _why_unready(container, of)
        return ended_by(
            end_of("StartupTimeout"), of, f"not ready in startupTimeoutSeconds ({startup_timeout} s): {why}"
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
