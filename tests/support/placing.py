"""Sentences that the tests of GPU placement share."""

from __future__ import annotations

import re

from .api import Json
from .gpus import GPU_MIB, LABEL_GPU, LABEL_TIER, Gpus
from .world import World

NAMES = [f"i{number:02}" for number in range(20)]
PRIMARY = {"nodeSelector": {LABEL_TIER: "primary"}}
BACKUP = {"nodeSelector": {LABEL_TIER: "backup"}}


async def placed(world: World, name: str) -> Json:
    """Make an instance of the avatar of the same name; its status.gpu when it runs."""
    await world.instance(name, name)
    return dict((await world.phase(name, "Running"))["gpu"])


async def reserved_mib(world: World, gpus: Gpus) -> dict[str, int]:
    """MiB that the Services reserve, by GPU."""
    found = {gpu.uuid: 0 for gpu in gpus.all}
    for service in await world.services():
        meta = service["metadata"]
        found[meta["labels"][LABEL_GPU]] += int(meta["annotations"][GPU_MIB])
    return found


def in_phase(statuses: dict[str, Json], phase: str) -> list[str]:
    """The names of instances in a phase."""
    return [name for name, status in statuses.items() if status.get("phase") == phase]


def in_line(statuses: dict[str, Json]) -> list[str]:
    """Those who wait, the first first."""
    return sorted(in_phase(statuses, "Pending"), key=lambda name: statuses[name].get("queuePosition", 0))


def tells(status: Json, *wanted: int) -> bool:
    """Whether the message has these figures: what is needed, the best that is free."""
    figures = {int(f) for f in re.findall(r"\b\d+\b", status.get("message", ""))}
    return set(wanted) <= figures
