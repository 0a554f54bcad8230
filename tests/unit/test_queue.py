"""The work queue: each key once, never twice at a time, delays and backoff."""

from __future__ import annotations

import asyncio

import pytest

from avatar_operator.controller import queue as module
from avatar_operator.controller.queue import WorkQueue

PATIENCE = 2.0


async def take(queue: WorkQueue[str]) -> str:
    """The next key; a queue that gives none in time fails the test."""
    key, waited = await asyncio.wait_for(queue.get(), PATIENCE)
    assert waited >= 0
    return key


async def empty(queue: WorkQueue[str]) -> bool:
    """Whether nothing comes for a moment."""
    try:
        await asyncio.wait_for(queue.get(), 0.02)
    except TimeoutError:
        return True
    return False


async def test_keys_come_once_and_in_order() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in ("a", "b", "a", "a", "c"):
        queue.add(key)
    assert len(queue) == 3
    assert [await take(queue) for _ in range(3)] == ["a", "b", "c"]
    assert len(queue) == 0
    assert await empty(queue)


async def test_a_key_is_never_worked_on_twice_at_a_time() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    assert await take(queue) == "a"
    queue.add("a")
    queue.add("a")
    assert await empty(queue), "it came while it was being worked on"
    queue.done("a")
    assert await take(queue) == "a"
    queue.done("a")
    assert await empty(queue), "two adds while it ran are one more run"


async def test_workers_share_the_keys() -> None:
    queue: WorkQueue[int] = WorkQueue()
    busy: set[int] = set()
    seen: list[int] = []

    async def work() -> None:
        while True:
            key, _ = await queue.get()
            assert key not in busy
            busy.add(key)
            await asyncio.sleep(0)
            seen.append(key)
            busy.discard(key)
            queue.done(key)

    workers = [asyncio.create_task(work()) for _ in range(4)]
    for _ in range(5):
        for key in range(10):
            queue.add(key)
        await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE):
        while len(queue) or busy:
            await asyncio.sleep(0.001)
    for worker in workers:
        worker.cancel()
    results = await asyncio.gather(*workers, return_exceptions=True)
    assert all(isinstance(r, asyncio.CancelledError) for r in results), results
    assert set(seen) == set(range(10))


async def test_a_waiting_worker_wakes_up() -> None:
    queue: WorkQueue[str] = WorkQueue()
    waiting = asyncio.create_task(take(queue))
    await asyncio.sleep(0)
    queue.add("a")
    assert await waiting == "a"


async def test_low_goes_behind_normal() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("backlog-1", low=True)
    queue.add("backlog-2", low=True)
    queue.add("live")
    assert [await take(queue) for _ in range(3)] == ["live", "backlog-1", "backlog-2"]


async def test_a_live_event_brings_a_low_key_forward() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in ("backlog-1", "backlog-2", "next"):
        queue.add(key, low=True)
    queue.add("next")
    queue.add("backlog-1", low=True)
    assert len(queue) == 3
    assert [await take(queue) for _ in range(3)] == ["next", "backlog-1", "backlog-2"]
    queue.done("next")
    assert await empty(queue), "it came a second time"


async def test_low_again_after_it_was_brought_forward() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", low=True)
    queue.add("b", low=True)
    queue.add("a")
    assert await take(queue) == "a"
    queue.done("a")
    queue.add("a", low=True)
    assert sorted([await take(queue), await take(queue)]) == ["a", "b"]
    assert len(queue) == 0
    assert await empty(queue)


# ---- delays ----------------------------------------------------------------------


async def test_add_after_waits() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("later", 0.05)
    queue.add_after("soon", 0.02)
    assert len(queue) == 0
    began = asyncio.get_running_loop().time()
    assert [await take(queue), await take(queue)] == ["soon", "later"]
    assert asyncio.get_running_loop().time() - began >= 0.045


async def test_what_happens_goes_before_what_is_due_but_for_a_share() -> None:
    """Where thousands are due at once, a user who comes does not wait for them, nor they for ever."""
    queue: WorkQueue[str] = WorkQueue()
    for n in range(20):
        queue.add_after(f"due{n}", 0)
    await asyncio.sleep(0.01)
    queue.add("backlog", low=True)
    for n in range(9):
        queue.add(f"live{n}")
    got = [await take(queue) for _ in range(30)]
    share = module.DUE_SHARE
    assert [n for n, key in enumerate(got[: 9 + 3]) if key.startswith("due")] == [0, share, 2 * share]
    assert [key for key in got if key.startswith("live")] == [f"live{n}" for n in range(9)]
    assert [key for key in got if key.startswith("due")] == [f"due{n}" for n in range(20)]
    assert got[-1] == "backlog"
    assert await empty(queue)


async def test_a_live_event_brings_a_due_key_forward() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in ("a", "b", "c", "d"):
        queue.add_after(key, 0)
    await asyncio.sleep(0.01)
    queue.add("d")
    assert sorted([await take(queue), await take(queue)]) == ["a", "d"]
    assert [await take(queue), await take(queue)] == ["b", "c"]
    assert await empty(queue), "it waited in two lines and comes once"


@pytest.mark.parametrize("delays", [(0.02, 5.0), (5.0, 0.02)], ids=["earliest-first", "earliest-last"])
async def test_of_several_delays_the_earliest_counts(delays: tuple[float, float]) -> None:
    queue: WorkQueue[str] = WorkQueue()
    for delay in delays:
        queue.add_after("a", delay)
    assert await take(queue) == "a"
    queue.done("a")
    assert await empty(queue)


async def test_an_overtaken_delay_does_not_fire_later() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 0.04)
    queue.add_after("a", 0.01)
    assert await take(queue) == "a"
    queue.done("a")
    await asyncio.sleep(0.05)
    assert len(queue) == 0


async def test_a_delay_that_has_passed_fires_at_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", -5)
    assert await take(queue) == "a"


async def test_a_delay_while_it_runs_comes_after() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    assert await take(queue) == "a"
    queue.add_after("a", 0)
    assert await empty(queue)
    queue.done("a")
    assert await take(queue) == "a"


# ---- backoff ---------------------------------------------------------------------


async def test_backoff_grows_and_is_forgotten() -> None:
    queue: WorkQueue[str] = WorkQueue()
    delays = [queue.retry("a") for _ in range(40)]
    for failures, delay in enumerate(delays):
        middle = min(module.BACKOFF_LIMIT_SECONDS, module.BACKOFF_BASE_SECONDS * 2.0**failures)
        assert 0.75 * middle <= delay <= 1.25 * middle
    assert queue.retry("b") <= 1.25 * module.BACKOFF_BASE_SECONDS, "backoff is of one key, not of all"
    queue.forget("a")
    assert queue.retry("a") <= 1.25 * module.BACKOFF_BASE_SECONDS


async def test_the_server_s_retry_after_is_kept() -> None:
    queue: WorkQueue[str] = WorkQueue()
    assert queue.retry("a", 7.0) == 7.0


async def test_a_retry_comes() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.retry("a")
    assert await take(queue) == "a"


async def test_one_is_failing_until_it_went_well() -> None:
    queue: WorkQueue[str] = WorkQueue()
    assert not queue.failing("a")
    queue.retry("a")
    assert queue.failing("a")
    assert await take(queue) == "a"
    assert queue.failing("a"), "nobody knows yet how it goes"
    queue.forget("a")
    assert not queue.failing("a")


async def test_busy_is_what_is_worked_on_as_well_as_what_waits() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for number in range(module.QUIET):
        queue.add(f"k{number}")
    assert not queue.busy
    queue.add("one more")
    assert queue.busy
    taken = [await take(queue) for _ in range(module.QUIET + 1)]
    assert queue.busy
    queue.done(taken[0])
    assert not queue.busy
