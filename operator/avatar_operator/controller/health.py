"""The truth behind the operator's /healthz and /readyz."""

from __future__ import annotations

import time
from collections.abc import Callable

from avatar_operator.kube.client import KubeClient

from .reconciler import Reconciler
from .resync import Resync
from .watch import Watches

# A reconcile that takes longer than this hangs (its requests time out long before).
STUCK_SECONDS = 180.0
# After so many periods and so long without a successful resync nothing here is known to be true.
STALE_PERIODS, STALE_SECONDS = 3, 30.0
# Longer than the API server's own restart takes, and than any one answer.
SILENT_SECONDS = 20.0


class Health:
    """Why the operator is not alive or not ready; an empty string = it is."""

    def __init__(
        self,
        client: KubeClient,
        resync: Resync,
        reconciler: Reconciler,
        watches: Watches,
        tasks_failed: Callable[[], str],
        ending: Callable[[], bool],
    ) -> None:
        self._client = client
        self._resync = resync
        self._watches = watches
        self._reconciler = reconciler
        self._tasks_failed = tasks_failed
        self._ending = ending

    def dead(self) -> str:
        """What a restart would cure."""
        if failed := self._tasks_failed():
            return failed
        busy = self._reconciler.longest_busy()
        return f"a reconcile has been running for {busy:.0f} s" if busy > STUCK_SECONDS else ""

    def unready(self) -> str:
        """What keeps the operator from knowing or doing its work."""
        if dead := self.dead():
            return dead
        if self._ending():
            return "the process is ending"
        if self._resync.synced_at is None:
            why = f": {self._resync.problem}" if self._resync.problem else ""
            return f"not synced with the API server yet{why}"
        if (silent := self._client.silent_for) > SILENT_SECONDS:
            # Nothing that a restart would cure: it knows what runs, and waits.
            return f"the API server has not answered for {silent:.0f} s"
        if trouble := self._watches.trouble():
            return trouble
        age = time.monotonic() - self._resync.synced_at
        if age > STALE_PERIODS * self._resync.period + STALE_SECONDS:
            why = f": {self._resync.problem}" if self._resync.problem else ""
            return f"no successful resync for {age:.0f} s{why}"
        if self._resync.missed:
            return f"the watch missed {self._resync.missed} changes before the last resync"
        return ""
