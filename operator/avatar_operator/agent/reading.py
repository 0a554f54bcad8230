"""What one look at the GPUs of this node gave, as plain data. Memory in MiB, °C, W."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from avatar_operator.domain.gpunode import Memory, MigDevice

# Stands, with the index after it, for the UUID of a GPU that was lost before it could tell.
NAMELESS = "unknown-"


class Trouble(StrEnum):
    """Why a GPU is of no use: the ``reason`` of an unhealthy one."""

    LOST = "Lost"
    RESET = "ResetRequired"
    UNKNOWN = "Unknown"
    UNREADABLE = "Unreadable"
    XID = "XID"


@dataclass(frozen=True, slots=True)
class Process:
    """A process that holds memory of a GPU.

    ``used_mib`` None = the driver does not say. ``pod``: UID of its pod, ""
    = not of a pod, None = nobody knows (it is not to be seen in /proc).
    """

    pid: int
    used_mib: int | None = None
    pod: str | None = None


@dataclass(frozen=True, slots=True)
class Xid:
    """An error that the driver told of: how often since the agent's start, and when it was last heard."""

    code: int
    count: int
    last: datetime


@dataclass(frozen=True, slots=True)
class Reading:
    """One GPU, or one MIG device. None = this GPU or this driver cannot tell.

    ``trouble`` empty = healthy; then ``message`` is empty, too. ``minor`` is
    the number of /dev/nvidiaN. ``xids`` holds no errors of applications.
    """

    uuid: str
    index: int
    minor: int | None = None
    product: str = ""
    pci_bus_id: str = ""
    trouble: str = ""
    message: str = ""
    memory: Memory | None = None
    utilization_percent: int | None = None
    temperature_celsius: int | None = None
    power_watts: int | None = None
    power_limit_watts: int | None = None
    throttle_reasons: tuple[str, ...] = ()
    processes: tuple[Process, ...] | None = None
    mig_enabled: bool = False
    mig: MigDevice | None = None
    ecc_uncorrected: int | None = None
    xids: tuple[Xid, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All GPUs of the node, parents before their MIG devices.

    ``problem`` says why there are none. ``errors``: how often NVML answered
    with which error since the agent's start.
    """

    gpus: tuple[Reading, ...] = ()
    driver_version: str = ""
    cuda_version: str = ""
    problem: str = ""
    errors: Mapping[str, int] = field(default_factory=dict)
