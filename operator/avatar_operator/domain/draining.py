"""A group that drains: offers are refused, a second look is taken, then it is collected, replaced, or goes on.

Two kinds. For being idle, never claimed or outdated it drains to find out whether somebody is there, and goes on if so.
For its age (idle.maxAgeSeconds) it drains for as long as somebody is there.
"""

from __future__ import annotations

from datetime import timedelta

from .actions import DeleteInstance, Event, Plan, ProbeActivity, SetDraining
from .assigned import released
from .case import Case
from .clock import floor
from .idle import Clock
from .resources import LastTermination
from .serving import WHY_DRAINING, awaited, group_timeout, outdated, say_running, too_old
from .settings import resolve
from .status import ASLEEP, NO_POD, Desired, say
from .upkeep import protect
from .view import Activity


def drain(case: Case, result: Plan) -> None:
    """Refuse offers, look a second time, then collect or call it off."""
    runtime, reason = case.view.runtime, case.server.status.reason
    patient = reason == "MaxAge"
    used = case.counted or (reason in ("Idle", "Unclaimed") and awaited(case))
    if reason not in WHY_DRAINING or (patient and not too_old(case)) or (used and not patient):
        _call_off(case, result)
        return
    if runtime.draining is not True or runtime.told_at is None or (patient and _forgot(case)):
        result.actions.append(SetDraining(case.pod, case.port, draining=True))
        return
    if case.settings.count_from_runtime:
        seen = runtime.activity
        if seen is None or seen.at < runtime.told_at or (patient and _look_again(case, seen, result)):
            result.actions.append(ProbeActivity(case.pod, case.port))
            return
        used = used or seen.sessions != 0
        if patient and seen.sessions and seen.sessions != case.server.status.observed_sessions:
            _say_draining(case, seen.sessions, result)
    if used and patient:
        protect(case, group_timeout(case), result)
    elif used:
        _call_off(case, result)
    elif reason == "Outdated" or (patient and not group_timeout(case)):
        # One that is never collected for being idle is there to stay: it gets a new pod.
        _replace(case, result)
    else:
        _collect(case, result)


def _forgot(case: Case) -> bool:
    """Whether the runtime takes offers though it was told not to: it was out of reach then, or has restarted since."""
    runtime = case.view.runtime
    if runtime.told_at is None or runtime.activity is None or runtime.activity.draining:
        return False
    # Stock LiveTalking never says; once a beat will do.
    return case.view.now >= runtime.told_at + timedelta(seconds=case.beat)


def _look_again(case: Case, seen: Activity, result: Plan) -> bool:
    """Whether it is time to ask again who is there still: once a beat."""
    again = seen.at + timedelta(seconds=case.beat)
    result.wake_at(again)
    return case.view.now >= again


def _say_draining(case: Case, sessions: int, result: Plan) -> None:
    """How many are there still, for those who wait for its end."""
    status = case.server.status
    case.say(Desired(status.phase, status.reason, status.message, {"observedSessions": sessions}), result)


def _call_off(case: Case, result: Plan) -> None:
    """Somebody is there, or nobody knows: take offers again and say Running.

    Both at once, so that the decision cannot be lost in between. Should this
    process die before the runtime hears of it, the next look at a runtime that
    still drains tells it (see serving.serve).
    """
    runtime, now = case.view.runtime, case.view.now
    if runtime.draining is not False:
        result.actions.append(SetDraining(case.pod, case.port, draining=False))
    seen = runtime.activity
    sessions = seen.sessions if seen is not None else None
    known = case.counted > 0 or not case.settings.count_from_runtime or sessions is not None
    clock = Clock(None, now, sessions, known, next_look=now + timedelta(seconds=case.beat))
    result.wake_at(clock.next_look)
    say_running(case, clock, result)


def is_replaced(case: Case) -> bool:
    """Whether the instance has said that its pod gives way to a new one, and this is the old one still."""
    status, created = case.server.status, case.pod.metadata.creation_timestamp
    if status.phase != "Starting" or status.pod_name or status.reason not in ("Outdated", "MaxAge"):
        return False
    last = status.last_termination
    if last is None or last.reason != status.reason or last.time is None or created is None:
        return False
    return outdated(case) if status.reason == "Outdated" else created < last.time


def _replace(case: Case, result: Plan) -> None:
    """Roll a pod that nobody uses; the claim stays.

    Said by compare-and-swap before the pod is deleted (see is_replaced): a client that is counted in this very moment
    wins, one that is counted later reads that it has to wait for the new pod.
    """
    reason = case.server.status.reason
    message = f"replacing the pod: {WHY_DRAINING[reason]}"
    fields = {**NO_POD, "lastTermination": LastTermination(time=floor(case.view.now), reason=reason)}
    conditions = (("Ready", "False", reason, message),)
    event = Event("Normal", reason, message)
    case.say(Desired("Starting", reason, message, fields, conditions), result, event, exact=True)


def _collect(case: Case, result: Plan) -> None:
    """Followers first, the server last: what is interrupted in between is still a whole."""
    now, reason = case.view.now, case.server.status.reason
    since = case.server.status.last_activity_time or case.server.status.ready_time or now
    idle = max(0, int((now - since).total_seconds()))
    why = {
        "Idle": f"nobody used it for {idle} s (idle.timeoutSeconds)",
        "Unclaimed": f"nobody connected in {idle} s (idle.claimTimeoutSeconds)",
        "MaxAge": f"older than {case.pool.spec.idle.max_age_seconds} s (idle.maxAgeSeconds), and nobody uses it",
    }[reason]
    for member in case.members[1:] or case.members:
        action = case.pool.spec.idle.action
        if case.view.avatar is not None:
            action = resolve(member, case.pool, case.view.avatar).idle_action
        message = f"{why}; action {action}"
        event = Event("Normal", f"{reason}Collected", message)
        if action == "Delete":
            result.actions.append(DeleteInstance(member, reason, event))
            continue
        last = LastTermination(time=floor(now), reason=reason, message=message, idle_seconds=idle)
        fields = {**NO_POD, "restarts": 0, "lastTermination": last}
        conditions = (ASLEEP, ("PortClaimed", "False", "Stopped", "released"), *released(member, "Stopped"))
        # By compare-and-swap: a connection counted in this very moment wins.
        say(now, member, Desired("Stopped", reason, message, fields, conditions), result, event, exact=True)
