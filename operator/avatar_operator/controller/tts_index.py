"""The speech engines, what they run in, and who speaks through them: fed by the store, asked by plans."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from avatar_operator.domain.devices import placement_of
from avatar_operator.domain.names import LABEL_TTS, tts_name
from avatar_operator.domain.placement import Placement, Refusal
from avatar_operator.domain.resources import Avatar, Instance, Meta, Pod, Pool, Service
from avatar_operator.domain.settings import resolve
from avatar_operator.domain.tts import Deployment, TtsEngine
from avatar_operator.domain.tts_choice import engine_of_pod
from avatar_operator.domain.tts_gpu import need
from avatar_operator.domain.tts_view import EngineView, TtsGpuView, TtsHints, TtsKey
from avatar_operator.domain.view import GroupKey

from .gpus import GpuIndex

Name = tuple[str, str]
# Phases of an instance that speaks, or is about to.
SPEAKING = frozenset({"Starting", "Running", "Shared", "Draining"})


@dataclass(slots=True)
class _Parts:
    """What one engine runs in."""

    deployment: Deployment | None = None
    service: Service | None = None
    pods: dict[str, Pod] = field(default_factory=dict)


def engine_of(meta: Meta) -> str | None:
    """The engine whose Deployment, Service or Pod it is."""
    return meta.labels.get(LABEL_TTS)


class TtsIndex:
    """``changed`` is called with the key of each engine whose plan may differ."""

    def __init__(self, changed: Callable[[TtsKey], None], gpus: GpuIndex) -> None:
        self._changed = changed
        self._gpus = gpus
        self._engines: dict[str, dict[str, TtsEngine]] = defaultdict(dict)
        self._parts: dict[Name, _Parts] = defaultdict(_Parts)
        # Each group's engine and how many of its instances speak through it; and the same by engine.
        self._speaks: dict[GroupKey, tuple[Name, int]] = {}
        self._groups: dict[Name, set[GroupKey]] = defaultdict(set)
        self._users: dict[Name, int] = defaultdict(int)

    # ---- feeding -------------------------------------------------------------------

    def take_engine(self, item: TtsEngine, groups: set[GroupKey]) -> set[GroupKey]:
        """Take in an engine; those of the namespace's ``groups`` that must be planned anew because of it."""
        meta = item.metadata
        before = self._engines[meta.namespace].get(meta.name)
        self._engines[meta.namespace][meta.name] = item
        self._changed(TtsKey(meta.namespace, meta.name))
        if before is None or before.spec != item.spec or _deleting(before) != _deleting(item):
            self._wake_others(meta.namespace, meta.name)
            return groups
        if _said(before) == _said(item):
            return set()
        self._wake_others(meta.namespace, meta.name)
        return set(self._groups.get((meta.namespace, meta.name), ()))

    def drop_engine(self, item: TtsEngine, groups: set[GroupKey]) -> set[GroupKey]:
        """The engine is gone; the groups to plan anew."""
        meta = item.metadata
        self._engines[meta.namespace].pop(meta.name, None)
        if not self._engines[meta.namespace]:
            del self._engines[meta.namespace]
        self._changed(TtsKey(meta.namespace, meta.name))
        self._wake_others(meta.namespace, meta.name)
        return groups

    def take(self, item: Pod | Service | Deployment) -> None:
        """Take in something that an engine runs in."""
        key = self._key(item)
        parts = self._parts[key.namespace, key.name]
        match item:
            case Pod():
                parts.pods[item.metadata.name] = item
            case Service():
                parts.service = item
            case Deployment():
                parts.deployment = item
        self._changed(key)

    def drop(self, item: Pod | Service | Deployment) -> None:
        """It is gone."""
        key = self._key(item)
        parts = self._parts[key.namespace, key.name]
        match item:
            case Pod():
                parts.pods.pop(item.metadata.name, None)
            case Service():
                parts.service = None
            case Deployment():
                parts.deployment = None
        if parts == _Parts():
            del self._parts[key.namespace, key.name]
        self._changed(key)

    def note(
        self,
        key: GroupKey,
        members: Collection[Instance],
        pods: Collection[Pod],
        pool: Pool | None,
        avatar: Avatar | None,
    ) -> None:
        """A group that holds a port may have begun to speak, or speaks through another engine.

        It counts from the moment at which it has the port, so that its engine starts beside its pod.
        """
        count = max(1, sum(m.status.phase in SPEAKING for m in members))
        # A pod keeps the engine that it was started with.
        name = next((n for p in pods if (n := engine_of_pod(p.metadata)) is not None), None)
        server = min(members, key=lambda m: m.age_key, default=None)
        if name is None and pool is not None and server is not None and avatar is not None:
            name = resolve(server, pool, avatar, self.engines(key.namespace)).tts.name
        self._set(key, ((key.namespace, name), count) if name else None)

    def forget(self, key: GroupKey) -> None:
        """The group speaks through no engine."""
        self._set(key, None)

    # ---- asking --------------------------------------------------------------------

    def engines(self, namespace: str) -> tuple[TtsEngine, ...]:
        """The engines of a namespace."""
        found = self._engines.get(namespace)
        return tuple(found.values()) if found else ()

    def engine(self, key: TtsKey) -> TtsEngine | None:
        """The TTSEngine, if it exists."""
        return self._engines.get(key.namespace, {}).get(key.name)

    def every(self) -> Iterator[tuple[TtsEngine, int]]:
        """All engines, and how many instances speak through each."""
        for namespace, engines in self._engines.items():
            for name, engine in engines.items():
                yield engine, self._users.get((namespace, name), 0)

    def pods(self, namespace: str, name: str) -> list[Pod]:
        """The pods of an engine."""
        parts = self._parts.get((namespace, name))
        return list(parts.pods.values()) if parts else []

    def waiting(self) -> list[TtsKey]:
        """Engines that wait for a GPU, or are somebody's whose GPU may have been what they wait for."""
        return [
            TtsKey(namespace, name)
            for namespace, engines in self._engines.items()
            for name, engine in engines.items()
            if engine.spec.gpu.mode != "None" and engine.status.phase in ("Pending", "Fallback", "Failed")
        ]

    def view(self, key: TtsKey, now: datetime, hints: TtsHints) -> EngineView:
        """The engine as its plan sees it."""
        name = (key.namespace, key.name)
        engine = self.engine(key)
        if engine is None:
            return EngineView(key, now)
        parts = self._parts.get(name) or _Parts()
        covers = sum(
            self._users.get((key.namespace, other.name), 0)
            for other in self.engines(key.namespace)
            if other.status.phase == "Fallback" and other.status.fallback == key.name and other.name != key.name
        )
        uid = engine.metadata.uid
        return EngineView(
            key,
            now,
            engine,
            # What an engine of the same name left behind is the garbage collector's.
            parts.deployment if _owned(parts.deployment, uid) else None,
            parts.service if _owned(parts.service, uid) else None,
            tuple(parts.pods.values()),
            self._users.get(name, 0),
            covers,
            self.engines(key.namespace),
            self._gpu_view(engine, parts, now),
            hints,
        )

    # ---- inside --------------------------------------------------------------------

    def _gpu_view(self, engine: TtsEngine, parts: _Parts, now: datetime) -> TtsGpuView:
        held = [placement_of(parts.service.metadata)] if parts.service is not None else []
        held += [placement_of(p.metadata) for p in parts.pods.values()]
        reserved = next((p for p in held if p is not None), None)
        if engine.spec.gpu.mode == "None" and reserved is None:
            return TtsGpuView()
        place: Placement | Refusal | None = None
        if engine.spec.gpu.mode != "None" and (reserved is None or not reserved.uuid):
            place = self._gpus.find(engine.as_pool(), need(engine), now)
        if reserved is None:
            return TtsGpuView(place=place)
        namespace, name = engine.metadata.namespace, tts_name(engine.name)
        return TtsGpuView(
            reserved=reserved,
            place=place,
            lost=self._gpus.lost(reserved.uuid, reserved.node, now) if reserved.uuid else "",
            reported=bool(reserved.uuid) and self._gpus.report_of("", reserved.uuid) is not None,
            podless_since=self._gpus.podless_since(namespace, name),
            processes_gone=self._gpus.processes_gone(namespace, name),
        )

    def _set(self, key: GroupKey, now: tuple[Name, int] | None) -> None:
        before = self._speaks.get(key)
        if before == now:
            return
        if before is not None:
            del self._speaks[key]
            self._groups[before[0]].discard(key)
            self._users[before[0]] -= before[1]
        if now is not None:
            self._speaks[key] = now
            self._groups[now[0]].add(key)
            self._users[now[0]] += now[1]
        for name in {side[0] for side in (before, now) if side is not None}:
            if not self._users[name]:
                del self._users[name]
                self._groups.pop(name, None)
            self._changed(TtsKey(*name))
            self._wake_others(*name)

    def _wake_others(self, namespace: str, name: str) -> None:
        """Those that stand in for it, or have it stand in."""
        for other in self.engines(namespace):
            if name in (other.status.fallback, other.spec.fallback) or self._falls_to(namespace, name, other.name):
                self._changed(TtsKey(namespace, other.name))

    def _falls_to(self, namespace: str, name: str, other: str) -> bool:
        engine = self._engines.get(namespace, {}).get(name)
        return engine is not None and other in (engine.status.fallback, engine.spec.fallback)

    def _key(self, item: Pod | Service | Deployment) -> TtsKey:
        return TtsKey(item.metadata.namespace, item.metadata.labels.get(LABEL_TTS, ""))


def _said(engine: TtsEngine) -> tuple[object, ...]:
    """What instances repeat of an engine's status."""
    status = engine.status
    return status.phase, status.reason, status.fallback


def _deleting(engine: TtsEngine) -> bool:
    return engine.metadata.deletion_timestamp is not None


def _owned(item: Deployment | Service | None, uid: str) -> bool:
    return item is not None and any(ref.uid == uid for ref in item.metadata.owner_references)
