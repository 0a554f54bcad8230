"""The GPU of a speech engine: reserved before its pod, released after it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from avatar_operator.domain.names import ANNOTATION_GPU_MIB, ANNOTATION_GPU_NODE, LABEL_GPU
from avatar_operator.domain.placement import Placement, Refusal
from avatar_operator.domain.resources import Service
from avatar_operator.domain.tts import TtsEngine
from avatar_operator.domain.tts_plan import plan
from avatar_operator.domain.tts_view import (
    ConfirmEngine,
    CreateDeployment,
    CreateTtsService,
    PatchDeployment,
    PatchTtsService,
    TtsGpuView,
    TtsHints,
    TtsPlan,
)
from tests.unit.builders import ago, later
from tests.unit.tts_builders import TtsGpu, deployment, engine, in_phase, pod, running, said, service, view

PLACE = Placement(6000, "gpu-a", "GPU-1", 1)
HELD = TtsGpuView(reserved=PLACE, reported=True)


def with_gpu(mode: str = "VisibleDevices", **spec: Any) -> TtsEngine:
    return engine(gpu=TtsGpu(mode=mode, vram_mib=6000), **spec)


def reserving(of: TtsEngine) -> Service:
    """Its Service with the reservation."""
    bare = service(of)
    labels = {**bare.metadata.labels, LABEL_GPU: "GPU-1"}
    annotations = {**bare.metadata.annotations, ANNOTATION_GPU_MIB: "6000", ANNOTATION_GPU_NODE: "gpu-a"}
    metadata = msgspec.structs.replace(bare.metadata, labels=labels, annotations=annotations)
    return msgspec.structs.replace(bare, metadata=metadata)


def started(result: TtsPlan) -> bool:
    """Whether the plan lets pods run."""
    for action in result.actions:
        if isinstance(action, CreateDeployment):
            return bool(action.body["spec"]["replicas"])
        if isinstance(action, PatchDeployment):
            return any(op["path"] == "/spec/replicas" and op["value"] for op in action.operations)
    return False


def test_the_reservation_goes_first() -> None:
    one = with_gpu(status=in_phase("Stopped"))
    result = plan(view(one, users=1, gpu=TtsGpuView(place=PLACE)))
    (made,) = [a for a in result.actions if isinstance(a, CreateTtsService)]
    assert made.placement == PLACE
    assert made.body["metadata"]["labels"][LABEL_GPU] == "GPU-1"
    assert made.body["metadata"]["annotations"][ANNOTATION_GPU_MIB] == "6000"
    assert not started(result)
    again = plan(running(one, users=1, deployment=deployment(one, 0), gpu=TtsGpuView(place=PLACE)))
    (patched,) = [a for a in again.actions if isinstance(a, PatchTtsService)]
    assert patched.placement == PLACE
    assert not started(again)


def test_then_everything_on_that_gpu_is_read_and_then_the_pod_is_made() -> None:
    one = with_gpu(status=in_phase("Starting"))
    fields: dict[str, Any] = {"users": 1, "service": reserving(one), "deployment": None, "gpu": HELD}
    result = plan(running(one, **fields))
    assert [a.need.free for a in result.actions if isinstance(a, ConfirmEngine)] == [6000]
    assert not started(result)
    result = plan(running(one, **fields, hints=TtsHints(confirmed=fields["service"].metadata.uid)))
    (made,) = [a for a in result.actions if isinstance(a, CreateDeployment)]
    pod_of = made.body["spec"]["template"]
    container = pod_of["spec"]["containers"][0]
    assert {"name": "NVIDIA_VISIBLE_DEVICES", "value": "GPU-1"} in container["env"]
    assert pod_of["metadata"]["labels"][LABEL_GPU] == "GPU-1"
    assert made.body["spec"]["strategy"] == {"type": "Recreate"}
    assert said(result)["gpu"] == {"node": "gpu-a", "index": 1, "uuid": "GPU-1", "reservedMiB": 6000}


def test_without_room_it_waits_and_says_why() -> None:
    one = with_gpu(status=in_phase("Stopped"))
    result = plan(view(one, users=1, gpu=TtsGpuView(place=Refusal("needs 6000 MiB free on one GPU"))))
    assert (said(result)["phase"], said(result)["reason"]) == ("Pending", "GPUExhausted")
    assert "6000" in said(result)["message"]
    assert not started(result)
    assert result.wake is not None
    waited = with_gpu(status=in_phase("Pending", since=31))
    result = plan(view(waited, users=1, gpu=TtsGpuView(place=Refusal("needs 6000 MiB"))))
    assert (said(result)["phase"], said(result)["reason"]) == ("Failed", "GPUExhausted")


@pytest.mark.parametrize(
    ("gpu", "released"),
    [
        ({"podless_since": ago(1)}, False),
        ({"podless_since": ago(3)}, True),
        ({"podless_since": ago(1), "processes_gone": True}, True),
        ({"podless_since": ago(1), "lost": "GPU is lost"}, True),
    ],
)
def test_it_is_released_after_its_pod(gpu: dict[str, Any], released: bool) -> None:
    one = with_gpu(status=in_phase("Stopped"))
    held = TtsGpuView(reserved=PLACE, **gpu)
    result = plan(running(one, service=reserving(one), deployment=deployment(one, 0), gpu=held))
    patches = [a.body["metadata"] for a in result.actions if isinstance(a, PatchTtsService)]
    assert bool(patches) is released
    if released:
        assert patches[0]["labels"] == {LABEL_GPU: None}
        assert patches[0]["annotations"][ANNOTATION_GPU_MIB] is None
    else:
        assert result.wake == later(2)


def test_not_while_a_pod_is_there() -> None:
    one = with_gpu(status=in_phase("Stopped"))
    result = plan(running(one, pod(one), service=reserving(one), deployment=deployment(one, 0), gpu=HELD))
    assert not [a for a in result.actions if isinstance(a, PatchTtsService)]


def test_a_lost_gpu_is_left() -> None:
    one = with_gpu(status=in_phase("Ready"))
    lost = TtsGpuView(reserved=PLACE, lost="GPU 1 of gpu-a: lost")
    result = plan(running(one, pod(one, "unready"), users=1, service=reserving(one), gpu=lost))
    (scaled,) = [a for a in result.actions if isinstance(a, PatchDeployment)]
    assert [op["value"] for op in scaled.operations if op["path"] == "/spec/replicas"] == [0]
    assert said(result)["reason"] == "GPULost"
    result = plan(running(one, users=1, service=reserving(one), deployment=deployment(one, 0), gpu=lost))
    assert [a for a in result.actions if isinstance(a, PatchTtsService)]


def test_while_it_runs_it_stays_where_it_is() -> None:
    """Another place would be better by now: no reason to move."""
    one = with_gpu(status=in_phase("Ready"))
    result = plan(running(one, pod(one), users=1, service=reserving(one), gpu=HELD))
    assert not [a for a in result.actions if isinstance(a, (PatchDeployment, PatchTtsService))]


def test_an_engine_that_gives_up_its_gpu_gives_back_the_memory() -> None:
    one = engine(status=in_phase("Stopped"))
    result = plan(running(one, service=reserving(one), deployment=deployment(one, 0), gpu=HELD))
    assert [a for a in result.actions if isinstance(a, PatchTtsService)]


def test_device_plugin_names_the_nodes_with_room() -> None:
    one = with_gpu("DevicePlugin", status=in_phase("Starting"))
    place = Placement(6000, nodes=("gpu-b", "gpu-a"))
    held = TtsGpuView(reserved=Placement(6000, "gpu-b"), place=place)
    result = plan(running(one, users=1, service=reserving(one), deployment=None, gpu=held))
    (made,) = [a for a in result.actions if isinstance(a, CreateDeployment)]
    spec = made.body["spec"]["template"]["spec"]
    assert spec["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    required = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert [t["matchFields"][0]["values"] for t in required["nodeSelectorTerms"]] == [["gpu-b"], ["gpu-a"]]
