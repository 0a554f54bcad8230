"""The sweep that ends sessions whose peer is gone: what it does with what runtimes say, and with their silence."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from avatar_operator.api.metrics import ApiMetrics
from avatar_operator.api.peers import Peers
from avatar_operator.api.rolls import Rolls
from avatar_operator.api.runtimes import Runtimes
from avatar_operator.api.world import World
from avatar_operator.domain.resources import Instance, InstanceSpec, InstanceStatus, Meta, Session
from avatar_operator.domain.sessions import Answer, Detach, Left, Operation

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HELD = Instance(
    metadata=Meta(name="g", namespace="ns", uid="1"),
    spec=InstanceSpec(avatar_name="g"),
    status=InstanceStatus(sessions=(Session(id="a", runtime_session_id="7"), Session(id="b", runtime_session_id="8"))),
)


@dataclass
class Told:
    """World, runtimes and writer in one: what the runtime lists, and what it and the API server are told."""

    lists: list[list[dict[str, Any]] | None]
    namespace: str = "ns"
    hung_up: list[str] = field(default_factory=list)
    written: list[Operation] = field(default_factory=list)

    async def listed(self, item: Instance) -> list[dict[str, Any]] | None:
        return self.lists.pop(0)

    async def hang_up(self, item: Instance, name: str) -> None:
        self.hung_up.append(name)

    async def submit(self, namespace: str, name: str, operation: Operation) -> tuple[Answer, Instance]:
        self.written.append(operation)
        return Left(HELD.status.sessions[0], 1), HELD

    def pool(self, name: str) -> None:
        return None


async def looks(told: Told, seconds: float = 3) -> Peers:
    """As many looks as there are lists."""
    clock = iter(NOW + timedelta(seconds=seconds * n) for n in range(99))
    peers = Peers(cast(World, told), cast(Rolls, told), cast(Runtimes, told), ApiMetrics(), lambda: next(clock))
    while told.lists:
        await peers._look(HELD)
    return peers


async def test_missed_twice_is_ended_by_name() -> None:
    told = Told([[{"sessionid": 8}], [{"sessionid": 8}]])
    peers = await looks(told)
    assert told.written == [Detach("a", "7")]
    assert told.hung_up == ["7"]
    assert peers.metrics.peers_gone._value.get() == 1


async def test_silence_ends_nobody_and_forgets_nothing() -> None:
    told = Told([None, [{"sessionid": 8}], None, None])
    await looks(told)
    assert told.written == []
    told.lists = [[{"sessionid": 8}], None, [{"sessionid": 8}]]
    await looks(told)
    assert told.written == [Detach("a", "7")]


async def test_a_replica_that_has_just_begun_looks_twice() -> None:
    told = Told([[]])
    await looks(told)
    await looks(told)
    assert told.written == []
