"""Counts that nobody takes back: a client crashed, a backend lost its reply.

The old manager's counts only drifted upwards. Here the runtime is asked now
and then while a count stands; one that it has contradicted for the pool's
idle.connectionLeakSeconds is corrected, with an event. Since when it does is
kept in the condition CountConfirmed, so that a restart does not forget it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from .idle import FRESH_SECONDS
from .resources import InstanceStatus
from .view import Activity

CONDITION = "CountConfirmed"


@dataclass(frozen=True, slots=True)
class Leak:
    """A look at a count. ``condition`` is for status, None = leave it."""

    condition: tuple[str, str, str, str] | None = None
    probe: bool = False
    correct: bool = False
    next_look: datetime | None = None


def look(
    status: InstanceStatus, counted: int, activity: Activity | None, now: datetime, *, beat: int, patience: int
) -> Leak:
    """Hold ``counted`` connections against what the runtime says.

    ``beat``: seconds between questions; ``patience``: seconds of contradiction
    after which the count is wrong.
    """
    since = _contradicted_since(status)
    confirmed = (CONDITION, "True", "Confirmed", "") if since is not None else None
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
    if since is None:
        message = f"{counted} connections are counted, and the runtime has no session"
        return Leak((CONDITION, "False", "NoSession", message), next_look=next_look)
    due = since + timedelta(seconds=patience)
    if now < due:
        return Leak(next_look=min(next_look, due))
    if activity.at < due or now - activity.at > timedelta(seconds=FRESH_SECONDS):
        return Leak(probe=True)
    return Leak(correct=True)


def _contradicted_since(status: InstanceStatus) -> datetime | None:
    for condition in status.conditions:
        if condition.type == CONDITION and condition.status == "False":
            return condition.last_transition_time
    return None
