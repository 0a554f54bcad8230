"""The node agent against a real API server: the real nvidia-ml-py on a driver that a file plays."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Cluster, RunKubectl
from tests.support.agent import Agent
from tests.support.api import Api, Json, until
from tests.support.driver import FakeDriver, gpu
from tests.support.nodes import make_node
from tests.support.proxy import Proxy, matching

pytestmark = pytest.mark.cluster

MakeAgent = Callable[..., Agent]
UID = "8a4d2f1c-3b5e-4c6d-9e7f-0123456789ab"


@pytest.fixture
async def node(api: Api) -> AsyncIterator[str]:
    """A node of this test's own."""
    name = f"agent-{secrets.token_hex(3)}"
    await make_node(api, name, {"avatars.test/tier": "agent"})
    yield name
    await api.delete("gpunodes", "", name)
    await api.delete("nodes", "", name)


@pytest.fixture
def driver(tmp_path: Path) -> FakeDriver:
    """Two L4."""
    return FakeDriver(tmp_path / "nvml.json", gpu(0), gpu(1))


@pytest.fixture
def make_agent(cluster: Cluster, node: str, driver: FakeDriver, tmp_path: Path) -> Iterator[MakeAgent]:
    """An agent of the node that reads once a second, not started yet."""
    made: list[Agent] = []

    def make(*options: str, kubeconfig: Path | None = None) -> Agent:
        (tmp_path / "proc").mkdir(exist_ok=True)
        log = tmp_path / f"agent-{len(made)}.log"
        period = () if any(o.startswith("--period") for o in options) else ("--period-seconds=1",)
        proc = (f"--proc={tmp_path / 'proc'}",)
        made.append(Agent(kubeconfig or cluster.kubeconfig, log, node, driver, *period, *proc, *options))
        return made[-1]

    try:
        yield make
    finally:
        for one in made:
            one.kill()


@pytest.fixture
async def agent(make_agent: MakeAgent) -> Agent:
    """One that is ready."""
    return await make_agent().start()  # type: ignore[return-value]


def process(tmp_path: Path, pid: int, pod: str) -> None:
    """A process of a pod, as its cgroup shows it."""
    (tmp_path / "proc" / str(pid)).mkdir(parents=True, exist_ok=True)
    (tmp_path / "proc" / str(pid) / "cgroup").write_text(f"0::/kubepods/burstable/pod{pod}/{'c' * 64}\n")


async def report(api: Api, node: str) -> Json:
    found = await api.get("gpunodes", "", node)
    return {} if found is None else dict(found.get("status", {}))


async def reported(api: Api, node: str, what: str, good: Callable[[Json], Any], timeout: float = 15) -> Json:
    return await until(f"the agent reporting {what}", lambda: report(api, node), good, timeout)


async def events(api: Api, node: str, reason: str) -> list[str]:
    found = await api.list("events", "default", f"?fieldSelector=involvedObject.name={node}")
    return [e["message"] for e in found if e["reason"] == reason]


async def heard(api: Api, node: str, reason: str) -> str:
    found = await until(f"the event {reason}", lambda: events(api, node, reason), len)
    return found[0]


def healthy(status: Json) -> list[bool]:
    return [g["healthy"] for g in status.get("gpus", [])]


async def test_a_node_and_its_gpus(
    api: Api, node: str, driver: FakeDriver, make_agent: MakeAgent, tmp_path: Path, kubectl: RunKubectl
) -> None:
    process(tmp_path, 4711, UID)
    driver.change(0, processes=[{"pid": 4711, "usedMiB": 3000}], otherMiB=1000, temperature=66)
    await make_agent().start()
    found = await api.get("gpunodes", "", node)
    assert found is not None
    owner = await api.get("nodes", "", node)
    assert owner is not None
    assert found["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Node", "name": node, "uid": owner["metadata"]["uid"]}
    ]
    status = found["status"]
    assert (status["gpuCount"], status["freeMiB"], status["hottestCelsius"]) == (2, 20064 + 24064, 66)
    first = status["gpus"][0]
    assert first["memory"] == {"totalMiB": 24576, "usedMiB": 4000, "freeMiB": 20064, "reservedMiB": 512}
    assert (first["processesKnown"], first["pods"]) == (True, [{"uid": UID, "usedMiB": 3000}])
    (condition,) = status["conditions"]
    assert (condition["type"], condition["status"], condition["reason"]) == ("Healthy", "True", "AllHealthy")
    shown = kubectl("get", "gpun", node, "--no-headers", "-o", "wide", check=True).stdout.split()
    assert shown[:3] == [node, "2", "44128"]
    assert "580.95.05" in shown
    driver.change(0, otherMiB=9000)
    await reported(api, node, "what somebody outside took", lambda s: s["gpus"][0]["memory"]["usedMiB"] == 12000)


async def test_the_operators_fields_and_the_administrators_stay(
    api: Api, node: str, driver: FakeDriver, agent: Agent
) -> None:
    driver_uuid = driver.script["gpus"][1]["uuid"]
    await api.patch("gpunodes", "", node, {"spec": {"cordoned": [driver_uuid]}})
    ours = {"reservations": [{"uuid": "GPU-0", "namespace": "a", "pod": "b", "memoryMiB": 5}], "reservedMiB": 5}
    await api.patch("gpunodes", "", node, {"status": ours}, "status")
    driver.change(0, otherMiB=5000)
    status = await reported(api, node, "more memory", lambda s: s["gpus"][0]["memory"]["usedMiB"] == 5000)
    assert (status["reservations"], status["reservedMiB"]) == (ours["reservations"], 5)
    found = await api.get("gpunodes", "", node)
    assert found is not None
    assert found["spec"] == {"cordoned": [driver_uuid]}
    assert await agent.metric("avatar_operator_gpu_reports_written_total") >= 2


async def test_a_lost_gpu_and_its_return(api: Api, node: str, driver: FakeDriver, agent: Agent) -> None:
    driver.change(1, state="lost")
    status = await reported(api, node, "the loss", lambda s: healthy(s) == [True, False])
    assert status["gpus"][1]["reason"] == "Lost"
    assert status["freeMiB"] == 24064
    assert [(c["status"], c["reason"]) for c in status["conditions"]] == [("False", "GPULost")]
    said = await heard(api, node, "GPULost")
    assert said.startswith(f"GPU 1 of node {node} (NVIDIA L4, ")
    assert "takes no new avatars (Lost), other GPUs go on" in said
    driver.change(1, state="ok")
    await reported(api, node, "the return", lambda s: healthy(s) == [True, True])
    await heard(api, node, "GPURecovered")
    driver.set(gpus=driver.script["gpus"][:1])
    status = await reported(api, node, "that it has vanished", lambda s: healthy(s) == [True, False])
    assert len(await until("a second event", lambda: events(api, node, "GPULost"), lambda e: len(e) == 2)) == 2
    # An administrator who took it out says so.
    await api.delete("gpunodes", "", node)
    driver.change(0, otherMiB=700)
    await reported(api, node, "what is there now", lambda s: healthy(s) == [True], timeout=20)


async def test_an_alert_that_comes_and_goes(api: Api, node: str, driver: FakeDriver, agent: Agent) -> None:
    driver.change(0, temperature=91)
    status = await reported(api, node, "heat", lambda s: s["alerts"] == ["Temperature GPU 0"])
    assert status["gpus"][0]["alerts"][0]["message"] == "91 °C, the threshold is 85 °C"
    assert "91 °C" in await heard(api, node, "AlertRaised")
    driver.change(0, temperature=60)
    await reported(api, node, "that it is cool", lambda s: s["alerts"] == [])
    await heard(api, node, "AlertCleared")
    driver.xid(1, 31)
    driver.xid(1, 94)
    await reported(api, node, "the XID", lambda s: s["alerts"] == ["XID GPU 1"])


async def test_a_new_driver_ends_the_process_and_the_next_reports(
    api: Api, node: str, driver: FakeDriver, agent: Agent
) -> None:
    driver.set(driverVersion="590.10")
    assert agent.process is not None
    assert await asyncio.to_thread(agent.process.wait, 20) == 1
    assert "the driver was changed under this process" in agent.tail()
    assert "Traceback" not in agent.tail()
    # What the last one reported stands, until it is stale.
    assert healthy(await report(api, node)) == [True, True]
    await agent.start()
    assert (await report(api, node))["driverVersion"] == "590.10"
    assert "590.10 (it was 580.95.05)" in await heard(api, node, "DriverChanged")


async def test_a_driver_that_is_not_there_after_a_restart(
    api: Api, node: str, driver: FakeDriver, agent: Agent
) -> None:
    agent.stop()
    driver.set(driver="not-loaded")
    await agent.start()
    status = await reported(api, node, "that the GPUs are gone", lambda s: healthy(s) == [False, False])
    assert "the NVIDIA driver is not loaded" in status["gpus"][0]["message"]


async def test_a_node_without_nvml(api: Api, node: str, driver: FakeDriver, make_agent: MakeAgent) -> None:
    driver.set(library=False)
    agent = await make_agent().start()
    await asyncio.sleep(2)
    assert await agent.readiness() == "ok"
    assert await api.get("gpunodes", "", node) is None
    assert agent.log.read_text().count("libnvidia-ml.so.1") == 1


async def test_a_node_that_does_not_exist(cluster: Cluster, driver: FakeDriver, tmp_path: Path, api: Api) -> None:
    agent = Agent(cluster.kubeconfig, tmp_path / "log", "no-such-node", driver, "--period-seconds=1")
    agent.launch()
    try:

        async def said() -> str:
            return agent.tail()

        await until("the log telling", said, lambda text: "there is no Node 'no-such-node'" in text)
        assert await agent.readiness() == "no report has been written yet"
        assert await api.get("gpunodes", "", "no-such-node") is None
    finally:
        agent.kill()


async def test_sigterm_ends_it_even_while_the_driver_hangs(driver: FakeDriver, agent: Agent) -> None:
    driver.set(hang="nvmlDeviceGetTemperature")
    await asyncio.sleep(2.5)
    began = time.monotonic()
    assert await asyncio.to_thread(agent.stop) == 0
    assert time.monotonic() - began < 5, "it waited for the driver"


async def test_the_api_server_is_away_for_a_while(
    api: Api, cluster: Cluster, node: str, driver: FakeDriver, make_agent: MakeAgent, tmp_path: Path
) -> None:
    async with Proxy(cluster.kubeconfig) as proxy:
        agent = await make_agent(kubeconfig=proxy.kubeconfig(tmp_path / "kubeconfig")).start()
        rule = proxy.refuse(matching("patch", "gpunodes"), 503, times=3)
        driver.change(0, otherMiB=3000)
        await until("a refusal", _value(lambda: rule.hits), bool)
        driver.change(0, otherMiB=6000)
        await reported(api, node, "the newest figure", lambda s: s["gpus"][0]["memory"]["usedMiB"] == 6000)
        assert rule.hits == 3
        assert await agent.metric("avatar_operator_gpu_reports_failed_total") == 3
        sent = [c.body["status"]["gpus"][0]["memory"]["usedMiB"] for c in proxy.writes("gpunodes") if c.subresource]
        assert sent == sorted(sent), "an old report was written after a newer one"


def _value(look: Callable[[], int]) -> Callable[[], Any]:
    async def ask() -> int:
        return look()

    return ask


async def test_steady_state_costs_two_writes_a_minute(
    api: Api, cluster: Cluster, node: str, driver: FakeDriver, make_agent: MakeAgent, tmp_path: Path
) -> None:
    """Heartbeats of 5 s stand for those of 30 s: while only heat and load move, one write in each, and no reads."""
    driver.change(0, otherMiB=1000)
    driver.change(1, otherMiB=1000)
    async with Proxy(cluster.kubeconfig) as proxy:
        options = ("--heartbeat-seconds=5", "--period-seconds=1")
        await make_agent(*options, kubeconfig=proxy.kubeconfig(tmp_path / "kubeconfig")).start()
        await reported(
            api, node, "what is used by now", lambda s: [g["memory"]["usedMiB"] for g in s["gpus"]] == [1000] * 2
        )
        proxy.calls.clear()
        began, turn = time.monotonic(), 0
        while time.monotonic() - began < 15.5:
            turn += 1
            driver.change(turn % 2, temperature=40 + turn % 30, utilization=turn % 90, otherMiB=1000 + turn % 200)
            await asyncio.sleep(0.2)
        # A second early is due (report.SLACK): lastReport has whole seconds.
        heartbeats = (time.monotonic() - began) / (5 - 1)
        assert {str(c) for c in proxy.calls} == {f"patch gpunodes/{node}/status → 200"}
        assert 2 <= len(proxy.calls) <= heartbeats + 1
