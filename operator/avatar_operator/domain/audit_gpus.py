"""Reservations of GPU memory: within what there is, on GPUs that are there, the same on pod and claim."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from .devices import placement_of
from .findings import Finding, ObjectRef, Picture, about
from .gpunode import GpuNode, GpuReport, is_gpu, lost
from .groups import labelled
from .names import LABEL_TTS, tts_name
from .placement import Placement
from .resources import Meta
from .tts_view import TtsKey
from .view import GroupKey


@dataclass(slots=True)
class _Holder:
    """One reservation: what a claim and the pods under its name say of it."""

    ref: ObjectRef
    pool: str
    plan: GroupKey | TtsKey | None
    claim: Placement | None = None
    has_claim: bool = False
    pods: list[tuple[Meta, Placement | None]] = field(default_factory=list)

    @property
    def places(self) -> list[Placement]:
        """What is reserved; the pod knows best and comes first."""
        return [p for p in (*(p for _, p in self.pods), self.claim) if p is not None]


def look(picture: Picture) -> Iterator[Finding]:
    """Findings about GPUs."""
    holders = list(_holders(picture).values())
    yield from _disagreeing(picture, holders)
    reported = [item for item in picture.gpunodes or () if item.status.last_report is not None]
    if not reported:
        # Where nobody reports, GPUs are given out in turn: there is nothing to compare with.
        return
    gpus = {gpu.uuid: (item.metadata.name, gpu) for item in reported for gpu in item.status.gpus}
    nodes = {item.metadata.name: item for item in reported}
    reserved: dict[str, list[tuple[_Holder, int]]] = defaultdict(list)
    for holder in holders:
        if holder.places:
            yield from _there(picture, holder, holder.places[0], gpus, nodes)
        by_uuid: dict[str, list[Placement]] = defaultdict(list)
        for place in holder.places:
            by_uuid[place.uuid].append(place)
        for uuid, places in by_uuid.items():
            reserved[uuid].append((holder, max(p.mib for p in places)))
    yield from _capacity(gpus, reserved)


def _holders(picture: Picture) -> dict[tuple[str, str], _Holder]:
    """Everything that reserves, by namespace and the name that claim and pod share."""
    found: dict[tuple[str, str], _Holder] = {}
    items = [*(("Service", s.metadata) for s in picture.services), *(("Pod", p.metadata) for p in picture.pods)]
    for kind, meta in items:
        engine, avatar, place = meta.labels.get(LABEL_TTS, ""), labelled(meta), placement_of(meta)
        if not engine and avatar is None:
            continue
        name = tts_name(engine) if engine else meta.name
        plan = TtsKey(meta.namespace, engine) if engine else avatar.group if avatar else None
        pool = "" if engine or avatar is None else avatar.pool
        holder = found.setdefault((meta.namespace, name), _Holder(about(kind, meta), pool, plan))
        if kind == "Service":
            holder.ref, holder.claim, holder.has_claim = about(kind, meta), place, True
        else:
            holder.pods.append((meta, place))
    return found


def _disagreeing(picture: Picture, holders: list[_Holder]) -> Iterator[Finding]:
    """A pod that has another GPU than its claim, or one without the other. Which one is not always known yet."""
    for holder in holders:
        if not holder.has_claim or isinstance(holder.plan, TtsKey):
            continue
        for meta, place in holder.pods:
            if meta.deletion_timestamp is not None or picture.young(meta):
                continue
            mine, claimed = _named(place), _named(holder.claim)
            if mine != claimed:
                text = f"pod {meta.name} has {mine}, and Service {holder.ref.name} reserves {claimed}"
                yield Finding("GpuDisagreement", about("Pod", meta), text, holder.pool, holder.plan)


def _named(place: Placement | None) -> str:
    if place is None:
        return "no GPU"
    return f"GPU {place.uuid}" if place.uuid else "a GPU of somebody else's choice"


def _there(
    picture: Picture,
    holder: _Holder,
    place: Placement,
    gpus: dict[str, tuple[str, GpuReport]],
    nodes: dict[str, GpuNode],
) -> Iterator[Finding]:
    if not is_gpu(place.uuid):
        return
    where, report = gpus.get(place.uuid, (place.node, None))
    node = nodes.get(place.node)
    what = f"{holder.ref.kind} {holder.ref.name} reserves {place.mib} MiB of {place.uuid}"
    why = lost(place.uuid, where, report, node, picture.now)
    if why:
        yield Finding("GpuLost", holder.ref, f"{what}: {why}", holder.pool, holder.plan)
    elif report is None:
        known = "and the last report of its node is too old" if node is not None else "and its node reports nothing"
        text = f"{what}, which no GPUNode has, {known} ({place.node or 'which node is not known'})"
        yield Finding("GpuUnknown", holder.ref, text, holder.pool, holder.plan)


def _capacity(
    gpus: dict[str, tuple[str, GpuReport]],
    reserved: dict[str, list[tuple[_Holder, int]]],
) -> Iterator[Finding]:
    for uuid, (node, report) in gpus.items():
        held, memory = reserved.get(uuid, []), report.memory
        if memory is None or not held:
            continue
        total, sum_of = memory.total_mib - memory.reserved_mib, sum(mib for _, mib in held)
        if sum_of > total:
            names = ", ".join(sorted(f"{h.ref.namespace}/{h.ref.name}" for h, _ in held))
            text = f"{sum_of} MiB of GPU {report.index} ({uuid}) of {node} are reserved, and it has {total}: {names}"
            first = min(held, key=lambda h: (h[0].ref.namespace, h[0].ref.name))[0]
            yield Finding("GpuOvercommitted", ObjectRef("GPUNode", "", node, uuid), text, first.pool, first.plan)
