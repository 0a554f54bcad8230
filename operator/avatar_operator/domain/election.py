"""Who of several operators leads: the rules of a Lease (coordination.k8s.io/v1), without its I/O.

As client-go has them: a lease is not judged by the times written in it, which
another machine's clock wrote, but by how long ago we saw it change by our own.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds. ``duration``: unchanged for so long, a lease is free. ``renew``: how often the leader renews.

    ``deadline``: a leader that could not renew for so long has lost it. It is
    shorter than ``duration``, so that the old one has stopped before the new
    one starts; ``ask``: how often the others look.
    """

    duration: float = 4.0
    deadline: float = 3.0
    renew: float = 1.0
    ask: float = 0.25


@dataclass(frozen=True, slots=True)
class Record:
    """What a Lease says; ``version`` is its resourceVersion, ``duration`` the holder's own promise in seconds."""

    holder: str
    version: str
    duration: float
    transitions: int = 0


@dataclass(frozen=True, slots=True)
class Sighting:
    """A record, since when (monotonic seconds of this process) it is known to be as it is, and the last look at it."""

    record: Record
    since: float
    looked: float


def sight(before: Sighting | None, record: Record, now: float) -> Sighting:
    """Take in a record that was read at ``now``; one that has not changed keeps its time.

    Who could not look for as long as the holder may be silent knows nothing of its silence: the API server
    was away, for the holder too, which keeps its lease then and with it all that it knows.
    """
    if before is None or before.record.version != record.version or now - before.looked >= record.duration:
        return Sighting(record, now, now)
    return Sighting(record, before.since, now)


def may_take(seen: Sighting | None, me: str, now: float) -> bool:
    """Whether ``me`` may write its name into the lease: there is none, it is free, ours, or its holder is silent."""
    if seen is None or seen.record.holder in ("", me):
        return True
    return now >= seen.since + seen.record.duration


def holds(renewed: float | None, now: float, timings: Timings) -> bool:
    """Whether a leader that last renewed at ``renewed`` may still act."""
    return renewed is not None and now < renewed + timings.deadline
