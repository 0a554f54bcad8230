"""What the console shows of each object: structs that are sent as they are. Pure. Times are UTC, memory is in MiB."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from msgspec import Struct

from avatar_operator.domain.gpunode import GpuNode, GpuReport
from avatar_operator.domain.progress import serves
from avatar_operator.domain.resources import Avatar, Condition, GpuStatus, Instance, MediaStatus, Pool
from avatar_operator.domain.settings import nameless, resolve
from avatar_operator.domain.slots import slots
from avatar_operator.domain.told import Told
from avatar_operator.domain.tts import TtsEngine
from avatar_operator.domain.vram import Pods, Vram, vram

# Ports are told one by one up to so many in a pool.
PORTS_MOST = 200
# Names people who were connected, which is not everybody's to know.
PRIVATE = {"SessionExpired": "The lease of a session ran out."}


class Where(Struct):
    """A GPU that something runs on; ``index`` None: not known which yet."""

    node: str
    index: int | None
    uuid: str
    reserved: int


class Fact(Struct):
    """A condition."""

    type: str
    status: str
    reason: str
    message: str
    since: datetime | None


class End(Struct):
    """Why the last pod ended."""

    time: datetime | None
    reason: str
    message: str
    exit_code: int | None


class MediaScene(Struct):
    """How its media comes; ``reachable``: True, False or Unknown."""

    mode: str
    candidates: list[str]
    ports: str
    reachable: str
    message: str


class InstanceScene(Struct):
    """An AvatarInstance."""

    name: str
    avatar: str
    avatar_id: str
    pool: str
    phase: str
    reason: str
    message: str
    serves: bool
    port: int | None
    url: str | None
    node: str | None
    pod: str | None
    gpu: Where | None
    connections: int
    observed: int | None
    max_sessions: int | None
    idle_deadline: datetime | None
    idle_action: str
    drain_deadline: datetime | None
    retry_time: datetime | None
    created: datetime | None
    ready: datetime | None
    restarts: int
    ended: End | None
    shared_with: str | None
    queue_position: int | None
    engine: str
    voice: str
    model: str
    transport: str
    media: MediaScene | None
    conditions: list[Fact]


class PortScene(Struct):
    """One port of a pool."""

    port: int
    state: str
    instance: str


class PoolScene(Struct):
    """An AvatarPool."""

    name: str
    first_port: int
    last_port: int
    capacity: int
    used: int | None
    free: int | None
    ports: list[PortScene]
    queue: int
    queue_most: int
    network: str
    gpu: str
    idle_seconds: int
    idle_action: str
    turn: bool
    ready: Fact | None


class AvatarScene(Struct):
    """An Avatar: what can be started."""

    name: str
    avatar: str
    model: str
    engine: str
    voice: str
    max_sessions: int | None
    keep_warm: bool


class MemoryScene(Struct):
    """``used`` by avatars and engines, ``reserved`` for them beyond that, ``external``: of others."""

    total: int
    used: int
    reserved: int
    external: int
    free: int


class AlertScene(Struct):
    """Something to look at."""

    type: str
    message: str
    since: datetime | None


class GpuScene(Struct):
    """One GPU; what it says is old from ``stale`` on (None: it never said anything)."""

    node: str
    index: int
    uuid: str
    product: str
    healthy: bool
    memory: MemoryScene | None
    utilization: int | None
    temperature: int | None
    power: int | None
    power_limit: int | None
    cordoned: bool
    alerts: list[AlertScene]
    reported: datetime | None
    stale: datetime | None


class EngineScene(Struct):
    """A TTSEngine."""

    name: str
    phase: str
    reason: str
    message: str
    protocol: str
    users: int
    replicas: int
    ready: int
    most: int
    fallback: str | None
    gpu: Where | None
    idle_deadline: datetime | None
    created: datetime | None


class EventScene(Struct):
    """An Event; of two in the same second the one with the greater ``order`` came later."""

    at: datetime | None
    type: str
    reason: str
    message: str
    kind: str
    name: str
    count: int
    order: int


def instance(item: Instance, pool: Pool | None, avatar: Avatar | None) -> InstanceScene:
    """An instance, with what pool and avatar give it."""
    spec, status = item.spec, item.status
    settings = resolve(item, pool, avatar or nameless(item)) if pool is not None else None
    last = status.last_termination
    return InstanceScene(
        name=item.metadata.name,
        avatar=spec.avatar_name,
        avatar_id=spec.avatar_id or item.metadata.name,
        pool=spec.pool_ref,
        phase=status.phase or "Pending",
        reason=status.reason,
        message=status.message,
        serves=serves(item),
        port=status.port,
        url=status.webrtc_url or None,
        node=status.node or None,
        pod=status.pod_name or None,
        gpu=_where(status.gpu),
        connections=item.counted_connections,
        observed=status.observed_sessions,
        max_sessions=settings.max_sessions if settings is not None else None,
        idle_deadline=status.idle_deadline,
        idle_action=settings.idle_action if settings is not None else "",
        drain_deadline=status.drain_deadline,
        retry_time=status.retry_time,
        created=item.metadata.creation_timestamp,
        ready=status.ready_time,
        restarts=status.restarts,
        ended=End(last.time, last.reason, last.message, last.exit_code) if last is not None else None,
        shared_with=status.shared_with or None,
        queue_position=status.queue_position,
        engine=settings.tts.label if settings is not None else "",
        voice=settings.tts_voice if settings is not None else "",
        model=settings.model if settings is not None else "",
        transport=settings.transport if settings is not None else "",
        media=_media(status.media),
        conditions=[_fact(c) for c in status.conditions],
    )


def pool(item: Pool, mine: Iterable[Instance]) -> PoolScene:
    """A pool; ``mine``: its instances."""
    spec, status = item.spec, item.status
    ready = next((c for c in status.conditions if c.type == "Ready"), None)
    known = slots(item, mine) if spec.ports.count <= PORTS_MOST else []
    return PoolScene(
        name=item.metadata.name,
        first_port=spec.ports.base,
        last_port=spec.ports.base + spec.ports.count - 1,
        capacity=spec.capacity,
        used=status.ports.used if status.ports is not None else None,
        free=status.ports.free if status.ports is not None else None,
        ports=[PortScene(port, slot.value, name) for port, slot, name in known],
        queue=status.queue_length,
        queue_most=spec.queue.max_length,
        network=spec.network.mode,
        gpu=spec.gpu.mode,
        idle_seconds=spec.idle.timeout_seconds,
        idle_action=spec.idle.action,
        turn=any(url.startswith("turn") for server in spec.network.ice_servers for url in server.urls),
        ready=_fact(ready) if ready is not None else None,
    )


def avatar(item: Avatar) -> AvatarScene:
    """An avatar."""
    spec = item.spec
    return AvatarScene(
        item.metadata.name, spec.avatar_name, spec.model, spec.tts.engine, spec.tts.voice, spec.max_sessions,
        spec.keep_warm,
    )  # fmt: skip


def gpus(node: GpuNode, pods: Pods) -> dict[str, GpuScene]:
    """The GPUs of a node by a key of their own; of one that is split by MIG, its parts."""
    shown = (report for report in node.status.gpus if not (report.mig_enabled and report.memory is None))
    return {f"{node.metadata.name}/{report.uuid}": _gpu(node, report, pods) for report in shown}


def _gpu(node: GpuNode, report: GpuReport, pods: Pods) -> GpuScene:
    alerts = [AlertScene(a.type, a.message, a.since) for a in report.alerts]
    if not report.healthy and not any(a.type == "Unhealthy" for a in report.alerts):
        alerts.insert(0, AlertScene(report.reason or "Unhealthy", report.message, None))
    return GpuScene(
        node=node.metadata.name,
        index=report.index,
        uuid=report.uuid,
        product=report.product.removeprefix("NVIDIA").strip(" -"),
        healthy=report.healthy,
        memory=_memory(vram(node, report, pods)),
        utilization=report.utilization_percent,
        temperature=report.temperature_celsius,
        power=report.power_watts,
        power_limit=report.power_limit_watts,
        cordoned=report.uuid in node.spec.cordoned,
        alerts=alerts,
        reported=node.status.last_report,
        stale=node.stale_at,
    )


def engine(item: TtsEngine) -> EngineScene:
    """A speech engine."""
    spec, status = item.spec, item.status
    return EngineScene(
        name=item.metadata.name,
        phase=status.phase or "Pending",
        reason=status.reason,
        message=status.message,
        protocol=spec.protocol,
        users=status.users,
        replicas=status.replicas,
        ready=status.ready_replicas,
        most=spec.max_replicas,
        fallback=status.fallback or spec.fallback or None,
        gpu=_where(status.gpu),
        idle_deadline=status.idle_deadline,
        created=item.metadata.creation_timestamp,
    )


def event(item: Told) -> EventScene:
    """An event."""
    about = item.involved_object
    message = PRIVATE.get(item.reason, item.message)
    order = int(item.metadata.resource_version or 0)
    return EventScene(item.at, item.type, item.reason, message, about.kind, about.name, item.count or 1, order)


def _memory(room: Vram | None) -> MemoryScene | None:
    if room is None:
        return None
    return MemoryScene(room.total, room.used, room.reserved, room.external, room.free)


def _where(gpu: GpuStatus | None) -> Where | None:
    return Where(gpu.node, gpu.index, gpu.uuid, gpu.reserved_mib) if gpu is not None else None


def _media(media: MediaStatus | None) -> MediaScene | None:
    if media is None:
        return None
    return MediaScene(media.mode, list(media.candidates), media.udp_port_range, media.reachable, media.message)


def _fact(condition: Condition) -> Fact:
    return Fact(condition.type, condition.status, condition.reason, condition.message, condition.last_transition_time)
