"""What every process tells of itself."""

from __future__ import annotations

import asyncio
import time

import pytest
from prometheus_client import CollectorRegistry

from avatar_operator.process import vitals
from avatar_operator.process.vitals import Vitals


async def test_a_loop_that_was_held_up_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vitals, "LOOK_SECONDS", 0.05)
    registry = CollectorRegistry()
    looking = asyncio.create_task(Vitals(registry).run())
    await asyncio.sleep(0)
    time.sleep(0.4)
    await asyncio.sleep(0.1)
    looking.cancel()
    await asyncio.wait([looking])
    late = registry.get_sample_value("avatar_process_event_loop_lag_seconds_sum")
    assert late is not None
    assert late >= 0.3
    assert registry.get_sample_value("avatar_process_tasks") == 1
    assert registry.get_sample_value("process_open_fds")
    assert registry.get_sample_value("process_resident_memory_bytes")


def test_asked_from_outside_of_the_loop_there_are_no_tasks() -> None:
    registry = CollectorRegistry()
    Vitals(registry)
    assert registry.get_sample_value("avatar_process_tasks") == 0
