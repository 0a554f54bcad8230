"""A pod on a node that nobody hears of: its end cannot be waited for, and what it holds cannot be given away.

The pod may still run there, with its host port and its memory on a GPU. So its
claim and its reservation stay with it until it is really gone; but once its
grace period is long over its group starts anew, on another claim. That is the
one exception to "one live pod for each shared avatar".

What ends such a pod is Kubernetes: the kubelet when the node is back, the pod
garbage collector when the Node is deleted or has the taint
``node.kubernetes.io/out-of-service``. The operator deletes nothing by force.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from .actions import Event, Plan
from .clock import floor
from .gpunode import Node
from .podends import end_of
from .podstate import PodPhase, PodState, ended_by
from .resources import Instance, LastTermination, Pod
from .status import Desired, say
from .view import GroupView

CONDITION = "PodStranded"
# A pod's deletionTimestamp is the end of its grace period; a kubelet that lives reports so soon after it (seconds).
STRANDED_MARGIN_SECONDS = 10
# Ends that say no more than that nothing was heard.
_SILENCE = ("StartupTimeout", "PullTimeout")


def lost(node: Node | None) -> str:
    """Why nothing is heard from the pods of ``node``; empty = it is ready.

    One that does not exist is not lost: Kubernetes ends its pods by itself.
    """
    ready = next((c for c in node.status.conditions if c.type == "Ready"), None) if node is not None else None
    if node is None or ready is None or ready.status == "True":
        return ""
    how = "not ready" if ready.status == "False" else "unreachable"
    since = f" since {ready.last_transition_time:%H:%M:%S} UTC" if ready.last_transition_time else ""
    return f"node {node.metadata.name} is {how}{since}"


def set_aside(view: GroupView, lost_pods: dict[str, str]) -> GroupView:
    """``view`` without the pods whose end cannot be waited for, and without their claims.

    ``lost_pods``: UID of each pod on a lost node, and why the node counts as lost.
    """
    stranded = tuple(p for p in view.pods if p.metadata.uid in lost_pods and _overdue(p, view.now))
    names = {p.metadata.name for p in stranded}
    return replace(
        view,
        pods=tuple(p for p in view.pods if p not in stranded),
        claims=tuple(c for c in view.claims if c.metadata.name not in names),
        lost=lost_pods,
        stranded=stranded,
    )


def due(pod: Pod) -> datetime | None:
    """When the end of a pod on a lost node is waited for no longer; None = nobody wants it to end."""
    asked = pod.metadata.deletion_timestamp
    return asked + timedelta(seconds=STRANDED_MARGIN_SECONDS) if asked is not None else None


def _overdue(pod: Pod, now: datetime) -> bool:
    until = due(pod)
    return until is not None and now >= until


def explain(state: PodState, why: str) -> PodState:
    """``state`` of a pod in the light of its node; ``why`` the node counts as lost, empty = it does not."""
    if why and state.phase is PodPhase.UNREADY:
        text = f"{why}; Kubernetes evicts the pod when its toleration of that ends (5 min by default)"
        return PodState(PodPhase.UNREADY, "NodeLost", text)
    if why and state.phase is PodPhase.FAILED and state.reason in _SILENCE:
        return ended_by(end_of("NodeLost"), words=why)
    return state


def tell(view: GroupView, server: Instance, result: Plan) -> bool:
    """Say in ``server``'s status, once, which pods are left behind, or that they are gone; whether there was news."""
    known = next((c for c in server.status.conditions if c.type == CONDITION), None)
    if not view.stranded and known is None:
        return False
    status, before = server.status, len(result.actions)
    if view.stranded:
        why = "; ".join(f"pod {p.metadata.name} cannot end: {view.lost[p.metadata.uid]}" for p in view.stranded)
        message = (
            f"{why}. Another pod serves instead; the port and GPU of the old one stay taken until the node is back, "
            "its Node is deleted or has the taint node.kubernetes.io/out-of-service"
        )
        fields = {}
        if known is None:
            fields["lastTermination"] = LastTermination(time=floor(view.now), reason="NodeLost", message=why)
        desired = Desired(
            status.phase, status.reason, status.message, fields, ((CONDITION, "True", "NodeLost", message),)
        )
        event = Event("Warning", "NodeLost", message) if known is None else None
    else:
        desired = Desired(status.phase, status.reason, status.message, drop=(CONDITION,))
        event = Event("Normal", "StrandedPodGone", "the pod on the lost node is gone; what it held is free again")
    say(view.now, server, desired, result, event)
    return len(result.actions) > before
