"""Agent, operator and runtime in containers: the real nvidia-ml-py in all of them, on a driver that a file plays.

The driver's file lies in a folder of the host that is mounted into the pods; `tests/support/nvml`, in front of
PYTHONPATH, puts it in the place of libnvidia-ml.so.1. GPUs are L4 of 24576 MiB, of which the driver keeps 512.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from tests.conftest import Cluster, RunKubectl
from tests.e2e.conftest import RELEASE, SYSTEM, TAGS, install, pool_spec
from tests.e2e.conftest import run as command
from tests.support.api import Api, Json, until
from tests.support.driver import FOLDER, FakeDriver, gpu
from tests.support.nodes import make_node
from tests.support.world import World, condition

DAEMONSET = f"{RELEASE}-avatar-operator-agent"
LABEL = "avatars.test/e2e-gpu"
# Seconds; the agent's own: 10 and 30.
PERIOD, HEARTBEAT = 1, 5
PART, MIN_FREE = 5000, 6000
DRIVER = "580.95.05"


class SharedDriver(FakeDriver):
    """A driver whose folder is mounted into containers that run as somebody else."""

    def __init__(self, folder: Path, *gpus: Json) -> None:
        folder.mkdir()
        folder.chmod(0o755)
        (folder / "proc").mkdir(mode=0o755)
        super().__init__(folder / "nvml.json", *gpus)

    def write(self) -> None:
        """Put the script into place, for all to read."""
        new = self.path.with_suffix(".new")
        new.write_bytes(msgspec.json.encode(self.script))
        new.chmod(0o644)
        os.replace(new, self.path)

    def uuid(self, index: int) -> str:
        """Of a GPU."""
        return str(self.script["gpus"][index]["uuid"])

    def compute(self, index: int, pid: int, pod: Json, mib: int) -> None:
        """A process of the pod holds memory of a GPU. devcluster's cgroups name no pods: here is a /proc that does."""
        folder = self.path.parent / "proc" / str(pid)
        folder.mkdir(mode=0o755)
        (folder / "cgroup").write_text(f"0::/kubepods/pod{pod['metadata']['uid']}/{'c' * 64}\n")
        (folder / "cgroup").chmod(0o644)
        self.change(index, processes=[*self.script["gpus"][index]["processes"], {"pid": pid, "usedMiB": mib}])

    @property
    def env(self) -> list[Json]:  # type: ignore[override]
        """Variables of a container that has `volumes` mounted."""
        values = {"PYTHONPATH": "/fake/nvml:/app", "AVATAR_FAKE_NVML": "/fake/driver/nvml.json"}
        return [{"name": name, "value": value} for name, value in values.items()]

    @property
    def volumes(self) -> list[Json]:
        """Volumes of a pod."""
        folders = {"fake-nvml": FOLDER, "fake-driver": self.path.parent}
        return [{"name": name, "hostPath": {"path": str(path)}} for name, path in folders.items()]

    @property
    def mounts(self) -> list[Json]:
        """Where its container has them."""
        paths = {"fake-nvml": "/fake/nvml", "fake-driver": "/fake/driver"}
        return [{"name": name, "mountPath": path, "readOnly": True} for name, path in paths.items()]

    @property
    def agent_env(self) -> list[Json]:
        """Variables of the agent's container."""
        return [*self.env, {"name": "AVATAR_AGENT_PROC", "value": "/fake/driver/proc"}]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for drivers."""
    return tmp_path_factory.mktemp("drivers")


@pytest.fixture(scope="module")
def node_name(cluster: Cluster) -> str:
    """The real node."""
    names = command(cluster, "kubectl", "get", "nodes", "-l", "type!=kwok", "-o", "name").split()
    return names[0].removeprefix("node/")


@pytest.fixture(scope="module")
def agents(cluster: Cluster, base: Path, node_name: str) -> Iterator[SharedDriver]:
    """The chart with its agent on the real node, whose driver this is."""
    driver = SharedDriver(base / "real", gpu(0), gpu(1))
    agent = {
        "enabled": True,
        "runtimeClassName": "",
        "periodSeconds": PERIOD,
        "heartbeatSeconds": HEARTBEAT,
        "extraEnv": driver.agent_env,
        "extraVolumes": driver.volumes,
        "extraVolumeMounts": driver.mounts,
    }
    values = base / "values.json"
    values.write_bytes(msgspec.json.encode({"agent": agent}))
    chart = ("helm", "upgrade", RELEASE, "charts/avatar-operator", *TAGS, "--values", str(values))
    command(cluster, *chart, "--namespace", SYSTEM, "--wait", "--timeout", "90s")
    try:
        yield driver
    finally:
        install(cluster)
        command(cluster, "kubectl", "delete", "gpunodes", node_name, "--ignore-not-found")


@pytest.fixture
def driver(agents: SharedDriver) -> Iterator[SharedDriver]:
    """The real node's, with nothing on its GPUs but what the test puts there."""
    yield agents
    agents.set(gpus=[gpu(0), gpu(1)])


async def report(api: Api, node: str) -> Json:
    """GPUNode.status; empty while there is none."""
    return dict((await api.get("gpunodes", "", node) or {}).get("status", {}))


async def reported(api: Api, node: str, what: str, good: Callable[[Json], Any], timeout: float = 30) -> Json:
    """GPUNode.status, once it is good."""
    return await until(f"{node} reporting {what}", lambda: report(api, node), lambda s: s and good(s), timeout)


def healthy(status: Json) -> bool:
    return len(status["gpus"]) == 2 and all(g["healthy"] and g["memory"]["usedMiB"] == 0 for g in status["gpus"])


async def told(api: Api, reason: str, about: str, since: datetime) -> Json:
    """The event about a GPUNode; such events are in the namespace default."""

    async def look() -> list[Json]:
        found = await api.list("events", "default")
        return [
            e
            for e in found
            if (e["reason"], e["involvedObject"]["kind"], e["involvedObject"]["name"]) == (reason, "GPUNode", about)
            and datetime.fromisoformat(e["lastTimestamp"]) >= since
        ]

    return (await until(f"the event {reason}", look, bool))[-1]


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


async def gpu_pool(world: World, driver: SharedDriver, ports: int, **gpu_rules: Any) -> None:
    """A pool of real runtimes that look at the driver, too."""
    spec = pool_spec(
        ports,
        gpu={
            "mode": "VisibleDevices",
            "minFreeMiB": MIN_FREE,
            "perInstanceMiB": PART,
            "primary": {"indices": [1]},
            "backup": {"indices": [0]},
            **gpu_rules,
        },
        runtime={"env": driver.env, "volumes": driver.volumes, "volumeMounts": driver.mounts},
        idle={"timeoutSeconds": 0},
    )
    body = {"apiVersion": "avatars.virtualtutor.io/v1alpha1", "kind": "AvatarPool", "metadata": {"name": "default"}}
    await world.api.create("avatarpools", world.namespace, {**body, "spec": spec})
    await world.avatar("ada", "bruno")


def reserved(status: Json) -> bool:
    assigned = condition(status, "GPUAssigned")
    return status.get("phase") == "Running" and (assigned.get("status"), assigned.get("reason")) == ("True", "Reserved")


async def pod_of(world: World, name: str) -> Json:
    pod = await world.api.get("pods", world.namespace, (await world.status(name))["podName"])
    assert pod is not None
    return pod


# ---- one node ----------------------------------------------------------------------------


async def test_the_agent_reports_its_node(api: Api, driver: SharedDriver, node_name: str, kubectl: RunKubectl) -> None:
    began = now()
    driver.change(0, otherMiB=4000)
    driver.change(1, temperature=91)
    status = await reported(api, node_name, "an alert", lambda s: s["alerts"] and s["gpus"][0]["memory"]["usedMiB"])
    assert [(g["index"], g["uuid"], g["product"], g["healthy"]) for g in status["gpus"]] == [
        (index, driver.uuid(index), "NVIDIA L4", True) for index in (0, 1)
    ]
    assert status["gpus"][0]["memory"] == {"totalMiB": 24576, "usedMiB": 4000, "freeMiB": 20064, "reservedMiB": 512}
    assert (status["driverVersion"], status["heartbeatSeconds"]) == (DRIVER, HEARTBEAT)
    found = await api.get("gpunodes", "", node_name)
    node = await api.get("nodes", "", node_name)
    assert found is not None
    assert node is not None
    assert [o["uid"] for o in found["metadata"]["ownerReferences"]] == [node["metadata"]["uid"]]
    event = await told(api, "AlertRaised", node_name, began)
    assert "91" in event["message"], event["message"]

    await reported(api, node_name, "external use", lambda s: s.get("externalMiB") == 4000)
    header, line = kubectl("get", "gpun", node_name, check=True).stdout.rstrip("\n").split("\n")
    columns = ["NAME", "GPUS", "FREE-MIB", "AVATARS-MIB", "EXTERNAL-MIB", "HOTTEST-C", "ALERTS", "REPORTED"]
    assert header.split() == columns
    free = 2 * (24576 - 512) - 4000
    assert re.fullmatch(rf'{node_name} +2 +{free} +0 +4000 +91 +\["Temperature GPU 1"\] +\d+s', line), line
    # Nothing happens: the report stays young all the same.
    before = status["lastReport"]
    await reported(api, node_name, "a heartbeat", lambda s: s["lastReport"] > before, timeout=4 * HEARTBEAT)


async def test_an_instance_gets_what_others_leave(
    world: World, driver: SharedDriver, node_name: str, ports: int
) -> None:
    await reported(world.api, node_name, "empty GPUs", healthy)
    await gpu_pool(world, driver, ports)
    await world.instance("ada")
    status = await world.until("ada", "running on its GPU", reserved, timeout=60)
    assert status["gpu"] == {"node": node_name, "index": 1, "uuid": driver.uuid(1), "reservedMiB": PART}
    pod = await pod_of(world, "ada")
    env = {e["name"]: e.get("value") for e in pod["spec"]["containers"][0]["env"]}
    assert (env["NVIDIA_VISIBLE_DEVICES"], env["CUDA_DEVICE_ORDER"]) == (driver.uuid(1), "PCI_BUS_ID")
    url = status["webrtcUrl"].removesuffix("/offer")
    async with aiohttp.ClientSession() as session, session.get(f"{url}/health") as answer:
        assert (await answer.json())["gpus"] == [driver.uuid(0), driver.uuid(1)]

    # The pod's processes are found and are not external; its avatar is known by what it uses.
    driver.compute(1, 4711, pod, 4400)
    seen = await reported(world.api, node_name, "the pod", lambda s: s["gpus"][1].get("pods"))
    assert seen["gpus"][1]["pods"] == [{"uid": pod["metadata"]["uid"], "usedMiB": 4400}]
    await reported(world.api, node_name, "books", lambda s: (s.get("reservedMiB"), s.get("externalMiB")) == (PART, 0))

    async def observed() -> int:
        avatar = await world.api.get("avatars", world.namespace, "ada")
        return int((avatar or {}).get("status", {}).get("vram", {}).get("observedMiB", 0))

    # Not before it has been loaded for a while.
    await until("its use being learned", observed, lambda mib: mib == 4400, timeout=60)

    # Somebody outside Kubernetes takes more and more of both.
    driver.grow(0, 20000, to_mib=20000)
    driver.grow(1, 20000, to_mib=19000)
    await reported(world.api, node_name, "what others use", lambda s: s.get("externalMiB", 0) >= 34000)
    await world.instance("bruno", "bruno")
    waiting = await world.phase("bruno", "Pending", reason="GPUExhausted")
    assert re.search(r"needs 6000 MiB .* \d+ MiB are missing", waiting["message"]), waiting["message"]
    assert condition(waiting, "GPUAssigned")["status"] == "False"
    driver.change(0, grow=None)
    status = await world.until("bruno", "running on the GPU that is free again", reserved, timeout=60)
    assert status["gpu"]["index"] == 0
    await world.delete("ada", "bruno")
    await world.nothing_left(timeout=60)
    await reported(world.api, node_name, "empty books", lambda s: not s.get("reservedMiB"))


async def test_a_used_instance_moves_off_a_lost_gpu(
    world: World, driver: SharedDriver, node_name: str, ports: int
) -> None:
    began = now()
    await reported(world.api, node_name, "empty GPUs", healthy)
    await gpu_pool(world, driver, ports)
    await world.instance("ada")
    before = await world.until("ada", "running on its GPU", reserved, timeout=60)
    assert before["gpu"]["index"] == 1
    await world.connections("ada", 1)
    driver.change(1, state="lost")
    lost = await reported(world.api, node_name, "a lost GPU", lambda s: not s["gpus"][1]["healthy"])
    assert "Unhealthy GPU 1" in lost["alerts"], lost["alerts"]
    assert lost["gpus"][0]["healthy"]
    event = await told(world.api, "GPULost", node_name, began)
    assert f"GPU 1 of node {node_name}" in event["message"], event["message"]

    def moved(status: Json) -> bool:
        return reserved(status) and bool(status["gpu"]["index"] == 0)

    after = await world.until("ada", "running on the other GPU", moved, timeout=60)
    assert after["connections"] == 1
    [event] = await until("the event", lambda: world.events("GPULost"), lambda found: found)
    assert event["type"] == "Warning"
    assert "moving to another GPU" in event["message"], event["message"]
    driver.change(1, state="ok")
    await reported(world.api, node_name, "well GPUs", lambda s: s["gpus"][1]["healthy"])
    await told(world.api, "GPURecovered", node_name, began)
    await world.delete("ada")
    await world.nothing_left(timeout=60)


async def test_the_driver_is_changed_under_the_agent(api: Api, driver: SharedDriver, node_name: str) -> None:
    """Only a new process can load the new driver: the container ends, and the next one reports again."""
    began = now()
    await reported(api, node_name, "empty GPUs", healthy)
    [pod] = await agent_pods(api)
    restarts = pod["status"]["containerStatuses"][0]["restartCount"]
    driver.set(driverVersion="590.10")
    try:
        await reported(api, node_name, "the new driver", lambda s: s["driverVersion"] == "590.10", timeout=60)
        [pod] = await agent_pods(api)
        container = pod["status"]["containerStatuses"][0]
        assert container["restartCount"] == restarts + 1
        assert container["lastState"]["terminated"]["exitCode"] == 1
        event = await told(api, "DriverChanged", node_name, began)
        assert f"now 590.10 (it was {DRIVER})" in event["message"], event["message"]
        # Nothing was lost but time: no GPU was reported as such.
        assert not [e for e in await api.list("events", "default") if e["reason"] == "GPULost" and _young(e, began)]
    finally:
        driver.set(driverVersion=DRIVER)
        await reported(api, node_name, "the old driver", lambda s: s["driverVersion"] == DRIVER, timeout=120)


def _young(event: Json, since: datetime) -> bool:
    return datetime.fromisoformat(event["lastTimestamp"]) >= since


async def agent_pods(api: Api) -> list[Json]:
    return await api.list("pods", SYSTEM, "?labelSelector=app.kubernetes.io/component%3Dagent")


# ---- several nodes -----------------------------------------------------------------------


def agent_pod(name: str, node: str, driver: SharedDriver, image: str) -> Json:
    """An agent on the real node that speaks for another one, as the chart's would on that."""
    values = {
        "NODE_NAME": node,
        "AVATAR_AGENT_PERIOD_SECONDS": str(PERIOD),
        "AVATAR_AGENT_HEARTBEAT_SECONDS": str(HEARTBEAT),
    }
    container = {
        "name": "agent",
        "image": image,
        "args": ["agent"],
        "env": [*({"name": name, "value": value} for name, value in values.items()), *driver.agent_env],
        "volumeMounts": driver.mounts,
    }
    return {
        "metadata": {"name": name, "labels": {LABEL: "true"}},
        "spec": {
            "serviceAccountName": DAEMONSET,
            "automountServiceAccountToken": True,
            "containers": [container],
            "volumes": driver.volumes,
            "terminationGracePeriodSeconds": 2,
        },
    }


@pytest.fixture
async def fleet(api: Api, agents: SharedDriver, base: Path, namespace: str) -> AsyncIterator[dict[str, SharedDriver]]:
    """Two fake nodes of two GPUs, each with an agent in a real pod; their drivers by the nodes' names."""
    found = {}
    [pod] = await agent_pods(api)
    image = pod["spec"]["containers"][0]["image"]
    for number in range(2):
        node = f"{namespace}-{number}"
        await make_node(api, node, {LABEL: namespace, "type": "kwok"})
        # UUIDs are unique in the world: 10, 11, 20, 21.
        found[node] = SharedDriver(base / node, gpu(10 * number + 10), gpu(10 * number + 11))
        await api.create("pods", SYSTEM, agent_pod(node, node, found[node], image))
    yield found
    for node in found:
        await api.delete("pods", SYSTEM, node)
        for pod in await api.list("pods", namespace):
            await api.delete("pods", namespace, pod["metadata"]["name"], {"gracePeriodSeconds": 0})
        # With the node goes its GPUNode.
        await api.delete("nodes", "", node)
        await until(
            f"the agent of {node} being gone", lambda name=node: api.get("pods", SYSTEM, name), lambda p: p is None
        )
        await api.delete("gpunodes", "", node)


async def test_the_freest_of_several_nodes(world: World, fleet: dict[str, SharedDriver], kubectl: RunKubectl) -> None:
    first, second = fleet
    for node, drivers in fleet.items():
        await reported(world.api, node, "two GPUs", healthy, timeout=60)
        drivers.change(0, otherMiB=12000)
        drivers.change(1, otherMiB=12000)
    fleet[second].change(1, otherMiB=1000)
    for node, external in ((first, 24000), (second, 13000)):
        await reported(world.api, node, "others", lambda s, mib=external: s.get("externalMiB") == mib)
    await world.pool(
        ports={"base": 8615, "count": 12},
        maxInstances=12,
        gpu={"mode": "VisibleDevices", "policy": "MostFree", "minFreeMiB": MIN_FREE, "perInstanceMiB": PART},
        runtime={"nodeSelector": {LABEL: world.namespace}},
        queue={"timeoutSeconds": 0},
    )
    names = [f"i{number:02}" for number in range(11)]
    await world.avatar(*names)
    took = []
    for name in names[:10]:
        await world.instance(name, name)
        took.append((await world.phase(name, "Running"))["gpu"]["uuid"])
    # Three have 12064, 7064, then 2064 MiB free, the best one 23064, 18064, 13064, 8064, then 3064.
    best = fleet[second].uuid(1)
    others = sorted([fleet[first].uuid(0), fleet[first].uuid(1), fleet[second].uuid(0)])
    assert (took[:3], sorted(took[3:6]), took[6], sorted(took[7:])) == ([best] * 3, others, best, others)
    await world.instance(names[10], names[10])
    waiting = await world.phase(names[10], "Pending", reason="GPUExhausted")
    assert f"2936 MiB are missing; GPU 1 of {second} has most: 3064 of 24576 MiB" in waiting["message"], waiting
    for node, mib in ((first, 20000), (second, 30000)):
        await reported(world.api, node, "the books", lambda s, mib=mib: s.get("reservedMiB") == mib)
    table = kubectl("get", "gpun", check=True).stdout
    assert re.search(rf"^{first} +2 +24128 +20000 +24000 +40 ", table, re.MULTILINE), table
    assert re.search(rf"^{second} +2 +35128 +30000 +13000 +40 ", table, re.MULTILINE), table
