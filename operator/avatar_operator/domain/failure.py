"""A pod that failed: what status says, and when the next try is."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

from .actions import Event, Plan
from .assigned import released
from .clock import ceil, floor
from .podends import innocent, is_end
from .podstate import PodState
from .resources import Instance, LastTermination, Pod
from .status import NO_POD, Desired, say
from .view import GroupView

# Backoff of failed starts: 5 s, 10 s, 20 s … up to the limit, and a tenth of jitter.
BACKOFF_BASE_SECONDS = 5
BACKOFF_LIMIT_SECONDS = 300
# An instance that was ready for so long starts with a clean record.
FORGIVE_SECONDS = 600
# Ends that are not the avatar's doing: so soon after another one even a pod that had served waits.
CALM_SECONDS = 60
# A rejection so long after the last one has nothing to do with it.
UNRELATED_SECONDS = 3 * BACKOFF_LIMIT_SECONDS


def backoff(failures: int, seed: str) -> timedelta:
    """The wait before the next try after ``failures`` in a row.

    The jitter comes from ``seed`` (a UID), so that a plan stays a pure
    function while instances that failed together do not retry together.
    """
    return _jittered(BACKOFF_BASE_SECONDS * 2 ** max(0, min(failures, 10) - 1), f"{seed}/{failures}")


def pause(last: LastTermination | None, now: datetime, seed: str, *, served: bool) -> timedelta | None:
    """The wait after an end that is not the avatar's doing; None = none.

    Nothing is counted for it. That a node which rejects every pod is not asked
    for ever in a hurry follows from the time since the ``last`` end: the wait
    is twice as long, so that it doubles each time. ``served``: the pod had been ready.
    """
    since = now - last.time if last is not None and last.time is not None and is_end(last.reason) else None
    if served:
        calm = since is None or since >= timedelta(seconds=CALM_SECONDS)
        return None if calm else _jittered(BACKOFF_BASE_SECONDS, seed)
    if since is None or since >= timedelta(seconds=UNRELATED_SECONDS):
        return _jittered(BACKOFF_BASE_SECONDS, seed)
    return _jittered(max(float(BACKOFF_BASE_SECONDS), 2 * since.total_seconds()), seed)


def _jittered(seconds: float, seed: str) -> timedelta:
    """So many seconds, up to the limit, and up to a tenth more."""
    fraction = int(hashlib.sha256(seed.encode()).hexdigest()[:4], 16) / 0xFFFF
    return timedelta(seconds=min(BACKOFF_LIMIT_SECONDS, seconds) * (1 + fraction / 10))


def told(server: Instance, pod: Pod) -> bool:
    """Whether the server's status says already that ``pod`` failed: it has only to go.

    An API server that refuses deletions for a while must not make one failure many.
    """
    last = server.status.last_termination
    return last is not None and bool(last.pod_uid) and last.pod_uid == pod.metadata.uid


def fail(view: GroupView, members: list[Instance], state: PodState, result: Plan, pod: Pod | None = None) -> None:
    """The server's status after the pod failed with ``state``: retried at once or after a backoff.

    ``pod``: the one that did, where there is one to look at.
    What is not the avatar's doing (``podends``: evicted, node gone, rejected) is
    not counted. One loss of an instance that had been ready is made good at
    once; everything else waits.
    """
    server = members[0]
    ready = next((m.status.ready_time for m in members if m.status.ready_time), None)
    forgiven = ready is not None and view.now - ready >= timedelta(seconds=FORGIVE_SECONDS)
    blameless = innocent(state.reason)
    failures = (0 if blameless else 1) + (0 if forgiven else server.status.restarts)
    wait: timedelta | None = None
    if state.reason == "GPULost":
        # It moves to another GPU, and this one takes no pod any more.
        pass
    elif blameless:
        wait = pause(server.status.last_termination, view.now, server.metadata.uid, served=ready is not None)
    elif ready is None or failures > 1:
        wait = backoff(failures, server.metadata.uid)
    retry: datetime | None = None
    phase, tail = "Starting", "" if state.reason == "GPULost" else "; starting a new pod"
    if wait is not None:
        retry = ceil(view.now + wait)
        phase, tail = "Failed", f"; next try at {retry:%H:%M:%S} UTC"
        result.wake_at(retry)
    last = LastTermination(
        time=floor(view.now),
        reason=state.reason,
        message=state.message,
        exit_code=state.exit_code,
        pod_uid=pod.metadata.uid if pod is not None else "",
    )
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
