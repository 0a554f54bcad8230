"""Whole lives in the model: what they cost, and that a kill at any write changes nothing in the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from avatar_operator.domain.actions import Action
from avatar_operator.domain.resources import Instance, InstanceIdle, InstanceSpec, Pod, PoolIdle, Service
from avatar_operator.domain.resources import Runtime as PoolRuntime
from avatar_operator.domain.view import GroupKey
from tests.unit.builders import avatar, pool
from tests.unit.model import Model, assert_consistent

IDLE = 60


def make(count: int = 1, **spec: Any) -> Model:
    """A pool of five ports and so many avatars A0, A1 …"""
    return Model(pool(idle=PoolIdle(timeout_seconds=IDLE), **spec), [avatar(f"A{n}") for n in range(count)])


def phases(model: Model) -> dict[str, str]:
    return {i.metadata.name: i.status.phase for i in model.all(Instance)}


def of(model: Model, name: str) -> Instance:
    found = model.get(Instance, name)
    assert found is not None
    return found


def test_a_cold_start_costs_four_writes() -> None:
    model = make()
    model.create("one", InstanceSpec(avatar_name="A0"))
    model.settle()
    assert_consistent(model)
    assert model.writes == [
        "POST Service avatar-8615",
        "POST Pod avatar-8615",
        "PATCH Instance one",
        "PATCH Instance one",
    ]


def test_a_join_costs_two_and_a_takeover_one() -> None:
    model = make()
    model.create("one", InstanceSpec(avatar_name="A0"))
    model.settle()
    model.writes.clear()
    model.pass_time(1)
    model.create("two", InstanceSpec(avatar_name="A0"))
    model.settle()
    assert model.writes == ["PATCH Pod avatar-8615", "PATCH Instance two"]
    model.writes.clear()
    model.delete("one")
    model.settle()
    assert_consistent(model)
    assert model.writes == ["PATCH Instance two"]
    assert phases(model) == {"two": "Running"}


def test_rest_costs_nothing() -> None:
    model = make()
    model.create("one", InstanceSpec(avatar_name="A0", idle=InstanceIdle(timeout_seconds=100_000)))
    model.settle()
    model.writes.clear()
    model.settle(90_000)
    # From when nobody has used it for a minute it may be evicted; nothing after that.
    assert model.writes == ["PATCH Pod avatar-8615"]


def test_forty_avatars_for_five_ports() -> None:
    model = make(40)
    for n in range(40):
        model.create(f"i{n:02}", InstanceSpec(avatar_name=f"A{n}"))
        model.pass_time(1)
    model.settle()
    assert_consistent(model)
    assert sum(p == "Running" for p in phases(model).values()) == 5
    assert [of(model, f"i{n:02}").status.queue_position for n in range(5, 40)] == list(range(1, 36))
    model.writes.clear()
    model.delete("i02")
    model.settle()
    assert_consistent(model)
    assert of(model, "i05").status.phase == "Running"
    assert of(model, "i39").status.queue_position == 34
    # The start and a position for each that waits; not more than two looks at the queue.
    assert len(model.writes) <= 4 + 2 + 2 * 34


def test_a_hundred_users_of_one_avatar_make_one_pod() -> None:
    model = make()
    for n in range(100):
        model.create(f"i{n:02}", InstanceSpec(avatar_name="A0"))
    model.settle()
    assert_consistent(model)
    assert len(model.all(Pod)) == len(model.all(Service)) == 1
    assert sorted(phases(model).values()) == ["Running"] + ["Shared"] * 99


def test_an_idle_instance_is_collected_and_nothing_is_left() -> None:
    model = make()
    model.create("one", InstanceSpec(avatar_name="A0"))
    model.settle()
    model.settle(IDLE - 5)
    assert phases(model) == {"one": "Running"}
    model.settle(10)
    assert (model.all(Instance), model.all(Pod), model.all(Service)) == ([], [], [])


def test_a_page_that_no_backend_counted_keeps_it() -> None:
    model = make()
    model.create("one", InstanceSpec(avatar_name="A0"))
    model.settle()
    (pod,) = model.all(Pod)
    model.open_session(pod, "page")
    model.settle(40 * IDLE)
    assert phases(model) == {"one": "Running"}
    assert of(model, "one").status.observed_sessions == 1
    model.close_session(pod, "page")
    model.settle(3 * IDLE)
    assert phases(model) == {}


def test_asleep_and_awake() -> None:
    model = make()
    model.create("one", InstanceSpec(avatar_name="A0", idle=InstanceIdle(action="Sleep")))
    model.settle()
    model.settle(2 * IDLE)
    assert_consistent(model)
    assert phases(model) == {"one": "Stopped"}
    assert model.all(Pod) == []
    model.count_connections("one", 1)
    model.settle(0)
    assert_consistent(model)
    assert phases(model) == {"one": "Running"}


def test_a_backoff_with_a_follower_does_not_hold_the_queue_up() -> None:
    model = make(2, max_instances=1)
    model.create("one", InstanceSpec(avatar_name="A0"))
    model.create("two", InstanceSpec(avatar_name="A0"))
    model.settle()
    model.pass_time(1)
    model.create("other", InstanceSpec(avatar_name="A1"))
    # The first loss is made good at once, the second waits.
    for _ in range(2):
        (pod,) = model.all(Pod)
        model.fail_pod(pod, "evicted")
        model.work()
        model.progress(model.all(Pod)[0])
        model.work()
        model.settle()
    assert phases(model)["other"] == "Running"


def test_a_deleted_claim_comes_back_and_its_port_goes_to_nobody_else() -> None:
    model = make(2)
    model.create("one", InstanceSpec(avatar_name="A0"))
    model.settle()
    model.lose_claim("avatar-8615")
    model.create("two", InstanceSpec(avatar_name="A1"))
    model.settle()
    assert_consistent(model)
    assert (of(model, "one").status.port, of(model, "two").status.port) == (8615, 8616)


# ---- killed at each write --------------------------------------------------------------


class KilledError(Exception):
    """The process has been killed."""


class Mortal(Model):
    """An operator that is killed before or after its n-th write."""

    left = -1
    after = False

    def perform(self, key: GroupKey, pool: Any, action: Action) -> None:
        before = len(self.writes)
        if self.left == 0 and not self.after and type(action).__name__ not in ("ProbeActivity", "ProbeReady"):
            raise KilledError
        super().perform(key, pool, action)
        self.left -= len(self.writes) - before
        if self.left == 0 and self.after and len(self.writes) > before:
            raise KilledError


def start(model: Model) -> None:
    model.create("one", InstanceSpec(avatar_name="A0"))
    model.create("two", InstanceSpec(avatar_name="A0"))
    model.create("three", InstanceSpec(avatar_name="A1", idle=InstanceIdle(action="Sleep")))
    model.create("four", InstanceSpec(avatar_name="A2"))
    model.settle()


def collect(model: Model) -> None:
    model.settle(5 * IDLE)


def roll(model: Model) -> None:
    """One pod is evicted, and the image of the idle ones changes."""
    model.fail_pod(model.all(Pod)[0], "evicted")
    model.settle()
    model.change_pool(runtime=PoolRuntime(image="registry.example/runtime:2"))
    model.settle()


def summary(model: Model) -> tuple[dict[str, str], int, int]:
    return phases(model), len(model.all(Pod)), len(model.all(Service))


@pytest.mark.parametrize("after", [False, True], ids=["before-the-write", "after-the-write"])
@pytest.mark.parametrize("deed", [start, collect, roll])
def test_killed_at_each_write(deed: Callable[[Model], None], after: bool) -> None:
    def fresh() -> Mortal:
        avatars = [avatar(f"A{n}") for n in range(3)]
        model = Mortal(pool(max_instances=2, idle=PoolIdle(timeout_seconds=IDLE)), avatars)
        if deed is not start:
            start(model)
        model.writes.clear()
        return model

    calm = fresh()
    deed(calm)
    calm.settle(5 * IDLE if deed is collect else 0)
    assert_consistent(calm)
    assert len(calm.writes) >= 3
    for n in range(1 if after else 0, len(calm.writes)):
        model = fresh()
        model.left, model.after = n, after
        with pytest.raises(KilledError):
            deed(model)
        model.left = -1
        model.restart()
        model.settle(5 * IDLE if deed is collect else 0)
        assert_consistent(model)
        assert summary(model) == summary(calm), f"killed at write {n}"
