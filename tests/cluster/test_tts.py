"""Speech engines on a real API server: what a start costs, who shares, what survives a restart, what is in the way."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Cluster, MakeOperator
from tests.support.api import Json, until
from tests.support.operator import Operator
from tests.support.proxy import Proxy
from tests.support.world import POOL, World, condition

pytestmark = pytest.mark.cluster


def engine(protocol: str = "edgetts", **spec: Any) -> Json:
    """An engine on the fake nodes; its pods are ready a moment after they are placed."""
    place = {key: POOL["runtime"][key] for key in ("nodeSelector", "tolerations")}
    return {"image": "tts.test/engine:1", "protocol": protocol, **place, **spec}


async def speech(world: World, name: str, status: str, reason: str = "") -> Json:
    return await world.until(
        name,
        f"TTSReady being {status} {reason}",
        lambda s: (
            condition(s, "TTSReady").get("status") == status and reason in ("", condition(s, "TTSReady").get("reason"))
        ),
    )


async def deployments(world: World) -> list[Json]:
    return await world.api.list("apps/v1/deployments", world.namespace)


async def counted(operator: Operator, name: str, value: float) -> None:
    """The answer to a write may come after the news of it."""
    metric = f"avatar_operator_tts_{name}"
    await until(f"{metric} being {value}", lambda: operator.metric(metric), lambda found: found == value)


# The module's own operator serves all namespaces: those that start one themselves come before it.


async def test_a_start_with_an_engine_costs_the_instance_four_writes(
    cluster: Cluster, world: World, operator_factory: MakeOperator, tmp_path: Path
) -> None:
    """A fifth only if the engine is slower than the avatar; the engine's own are few, whoever uses it."""
    await world.pool()
    await world.avatar("ada", "bea")
    await world.engine("edgetts", **engine())
    async with Proxy(cluster.kubeconfig) as proxy:
        operator = await operator_factory(proxy.kubeconfig(tmp_path / "kubeconfig")).start()
        await world.engine_phase("edgetts", "Stopped")
        proxy.calls.clear()
        await world.instance("one")
        await world.phase("one", "Running")
        await speech(world, "one", "True", "Ready")
        await asyncio.sleep(1)
        first = [str(c) for c in proxy.writes("services", "pods", "avatarinstances")]
        engines = [str(c) for c in proxy.writes("deployments", "ttsengines")]
        proxy.calls.clear()
        await world.instance("two", "bea")
        await world.phase("two", "Running")
        second = [str(c) for c in proxy.writes("services", "pods", "avatarinstances")]
        await asyncio.sleep(2.5)
        again = [str(c) for c in proxy.writes("deployments", "ttsengines")]
        operator.stop()
    # Service of the claim, pod, Service of the engine, Starting, Running, and TTSReady where that came last.
    assert len(first) <= 6, first
    assert len(engines) <= 4, engines
    assert len(second) <= 4, second
    assert len(again) <= 1, again


async def test_the_idle_clock_survives_the_operator(world: World, operator_factory: MakeOperator) -> None:
    await world.pool()
    await world.avatar("ada")
    await world.engine("edgetts", **engine(idleTimeoutSeconds=8))
    operator = await operator_factory().start()
    await world.instance("one")
    await speech(world, "one", "True")
    await world.delete("one")
    before = await until("the clock", lambda: world.engine_status("edgetts"), lambda s: "idleDeadline" in s, timeout=20)
    operator.kill()
    operator.launch()
    await operator.until_ready()
    after = await world.engine_status("edgetts")
    assert after["idleDeadline"] == before["idleDeadline"]
    assert after["phase"] == "Ready"
    await world.engine_phase("edgetts", "Stopped", timeout=20)


async def test_metrics_of_an_engine(world: World, operator_factory: MakeOperator) -> None:
    await world.pool()
    await world.avatar("ada")
    await world.engine("edgetts", **engine(idleTimeoutSeconds=1))
    operator = await operator_factory().start()
    await world.instance("one")
    await speech(world, "one", "True")
    for name in ("users", "starts_total", "start_seconds_count"):
        await counted(operator, name, 1)
    await world.delete("one")
    await world.engine_phase("edgetts", "Stopped")
    await counted(operator, "collected_total", 1)
    await counted(operator, "users", 0)


async def test_an_avatar_and_its_engine_start_together(world: World, operator: Operator) -> None:
    await world.pool()
    await world.avatar("ada")
    await world.engine("cosyvoice", **engine("cosyvoice", aliases=["Studio"]))
    await world.instance("one", tts={"engine": "CosyVoice"})
    status = await speech(world, "one", "True", "Ready")
    assert status["phase"] in ("Starting", "Running")
    (pod,) = await world.pods()
    arguments = pod["spec"]["containers"][0]["args"]
    assert "--tts=cosyvoice" in arguments
    assert f"--TTS_SERVER=http://tts-cosyvoice.{world.namespace}.svc:5002" in arguments
    (made,) = await deployments(world)
    assert made["metadata"]["ownerReferences"][0]["kind"] == "TTSEngine"


async def test_an_engine_that_nobody_knows_is_the_default(world: World, operator: Operator) -> None:
    await world.pool()
    await world.avatar("ada")
    await world.engine("edgetts", **engine())
    await world.instance("one", tts={"engine": "festival"})
    status = await speech(world, "one", "True", "UnknownEngine")
    assert "'festival'" in condition(status, "TTSReady")["message"]
    assert (await world.engine_status("edgetts"))["users"] == 1


async def test_a_pool_with_its_own_server_starts_no_engine(world: World, operator: Operator) -> None:
    await world.pool(tts={"url": "http://speech.example.org:5002"})
    await world.avatar("ada")
    await world.engine("edgetts", **engine())
    await world.instance("one")
    status = await world.phase("one", "Running")
    assert condition(status, "TTSReady") == {}
    (pod,) = await world.pods()
    assert "--TTS_SERVER=http://speech.example.org:5002" in pod["spec"]["containers"][0]["args"]
    assert not await deployments(world)


async def test_forty_instances_share_what_the_engine_may_have(world: World, operator: Operator) -> None:
    await world.pool(ports={"base": 8615, "count": 40}, maxInstances=40)
    names = [f"i{number:02}" for number in range(40)]
    await world.avatar(*names)
    await world.engine("edgetts", **engine(maxReplicas=3, usersPerReplica=10, idleTimeoutSeconds=2))
    await asyncio.gather(*(world.instance(name, name) for name in names))
    await until(
        "forty users on three pods",
        lambda: world.engine_status("edgetts"),
        lambda s: (s.get("users"), s.get("readyReplicas")) == (40, 3),
        timeout=60,
    )
    (made,) = await deployments(world)
    assert made["spec"]["replicas"] == 3
    starting = [e for e in await world.events("Starting") if e["involvedObject"]["kind"] == "TTSEngine"]
    assert len(starting) == 1
    # Those who stay keep all of them; when the last one has left, they go.
    await world.delete(*names[1:])
    await until(
        "one user", lambda: world.engine_status("edgetts"), lambda s: s.get("users") == 1, timeout=60, interval=0.2
    )
    assert (await deployments(world))[0]["spec"]["replicas"] == 3
    await world.delete(names[0])
    await world.engine_phase("edgetts", "Stopped", timeout=30)
    assert (await deployments(world))[0]["spec"]["replicas"] == 0


async def test_a_name_that_is_taken_is_said(world: World, operator: Operator) -> None:
    await world.pool()
    await world.avatar("ada")
    mine = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "tts-edgetts"},
        "spec": {"ports": [{"port": 80}]},
    }
    await world.api.create("services", world.namespace, mine)
    await world.engine("edgetts", **engine())
    await world.instance("one")
    status = await world.engine_phase("edgetts", "Failed")
    assert status["reason"] == "NameTaken"
    assert "Service tts-edgetts" in status["message"]
    await speech(world, "one", "False", "Failed")
    found = await world.api.get("services", world.namespace, "tts-edgetts")
    assert found is not None
    assert found["spec"]["ports"][0]["port"] == 80
    await world.api.delete("services", world.namespace, "tts-edgetts")
    await world.engine_phase("edgetts", "Ready", timeout=30)
    await speech(world, "one", "True", "Ready")


async def test_what_is_refused_is_said(world: World, operator: Operator) -> None:
    """A quota that leaves no room for the engine's pod."""
    await world.pool()
    await world.avatar("ada")
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"requests.cpu": "1"}}}
    await world.api.create("resourcequotas", world.namespace, quota)
    await world.engine("edgetts", **engine(resources={"requests": {"cpu": "2"}}))
    await world.instance("one")
    status = await world.engine_phase("edgetts", "Failed", timeout=30)
    assert "quota" in status["message"]


async def test_a_deleted_engine_takes_its_objects_along(world: World, operator: Operator) -> None:
    await world.pool()
    await world.avatar("ada")
    await world.engine("edgetts", **engine())
    await world.instance("one")
    await speech(world, "one", "True", "Ready")
    await world.connections("one", 1)
    await world.api.delete("ttsengines", world.namespace, "edgetts")
    await speech(world, "one", "False", "EngineDeleted")
    await until("no Deployment", lambda: deployments(world), lambda found: not found)
    assert (await world.status("one"))["phase"] == "Running"
    await world.engine("edgetts", **engine())
    await speech(world, "one", "True", "Ready")
