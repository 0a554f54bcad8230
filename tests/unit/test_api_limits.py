"""How often: the window slides, names do not pile up, replicas count together, and Redis may go."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from threading import Thread

import pytest
from fakeredis import TcpFakeServer
from hypothesis import given
from hypothesis import strategies as st

from avatar_operator.api.limits import NAMES_MOST, LocalLimiter, Rate, RedisLimiter
from avatar_operator.api.metrics import ApiMetrics
from tests.support.operator import free_port


class Clock:
    """A time that the test sets."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def test_so_many_and_no_more() -> None:
    clock = Clock()
    limiter, rate = LocalLimiter(clock), Rate(3, 60)
    assert [limiter.take_now("s", "ann", rate) for _ in range(3)] == [0, 0, 0]
    wait = limiter.take_now("s", "ann", rate)
    assert wait > 0
    assert limiter.take_now("s", "bob", rate) == 0
    assert limiter.take_now("other", "ann", rate) == 0
    clock.now += wait
    assert limiter.take_now("s", "ann", rate) == 0


def test_no_limit() -> None:
    limiter = LocalLimiter()
    assert {limiter.take_now("s", "ann", Rate.parse("0")) for _ in range(1000)} == {0}


@pytest.mark.parametrize("text", ["", "x", "3/", "-1/60", "3/0", "3/999999", "1/2/3"])
def test_rates_that_are_none(text: str) -> None:
    if text == "3/":
        assert Rate.parse(text) == Rate(3, 60)
        return
    with pytest.raises(ValueError, match=r".*"):
        Rate.parse(text)


def test_names_do_not_pile_up() -> None:
    limiter = LocalLimiter()
    for n in range(NAMES_MOST + 500):
        limiter.take_now("s", str(n), Rate(1, 60))
    assert len(limiter._counts) == NAMES_MOST


@given(st.integers(1, 20), st.integers(1, 120), st.lists(st.floats(0, 30), max_size=200))
def test_never_more_than_twice_in_any_window_and_waits_that_are_true(
    count: int, seconds: int, pauses: list[float]
) -> None:
    clock, rate, taken = Clock(), Rate(count, seconds), list[float]()
    limiter = LocalLimiter(clock)
    for pause in pauses:
        clock.now += pause
        wait = limiter.take_now("s", "ann", rate)
        if wait == 0:
            taken.append(clock.now)
        else:
            assert 1 <= wait <= 2 * seconds + 1
            later = Clock()
            later.now = clock.now + wait
            copy = LocalLimiter(later)
            copy._counts.update(limiter._counts)
            assert copy.take_now("s", "ann", rate) == 0, "who waits as told is let in"
    for end in taken:
        # A sliding window of two fixed ones is exact in each fixed one, and never above twice the rate.
        assert sum(1 for t in taken if end - seconds < t <= end) <= 2 * count
        assert sum(1 for t in taken if t // seconds == end // seconds) <= count


@pytest.fixture
def redis_port() -> Iterator[int]:
    """A Redis (fake, but with its protocol) on a port of the loopback."""
    port = free_port()
    server = TcpFakeServer(("127.0.0.1", port), server_type="redis")
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield port
    server.shutdown()
    server.server_close()


async def test_replicas_count_together(redis_port: int) -> None:
    url = f"redis://127.0.0.1:{redis_port}/0"
    one, two = RedisLimiter(url, ApiMetrics()), RedisLimiter(url, ApiMetrics())
    try:
        rate = Rate(5, 3600)
        waits = [await limiter.take("s", "ann", rate) for _ in range(5) for limiter in (one, two)]
        assert [w == 0 for w in waits] == [True] * 5 + [False] * 5
        assert all(1 <= w <= 7200 for w in waits[5:])
        assert await one.take("s", "bob", rate) == 0
    finally:
        await asyncio.gather(one.close(), two.close())


async def test_without_redis_each_counts_alone() -> None:
    metrics = ApiMetrics()
    limiter = RedisLimiter(f"redis://127.0.0.1:{free_port()}/0", metrics)
    try:
        waits = [await limiter.take("s", "ann", Rate(2, 3600)) for _ in range(4)]
        assert [w == 0 for w in waits] == [True, True, False, False]
        assert metrics.limiter_errors._value.get() == 1, "it is not asked again at once"
    finally:
        await limiter.close()
