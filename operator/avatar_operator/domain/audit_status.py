"""What instances say of themselves, beside what is there."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from .audit_members import Members
from .findings import LATE_SECONDS, Finding, Picture, about
from .groups import group_of
from .plan import wants_to_run
from .podstate import PULL_TIMEOUT
from .resources import Instance
from .serving import DRAIN_DECISION_SECONDS
from .sessions import Roll, lapse
from .settings import check, nameless, resolve
from .starting import waiting_since

# Phases in which an instance serves from a pod.
_SERVING = ("Running", "Draining")


def look(picture: Picture, members: Members) -> Iterator[Finding]:
    """Findings about the status of instances."""
    for instances in members.instances.values():
        named = {i.metadata.name: i for i in instances}
        for one in instances:
            wrong = _pod(one, named, members)
            if wrong is not None:
                yield _finding(*wrong, one)
            yield from _counts(one, picture)
            since = _stuck(one, picture, members)
            if since:
                yield _finding("StuckPhase", since, one)


def _finding(kind: str, text: str, one: Instance) -> Finding:
    message = f"AvatarInstance {one.metadata.name}: {text}"
    return Finding(kind, about("AvatarInstance", one.metadata), message, one.spec.pool_ref, group_of(one))


def _pod(one: Instance, group: dict[str, Instance], members: Members) -> tuple[str, str] | None:
    """The first thing that status says wrongly of where the instance is served, or None."""
    status, key = one.status, group_of(one)
    if status.phase in _SERVING and not members.pods.get(key):
        return "RunningWithoutPod", f"status.phase is {status.phase}, and no pod serves its avatar"
    if status.phase == "Shared":
        server = group.get(status.shared_with or "")
        if server is None or server.status.phase not in _SERVING:
            how = f"is {server.status.phase or 'new'}" if server is not None else "is not there, or not of its avatar"
            return "SharedWithNobody", f"status.sharedWith {status.shared_with!r} {how}"
    if not status.pod_name:
        return ("StatusPortWrong", f"status.port is {status.port}, without a pod") if status.port else None
    pod, found = members.pod_named.get((one.metadata.namespace, status.pod_name), (None, None))
    if pod is None or found is None:
        return "StatusPodMissing", f"status.podName {status.pod_name!r}: there is no such pod of the operator's"
    if found.group != key:
        return "StatusPodForeign", f"status.podName {status.pod_name!r} is a pod of another avatar"
    if status.port != found.port:
        return "StatusPortWrong", f"status.port is {status.port}; its pod {status.pod_name} has port {found.port}"
    return None


def _counts(one: Instance, picture: Picture) -> Iterator[Finding]:
    status = one.status
    if status.connections < 0:
        yield _finding("CountNegative", f"status.connections is {status.connections}", one)
    elif status.connections < len(status.sessions):
        text = f"status.connections is {status.connections}, and status.sessions has {len(status.sessions)}"
        yield _finding("CountContradicts", text, one)
    roll = Roll.of(status)
    left = lapse(roll, picture.now - timedelta(seconds=LATE_SECONDS))
    if left is not roll:
        ended = next(s for s in roll.sessions if s not in left.sessions)
        more = len(roll.sessions) - len(left.sessions) - 1
        others = f" and {more} more" if more else ""
        yield _finding("LeaseOverdue", f"the lease of session {ended.id} ended at {ended.expires}{others}", one)


# ---- phases ------------------------------------------------------------------------


def _stuck(one: Instance, picture: Picture, members: Members) -> str:
    """What the instance waits for longer than its timeouts explain; empty = nothing."""
    match one.status.phase:
        case "":
            if picture.late(one.metadata.creation_timestamp):
                return "no operator has taken notice of it (status is empty)"
        case "Starting":
            return _starting(one, picture, members)
        case "Pending":
            return _pending(one, picture, members)
        case "Draining":
            if picture.late(one.status.drain_deadline, LATE_SECONDS + DRAIN_DECISION_SECONDS):
                return f"Draining, and status.drainDeadline was at {one.status.drain_deadline}"
        case "Failed":
            if picture.late(one.status.retry_time):
                return f"Failed, and status.retryTime was at {one.status.retry_time}"
    return ""


def _starting(one: Instance, picture: Picture, members: Members) -> str:
    pool = members.pool_of(one)
    if pool is None:
        # Nothing is done to an instance whose pool is gone; its status says so.
        return ""
    startup = resolve(one, pool, members.avatar_of(one) or nameless(one)).startup_timeout
    since, limit = _since(one), PULL_TIMEOUT + startup
    if not picture.late(since, limit + LATE_SECONDS):
        return ""
    return f"Starting since {since}; the pull of an image and startupTimeoutSeconds explain {limit} s"


def _pending(one: Instance, picture: Picture, members: Members) -> str:
    pool = members.pool_of(one)
    if pool is None or one.status.shared_with or one.status.reason == "Terminating" or not wants_to_run(one):
        return ""
    if check(one, pool, members.avatar_of(one)) is not None:
        return ""
    if one.status.queue_position is None:
        since = _since(one)
        return f"Pending since {since} without a place in the queue" if picture.late(since) else ""
    since, limit = waiting_since(one), pool.spec.queue.timeout_seconds
    if not limit or not picture.late(since, limit + LATE_SECONDS):
        return ""
    return f"Pending since {since}; spec.queue.timeoutSeconds of its pool is {limit}"


def _since(one: Instance) -> datetime | None:
    """Since when it has been as it is: the youngest of all that status tells."""
    status = one.status
    ready = next((c.last_transition_time for c in status.conditions if c.type == "Ready"), None)
    ended = status.last_termination.time if status.last_termination is not None else None
    told = (one.metadata.creation_timestamp, status.start_time, status.ready_time, ready, ended, status.retry_time)
    return max((t for t in told if t is not None), default=None)
