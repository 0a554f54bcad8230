"""A chaos plan follows from its seed alone, and together the seeds leave nothing out."""

from __future__ import annotations

from collections import Counter

from chaos.faults import Faults
from chaos.plan import INSTANCES, draw
from chaos.users import Users


def test_the_same_seed_is_the_same_plan() -> None:
    assert draw(7) == draw(7)
    assert str(draw(7)) == str(draw(7))
    assert draw(7) != draw(8)


def test_faults_of_the_cluster_change_nothing_else() -> None:
    plain, more = draw(7), draw(7, cluster=True)
    added = [step for step in more.steps if step not in plain.steps]
    assert added
    assert {step.what for step in added} <= {"component", "etcd-full"}
    assert [step for step in more.steps if step not in added] == list(plain.steps)


def test_steps_come_in_order_and_within_the_time() -> None:
    for seed in range(50):
        plan = draw(seed)
        times = [step.at for step in plan.steps]
        assert times == sorted(times)
        assert times[-1] <= plan.seconds + 0.01
        assert {step.args["name"] for step in plan.steps if step.what == "create"} <= set(INSTANCES)


def test_clocks_can_be_left_right() -> None:
    assert any(any(draw(seed).skews) for seed in range(20))
    assert not any(any(draw(seed, skews=False).skews) for seed in range(20))


def test_every_step_is_drawn_and_can_be_played() -> None:
    drawn = Counter(step.what for seed in range(200) for step in draw(seed, cluster=True).steps)
    users = Users(None, None, None)  # type: ignore[arg-type]
    faults = Faults(None, "", None, None, None)  # type: ignore[arg-type]
    assert set(drawn) == {*users.steps, *faults.steps}
    for seed in range(200):
        for step in draw(seed).steps:
            assert step.what in (users.steps if step.user else faults.steps), step


def test_seeds_differ_in_what_they_are_about() -> None:
    plans = [draw(seed) for seed in range(100)]
    assert {plan.operators for plan in plans} == {1, 2}
    assert {plan.gpus for plan in plans} == {True, False}
    assert {len(plan.pools) for plan in plans} == {1, 2}
    assert {plan.pools[0].source for plan in plans} == {"Connections", "Runtime"}
    assert {pool.action for plan in plans for pool in plan.pools} == {"Delete", "Sleep"}
