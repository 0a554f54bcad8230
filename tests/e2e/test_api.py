"""The REST API as the chart runs it: two replicas that know tokens by a Secret, real avatars, real clients."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import secrets
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from avatar_client.session import AvatarSession
from tests.conftest import Cluster, RunKubectl
from tests.e2e.conftest import RELEASE, SYSTEM, TAGS, install, pause, pod_ready, pool_spec
from tests.e2e.conftest import run as command
from tests.support.api import Api, Json, until
from tests.support.rest import Rest
from tests.support.tokens import SECRET, hs256
from tests.support.world import World

API_PODS = "?labelSelector=app.kubernetes.io/component%3Dapi"
JWT_SECRET = "avatar-api-jwt"
TURN = {"urls": ["turn:turn.test:3478"]}
# A label that no node has until a test sets it: its pods wait for that.
GATE = "avatars.test/e2e-api"


@pytest.fixture(scope="module")
def served(cluster: Cluster, alone: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A namespace whose avatars two replicas serve; the release is left as it was."""
    namespace = f"t-api-{secrets.token_hex(4)}"
    values = tmp_path_factory.mktemp("api") / "values.json"
    auth = {"mode": "jwt", "jwt": {"secretName": JWT_SECRET}}
    api = {"enabled": True, "namespace": namespace, "auth": auth, "turnSecretNames": ["turn"]}
    values.write_text(json.dumps({"api": api}))
    command(cluster, "kubectl", "create", "namespace", namespace)
    try:
        key = ("kubectl", "create", "secret", "generic")
        command(cluster, *key, JWT_SECRET, "-n", SYSTEM, f"--from-literal=secret={SECRET}")
        command(cluster, *key, "turn", "-n", namespace, "--from-literal=secret=north wind")
        chart = ("helm", "upgrade", RELEASE, "charts/avatar-operator", *TAGS, "--values", str(values))
        command(cluster, *chart, "--namespace", SYSTEM, "--wait", "--timeout", "90s")
        yield namespace
    finally:
        install(cluster)
        command(cluster, "kubectl", "-n", SYSTEM, "delete", "secret", JWT_SECRET, "--ignore-not-found")
        command(cluster, "kubectl", "delete", "namespace", namespace, "--wait=false")


@pytest.fixture
async def place(api: Api, served: str, ports: int) -> AsyncIterator[World]:
    """The served namespace with a pool `default` of real pods and the avatar ada; empty again after each test."""
    world = World(api, served)
    network = {"iceServers": [TURN], "turnSecretRef": {"name": "turn"}}
    body = {"apiVersion": "avatars.virtualtutor.io/v1alpha1", "kind": "AvatarPool", "metadata": {"name": "default"}}
    await api.create("avatarpools", served, {**body, "spec": pool_spec(ports, network=network)})
    await world.avatar("ada")
    yield world
    await world.delete(*await world.statuses())
    await world.nothing_left(timeout=60)
    await api.delete("avatars", served, "ada")
    await api.delete("avatarpools", served, "default")


def test_helm_test_asks_the_operator_and_the_api(cluster: Cluster, served: str) -> None:
    done = command(cluster, "helm", "test", RELEASE, "--namespace", SYSTEM, "--logs", "--timeout", "80s")
    assert "/readyz 200 ok" in done, done
    assert "/health 200" in done, done


@dataclass(frozen=True)
class Replica:
    """One of the API's pods, and where it answers."""

    name: str
    url: str


async def replicas(api: Api) -> tuple[Replica, Replica]:
    """Both, ready."""
    first, second = await until(
        "two replicas being ready",
        lambda: api.list("pods", SYSTEM, API_PODS),
        lambda pods: len(pods) == 2 and all(map(pod_ready, pods)),
        timeout=60,
    )
    return _replica(first), _replica(second)


def _replica(pod: Json) -> Replica:
    return Replica(pod["metadata"]["name"], f"http://{pod['status']['podIP']}:8607")


def _restarted_and_ready(pod: Json | None) -> bool:
    return pod is not None and pod_ready(pod) and bool(pod["status"]["containerStatuses"][0]["restartCount"])


def kill(replica: Replica) -> None:
    """SIGKILL to its process. Containers of this cluster are processes of this machine; HOSTNAME says whose."""
    found = [int(p.parent.name) for p in Path("/proc").glob("[0-9]*/environ") if _hostname(p) == replica.name]
    assert found, f"no process of {replica.name}"
    for pid in found:
        os.kill(pid, signal.SIGKILL)


def _hostname(environ: Path) -> str:
    try:
        entries = environ.read_bytes().split(b"\0")
    except OSError:
        return ""
    return next((e.removeprefix(b"HOSTNAME=").decode() for e in entries if e.startswith(b"HOSTNAME=")), "")


# ---- what users and backends do -----------------------------------------------------------


async def test_a_session_from_start_to_stop(place: World, ports: int, cluster: Cluster) -> None:
    one, two = await replicas(place.api)
    async with Rest(one.url, hs256("ann")) as ann, Rest(two.url, hs256("console", "viewer")) as viewer:
        answer = await ann.start("ada_user_1", "ada")
        data = answer.data
        assert (answer.body["status"], answer.body["message"]) == ("success", "Avatar started successfully")
        instance = await place.status(data["instance"])
        expected = {"avatar_id": "ada_user_1", "port": ports, "gpu": None, "connections": 1, "is_new": True}
        assert {key: data[key] for key in expected} == expected
        assert (data["webrtc_url"], data["phase"]) == (instance["webrtcUrl"], "Running")
        assert (urlsplit(data["webrtc_url"]).port, urlsplit(data["webrtc_url"]).path) == (ports, "/offer")
        # By the chart's Role for this Secret.
        [turn] = data["ice_servers"]
        assert turn["urls"] == TURN["urls"]
        assert len(base64.b64decode(turn["credential"])) == 20

        async with AvatarSession.connect(data["webrtc_url"]) as session:
            await session.say("Hello, Ann.")
            await session.wait_speech_end(30)
            # Through the other replica.
            listed = await viewer.get("/avatar/list")
            assert (listed.body["count"], listed.body["data"][0]["avatar_id"]) == (1, "ada_user_1"), listed
            info = (await viewer.get("/avatar/info/ada")).data
            assert (info["running"], info["port"], info["connections"]) == (True, ports, 1)
            # Who is connected is not a viewer's to know.
            assert info["sessions"] == []
            status = (await viewer.get("/status")).data
            assert status["manager"]["phases"] == {"Running": 1}
            assert session.alive

        async with Rest(two.url, hs256("bob")) as bob, Rest(two.url, hs256("backend", "admin")) as admin:
            joined = (await bob.start("ada_user_2", "ada")).data
            assert (joined["webrtc_url"], joined["connections"], joined["is_new"]) == (data["webrtc_url"], 2, False)
            assert (await bob.disconnect(avatar_id="ada_user_1")).code == 403
            assert (await ann.disconnect(avatar_id="ada_user_1", avatar_name="ada")).data["connections"] == 1
            refused = await admin.post("/avatar/stop", {"avatar_id": "ada", "force": False})
            assert (refused.code, refused.body["message"].startswith("1 connected")) == (409, True)
            assert (await bob.disconnect(avatar_id="ada_user_2", avatar_name="ada")).data["connections"] == 0
            assert (await bob.post("/avatar/stop", {"avatar_id": "ada"})).code == 403
            assert (await admin.post("/avatar/stop", {"avatar_id": "ada"})).data["stopped"] == [data["instance"]]
    await place.nothing_left(timeout=30)
    log = command(cluster, "kubectl", "-n", SYSTEM, "logs", "-l", "app.kubernetes.io/component=api", "--tail=-1")
    lines = [json.loads(line) for line in log.splitlines()]
    audit = [(x["subject"], x["message"], x["code"]) for x in lines if x["logger"] == "avatar_operator.audit"]
    assert {("ann", "start", 200), ("bob", "disconnect", 403), ("backend", "stop", 200)} <= set(audit), audit
    assert not re.search(r"\beyJ\w+\.", log), "a token is in the log"


async def test_nobody_comes_in_without_a_token(place: World) -> None:
    for replica in await replicas(place.api):
        forged = hs256(role="admin", secret="another secret, which is thirty-two bytes long")
        for token in ("", forged, hs256(exp=1)):
            async with Rest(replica.url, token) as rest:
                for verb, path in (("POST", "/avatar/start"), ("GET", "/avatar/list"), ("POST", "/avatar/stop-all")):
                    answer = await rest.call(verb, path, {"avatar_id": "ada"} if verb == "POST" else None)
                    assert (path, answer.code) == (path, 401)
        async with aiohttp.ClientSession() as session:
            # Files of the page hold nothing secret; what it shows does.
            for path, code in (("/health", 200), ("/console/", 200), ("/console/live", 401)):
                async with session.get(f"{replica.url}{path}") as answer:
                    assert (path, answer.status) == (path, code)
    assert await place.statuses() == {}


async def test_a_replica_is_killed_in_the_middle_of_a_start(place: World, kubectl: RunKubectl) -> None:
    """The repetition, through the other one, gets the same session; the killed one comes back."""
    pool = {"spec": {"runtime": {"nodeSelector": {GATE: place.namespace}}, "startupTimeoutSeconds": 120}}
    await place.api.patch("avatarpools", place.namespace, "default", pool)
    one, two = await replicas(place.api)
    token = hs256("ann")
    try:
        async with Rest(one.url, token) as first, Rest(two.url, token) as second:
            lost = asyncio.create_task(first.start("ada_user_1", "ada"))
            await until("the pod", place.pods, len)
            before = await place.statuses()
            [instance] = before
            assert [s["id"] for s in before[instance]["sessions"]] == ["ada_user_1"]
            assert not lost.done()
            kill(one)
            with pytest.raises(aiohttp.ClientConnectionError):
                await lost
            again = asyncio.create_task(second.start("ada_user_1", "ada"))
            await pause(0.5)
            assert not again.done()
            kubectl("label", "nodes", "-l", "type!=kwok", f"{GATE}={place.namespace}", "--overwrite", check=True)
            data = (await again).data
        assert (data["avatar_id"], data["instance"], data["connections"]) == ("ada_user_1", instance, 1)
        after = await place.status(instance)
        assert [(s["id"], s["since"]) for s in after["sessions"]] == [
            (s["id"], s["since"]) for s in before[instance]["sessions"]
        ]
        async with AvatarSession.connect(data["webrtc_url"]) as session:
            assert session.alive
        # The same pod and address: its container was started anew.
        await until("the restart", lambda: place.api.get("pods", SYSTEM, one.name), _restarted_and_ready, timeout=60)
        async with Rest(one.url, token) as first:
            answer = await first.start("ada_user_1", "ada")
            assert (answer.data["connections"], answer.data["is_new"]) == (1, False)
    finally:
        kubectl("label", "nodes", "-l", "type!=kwok", f"{GATE}-")


async def test_an_offer_through_one_replica_is_ended_by_the_other(place: World) -> None:
    """By the chart's rights alone; and speech comes back through the API, too."""
    one, two = await replicas(place.api)
    headers = {"Authorization": f"Bearer {hs256('ann')}"}
    async with Rest(one.url, hs256("ann")) as ann, aiohttp.ClientSession(headers=headers) as http:
        instance = (await ann.start("ada_user_1", "ada")).data["instance"]
        async with AvatarSession.connect(f"{two.url}/avatar/ada_user_1", http=http) as session:
            status = await place.status(instance)
            assert (status["connections"], status["sessions"][0]["runtimeSessionId"]) == (1, session.sessionid)
            await session.say("Hello, Ann.")
            await session.wait_speech_end(30)
            kill(two)
            assert session.alive
        await place.until(instance, "nobody being counted", lambda s: not s.get("sessions"), timeout=60)
        assert (await place.status(instance))["connections"] == 0
    await until("the restart", lambda: place.api.get("pods", SYSTEM, two.name), _restarted_and_ready, timeout=60)
