"""XIDs: what the driver tells of errors, queued by it and taken from the queue without waiting."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pynvml
from pynvml import NVMLError

from .faults import NOT_TOLD
from .reading import Trouble, Xid

# Errors of applications, not of the GPU: NVIDIA's device plugin leaves out the same.
APPLICATION_XIDS = frozenset({13, 31, 43, 45, 68, 109})
# After these a GPU computes nothing, or nonsense, until it is reset. That needs everybody off the GPU, this
# process too, so that the next agent starts with a clean slate.
RESET_XIDS = frozenset({48, 62, 64, 79, 95, 119, 120, 140, 143})
AT_ONCE = 200


class Xids:
    """What was heard of each GPU since the start; ``failed`` counts errors of NVML."""

    def __init__(self, clock: Callable[[], datetime], failed: Callable[[NVMLError], None]) -> None:
        self._clock = clock
        self._failed = failed
        self._queue: Any = None
        self._registered: set[str] = set()
        self._heard: dict[str, dict[int, Xid]] = {}

    def listen(self, handle: Any, uuid: str) -> None:
        """Have the driver queue the XIDs of a GPU, if it can."""
        if uuid in self._registered:
            return
        self._registered.add(uuid)
        try:
            if self._queue is None:
                self._queue = pynvml.nvmlEventSetCreate()
            pynvml.nvmlDeviceRegisterEvents(handle, pynvml.nvmlEventTypeXidCriticalError, self._queue)
        except NVMLError as error:
            if error.value not in NOT_TOLD:
                self._failed(error)

    def drain(self) -> None:
        """Take what has been queued, and wait for nothing."""
        for _ in range(AT_ONCE if self._queue is not None else 0):
            try:
                event = pynvml.nvmlEventSetWait_v2(self._queue, 0)
                uuid = pynvml.nvmlDeviceGetUUID(event.device)
            except NVMLError as error:
                if error.value != pynvml.NVML_ERROR_TIMEOUT:
                    self._failed(error)
                return
            code = int(event.eventData)
            if event.eventType == pynvml.nvmlEventTypeXidCriticalError and code not in APPLICATION_XIDS:
                of_gpu = self._heard.setdefault(uuid, {})
                before = of_gpu[code].count if code in of_gpu else 0
                of_gpu[code] = Xid(code, before + 1, self._clock())

    def of(self, uuid: str) -> tuple[Xid, ...]:
        """All that was heard of a GPU."""
        return tuple(self._heard.get(uuid, {}).values())


def after(xids: tuple[Xid, ...]) -> tuple[str, str]:
    """The trouble that XIDs leave a GPU in: reason and message, empty = none."""
    fatal = [xid for xid in xids if xid.code in RESET_XIDS]
    if not fatal:
        return "", ""
    last = max(fatal, key=lambda xid: xid.last)
    return Trouble.XID, (
        f"Xid {last.code} at {last.last:%Y-%m-%d %H:%M:%S} UTC: the GPU must be reset (drain the node, then "
        "nvidia-smi --gpu-reset or a reboot); it counts as healthy again when this agent has been restarted"
    )
