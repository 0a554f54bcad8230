"""One speech engine: when its pods run, who answers at its address, what its status says.

Level-triggered like domain/plan.py: everything follows from the view. The
engine runs while an instance speaks through it, or through an engine that it
stands in for; its idle clock stands in status, as that of instances does.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil as round_up

from . import tts_objects as objects
from .clock import ceil
from .names import ANNOTATION_TEMPLATE
from .objects import led_back
from .podstate import PodPhase, PodState, Subject, classify
from .resources import Pod
from .tts import TtsEngine
from .tts_gpu import Gate, gate
from .tts_status import SERVING, say
from .tts_view import (
    CreateDeployment,
    CreateTtsService,
    EngineView,
    PatchDeployment,
    PatchTtsService,
    Speaker,
    TtsPlan,
)

# A crash loop counts as failed after so many restarts.
FAILURES = 3
# Between why an engine is unavailable and why nobody stands in for it.
NOBODY = "; nobody stands in: "

SPEECH = Subject(
    objects.CONTAINER,
    "speech server",
    "spec.image and imagePullSecrets of the TTSEngine",
    "ServerConfigError",
    "spec of the TTSEngine",
)


@dataclass(frozen=True, slots=True)
class Servers:
    """The pods of an engine: those that answer, and how the best of the others stands (None: there is none)."""

    live: tuple[Pod, ...] = ()
    ready: tuple[Pod, ...] = ()
    state: PodState | None = None


def plan(view: EngineView) -> TtsPlan:
    """What to do about ``view`` now, and when to look again."""
    result = TtsPlan()
    engine = view.engine
    if engine is None or engine.metadata.deletion_timestamp is not None:
        # What it made has it as its owner and goes with it.
        return result
    servers = _servers(view, engine)
    wanted, idle_deadline = _replicas(view, engine, result)
    gpu = gate(view, engine, wanted, result)
    speaker = _speaker(view, engine, servers, wanted, gpu, result)
    _keep_service(view, engine, speaker, wanted, result)
    _keep_deployment(view, engine, gpu, result)
    say(view, engine, speaker, gpu, wanted, len(servers.ready), idle_deadline, result)
    return result


# ---- pods ------------------------------------------------------------------------


def _servers(view: EngineView, engine: TtsEngine) -> Servers:
    live = tuple(p for p in view.pods if p.metadata.deletion_timestamp is None)
    # The kubelet asks the health route once a second; the Service leads to a pod when it says so, not before.
    ready = tuple(p for p in live if (said := p.condition("Ready")) is not None and said.status == "True")
    begun = engine.status.ready_time
    states = [
        classify(
            pod,
            view.now,
            startup_timeout=engine.spec.startup_timeout_seconds,
            failures=FAILURES,
            was_ready=begun is not None and begun >= (pod.metadata.creation_timestamp or view.now),
            of=SPEECH,
        )
        for pod in live
        if pod not in ready
    ]
    # The one that is nearest to answering says how it stands.
    order = (PodPhase.STARTING, PodPhase.UNREADY, PodPhase.WAITING, PodPhase.FAILED, PodPhase.READY, PodPhase.ENDING)
    return Servers(live, ready, min(states, key=lambda s: order.index(s.phase), default=None))


def _replicas(view: EngineView, engine: TtsEngine, result: TtsPlan) -> tuple[int, datetime | None]:
    """How many pods there should be, and until when an unused engine runs on."""
    spec, status = engine.spec, engine.status
    there = view.deployment.spec.replicas if view.deployment is not None else 0
    used = view.users + view.covers
    if used:
        wanted = max(1, spec.min_replicas, round_up(used / spec.users_per_replica))
        # Those that are one too many by now may be speaking.
        return min(spec.max_replicas, max(wanted, there)), None
    if there <= spec.min_replicas or not spec.idle_timeout_seconds:
        return max(there, spec.min_replicas), None
    latest = ceil(view.now + timedelta(seconds=spec.idle_timeout_seconds))
    deadline = min(status.idle_deadline or latest, latest)
    if status.idle_deadline is not None and view.now >= deadline:
        return spec.min_replicas, None
    result.wake_at(deadline)
    return there, deadline


# ---- who speaks --------------------------------------------------------------------


def _speaker(view: EngineView, engine: TtsEngine, servers: Servers, wanted: int, gpu: Gate, result: TtsPlan) -> Speaker:
    if not wanted:
        return Speaker("Stopped", "NotUsed", "no instance needs it")
    if servers.ready and view.service is not None:
        return Speaker("Ready", "Serving")
    reason, message, final = _trouble(view, servers, gpu)
    status, limit = engine.status, engine.spec.startup_timeout_seconds
    deadline = _silent_since(view, engine) + timedelta(seconds=limit)
    if status.phase in ("Fallback", "Failed") and status.observed_generation == engine.metadata.generation:
        # It recovers by answering; each step of its tries is not worth a write, here and in all its instances.
        reason, message = status.reason, status.message.partition(NOBODY)[0]
    elif view.now >= deadline and not final:
        what = f"does not answer after {limit} s (spec.startupTimeoutSeconds)"
        known = reason not in ("Starting", "Scheduling")
        reason, message = reason if known else "StartupTimeout", f"{what}: {message or reason}"
    elif not final:
        result.wake_at(deadline)
        return Speaker("Pending" if gpu.refused else "Starting", reason, message)
    other, problem = stand_in(engine, view.engines)
    if other:
        return Speaker("Fallback", reason, message, other)
    return Speaker("Failed", reason, f"{message}{NOBODY}{problem}" if problem else message)


def _trouble(view: EngineView, servers: Servers, gpu: Gate) -> tuple[str, str, bool]:
    """Why nobody answers, and whether waiting alone will not help."""
    if view.hints.taken:
        return "NameTaken", view.hints.taken, True
    if view.hints.rejection:
        return "Rejected", view.hints.rejection, True
    if gpu.refused:
        return gpu.reason, gpu.refused, False
    state = servers.state
    if state is None:
        conditions = view.deployment.status.conditions if view.deployment is not None else ()
        failure = next((c for c in conditions if c.type == "ReplicaFailure" and c.status == "True"), None)
        if failure is not None:
            return failure.reason or "ReplicaFailure", failure.message, True
        return "Scheduling", "waiting for its pod", False
    if state.phase is PodPhase.FAILED:
        return state.reason, state.message, True
    # Every step of a start is not worth a write.
    if state.phase is PodPhase.UNREADY or state.reason == "Unschedulable":
        return state.reason, state.message, False
    return "Starting", "the server is starting", False


def _silent_since(view: EngineView, engine: TtsEngine) -> datetime:
    """Since when nobody answers: the start of this run, or the end of the last answer in it."""
    status = engine.status
    if status.phase == "Ready" or status.start_time is None:
        return view.now
    serving = next((c for c in status.conditions if c.type == SERVING), None)
    if status.ready_time is not None and serving is not None and serving.last_transition_time is not None:
        return max(status.start_time, serving.last_transition_time)
    return status.start_time


def stand_in(engine: TtsEngine, engines: tuple[TtsEngine, ...]) -> tuple[str, str]:
    """The engine that may speak in this one's place now, or "" and why there is none."""
    there = {e.name: e for e in engines if e.metadata.deletion_timestamp is None}
    seen, name, problem = {engine.name}, engine.spec.fallback, ""
    while name:
        other = there.get(name)
        if name in seen:
            return "", problem or f"spec.fallback leads back to {name}"
        if other is None:
            return "", f"spec.fallback: there is no TTSEngine {name!r} here"
        if engine.spec.protocol not in other.spec.protocols:
            return "", f"spec.fallback: {name} does not speak {engine.spec.protocol} (its spec.speaks)"
        if other.status.phase not in ("Fallback", "Failed"):
            return name, ""
        seen.add(name)
        name, problem = other.spec.fallback, f"{name} is unavailable, too"
    return "", problem


# ---- objects -----------------------------------------------------------------------


def _keep_service(view: EngineView, engine: TtsEngine, speaker: Speaker, wanted: int, result: TtsPlan) -> None:
    """The address: it is there from the first use on, and leads to whoever speaks."""
    if any(isinstance(a, (CreateTtsService, PatchTtsService)) for a in result.actions):
        # The GPU goes first; who speaks follows from the next plan.
        return
    who = speaker.stands_in or engine.name
    body = objects.service(engine, who)
    if view.service is None:
        if wanted or view.users:
            result.actions.append(CreateTtsService(body))
        return
    mark = body["metadata"]["annotations"][ANNOTATION_TEMPLATE]
    spec = led_back(view.service.spec, body["spec"])
    if spec or view.service.metadata.annotations.get(ANNOTATION_TEMPLATE) != mark:
        meta = {"annotations": {ANNOTATION_TEMPLATE: mark}}
        result.actions.append(PatchTtsService(view.service, {"metadata": meta, "spec": spec or body["spec"]}))


def _keep_deployment(view: EngineView, engine: TtsEngine, gpu: Gate, result: TtsPlan) -> None:
    replicas, known = gpu.replicas, view.deployment
    if known is None:
        if replicas:
            result.actions.append(CreateDeployment(objects.deployment(engine, replicas, gpu.placement)))
        return
    operations = []
    outdated = known.metadata.annotations.get(ANNOTATION_TEMPLATE) != objects.template_hash(engine)
    # A GPU is chosen anew at each start; while it runs, its pod stays where it is.
    placed = engine.spec.gpu.mode != "None" and replicas > 0 and known.spec.replicas == 0
    if (outdated and replicas) or placed:
        spec = objects.deployment(engine, replicas, gpu.placement)["spec"]
        mark = f"/metadata/annotations/{ANNOTATION_TEMPLATE.replace('~', '~0').replace('/', '~1')}"
        operations += [
            {"op": "replace", "path": "/spec/template", "value": spec["template"]},
            {"op": "replace", "path": "/spec/strategy", "value": spec["strategy"]},
            {"op": "add", "path": mark, "value": objects.template_hash(engine)},
        ]
    if known.spec.replicas != replicas:
        operations.append({"op": "replace", "path": "/spec/replicas", "value": replicas})
    if operations:
        result.actions.append(PatchDeployment(known, operations))
