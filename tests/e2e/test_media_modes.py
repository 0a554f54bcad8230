"""HostPort, Pod and Relay on a real kubelet: what is reached by which address, and the probes agree."""

from __future__ import annotations

import asyncio
import base64
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from aioice.ice import Connection, StunProtocol
from aioice.stun import Message
from aiortc import RTCIceServer

from avatar_client.session import AvatarSession
from avatar_operator.domain import turn
from avatar_operator.domain.resources import IceServer
from tests.conftest import Cluster
from tests.e2e.conftest import SYSTEM, TURN_SECRET, pool_spec
from tests.e2e.conftest import run as command
from tests.support.api import Json, until
from tests.support.world import World, condition

TURN_PORT = 3478


async def running(world: World, ports: int, network: Json) -> dict[str, Any]:
    """Status of an instance of ada in a pool with that network, once it runs."""
    await world.api.create(
        "avatarpools",
        world.namespace,
        {
            "apiVersion": "avatars.virtualtutor.io/v1alpha1",
            "kind": "AvatarPool",
            "metadata": {"name": "default"},
            "spec": pool_spec(ports, network=network),
        },
    )
    await world.avatar("ada")
    await world.instance("one")
    return await world.phase("one", "Running", timeout=60)


async def serving(world: World, ports: int, network: Json) -> dict[str, Any]:
    """The same, once it has been probed with success."""
    await running(world, ports, network)
    return await world.until(
        "one", "being reached", lambda s: s.get("media", {}).get("reachable") == "True", timeout=60
    )


def ways(session: AvatarSession) -> tuple[str, str]:
    """Where the client's packets go, and by which kind of its own candidates."""
    [ice] = {r.transport.transport for r in session.pc.getReceivers() if r.transport is not None}
    [pair] = ice._connection._nominated.values()
    return pair.remote_addr[0], pair.local_candidate.type


def deaf_to(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client whose firewall lets nothing in from there.

    Ours has a route to pods: where a pod's first check is sooner than its own, it learns the pod's address from it, and
    may well prefer that.
    """
    whole = Connection.check_incoming

    def check_incoming(self: Connection, message: Message, addr: tuple[str, int], protocol: StunProtocol) -> None:
        if addr[0] != address:
            whole(self, message, addr, protocol)

    monkeypatch.setattr(Connection, "check_incoming", check_incoming)


async def test_host_port(world: World, ports: int, monkeypatch: pytest.MonkeyPatch) -> None:
    window = ports * 3
    status = await serving(world, ports, {"mode": "HostPort", "udpPortBase": window, "udpPortsPerInstance": 16})
    [pod] = await world.pods()
    node = pod["status"]["hostIP"]
    assert pod["status"]["podIP"] != node
    media = status["media"]
    assert (media["mode"], media["host"], media["udpPortRange"]) == ("HostPort", node, f"{window}-{window + 15}")
    assert [c for c in media["candidates"] if "." in c] == [node], media
    assert condition(status, "MediaReachable")["status"] == "True"
    deaf_to(pod["status"]["podIP"], monkeypatch)
    async with AvatarSession.connect(status["webrtcUrl"], timeout=60) as session:
        told = [line for line in session.pc.remoteDescription.sdp.splitlines() if line.startswith("a=candidate")]
        assert node in [line.split()[4] for line in told]
        assert pod["status"]["podIP"] not in [line.split()[4] for line in told], told
        assert all(window <= int(line.split()[5]) < window + 16 for line in told), told
        assert ways(session) == (node, "host")


async def test_signalling_in_the_cluster_by_name_or_by_an_address_of_ones_own(
    world: World, ports: int, cluster: Cluster
) -> None:
    """The claim has no cluster IP; who needs one makes a Service for the port, which outlives instances."""
    status = await running(world, ports, {"mode": "Pod"})
    url = f"http://{status['podName']}.{world.namespace}.svc:{ports}"
    assert status["webrtcUrl"] == f"{url}/offer"
    selector = {"avatars.virtualtutor.io/pool": "default", "avatars.virtualtutor.io/port": str(ports)}
    spec = {"selector": selector, "ports": [{"port": 80, "targetPort": ports}]}
    made = await world.api.create("services", world.namespace, {"metadata": {"name": "front"}, "spec": spec})
    assert made["spec"]["clusterIP"] not in ("", "None")
    # Asked by another pod: it is the cluster's network, names and addresses that are to lead there.
    await world.avatar("bruno")
    await world.instance("two", "bruno")
    other = await world.phase("two", "Running", timeout=60)
    for there in (url, f"http://{made['spec']['clusterIP']}"):
        ask = f"from urllib.request import urlopen; print(urlopen({there + '/health'!r}, timeout=5).status)"
        look = ("kubectl", "-n", world.namespace, "exec", other["podName"], "--", "python3", "-c", ask)
        asked = partial(asyncio.to_thread, command, cluster, *look, check=False)
        await until(f"an answer of {there}", asked, lambda said: said.strip() == "200", timeout=30, interval=0.5)


async def test_relay(world: World, ports: int) -> None:
    """Through the chart's coturn, with credentials from its Secret; the pod probes that way, too."""
    relay = (await world.api.list("pods", SYSTEM, "?labelSelector=app.kubernetes.io/component%3Dturn"))[0]
    secret = await world.api.get("secrets", SYSTEM, TURN_SECRET)
    assert secret is not None
    await world.api.create(
        "secrets",
        world.namespace,
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "turn"}, "data": secret["data"]},
    )
    uri = f"turn:{relay['status']['podIP']}:{TURN_PORT}?transport=udp"
    network = {"mode": "Relay", "iceServers": [{"urls": [uri]}], "turnSecretRef": {"name": "turn"}}
    status = await serving(world, ports, network)
    assert status["media"]["mode"] == "Relay"
    assert uri in status["media"]["message"]
    [pod] = await world.pods()
    name, password = credentials(secret["data"]["secret"])
    url = f"http://{pod['status']['podIP']}:{ports}"
    servers = [RTCIceServer(uri, name, password)]
    async with AvatarSession.connect(url, timeout=60, ice_servers=servers, relay=True) as session:
        assert ways(session) == (pod["status"]["podIP"], "relay")


def credentials(secret: str) -> tuple[str, str]:
    """What the REST API gives a client."""
    [server] = turn.ice_servers(
        [IceServer(urls=["turn:x"])], "somebody", base64.b64decode(secret), 600, datetime.now(UTC)
    )
    return server.username, server.credential
