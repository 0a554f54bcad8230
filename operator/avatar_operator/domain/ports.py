"""Which port an instance gets, and which of those that wait is next.

The old manager gave two clients one port (its FIXLOG): it released a claim
before the socket was bound. Here the claim is a Service object; these
functions only choose, the API server arbitrates.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from itertools import islice

from .placement import Placement
from .resources import Ports


@dataclass(frozen=True, slots=True)
class Admission:
    """Where a group stands in its pool.

    ``port`` is set when it may claim one now, with the GPU ``placement`` that
    goes with it where the pool has GPUs. Else ``position`` (1 = next) in the
    queue and ``reason`` PoolFull, PortsExhausted or GPUExhausted; without a
    reason its turn comes in a moment.
    """

    port: int | None = None
    placement: Placement | None = None
    position: int = 0
    reason: str = ""
    message: str = ""


def lowest_free(ports: Ports, taken: Container[int]) -> int | None:
    """The lowest port of the range that is not taken, or None."""
    return next(_free(ports, taken), None)


def _free(ports: Ports, taken: Container[int]) -> Iterator[int]:
    return (p for p in range(ports.base, ports.base + ports.count) if p not in taken)


def admit(ports: Ports, capacity: int, held: int, rank: int, taken: Container[int]) -> Admission:
    """Admit the group with ``rank`` groups waiting before it.

    ``held`` claims of the pool exist; ``capacity`` may. ``taken`` are the
    ports in use by anyone in the namespace, quarantined ones included.
    """
    room = max(0, capacity - held)
    # No more are counted than it takes: thousands may be free.
    usable = sum(1 for _ in islice(_free(ports, taken), min(room, rank + 1)))
    if rank < usable:
        return Admission(port=lowest_free(ports, taken))
    position = rank - usable + 1
    if rank >= room:
        message = f"the pool runs {held} of {capacity} instances; waiting for one to end"
        return Admission(position=position, reason="PoolFull", message=message)
    last = ports.base + ports.count - 1
    return Admission(
        position=position,
        reason="PortsExhausted",
        message=f"every port of {ports.base}–{last} is claimed or quarantined; "
        "waiting for one, or widen spec.ports of the AvatarPool",
    )


def overlap(one: Ports, other: Ports) -> bool:
    """Whether two ranges have a port in common."""
    return one.base < other.base + other.count and other.base < one.base + one.count
