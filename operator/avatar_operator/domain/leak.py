"""Counts that nobody takes back: a client crashed, a backend lost its reply.

The old manager's counts only drifted upwards. Here the runtime is asked now
and then while a count stands; one that it has contradicted for the pool's
idle.connectionLeakSeconds is corrected, with an event. Since when it does is
kept in the condition CountConfirmed, so that a restart does not forget it.
Whoever connects has that time, too, and so has everybody after a pod is ready,
a new one or one that was not for a while, when nobody could come back to it.
When somebody changed a count last the API server tells (managedFields), also of
changes that no operator saw; those of the operator itself end the doubt.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from .idle import FRESH_SECONDS
from .resources import Condition, InstanceStatus
from .view import Activity

CONDITION = "CountConfirmed"
CONFIRMED = (CONDITION, "True", "Confirmed", "")
# Who came and went while no operator looked was counted beside those in doubt; the same number is left, and others.
RECOUNTED = (CONDITION, "Unknown", "Recounted", "a lease is over since the runtime contradicted the count")


@dataclass(frozen=True, slots=True)
class Leak:
    """A look at a count. ``condition`` is for status, None = leave it."""

    condition: tuple[str, str, str, str] | None = None
    probe: bool = False
    correct: bool = False
    next_look: datetime | None = None


def look(
    status: InstanceStatus,
    counted: int,
    activity: Activity | None,
    now: datetime,
    *,
    beat: int,
    patience: int,
    counted_since: datetime | None = None,
) -> Leak:
    """Hold ``counted`` connections against what the runtime says.

    ``counted_since``: when somebody changed the count last, None = not known.
    ``beat``: seconds between questions; ``patience``: seconds of contradiction
    after which the count is wrong.
    """
    doubt = _doubt(status)
    since = doubt.last_transition_time if doubt is not None else None
    confirmed = CONFIRMED if since is not None else None
    if counted == 0:
        return Leak(confirmed)
    beat = max(1, min(beat, patience // 2 or 1))
    if activity is None or now >= activity.at + timedelta(seconds=beat):
        return Leak(probe=True)
    next_look = activity.at + timedelta(seconds=beat)
    if activity.sessions is None:
        # Unknown neither confirms nor contradicts.
        return Leak(next_look=next_look)
    if activity.sessions > 0:
        return Leak(confirmed, next_look=next_look)
    message = f"{counted} connections are counted, and the runtime has no session"
    told = (CONDITION, "False", "NoSession", message)
    if doubt is None or since is None:
        return Leak(told, next_look=next_look)
    begins = [time for time in (since, _ready_since(status), counted_since) if time is not None]
    due = max(begins) + timedelta(seconds=patience)
    if now < due:
        # The condition's time stays as long as its status does; its message follows the count.
        return Leak(told if doubt.message != message else None, next_look=min(next_look, due))
    if activity.at < due or now - activity.at > timedelta(seconds=FRESH_SECONDS):
        return Leak(probe=True)
    return Leak(correct=True)


def doubted(status: InstanceStatus) -> bool:
    """Whether the count is in doubt: what the operator does to it itself ends that, by CONFIRMED or RECOUNTED."""
    return _doubt(status) is not None


def _doubt(status: InstanceStatus) -> Condition | None:
    """The condition by which a count is in doubt, or None while it is not."""
    return next((c for c in status.conditions if c.type == CONDITION and c.status == "False"), None)


def _ready_since(status: InstanceStatus) -> datetime | None:
    """Since when clients can reach the pod; None = not known."""
    ready = next((c for c in status.conditions if c.type == "Ready" and c.status == "True"), None)
    times = (status.ready_time, ready.last_transition_time if ready is not None else None)
    return max((time for time in times if time is not None), default=None)
