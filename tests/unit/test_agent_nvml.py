"""The agent's reading: the real nvidia-ml-py on a library that a file plays."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from avatar_operator.agent.faults import DriverGoneError, NoNvmlError
from avatar_operator.agent.nvml import Reader
from avatar_operator.agent.reading import Process, Reading, Trouble
from avatar_operator.domain.gpunode import Memory, MigDevice
from tests.support.driver import FakeDriver, gpu
from tests.support.nvml import fake_nvml

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[FakeDriver]:
    """Two L4."""
    found = FakeDriver(tmp_path / "nvml.json", gpu(0), gpu(1))
    fake_nvml.install(found.path)
    yield found
    fake_nvml.uninstall()


@pytest.fixture
def reader(driver: FakeDriver) -> Reader:
    return Reader({7: "pod-7", 8: "", 9: "pod-9"}.get, lambda: NOW)


def first(reader: Reader) -> Reading:
    return reader.read().gpus[0]


def test_everything_that_a_gpu_tells(driver: FakeDriver, reader: Reader) -> None:
    driver.change(
        0,
        name="NVIDIA L4",
        minor=3,
        pciBusId="00000000:65:00.0",
        otherMiB=1000,
        processes=[{"pid": 7, "usedMiB": 2000}, {"pid": 8, "usedMiB": 24}],
        utilization=55,
        temperature=61,
        power=40.4,
        powerLimit=72,
        throttle=0x01 | 0x20 | 0x04,
        ecc=2,
    )
    snapshot = reader.read()
    assert (snapshot.driver_version, snapshot.cuda_version, len(snapshot.gpus)) == ("580.95.05", "13.0", 2)
    assert snapshot.gpus[0] == Reading(
        uuid="GPU-00000000-0000-4000-8000-000000000000",
        index=0,
        minor=3,
        product="NVIDIA L4",
        pci_bus_id="00000000:65:00.0",
        memory=Memory(total_mib=24576, used_mib=3024, free_mib=21040, reserved_mib=512),
        utilization_percent=55,
        temperature_celsius=61,
        power_watts=40,
        power_limit_watts=72,
        throttle_reasons=("PowerCap", "SoftwareThermal"),
        processes=(Process(7, 2000, "pod-7"), Process(8, 24, "")),
        ecc_uncorrected=2,
    )
    assert snapshot.errors == {}


def test_an_old_driver_counts_its_own_share_as_used(driver: FakeDriver, reader: Reader) -> None:
    driver.set(memoryV2=False)
    driver.change(0, processes=[{"pid": 7, "usedMiB": 2000}])
    seen = first(reader)
    assert seen.memory == Memory(total_mib=24576, used_mib=2512, free_mib=22064, reserved_mib=0)
    assert seen.processes == (Process(7, 2000, "pod-7"),)


def test_what_cannot_be_told_is_none_not_zero(driver: FakeDriver, reader: Reader) -> None:
    nothing = dict.fromkeys(("temperature", "utilization", "power", "powerLimit", "throttle", "ecc"))
    driver.change(0, memory=False, **nothing)
    seen = first(reader)
    assert seen.memory is None
    assert (seen.temperature_celsius, seen.utilization_percent, seen.power_watts) == (None, None, None)
    assert (seen.power_limit_watts, seen.ecc_uncorrected, seen.throttle_reasons) == (None, None, ())
    assert seen.trouble == ""


def test_memory_that_grows_outside(driver: FakeDriver, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    driver.change(0, otherMiB=100, grow={"miBPerSecond": 200, "since": 1000.0, "toMiB": 9000})
    for after, used in ((0, 100), (10, 2100), (100, 9000)):
        monkeypatch.setattr(fake_nvml.time, "time", lambda after=after: 1000.0 + after)
        memory = first(reader).memory
        assert memory is not None
        assert memory.used_mib == used


# ---- processes ---------------------------------------------------------------------------


def test_one_that_computes_and_draws_counts_once(driver: FakeDriver, reader: Reader) -> None:
    driver.change(0, processes=[{"pid": 7, "usedMiB": 300, "type": "CG"}, {"pid": 8, "usedMiB": 5, "type": "G"}])
    assert first(reader).processes == (Process(7, 300, "pod-7"), Process(8, 5, ""))


def test_memory_of_a_process_that_is_not_told(driver: FakeDriver, reader: Reader) -> None:
    driver.change(0, processes=[{"pid": 7, "usedMiB": None}])
    assert first(reader).processes == (Process(7, None, "pod-7"),)


def test_one_that_ended_between_two_looks(driver: FakeDriver) -> None:
    driver.change(0, processes=[{"pid": 4711, "usedMiB": 300}])

    def owner(_pid: int) -> str | None:
        driver.change(0, processes=[])
        return None

    assert first(Reader(owner, lambda: NOW)).processes == ()


def test_many_processes(driver: FakeDriver) -> None:
    driver.change(0, processes=[{"pid": pid, "usedMiB": 1} for pid in range(1, 200)])
    found = first(Reader(lambda pid: "", lambda: NOW)).processes
    assert found is not None
    assert len(found) == 199


# ---- MIG ---------------------------------------------------------------------------------


def test_mig_devices_come_after_their_parent(driver: FakeDriver, reader: Reader) -> None:
    parts = [
        {"uuid": "MIG-a", "profile": "1g.6gb", "gi": 7, "ci": 1, "totalMiB": 6144, "otherMiB": 44},
        {"uuid": "MIG-b", "profile": "2g.12gb", "gi": 3, "totalMiB": 12288, "processes": [{"pid": 9, "usedMiB": 88}]},
    ]
    driver.change(0, mig=parts)
    parent, one, two, other = reader.read().gpus
    assert (parent.mig_enabled, parent.memory, parent.processes, parent.temperature_celsius) == (True, None, None, 40)
    assert (one.uuid, one.index, one.pci_bus_id, one.product) == ("MIG-a", 0, parent.pci_bus_id, "NVIDIA L4")
    assert one.mig == MigDevice(parent_uuid=parent.uuid, profile="1g.6gb", gpu_instance=7, compute_instance=1)
    assert one.memory == Memory(total_mib=6144, used_mib=44, free_mib=6100)
    assert two.mig == MigDevice(parent_uuid=parent.uuid, profile="2g.12gb", gpu_instance=3)
    assert two.processes == (Process(9, 88, "pod-9"),)
    assert (two.temperature_celsius, two.utilization_percent, two.power_watts) == (None, None, None)
    assert (other.mig_enabled, other.index) == (False, 1)


# ---- trouble of one GPU ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "trouble", "told"),
    [
        ("lost", Trouble.LOST, "reboot of the node"),
        ("reset", Trouble.RESET, "nvidia-smi --gpu-reset"),
        ("unknown", Trouble.UNKNOWN, "dmesg"),
    ],
)
def test_one_gpu_in_trouble_and_the_others_go_on(
    driver: FakeDriver, reader: Reader, state: str, trouble: str, told: str
) -> None:
    uuid = first(reader).uuid
    driver.change(0, state=state)
    bad, good = reader.read().gpus
    assert (bad.uuid, bad.index, bad.trouble, bad.memory) == (uuid, 0, trouble, None)
    assert told in bad.message
    assert (good.trouble, good.index) == ("", 1)
    assert good.memory is not None
    driver.change(0, state="ok")
    assert first(reader).trouble == ""


def test_a_gpu_that_was_lost_before_the_agent_came(driver: FakeDriver, reader: Reader) -> None:
    driver.change(1, state="lost")
    assert reader.read().gpus[1].uuid == "unknown-1"
    reader.remember({1: "GPU-told-by-the-api-server"})
    assert reader.read().gpus[1].uuid == "GPU-told-by-the-api-server"


def test_no_uuid_is_told_twice(driver: FakeDriver, reader: Reader) -> None:
    """The indexes move, and the one that stands now where another stood is lost."""
    reader.read()
    one, two = driver.script["gpus"]
    driver.set(gpus=[two, {**one, "state": "lost"}])
    assert [gpu.uuid for gpu in reader.read().gpus] == [two["uuid"], "unknown-1"]


def test_a_gpu_that_has_vanished_is_not_listed(driver: FakeDriver, reader: Reader) -> None:
    assert len(reader.read().gpus) == 2
    driver.set(gpus=driver.script["gpus"][1:])
    (left,) = reader.read().gpus
    assert (left.index, left.uuid) == (0, "GPU-00000001-0000-4000-8000-000000000000")
    driver.set(gpus=[])
    assert reader.read().gpus == ()


# ---- trouble of the driver ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ({"library": False}, "libnvidia-ml.so.1 is not to be found"),
        ({"driver": "not-loaded"}, "the NVIDIA driver is not loaded"),
        ({"gpus": []}, "no GPU that this process may see"),
    ],
)
def test_a_node_without_gpus(driver: FakeDriver, reader: Reader, script: dict[str, Any], told: str) -> None:
    gpus = driver.script["gpus"]
    driver.set(**script)
    for _ in range(2):
        with pytest.raises(NoNvmlError, match=told):
            reader.read()
    driver.set(library=True, driver="ok", gpus=gpus)
    assert len(reader.read().gpus) == 2


def test_no_library_on_this_machine_is_no_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the fake: the loader itself finds nothing."""
    fake_nvml.uninstall()
    monkeypatch.setattr("pynvml.CDLL", _no_library)
    with pytest.raises(NoNvmlError, match="libnvidia-ml"):
        Reader(lambda pid: "", lambda: NOW).read()


def _no_library(name: str) -> None:
    raise OSError(name)


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ({"driverVersion": "590.1"}, "driver was changed under this process"),
        ({"driver": "not-loaded"}, "driver was unloaded"),
        ({"driver": "unknown"}, "everything with an unknown error"),
        ({"library": False}, "driver was removed"),
    ],
)
def test_a_driver_that_goes_ends_the_process(
    driver: FakeDriver, reader: Reader, script: dict[str, Any], told: str
) -> None:
    reader.read()
    driver.set(**script)
    with pytest.raises(DriverGoneError, match=told):
        reader.read()


def test_unknown_from_every_gpu_ends_the_process(driver: FakeDriver, reader: Reader) -> None:
    reader.read()
    driver.change(0, state="unknown")
    reader.read()
    driver.change(1, state="unknown")
    with pytest.raises(DriverGoneError, match="lost its access to the GPUs"):
        reader.read()


def test_a_new_process_lives_with_the_new_driver(driver: FakeDriver, reader: Reader) -> None:
    reader.read()
    driver.set(driverVersion="590.1")
    with pytest.raises(DriverGoneError):
        reader.read()
    fake_nvml.install(driver.path)
    assert Reader(lambda pid: "", lambda: NOW).read().driver_version == "590.1"


# ---- XIDs --------------------------------------------------------------------------------


def test_xids_of_applications_do_not_count(driver: FakeDriver, reader: Reader) -> None:
    reader.read()
    for code in (13, 31, 43, 45, 68, 109, 92, 92):
        driver.xid(1, code)
    zero, one = reader.read().gpus
    assert zero.xids == ()
    assert [(x.code, x.count, x.last) for x in one.xids] == [(92, 2, NOW)]
    assert one.trouble == ""
    assert [x.count for x in reader.read().gpus[1].xids] == [2]


def test_an_xid_after_which_a_gpu_must_be_reset(driver: FakeDriver, reader: Reader) -> None:
    reader.read()
    driver.xid(0, 79)
    for _ in range(2):
        bad, good = reader.read().gpus
        assert (bad.trouble, good.trouble) == (Trouble.XID, "")
        assert "Xid 79 at 2026-03-01 12:00:00 UTC" in bad.message


def test_errors_are_counted(driver: FakeDriver, reader: Reader) -> None:
    driver.change(0, state="lost")
    reader.read()
    assert reader.read().errors == {"GpuIsLost": 2}
