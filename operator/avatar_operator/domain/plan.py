"""The heart: from everything known about one group to what should be done about it.

Level-triggered: the plan follows from the view alone, whatever happened
before. It is called again after each of its actions has changed something,
until it asks for nothing more.

One live pod serves a group. The exception are pods on lost nodes, which may
run on and cannot be ended: nodeloss says when the group starts anew beside them.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from .actions import (
    DeletePod,
    Event,
    PatchStatus,
    Plan,
)
from .clock import floor
from .leak import RECOUNTED, doubted
from .nodeloss import tell
from .resources import Instance
from .running import one_pod, run
from .sessions import Roll, lapse, next_lapse
from .settings import check, nameless
from .starting import clean_up, start
from .status import ASLEEP, NO_POD, Desired, merge_conditions, say
from .view import GroupView

# What a new instance refers to may come this much later (seconds) before it counts as missing.
BELIEVE_SECONDS = 2
# So many sessions are named in one event.
NAMED_SESSIONS = 3


def wants_to_run(instance: Instance) -> bool:
    """Whether ``instance`` should have a pod: always, but when asleep and not called."""
    if instance.metadata.deletion_timestamp is not None:
        return False
    return instance.status.phase != "Stopped" or instance.counted_connections > 0


def needs_claim(view: GroupView) -> bool:
    """Whether the group waits for a port: what the pool's queue is made of."""
    if view.claims or view.pods:
        return False
    server = next((m for m in view.members if wants_to_run(m) and check(m, view.pool, view.avatar) is None), None)
    # The server's backoff is the group's: its followers do not hold a place in the queue meanwhile.
    retry = server.status.retry_time if server is not None else None
    return server is not None and (retry is None or retry <= view.now)


def plan(view: GroupView) -> Plan:
    """What to do about ``view`` now, and when to look again."""
    result = Plan()
    if _lapse(view, result):
        return result
    live = [p for p in view.pods if p.metadata.deletion_timestamp is None]
    wanting = [m for m in view.members if wants_to_run(m)]
    if wanting and tell(view, wanting[0], result):
        return result
    if view.pool is None and live and wanting:
        # Its pool was deleted under a running instance: nobody is thrown out for that.
        return result
    if not live:
        valid = _refuse_invalid(view, wanting, result)
        if valid:
            start(view, valid, result)
        else:
            clean_up(view, result)
        _settle_asleep(view, result)
        return result
    if not wanting:
        for pod in live:
            result.actions.append(DeletePod(pod, "NotWanted"))
        _settle_asleep(view, result)
        return result
    pod = one_pod(live, result)
    # Nobody is thrown out for a limit that was lowered since: then all of them stay.
    valid = [m for m in wanting if _within_limits(m, view)] or wanting
    _refuse(view, [m for m in wanting if m not in valid], result)
    run(view, valid, pod, result)
    _settle_asleep(view, result)
    return result


# ---- members ---------------------------------------------------------------------


def _lapse(view: GroupView, result: Plan) -> bool:
    """End the sessions whose lease is over; whether there were any. What follows from it is the next plan's."""
    rolls = [(member, roll := Roll.of(member.status), lapse(roll, view.now)) for member in view.members]
    over = any(left is not roll for _, roll, left in rolls)
    for member, roll, left in rolls:
        result.wake_at(next_lapse(left.sessions))
        fields: dict[str, object] = {}
        if over and member.status.idle_deadline is not None:
            # It ran while nobody looked who was there; they were in use until now.
            fields = {"idleDeadline": None, "lastActivityTime": floor(view.now)}
        if over and doubted(member.status):
            fields["conditions"] = merge_conditions(
                member.status.conditions, (RECOUNTED,), view.now, generation=member.metadata.generation
            )
        if left is not roll:
            # By compare-and-swap: a session that is renewed in this very moment stays.
            change = {**left.status(), **fields}
            result.actions.append(PatchStatus(member, change, exact=True, events=(_expired(roll, left),)))
        elif fields:
            result.actions.append(PatchStatus(member, fields, exact=True))
    return bool(result.actions)


def _expired(roll: Roll, left: Roll) -> Event:
    ended = [s for s in roll.sessions if s not in left.sessions]
    who = ", ".join(f"{s.id} of {s.user}" if s.user else s.id for s in ended[:NAMED_SESSIONS])
    more = f" and {len(ended) - NAMED_SESSIONS} more" if len(ended) > NAMED_SESSIONS else ""
    text = f"no sign of life from session {who}{more} in its time; {left.connections} connected still"
    return Event("Normal", "SessionExpired", text)


def _within_limits(instance: Instance, view: GroupView) -> bool:
    problem = check(instance, view.pool, view.avatar or nameless(instance))
    return problem is None or problem.reason != "LimitExceeded"


def _refuse_invalid(view: GroupView, wanting: list[Instance], result: Plan) -> list[Instance]:
    """Those of ``wanting`` that can run; the others get their problem as status."""
    valid = [m for m in wanting if check(m, view.pool, view.avatar) is None]
    _refuse(view, [m for m in wanting if m not in valid], result)
    return valid


def _refuse(view: GroupView, refused: Iterable[Instance], result: Plan) -> None:
    for member in refused:
        problem = check(member, view.pool, view.avatar)
        if problem is None:
            continue
        believed = (member.metadata.creation_timestamp or view.now) + timedelta(seconds=BELIEVE_SECONDS)
        if problem.reason in ("PoolNotFound", "AvatarNotFound") and not member.status.phase and view.now < believed:
            # Applied together with it, and on its way to us by another watch.
            result.wake_at(believed)
            continue
        desired = Desired(
            "Failed",
            problem.reason,
            problem.message,
            {**NO_POD, "queuePosition": None, "retryTime": None},
            (("Ready", "False", problem.reason, problem.message),),
        )
        say(view.now, member, desired, result, Event("Warning", problem.reason, problem.message))


def _settle_asleep(view: GroupView, result: Plan) -> None:
    """Stopped members that nobody calls: their status holds nothing of a pod."""
    for member in view.members:
        if member.status.phase == "Stopped" and not wants_to_run(member):
            desired = Desired(
                "Stopped",
                member.status.reason,
                member.status.message,
                {**NO_POD, "queuePosition": None},
                (ASLEEP,),
            )
            say(view.now, member, desired, result)
