"""What the console is told of objects: nothing that is not everybody's to know, everything that a page shows."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from avatar_operator.api import scenes
from avatar_operator.domain.gpunode import Alert, GpuNode, GpuNodeSpec, GpuNodeStatus, GpuReport, Memory
from avatar_operator.domain.resources import InstanceStatus, Meta, PoolPortStatus, PoolStatus, Session
from avatar_operator.domain.slots import Slot, slots
from avatar_operator.domain.told import About, Told
from tests.unit.builders import NOW, ago, avatar, instance, pool

MODEL = (Path(__file__).resolve().parents[2] / "console/src/model.ts").read_text()


@pytest.mark.parametrize(
    ("interface", "scene"),
    [
        ("Where", scenes.Where),
        ("Fact", scenes.Fact),
        ("Media", scenes.MediaScene),
        ("Instance", scenes.InstanceScene),
        ("Port", scenes.PortScene),
        ("Pool", scenes.PoolScene),
        ("Avatar", scenes.AvatarScene),
        ("Memory", scenes.MemoryScene),
        ("Gpu", scenes.GpuScene),
        ("Engine", scenes.EngineScene),
        ("Happening", scenes.EventScene),
    ],
)
def test_the_page_reads_the_fields_that_are_sent(interface: str, scene: type[msgspec.Struct]) -> None:
    found = re.search(rf"export interface {interface} {{\n(.*?)\n}}", MODEL, re.DOTALL)
    assert found is not None
    fields = re.findall(r"^  (\w+): ", found[1], re.MULTILINE)
    assert fields == list(scene.__struct_fields__)


def test_nobody_is_told_who_is_connected() -> None:
    status = InstanceStatus(phase="Running", sessions=(Session("secret-id", "secret-user"),))
    told = scenes.instance(instance("one", status=status), pool(), avatar())
    assert told.connections == 1
    lapsed = Told(
        Meta("e", uid="u"), About("AvatarInstance", "one"), reason="SessionExpired",
        message="no sign of life from session secret-id of secret-user in its time",
    )  # fmt: skip
    assert b"secret" not in msgspec.json.encode([told, scenes.event(lapsed)])


def test_an_instance_of_an_unknown_pool_and_avatar_is_shown() -> None:
    told = scenes.instance(instance("one"), None, None)
    assert (told.phase, told.serves, told.max_sessions) == ("Pending", False, None)
    assert scenes.instance(instance("one"), pool(), None).max_sessions


def test_gpus_that_are_ill_say_so_and_split_ones_are_left_to_their_parts() -> None:
    whole = GpuReport("GPU-0", mig_enabled=True)
    part = GpuReport("MIG-0", memory=Memory(total_mib=100, used_mib=40, free_mib=60))
    ill = GpuReport("GPU-1", index=1, product="NVIDIA L4", healthy=False, reason="GPULost", message="gone")
    warm = GpuReport("GPU-2", index=2, alerts=(Alert("Temperature", "91 °C"),))
    status = GpuNodeStatus(last_report=NOW, gpus=(whole, part, ill, warm))
    node = GpuNode(Meta("box"), GpuNodeSpec(cordoned=("GPU-2",)), status)
    found = scenes.gpus(node, {})
    assert list(found) == ["box/MIG-0", "box/GPU-1", "box/GPU-2"]
    assert found["box/MIG-0"].memory == scenes.MemoryScene(100, 0, 0, 40, 60)
    assert [a.type for a in found["box/GPU-1"].alerts] == ["GPULost"]
    assert (found["box/GPU-1"].product, found["box/GPU-2"].cordoned) == ("L4", True)


def test_each_port_says_what_it_is() -> None:
    held = [
        instance("busy", status=InstanceStatus(phase="Running", port=8615, connections=1)),
        instance("seen", status=InstanceStatus(phase="Running", port=8616, observed_sessions=1)),
        instance("shared", status=InstanceStatus(phase="Shared", port=8617, connections=1)),
        instance("server", status=InstanceStatus(phase="Running", port=8617)),
        instance("young", status=InstanceStatus(phase="Starting", port=8618, start_time=ago(1))),
    ]
    five = msgspec.structs.replace(pool(), status=PoolStatus(ports=PoolPortStatus(5, 0, [8615, 8619])))
    found = slots(five, held)
    assert [p.slot for p in found] == [Slot.IN_USE, Slot.IN_USE, Slot.IN_USE, Slot.MOVING, Slot.CLAIMED]
    assert [p.instance for p in found] == ["busy", "seen", "server", "young", ""]
    assert [p.slot for p in slots(pool(), held[:1])][1:] == [Slot.FREE] * 4
