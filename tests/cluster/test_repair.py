"""Somebody or something broke it: it is made whole again, and what is not ours is left alone."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from tests.support.api import Json, until
from tests.support.operator import Operator
from tests.support.world import World

pytestmark = pytest.mark.cluster


async def _running(world: World, **spec: Any) -> Json:
    await world.pool(**spec)
    await world.avatar("ada")
    await world.instance("one")
    await world.phase("one", "Running")
    [pod] = await world.pods()
    return pod


async def _new_pod(world: World, old: Json) -> None:
    """Another pod runs, on a port of its own, and the instance says so."""
    [pod] = await until(
        "another pod",
        world.pods,
        lambda pods: (
            len(pods) == 1
            and pods[0]["metadata"]["uid"] != old["metadata"]["uid"]
            and "deletionTimestamp" not in pods[0]["metadata"]
        ),
    )
    status = await world.phase("one", "Running")
    assert status["podName"] == pod["metadata"]["name"]
    assert [s["metadata"]["name"] for s in await world.services()] == [pod["metadata"]["name"]]


async def test_a_service_deleted_by_hand_comes_back(world: World, operator: Operator) -> None:
    pod = await _running(world)
    await world.api.delete("services", world.namespace, "avatar-8615")
    [service] = await until("the Service", world.services, lambda s: len(s) == 1)
    assert service["metadata"]["name"] == "avatar-8615"
    assert [p["metadata"]["uid"] for p in await world.pods()] == [pod["metadata"]["uid"]]
    assert (await world.status("one"))["phase"] == "Running"


async def test_a_pod_deleted_by_hand_is_rebuilt(world: World, operator: Operator) -> None:
    pod = await _running(world)
    await world.delete_pod("avatar-8615")
    await _new_pod(world, pod)
    assert (await world.status("one")).get("restarts", 0) <= 1


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        ("Evicted", {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}),
        ("OutOfcpu", {"phase": "Failed", "reason": "OutOfcpu", "message": "Node didn't have enough resource: cpu"}),
        # What the kubelet says when a device plugin's GPUs are all taken: no condition may have that as its reason.
        ("OutOfResource", {"phase": "Failed", "reason": "OutOfnvidia.com/gpu", "message": "Node didn't have enough"}),
        ("NodeLost", {"phase": "Failed", "reason": "NodeLost", "message": "Node node-1 is unresponsive"}),
        ("NodeShutdown", {"phase": "Failed", "reason": "Terminated", "message": "imminent node shutdown"}),
        ("UnexpectedAdmissionError", {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": "Allocate"}),
        ("PodFailed", {"phase": "Failed"}),
        ("Completed", {"phase": "Succeeded"}),
    ],
)
async def test_a_pod_that_ended_is_replaced(world: World, operator: Operator, reason: str, status: Json) -> None:
    """At once, on the claim that it had; counted only where it was the avatar's doing."""
    pod = await _running(world)
    await world.patch_pod("avatar-8615", status)
    await _new_pod(world, pod)
    now = await world.status("one")
    assert now["lastTermination"]["reason"] == reason
    assert status.get("message", "").rstrip(".") in now["lastTermination"]["message"]
    assert now.get("restarts", 0) == (1 if reason in ("PodFailed", "Completed") else 0)
    assert [e["type"] for e in await until("an event", lambda: world.events(reason), lambda e: e)] == ["Warning"]


async def test_a_kubelet_that_rejects_every_pod_is_asked_ever_more_slowly(world: World, operator: Operator) -> None:
    """SysctlForbidden: no failure of the avatar, no hot loop, and no port held while it waits."""
    await world.pool(runtime={"podLabels": {"avatars.test/hold": "true"}})
    await world.avatar("ada")
    await world.instance("one")
    rejected = {"phase": "Failed", "reason": "SysctlForbidden", "message": 'forbidden sysctl: "net.ipv4.x"'}
    waits = []
    for _ in range(2):
        await until("a pod", world.pods, lambda pods: len(pods) == 1, timeout=30)
        await world.patch_pod("avatar-8615", rejected)
        status = await world.phase("one", "Failed", reason="SysctlForbidden")
        await world.nothing_left()
        times = [datetime.fromisoformat(t) for t in (status["lastTermination"]["time"], status["retryTime"])]
        waits.append((times[1] - times[0]).total_seconds())
        assert "allowed-unsafe-sysctls" in status["message"]
        assert status.get("restarts", 0) == 0
    assert waits[1] >= 1.8 * waits[0]


async def test_an_avatar_that_fails_for_ever_slows_no_other(world: World, operator: Operator) -> None:
    """One crashes at each start. It holds no port while it waits; others come and go at once, nothing is counted."""
    await world.pool(ports={"base": 8615, "count": 2})
    await world.avatar("ada", "poisoned")
    await world.instance("bad", "poisoned")
    await until("its pod", world.pods, lambda pods: len(pods) == 1)
    await _crash(world, "avatar-8615")
    bad = await world.phase("bad", "Failed")
    assert bad["restarts"] == 1
    await world.nothing_left()
    for n in range(3):
        await world.instance(f"good-{n}")
        status = await world.phase(f"good-{n}", "Running", timeout=5)
        assert status.get("restarts", 0) == 0
        await world.delete(f"good-{n}")
        await world.gone(f"good-{n}")
    # Its own next try comes in its turn, and its record grows.
    await until("its next pod", world.pods, lambda pods: len(pods) == 1, timeout=30)
    await _crash(world, "avatar-8615")
    assert (await world.phase("bad", "Failed"))["restarts"] == 2


async def _crash(world: World, pod: str) -> None:
    """The container ends at once with the exit code that no restart cures."""
    ended: Json = {"exitCode": 78, "reason": "Error", "message": "poisoned"}
    container = {"name": "runtime", "image": "x", "imageID": "", "ready": False, "restartCount": 0}
    await world.patch_pod(pod, {"containerStatuses": [{**container, "state": {"terminated": ended}}]})


async def test_a_container_that_restarts_in_place_is_waited_for(world: World, operator: Operator) -> None:
    pod = await _running(world)
    await world.patch_pod("avatar-8615", labels={"avatars.test/unready": "true"})
    await world.phase("one", "Starting", reason="NotAnswering")
    await world.patch_pod("avatar-8615", labels={"avatars.test/unready": None})
    await world.phase("one", "Running")
    [same] = await world.pods()
    assert same["metadata"]["uid"] == pod["metadata"]["uid"]


async def test_a_claim_without_an_instance_is_released(world: World, operator: Operator) -> None:
    await world.pool()
    await world.api.create("services", world.namespace, _service(8617, ours=True))
    await world.nothing_left()


async def test_a_strangers_service_keeps_its_port(world: World, operator: Operator) -> None:
    await world.api.create("services", world.namespace, _service(8615, ours=False))
    await world.pool()
    await world.avatar("ada")
    await world.instance("one")
    assert (await world.phase("one", "Running"))["port"] == 8616
    assert await world.api.get("services", world.namespace, "avatar-8615")


async def test_a_strangers_pod_keeps_its_port(world: World, operator: Operator) -> None:
    body: Json = {"metadata": {"name": "avatar-8615"}, "spec": {"containers": [{"name": "c", "image": "stranger"}]}}
    body["spec"]["nodeSelector"] = {"no": "node"}
    await world.api.create("pods", world.namespace, body)
    await world.pool()
    await world.avatar("ada")
    await world.instance("one")
    assert (await world.phase("one", "Running", timeout=30))["port"] == 8616
    assert await world.api.get("pods", world.namespace, "avatar-8615")
    await until("no claim on the stranger's port", world.left, lambda left: "svc/avatar-8615" not in left)


async def test_a_status_wiped_by_hand_is_written_again(world: World, operator: Operator) -> None:
    pod = await _running(world)
    before = await world.status("one")
    await world.api.patch("avatarinstances", world.namespace, "one", {"status": None}, "status")
    await world.phase("one", "Running")
    after = await world.status("one")
    assert (after["port"], after["webrtcUrl"]) == (before["port"], before["webrtcUrl"])
    assert [p["metadata"]["uid"] for p in await world.pods()] == [pod["metadata"]["uid"]]


async def test_an_avatar_deleted_under_a_running_instance_throws_nobody_out(world: World, operator: Operator) -> None:
    pod = await _running(world)
    await world.connections("one", 1)
    await world.api.delete("avatars", world.namespace, "ada")
    await world.api.delete("avatarpools", world.namespace, "default")

    async def same() -> bool:
        pods = await world.pods()
        return [p["metadata"]["uid"] for p in pods] == [pod["metadata"]["uid"]]

    await world.stays("the pod of a used instance", same, 1.5)
    await world.delete("one")
    await world.nothing_left()


def _service(port: int, *, ours: bool) -> Json:
    labels = {
        "app.kubernetes.io/managed-by": "avatar-operator",
        "app.kubernetes.io/component": "avatar-runtime",
        "avatars.virtualtutor.io/pool": "default",
        "avatars.virtualtutor.io/group": "0123456789abcdef",
        "avatars.virtualtutor.io/port": str(port),
    }
    meta: Json = {"name": f"avatar-{port}", "labels": labels if ours else {"app": "stranger"}}
    return {"metadata": meta, "spec": {"ports": [{"port": port}], "selector": {"a": "b"}}}
