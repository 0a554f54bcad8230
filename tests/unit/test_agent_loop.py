"""The agent's loops without an API server: what is looked at twice, what hangs, what is written."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from avatar_operator.agent import loop
from avatar_operator.agent.alerts import Thresholds
from avatar_operator.agent.faults import DriverGoneError, NoNvmlError
from avatar_operator.agent.loop import Agent, Pace, in_thread
from avatar_operator.agent.reading import Reading, Snapshot, Trouble, Xid
from avatar_operator.domain.gpunode import GpuNodeStatus, GpuReport, Memory, MigDevice
from avatar_operator.kube.errors import BusyError
from tests.unit.test_agent_report import NOW, reading

ROOT = Path(__file__).resolve().parents[2]
WELL = Snapshot((reading(0), reading(1)), "580.1", "13.0")
LOST = Snapshot((reading(0), Reading("GPU-1", 1, trouble=Trouble.LOST, message="x")), "580.1", "13.0")


class Script:
    """Stands for the Reader: one answer after another, the last one for ever."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.remembered: dict[int, str] = {}

    def read(self) -> Snapshot:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        if callable(answer):
            answer()
            return WELL
        return answer  # type: ignore[no-any-return]

    def remember(self, uuids: dict[int, str]) -> None:
        self.remembered |= uuids


class Api:
    """Stands for the Publisher."""

    def __init__(self, had: GpuNodeStatus | None = None) -> None:
        self.had = had or GpuNodeStatus()
        self.written = GpuNodeStatus()
        self.log: list[GpuNodeStatus] = []
        self.answers: list[Any] = []

    async def adopt(self) -> GpuNodeStatus:
        self.written = self.had
        return self.had

    async def publish(self, status: GpuNodeStatus) -> bool:
        answer = self.answers.pop(0) if self.answers else True
        if isinstance(answer, Exception):
            raise answer
        if answer:
            self.log.append(status)
            self.written = status
        else:
            self.written = GpuNodeStatus()
        return bool(answer)


def make(*answers: Any, heartbeat: int = 30) -> tuple[Agent, Script]:
    script = Script(*answers)
    return Agent(script, "n1", Pace(0.02, heartbeat), Thresholds()), script  # type: ignore[arg-type]


@asynccontextmanager
async def running(agent: Agent, api: Api) -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks = [asyncio.create_task(agent.read()), asyncio.create_task(agent.write(api))]  # type: ignore[arg-type]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError, Exception):
                await task


async def eventually(good: Callable[[], Any]) -> None:
    async with asyncio.timeout(5):
        while not good():
            await asyncio.sleep(0.005)


def healthy(status: GpuNodeStatus) -> list[bool]:
    return [gpu.healthy for gpu in status.gpus]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AGAIN_SECONDS", "BACKOFF_SECONDS", "ABSENT_SECONDS"):
        monkeypatch.setattr(loop, name, 0.01)


async def test_nothing_is_written_while_nothing_changes() -> None:
    agent, script = make(WELL)
    async with running(agent, api := Api()):
        await eventually(lambda: script.asked > 10)
    assert [healthy(status) for status in api.log] == [[True, True]]
    assert agent.silent() == ""


async def test_one_bad_reading_is_none() -> None:
    agent, script = make(WELL, LOST, WELL, replace(WELL, gpus=WELL.gpus[:1]), WELL)
    async with running(agent, api := Api()):
        await eventually(lambda: script.asked > 10)
    assert [healthy(status) for status in api.log] == [[True, True]]


@pytest.mark.parametrize("bad", [LOST, replace(WELL, gpus=WELL.gpus[:1])], ids=["says-so", "vanished"])
async def test_two_bad_readings_are_a_lost_gpu(bad: Snapshot) -> None:
    agent, script = make(WELL, WELL, WELL, WELL, bad)
    async with running(agent, api := Api()):
        await eventually(lambda: script.asked > 12)
    assert [healthy(status) for status in api.log] == [[True, True], [True, False]]


async def test_a_new_agent_starts_from_the_report_of_the_last_one() -> None:
    had = GpuNodeStatus(
        last_report=NOW, gpus=(GpuReport(uuid="GPU-0", index=0), GpuReport(uuid="GPU-9", index=3, product="L4"))
    )
    agent, script = make(WELL)
    async with running(agent, api := Api(had)):
        await eventually(lambda: api.log)
    assert [(gpu.uuid, gpu.healthy) for gpu in api.log[0].gpus] == [("GPU-0", True), ("GPU-1", True), ("GPU-9", False)]
    assert script.remembered == {0: "GPU-0", 3: "GPU-9"}


async def test_a_deleted_gpunode_is_made_anew_without_what_is_gone() -> None:
    had = GpuNodeStatus(last_report=NOW, gpus=(GpuReport(uuid="GPU-9", index=3),))
    agent, _ = make(WELL)
    api = Api(had)
    api.answers = [False]
    async with running(agent, api):
        await eventually(lambda: api.log)
    assert [gpu.uuid for gpu in api.log[0].gpus] == ["GPU-0", "GPU-1"]


async def test_the_api_server_is_away_and_the_newest_report_wins() -> None:
    agent, _ = make(WELL, WELL, WELL, LOST)
    api = Api()
    api.answers = [BusyError(0, "Unreachable", "x")] * 4
    async with running(agent, api):
        await eventually(lambda: api.log)
        assert agent.silent() == ""
    assert healthy(api.log[-1]) == [True, False]
    assert b"reports_failed_total 4.0" in generate_latest(agent.metrics.registry)


# ---- no NVML, a driver that goes, a driver that hangs ------------------------------------------


async def test_a_node_without_gpus_is_ready_and_writes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    agent, script = make(NoNvmlError("no library"))
    async with running(agent, api := Api()):
        await eventually(lambda: script.asked > 5)
        assert (agent.silent(), agent.hung()) == ("", "")
        script.answers = [WELL]
        assert api.log == []
        await eventually(lambda: api.log)
    assert caplog.text.count("no library") == 1


async def test_where_gpus_were_their_absence_is_told() -> None:
    had = GpuNodeStatus(last_report=NOW, gpus=(GpuReport(uuid="GPU-0", index=0),))
    agent, _ = make(NoNvmlError("the NVIDIA driver is not loaded"))
    async with running(agent, api := Api(had)):
        await eventually(lambda: api.log)
    (gpu,) = api.log[0].gpus
    assert (gpu.healthy, gpu.reason) == (False, "Lost")
    assert "driver is not loaded" in gpu.message


async def test_a_driver_that_goes_ends_the_reading() -> None:
    agent, _ = make(WELL, DriverGoneError("changed"))
    async with running(agent, Api()) as (reading_task, _):
        await eventually(reading_task.done)
        assert isinstance(reading_task.exception(), DriverGoneError)


async def test_a_driver_that_hangs_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "HUNG_SECONDS", 0.1)
    release = threading.Event()
    agent, script = make(WELL)
    async with running(agent, api := Api()):
        await eventually(lambda: api.log)
        script.answers = [release.wait, WELL]
        await eventually(agent.hung)
        assert agent.hung().startswith("NVML has not answered for")
        asked = script.asked
        await asyncio.sleep(0.1)
        assert script.asked == asked
        release.set()
        await eventually(lambda: not agent.hung())


async def test_silence_is_noticed() -> None:
    agent, script = make(WELL, heartbeat=1)
    assert agent.silent() == "no report has been written yet"
    async with running(agent, api := Api()):
        await eventually(lambda: api.log)
        assert agent.silent() == ""
        api.answers = [BusyError(0, "Unreachable", "x")] * 10000
        agent._wrote_at -= 4
        assert agent.silent().startswith("no report written for 4 s")
        assert script.asked


async def test_an_error_in_a_thread_is_raised_where_it_is_awaited() -> None:
    def fail() -> None:
        raise ValueError("in the thread")

    with pytest.raises(ValueError, match="in the thread"):
        await in_thread(fail)


# ---- what Prometheus reads ---------------------------------------------------------------------


async def test_metrics_join_with_those_of_dcgm() -> None:
    part = Reading(
        "MIG-a",
        0,
        minor=4,
        product="NVIDIA A100",
        pci_bus_id="00000000:65:00.0",
        memory=Memory(total_mib=4864, used_mib=64, free_mib=4800),
        mig=MigDevice(parent_uuid="GPU-0", profile="1g.5gb", gpu_instance=7),
    )
    whole = Reading(
        "GPU-0",
        0,
        minor=4,
        product="NVIDIA A100",
        pci_bus_id="00000000:65:00.0",
        mig_enabled=True,
        utilization_percent=50,
        temperature_celsius=90,
        power_watts=200,
        xids=(Xid(92, 3, NOW),),
    )
    agent, _ = make(Snapshot((whole, part), "580.1", "13.0", errors={"Timeout": 2}))
    async with running(agent, api := Api()):
        await eventually(lambda: api.log)
    page = generate_latest(agent.metrics.registry).decode().splitlines()
    common = 'UUID="GPU-0",device="nvidia4",gpu="0",hostname="n1"'
    tail = 'modelName="NVIDIA A100",node="n1",pci_bus_id="00000000:65:00.0"'
    one = f'GPU_I_ID="",GPU_I_PROFILE="",{common},mig_uuid="",{tail}'
    cut = f'GPU_I_ID="7",GPU_I_PROFILE="1g.5gb",{common},mig_uuid="MIG-a",{tail}'
    assert f"avatar_operator_gpu_temperature_celsius{{{one}}} 90.0" in page
    assert f"avatar_operator_gpu_utilization_ratio{{{one}}} 0.5" in page
    assert f"avatar_operator_gpu_power_watts{{{one}}} 200.0" in page
    assert f"avatar_operator_gpu_memory_free_bytes{{{cut}}} 5.0331648e+09" in page
    assert f"avatar_operator_gpu_healthy{{{cut}}} 1.0" in page
    assert f'avatar_operator_gpu_alert{{{one},type="Temperature"}} 1.0' in page
    assert f'avatar_operator_gpu_alert{{{one},type="Memory"}} 0.0' in page
    assert f'avatar_operator_gpu_xid_errors_total{{{one},xid="92"}} 3.0' in page
    assert 'avatar_operator_gpu_nvml_errors_total{error="Timeout"} 2.0' in page
    assert 'avatar_operator_gpu_driver_info{cuda="13.0",driver="580.1",node="n1"} 1.0' in page
    assert not any(line.startswith(f"avatar_operator_gpu_memory_free_bytes{{{one}") for line in page)


async def test_a_gpu_that_has_vanished_keeps_its_series() -> None:
    agent, _ = make(WELL, WELL, WELL, WELL, replace(WELL, gpus=WELL.gpus[:1]))
    async with running(agent, api := Api()):
        await eventually(lambda: len(api.log) > 1)
    page = generate_latest(agent.metrics.registry).decode()
    (line,) = [x for x in page.splitlines() if x.startswith("avatar_operator_gpu_healthy{") and 'UUID="GPU-1"' in x]
    assert line.endswith(" 0.0")


def test_the_agent_is_light() -> None:
    """Nothing heavy is loaded on every node."""
    code = (
        "import sys; import avatar_operator.cli.main; import avatar_operator.agent.run; "
        "heavy = {'kubernetes', 'numpy', 'uvloop', 'fastapi'}; "
        "print(*sorted(m for m in sys.modules if m.split('.')[0] in heavy or 'operator.controller' in m))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "operator", capture_output=True, text=True, timeout=30, check=True
    )
    assert found.stdout.strip() == ""
