"""Which port an instance gets, and which of those that wait is next.

The old manager gave two clients one port (its FIXLOG): it released a claim
before the socket was bound. Here the claim is a Service object; these
functions only choose, the API server arbitrates.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from .resources import Ports


@dataclass(frozen=True, slots=True)
class Admission:
    """Where a group stands in its pool.

    ``port`` is set when it may claim one now; else ``position`` (1 = next) in
    the queue and ``reason`` PoolFull or PortsExhausted.
    """

    port: int | None = None
    position: int = 0
    reason: str = ""
    message: str = ""


def lowest_free(ports: Ports, taken: Container[int]) -> int | None:
    """The lowest port of the range that is not taken, or None."""
    return next((p for p in range(ports.base, ports.base + ports.count) if p not in taken), None)


def admit(ports: Ports, capacity: int, held: int, rank: int, taken: Container[int]) -> Admission:
    """Admit the group with ``rank`` groups waiting before it.

    ``held`` claims of the pool exist; ``capacity`` may. ``taken`` are the
    ports in use by anyone in the namespace, quarantined ones included.
    """
    free = capacity - held
    if rank >= free:
        return Admission(
            position=rank - max(free, 0) + 1,
            reason="PoolFull",
            message=f"the pool runs {held} of {capacity} instances; waiting for one to end",
        )
    port = lowest_free(ports, taken)
    if port is None:
        last = ports.base + ports.count - 1
        return Admission(
            position=rank + 1,
            reason="PortsExhausted",
            message=f"every port of {ports.base}–{last} is claimed or quarantined; "
            "waiting for one, or widen spec.ports of the AvatarPool",
        )
    return Admission(port=port)


def overlap(one: Ports, other: Ports) -> bool:
    """Whether two ranges have a port in common."""
    return one.base < other.base + other.count and other.base < one.base + one.count
