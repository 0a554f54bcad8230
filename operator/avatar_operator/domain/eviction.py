"""Which pods a node drain and the cluster autoscaler may take: those that nobody has used for a while.

It carries the label ``in-use``, of which the pool's PodDisruptionBudget selects
``true`` (no pod of it may be evicted), and the annotation by which the cluster
autoscaler goes. Both follow the sessions, but sparingly: a pod that people come
to every minute is never written to. Unknown is not unused.

A pod that nobody has come to yet is ``new``: the autoscaler leaves it, and the
budget does not select it. The controller manager looks through all pods of a
budget, and writes its status, for each that comes: with thousands in a pool
that was more work than all that the operator does for a start.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from .actions import Json
from .idle import FRESH_SECONDS
from .names import (
    ANNOTATION_SAFE_TO_EVICT,
    API_VERSION,
    COMPONENT,
    LABEL_COMPONENT,
    LABEL_IN_USE,
    LABEL_MANAGED_BY,
    LABEL_POOL,
    MANAGER,
    budget_name,
)
from .resources import InstanceStatus, Pod, Pool
from .view import Activity, RuntimeView

# A pod that nobody has used for so long (seconds) may be evicted; sooner where it would be collected soon after.
UNUSED_SECONDS = 60
# One that is new is asked at least so often (seconds) who uses it: clients may come past status.
NEW_SECONDS = 10
# One that may be evicted is asked again who uses it each so many beats.
RECHECK_BEATS = 5
# More pods than there can be: pods without a scale have no other way to say "none of them".
ALL_PODS = 1_000_000
# The label's value between true and false.
NEW = "new"


@dataclass(frozen=True, slots=True)
class Protection:
    """A look at a pod. ``in_use``: what to mark it as, None = leave it. ``probe``: ask the runtime first."""

    in_use: bool | None = None
    probe: bool = False
    next_look: datetime | None = None


def marks(in_use: bool) -> tuple[dict[str, str], dict[str, str]]:
    """Labels and annotations of a pod that is, or is not, in use."""
    return {LABEL_IN_USE: str(in_use).lower()}, {ANNOTATION_SAFE_TO_EVICT: str(not in_use).lower()}


def first_marks(counted: bool) -> tuple[dict[str, str], dict[str, str]]:
    """Labels and annotations of a pod that is about to be made; ``counted``: whether somebody waits for it already."""
    labels, annotations = marks(in_use=True)
    return labels if counted else {LABEL_IN_USE: NEW}, annotations


def look(
    pod: Pod,
    status: InstanceStatus,
    counted: int,
    runtime: RuntimeView,
    now: datetime,
    *,
    timeout: int,
    beat: int,
    ask_runtime: bool,
) -> Protection:
    """Whether ``pod`` is to be marked otherwise than it is.

    ``status`` of the instance that it serves first; ``counted`` connections over
    all of them. ``timeout``: idle seconds before collection, 0 = never.
    ``beat``: seconds between looks at a runtime that only it knows to be in use.
    ``ask_runtime`` False: status alone decides.
    """
    marked = pod.metadata.labels.get(LABEL_IN_USE)
    seen = runtime.activity if ask_runtime else None
    protect = True if marked != "true" else None
    if counted:
        return Protection(protect)
    if seen is not None and seen.sessions != 0 and now < seen.at + timedelta(seconds=beat):
        # In use, or nobody knows.
        return Protection(protect, next_look=seen.at + timedelta(seconds=beat))
    if marked == "false":
        return _evictable(runtime, now, beat) if ask_runtime else Protection()
    after = timedelta(seconds=min(UNUSED_SECONDS, timeout / 2) if timeout else UNUSED_SECONDS)
    times = (status.ready_time, status.last_activity_time, runtime.used_at)
    due = max((t for t in times if t is not None), default=now) + after
    if now < due:
        return Protection(next_look=due) if marked == "true" or not ask_runtime else _new(seen, now, beat, due)
    if not ask_runtime:
        return Protection(in_use=False)
    if seen is None or seen.at < due or now - seen.at > timedelta(seconds=FRESH_SECONDS):
        return Protection(probe=True)
    left = after - timedelta(seconds=seen.idle_seconds) if seen.idle_seconds is not None else timedelta()
    if left > timedelta():
        # Somebody has just been there whom only the runtime saw; whoever came since is known by asking again.
        again = seen.at + left
        return Protection(next_look=again) if now < again else Protection(probe=True)
    return Protection(in_use=False)


def _new(seen: Activity | None, now: datetime, beat: int, due: datetime) -> Protection:
    """Nobody is known to have come to the pod yet, which is young: has somebody?"""
    if seen is None:
        return Protection(probe=True)
    again = seen.at + timedelta(seconds=min(beat, NEW_SECONDS))
    return Protection(probe=True) if now >= again else Protection(next_look=min(again, due))


def _evictable(runtime: RuntimeView, now: datetime, beat: int) -> Protection:
    """The pod is marked as unused: is it still?"""
    asked = runtime.activity.at if runtime.activity is not None else runtime.known_since
    if asked is None:
        return Protection()
    again = asked + timedelta(seconds=RECHECK_BEATS * beat)
    return Protection(probe=True) if now >= again else Protection(next_look=again)


def budget(pool: Pool) -> Json:
    """The PodDisruptionBudget of ``pool``: none of its pods in use may be evicted, those that do not serve always."""
    meta = pool.metadata
    labels = {LABEL_MANAGED_BY: MANAGER, LABEL_COMPONENT: COMPONENT, LABEL_POOL: meta.name}
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {
            "name": budget_name(meta.name),
            "namespace": meta.namespace,
            "labels": labels,
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": "AvatarPool",
                    "name": meta.name,
                    "uid": meta.uid,
                    "controller": True,
                    "blockOwnerDeletion": False,
                }
            ],
        },
        "spec": {
            "minAvailable": ALL_PODS,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": {**labels, LABEL_IN_USE: "true"}},
        },
    }
