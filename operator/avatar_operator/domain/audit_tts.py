"""Speech engines beside what they run in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime

from . import tts_objects
from .findings import LATE_SECONDS, Finding, Picture, about, live
from .names import LABEL_TTS
from .objects import led_back
from .resources import Meta, Pod, Service
from .tts import TtsEngine
from .tts_status import SERVING
from .tts_view import TtsKey

_Name = tuple[str, str]


def look(picture: Picture) -> Iterator[Finding]:
    """Findings about speech engines."""
    engines = {(e.metadata.namespace, e.name): e for e in picture.engines}
    pods: dict[_Name, list[Pod]] = defaultdict(list)
    for pod in picture.pods:
        if LABEL_TTS in pod.metadata.labels and live(pod.metadata):
            pods[_of(pod.metadata)].append(pod)
    services = {_of(s.metadata): s for s in picture.services if LABEL_TTS in s.metadata.labels}
    for name, engine in engines.items():
        if live(engine.metadata):
            yield from _engine(picture, engine, pods[name], services.get(name), engines)
    yield from _left_over(picture, engines)


def _of(meta: Meta) -> _Name:
    return meta.namespace, meta.labels[LABEL_TTS]


def _finding(kind: str, text: str, engine: TtsEngine) -> Finding:
    ref = about("TTSEngine", engine.metadata)
    return Finding(kind, ref, f"TTSEngine {engine.name}: {text}", plan=TtsKey(ref.namespace, ref.name))


def _engine(
    picture: Picture,
    engine: TtsEngine,
    pods: list[Pod],
    service: Service | None,
    engines: dict[_Name, TtsEngine],
) -> Iterator[Finding]:
    status = engine.status
    ready = [p for p in pods if (c := p.condition("Ready")) is not None and c.status == "True"]
    if status.phase == "Ready" and not ready:
        yield _finding("EngineReadyWithoutPods", f"status.phase is Ready, and none of its {len(pods)} pods is", engine)
    if service is not None and not picture.young(service.metadata):
        speaker = status.fallback if status.phase == "Fallback" and status.fallback else engine.name
        to = service.spec.selector.get(LABEL_TTS, "nobody")
        if led_back(service.spec, tts_objects.service(engine, speaker)["spec"]):
            text = f"Service {service.metadata.name} leads to {to}; {speaker} speaks"
            yield _finding("EngineServiceAstray", text, engine)
        elif (engine.metadata.namespace, speaker) not in engines:
            text = f"Service {service.metadata.name} leads to {to}, and there is no such TTSEngine"
            yield _finding("EngineServiceAstray", text, engine)
    since, limit = _since(engine), engine.spec.startup_timeout_seconds
    if status.phase in ("Pending", "Starting") and picture.late(since, limit + LATE_SECONDS):
        text = f"{status.phase} since {since}; spec.startupTimeoutSeconds is {limit}"
        yield _finding("StuckPhase", text, engine)


def _since(engine: TtsEngine) -> datetime | None:
    """Since when nobody answers: the start of this run, or the last time that Serving turned."""
    status = engine.status
    serving = next((c.last_transition_time for c in status.conditions if c.type == SERVING), None)
    return max((t for t in (status.start_time, serving) if t is not None), default=None)


def _left_over(picture: Picture, engines: dict[_Name, TtsEngine]) -> Iterator[Finding]:
    items = [
        *(("Service", s.metadata) for s in picture.services if LABEL_TTS in s.metadata.labels),
        *(("Deployment", d.metadata) for d in picture.deployments if LABEL_TTS in d.metadata.labels),
    ]
    for kind, meta in items:
        engine = engines.get(_of(meta))
        if not live(meta) or picture.young(meta):
            continue
        if engine is None or all(ref.uid != engine.metadata.uid for ref in meta.owner_references):
            name = meta.labels[LABEL_TTS]
            why = "there is no such TTSEngine" if engine is None else "that TTSEngine is not its owner"
            text = f"{kind} {meta.name} is labelled as that of {name}, and {why}"
            yield Finding("EngineObjectWithoutEngine", about(kind, meta), text)
