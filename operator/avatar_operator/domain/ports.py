"""Which port an instance gets, and which of those that wait is next.

The old manager gave two clients one port (its FIXLOG): it released a claim
before the socket was bound. Here the claim is a Service object; these
functions only choose, the API server arbitrates.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

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


def lowest_free(ports: Ports, taken: Sequence[int]) -> int | None:
    """The lowest port of the range that is not in ``taken`` (ascending, each once), or None."""
    first = bisect_left(taken, ports.base)
    # Up to the first gap the n-th of those taken is the n-th of the range: thousands need not be looked at.
    row = bisect_left(range(len(taken) - first), True, key=lambda n: taken[first + n] != ports.base + n)
    return ports.base + row if row < ports.count else None


def _free(ports: Ports, taken: Sequence[int]) -> int:
    """How many ports of the range are not taken."""
    return ports.count - (bisect_left(taken, ports.base + ports.count) - bisect_left(taken, ports.base))


def admit(ports: Ports, capacity: int, held: int, rank: int, taken: Sequence[int]) -> Admission:
    """Admit the group with ``rank`` groups waiting before it.

    ``held`` claims of the pool exist; ``capacity`` may. ``taken`` are the
    ports in use by anyone in the namespace, quarantined ones included;
    ascending, each once.
    """
    room = max(0, capacity - held)
    usable = min(room, _free(ports, taken))
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
