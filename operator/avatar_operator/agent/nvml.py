"""NVML as data: one `Reader.read()` gives all GPUs; what the driver cannot tell is None, never zero.

A GPU that is lost or wants a reset is reported as such while the others go on;
a driver that went away under us makes every handle worthless, and only a new
process can load the new one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

import pynvml
from pynvml import NVMLError

from avatar_operator.domain.gpunode import Memory, MigDevice

from .faults import DRIVER_GONE, NOT_HERE, NOT_TOLD, OLD_DRIVER, SICK, DriverGoneError, NoNvmlError
from .reading import NAMELESS, Process, Reading, Snapshot, Trouble
from .xids import Xids, after

T = TypeVar("T")

MIB = 1 << 20
_THROTTLE = {
    # GpuIdle is left out: that is no throttling, and it changes all the time.
    pynvml.nvmlClocksEventReasonApplicationsClocksSetting: "ApplicationClocks",
    pynvml.nvmlClocksEventReasonSwPowerCap: "PowerCap",
    pynvml.nvmlClocksEventReasonHwSlowdown: "HardwareSlowdown",
    pynvml.nvmlClocksEventReasonSyncBoost: "SyncBoost",
    pynvml.nvmlClocksEventReasonSwThermalSlowdown: "SoftwareThermal",
    pynvml.nvmlClocksEventReasonHwThermalSlowdown: "HardwareThermal",
    pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown: "PowerBrake",
    pynvml.nvmlClocksEventReasonDisplayClockSetting: "DisplayClocks",
}


class Reader:
    """Reads all GPUs; calls block, so one thread at a time calls `read`.

    ``owner`` maps a PID to a pod UID ("" none, None not to be seen); ``clock`` gives the time of an XID.
    """

    def __init__(self, owner: Callable[[int], str | None], clock: Callable[[], datetime]) -> None:
        self._owner = owner
        self._xids = Xids(clock, self._count)
        self._opened = False
        self._uuids: dict[int, str] = {}
        self._errors: Counter[str] = Counter()

    def remember(self, uuids: Mapping[int, str]) -> None:
        """Which GPU had which index: one that is lost does not tell its UUID."""
        self._uuids = {**uuids, **self._uuids}

    def read(self) -> Snapshot:
        """One look at everything; raises NoNvmlError or DriverGoneError."""
        try:
            if not self._opened:
                pynvml.nvmlInit()
            driver = pynvml.nvmlSystemGetDriverVersion()
            cuda = self._try(pynvml.nvmlSystemGetCudaDriverVersion_v2) or 0
            # Handles do not outlive a driver, and indexes move: both are asked for anew each time.
            count = pynvml.nvmlDeviceGetCount()
            if not count and not self._opened:
                raise NoNvmlError("NVML works, but there is no GPU that this process may see")
            self._opened = True
            self._xids.drain()
            found = [reading for index in range(count) for reading in self._gpu(index)]
        except NVMLError as error:
            raise self._fatal(error) from error
        told = {reading.uuid for reading in found if reading.product}
        # The indexes have moved since: whoever tells its UUID has it.
        found = [replace(r, uuid=f"{NAMELESS}{r.index}") if not r.product and r.uuid in told else r for r in found]
        if found and all(reading.trouble == Trouble.UNKNOWN for reading in found):
            raise DriverGoneError(DRIVER_GONE[pynvml.NVML_ERROR_UNKNOWN])
        self._uuids |= {r.index: r.uuid for r in found if r.mig is None and not r.uuid.startswith(NAMELESS)}
        version = f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else ""
        return Snapshot(tuple(found), driver, version, errors=dict(self._errors))

    def _fatal(self, error: NVMLError) -> Exception:
        self._count(error)
        if not self._opened and error.value in NOT_HERE:
            return NoNvmlError(NOT_HERE[error.value])
        return DriverGoneError(f"{DRIVER_GONE.get(error.value, 'NVML cannot be used')} (NVML: {error})")

    # ---- one GPU ---------------------------------------------------------------------------

    def _gpu(self, index: int) -> list[Reading]:
        """The GPU, and its MIG devices after it."""
        uuid = self._uuids.get(index, f"{NAMELESS}{index}")
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            uuid = pynvml.nvmlDeviceGetUUID(handle)
            self._xids.listen(handle, uuid)
            return self._look(handle, uuid, index)
        except NVMLError as error:
            if error.value in DRIVER_GONE and error.value not in SICK:
                raise
            self._count(error)
            trouble, message = SICK.get(error.value, (Trouble.UNREADABLE, f"NVML cannot read it: {error}"))
            return [Reading(uuid, index, trouble=trouble, message=message, xids=self._xids.of(uuid))]

    def _look(self, handle: Any, uuid: str, index: int) -> list[Reading]:
        mig = (self._try(pynvml.nvmlDeviceGetMigMode, handle) or [0])[0] == pynvml.NVML_DEVICE_MIG_ENABLE
        product = self._try(pynvml.nvmlDeviceGetName, handle) or ""
        pci = self._try(pynvml.nvmlDeviceGetPciInfo, handle)
        bus = pci.busId if pci is not None else ""
        use = self._try(pynvml.nvmlDeviceGetUtilizationRates, handle)
        power = self._try(pynvml.nvmlDeviceGetPowerUsage, handle)
        limit = self._try(pynvml.nvmlDeviceGetEnforcedPowerLimit, handle)
        uncorrected = (handle, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC)
        xids = self._xids.of(uuid)
        trouble, message = after(xids)
        whole = Reading(
            uuid,
            index,
            minor=self._try(pynvml.nvmlDeviceGetMinorNumber, handle),
            product=product,
            pci_bus_id=bus,
            trouble=trouble,
            message=message,
            # What a GPU that is cut up has left says nothing about what its parts have.
            memory=None if mig else self._memory(handle),
            utilization_percent=None if use is None else int(use.gpu),
            temperature_celsius=self._temperature(handle),
            power_watts=None if power is None else round(power / 1000),
            power_limit_watts=None if limit is None else round(limit / 1000),
            throttle_reasons=self._throttle(handle),
            processes=None if mig else self._processes(handle),
            mig_enabled=mig,
            ecc_uncorrected=self._try(pynvml.nvmlDeviceGetTotalEccErrors, *uncorrected),
            xids=xids,
        )
        return [whole, *(self._mig(handle, whole) if mig else [])]

    def _mig(self, parent: Any, whole: Reading) -> list[Reading]:
        found = []
        for number in range(self._try(pynvml.nvmlDeviceGetMaxMigDeviceCount, parent) or 0):
            handle = self._try(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, parent, number)
            if handle is None:
                continue
            part = MigDevice(
                parent_uuid=whole.uuid,
                profile=self._profile(handle),
                gpu_instance=self._try(pynvml.nvmlDeviceGetGpuInstanceId, handle) or 0,
                compute_instance=self._try(pynvml.nvmlDeviceGetComputeInstanceId, handle) or 0,
            )
            found.append(
                Reading(
                    pynvml.nvmlDeviceGetUUID(handle),
                    whole.index,
                    minor=whole.minor,
                    product=whole.product,
                    pci_bus_id=whole.pci_bus_id,
                    trouble=whole.trouble,
                    message=whole.message,
                    memory=self._memory(handle),
                    processes=self._processes(handle),
                    mig=part,
                )
            )
        return found

    def _profile(self, handle: Any) -> str:
        """ "1g.10gb", from the name where the driver tells it there, else from the sizes."""
        name = self._try(pynvml.nvmlDeviceGetName, handle) or ""
        if " MIG " in name:
            return str(name.rpartition(" MIG ")[2])
        sizes = self._try(pynvml.nvmlDeviceGetAttributes, handle)
        return f"{sizes.gpuInstanceSliceCount}g.{round(sizes.memorySizeMB / 1024)}gb" if sizes is not None else ""

    # ---- one figure ------------------------------------------------------------------------

    def _memory(self, handle: Any) -> Memory | None:
        """``used`` without the driver's own share where the driver tells them apart (v2), as nvidia-smi shows it."""
        calls: tuple[Callable[[], Any], ...] = (
            lambda: pynvml.nvmlDeviceGetMemoryInfo(handle, pynvml.nvmlMemory_v2),
            lambda: pynvml.nvmlDeviceGetMemoryInfo(handle),
        )
        # UNKNOWN is let through: whose memory cannot be read at all is of no use.
        info = self._newest(*calls, through=(pynvml.NVML_ERROR_UNKNOWN,))
        if info is None:
            return None
        reserved = getattr(info, "reserved", 0)
        return Memory(
            total_mib=info.total // MIB,
            used_mib=info.used // MIB,
            free_mib=info.free // MIB,
            reserved_mib=reserved // MIB,
        )

    def _temperature(self, handle: Any) -> int | None:
        sensor = pynvml.NVML_TEMPERATURE_GPU
        return self._newest(
            lambda: int(pynvml.nvmlDeviceGetTemperatureV(handle, sensor)),
            lambda: int(pynvml.nvmlDeviceGetTemperature(handle, sensor)),
        )

    def _throttle(self, handle: Any) -> tuple[str, ...]:
        bits = self._newest(
            lambda: int(pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle)),
            lambda: int(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)),
        )
        return tuple(word for bit, word in _THROTTLE.items() if (bits or 0) & bit)

    def _processes(self, handle: Any) -> tuple[Process, ...] | None:
        """Whoever holds memory; None = the driver does not say."""
        found = self._ask_processes(handle)
        if found and any(process.pod is None for process in found):
            # One that ended between the two looks is gone from the second list.
            found = self._ask_processes(handle)
        return found

    def _ask_processes(self, handle: Any) -> tuple[Process, ...] | None:
        used: dict[int, int | None] = {}
        for new, old in (
            (pynvml.nvmlDeviceGetComputeRunningProcesses_v3, pynvml.nvmlDeviceGetComputeRunningProcesses_v2),
            (pynvml.nvmlDeviceGetGraphicsRunningProcesses_v3, pynvml.nvmlDeviceGetGraphicsRunningProcesses_v2),
        ):
            listed = self._newest(partial(new, handle), partial(old, handle))
            if listed is None:
                return None
            for item in listed:
                mib = None if item.usedGpuMemory is None else item.usedGpuMemory // MIB
                # One that computes and draws is in both lists with the same figure.
                known = used.get(item.pid)
                used[item.pid] = mib if known is None or mib is None else max(known, mib)
        return tuple(Process(pid, mib, self._owner(pid)) for pid, mib in used.items())

    # ---- errors ----------------------------------------------------------------------------

    def _try(self, ask: Callable[..., T], *args: Any) -> T | None:
        """The answer, or None where this GPU or driver has none; raises what concerns the whole GPU or driver."""
        return self._newest(lambda: ask(*args))

    def _newest(self, *asks: Callable[[], T], through: tuple[int, ...] = ()) -> T | None:
        """The first of these calls that the driver knows."""
        for number, ask in enumerate(asks, 1):
            try:
                return ask()
            except NVMLError as error:
                code = error.value
                if number < len(asks) and code in OLD_DRIVER:
                    continue
                sick = code in SICK and code != pynvml.NVML_ERROR_UNKNOWN
                gone = code in DRIVER_GONE and code != pynvml.NVML_ERROR_UNKNOWN
                if sick or gone or code in through:
                    raise
                if code not in NOT_TOLD:
                    self._count(error)
                return None
        return None

    def _count(self, error: NVMLError) -> None:
        self._errors[type(error).__name__.removeprefix("NVMLError_")] += 1
