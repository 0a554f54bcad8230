"""What is looked after while a pod is up, besides its status: the marks for eviction, and whether media flows."""

from __future__ import annotations

from . import eviction
from . import flow as flows
from .actions import DeletePod, MarkInUse, Plan, ProbeActivity
from .case import Case
from .failure import fail
from .podends import end_of
from .podstate import ended_by


def probe_once(case: Case, result: Plan) -> None:
    """Ask the runtime, unless the plan does so already."""
    if not any(isinstance(a, ProbeActivity) for a in result.actions):
        result.actions.append(ProbeActivity(case.pod, case.port))


def protect(case: Case, timeout: int, result: Plan) -> None:
    """Let the pod's marks for eviction follow its sessions; ``timeout``: idle seconds before collection, 0 = never."""
    found = eviction.look(
        case.pod,
        case.server.status,
        case.counted,
        case.view.runtime,
        case.view.now,
        timeout=timeout,
        beat=case.beat,
        ask_runtime=case.settings.count_from_runtime,
    )
    result.wake_at(found.next_look)
    if found.in_use is not None:
        result.actions.append(MarkInUse(case.pod, found.in_use))
    elif found.probe:
        probe_once(case, result)


def media_of(case: Case) -> flows.Flow:
    """What is known of the media that the pod sends."""
    if not case.settings.count_from_runtime:
        return flows.Flow()
    period = case.pool.spec.health.period_seconds
    return flows.look(case.server.status, case.pod, case.view.runtime, case.view.now, period=period)


def give_up_on_media(case: Case, found: flows.Flow, result: Plan) -> bool:
    """Replace a pod whose media has stood still for too long and that does not answer, or is not ready, either.

    Whether the plan ends here. The runtime is asked once more before: it may have come round.
    """
    health, now, seen = case.pool.spec.health, case.view.now, case.view.runtime.activity
    due = flows.overdue_at(found, period=health.period_seconds, failures=health.failures)
    if due is None:
        return False
    if now < due:
        result.wake_at(due)
        return False
    if seen is None or seen.at < due:
        result.actions.append(ProbeActivity(case.pod, case.port))
        return True
    state = ended_by(end_of(flows.STALLED))
    result.actions.append(DeletePod(case.pod, state.reason))
    fail(case.view, case.members, state, result, case.pod)
    return True
