"""The agent's reading on a real GPU, against nvidia-smi and a real allocation. Skipped where there is none.

Runs in pytest like any test; on a bare machine with a GPU, where only nvidia-ml-py and msgspec can be had:

    PYTHONPATH=operator python -m unittest -v tests/gpu/test_real_gpu.py

The allocation uses the driver's own library (libcuda.so.1): no CUDA toolkit, no torch.
"""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
import time
import unittest
from datetime import UTC, datetime
from pathlib import Path

from avatar_operator.agent.alerts import Thresholds
from avatar_operator.agent.faults import DriverGoneError, NoNvmlError
from avatar_operator.agent.nvml import Reader
from avatar_operator.agent.pods import Processes
from avatar_operator.agent.reading import Reading, Snapshot
from avatar_operator.agent.report import State, report, worth_writing

ALLOCATED_MIB = 2048
# Somebody else may use the machine between two looks.
NEAR_MIB, NEAR_CELSIUS, NEAR_WATTS = 300, 8, 150
QUERY = (
    "index,uuid,name,pci.bus_id,driver_version,memory.total,memory.reserved,memory.used,memory.free,"
    "temperature.gpu,power.draw,power.limit,utilization.gpu,mig.mode.current"
)
# A process of its own holds the memory, as an LLM outside Kubernetes would.
HOLD = """
import ctypes, sys
cuda = ctypes.CDLL("libcuda.so.1")
def check(code, what):
    if code:
        sys.exit(f"{what}: CUDA error {code}")
device, context, memory = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
check(cuda.cuInit(0), "cuInit")
check(cuda.cuDeviceGet(ctypes.byref(device), 0), "cuDeviceGet")
check(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device), "cuDevicePrimaryCtxRetain")
check(cuda.cuCtxSetCurrent(context), "cuCtxSetCurrent")
check(cuda.cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t(int(sys.argv[1]) << 20)), "cuMemAlloc")
check(cuda.cuMemsetD8_v2(memory, ctypes.c_ubyte(1), ctypes.c_size_t(int(sys.argv[1]) << 20)), "cuMemsetD8")
check(cuda.cuCtxSynchronize(), "cuCtxSynchronize")
print("held", flush=True)
sys.stdin.read()
"""


def setUpModule() -> None:
    """Skip all where there is no GPU: that is no failure, not in CI either."""
    try:
        reader().read()
    except (NoNvmlError, DriverGoneError) as error:
        raise unittest.SkipTest(f"no GPU here: {error}") from error
    if shutil.which("nvidia-smi") is None:
        raise unittest.SkipTest("no nvidia-smi to compare with")


def reader() -> Reader:
    return Reader(Processes().owner, lambda: datetime.now(UTC))


def smi() -> list[dict[str, str]]:
    """What nvidia-smi says of each GPU, without units."""
    command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"]
    text = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    rows = csv.reader(text.splitlines(), skipinitialspace=True)
    return [dict(zip(QUERY.split(","), row, strict=True)) for row in rows]


def number(text: str) -> float | None:
    """A figure of nvidia-smi; None for [N/A] and its like."""
    try:
        return float(text)
    except ValueError:
        return None


def cuda_uuid() -> str:
    """The UUID of CUDA's device 0, which need not be NVML's."""
    code = (
        "import ctypes; c = ctypes.CDLL('libcuda.so.1'); b = (ctypes.c_ubyte * 16)(); assert c.cuInit(0) == 0; "
        "assert c.cuDeviceGetUuid(b, 0) == 0; print(bytes(b).hex())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise unittest.SkipTest(f"no CUDA here: {done.stderr.strip()[-200:]}")
    raw = done.stdout.strip()
    return "GPU-" + "-".join((raw[:8], raw[8:12], raw[12:16], raw[16:20], raw[20:]))


class RealGpu(unittest.TestCase):
    """The machine's GPUs."""

    def near(self, ours: float | None, theirs: str, distance: float, what: str) -> None:
        """Both know the figure and are about of one mind, or both do not know it."""
        expected = number(theirs)
        if expected is None or ours is None:
            assert expected == ours, what
            return
        assert abs(ours - expected) <= distance, f"{what}: {ours} here, {theirs} by nvidia-smi"

    def test_figures_are_those_of_nvidia_smi(self) -> None:
        """Every GPU, every figure."""
        snapshot = reader().read()
        whole = [r for r in snapshot.gpus if r.mig is None]
        told = smi()
        assert len(whole) == len(told)
        for ours, theirs in zip(whole, told, strict=True):
            print(f"\n  here: {ours}\n  smi:  {theirs}")
            assert str(ours.index) == theirs["index"]
            assert ours.uuid == theirs["uuid"]
            assert ours.product == theirs["name"]
            assert ours.pci_bus_id.lower() == theirs["pci.bus_id"].lower()
            assert snapshot.driver_version == theirs["driver_version"]
            assert ours.mig_enabled == (theirs["mig.mode.current"] == "Enabled")
            self.near(ours.temperature_celsius, theirs["temperature.gpu"], NEAR_CELSIUS, "temperature")
            self.near(ours.power_watts, theirs["power.draw"], NEAR_WATTS, "power")
            self.near(ours.power_limit_watts, theirs["power.limit"], 1, "power limit")
            if ours.mig_enabled:
                continue
            memory = ours.memory
            self.near(memory and memory.total_mib, theirs["memory.total"], 1, "memory in all")
            self.near(memory and memory.reserved_mib, theirs["memory.reserved"], 1, "reserved memory")
            self.near(memory and memory.used_mib, theirs["memory.used"], NEAR_MIB, "used memory")
            self.near(memory and memory.free_mib, theirs["memory.free"], NEAR_MIB, "free memory")

    def test_an_allocation_outside_kubernetes_is_seen(self) -> None:
        """Seen as used, as nobody's pod, as worth a report; and gone with its process."""
        uuid, agent, limits = cuda_uuid(), reader(), Thresholds()
        before = agent.read()
        free = self.free(before, uuid)
        state = report(State(), before, limits, 30, datetime.now(UTC))
        command = [sys.executable, "-c", HOLD, str(ALLOCATED_MIB)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout is not None
            assert holder.stdin is not None
            assert holder.stdout.readline().strip() == "held"
            during = agent.read()
            held = free - self.free(during, uuid)
            print(f"\n  {ALLOCATED_MIB} MiB allocated, {held} MiB less free (the rest is the context)")
            assert held >= ALLOCATED_MIB - NEAR_MIB
            assert held < ALLOCATED_MIB + 2048
            new = report(state, during, limits, 30, datetime.now(UTC))
            assert worth_writing(state.status, new.status)
            self.judge_process(self.one(during, uuid), holder.pid)
            holder.stdin.close()
        deadline = time.monotonic() + 20
        while free - self.free(agent.read(), uuid) > NEAR_MIB and time.monotonic() < deadline:
            time.sleep(0.5)
        assert free - self.free(agent.read(), uuid) <= NEAR_MIB, "it did not come free again"

    def judge_process(self, reading: Reading, pid: int) -> None:
        """NVML names processes by the node's PIDs: in a container they may be others, or hidden."""
        found = [p for p in reading.processes or () if p.pid == pid]
        print(f"  processes: {reading.processes}")
        if not found:
            print(f"  PID {pid} is not among them: this is another PID namespace than the driver's")
            return
        if found[0].used_mib is not None:
            assert found[0].used_mib >= ALLOCATED_MIB
        assert found[0].pod is not None, "its cgroup could not be read"

    def test_a_reading_is_quick(self) -> None:
        """No limit: a figure for people. A reading must stay far below the period of 10 s."""
        agent = reader()
        agent.read()
        began = time.monotonic()
        for _ in range(10):
            agent.read()
        took = (time.monotonic() - began) / 10
        rss = Path("/proc/self/status").read_text().split("VmRSS:")[1].split("kB")[0].strip()
        print(f"\n  {1000 * took:.1f} ms a reading; this process holds {int(rss) // 1024} MiB")
        assert took < 5

    def one(self, snapshot: Snapshot, uuid: str) -> Reading:
        """The reading of one GPU."""
        return next(r for r in snapshot.gpus if r.uuid == uuid)

    def free(self, snapshot: Snapshot, uuid: str) -> int:
        """Its free memory in MiB."""
        memory = self.one(snapshot, uuid).memory
        if memory is None:
            self.skipTest("this GPU does not tell its memory")
        return memory.free_mib


if __name__ == "__main__":
    unittest.main(verbosity=2)
