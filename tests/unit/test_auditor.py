"""The operator's own audit: what it counts, plans and says. The store is the real one; events are caught."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from avatar_operator.controller.auditor import Auditor
from avatar_operator.controller.keys import Key
from avatar_operator.controller.leader import Alone
from avatar_operator.controller.metrics import Metrics
from avatar_operator.controller.store import Store
from avatar_operator.domain.actions import Event
from avatar_operator.domain.resources import Meta, Ports
from avatar_operator.domain.view import GroupKey
from avatar_operator.kube.events import Recorder
from avatar_operator.kube.kinds import AnyObject
from tests.unit.builders import NAMESPACE, group_of, instance, pool, service


class Caught(Recorder):
    """Events as they are recorded, not posted."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, Event]] = []

    def record(self, kind: str, about: Meta, event: Event) -> None:
        self.events.append((kind, about.name, event))


class World:
    """A store, and the auditor over it; with a period of 0 it believes the second look at once."""

    def __init__(self, leadership: Any = None) -> None:
        self.planned: list[Key] = []
        self.store = Store(lambda key: None, lambda: datetime.now(UTC))
        self.events = Caught()
        self.metrics = Metrics()
        self.auditor = Auditor(self.store, self.planned.append, self.events, self.metrics, leadership or Alone(), 0)
        self._version = 1

    def put(self, item: AnyObject) -> None:
        self._version += 1
        made = msgspec.structs.replace(item.metadata, resource_version=str(self._version))
        assert self.store.apply(msgspec.structs.replace(item, metadata=made))

    def gauge(self, kind: str) -> float | None:
        return self.metrics.registry.get_sample_value("avatar_operator_inconsistencies", {"kind": kind})

    def repairs(self, kind: str) -> float | None:
        return self.metrics.registry.get_sample_value("avatar_operator_repairs_total", {"kind": kind})

    def said(self) -> list[tuple[str, str, str]]:
        return [(kind, name, event.reason) for kind, name, event in self.events.events]


LEAK = service(instance(avatar_name="Zoe"), 8617)


async def test_a_leak_is_counted_planned_said_and_its_repair_too() -> None:
    world = World()
    world.put(pool())
    world.put(LEAK)
    await world.auditor.look(sure=True)
    assert (world.gauge("ClaimWithoutInstance"), world.repairs("ClaimWithoutInstance")) == (1, 0)
    assert world.planned == [GroupKey(NAMESPACE, group_of(instance(avatar_name="Zoe")))]
    assert world.said() == [("AvatarPool", "default", "Inconsistent")]
    await world.auditor.look()
    assert len(world.events.events) == 1, "said once"
    world.store.remove(type(LEAK), NAMESPACE, "avatar-8617")
    await world.auditor.look()
    assert (world.gauge("ClaimWithoutInstance"), world.repairs("ClaimWithoutInstance")) == (0, 1)
    assert world.said()[1:] == [("AvatarPool", "default", "Repaired")]


async def test_one_event_for_all_that_concerns_a_pool() -> None:
    world = World()
    world.put(pool())
    for port in (8615, 8616, 8617, 8618):
        world.put(service(instance(avatar_name=f"of {port}"), port))
    await world.auditor.look(sure=True)
    ((kind, name, event),) = world.events.events
    assert (kind, name) == ("AvatarPool", "default")
    assert event.message.startswith("4 inconsistencies: ")
    # Two are gone, one is new: that is worth another event, and nothing is repaired yet.
    for port in (8615, 8616):
        world.store.remove(type(LEAK), NAMESPACE, f"avatar-{port}")
    world.put(service(instance(avatar_name="new"), 8619))
    await world.auditor.look(sure=True)
    assert [e.message[:17] for _, _, e in world.events.events[1:]] == ["3 inconsistencies"]
    for port in (8617, 8618, 8619):
        world.store.remove(type(LEAK), NAMESPACE, f"avatar-{port}")
    await world.auditor.look()
    assert world.events.events[-1][2].message == "consistent again: 5 ClaimWithoutInstance"


async def test_without_a_pool_the_object_itself_is_told_of() -> None:
    world = World()
    old = datetime.now(UTC) - timedelta(hours=1)
    world.put(instance("lonely", metadata={"creation_timestamp": old}))
    # A Service has nobody who reads its events; the log says it.
    world.put(LEAK)
    await world.auditor.look(sure=True)
    assert world.said() == [("AvatarInstance", "lonely", "Inconsistent")]
    assert (world.gauge("StuckPhase"), world.gauge("ClaimWithoutInstance")) == (1, 1)


async def test_all_kinds_are_there_from_the_beginning() -> None:
    world = World()
    assert world.gauge("GpuOvercommitted") == 0
    assert world.repairs("GpuOvercommitted") == 0


class Led(Alone):
    """A leadership that a test takes away."""

    def __init__(self) -> None:
        super().__init__()
        self.acting.clear()

    @property
    def held(self) -> bool:
        return self.acting.is_set()


async def test_it_looks_while_it_leads_and_not_before_nor_after() -> None:
    leadership = Led()
    world = World(leadership)
    world.put(pool())
    world.put(pool("other", ports=Ports(base=8619)))
    task = asyncio.create_task(world.auditor.run())
    await asyncio.sleep(0.05)
    assert world.gauge("PortRangesOverlap") == 0
    leadership.acting.set()
    await _until(lambda: world.gauge("PortRangesOverlap") == 1)
    leadership.acting.clear()
    await _until(lambda: world.gauge("PortRangesOverlap") == 0)
    leadership.acting.set()
    await _until(lambda: world.gauge("PortRangesOverlap") == 1)
    # Another leader may have acted meanwhile: said anew.
    assert world.said() == [("AvatarPool", "other", "Inconsistent")] * 2
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_bug_in_the_report_does_not_end_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(picture: object) -> list[object]:
        raise RuntimeError("a bug")

    world = World()
    monkeypatch.setattr("avatar_operator.controller.auditor.audit", broken)
    task = asyncio.create_task(world.auditor.run())
    errors = "avatar_operator_reconcile_errors_total"
    await _until(lambda: (world.metrics.registry.get_sample_value(errors, {"reason": "Bug"}) or 0) > 2)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _until(good: Any) -> None:
    async with asyncio.timeout(5):
        while not good():
            await asyncio.sleep(0.01)
