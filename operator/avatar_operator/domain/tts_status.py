"""What a TTSEngine's status says, as the smallest patch that says it."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from .actions import Event, Json
from .clock import floor
from .fields import fields_of
from .resources import GpuStatus
from .status import full, merge_conditions
from .tts import TtsEngine, TtsStatus
from .tts_choice import service_url
from .tts_gpu import Gate
from .tts_view import EngineView, SayEngine, Speaker, TtsPlan

# Counts that move while nothing else does are written this often at most (seconds).
COUNTS_SECONDS = 2
SERVING = "Serving"
_COUNTS = {"users", "replicas", "readyReplicas"}
_FIELDS = fields_of(TtsStatus)


def say(
    view: EngineView,
    engine: TtsEngine,
    speaker: Speaker,
    gpu: Gate,
    wanted: int,
    ready: int,
    idle_deadline: datetime | None,
    result: TtsPlan,
) -> None:
    """Plan the patch of the engine's status; nothing if it says all that already."""
    status, now = engine.status, view.now
    fields: Json = {
        "observedGeneration": engine.metadata.generation,
        "phase": speaker.phase,
        "reason": speaker.reason,
        "message": speaker.message,
        "url": service_url(engine),
        "users": view.users + view.covers,
        "replicas": wanted,
        "readyReplicas": ready,
        "fallback": speaker.stands_in or None,
        "startTime": (status.start_time or floor(now)) if wanted else None,
        "readyTime": (status.ready_time or floor(now)) if ready else (status.ready_time if wanted else None),
        "idleDeadline": idle_deadline,
        "gpu": _gpu(view, gpu) if wanted else None,
    }
    change: Json = {
        name: full(value) if isinstance(value, msgspec.Struct) else plain
        for name, value in fields.items()
        if (plain := _plain(value)) != _plain(getattr(status, _FIELDS[name])) or (name == "users" and not status.phase)
    }
    up = speaker.phase == "Ready"
    # Not called Ready: helm would wait for an engine that nobody needs.
    condition = (SERVING, "True" if up else "False", speaker.reason, speaker.message)
    conditions = merge_conditions(status.conditions, [condition], now, generation=engine.metadata.generation)
    if conditions is not None:
        change["conditions"] = conditions
    if not change:
        return
    if change.keys() <= _COUNTS and view.hints.said_at is not None:
        due = view.hints.said_at + timedelta(seconds=COUNTS_SECONDS)
        if now < due:
            result.wake_at(due)
            return
    result.actions.append(SayEngine(engine, change, _events(engine, speaker, view)))


def _gpu(view: EngineView, gpu: Gate) -> GpuStatus | None:
    reserved = view.gpu.reserved
    if reserved is None or gpu.refused:
        return None
    node = next((p.spec.node_name for p in view.pods if p.spec.node_name), "") or reserved.node
    return GpuStatus(node=node, index=reserved.index or 0, uuid=reserved.uuid, reserved_mib=reserved.mib)


def _events(engine: TtsEngine, speaker: Speaker, view: EngineView) -> tuple[Event, ...]:
    before, status = engine.status.phase, engine.status
    if before == speaker.phase and (status.fallback or "") == speaker.stands_in:
        return ()
    used = view.users + view.covers
    users = f"{used} instance{'' if used == 1 else 's'}"
    match speaker.phase:
        case "Starting" if before == "Ready":
            return (Event("Warning", "Unready", f"{speaker.reason}: {speaker.message}"),)
        case "Starting" | "Pending":
            why = f": {speaker.message}" if speaker.phase == "Pending" else ""
            return (Event("Normal", speaker.phase, f"needed by {users}{why}"),)
        case "Ready":
            text = f"speaks at {service_url(engine)}"
            return (Event("Normal", "Recovered" if before in ("Fallback", "Failed") else "Ready", text),)
        case "Fallback":
            text = f"{speaker.reason}: {speaker.message}; {speaker.stands_in} speaks in its place"
            return (Event("Warning", "Fallback", text),)
        case "Failed":
            return (Event("Warning", speaker.reason, speaker.message),)
        case "Stopped" if before:
            text = f"nobody used it for {engine.spec.idle_timeout_seconds} s (spec.idleTimeoutSeconds)"
            return (Event("Normal", "IdleCollected", text if status.idle_deadline else "no instance needs it"),)
    return ()


def _plain(value: object) -> object:
    plain = msgspec.to_builtins(value)
    return None if plain == "" else plain
