"""What a run did itself: by it the observer tells the operator's doings from the run's.

Everything is written down before it is asked for, so that history never tells of a deed that is not here yet.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Talk:
    """A client's session with the runtime of a pod; ``ended`` None = until the pod's end. Monotonic seconds."""

    pod: str
    began: float
    ended: float | None = None


@dataclass
class Deeds:
    """Objects go by their UID, times are monotonic seconds, as in the history."""

    # Asked to be deleted, or evicted.
    deleted: dict[str, float] = field(default_factory=dict)
    # Pods that were made to fail or to be unready.
    broken: dict[str, float] = field(default_factory=dict)
    # Versions in which a backend changed the counts of an instance, as the API server answered.
    counted: set[tuple[str, int]] = field(default_factory=set)
    # Counts that were asked for, whose answer was lost: each may have been done.
    perhaps: set[tuple[str, int]] = field(default_factory=set)
    # Sessions that clients had with runtimes.
    talks: list[Talk] = field(default_factory=list)
    # Spans in which a node was away, or all runtimes.
    outages: list[tuple[float, float]] = field(default_factory=list)
    # Spans in which the cluster's own components were away: history may have been told late.
    blackouts: list[tuple[float, float]] = field(default_factory=list)
    _named: list[tuple[float, str]] = field(default_factory=list)

    def delete(self, uid: str, name: str = "") -> None:
        """Write down a deletion; ``name`` is ``resource/name``."""
        now = time.monotonic()
        self.deleted.setdefault(uid, now)
        self._named.append((now, name))

    def deleted_name(self, name: str, since: float, until: float) -> bool:
        """Whether an object ``resource/name`` was deleted by hand in that span."""
        return any(since <= at <= until and name == known for at, known in self._named)

    def break_pod(self, uid: str) -> None:
        """Write down that a pod is made to fail."""
        self.broken.setdefault(uid, time.monotonic())

    def outage(self, at: float, slack: float) -> bool:
        """Whether nodes or runtimes were away at ``at`` or up to ``slack`` seconds before."""
        return any(began <= at <= ended + slack for began, ended in self.outages)

    def blackout(self, since: float, until: float) -> bool:
        """Whether times of arrival between ``since`` and ``until`` may be late."""
        return any(began <= until and since <= ended for began, ended in self.blackouts)
