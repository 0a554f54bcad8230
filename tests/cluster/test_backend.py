"""A backend that counts connections by patching status, as the old manager's users will."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.operator import Operator
from tests.support.world import Refused, World

pytestmark = pytest.mark.cluster


async def test_merge_patches_are_never_lost(world: World, operator: Operator) -> None:
    """The operator writes status at the same time: Running, shared, in use, idle, again and again."""
    await world.pool(idle={"timeoutSeconds": 600})
    await world.avatar("ada")
    await world.instance("one")
    await world.instance("two")

    async def backend(name: str, last: int) -> None:
        for step in range(60):
            # Through zero every few patches: that is where the operator's clock starts and stops.
            count = 0 if step % 3 == 2 else step + 1
            answer = await world.set_status(name, {"connections": count})
            assert answer["status"]["connections"] == count
        await world.connections(name, last)

    await asyncio.gather(backend("one", 7), backend("two", 9))
    await world.until("one", "being in use", lambda s: s.get("phase") == "Running" and "idleDeadline" not in s)
    await asyncio.sleep(0.5)
    assert [(await world.status(name))["connections"] for name in ("one", "two")] == [7, 9]


async def test_json_patches_with_a_test_are_exact(world: World, operator: Operator) -> None:
    """Ten clients count by compare-and-swap: the sum is right, whatever the operator writes between."""
    await world.pool(idle={"timeoutSeconds": 600})
    await world.avatar("ada")
    await world.instance("one")
    await world.phase("one", "Running")
    await world.connections("one", 0)

    async def count(step: int) -> None:
        while True:
            before = (await world.status("one"))["connections"]
            path = "/status/connections"
            body = [
                {"op": "test", "path": path, "value": before},
                {"op": "replace", "path": path, "value": before + step},
            ]
            try:
                await world.api.patch("avatarinstances", world.namespace, "one", body, "status", "json")
            except Refused as refused:
                if refused.status not in (409, 422):
                    raise
            else:
                return

    await asyncio.gather(*(count(1) for _ in range(10)))
    assert (await world.status("one"))["connections"] == 10
    await asyncio.gather(*(count(-1) for _ in range(10)))
    await world.until("one", "having a deadline", lambda s: "idleDeadline" in s)
    assert (await world.status("one"))["connections"] == 0


async def test_sessions_of_a_backend_are_left_alone(world: World, operator: Operator) -> None:
    await world.pool(idle={"timeoutSeconds": 600})
    await world.avatar("ada")
    await world.instance("one")
    await world.phase("one", "Running")
    sessions = [{"id": "a", "user": "u1"}, {"id": "b", "user": "u2"}]
    await world.set_status("one", {"connections": 2, "sessions": sessions})
    await world.until("one", "being in use", lambda s: "idleDeadline" not in s)
    status = await world.status("one")
    assert (status["connections"], [s["id"] for s in status["sessions"]]) == (2, ["a", "b"])


async def test_connections_counted_before_the_start_are_kept(world: World, operator: Operator) -> None:
    await world.pool(idle={"timeoutSeconds": 600}, runtime={"podAnnotations": {"avatars.test/ready-after": "800ms"}})
    await world.avatar("ada")
    await world.instance("one")
    await world.connections("one", 3)
    status = await world.phase("one", "Running")
    assert status["connections"] == 3
    assert "idleDeadline" not in status
