"""The gate before runtimes: bounds, nobody blocked, and those sent away spread out."""

from __future__ import annotations

import contextlib

import pytest

from avatar_operator.controller.gate import MOST_NODES, SPACING_SECONDS, Gate, Later


def test_so_many_at_once_and_fewer_of_one_node() -> None:
    deferred: list[int] = []
    gate = Gate(lambda: deferred.append(1), total=3, each=2)
    with contextlib.ExitStack() as inside:
        inside.enter_context(gate.enter("a"))
        inside.enter_context(gate.enter("a"))
        with pytest.raises(Later), gate.enter("a"):
            pass
        inside.enter_context(gate.enter("b"))
        with pytest.raises(Later), gate.enter("c"):
            pass
    assert len(deferred) == 2
    with gate.enter("a"), gate.enter("a"), gate.enter("c"):
        pass


def test_who_fails_inside_leaves_it_too() -> None:
    gate = Gate(total=1, each=1)
    for _ in range(3):
        with pytest.raises(OSError, match="gone"), gate.enter("a"):
            raise OSError("gone")
    with gate.enter("a"):
        pass


def test_a_thousand_at_one_beat_come_back_one_after_the_other() -> None:
    now = 100.0
    gate = Gate(total=4, each=2, clock=lambda: now)
    with gate.enter("a"), gate.enter("a"):
        waits = []
        for _ in range(1000):
            with pytest.raises(Later) as told, gate.enter("a"):
                pass
            waits.append(told.value.seconds)
        for n, wait in enumerate(waits, start=1):
            assert n * SPACING_SECONDS <= wait * (1 + 1e-9)
            assert wait <= 1.25 * n * SPACING_SECONDS * (1 + 1e-9)
        # Another node's first does not stand behind them.
        with gate.enter("b"):
            pass
        now += 2000 * SPACING_SECONDS
        with pytest.raises(Later) as told, gate.enter("a"):
            pass
        assert told.value.seconds <= 1.25 * SPACING_SECONDS * (1 + 1e-9)


def test_it_remembers_no_more_nodes_than_it_must() -> None:
    now = 0.0
    gate = Gate(total=0, clock=lambda: now)
    for n in range(10 * MOST_NODES):
        now += SPACING_SECONDS * 2
        with pytest.raises(Later), gate.enter(f"node-{n}"):
            pass
    assert len(gate._back) <= MOST_NODES
