"""The GPU of a speech engine: reserved on its Service before its pod is made, as an avatar's is on its claim.

The books are those of the avatars (domain/ledger.py): what an engine reserves is not free for
an avatar, and the other way round.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from . import devices
from .actions import Json
from .names import ANNOTATION_GPU_INDEX, ANNOTATION_GPU_MIB, ANNOTATION_GPU_NODE, LABEL_GPU
from .placement import Need, Placement, Refusal
from .resources import Termination
from .tts import TtsEngine
from .tts_objects import service
from .tts_view import ConfirmEngine, CreateTtsService, EngineView, PatchTtsService, TtsPlan

# An engine that waits for a GPU is looked at this often (seconds), whatever is heard meanwhile.
LOOK_FOR_GPU_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Gate:
    """How many pods may run now, and on which GPU; ``refused`` and ``reason`` say why there are none."""

    replicas: int
    placement: Placement | None = None
    refused: str = ""
    reason: str = ""


def gate(view: EngineView, engine: TtsEngine, wanted: int, result: TtsPlan) -> Gate:
    """Let ``wanted`` pods through once their GPU is reserved; release it when they are gone."""
    if engine.spec.gpu.mode == "None":
        if view.gpu.reserved is not None and view.service is not None and not view.pods:
            result.actions.append(_release(view))
        return Gate(wanted)
    reserved = view.gpu.reserved
    there = view.deployment.spec.replicas if view.deployment is not None else 0
    if not wanted:
        _release_when_due(view, there, result)
        return Gate(0)
    if reserved is not None and view.gpu.lost:
        if not view.pods and view.service is not None:
            result.actions.append(_release(view))
        return Gate(0, refused=f"{view.gpu.lost}; moving to another GPU", reason="GPULost")
    if reserved is None:
        return _reserve(view, engine, there, result)
    asked = need(engine)
    if (
        view.service is not None
        and there == 0
        and engine.spec.gpu.mode in devices.PLACED_MODES
        and view.gpu.reported
        and view.hints.confirmed != view.service.metadata.uid
    ):
        result.actions.append(ConfirmEngine(view.service, asked))
        return Gate(0, reserved)
    # Modes in which others pick the GPU: the nodes with room by now.
    placement = view.gpu.place if isinstance(view.gpu.place, Placement) and not reserved.uuid else reserved
    return Gate(wanted, placement)


def need(engine: TtsEngine) -> Need:
    """What the engine's pod asks for."""
    return Need(engine.spec.gpu.vram_mib, engine.spec.gpu.min_free_mib)


def _reserve(view: EngineView, engine: TtsEngine, there: int, result: TtsPlan) -> Gate:
    place = view.gpu.place
    if isinstance(place, Placement):
        body = service(engine, engine.name, place)
        if view.service is None:
            result.actions.append(CreateTtsService(body, place))
        else:
            meta = body["metadata"]
            change = {"metadata": {"labels": meta["labels"], "annotations": meta["annotations"]}, "spec": body["spec"]}
            result.actions.append(PatchTtsService(view.service, change, place))
        return Gate(there)
    result.wake_at(view.now + timedelta(seconds=LOOK_FOR_GPU_SECONDS))
    message = place.message if isinstance(place, Refusal) else "nothing is known of any GPU"
    return Gate(there, refused=message, reason="GPUExhausted")


def _release_when_due(view: EngineView, there: int, result: TtsPlan) -> None:
    """The memory counts as free when the pod is gone and the driver has had its time."""
    if view.gpu.reserved is None or view.service is None or view.pods or there:
        return
    gpu = view.gpu
    if not gpu.lost and not gpu.processes_gone and gpu.podless_since is not None:
        due = gpu.podless_since + timedelta(seconds=Termination().gpu_release_seconds)
        if view.now < due:
            result.wake_at(due)
            return
    result.actions.append(_release(view))


def _release(view: EngineView) -> PatchTtsService:
    if view.service is None:
        raise ValueError("only a Service that is there can be released")
    nothing: Json = {
        "labels": {LABEL_GPU: None},
        "annotations": dict.fromkeys((ANNOTATION_GPU_MIB, ANNOTATION_GPU_NODE, ANNOTATION_GPU_INDEX)),
    }
    return PatchTtsService(view.service, {"metadata": nothing})
