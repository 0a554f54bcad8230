"""Media between networks: each of the pool's network modes, with NAT between client and pod.

    client 10.213.1.2 ── home (NAT) ── wan ── node 10.213.50.5 (NAT) ── pod 10.213.9.2
                                        │
                                        ├── turn 10.213.52.9
                                        └── edge 10.213.60.1 (1:1 NAT) ── node, for externalHost

The runtime and the viewer are the real ones, as processes in their namespaces.
What a kubelet and a network plugin do, port forwarding and the sysctl, is done
by the rules that they would write; tests/e2e has it from the real ones.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from avatar_operator.controller.stun import answering
from tests.conftest import no_cluster
from tests.runtime.launch import AVATARS, ROOT, RUNTIME
from tests.support.netns import Wires, missing, wires

NODE, POD, TURN, EDGE = "10.213.50.5", "10.213.9.2", "10.213.52.9", "10.213.60.1"
PORT = 8615
SECRET = "a secret of this test"
WINDOW = (50000, 50019)
# The time in which nothing has come where nothing can; and in which everything has, on a busy machine.
NEVER, SURELY = 4, 40
ENV = {**os.environ, "PYTHONPATH": f"{RUNTIME}:{ROOT / 'operator'}:{ROOT}"}


class Net:
    """The picture above, with what runs in it."""

    def __init__(self, made: Wires, folder: Path) -> None:
        self.wires = made
        self._folder = folder
        for name, forwards in (
            ("client", False), ("home", True), ("wan", True), ("node", True), ("pod", False), ("turn", False),
        ):  # fmt: skip
            made.add(name, forwards=forwards)
        made.wire("client", "10.213.1.2/24", "home", "10.213.1.1/24")
        made.wire("home", "10.213.51.2/24", "wan", "10.213.51.1/24")
        made.wire("node", f"{NODE}/24", "wan", "10.213.50.1/24")
        made.wire("turn", f"{TURN}/24", "wan", "10.213.52.1/24")
        made.wire("pod", f"{POD}/24", "node", "10.213.9.1/24")
        made.route("client", "default", "10.213.1.1")
        made.route("home", "default", "10.213.51.1")
        made.route("node", "default", "10.213.50.1")
        made.route("turn", "default", "10.213.52.1")
        made.route("pod", "default", "10.213.9.1")
        # Homes and clusters hide what is inside.
        made.nat("home", "-A", "POSTROUTING", "-s", "10.213.1.0/24", "-j", "MASQUERADE")
        made.nat("node", "-A", "POSTROUTING", "-s", "10.213.9.0/24", "-o", "w2a", "-j", "MASQUERADE")

    def start(
        self, name: str, *command: str, env: dict[str, str] | None = None, log: str = ""
    ) -> subprocess.Popen[bytes]:
        """A process in a namespace; it ends with the namespace."""
        path = self._folder / f"{log or name}.log"
        with path.open("wb") as sink:
            return subprocess.Popen(
                ["ip", "netns", "exec", self.wires.full(name), *command],
                cwd=RUNTIME, env={**ENV, **(env or {})}, stdout=sink, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def text(self, log: str) -> str:
        return (self._folder / f"{log}.log").read_text(errors="replace")

    def runtime(self, name: str, **env: str) -> None:
        """The runtime, serving in a namespace."""
        flags = ["--avatar_id", "ada", "--listenport", str(PORT), "--data_dir", str(AVATARS)]
        process = self.start(name, sys.executable, "-m", "avatar_runtime", *flags, env=env, log="runtime")
        self.until(name, "tcp", PORT, process, "runtime")

    def until(self, name: str, kind: str, port: int, process: subprocess.Popen[bytes], log: str) -> None:
        """Until something is bound to the port in the namespace."""
        deadline = time.monotonic() + SURELY
        while f":{port:04X} " not in self.wires.run(name, "cat", f"/proc/net/{kind}", f"/proc/net/{kind}6"):
            assert process.poll() is None, self.text(log)
            assert time.monotonic() < deadline, self.text(log)
            time.sleep(0.1)

    def forward_signalling(self) -> None:
        """What a Service does, from outside: TCP to the node's port comes to the pod's."""
        self.wires.nat("node", "-A", "PREROUTING", "-d", NODE, "-p", "tcp", "--dport", str(PORT), "-j", "DNAT",
                       "--to-destination", POD)  # fmt: skip

    def view(self, url: str, *options: str, timeout: int = SURELY, client: str = "client") -> dict[str, Any]:
        """What the client gets there."""
        command = [sys.executable, "-m", "tests.runtime.viewer", url, "--timeout", str(timeout), *options]
        done = subprocess.run(
            ["ip", "netns", "exec", self.wires.full(client), *command],
            cwd=ROOT, env=ENV, capture_output=True, text=True, timeout=timeout + 30, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{done.stderr}\n{self.text('runtime')}"
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    def ask(self, name: str, url: str) -> dict[str, Any]:
        """Have the runtime open its ports, and ask there, from a namespace: what the operator does."""
        code = (
            "import asyncio, json, sys, aiohttp\n"
            "from avatar_operator.controller.probe import RuntimeProbe\n"
            "async def main():\n"
            "    async with aiohttp.ClientSession() as http:\n"
            "        return await RuntimeProbe(http).media(sys.argv[1], int(sys.argv[2]))\n"
            "r = asyncio.run(main())\n"
            "print(json.dumps({'told': r.told, 'answered': r.answered, 'relay': r.relay, 'relayed': r.relayed,"
            " 'error': r.error, 'supported': r.supported}))"
        )
        found: dict[str, Any] = json.loads(self.wires.run(name, "env", f"PYTHONPATH={ENV['PYTHONPATH']}",
                                                          sys.executable, "-c", code, url, str(PORT)))  # fmt: skip
        return found


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    if why := missing():
        no_cluster(why)
    with wires() as made:
        yield Net(made, tmp_path)


def test_host_network(net: Net) -> None:
    """Clients at home; one that hides its address, as browsers do; one that has IPv6 alone."""
    net.wires.add("six")
    net.wires.wire("six", "fd00:213::2/64", "node", "fd00:213::1/64")
    net.runtime("node")
    for seen in (net.view(f"http://{NODE}:{PORT}"), net.view(f"http://{NODE}:{PORT}", "--hidden")):
        assert (seen["flows"], seen["remote"]) == (True, NODE), seen
    seen = net.view(f"http://[fd00:213::1]:{PORT}", client="six")
    assert (seen["flows"], seen["remote"]) == (True, "fd00:213::1"), seen


def test_pod(net: Net) -> None:
    """Signalling alone gets through, as by a Service, and no picture comes: what status warns of. Then with a route."""
    net.forward_signalling()
    net.runtime("pod")
    seen = net.view(f"http://{NODE}:{PORT}", timeout=NEVER)
    assert (seen["flows"], seen.get("connected")) == (False, False), seen
    # As with network plugins that announce pod addresses.
    net.wires.nat("node", "-F")
    net.wires.route("wan", "10.213.9.0/24", NODE)
    seen = net.view(f"http://{POD}:{PORT}")
    assert (seen["flows"], seen["remote"]) == (True, POD), seen


def test_host_port(net: Net) -> None:
    """The window by the sysctl, the node's address by the rewritten answer; the probe says that it works."""
    net.forward_signalling()
    first, last = WINDOW
    net.wires.run("pod", "sysctl", "-qw", f"net.ipv4.ip_local_port_range={first} {last}")
    net.wires.nat("node", "-A", "PREROUTING", "-d", NODE, "-p", "udp", "--dport", f"{first}:{last}", "-j", "DNAT",
                  "--to-destination", POD)  # fmt: skip
    net.runtime("pod", AVATAR_MEDIA_HOST=NODE)
    seen = net.view(f"http://{NODE}:{PORT}")
    assert (seen["flows"], seen["remote"]) == (True, NODE), seen
    assert all(first <= int(line.split()[5]) <= last for line in seen["told"]), seen["told"]
    probe = net.ask("turn", NODE)
    assert probe["told"], probe
    assert probe["answered"] == [p for p in probe["told"] if p.startswith(f"{NODE}:")], probe
    # The same without the mapping of UDP ports, as where the network plugin knows no host ports.
    net.wires.nat("node", "-D", "PREROUTING", "-d", NODE, "-p", "udp", "--dport", f"{first}:{last}", "-j", "DNAT",
                  "--to-destination", POD)  # fmt: skip
    broken = net.ask("turn", NODE)
    assert broken["told"], broken
    assert not broken["answered"], broken


def test_external_host(net: Net) -> None:
    """A 1:1 NAT in front of the node, which knows nothing of its outer address."""
    net.wires.add("edge", forwards=True)
    net.wires.wire("edge", f"{EDGE}/24", "wan", "10.213.60.254/24")
    net.wires.wire("edge", "10.213.61.1/24", "node", "10.213.61.5/24")
    net.wires.route("edge", "default", "10.213.60.254")
    # The node is reached through the NAT alone.
    net.wires.run("node", "ip", "route", "replace", "default", "via", "10.213.61.1")
    net.wires.run("node", "ip", "link", "set", "w2a", "down")
    net.wires.nat("edge", "-A", "PREROUTING", "-d", EDGE, "-j", "DNAT", "--to-destination", "10.213.61.5")
    net.wires.nat("edge", "-A", "POSTROUTING", "-s", "10.213.61.5", "-j", "SNAT", "--to-source", EDGE)
    net.runtime("node", AVATAR_MEDIA_HOST=EDGE)
    seen = net.view(f"http://{EDGE}:{PORT}")
    assert (seen["flows"], seen["remote"]) == (True, EDGE), seen


def coturn(net: Net, secret: Path) -> None:
    """Debian's coturn as the chart runs it: no peers but pods."""
    if shutil.which("turnserver") is None and os.environ.get("CI"):
        # Not on a developer's machine, where the package would start a service.
        subprocess.run([ROOT / "scripts/apt-install", "coturn"], capture_output=True, timeout=300, check=True)
    if shutil.which("turnserver") is None:
        no_cluster("not installed: coturn")
    secret.write_text(f"{SECRET}\n")
    env = {"TURN_SECRET_FILE": str(secret), "TURN_ADDRESS": TURN, "TURN_PEERS": "10.213.9.0/24"}
    started = net.start("turn", sys.executable, "-m", "avatar_turn", env=env, log="coturn")
    net.until("turn", "udp", 3478, started, "coturn")
    # The TURN server is in the cluster: it reaches pods. The client does not.
    net.wires.route("wan", "10.213.9.0/24", NODE)
    net.wires.run("wan", "iptables", "-w", "-A", "FORWARD", "-s", "10.213.51.0/24", "-d", "10.213.9.0/24", "-j", "DROP")


def credentials() -> tuple[str, str]:
    """What the REST API gives a client."""
    name = f"{int(time.time()) + 600}:somebody"
    return name, base64.b64encode(hmac.new(SECRET.encode(), name.encode(), hashlib.sha1).digest()).decode()


def test_relay(net: Net, tmp_path: Path) -> None:
    """Through a real coturn; the client has no other way."""
    coturn(net, tmp_path / "secret")
    net.forward_signalling()
    uri = f"turn:{TURN}:3478?transport=udp"
    net.runtime(
        "pod",
        AVATAR_ICE_SERVERS=json.dumps([{"urls": [uri]}]),
        AVATAR_ICE_USE="probe",
        AVATAR_TURN_SECRET_FILE=str(tmp_path / "secret"),
    )
    assert not net.view(f"http://{NODE}:{PORT}", timeout=NEVER)["flows"]
    name, password = credentials()
    seen = net.view(f"http://{NODE}:{PORT}", "--turn", uri, "--username", name, "--credential", password, "--relay")
    assert (seen["flows"], seen["local"], seen["remote"]) == (True, "relay", POD), (seen, net.text("coturn"))
    probe = net.ask("node", POD)
    assert (probe["relay"], probe["relayed"]) == (uri, True), probe


async def test_nobody_answers_where_nobody_listens() -> None:
    assert await answering(["127.0.0.1:9", "no address", "[::1]:9"], bytes(12)) == ()
