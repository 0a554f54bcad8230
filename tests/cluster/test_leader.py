"""Two operators, one of which acts: who takes over when, and that nobody acts twice."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest

from chaos import takeovers
from tests.conftest import Cluster, MakeOperator
from tests.support.api import until
from tests.support.operator import Operator, leader_of, leads
from tests.support.proxy import Call, Proxy
from tests.support.world import World

pytestmark = [pytest.mark.cluster]


@pytest.fixture
async def two(operator_factory: MakeOperator, namespace: str) -> tuple[Operator, Operator]:
    options = (f"--lease={namespace}/operator",)
    first, second = operator_factory(options=options), operator_factory(options=options)
    await asyncio.gather(first.start(), second.start())
    return first, second


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
async def test_the_other_one_takes_over(world: World, two: tuple[Operator, Operator], how: signal.Signals) -> None:
    await world.pool()
    leader = await leader_of(*two)
    other = next(o for o in two if o is not leader)
    await world.avatar("ada")
    await world.instance("one", "ada")
    pod = await world.phase("one", "Running")
    assert leader.process is not None
    leader.process.send_signal(how)
    began = time.monotonic()
    await world.avatar("bob")
    await world.instance("two", "bob")
    await world.phase("two", "Running", timeout=30)
    print(f"{how.name}: the next instance ran {time.monotonic() - began:.1f} s later")
    assert await leads(other)
    assert (await world.status("one"))["podName"] == pod["podName"]
    if how is signal.SIGSTOP:
        # It wakes up, finds that it has been overtaken, and ends by itself without having acted.
        leader.process.send_signal(signal.SIGCONT)
        await until("the old leader's end", lambda: asyncio.sleep(0, leader.running), lambda runs: not runs)
        assert "holds the lease now" in leader.tail()
    elif how is signal.SIGTERM:
        assert leader.process.wait(10) == 0


async def test_a_label_on_the_lease_is_no_takeover(world: World, two: tuple[Operator, Operator]) -> None:
    leader = await leader_of(*two)
    path = "coordination.k8s.io/v1/leases"
    for n in range(5):
        await world.api.patch(path, world.namespace, "operator", {"metadata": {"labels": {"touched": str(n)}}})
        await asyncio.sleep(0.3)
    assert await leader_of(*two) is leader
    await world.api.delete(path, world.namespace, "operator")
    assert (await leader_of(*two)).running


async def test_killed_again_and_again_under_load(cluster: Cluster, alone: None, tmp_path: Path) -> None:
    """`python -m chaos.takeovers` does it fifty times; how long nobody acted is judged there, on a quiet machine."""
    found = await takeovers.experiment(cluster.kubeconfig, tmp_path, kills=3, clients=6, longest=30)
    assert not found.problems, found.problems
    assert len(found.gaps) == 3


async def test_a_lease_that_changed_in_the_last_moment_is_given_up_all_the_same(
    world: World, cluster: Cluster, operator_factory: MakeOperator, tmp_path: Path
) -> None:
    """A renewal that was under way when SIGTERM came is written, and its answer never read."""
    path = "coordination.k8s.io/v1/leases"

    async def touch(_: Call) -> None:
        await world.api.patch(path, world.namespace, "operator", {"metadata": {"labels": {"touched": "yes"}}})

    async with Proxy(cluster.kubeconfig) as proxy:
        options = (f"--lease={world.namespace}/operator",)
        operator = await operator_factory(proxy.kubeconfig(tmp_path / "kubeconfig"), options).start()
        await leader_of(operator)
        rule = proxy.before(_gives_up, touch)
        assert await asyncio.to_thread(operator.stop) == 0
        assert rule.hits == 1
    lease = await world.api.get(path, world.namespace, "operator")
    assert lease is not None
    assert not lease["spec"].get("holderIdentity")


def _gives_up(call: Call) -> bool:
    return call.verb == "patch" and call.resource == "leases" and call.body["spec"].get("holderIdentity") == ""
