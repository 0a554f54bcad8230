"""The pool's template changes under running instances."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.api import Json, until
from tests.support.operator import Operator
from tests.support.world import World

pytestmark = pytest.mark.cluster


def _image(pods: list[Json]) -> Any:
    return pods[0]["spec"]["containers"][0]["image"] if len(pods) == 1 else None


async def _new_image(world: World, image: str) -> None:
    await world.api.patch("avatarpools", world.namespace, "default", {"spec": {"runtime": {"image": image}}})


async def test_an_idle_instance_gets_the_new_image(world: World, operator: Operator) -> None:
    await world.pool()
    await world.avatar("ada")
    await world.instance("one")
    before = await world.phase("one", "Running")
    await _new_image(world, "runtime.test/avatar:2")
    await until("a pod of the new image", world.pods, lambda pods: _image(pods) == "runtime.test/avatar:2")
    after = await world.phase("one", "Running")
    assert after["port"] == before["port"]
    assert after.get("restarts", 0) == 0
    assert after["lastTermination"]["reason"] == "Outdated"


async def test_a_used_instance_keeps_its_pod_until_it_is_released(world: World, operator: Operator) -> None:
    await world.pool()
    await world.avatar("ada")
    await world.instance("one")
    await world.phase("one", "Running")
    await world.connections("one", 1)
    [pod] = await world.pods()
    await _new_image(world, "runtime.test/avatar:2")

    async def same() -> bool:
        pods = await world.pods()
        return [p["metadata"]["uid"] for p in pods] == [pod["metadata"]["uid"]]

    await world.stays("the pod of a used instance", same, 2)
    await world.connections("one", 0)
    await until("a pod of the new image", world.pods, lambda pods: _image(pods) == "runtime.test/avatar:2")
    await world.phase("one", "Running")


async def test_what_does_not_touch_the_pod_does_not_roll_it(world: World, operator: Operator) -> None:
    await world.pool()
    await world.avatar("ada")
    await world.instance("one")
    await world.phase("one", "Running")
    [pod] = await world.pods()
    change = {"spec": {"queue": {"maxLength": 7}, "idle": {"timeoutSeconds": 900}, "ports": {"count": 6}}}
    await world.api.patch("avatarpools", world.namespace, "default", change)
    await world.until("one", "having the new deadline", lambda s: "idleDeadline" in s)
    [same] = await world.pods()
    assert same["metadata"]["uid"] == pod["metadata"]["uid"]


async def test_the_instances_own_settings_roll_it(world: World, operator: Operator) -> None:
    await world.pool()
    await world.avatar("ada")
    await world.instance("one")
    await world.phase("one", "Running")
    await world.api.patch("avatarinstances", world.namespace, "one", {"spec": {"maxSessions": 3}})
    await until(
        "a pod with the new argument",
        world.pods,
        lambda pods: len(pods) == 1 and "--max_session=3" in pods[0]["spec"]["containers"][0]["args"],
    )
    await world.phase("one", "Running")
