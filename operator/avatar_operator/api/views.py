"""From resources to what /avatar/list, /avatar/info and /status show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime

from avatar_operator.domain.gpunode import GpuNode, GpuReport
from avatar_operator.domain.progress import serves
from avatar_operator.domain.resources import Avatar, IceServer, Instance, Pool, Session
from avatar_operator.domain.sessions import Roll
from avatar_operator.domain.settings import resolve

from .shapes import (
    GpuMemory,
    GpuView,
    Ice,
    InstanceView,
    ManagerView,
    PoolView,
    SessionView,
    StartView,
    StatusView,
    Tts,
    TtsView,
)
from .world import World

GIB = 1024.0


def uptime(instance: Instance, now: datetime) -> int:
    """Whole seconds since its pod was made; 0 without one."""
    began = instance.status.start_time
    return max(0, int((now - began).total_seconds())) if began is not None and instance.status.port else 0


def instance_view(world: World, instance: Instance, now: datetime, asked: str = "") -> InstanceView:
    """One instance; ``asked``: the session id that it was asked by."""
    spec, status = instance.spec, instance.status
    return InstanceView(
        avatar_id=asked or spec.avatar_id or instance.metadata.name,
        real_avatar_name=spec.avatar_name,
        port=status.port,
        gpu=status.gpu.index if status.gpu is not None else None,
        running=serves(instance),
        connections=Roll.of(status).connections,
        uptime_seconds=uptime(instance, now),
        start_time=status.start_time,
        webrtc_url=status.webrtc_url or None,
        phase=status.phase or "Pending",
        reason=status.reason,
        message=status.message,
        instance=instance.metadata.name,
        pool=spec.pool_ref,
        node=status.node,
        queue_position=status.queue_position,
        observed_sessions=status.observed_sessions,
        idle_deadline=status.idle_deadline,
        restarts=status.restarts,
        tts=_tts(instance, world.pool(spec.pool_ref), world.avatar(spec.avatar_name)),
    )


def session_views(sessions: Iterable[Session]) -> list[SessionView]:
    """Sessions for those who may see them."""
    return [SessionView(s.id, s.user or None, s.since, s.expires) for s in sessions]


def start_view(
    instance: Instance,
    session: Session,
    connections: int,
    now: datetime,
    *,
    is_new: bool,
    ice: Iterable[IceServer] = (),
) -> StartView:
    """What a start answers."""
    status = instance.status
    return StartView(
        avatar_id=session.id,
        port=status.port,
        gpu=status.gpu.index if status.gpu is not None else None,
        webrtc_url=status.webrtc_url or None,
        connections=connections,
        is_new=is_new,
        real_avatar_name=instance.spec.avatar_name,
        running=serves(instance),
        phase=status.phase or "Pending",
        instance=instance.metadata.name,
        start_time=status.start_time,
        uptime_seconds=uptime(instance, now),
        queue_position=status.queue_position,
        expires=session.expires,
        ice_servers=[Ice(s.urls, s.username, s.credential) for s in ice],
        ice_transport_policy="relay" if status.media is not None and status.media.mode == "Relay" else "all",
    )


def status_view(world: World, now: datetime) -> StatusView:
    """Everything: pools, GPUs, speech."""
    instances = world.instances.values()
    pools = {p.metadata.name: _pool_view(p, instances) for p in world.pools.values()}
    manager = ManagerView(
        running=sum(p.running for p in pools.values()),
        max=sum(p.max for p in pools.values()),
        available=sum(p.available for p in pools.values()),
        queue_length=sum(p.queue_length for p in pools.values()),
        connections=sum(Roll.of(i.status).connections for i in instances),
        phases=dict(Counter(i.status.phase or "Pending" for i in instances)),
        pools=pools,
    )
    gpus = [_gpu_view(node, gpu) for node in world.gpus.values() for gpu in node.status.gpus]
    gpus.sort(key=lambda g: (g.node, g.gpu_id))
    return StatusView(manager, gpus, _speech(world, instances))


def _pool_view(pool: Pool, instances: list[Instance]) -> PoolView:
    own = [i for i in instances if i.spec.pool_ref == pool.metadata.name]
    used = sorted({i.status.port for i in own if i.status.port is not None})
    # Claimed before an instance says so, and held after it is gone: the pool's own count knows.
    held = max(len(used), pool.status.ports.used if pool.status.ports is not None else 0)
    return PoolView(
        max=pool.spec.capacity,
        running=sum(1 for i in own if i.status.phase in ("Running", "Draining")),
        available=max(0, pool.spec.capacity - held),
        queue_length=pool.status.queue_length,
        ports=used,
        phases=dict(Counter(i.status.phase or "Pending" for i in own)),
    )


def _gpu_view(node: GpuNode, gpu: GpuReport) -> GpuView:
    memory = None
    if gpu.memory is not None and gpu.memory.total_mib:
        total, used, free = gpu.memory.total_mib, gpu.memory.used_mib, gpu.memory.free_mib
        memory = GpuMemory(
            round(total / GIB, 2), round(used / GIB, 2), round(free / GIB, 2), round(100 * used / total, 1)
        )
    return GpuView(
        gpu_id=gpu.index,
        name=gpu.product,
        memory=memory,
        temperature_celsius=gpu.temperature_celsius,
        gpu_utilization_percent=gpu.utilization_percent,
        power_draw_watts=gpu.power_watts,
        power_limit_watts=gpu.power_limit_watts,
        node=node.metadata.name,
        uuid=gpu.uuid,
        healthy=gpu.healthy,
        alerts=[a.message or a.type for a in gpu.alerts],
    )


def _speech(world: World, instances: list[Instance]) -> list[TtsView]:
    users = Counter(
        _tts(i, world.pool(i.spec.pool_ref), world.avatar(i.spec.avatar_name)).engine
        for i in instances
        if i.status.port is not None
    )
    return [TtsView(engine, count) for engine, count in sorted(users.items()) if engine]


def _tts(instance: Instance, pool: Pool | None, avatar: Avatar | None) -> Tts:
    if pool is None or avatar is None:
        return Tts()
    settings = resolve(instance, pool, avatar)
    return Tts(settings.tts.label, settings.tts_voice)
