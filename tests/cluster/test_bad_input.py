"""What cannot run says why and what would cure it, is tried again, and holds nothing meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.api import Json, until
from tests.support.operator import Operator
from tests.support.world import Refused, World, condition

pytestmark = pytest.mark.cluster


async def test_an_unknown_avatar_is_named_and_its_creation_is_the_cure(world: World, operator: Operator) -> None:
    await world.pool()
    await world.instance("one", "nobody")
    status = await world.phase("one", "Failed", reason="AvatarNotFound")
    assert "spec.avatarName 'nobody'" in status["message"]
    assert "kubectl get av" in status["message"]
    assert condition(status, "Ready")["status"] == "False"
    assert await world.left() == []
    await world.avatar("nobody")
    await world.phase("one", "Running")


async def test_an_unknown_pool_is_named_and_its_creation_is_the_cure(world: World, operator: Operator) -> None:
    await world.avatar("ada")
    await world.instance("one", poolRef="gpu")
    status = await world.phase("one", "Failed", reason="PoolNotFound")
    assert "spec.poolRef 'gpu'" in status["message"]
    assert await world.left() == []
    await world.pool("gpu")
    await world.phase("one", "Running")


@pytest.mark.parametrize(
    ("limits", "spec", "field"),
    [
        ({"maxSessions": 100}, {"maxSessions": 101}, "spec.maxSessions 101"),
        ({"idleTimeoutSeconds": 60}, {"idle": {"timeoutSeconds": 61}}, "spec.idle.timeoutSeconds 61"),
        ({"idleTimeoutSeconds": 60}, {"idle": {"timeoutSeconds": 0}}, "spec.idle.timeoutSeconds 0"),
        ({"startupTimeoutSeconds": 20}, {"startupTimeoutSeconds": 21}, "spec.startupTimeoutSeconds 21"),
    ],
)
async def test_more_than_the_pool_allows_is_refused(
    world: World, operator: Operator, limits: Json, spec: Json, field: str
) -> None:
    await world.pool(limits=limits)
    await world.avatar("ada")
    await world.instance("one", **spec)
    status = await world.phase("one", "Failed", reason="LimitExceeded")
    assert field in status["message"]
    assert "spec.limits" in status["message"]
    assert await world.left() == []


async def test_a_full_queue_refuses_and_takes_again(world: World, operator: Operator) -> None:
    await world.pool(ports={"count": 1}, queue={"maxLength": 1})
    await world.avatar("ada", "bob", "eve")
    await world.instance("i1", "ada")
    await world.phase("i1", "Running")
    await world.instance("i2", "bob")
    await world.phase("i2", "Pending", reason="PoolFull")
    await asyncio.sleep(1.1)  # creationTimestamp has seconds: make i3 younger
    await world.instance("i3", "eve")
    status = await world.phase("i3", "Failed", reason="QueueFull")
    assert "spec.queue.maxLength" in status["message"]
    await world.delete("i1")
    await world.phase("i2", "Running")
    status = await world.phase("i3", "Pending", reason="PoolFull")
    assert status["queuePosition"] == 1


async def test_waiting_longer_than_the_queue_allows_fails(world: World, operator: Operator) -> None:
    await world.pool(ports={"count": 1}, queue={"timeoutSeconds": 1})
    await world.avatar("ada", "bob")
    await world.instance("i1", "ada")
    await world.phase("i1", "Running")
    await world.instance("i2", "bob")
    status = await world.phase("i2", "Failed", reason="QueueTimeout")
    assert "spec.queue.timeoutSeconds" in status["message"]


async def test_an_image_that_cannot_be_pulled_fails_and_releases_all(world: World, operator: Operator) -> None:
    await world.pool(runtime={"image": "no.such/image:1", "podLabels": {"avatars.test/image-error": "true"}})
    await world.avatar("ada")
    await world.instance("one")
    await _pod_there(world)
    waiting: Json = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "no.such/image:1": not found'}
    await _play_container(world, waiting=waiting)
    status = await world.phase("one", "Failed", reason="ImagePullFailed")
    assert "no.such/image:1" in status["message"]
    assert "spec.runtime.image" in status["message"]
    assert status["retryTime"]
    assert status["restarts"] == 1
    await world.nothing_left()


async def test_a_failed_start_is_tried_again_with_a_growing_pause(world: World, operator: Operator) -> None:
    await world.pool(
        runtime={
            "podLabels": {"avatars.test/fail": "true"},
            "podAnnotations": {"avatars.test/exit-code": "3", "avatars.test/exit-message": "no space left"},
        }
    )
    await world.avatar("ada")
    await world.instance("one")
    status = await world.until("one", "having failed", lambda s: s.get("phase") == "Failed")
    assert "no space left" in status["message"]
    assert status["lastTermination"]["exitCode"] == 3
    await world.nothing_left()
    again = await world.until("one", "having failed again", lambda s: s.get("restarts", 0) >= 2, timeout=20)
    assert again["lastTermination"]["time"] > status["lastTermination"]["time"]
    retry = await world.until("one", "a time of the next try", lambda s: s.get("retryTime"))
    assert retry["retryTime"] > status["retryTime"]


async def test_a_configuration_error_of_the_runtime_is_shown_at_once(world: World, operator: Operator) -> None:
    """Exit code 78 means that no restart can cure it: the last words are the message."""
    words = "avatar 'ada' has no data in /app/data/avatars/ada: mount it there"
    await world.pool(
        runtime={
            "podLabels": {"avatars.test/crash": "true"},
            "podAnnotations": {"avatars.test/exit-code": "78", "avatars.test/exit-message": words},
        }
    )
    await world.avatar("ada")
    await world.instance("one")
    status = await world.phase("one", "Failed", reason="RuntimeConfigError")
    assert words in status["message"]
    assert status["lastTermination"]["exitCode"] == 78
    await world.nothing_left()


async def test_a_crash_loop_ends_in_failed_with_the_logs_tail(world: World, operator: Operator) -> None:
    await world.pool(
        runtime={
            "podLabels": {"avatars.test/crash": "true"},
            "podAnnotations": {"avatars.test/exit-message": "no such model"},
        },
        health={"failures": 1},
    )
    await world.avatar("ada")
    await world.instance("one")
    status = await world.phase("one", "Failed", reason="CrashLoop")
    assert "no such model" in status["message"]
    await world.nothing_left()


async def test_a_runtime_that_never_answers_times_out_and_releases_all(world: World, operator: Operator) -> None:
    await world.pool(runtime={"podLabels": {"avatars.test/unready": "true"}}, startupTimeoutSeconds=1)
    await world.avatar("ada")
    await world.instance("one")
    await world.phase("one", "Starting")
    status = await world.phase("one", "Failed", reason="StartupTimeout")
    assert "startupTimeoutSeconds" in status["message"]
    assert not {"port", "podName", "webrtcUrl"} & status.keys()
    await world.nothing_left()


async def test_no_node_for_the_pod_is_said_and_times_out(world: World, operator: Operator) -> None:
    await world.pool(runtime={"nodeSelector": {"no": "such-node"}}, startupTimeoutSeconds=2)
    await world.avatar("ada")
    await world.instance("one")
    status = await world.phase("one", "Failed", reason="Unschedulable")
    assert "didn't match" in status["message"]
    await world.nothing_left()


async def test_a_pod_refused_by_a_quota_is_explained_and_retried(world: World, operator: Operator) -> None:
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    await world.api.create("resourcequotas", world.namespace, quota)
    await until(
        "the quota being counted",
        lambda: world.api.get("resourcequotas", world.namespace, "none"),
        lambda q: q and q.get("status", {}).get("hard"),
    )
    await world.pool()
    await world.avatar("ada")
    await world.instance("one")
    status = await world.phase("one", "Failed", reason="PodRejected")
    assert "exceeded quota" in status["message"]
    await world.nothing_left()
    await world.api.delete("resourcequotas", world.namespace, "none")
    await world.phase("one", "Running", timeout=30)


async def test_a_pod_refused_by_pod_security_is_explained(world: World, operator: Operator) -> None:
    label = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    path = f"/api/v1/namespaces/{world.namespace}"
    await world.api.call("PATCH", path, label, "application/merge-patch+json")
    await asyncio.sleep(0.5)  # admission goes by an informer's copy of the namespace
    await world.pool("host", network={"mode": "HostNetwork"}, ports={"base": 9615})
    await world.pool()
    await world.avatar("ada", "bob")
    await world.instance("one", "ada", poolRef="host")
    await world.instance("two", "bob")
    status = await world.phase("one", "Failed", reason="PodRejected")
    assert "PodSecurity" in status["message"]
    assert "hostNetwork" in status["message"]
    # The pods of the default pool keep the strictest level.
    await world.phase("two", "Running")
    await until(
        "only the other one's things", world.left, lambda names: names == ["pod/avatar-8615", "svc/avatar-8615"]
    )


async def test_overlapping_pools_both_say_so(world: World, operator: Operator) -> None:
    await world.pool("a", ports={"base": 8615, "count": 5})
    await world.pool("b", ports={"base": 8619, "count": 5})
    await world.pool("c", ports={"base": 8624, "count": 5})
    for name, other in (("a", "b"), ("b", "a")):
        status = await _pool(world, name, "False")
        said = condition(status, "PortRangeValid")
        assert (said["status"], said["reason"]) == ("False", "Overlapping")
        assert f"AvatarPool {other}" in said["message"]
        assert "spec.ports" in said["message"]
    await _pool(world, "c", "True")
    await world.api.delete("avatarpools", world.namespace, "a")
    await _pool(world, "b", "True")


async def test_overlapping_pools_never_share_a_port(world: World, operator: Operator) -> None:
    await world.pool("a", ports={"count": 1})
    await world.pool("b", ports={"count": 1})
    await world.avatar("ada")
    await world.instance("one", poolRef="a")
    await world.phase("one", "Running")
    await world.instance("two", poolRef="b")
    status = await world.phase("two", "Pending", reason="PortsExhausted")
    assert "8615" in status["message"]
    await world.delete("one")
    await world.phase("two", "Running")


@pytest.mark.parametrize("nonsense", [-3, "x", 1.5])
async def test_hand_patched_nonsense_is_refused(world: World, operator: Operator, nonsense: object) -> None:
    await world.pool()
    await world.avatar("ada")
    await world.instance("one")
    await world.phase("one", "Running")
    with pytest.raises(Refused, match=r"status\.connections"):
        await world.set_status("one", {"connections": nonsense})
    assert (await world.status("one"))["phase"] == "Running"


async def _pool(world: World, name: str, ready: str) -> Json:
    async def look() -> Json:
        found = await world.api.get("avatarpools", world.namespace, name)
        return dict((found or {}).get("status", {}))

    return await until(f"pool {name} being Ready={ready}", look, lambda s: condition(s, "Ready").get("status") == ready)


async def _pod_there(world: World) -> Json:
    pods: list[Json] = await until("a placed pod", world.pods, lambda p: p and p[0]["spec"].get("nodeName"))
    return pods[0]


async def _play_container(world: World, **state: Json) -> None:
    pod = await _pod_there(world)
    container = {"name": "runtime", "image": "x", "imageID": "", "ready": False, "restartCount": 0, "state": state}
    await world.patch_pod(pod["metadata"]["name"], {"phase": "Pending", "containerStatuses": [container]})
