"""When an instance is idle: the clock that collection goes by.

Rules (design §4, Idle GC): in use = somebody counted a connection, or the
runtime has a session, or nobody knows. The clock starts at the first Ready or
at the last session's end, stands in status (a restart neither resets nor
shortens it) and stops while activity is unknown. The runtime is asked only
when a decision depends on the answer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from .clock import ceil
from .resources import InstanceStatus
from .view import Activity

# An observation older than this decides nothing (seconds).
FRESH_SECONDS = 5
# A new operator waits so long for those who may have left during the change (seconds).
UNSEEN_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Clock:
    """The idle clock after a look at it.

    ``deadline`` and ``last_activity`` go to status. ``probe``: ask the runtime
    first. ``collect``: the deadline has passed and a fresh look found nobody.
    ``known`` False: the runtime did not answer, the clock stands still.
    ``unclaimed``: nobody has ever connected, and the deadline is that of such.
    """

    deadline: datetime | None = None
    last_activity: datetime | None = None
    observed: int | None = None
    known: bool = True
    probe: bool = False
    collect: bool = False
    next_look: datetime | None = None
    unclaimed: bool = False


def look(
    status: InstanceStatus,
    counted: int,
    activity: Activity | None,
    now: datetime,
    *,
    timeout: int,
    beat: int,
    ask_runtime: bool,
    claim_timeout: int | None = None,
    not_before: datetime | None = None,
) -> Clock:
    """Say where the idle clock stands at ``now``.

    ``counted``: connections counted in status over the whole group.
    ``not_before``: no collection until then, whatever the clock says.
    ``timeout``: seconds of idleness before collection, 0 = never.
    ``claim_timeout``: the same while nobody has connected yet; None = ``timeout``.
    ``beat``: seconds between looks at a runtime that only it knows to be in use.
    ``ask_runtime`` False: status alone decides (no usable count in the runtime).
    """
    since = status.last_activity_time
    if timeout <= 0:
        return Clock(last_activity=since, observed=status.observed_sessions)
    if counted > 0:
        began = status.idle_deadline is not None or since is None
        return Clock(last_activity=now if began else since, observed=_observed(status, activity))
    unclaimed = claim_timeout is not None and since is None
    limit = claim_timeout if claim_timeout is not None and unclaimed else timeout
    if not ask_runtime:
        clock = _by_status(status, now, limit)
    elif status.idle_deadline is None:
        clock = _not_running(status, activity, now, limit, beat)
    else:
        clock = _running(status, _revised(status.idle_deadline, now, limit), activity, now, limit, beat)
    clock = replace(clock, unclaimed=unclaimed)
    if not_before is None or not_before <= now or clock.deadline is None or clock.deadline > now:
        return clock
    # Only now: a deadline that moved with each newcomer would cost each a write more.
    return replace(clock, deadline=not_before, probe=False, collect=False, next_look=not_before)


def patience_ends(
    asked: datetime | None, used: datetime | None, timeout: int, claim_timeout: int | None
) -> datetime | None:
    """Until when one who asked for the instance, or used it, is waited for; None = nobody is.

    ``asked``: when the youngest sharer was created. ``used``: when somebody was known last to be counted, or may have
    been: status can forget that again before the clock is looked at.
    """
    seconds = timeout if claim_timeout is None else claim_timeout
    # Times of creation are cut to whole seconds.
    arrives = asked + timedelta(seconds=seconds + 1) if asked is not None else None
    returns = used + timedelta(seconds=timeout) if used is not None else None
    return max((end for end in (arrives, returns) if end is not None), default=None)


def unseen_ends(known_since: datetime | None, timeout: int) -> datetime | None:
    """Until when one is waited for who left while nobody looked: before this process knew of the pod."""
    return known_since + timedelta(seconds=min(timeout, UNSEEN_SECONDS)) if known_since is not None else None


def _by_status(status: InstanceStatus, now: datetime, timeout: int) -> Clock:
    since = status.last_activity_time
    if status.idle_deadline is None:
        deadline = now + timedelta(seconds=timeout)
        return Clock(deadline, now if since else None, next_look=deadline)
    deadline = _revised(status.idle_deadline, now, timeout)
    return Clock(deadline, since, collect=now >= deadline, next_look=deadline)


def _revised(deadline: datetime, now: datetime, timeout: int) -> datetime:
    """The deadline after the timeout was lowered: a whole timeout from now, not the old one's end."""
    return min(deadline, ceil(now + timedelta(seconds=timeout)))


def _not_running(status: InstanceStatus, activity: Activity | None, now: datetime, timeout: int, beat: int) -> Clock:
    """The clock stands: first Ready, the last counted one left, or the runtime alone knew of use."""
    was_unknown = unknown_since(status)
    if not status.observed_sessions and was_unknown is None:
        # First Ready, or the count went to zero: start now, ask at the deadline.
        deadline = now + timedelta(seconds=timeout)
        return Clock(deadline, now if status.last_activity_time else None, 0, next_look=deadline)
    since = status.last_activity_time
    if activity is None or now >= activity.at + timedelta(seconds=beat):
        return Clock(None, since, status.observed_sessions, was_unknown is None, probe=True)
    next_look = activity.at + timedelta(seconds=beat)
    if activity.sessions is None:
        return Clock(None, since, status.observed_sessions, known=False, next_look=next_look)
    if activity.sessions > 0:
        return Clock(None, since, activity.sessions, next_look=next_look)
    ended = _ended(activity)
    if ended is None:
        # Time already spent idle before activity became unknown counts; the unknown time does not.
        spent = was_unknown - since if was_unknown and since else timedelta()
        ended = activity.at - min(max(spent, timedelta()), timedelta(seconds=timeout))
    deadline = max(ended + timedelta(seconds=timeout), now)
    return Clock(deadline, ended, 0, next_look=deadline)


def _running(
    status: InstanceStatus,
    deadline: datetime,
    activity: Activity | None,
    now: datetime,
    timeout: int,
    beat: int,
) -> Clock:
    since = status.last_activity_time
    if activity is not None and activity.sessions and now - activity.at < timedelta(seconds=FRESH_SECONDS):
        return Clock(None, now, activity.sessions, next_look=activity.at + timedelta(seconds=beat))
    if now < deadline:
        return Clock(deadline, since, 0, next_look=deadline)
    if activity is None or activity.at < deadline or now - activity.at > timedelta(seconds=FRESH_SECONDS):
        return Clock(deadline, since, 0, probe=True)
    if activity.sessions is None:
        return Clock(None, since, known=False, next_look=activity.at + timedelta(seconds=beat))
    ended = _ended(activity)
    if ended is not None and ended + timedelta(seconds=timeout) > now + timedelta(seconds=1):
        # Somebody came and went whom only the runtime saw.
        deadline = ended + timedelta(seconds=timeout)
        return Clock(deadline, ended, 0, next_look=deadline)
    return Clock(deadline, since, 0, collect=True)


def unknown_since(status: InstanceStatus) -> datetime | None:
    """Since when activity has been unknown, or None while it is known."""
    for condition in status.conditions:
        if condition.type == "ActivityKnown" and condition.status == "False":
            return condition.last_transition_time
    return None


def _ended(activity: Activity) -> datetime | None:
    """When the last session ended, by the runtime's own clock; None if it does not say."""
    if activity.idle_seconds is None:
        return None
    return activity.at - timedelta(seconds=activity.idle_seconds)


def _observed(status: InstanceStatus, activity: Activity | None) -> int | None:
    if activity is not None and activity.sessions is not None:
        return activity.sessions
    return status.observed_sessions
