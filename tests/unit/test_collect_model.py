"""Every order in which a client can come while an instance is collected, and many orders by chance.

The real plan() drives one or two operators, step by step: look (plan by what the store knows), and each action of the
plan by itself. In between come clients, by a counted connection or by a session in the runtime, go again, a watch
lags or catches up, and time passes. The model's API server has compare-and-swap; it refuses, as an assertion, to
collect whom somebody uses (Model.nobody_uses) or to end the pod under them (Model.nobody_is_served).

COLLECT_ORDERS=10000 plays as many by chance.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator
from datetime import timedelta

import pytest

from avatar_operator.controller.store import Store
from avatar_operator.domain.actions import Action
from avatar_operator.domain.resources import Health, Instance, Pod, PoolIdle
from avatar_operator.domain.view import GroupKey
from tests.unit.builders import avatar, instance, pool
from tests.unit.model import Model, group, is_ready

ORDERS = int(os.environ.get("COLLECT_ORDERS", "1000"))
# What others do, once each, in some order between the operator's steps.
CLIENT = ("come", "go", "come-back")
TIMEOUT = 30


class Story:
    """One instance at its deadline, one or two operators in the middle of what they do."""

    def __init__(self, source: str, action: str, operators: int, *, image: str = "") -> None:
        idle = PoolIdle(timeout_seconds=TIMEOUT, action=action, activity_source=source)
        self.source = source
        self.model = Model(pool(idle=idle, health=Health(period_seconds=5)), [avatar()])
        self.model.create("one", instance().spec)
        self.model.settle()
        (self.pod,) = self.model.all(Pod)
        assert is_ready(self.pod)
        if image:
            self.model.change_pool(runtime=pool(image=image).spec.runtime)
        self.model.now += timedelta(seconds=TIMEOUT + 1)
        # Each operator has its own store and memory over the same objects.
        self.minds = [(self.model.store, self.model.memory)]
        self.minds += [(self._new_store(), {}) for _ in range(operators - 1)]
        self.todo: list[list[Action]] = [[] for _ in range(operators)]
        self._key = GroupKey(self.server.metadata.namespace, group(self.server))
        self.clients = 0
        self.here = False
        self.outcomes: set[str] = set()

    def _new_store(self) -> Store:
        mine, memory = self.model.store, self.model.memory
        self.model.restart()
        fresh, self.model.store, self.model.memory = self.model.store, mine, memory
        return fresh

    @property
    def server(self) -> Instance:
        found = self.model.get(Instance, "one")
        assert found is not None
        return found

    # ---- steps ------------------------------------------------------------------------------

    def operate(self, who: int, *, fresh: bool) -> bool:
        """One action of the plan at hand, or the next plan; False when there is nothing to do."""
        model = self.model
        model.store, model.memory = self.minds[who]
        if fresh:
            for kind in (Instance, Pod):
                for name in {m.metadata.name for m in model.all(kind)} | {"one"}:
                    model._deliver(kind, name)
        if not self.todo[who]:
            key = self._key
            if model.store.pool_of(key) is None:
                return False
            plan = model.observe(key)
            if plan is None or not plan.actions:
                return False
            model.prepare(key, plan.actions)
            self.todo[who] = list(plan.actions)
            return True
        pool_key = model.store.pool_of(self._key)
        action = self.todo[who].pop(0)
        if pool_key is not None:
            model.perform(self._key, pool_key, action)
        return True

    def come(self) -> None:
        """A client: it is there from the moment in which it was told so."""
        self.clients += 1
        if self.source == "Runtime":
            self.here = self.model.open_session(self.pod, f"s{self.clients}")
        elif (found := self.model.get(Instance, "one")) is not None:
            self.model.lagging = True
            self.model.count_connections("one", 1)
            self.model.lagging = False
            self.here = found.status.phase in ("Running", "Draining")

    def go(self) -> None:
        """It leaves, if it is there."""
        runtime = self.model.runtimes.get(self.pod.metadata.uid)
        if self.source == "Runtime":
            if runtime is not None and runtime.sessions:
                self.model.close_session(self.pod, next(iter(runtime.sessions)))
        elif self.model.get(Instance, "one") is not None:
            self.model.lagging = True
            self.model.count_connections("one", 0)
            self.model.lagging = False
        self.here = False

    def play(self, steps: list[str]) -> None:
        """``operate`` by number, with fresh or stale eyes, and what clients do."""
        for step in steps:
            match step:
                case "come" | "come-back":
                    self.come()
                case "go":
                    self.go()
                case "kill":
                    self.minds[0], self.todo[0] = (self._new_store(), {}), []
                case "second":
                    self.model.now += timedelta(seconds=1)
                case _:
                    who, eyes = step.split()
                    self.operate(int(who), fresh=eyes == "fresh")
        if self.here:
            # Its instance is there, and nobody ends its pod.
            assert self.model.get(Instance, "one") is not None, steps
            pod = self.model.get(Pod, self.pod.metadata.name)
            assert pod is not None, steps
            assert pod.metadata.deletion_timestamp is None, steps
            self.outcomes.add("kept")
        elif self.model.get(Instance, "one") is None or self.server.status.phase == "Stopped":
            self.outcomes.add("collected")


KINDS = [(source, action) for source in ("Connections", "Runtime") for action in ("Delete", "Sleep")]


def _orders() -> Iterator[list[str]]:
    """A client comes at each of the operator's steps, and leaves and comes back at each later one, or stays."""
    steps = 14
    for come, go, back in itertools.combinations_with_replacement(range(steps), 3):
        line: list[str] = []
        for number in range(steps):
            line += [what for what, at in zip(CLIENT, (come, go, back), strict=True) if at == number]
            line.append("0 fresh")
        yield line
        # And with an operator that has not heard of any of it.
        yield [step.replace("fresh", "stale") for step in line]


@pytest.mark.parametrize(("source", "action"), KINDS)
def test_nobody_is_culled_in_any_order_of_one_client(source: str, action: str) -> None:
    outcomes: set[str] = set()
    for line in itertools.islice(_orders(), 0, None, 1 if ORDERS > 1000 else 7):
        story = Story(source, action, 1)
        story.play(line)
        outcomes |= story.outcomes
    assert outcomes == {"kept", "collected"}, "the orders must reach both ends"


@pytest.mark.parametrize("image", ["", "registry.example/runtime:next"], ids=["idle", "rolled"])
@pytest.mark.parametrize(("source", "action"), KINDS)
def test_nobody_is_culled(source: str, action: str, image: str) -> None:
    """By chance: kills; where status alone counts, a second operator that does not know that it leads no more.

    (What one operator tells a runtime is not fenced against another: there the Lease alone keeps them apart.)
    """
    rng = random.Random(f"{source} {action} {image}")
    outcomes: set[str] = set()
    others = ["1 stale"] * 3 + ["1 fresh"] * 3 if source == "Connections" else []
    what = ["0 fresh"] * 6 + ["0 stale"] * 3 + ["come", "go", "second", "kill", *others]
    for _ in range(ORDERS // 8):
        story = Story(source, action, 2 if others else 1, image=image)
        story.play([rng.choice(what) for _ in range(rng.randint(8, 40))])
        outcomes |= story.outcomes
    assert "kept" in outcomes


def test_twenty_minutes_of_loading_are_not_idle() -> None:
    """The idle clock begins when the runtime serves, however long it loads its model."""
    idle = PoolIdle(timeout_seconds=60, activity_source="Connections")
    model = Model(pool(idle=idle, startup_timeout_seconds=1800), [avatar()])
    model.create("one", instance().spec)
    model.work()
    (pod,) = model.all(Pod)
    model.progress(pod)
    for _ in range(20 * 6):
        model.pass_time(10)
        model.work()
        one = model.get(Instance, "one")
        assert one is not None
        assert one.status.phase == "Starting", one.status
    model.settle(0)
    served = model.get(Instance, "one")
    assert served is not None
    assert served.status.phase == "Running"
    assert served.status.idle_deadline is not None
    assert served.status.idle_deadline >= model.now + timedelta(seconds=55)
