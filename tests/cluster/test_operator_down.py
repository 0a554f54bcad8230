"""Nothing needs the operator to die."""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import MakeOperator, RunKubectl
from tests.support.api import until
from tests.support.world import World

pytestmark = pytest.mark.cluster


async def test_an_instance_deleted_while_the_operator_is_down(world: World, operator_factory: MakeOperator) -> None:
    """Its pod goes by Kubernetes' garbage collection; its claim is released when the operator is back."""
    operator = await operator_factory().start()
    await world.pool()
    await world.avatar("ada")
    await world.instance("one")
    await world.phase("one", "Running")
    operator.kill()
    await world.delete("one")
    await until("the pod going", world.left, lambda left: left == ["svc/avatar-8615"])
    assert await world.get("one") is None
    await operator.start()
    await world.nothing_left()


async def test_what_changed_while_the_operator_was_down_is_taken_in(
    world: World, operator_factory: MakeOperator
) -> None:
    operator = await operator_factory().start()
    await world.pool(ports={"count": 2})
    await world.avatar("ada", "bob", "eve")
    await world.instance("i1", "ada")
    assert (await world.phase("i1", "Running"))["port"] == 8615
    await world.instance("i2", "bob")
    await world.phase("i2", "Running")
    operator.kill()
    await world.delete("i1")
    await world.api.delete("services", world.namespace, "avatar-8616")
    await world.instance("i3", "eve")
    await operator.start()
    third = await world.phase("i3", "Running")
    assert third["port"] == 8615
    await until(
        "both with their claims",
        world.left,
        lambda left: left == [f"{kind}/avatar-{port}" for kind in ("pod", "svc") for port in (8615, 8616)],
    )


async def test_a_namespace_is_deleted_with_the_operator_down(
    world: World, operator_factory: MakeOperator, kubectl: RunKubectl
) -> None:
    operator = await operator_factory().start()
    await world.pool()
    await world.avatar("ada", "bob")
    await world.instance("one", "ada")
    await world.instance("two", "bob")
    await world.phase("one", "Running")
    await world.phase("two", "Running")
    operator.kill()
    done = await asyncio.to_thread(kubectl, "delete", "namespace", world.namespace, "--timeout=45s")
    assert done.returncode == 0, done.stderr
    await world.api.call("POST", "/api/v1/namespaces", {"metadata": {"name": world.namespace}})


async def test_nothing_has_a_finalizer(world: World, operator_factory: MakeOperator) -> None:
    operator = await operator_factory().start()
    await world.pool()
    await world.avatar("ada")
    await world.instance("one")
    await world.phase("one", "Running")
    operator.stop()
    for resource in ("avatarinstances", "avatars", "avatarpools", "pods", "services"):
        for item in await world.api.list(resource, world.namespace):
            assert not item["metadata"].get("finalizers"), item["metadata"]


async def test_term_stops_it_at_once_and_leaves_the_avatars_running(
    world: World, operator_factory: MakeOperator
) -> None:
    operator = await operator_factory().start()
    await world.pool()
    await world.avatar("ada")
    await world.instance("one")
    await world.phase("one", "Running")
    began = asyncio.get_running_loop().time()
    assert await asyncio.to_thread(operator.stop) == 0, operator.tail()
    assert asyncio.get_running_loop().time() - began < 8
    assert "Traceback" not in operator.tail(200)
    assert len(await world.left()) == 2
