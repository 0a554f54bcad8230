"""What a plan sees of its group's GPU."""

from __future__ import annotations

from avatar_operator.domain.devices import placement_of
from avatar_operator.domain.estimate import need
from avatar_operator.domain.placement import Placement
from avatar_operator.domain.resources import Pod, Service
from avatar_operator.domain.view import GpuHints, GpuView, GroupView

from .gpus import GpuIndex


def gpu_view(gpus: GpuIndex, view: GroupView, hints: GpuHints) -> GpuView:
    """What is known of the GPU of the group's claim, or of its pod when somebody deleted the claim."""
    # The plan keeps the first claim by name, should there be two.
    holders: tuple[Pod | Service, ...] = (*sorted(view.claims, key=lambda c: c.metadata.name)[:1], *view.pods)
    reserved = next((p for h in holders if (p := placement_of(h.metadata)) is not None), None)
    if reserved is None:
        return GpuView()
    meta, pod = holders[0].metadata, next(iter(view.pods), None)
    shown = next((m.status.gpu for m in view.members if m.status.gpu is not None), None)
    # What the last pod was allocated is not the next one's.
    allocated = hints.allocated if pod is not None else None
    if allocated is None and pod is not None and not reserved.uuid and shown is not None and shown.uuid:
        # Read before this process began.
        allocated = Placement(shown.reserved_mib, shown.node, shown.uuid, shown.index)
    uuid = reserved.uuid or (allocated.uuid if allocated else "")
    node = (pod.spec.node_name if pod is not None else "") or (allocated or reserved).node
    lost = gpus.lost(uuid, node, view.now) if uuid else ""
    if pod is None and view.pool is not None:
        # A pod that runs there may go on; the next one may not begin.
        lost = lost or gpus.unfit(uuid, view.pool)
    found = gpus.report_of(pod.metadata.uid if pod else "", uuid)
    place = None
    undecided = not reserved.uuid and (pod is None or not pod.spec.node_name)
    if view.pool is not None and view.avatar is not None and undecided:
        wanted = need(view.pool.spec.gpu, view.avatar)
        verdict = gpus.find(view.pool, wanted, view.now, (meta.namespace, meta.name))
        place = verdict if isinstance(verdict, Placement) else None
    return GpuView(
        reserved=reserved,
        place=place,
        lost=lost,
        stale=bool(uuid) and gpus.stale(uuid, view.now),
        report=found[1] if found else None,
        reported=found[2] if found else None,
        node=found[0] if found else "",
        podless_since=gpus.podless_since(meta.namespace, meta.name),
        had_pod=gpus.had_pod(meta.namespace, meta.name),
        processes_gone=gpus.processes_gone(meta.namespace, meta.name),
        foreign_until=None if meta.uid == hints.wrote else gpus.foreign_until(meta.namespace, meta.name),
        confirmed=any(c.metadata.uid == hints.confirmed for c in view.claims),
        claim_made=hints.claim_made,
        allocated=allocated,
    )
