"""What a client that waits for an instance is told: come in, wait, or not now and why."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from math import ceil

from .resources import Instance

# Reasons for which nobody has to fail for the next one to get in.
EXHAUSTED = frozenset({"PoolFull", "PortsExhausted", "GPUExhausted"})
# A client that is turned away because of them comes again after so long (seconds).
EXHAUSTED_RETRY = 10
STARTING_RETRY = 5
BROKEN_RETRY = 30


@dataclass(frozen=True, slots=True)
class Ready:
    """It serves."""


@dataclass(frozen=True, slots=True)
class Wait:
    """It is on its way. The rest is what to say to one who does not wait longer; ``full``: waits for room."""

    message: str
    retry_after: int
    full: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """It will not come to serve by waiting; ``missing``: what it needs is not there."""

    message: str
    retry_after: int
    missing: bool = False


Verdict = Ready | Wait | Refused


def serves(instance: Instance) -> bool:
    """Whether clients may go to its webrtcUrl now."""
    status = instance.status
    return status.phase in ("Running", "Shared") and bool(status.webrtc_url) and status.port is not None


def verdict(instance: Instance, now: datetime, until: datetime) -> Verdict:
    """What to tell somebody who waits until ``until``."""
    status = instance.status
    if serves(instance):
        return Ready()
    why = status.message or status.reason
    if status.phase == "Failed":
        again = status.retry_time
        if again is None:
            missing = status.reason in ("AvatarNotFound", "PoolNotFound")
            return Refused(why, EXHAUSTED_RETRY if status.reason == "QueueFull" else BROKEN_RETRY, missing)
        seconds = max(1, ceil((again - now).total_seconds()))
        if again > until:
            return Refused(f"{why}; tried again in {seconds} s", seconds)
        return Wait(f"{why}; tried again in {seconds} s", seconds)
    if status.phase == "Pending" and status.reason in EXHAUSTED:
        place = f" (place {status.queue_position} in the queue)" if status.queue_position else ""
        return Wait(f"{why}{place}", EXHAUSTED_RETRY, full=True)
    phase = status.phase or "Pending"
    return Wait(f"the avatar is {phase.lower()}{f': {why}' if why and why != phase else ''}", STARTING_RETRY)
