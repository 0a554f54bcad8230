"""Whether media flows: the runtime counts the video frames that it hands to viewers; that must not stand still.

A zombie answers its health route, keeps its sessions and sends nothing. One
source alone is not believed enough to end a conversation: a count that stands
still makes the condition MediaFlowing False, an event and a metric. Only when
it has stood still for the pool's health.failures looks, *and* the kubelet
calls the pod not ready or the runtime does not answer, is the pod replaced.

Since when it stands still is kept in the condition, so that a restart does not
forget it. The condition is absent until something was wrong: what goes well is
not worth a write. A runtime that does not count frames is never judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from .actions import Event
from .podstate import running_since
from .resources import InstanceStatus, Pod
from .view import Activity, FrameMark, RuntimeView

CONDITION = "MediaFlowing"
STALLED = "MediaStalled"


@dataclass(frozen=True, slots=True)
class Flow:
    """A look at the media. ``condition`` is for status, None = leave it; ``drop``: it says nothing any more.

    ``stalled_since``: since when the frames have stood still by now, None = they do not, or nobody knows.
    """

    condition: tuple[str, str, str, str] | None = None
    drop: bool = False
    event: Event | None = None
    stalled_since: datetime | None = None


def mark(before: FrameMark | None, seen: Activity) -> FrameMark | None:
    """The answer since which the frames stand still: the newest one, as long as they move or nobody watches.

    One that tells nothing (unreachable, no count) leaves it as it is.
    """
    if seen.frames is None:
        return before
    watched = before is not None and before.viewers > 0 and seen.viewers > 0
    if before is not None and watched and seen.frames == before.frames:
        return before
    return FrameMark(seen.at, seen.frames, seen.viewers, before is not None and watched and seen.frames > before.frames)


def look(status: InstanceStatus, pod: Pod, runtime: RuntimeView, now: datetime, *, period: int) -> Flow:
    """What the runtime's newest answer says of the media; ``period``: seconds between looks."""
    since, seen, still = stalled_since(status, pod), runtime.activity, runtime.frames
    if since is None and _since(status) is not None:
        # It was said of an earlier pod, or of a container that has ended since.
        return Flow(drop=True)
    if seen is None or still is None or seen.frames is None:
        return Flow(stalled_since=since)
    if not seen.viewers:
        # Nobody watches: nothing has to flow.
        return Flow(drop=since is not None)
    if since is not None:
        moves = still.at == seen.at and still.flowing
        return Flow((CONDITION, "True", "Flowing", "")) if moves else Flow(stalled_since=since)
    if seen.at < still.at + timedelta(seconds=period):
        return Flow()
    message = f"viewers are connected, and no video frame was sent to them since {still.at:%H:%M:%S} UTC"
    event = Event("Warning", STALLED, f"{message}; the pod is left alone unless it is not ready, too")
    return Flow((CONDITION, "False", STALLED, message), event=event, stalled_since=now)


def overdue_at(found: Flow, *, period: int, failures: int) -> datetime | None:
    """When the frames will have stood still for ``failures`` looks; None = they do not stand still."""
    since = found.stalled_since
    return since + timedelta(seconds=(failures - 1) * period) if since is not None else None


def stalled_since(status: InstanceStatus, pod: Pod) -> datetime | None:
    """Since when status has said that the media of the container that runs now stands still; None = it does not."""
    since, began = _since(status), running_since(pod)
    return since if since is not None and began is not None and since >= began else None


def _since(status: InstanceStatus) -> datetime | None:
    for condition in status.conditions:
        if condition.type == CONDITION and condition.status == "False":
            return condition.last_transition_time
    return None
