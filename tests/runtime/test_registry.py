"""The session registry: limits, states, idle time."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from avatar_runtime.sessions import Refused, Registry, State

LIMIT = 3
ids = st.sampled_from("abcdef")


class RegistryMachine(RuleBasedStateMachine):
    """Any order of offers, connections and ends, against a plain model."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.registry = Registry(LIMIT, self.now)
        self.model: dict[str, State] = {}
        self.idle_since = 0.0

    @rule(seconds=st.floats(0, 60))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(name=ids)
    def offer(self, name: str) -> None:
        may = len(self.model) < LIMIT and name not in self.model and not self.registry.draining
        if may:
            self.registry.open(name, self.now)
            self.model[name] = State.CONNECTING
        else:
            with pytest.raises(Refused):
                self.registry.open(name, self.now)

    @rule(name=ids)
    def connect(self, name: str) -> None:
        news = self.model.get(name) is State.CONNECTING
        assert self.registry.connect(name, self.now) is news
        if news:
            self.model[name] = State.CONNECTED

    @rule(name=ids)
    def begin_to_close(self, name: str) -> None:
        first = self.model.get(name) in (State.CONNECTING, State.CONNECTED)
        assert self.registry.closing(name) is first
        if first:
            self.model[name] = State.CLOSING

    @rule(name=ids)
    def close(self, name: str) -> None:
        there = self.model.pop(name, None) is not None
        assert self.registry.close(name, self.now) is there
        if there and not self.model:
            self.idle_since = self.now

    @rule(draining=st.booleans())
    def drain(self, draining: bool) -> None:
        self.registry.draining = draining

    @invariant()
    def agrees(self) -> None:
        assert {k: e.state for k, e in self.registry.entries.items()} == self.model
        assert len(self.registry) <= LIMIT
        idle = 0.0 if self.model else self.now - self.idle_since
        assert self.registry.idle_seconds(self.now) == pytest.approx(idle)
        overdue = self.registry.overdue(self.now, 30)
        assert all(self.model[name] is State.CONNECTING for name in overdue)


RegistryMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestRegistry = RegistryMachine.TestCase


def test_the_refusal_says_how_many() -> None:
    registry = Registry(1, 0.0)
    registry.open("a", 0.0)
    with pytest.raises(Refused, match=r"Maximum session limit reached \(1/1\)"):
        registry.open("b", 0.0)
    registry.draining = True
    with pytest.raises(Refused, match="draining"):
        registry.open("b", 0.0)


def test_only_connecting_sessions_are_overdue() -> None:
    registry = Registry(5, 0.0)
    registry.open("slow", 0.0)
    registry.open("quick", 0.0)
    registry.connect("quick", 1.0)
    registry.open("late", 20.0)
    assert registry.overdue(29.9, 30) == []
    assert registry.overdue(30.0, 30) == ["slow"]
