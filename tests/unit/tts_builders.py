"""Small factories for the plans of speech engines; times and names as in builders."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from avatar_operator.domain import names, tts_objects
from avatar_operator.domain.resources import (
    ContainerState,
    ContainerStatus,
    OwnerReference,
    Pod,
    PodSpec,
    PodStatus,
    Running,
    Service,
    ServiceSpec,
    Terminated,
)
from avatar_operator.domain.tts import Deployment, DeploymentSpec, TtsEngine, TtsGpu, TtsSpec, TtsStatus
from avatar_operator.domain.tts_view import EngineView, SayEngine, TtsKey, TtsPlan
from tests.unit.builders import NAMESPACE, NOW, ago, condition, meta

ALL = ["edgetts", "tacotron", "cosyvoice", "gpt-sovits", "omnitts"]


def engine(name: str = "cosyvoice", *, status: dict[str, Any] | None = None, **spec: Any) -> TtsEngine:
    """A TTSEngine, by default one that nobody has used yet."""
    given = {"image": "registry.example/tts:1", "protocol": name, **spec}
    if "speaks" not in given:
        given["speaks"] = ALL
    return TtsEngine(metadata=meta(name), spec=TtsSpec(**given), status=TtsStatus(**(status or {})))


def catalog() -> tuple[TtsEngine, ...]:
    """The four engines of the chart."""
    return (
        engine("edgetts", aliases=["EdgeTTS", "edge"]),
        engine("tacotron", port=5005, aliases=["TacoTron", "TacoTron2"], fallback="edgetts"),
        engine("cosyvoice", port=5006, aliases=["CosyVoice", "cosyvoice2"], fallback="edgetts"),
        engine("sovits", port=5007, protocol="gpt-sovits", aliases=["SoVITS", "GPT-SoVITS"], fallback="edgetts"),
    )


def in_phase(phase: str, *, since: float = 5, **more: Any) -> dict[str, Any]:
    """The status of an engine that came into a phase so many seconds ago."""
    up = phase == "Ready"
    known: dict[str, Any] = {
        "phase": phase,
        "start_time": ago(since) if phase != "Stopped" else None,
        "ready_time": ago(since) if up else None,
        "conditions": (condition("Serving", "True" if up else "False", phase, since=ago(since)),),
    }
    return {**known, **more}


def deployment(of: TtsEngine, replicas: int = 1) -> Deployment:
    """The engine's Deployment as the operator makes it."""
    body = tts_objects.deployment(of, replicas)["metadata"]
    return Deployment(
        metadata=meta(
            body["name"],
            labels=body["labels"],
            annotations=body["annotations"],
            owner_references=(_owner(of),),
        ),
        spec=DeploymentSpec(replicas=replicas),
    )


def service(of: TtsEngine, speaker: str = "", **annotations: str) -> Service:
    """The engine's Service, leading to ``speaker``."""
    body = tts_objects.service(of, speaker or of.name)
    made = body["metadata"]
    return Service(
        metadata=meta(
            made["name"],
            labels=made["labels"],
            annotations={**made["annotations"], **annotations},
            owner_references=(_owner(of),),
        ),
        spec=msgspec.convert(body["spec"], ServiceSpec),
    )


def _owner(of: TtsEngine) -> OwnerReference:
    return OwnerReference(api_version=names.API_VERSION, kind="TTSEngine", name=of.name, uid=of.metadata.uid)


def pod(of: TtsEngine, state: str = "ready", *, age: float = 4, name: str = "", restarts: int = 0) -> Pod:
    """A pod of the engine; ``state``: pending, starting, ready, unready (was ready), crashed or pullfail."""
    ready = condition("Ready", "True" if state == "ready" else "False", since=ago(0 if state == "unready" else age))
    running = ContainerState(running=Running(started_at=ago(age - 1)))
    ended = ContainerState(terminated=Terminated(exit_code=1, reason="Error", message="no model"))
    containers: tuple[ContainerStatus, ...] = ()
    if state in ("starting", "ready", "unready"):
        containers = (ContainerStatus(name="tts", ready=state == "ready", restart_count=restarts, state=running),)
    elif state == "crashed":
        containers = (ContainerStatus(name="tts", restart_count=restarts, state=ended),)
    return Pod(
        metadata=meta(name or f"tts-{of.name}-x1", creation_timestamp=ago(age), labels=tts_objects.labels(of.name)),
        spec=PodSpec(node_name="node-1"),
        status=PodStatus(
            phase="Pending" if state == "pending" else "Running",
            conditions=(ready,),
            container_statuses=containers,
            pod_ip="" if state == "pending" else "192.0.2.9",
            start_time=ago(age),
        ),
    )


def view(of: TtsEngine, *, now: datetime = NOW, others: tuple[TtsEngine, ...] = (), **fields: Any) -> EngineView:
    """An engine's view; alone in its namespace unless ``others`` are given."""
    return EngineView(TtsKey(NAMESPACE, of.name), now, of, engines=(of, *others), **fields)


def running(of: TtsEngine, *pods: Pod, now: datetime = NOW, **fields: Any) -> EngineView:
    """The view of an engine that has a Deployment of one and a Service."""
    known: dict[str, Any] = {"deployment": deployment(of), "service": service(of), "pods": pods}
    return view(of, now=now, **{**known, **fields})


def said(result: TtsPlan) -> dict[str, Any]:
    """What the plan's one patch of status says; empty when there is none."""
    found = [a for a in result.actions if isinstance(a, SayEngine)]
    assert len(found) <= 1, found
    return dict(found[0].status) if found else {}


def events(result: TtsPlan) -> list[str]:
    """The reasons of the plan's events."""
    return [e.reason for a in result.actions if isinstance(a, SayEngine) for e in a.events]


def kinds(result: TtsPlan) -> list[str]:
    """The names of the actions' types, sorted."""
    return sorted(type(a).__name__ for a in result.actions)


__all__ = ["TtsGpu", "catalog", "deployment", "engine", "events", "in_phase", "kinds", "pod", "running", "said"]
