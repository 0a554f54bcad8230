"""A node goes silent with a pod on it: nobody waits for ever, and nothing that may be in use is given away."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from tests.support.api import Api, Json, until
from tests.support.nodes import make_node, say_ready
from tests.support.operator import Operator
from tests.support.world import World, condition

pytestmark = pytest.mark.cluster

LABEL = "avatars.test/silent"


@pytest.fixture
async def silent(api: Api) -> AsyncIterator[str]:
    """A node without a kubelet; ``<name>-good`` may be made beside it, with the same label."""
    name = f"silent-{secrets.token_hex(3)}"
    await make_node(api, name, {"type": "kwok", LABEL: name}, mute=True)
    yield name
    for node in (name, f"{name}-good"):
        await api.delete("nodes", "", node)


async def _serving_on(world: World, node: str) -> Json:
    """An instance with a pod on the silent node, which the test plays."""
    await world.pool(runtime={"nodeSelector": {LABEL: node}}, ports={"base": 8615, "count": 2})
    await world.avatar("ada")
    await world.instance("one")
    [pod] = await until("a pod on the node", world.pods, lambda p: len(p) == 1 and p[0]["spec"].get("nodeName") == node)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    container: Json = {"name": "runtime", "image": "x", "imageID": "", "ready": True, "restartCount": 0}
    container["state"] = {"running": {"startedAt": now}}
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": now}
    status = {"phase": "Running", "podIP": "127.0.0.9", "podIPs": [{"ip": "127.0.0.9"}], "startTime": now}
    await world.patch_pod("avatar-8615", {**status, "conditions": [ready], "containerStatuses": [container]})
    await world.phase("one", "Running")
    return pod


async def _end(world: World) -> None:
    """What the taint manager does in the end; a second of grace spares the test 35."""
    await world.api.delete("pods", world.namespace, "avatar-8615", {"gracePeriodSeconds": 1})


async def test_a_pod_stuck_on_a_lost_node_is_left_behind(
    world: World, api: Api, silent: str, operator: Operator
) -> None:
    """A new pod on another port; the old pod keeps its own, and lets go of it when its Node is deleted."""
    old = await _serving_on(world, silent)
    await say_ready(api, silent, "Unknown")
    await _end(world)
    waiting = await world.phase("one", "Pending", reason="NodeLost")
    assert silent in waiting["message"]
    await make_node(api, f"{silent}-good", {"type": "kwok", LABEL: silent})
    after = await world.phase("one", "Running", timeout=30)
    assert (after["port"], after["node"]) == (8616, f"{silent}-good")
    assert (after["lastTermination"]["reason"], after.get("restarts", 0)) == ("NodeLost", 0)
    assert condition(after, "PodStranded")["status"] == "True"
    assert len(await until("an event", lambda: world.events("NodeLost"), lambda e: e)) == 1
    assert sorted(await world.left()) == ["pod/avatar-8615", "pod/avatar-8616", "svc/avatar-8615", "svc/avatar-8616"]

    # Its port is nobody else's meanwhile.
    await world.avatar("bob")
    await world.instance("two", "bob")
    await world.phase("two", "Pending", reason="PoolFull")

    # The cluster's own garbage collector removes it with its Node; the operator frees what it held.
    await api.delete("nodes", "", silent)
    assert (await world.phase("two", "Running", timeout=120))["port"] == 8615
    await world.until("one", "being rid of it", lambda s: not condition(s, "PodStranded"))
    [new] = [p for p in await world.pods() if p["metadata"]["name"] == "avatar-8615"]
    assert new["metadata"]["uid"] != old["metadata"]["uid"]


async def test_a_node_that_comes_back_ends_its_pod_and_all_is_as_before(
    world: World, api: Api, silent: str, operator: Operator
) -> None:
    await _serving_on(world, silent)
    await say_ready(api, silent, "False")
    await _end(world)
    await make_node(api, f"{silent}-good", {"type": "kwok", LABEL: silent})
    assert (await world.phase("one", "Running", timeout=30))["port"] == 8616
    await say_ready(api, silent, "True")
    # Its kubelet is back, and ends the pod.
    await world.api.delete("pods", world.namespace, "avatar-8615", {"gracePeriodSeconds": 0})
    left = ["pod/avatar-8616", "svc/avatar-8616"]
    await until("the old claim being released", world.left, lambda names: sorted(names) == left)
    status = await world.until("one", "being rid of it", lambda s: not condition(s, "PodStranded"))
    assert (status["phase"], status["port"]) == ("Running", 8616)


async def test_a_pod_that_is_not_deleted_keeps_its_instance(
    world: World, api: Api, silent: str, operator: Operator
) -> None:
    """Silence is not death: sessions may go on there. Kubernetes decides when the pod is to end."""
    old = await _serving_on(world, silent)
    await say_ready(api, silent, "Unknown")
    not_ready = {"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    await world.patch_pod("avatar-8615", {"conditions": [not_ready]})
    status = await world.phase("one", "Starting", reason="NodeLost")
    assert silent in status["message"]
    await asyncio.sleep(1)
    assert [p["metadata"]["uid"] for p in await world.pods()] == [old["metadata"]["uid"]]
    await say_ready(api, silent, "True")
    await world.patch_pod("avatar-8615", {"conditions": [{**not_ready, "status": "True"}]})
    await world.phase("one", "Running")


async def test_a_restarted_operator_leaves_the_same_pod_behind(
    world: World, api: Api, silent: str, operator: Operator
) -> None:
    """It was down while the node was lost and its pod deleted: what it finds is enough."""
    await _serving_on(world, silent)
    operator.kill()
    await say_ready(api, silent, "Unknown")
    await _end(world)
    await make_node(api, f"{silent}-good", {"type": "kwok", LABEL: silent})
    await asyncio.sleep(1)
    await operator.start()
    status = await world.phase("one", "Running", timeout=30)
    assert status["port"] == 8616
    assert status["lastTermination"]["reason"] == "NodeLost"


async def test_an_instance_deleted_with_its_node_lost_leaves_the_port_to_the_pod(
    world: World, api: Api, silent: str, operator: Operator
) -> None:
    await _serving_on(world, silent)
    await say_ready(api, silent, "Unknown")
    await world.delete("one")
    await until("the pod ending", world.pods, lambda p: "deletionTimestamp" in p[0]["metadata"])
    await asyncio.sleep(1)
    assert sorted(await world.left()) == ["pod/avatar-8615", "svc/avatar-8615"]
    with contextlib.suppress(AssertionError):
        await world.api.delete("pods", world.namespace, "avatar-8615", {"gracePeriodSeconds": 0})
    await world.nothing_left()
