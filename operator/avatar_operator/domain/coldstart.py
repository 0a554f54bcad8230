"""Where the time of a cold start went, from the timestamps that Kubernetes kept."""

from __future__ import annotations

from datetime import datetime

from .podstate import started_at
from .resources import Instance, Pod
from .view import Activity

PHASES = ("queue", "schedule", "pull", "load", "ready")

# The last part: from serving to the first picture that somebody sees. Told by the runtime, when it is asked next.
FIRST_FRAME = "first_frame"


def first_frame(pod: Pod, seen: Activity, since: datetime) -> float | None:
    """Seconds from the pod's Ready to the first picture that somebody saw; None where they cannot be told.

    Waiting for that somebody is included. A pod that was ready before ``since`` was counted by another process, or
    would be twice.
    """
    ready = pod.ready_since
    if ready is None or ready < since or seen.first_frame is None:
        return None
    return max(0.0, (seen.first_frame - ready).total_seconds())


def phases(instance: Instance, pod: Pod, answered: datetime | None, now: datetime) -> dict[str, float]:
    """Seconds of each phase of the start that has just ended: ``instance`` serves from ``pod`` since ``now``.

    ``queue``: instance made → pod made; ``schedule``: → it has a node; ``pull``: → its container runs (image, volumes,
    sandbox); ``load``: → the runtime answers, ``answered`` being when it answered the operator (None: it did not);
    ``ready``: → this. Kubernetes keeps whole seconds, so that each may be off by one; none is below 0. What
    cannot be told is left out: the queue of an instance that ran before, what follows a restart of the container.
    """
    made = pod.metadata.creation_timestamp
    scheduled = pod.condition("PodScheduled")
    placed = scheduled.last_transition_time if scheduled is not None and scheduled.status == "True" else None
    container = next(iter(pod.status.container_statuses), None)
    started = started_at(pod) if container is not None and container.restart_count == 0 else None
    said = [moment for moment in (answered, pod.ready_since) if moment is not None]
    serves = min(said) if said else None
    first = instance.status.last_termination is None
    spans = {
        "queue": (instance.metadata.creation_timestamp if first else None, made),
        "schedule": (made, placed),
        "pull": (placed, started),
        "load": (started, serves),
        "ready": (serves, now),
    }
    return {
        name: max(0.0, (end - begin).total_seconds())
        for name, (begin, end) in spans.items()
        if begin is not None and end is not None
    }
