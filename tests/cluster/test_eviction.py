"""A node is drained: idle pods go, pods in use stay until they are left, and nobody has to do anything for it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.api import Api, Json, Refused, path_of, until
from tests.support.nodes import make_node
from tests.support.operator import Operator
from tests.support.runtime import FakeRuntime, pods_at
from tests.support.world import World, condition, merged

pytestmark = pytest.mark.cluster

LABEL = "avatars.virtualtutor.io/in-use"
SAFE = "cluster-autoscaler.kubernetes.io/safe-to-evict"
BUDGETS = "policy/v1/poddisruptionbudgets"
# Half of it is how long a pod stays protected after its last use.
IDLE = {"timeoutSeconds": 4, "activitySource": "Connections"}


async def _evict(world: World, pod: str) -> int:
    """What ``kubectl drain`` asks for each pod; the HTTP status of the answer."""
    body: Json = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": world.namespace},
    }
    try:
        await world.api.call("POST", path_of("pods", world.namespace, pod, "eviction"), body)
    except Refused as refused:
        return refused.status
    return 201


async def _marks(world: World) -> dict[str, tuple[str, str]]:
    return {
        p["metadata"]["name"]: (p["metadata"]["labels"][LABEL], p["metadata"]["annotations"][SAFE])
        for p in await world.pods()
    }


async def _marked(world: World, pod: str, in_use: bool, timeout: float = 20) -> None:
    wanted = ("true", "false") if in_use else ("false", "true")
    await until(f"{pod} being marked {wanted}", lambda: _marks(world), lambda m: m.get(pod) == wanted, timeout)


async def _budget(world: World) -> Json:
    """The pool's budget, when the controller has looked at it."""
    found = await until(
        "the budget",
        lambda: world.api.get(BUDGETS, world.namespace, "avatars-in-use-default"),
        lambda b: b is not None and b.get("status", {}).get("observedGeneration"),
    )
    assert found is not None
    return found


async def _running(world: World, **spec: Any) -> None:
    await world.pool(idle={"timeoutSeconds": 0, "activitySource": "Connections"}, **spec)
    await world.avatar("ada", "bob")
    await world.instance("idle", "bob", idle={"timeoutSeconds": 120})
    await world.phase("idle", "Running")
    await world.instance("used", "ada")
    await world.phase("used", "Running")


async def test_a_drain_takes_idle_pods_and_leaves_those_in_use(world: World, operator: Operator) -> None:
    """In use: refused (429) until the session ends. Idle: evicted, made anew elsewhere, nothing counted."""
    await world.pool(idle={**IDLE, "timeoutSeconds": 20})
    await world.avatar("ada")
    await world.instance("one")
    await world.phase("one", "Running")
    await _budget(world)
    assert (await _marks(world))["avatar-8615"] == ("new", "false"), "autoscalers leave it; people may take it"
    await world.connections("one", 1)
    await _marked(world, "avatar-8615", True, timeout=3)
    assert await _evict(world, "avatar-8615") == 429
    await world.connections("one", 0)
    [before] = await world.pods()
    await _marked(world, "avatar-8615", False)
    assert await _evict(world, "avatar-8615") == 201
    after = await world.until(
        "one",
        "having another pod",
        lambda s: s.get("phase") == "Running" and s.get("lastTermination", {}).get("reason") == "Evicted",
    )
    assert after.get("restarts", 0) == 0
    [pod] = await world.pods()
    assert pod["metadata"]["uid"] != before["metadata"]["uid"]


async def test_somebody_who_comes_protects_the_pod_at_once_and_leaving_frees_it(
    world: World, operator: Operator
) -> None:
    await world.pool(idle={**IDLE, "timeoutSeconds": 8})
    await world.avatar("ada")
    await world.instance("one")
    await world.phase("one", "Running")
    await _budget(world)
    await _marked(world, "avatar-8615", False)
    await world.connections("one", 1)
    await _marked(world, "avatar-8615", True, timeout=3)
    await until("the eviction being refused", lambda: _evict(world, "avatar-8615"), lambda code: code == 429, 5)
    [pod] = await world.pods()
    assert "deletionTimestamp" not in pod["metadata"]
    await world.connections("one", 0)
    await _marked(world, "avatar-8615", False)
    assert await _evict(world, "avatar-8615") == 201


async def test_a_session_that_only_the_runtime_knows_protects_too(world: World, operator: Operator) -> None:
    async with FakeRuntime(sessions=1) as runtime:
        notes = pods_at(runtime.address)
        await world.pool(idle={"timeoutSeconds": 3, "activitySource": "Runtime"}, runtime=notes)
        await world.avatar("ada")
        await world.instance("one")
        await world.phase("one", "Running")
        await _budget(world)

        await _marked(world, "avatar-8615", True, timeout=3)

        async def protected() -> bool:
            return (await _marks(world))["avatar-8615"] == ("true", "false")

        await world.stays("a pod that the runtime calls used", protected, 3)
        assert await _evict(world, "avatar-8615") == 429


async def test_kubectl_drain_empties_a_node_of_idle_pods_alone(
    world: World, api: Api, operator: Operator, kubectl: Any
) -> None:
    name = f"drained-{world.namespace}"
    await make_node(api, name, {"type": "kwok", "avatars.test/drained": name})
    try:
        selector = {"nodeSelector": {"avatars.test/drained": name}}
        await world.pool(idle=merged(IDLE, {"timeoutSeconds": 120}), runtime=selector)
        await world.avatar("ada", "bob")
        await world.instance("used", "ada")
        await world.instance("idle", "bob", idle={"timeoutSeconds": 6})
        pods = {n: (await world.phase(n, "Running"))["podName"] for n in ("used", "idle")}
        await _budget(world)
        await world.connections("used", 1)
        await _marked(world, pods["idle"], False)
        drain = ("drain", name, "--force", "--ignore-daemonsets", "--timeout=3s")
        refused = kubectl(*drain)
        assert refused.returncode != 0
        assert "disruption budget" in refused.stderr
        assert [p["metadata"]["name"] for p in await world.pods() if p["spec"].get("nodeName")] == [pods["used"]]
        assert (await world.status("used"))["phase"] == "Running"
        await world.delete("used")
        done = await until("the node being empty", lambda: _drained(kubectl, drain), lambda code: code == 0, 20)
        assert done == 0
    finally:
        await api.delete("nodes", "", name)


async def _drained(kubectl: Any, drain: tuple[str, ...]) -> int:
    return int(kubectl(*drain).returncode)


async def test_the_budget_is_the_pools_and_comes_back_as_it_was(world: World, operator: Operator) -> None:
    """Made with the pool; what somebody changed is put right, here at the next start; it goes with the pool."""
    await _running(world)
    made = await _budget(world)
    [owner] = made["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"]) == ("AvatarPool", "default")
    allowed = condition(made["status"], "DisruptionAllowed")
    assert (allowed["status"], allowed["reason"]) == ("False", "InsufficientPods")

    loose = {"spec": {"minAvailable": 0, "selector": {"matchLabels": {"and": "more"}}}}
    await world.api.patch(BUDGETS, world.namespace, "avatars-in-use-default", loose)
    operator.kill()
    await operator.start()
    again = await until(
        "the budget as it was",
        lambda: world.api.get(BUDGETS, world.namespace, "avatars-in-use-default"),
        lambda b: b is not None and b["spec"] == made["spec"],
    )
    assert again is not None
    await world.delete("idle", "used")
    await world.api.delete("avatarpools", world.namespace, "default")
    await until(
        "the budget being gone",
        lambda: world.api.get(BUDGETS, world.namespace, "avatars-in-use-default"),
        lambda b: b is None,
        timeout=40,
    )


async def test_a_strangers_budget_is_left_alone_and_told(world: World, operator: Operator) -> None:
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "stranger"}}}
    body: Json = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "spec": spec}
    body["metadata"] = {"name": "avatars-in-use-default"}
    await world.api.create(BUDGETS, world.namespace, body)
    await world.pool()
    [event] = await until("an event", lambda: world.events("EvictionsNotBlocked"), lambda e: e)
    assert "avatars-in-use-default" in event["message"]
    found = await world.api.get(BUDGETS, world.namespace, "avatars-in-use-default")
    assert found is not None
    assert found["spec"]["selector"] == spec["selector"]
