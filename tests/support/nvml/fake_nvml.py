"""libnvidia-ml as an object: nvidia-ml-py runs unchanged, with this in place of the library that it loads.

A JSON file says what the driver answers; it is read again whenever it has changed. All fields are optional:

    {"library": true,               false: there is no libnvidia-ml.so.1
     "driver": "ok",                "not-loaded", "unknown" (every call fails with 999)
     "driverVersion": "580.95.05",  another one than at a process's nvmlInit: that process gets a version mismatch
     "cudaVersion": 13000,
     "memoryV2": true,              false: an old driver (neither v2 of memory nor v3 of processes)
     "hang": "nvmlDeviceGetName",   this function does not return for as long as this stands here
     "xids": [{"uuid": "GPU-…", "xid": 79}],   only ever add to it: each process hears what is added after it listens
     "gpus": [{
        "uuid": "GPU-…", "name": "NVIDIA L4", "pciBusId": "00000000:65:00.0", "minor": 0,
        "totalMiB": 24576, "reservedMiB": 512,
        "otherMiB": 0,              in use by nobody who is listed in processes
        "grow": {"miBPerSecond": 200, "since": 1700000000.0, "toMiB": 20000},   on top of otherMiB
        "processes": [{"pid": 4711, "usedMiB": 1000, "type": "C"}],   usedMiB null: not told; type C, G or CG
        "state": "ok",              "lost", "reset", "unknown"
        "memory": true,             false: not supported (unified memory)
        "temperature": 40, "utilization": 0, "power": 30.5, "powerLimit": 72, "throttle": 0 (bits), "ecc": 0,
        "mig": [{"uuid": "MIG-…", "profile": "1g.6gb", "gi": 1, "ci": 0, "totalMiB": 6144, "otherMiB": 0,
                 "processes": []}]}]}

A GPU that is taken out of ``gpus`` is gone. ``null`` for a figure: not supported.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import time
from pathlib import Path
from typing import Any

import pynvml as n

MIB = 1 << 20
Json = dict[str, Any]

_STATES = {"lost": n.NVML_ERROR_GPU_IS_LOST, "reset": n.NVML_ERROR_RESET_REQUIRED, "unknown": n.NVML_ERROR_UNKNOWN}
_GPU, _MIG, _EVENTS = 0x10000, 0x20000, 0x30000


class _Refused(Exception):
    """What the function returns instead of NVML_SUCCESS."""

    def __init__(self, code: int) -> None:
        self.code = code


class FakeNvml:
    """Attributes are the C functions; what is not here, this library does not have."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._stamp: tuple[int, int, int] | None = None
        self._script: Json = {}
        self._version = ""
        self._heard: int | None = None
        self._listening: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        found = getattr(type(self), f"c_{name}", None)
        if found is None or (name.endswith(("Info_v2", "Processes_v3")) and not self.script.get("memoryV2", True)):
            raise AttributeError(name)
        # pynvml sets attributes (restype) on what it finds.
        return functools.partial(self._call, name, found)

    @property
    def script(self) -> Json:
        """The file's content as it is now."""
        state = os.stat(self._path)
        stamp = (state.st_mtime_ns, state.st_ino, state.st_size)
        if stamp != self._stamp:
            self._script, self._stamp = json.loads(self._path.read_text()), stamp
        return self._script

    def _call(self, name: str, function: Any, *args: Any) -> Any:
        if name == "nvmlErrorString":
            return b"error of the fake"
        while self.script.get("hang") == name:
            time.sleep(0.05)
        try:
            self._gate(name)
            function(self, *args)
        except _Refused as refused:
            return refused.code
        return n.NVML_SUCCESS

    def _gate(self, name: str) -> None:
        script = self.script
        if not script.get("library", True):
            raise _Refused(n.NVML_ERROR_LIBRARY_NOT_FOUND)
        driver = script.get("driver", "ok")
        if driver != "ok":
            raise _Refused({"not-loaded": n.NVML_ERROR_DRIVER_NOT_LOADED, "unknown": n.NVML_ERROR_UNKNOWN}[driver])
        if name == "nvmlInitWithFlags":
            return
        if not self._version:
            raise _Refused(n.NVML_ERROR_UNINITIALIZED)
        if self._version != self._driver_version:
            raise _Refused(n.NVML_ERROR_LIB_RM_VERSION_MISMATCH)

    @property
    def _driver_version(self) -> str:
        return str(self.script.get("driverVersion", "580.95.05"))

    # ---- handles ---------------------------------------------------------------------------

    def _gpu(self, index: int) -> Json:
        gpus = self.script.get("gpus", [])
        if index >= len(gpus):
            raise _Refused(n.NVML_ERROR_INVALID_ARGUMENT)
        gpu: Json = gpus[index]
        if gpu.get("state", "ok") != "ok":
            raise _Refused(_STATES[gpu["state"]])
        return gpu

    def _of(self, handle: Any) -> tuple[Json, Json | None]:
        """The GPU, and the MIG device if the handle is that of one."""
        value = ctypes.cast(handle, ctypes.c_void_p).value or 0
        if value & _MIG:
            gpu = self._gpu((value >> 8) & 0xFF)
            return gpu, gpu["mig"][value & 0xFF]
        return self._gpu(value & 0xFF), None

    def _whole(self, handle: Any, field: str, default: Any) -> Any:
        """A figure that MIG devices do not have."""
        gpu, mig = self._of(handle)
        value = gpu.get(field, default)
        if mig is not None or value is None:
            raise _Refused(n.NVML_ERROR_NOT_SUPPORTED)
        return value

    # ---- the system ------------------------------------------------------------------------

    def c_nvmlInitWithFlags(self, _flags: Any) -> None:
        self._version = self._driver_version

    def c_nvmlShutdown(self) -> None:
        self._version = ""

    def c_nvmlErrorString(self, _code: Any) -> None: ...

    def c_nvmlSystemGetDriverVersion(self, text: Any, _size: Any) -> None:
        text.value = self._driver_version.encode()

    def c_nvmlSystemGetCudaDriverVersion_v2(self, number: Any) -> None:
        number._obj.value = self.script.get("cudaVersion", 13000)

    # ---- devices ---------------------------------------------------------------------------

    def c_nvmlDeviceGetCount_v2(self, count: Any) -> None:
        count._obj.value = len(self.script.get("gpus", []))

    def c_nvmlDeviceGetHandleByIndex_v2(self, index: Any, handle: Any) -> None:
        self._gpu(index.value)
        _point(handle, _GPU | index.value)

    def c_nvmlDeviceGetHandleByUUID(self, uuid: Any, handle: Any) -> None:
        for index, gpu in enumerate(self.script.get("gpus", [])):
            if gpu["uuid"] == uuid.value.decode():
                self._gpu(index)
                return _point(handle, _GPU | index)
        raise _Refused(n.NVML_ERROR_NOT_FOUND)

    def c_nvmlDeviceGetUUID(self, handle: Any, text: Any, _size: Any) -> None:
        gpu, mig = self._of(handle)
        text.value = (gpu if mig is None else mig)["uuid"].encode()

    def c_nvmlDeviceGetName(self, handle: Any, text: Any, _size: Any) -> None:
        gpu, mig = self._of(handle)
        text.value = (gpu.get("name", "NVIDIA L4") + (f" MIG {mig['profile']}" if mig else "")).encode()

    def c_nvmlDeviceGetIndex(self, handle: Any, number: Any) -> None:
        self._of(handle)
        number._obj.value = ctypes.cast(handle, ctypes.c_void_p).value & 0xFF  # type: ignore[operator]

    def c_nvmlDeviceGetMinorNumber(self, handle: Any, number: Any) -> None:
        number._obj.value = self._whole(handle, "minor", (ctypes.cast(handle, ctypes.c_void_p).value or 0) & 0xFF)

    def c_nvmlDeviceGetPciInfo_v3(self, handle: Any, info: Any) -> None:
        index = (ctypes.cast(handle, ctypes.c_void_p).value or 0) & 0xFF
        info._obj.busId = self._whole(handle, "pciBusId", f"00000000:{index + 1:02X}:00.0").encode()

    def c_nvmlDeviceGetMemoryInfo(self, handle: Any, info: Any) -> None:
        total, reserved, used = self._memory(handle)
        info._obj.total, info._obj.free, info._obj.used = total, total - reserved - used, reserved + used

    def c_nvmlDeviceGetMemoryInfo_v2(self, handle: Any, info: Any) -> None:
        if info._obj.version != n.nvmlMemory_v2:
            raise _Refused(n.NVML_ERROR_ARGUMENT_VERSION_MISMATCH)
        total, reserved, used = self._memory(handle)
        info._obj.total, info._obj.free, info._obj.used = total, total - reserved - used, used
        info._obj.reserved = reserved

    def _memory(self, handle: Any) -> tuple[int, int, int]:
        gpu, mig = self._of(handle)
        if not gpu.get("memory", True):
            raise _Refused(n.NVML_ERROR_NOT_SUPPORTED)
        device = gpu if mig is None else mig
        total, reserved = device.get("totalMiB", 24576), device.get("reservedMiB", 512 if mig is None else 0)
        used = device.get("otherMiB", 0) + sum(p.get("usedMiB") or 0 for p in device.get("processes", []))
        if grow := device.get("grow"):
            used += max(0.0, time.time() - grow.get("since", 0)) * grow.get("miBPerSecond", 0)
            used = min(used, grow.get("toMiB", used))
        return total * MIB, reserved * MIB, min(int(used * MIB), (total - reserved) * MIB)

    def c_nvmlDeviceGetUtilizationRates(self, handle: Any, rates: Any) -> None:
        rates._obj.gpu, rates._obj.memory = self._whole(handle, "utilization", 0), 0

    def c_nvmlDeviceGetTemperature(self, handle: Any, _sensor: Any, number: Any) -> None:
        number._obj.value = self._whole(handle, "temperature", 40)

    def c_nvmlDeviceGetPowerUsage(self, handle: Any, number: Any) -> None:
        number._obj.value = int(self._whole(handle, "power", 30) * 1000)

    def c_nvmlDeviceGetEnforcedPowerLimit(self, handle: Any, number: Any) -> None:
        number._obj.value = int(self._whole(handle, "powerLimit", 72) * 1000)

    def c_nvmlDeviceGetCurrentClocksEventReasons(self, handle: Any, bits: Any) -> None:
        bits._obj.value = self._whole(handle, "throttle", 0)

    def c_nvmlDeviceGetTotalEccErrors(self, handle: Any, _kind: Any, _counter: Any, number: Any) -> None:
        number._obj.value = self._whole(handle, "ecc", 0)

    # ---- processes -------------------------------------------------------------------------

    def c_nvmlDeviceGetComputeRunningProcesses_v3(self, handle: Any, count: Any, into: Any) -> None:
        self._processes("C", handle, count, into)

    def c_nvmlDeviceGetGraphicsRunningProcesses_v3(self, handle: Any, count: Any, into: Any) -> None:
        self._processes("G", handle, count, into)

    c_nvmlDeviceGetComputeRunningProcesses_v2 = c_nvmlDeviceGetComputeRunningProcesses_v3
    c_nvmlDeviceGetGraphicsRunningProcesses_v2 = c_nvmlDeviceGetGraphicsRunningProcesses_v3

    def _processes(self, kind: str, handle: Any, count: Any, into: Any) -> None:
        gpu, mig = self._of(handle)
        device = gpu if mig is None else mig
        found = [p for p in device.get("processes", []) if kind in p.get("type", "C")]
        room, count._obj.value = count._obj.value, len(found)
        if len(found) > room:
            raise _Refused(n.NVML_ERROR_INSUFFICIENT_SIZE)
        for slot, process in enumerate(found):
            used = process.get("usedMiB")
            into[slot].pid = process["pid"]
            into[slot].usedGpuMemory = n.NVML_VALUE_NOT_AVAILABLE_ulonglong.value if used is None else int(used * MIB)

    # ---- MIG -------------------------------------------------------------------------------

    def c_nvmlDeviceGetMigMode(self, handle: Any, current: Any, pending: Any) -> None:
        gpu, mig = self._of(handle)
        if mig is not None or not gpu.get("migCapable", True):
            raise _Refused(n.NVML_ERROR_NOT_SUPPORTED)
        current._obj.value = pending._obj.value = int("mig" in gpu)

    def c_nvmlDeviceGetMaxMigDeviceCount(self, handle: Any, count: Any) -> None:
        self._of(handle)
        count._obj.value = 7

    def c_nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Any, number: Any, into: Any) -> None:
        gpu, _ = self._of(handle)
        if number.value >= len(gpu["mig"]):
            raise _Refused(n.NVML_ERROR_NOT_FOUND)
        index = (ctypes.cast(handle, ctypes.c_void_p).value or 0) & 0xFF
        _point(into, _MIG | index << 8 | number.value)

    def c_nvmlDeviceGetGpuInstanceId(self, handle: Any, number: Any) -> None:
        number._obj.value = self._part(handle)["gi"]

    def c_nvmlDeviceGetComputeInstanceId(self, handle: Any, number: Any) -> None:
        number._obj.value = self._part(handle).get("ci", 0)

    def _part(self, handle: Any) -> Json:
        mig = self._of(handle)[1]
        if mig is None:
            raise _Refused(n.NVML_ERROR_INVALID_ARGUMENT)
        return mig

    # ---- events ----------------------------------------------------------------------------

    def c_nvmlEventSetCreate(self, into: Any) -> None:
        self._heard = len(self.script.get("xids", []))
        _point(into, _EVENTS)

    def c_nvmlEventSetFree(self, _set: Any) -> None:
        self._heard = None

    def c_nvmlDeviceRegisterEvents(self, handle: Any, _kinds: Any, _set: Any) -> None:
        self._listening.add(self._of(handle)[0]["uuid"])

    def c_nvmlEventSetWait_v2(self, _set: Any, data: Any, _milliseconds: Any) -> None:
        queue = self.script.get("xids", [])
        uuids = [gpu["uuid"] for gpu in self.script.get("gpus", [])]
        while self._heard is not None and self._heard < len(queue):
            item = queue[self._heard]
            self._heard += 1
            if item["uuid"] in self._listening and item["uuid"] in uuids:
                data._obj.device = ctypes.cast(
                    ctypes.c_void_p(_GPU | uuids.index(item["uuid"])), type(data._obj.device)
                )
                data._obj.eventType, data._obj.eventData = n.nvmlEventTypeXidCriticalError, item["xid"]
                return
        raise _Refused(n.NVML_ERROR_TIMEOUT)


def _point(into: Any, value: int) -> None:
    """``*into = value`` for a pointer to a handle."""
    ctypes.cast(into, ctypes.POINTER(ctypes.c_void_p))[0] = value


def install(path: str | os.PathLike[str]) -> FakeNvml:
    """Let pynvml in this process use the fake."""
    fake = FakeNvml(path)
    n.nvmlLib = fake
    n._nvmlGetFunctionPointer_cache.clear()
    return fake


def uninstall() -> None:
    """Let pynvml look for the real library again."""
    n.nvmlLib = None
    n._nvmlGetFunctionPointer_cache.clear()
