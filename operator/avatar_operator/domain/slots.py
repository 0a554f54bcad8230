"""The ports of a pool, one by one, as people see them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from .resources import Instance, Pool


class Slot(StrEnum):
    """What a port is at the moment."""

    IN_USE = "in use"
    UNUSED = "unused"
    MOVING = "starting or ending"
    CLAIMED = "released soon"
    FREE = "free"


class PortView(NamedTuple):
    """One port, and the name of the instance that has it (empty: none)."""

    port: int
    slot: Slot
    instance: str = ""


def slots(pool: Pool, mine: Iterable[Instance]) -> list[PortView]:
    """Each port of the pool's range, lowest first; ``mine``: the pool's instances."""
    own = list(mine)
    holders = {i.status.port: i for i in own if i.status.port and i.status.phase != "Shared"}
    sharers = Counter(i.status.port for i in own if i.status.phase == "Shared" and i.counted_connections)
    claimed = set(pool.status.ports.in_use) if pool.status.ports else set()
    ports, found = pool.spec.ports, []
    for port in range(ports.base, ports.base + ports.count):
        item = holders.get(port)
        if item is None:
            found.append(PortView(port, Slot.CLAIMED if port in claimed else Slot.FREE))
            continue
        busy = item.counted_connections or item.status.observed_sessions or sharers[port]
        running = Slot.IN_USE if busy else Slot.UNUSED
        found.append(PortView(port, running if item.status.phase == "Running" else Slot.MOVING, item.metadata.name))
    return found
