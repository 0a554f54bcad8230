"""A group with a pod: one pod with its claim, its owners and its GPU; then by what the pod's status means."""

from __future__ import annotations

from datetime import timedelta

from . import draining, objects, serving
from .actions import (
    CreateClaim,
    CreateDeviceClaim,
    DeletePod,
    MendClaim,
    Plan,
    RaiseEstimate,
    ReadAllocation,
    ReleaseClaim,
    SetOwners,
)
from .case import Case
from .devices import DEVICE_REQUEST, placement_of, resource_claim
from .estimate import raise_after
from .failure import fail, told
from .following import follow
from .names import LABEL_PORT
from .nodeloss import explain
from .placement import LOOK_FOR_GPU_SECONDS
from .podstate import PodPhase, PodState, classify
from .resources import Instance, Pod, Pool
from .settings import nameless, resolve
from .view import GroupView

# A pod on a lost GPU serves nobody any more: it is not given the time to drain (seconds).
LOST_GPU_GRACE_SECONDS = 2

# Phases of a pod in which its container runs: an answer of the runtime itself is as good as the kubelet's Ready.
_UP = (PodPhase.STARTING, PodPhase.UNREADY)


def one_pod(live: list[Pod], result: Plan) -> Pod:
    """The pod that serves; another of the same group is deleted."""

    def merit(pod: Pod) -> tuple[bool, str]:
        ready = pod.condition("Ready")
        return (ready is None or ready.status != "True", pod.metadata.name)

    first, *others = sorted(live, key=merit)
    result.actions.extend(DeletePod(extra, "Duplicate") for extra in others)
    return first


def run(view: GroupView, members: list[Instance], pod: Pod, result: Plan) -> None:
    """Keep claim, owners and device of ``pod`` right; then serve, wait or give up, as its status says."""
    server, pool = members[0], view.pool
    if pool is None:
        return
    avatar = view.avatar or nameless(server)
    settings = resolve(server, pool, avatar, view.engines)
    _claim_for_pod(view, server, pod, result)
    _own(members, pod, result)
    if pool.spec.gpu.mode == "DRA":
        _claim_device(view, pool, pod, result)
    created = pod.metadata.creation_timestamp or view.now
    was_ready = any(m.status.ready_time is not None and m.status.ready_time >= created for m in members)
    state = classify(
        pod,
        view.now,
        startup_timeout=settings.startup_timeout,
        failures=pool.spec.health.failures,
        was_ready=was_ready,
    )
    state = explain(state, view.lost.get(pod.metadata.uid, ""))
    if told(server, pod):
        grace = LOST_GPU_GRACE_SECONDS if view.gpu.lost else None
        result.actions.append(DeletePod(pod, server.status.reason, grace=grace))
    elif view.gpu.lost:
        _leave_gpu(view, members, pod, result)
    elif state.phase is PodPhase.FAILED:
        result.actions.append(DeletePod(pod, state.reason))
        if state.reason == "GPUOutOfMemory":
            _learn_from(view, pool, pod, result)
        fail(view, members, state, result, pod)
    elif state.phase is PodPhase.READY or (state.phase in _UP and serving.answers_until(view, pod) is not None):
        case = Case(view, pool, members, pod, settings)
        if case.server.status.phase == "Draining":
            draining.drain(case, result)
        elif draining.is_replaced(case):
            result.actions.append(DeletePod(case.pod, case.server.status.reason))
        else:
            serving.serve(case, result)
    else:
        serving.wait(Case(view, pool, members, pod, settings), state, result)
    follow(view, members, result, pod)


def _claim_device(view: GroupView, pool: Pool, pod: Pod, result: Plan) -> None:
    """The pod's ResourceClaim is made after the pod, which owns it; what it got is read when a node has it."""
    name = next((c.resource_claim_name for c in pod.spec.resource_claims if c.name == DEVICE_REQUEST), "")
    if not name or view.gpu.reserved is None:
        return
    if pod.spec.node_name:
        if view.gpu.allocated is None:
            result.actions.append(ReadAllocation(pod, name, pool.spec.gpu.dra))
    elif view.gpu.claim_made:
        return
    elif view.gpu.place is not None:
        result.actions.append(CreateDeviceClaim(pod, resource_claim(pool, pod.metadata, view.gpu.place, name)))
    else:
        # The room was taken, by others than us, before the claim could be made.
        result.wake_at(view.now + timedelta(seconds=LOOK_FOR_GPU_SECONDS))


def _leave_gpu(view: GroupView, members: list[Instance], pod: Pod, result: Plan) -> None:
    """The GPU under the pod is lost: start anew on another one. The instance has not failed."""
    message = f"{view.gpu.lost}; moving to another GPU"
    result.actions.append(DeletePod(pod, "GPULost", grace=LOST_GPU_GRACE_SECONDS))
    fail(view, members, PodState(PodPhase.FAILED, "GPULost", message), result, pod)


def _learn_from(view: GroupView, pool: Pool, pod: Pod, result: Plan) -> None:
    """A pod that ran out of GPU memory reserves more next time."""
    reservation = placement_of(pod.metadata)
    if view.avatar is None or reservation is None or pool.spec.gpu.estimates == "Fixed":
        return
    memory = view.gpu.report.memory if view.gpu.report is not None else None
    total = memory.total_mib - memory.reserved_mib if memory is not None else 0
    vram = raise_after(view.avatar.status.vram, reservation.mib, total)
    if vram is not None:
        result.actions.append(RaiseEstimate(view.avatar, vram))


def _claim_for_pod(view: GroupView, server: Instance, pod: Pod, result: Plan) -> None:
    """A pod whose claim somebody deleted gets it back; one that somebody changed is what it was again."""
    port = int(pod.metadata.labels.get(LABEL_PORT, "0"))
    claim = next((c for c in view.claims if c.metadata.name == pod.metadata.name), None)
    if port:
        body = objects.claim_of(server, view.key.id, claim, pod)
        if claim is None:
            result.actions.append(CreateClaim(port, body, placement_of(pod.metadata)))
        elif change := objects.mended(claim, body):
            result.actions.append(MendClaim(claim, change))
    with_pod = {p.metadata.name for p in view.pods}
    result.actions.extend(ReleaseClaim(c) for c in view.claims if c.metadata.name not in with_pod)


def _own(members: list[Instance], pod: Pod, result: Plan) -> None:
    """Every sharer owns the pod, so that deleting one does not end it for the others."""
    have = {ref.uid for ref in pod.metadata.owner_references}
    if all(m.metadata.uid in have for m in members):
        return
    # The API server allows one controller; a dead one is dropped by leaving it out.
    owners = [objects.owner(m, controller=m is members[0]) for m in members]
    result.actions.append(SetOwners(pod, owners))
