"""`kubectl avatar` against a real API server and operator; the pods are kwok's."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from avatar_operator.plugin.link import Link, Target
from avatar_operator.plugin.top import Copies
from tests.conftest import Cluster
from tests.support.api import Json, until
from tests.support.operator import Operator
from tests.support.plugin import Plugin, install
from tests.support.proxy import Proxy
from tests.support.world import World

pytestmark = pytest.mark.cluster


@pytest.fixture
def plugin(cluster: Cluster, namespace: str) -> Plugin:
    return Plugin(cluster.kubeconfig, namespace)


async def test_start_creates_then_joins(world: World, operator: Operator, plugin: Plugin) -> None:
    await world.pool()
    await world.avatar("Ada Lovelace")
    first = await plugin("start", "Ada Lovelace")
    names = list(await world.statuses())
    assert len(names) == 1
    assert first.out == f"http://avatar-8615.{world.namespace}.svc:8615/offer\n"
    assert f"created avatarinstance/{names[0]} for avatar Ada Lovelace in pool default" in first.err
    assert "serves after" in first.err
    # By the name of the Avatar object, and with settings that a running one does not take over.
    again = await plugin("start", "ada-lovelace", "--voice", "en+f3")
    assert again.out == first.out
    assert "runs already" in again.err
    assert "not applied" in again.err
    assert list(await world.statuses()) == names

    named = await plugin("start", "Ada Lovelace", "--name", "second")
    assert named.out == first.out
    assert f"shares the pod of avatarinstance/{names[0]}" in named.err
    alone = await plugin("start", "Ada Lovelace", "--exclusive", "--tts", "edge", "--idle-timeout", "0")
    assert alone.out == f"http://avatar-8616.{world.namespace}.svc:8616/offer\n"
    items = await world.api.list("avatarinstances", world.namespace)
    made = next(i for i in items if i["spec"].get("exclusive"))
    assert made["spec"]["tts"] == {"engine": "edge"}
    assert made["spec"]["idle"] == {"timeoutSeconds": 0}

    listed = await plugin("list")
    # Oldest first, and by name those of one second.
    assert {line.split()[0] for line in listed.out.splitlines()[1:]} == {names[0], "second", made["metadata"]["name"]}
    found = yaml.safe_load((await plugin("list", "second", "-o", "yaml")).out)["items"]
    assert [(i["kind"], i["status"]["phase"]) for i in found] == [("AvatarInstance", "Shared")]
    assert (await plugin("list", "-A", "-o", "name")).out.count("avatarinstance.avatars.virtualtutor.io/second") == 1

    other = await plugin("start", "Ada Lovelace", "--name", made["metadata"]["name"], "--pool", "x", code=1)
    assert "no AvatarPool of that name" in other.err


async def test_what_cannot_start_says_why_and_what_to_do(world: World, operator: Operator, plugin: Plugin) -> None:
    await world.pool(limits={"maxSessions": 10}, defaults={"maxSessions": 10})
    await world.avatar("ada")
    missing = await plugin("start", "adda", code=1)
    assert "no Avatar with this avatarName" in missing.err
    assert "did you mean 'ada'?" in missing.err
    many = await plugin("start", "ada", "--max-sessions", "99", code=1)
    assert "LimitExceeded" in many.err
    assert "allows at most 10" in many.err
    assert await world.statuses() == {}
    broken = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}
    await world.api.patch(
        "avatarpools", world.namespace, "default", {"spec": {"runtime": {"nodeSelector": {"type": "none"}}}}
    )
    start = asyncio.create_task(plugin("start", "ada", code=1))
    await until("the pod", world.pods, bool)
    container = {"name": "runtime", "image": "x", "imageID": "", "ready": False, "restartCount": 0, **broken}
    await world.patch_pod("avatar-8615", {"containerStatuses": [container]})
    failed = await start
    assert "ImagePullFailed: no such image; check spec.runtime.image" in failed.err
    assert "the operator goes on trying" in failed.err


async def test_a_full_pool(world: World, operator: Operator, plugin: Plugin) -> None:
    await world.pool(ports={"count": 1})
    await world.avatar("ada", "bob", "cat")
    await plugin("start", "ada")
    late = await plugin("start", "bob", "--timeout", "1", code=1)
    assert late.out == ""
    assert "in the queue, place 1: the pool runs 1 of 1 instances" in late.err
    assert "raise maxInstances or ports.count of the AvatarPool" in late.err
    assert "keeps its place in the queue" in late.err
    given_up = await plugin("start", "cat", "--no-wait")
    assert "not waiting for it" in given_up.err
    await until("both waiting", world.statuses, lambda all_: sum("queuePosition" in s for s in all_.values()) == 2)
    await until("the pool's books", lambda: _pool(world), lambda s: s.get("queueLength") == 2)

    listed = await plugin("list")
    assert "Pending (PoolFull, place 1)" in listed.out
    pools = await plugin("pool")
    assert pools.out.splitlines()[1].split()[:5] == ["default", "8615–8615", "1", "0", "1"]
    one = await plugin("pool", "default")
    assert "Queue:       2 of 100" in one.out
    assert "PortRangeValid" in one.out
    assert "no AvatarPool 'x'" in (await plugin("pool", "x", code=1)).err
    assert json.loads((await plugin("pool", "-o", "json")).out)["items"][0]["kind"] == "AvatarPool"
    screen = await plugin("top", "--once")
    assert "1 running  2 pending  0 connections" in screen.out
    row = next(line for line in screen.out.splitlines() if line.startswith("default"))
    assert row.split() == ["default", "8615–8615", "○", "1", "0", "2", "yes"]


async def test_stop_leaves_who_is_used(world: World, operator: Operator, plugin: Plugin) -> None:
    await world.pool(ports={"count": 3})
    await world.avatar("ada", "bob", "cat")
    for avatar in ("ada", "bob"):
        await world.instance(avatar, avatar)
        await world.phase(avatar, "Running")
    await world.instance("ada-2", "ada")
    await world.phase("ada-2", "Shared")
    await world.connections("ada", 2)
    refused = await plugin("stop", "ada", code=1)
    assert "2 people connected to ada (avatarinstance/ada)" in refused.err
    assert "nothing was stopped" in refused.err
    asked = await plugin("stop", "--all", code=2)
    assert "say so with --yes" in asked.err
    assert len(await world.statuses()) == 3
    most = await plugin("stop", "--all", "--yes", code=1)
    assert "kept: 2 people connected to ada" in most.err
    assert "stopped bob" in most.err
    assert "1 port free again" in most.err
    assert list(await world.statuses()) == ["ada"]
    assert [p["metadata"]["name"] for p in await world.pods()] == ["avatar-8615"]
    await plugin("stop", "ada", "--force")
    assert await world.left() == []
    assert "no avatar 'ada' runs" in (await plugin("stop", "ada", code=1)).err
    assert "No avatar instances" in (await plugin("stop", "--all", "--yes")).err


async def test_stopping_one_of_two_leaves_the_pod(world: World, operator: Operator, plugin: Plugin) -> None:
    await world.pool()
    await world.avatar("ada")
    await world.instance("one")
    await world.phase("one", "Running")
    await world.instance("two")
    await world.phase("two", "Shared")
    uid = (await world.pods())[0]["metadata"]["uid"]
    said = await plugin("stop", "one")
    assert "pod avatar-8615 goes on for avatarinstance/two" in said.err
    await world.phase("two", "Running")
    assert (await world.pods())[0]["metadata"]["uid"] == uid


async def test_a_pod_that_does_not_end_is_told(world: World, operator: Operator, plugin: Plugin) -> None:
    await world.pool(runtime={"podAnnotations": {"avatars.test/delete-after": "4s"}})
    await world.avatar("ada")
    await world.instance("ada")
    await world.phase("ada", "Running")
    said = await plugin("stop", "ada", "--timeout", "1", code=1)
    assert "after 1 s pod avatar-8615 still ends" in said.err


async def test_start_wakes_a_sleeper(world: World, operator: Operator, plugin: Plugin) -> None:
    await world.pool()
    await world.avatar("ada")
    await world.instance("ada", idle={"timeoutSeconds": 1, "action": "Sleep"})
    await world.phase("ada", "Stopped")
    said = await plugin("start", "ada")
    assert "ada sleeps, as avatarinstance/ada" in said.err
    status = await world.status("ada")
    assert status["phase"] == "Running"
    # It is a lease, and ends by itself.
    assert [(s["id"], s["ttlSeconds"]) for s in status["sessions"]] == [("kubectl-avatar", 30)]


async def test_logs_without_a_pod(world: World, operator: Operator, plugin: Plugin) -> None:
    await world.pool()
    await world.instance("ghost", "nobody")
    await world.phase("ghost", "Failed")
    said = await plugin("logs", "ghost", code=1)
    assert "is Failed, without a pod; AvatarNotFound" in said.err


async def test_top_says_that_it_is_out_of_date_and_recovers(cluster: Cluster, world: World, tmp_path: Path) -> None:
    await world.pool()
    async with Proxy(cluster.kubeconfig) as proxy:
        path = proxy.kubeconfig(tmp_path / "kubeconfig")
        async with Link.open(Target(world.namespace, "", str(path))) as link:
            copies = Copies(link, world.namespace)
            async with copies.following():
                await copies.synced()
                await until("no trouble", lambda: _trouble(copies), lambda text: not text)
                outage = proxy.refuse(lambda call: True, 503, times=-1)
                proxy.cut_watches()
                await until("trouble", lambda: _trouble(copies), bool)
                await world.instance("ada")
                proxy.rules.remove(outage)
                await until("recovery", lambda: _trouble(copies), lambda text: not text, timeout=60)
                await until("what was missed", lambda: _names(copies), lambda names: names == ["ada"])


async def test_as_kubectl_runs_it(cluster: Cluster, world: World, operator: Operator, tmp_path: Path) -> None:
    """kubectl finds the plugin and its completion by their names; Ctrl-C leaves the instance."""
    programs = install(tmp_path)
    env = {**cluster.env(), "PATH": f"{programs}:{cluster.env()['PATH']}"}
    await world.pool(runtime={"nodeSelector": {"type": "none"}})
    await world.avatar("ada")

    def kubectl(*words: str) -> str:
        done = subprocess.run(
            ["kubectl", *words],
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    command = ["kubectl-avatar", "-n", world.namespace, "start", "ada"]
    start = await asyncio.create_subprocess_exec(
        *command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    await until("the pod", world.pods, bool, timeout=40)
    os.killpg(start.pid, signal.SIGINT)
    out, err = await asyncio.wait_for(start.communicate(), 20)
    assert start.returncode == 130, err
    assert b"left alone; avatarinstance/ada-" in err
    assert out == b""
    name = next(iter(await world.statuses()))
    listed, offered = await asyncio.gather(
        asyncio.to_thread(kubectl, "avatar", "-n", world.namespace, "list", "-o", "name"),
        asyncio.to_thread(kubectl, "__complete", "avatar", "stop", "-n", world.namespace, "ada-"),
    )
    assert listed == f"avatarinstance.avatars.virtualtutor.io/{name}\n"
    assert offered.splitlines()[0].split("\t")[0] == name
    assert offered.splitlines()[-1] == ":4"


async def _pool(world: World) -> Json:
    pool = await world.api.get("avatarpools", world.namespace, "default")
    return dict((pool or {}).get("status", {}))


async def _trouble(copies: Copies) -> str:
    return copies.scene(datetime.now(UTC)).trouble


async def _names(copies: Copies) -> list[str]:
    return [i.metadata.name for i in copies.instances.values()]
