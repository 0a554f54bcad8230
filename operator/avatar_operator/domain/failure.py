"""A pod that failed: what status says, and when the next try is."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

from .actions import Event, Plan
from .assigned import released
from .clock import ceil, floor
from .podstate import PodState
from .resources import Instance, LastTermination
from .status import NO_POD, Desired, say
from .view import GroupView

# Backoff of failed starts: 5 s, 10 s, 20 s … up to the limit, and a tenth of jitter.
BACKOFF_BASE_SECONDS = 5
BACKOFF_LIMIT_SECONDS = 300
# An instance that was ready for so long starts with a clean record.
FORGIVE_SECONDS = 600


def backoff(failures: int, seed: str) -> timedelta:
    """The wait before the next try after ``failures`` in a row.

    The jitter comes from ``seed`` (a UID), so that a plan stays a pure
    function while instances that failed together do not retry together.
    """
    seconds = min(BACKOFF_LIMIT_SECONDS, BACKOFF_BASE_SECONDS * 2 ** max(0, min(failures, 10) - 1))
    fraction = int(hashlib.sha256(f"{seed}/{failures}".encode()).hexdigest()[:4], 16) / 0xFFFF
    return timedelta(seconds=seconds * (1 + fraction / 10))


def fail(view: GroupView, members: list[Instance], state: PodState, result: Plan) -> None:
    """The server's status after the pod failed with ``state``: retried at once or after a backoff.

    One loss of an instance that had been ready (evicted, node gone, deleted
    by hand) is made good at once; everything else waits.
    """
    server = members[0]
    ready = next((m.status.ready_time for m in members if m.status.ready_time), None)
    forgiven = ready is not None and view.now - ready >= timedelta(seconds=FORGIVE_SECONDS)
    # A GPU that was lost is not its instance's failure.
    innocent = state.reason == "GPULost"
    failures = (0 if innocent else 1) + (0 if forgiven else server.status.restarts)
    again_at_once = innocent or (ready is not None and failures == 1)
    retry: datetime | None = None
    phase, tail = "Starting", "" if innocent else "; starting a new pod"
    if not again_at_once:
        retry = ceil(view.now + backoff(failures, server.metadata.uid))
        phase, tail = "Failed", f"; next try at {retry:%H:%M:%S} UTC"
        result.wake_at(retry)
    last = LastTermination(time=floor(view.now), reason=state.reason, message=state.message, exit_code=state.exit_code)
    fields = {
        **NO_POD,
        "restarts": failures,
        "retryTime": retry,
        "lastTermination": last,
        "queuePosition": None,
    }
    conditions = (
        ("Ready", "False", state.reason, state.message),
        ("PortClaimed", "False", state.reason, "released"),
        *released(server, state.reason),
    )
    event = Event("Warning", state.reason, state.message + tail)
    say(view.now, server, Desired(phase, state.reason, state.message, fields, conditions), result, event)
