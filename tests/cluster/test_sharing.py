"""One avatar, many instances: who serves, who follows, who has a pod of its own."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.api import until
from tests.support.operator import Operator
from tests.support.world import World, condition

pytestmark = pytest.mark.cluster


async def test_the_second_shares_and_takes_over_when_the_first_goes(world: World, operator: Operator) -> None:
    await world.pool()
    await world.avatar("ada")
    await world.instance("one")
    first = await world.phase("one", "Running")
    await world.instance("two")
    second = await world.phase("two", "Shared")
    assert (second["webrtcUrl"], second["port"]) == (first["webrtcUrl"], first["port"])
    assert second["sharedWith"] == "one"
    assert condition(second, "Ready")["status"] == "True"
    [pod] = await world.pods()
    assert len(await world.services()) == 1

    await world.delete("one")
    taken = await world.phase("two", "Running")
    assert (taken["webrtcUrl"], taken["port"]) == (first["webrtcUrl"], first["port"])
    assert "sharedWith" not in taken
    # Kubernetes' garbage collector must leave the pod alone: the second owns it, too.
    await asyncio.sleep(1.5)
    [same] = await world.pods()
    assert same["metadata"]["uid"] == pod["metadata"]["uid"]
    assert "deletionTimestamp" not in same["metadata"]
    assert condition(same["status"], "Ready")["status"] == "True"
    assert (await world.status("two"))["phase"] == "Running"

    await world.delete("two")
    await world.nothing_left()


async def test_instances_created_together_share_one_pod(world: World, operator: Operator) -> None:
    await world.pool()
    await world.avatar("ada")
    names = [f"i{number}" for number in range(8)]
    await asyncio.gather(*(world.instance(name) for name in names))
    statuses = await until(
        "one Running and seven Shared",
        world.statuses,
        lambda all_: sorted(s.get("phase", "") for s in all_.values()) == ["Running", *["Shared"] * 7],
    )
    assert len({s["webrtcUrl"] for s in statuses.values()}) == 1
    assert len(await world.pods()) == 1
    assert len(await world.services()) == 1


async def test_connections_of_a_follower_count_for_all(world: World, operator: Operator) -> None:
    await world.pool(idle={"timeoutSeconds": 1})
    await world.avatar("ada")
    await world.instance("one")
    await world.instance("two")
    await world.phase("two", "Shared")
    await world.connections("two", 1)
    await world.stays("the server of a used follower", lambda: world.is_in("one", "Running"), 2.5)
    await world.connections("two", 0)
    await world.gone("one")
    await world.gone("two")
    await world.nothing_left()


async def test_exclusive_instances_have_their_own_pods(world: World, operator: Operator) -> None:
    await world.pool()
    await world.avatar("ada")
    await world.instance("shared")
    await world.instance("alone", exclusive=True)
    await world.instance("lonely", exclusive=True)
    ports = [(await world.phase(name, "Running"))["port"] for name in ("shared", "alone", "lonely")]
    assert len(set(ports)) == 3
    assert len(await world.pods()) == 3


async def test_names_are_data(world: World, operator: Operator) -> None:
    """Spaces, dashes, quotes and other scripts in an avatar's name reach the runtime as they are."""
    await world.pool()
    name = 'ada\'s --"Größe" 小明 $(id)'
    await world.api.create(
        "avatars",
        world.namespace,
        {
            "apiVersion": "avatars.virtualtutor.io/v1alpha1",
            "kind": "Avatar",
            "metadata": {"name": "odd"},
            "spec": {"avatarName": name},
        },
    )
    await world.instance("one", name)
    await world.phase("one", "Running")
    [pod] = await world.pods()
    assert f"--avatar_id={name}" in pod["spec"]["containers"][0]["args"]
