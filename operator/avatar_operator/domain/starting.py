"""A group without a pod: waiting in the queue, claiming a port and a GPU, making the pod, cleaning up."""

from __future__ import annotations

from datetime import datetime, timedelta

from . import objects
from .actions import (
    ConfirmPlacement,
    CreateClaim,
    CreatePod,
    Event,
    Plan,
    ReleaseClaim,
)
from .assigned import gpu_status, reservation_holds, reserved
from .clock import floor
from .devices import CHOSEN_LATER, PLACED_MODES
from .estimate import need
from .failure import fail
from .following import follow
from .names import LABEL_PORT
from .nodeloss import due
from .placement import LOOK_FOR_GPU_SECONDS, Need
from .podends import end_of
from .podstate import RUNTIME, PodPhase, PodState, disruption, ended_by
from .resources import Instance, LastTermination, Pod, Service, Termination
from .settings import resolve
from .status import NO_POD, Desired, say
from .tts_choice import conditions as speech
from .view import GroupView


def start(view: GroupView, members: list[Instance], result: Plan) -> None:
    """What ``members``, all of which can run, need next on the way to a pod."""
    server = members[0]
    if any(m.status.ready_time for m in members) and not view.pods:
        if view.ended is None:
            _lost(view, members, result)
        else:
            _wait_for_end(view, members, view.ended, result)
        return
    if view.rejection is not None:
        _fail(view, members, PodState(PodPhase.FAILED, *view.rejection), result)
        return
    retry = server.status.retry_time
    if retry is not None and retry > view.now:
        clean_up(view, result)
        result.wake_at(retry)
        follow(view, members, result)
        return
    if view.pods:
        _wait_for_end(view, members, view.pods[0], result)
        return
    claim = _one_claim(view, result)
    if claim is not None:
        _use_claim(view, members, claim, result)
    elif view.admission.port is not None:
        port, placement = view.admission.port, view.admission.placement
        body = objects.service(server, view.key.id, port, placement)
        result.actions.append(CreateClaim(port, body, placement))
    elif view.admission.reason:
        _queue(view, members, result)


def clean_up(view: GroupView, result: Plan) -> None:
    """Nobody wants to run: release the port once the last pod is gone, and a GPU when its memory is, too."""
    if view.pods or not view.claims:
        return
    due = _gpu_free_at(view)
    if due is None or view.now >= due:
        result.actions.extend(ReleaseClaim(claim) for claim in view.claims)
    else:
        result.wake_at(due)


def _gpu_free_at(view: GroupView) -> datetime | None:
    """When the memory that the last pod used counts as free; None = it does now."""
    gpu = view.gpu
    if gpu.reserved is None or gpu.lost or gpu.processes_gone or gpu.podless_since is None:
        return None
    termination = view.pool.spec.termination if view.pool is not None else Termination()
    return gpu.podless_since + timedelta(seconds=termination.gpu_release_seconds)


def _use_claim(view: GroupView, members: list[Instance], claim: Service, result: Plan) -> None:
    """Put a pod behind the claim, if the GPU that it reserves is good and really ours."""
    pool, avatar = view.pool, view.avatar
    if pool is None or avatar is None:
        raise ValueError("a claim is used only for instances that passed check()")
    wanted = need(pool.spec.gpu, avatar)
    if not reservation_holds(view.gpu, pool) or _too_small(view, members, wanted):
        result.actions.append(ReleaseClaim(claim))
    elif pool.spec.gpu.mode in PLACED_MODES and view.gpu.report is not None and not view.gpu.confirmed:
        if view.gpu.foreign_until is not None and view.now < view.gpu.foreign_until:
            # Whoever wrote it may be about to use it: two that confirm or withdraw one claim undo each other's work.
            result.wake_at(view.gpu.foreign_until)
        elif view.gpu.had_pod and (free_at := _gpu_free_at(view)) is not None and view.now < free_at:
            # What its last pod has not given back yet would be held against the claim, and the claim taken back.
            result.wake_at(free_at)
        else:
            result.actions.append(ConfirmPlacement(claim, wanted))
    elif pool.spec.gpu.mode in CHOSEN_LATER and view.gpu.place is None:
        # What was free when the port was claimed is taken, by others than us.
        result.actions.append(ReleaseClaim(claim))
    else:
        _create_pod(view, members, claim, result)


def _too_small(view: GroupView, members: list[Instance], wanted: Need) -> bool:
    """Whether the last pod ran out of what the claim reserves: the next one would do so again."""
    last, claimed = members[0].status.last_termination, view.gpu.reserved
    ran_out = last is not None and last.reason == "GPUOutOfMemory"
    return ran_out and claimed is not None and claimed.mib < wanted.mib


def _lost(view: GroupView, members: list[Instance], result: Plan) -> None:
    """The pod of a ready instance is gone and nobody here deleted it: build it anew."""
    _fail(view, members, ended_by(end_of("NodeLost" if view.stranded else "PodLost")), result)


def _fail(view: GroupView, members: list[Instance], state: PodState, result: Plan) -> None:
    """A start that failed without a pod of its own to look at."""
    fail(view, members, state, result)
    follow(view, members, result)


def _wait_for_end(view: GroupView, members: list[Instance], pod: Pod, result: Plan) -> None:
    """An earlier pod still terminates and holds the port, or did until a moment ago; its end is an event."""
    reason, message = "Terminating", "waiting for the previous pod to end"
    if why := view.lost.get(pod.metadata.uid):
        reason, message = "NodeLost", f"{message}: {why}"
        result.wake_at(due(pod))
    end = disruption(pod) or end_of("PodDeleted")
    for member in members:
        if member.status.phase == "Failed":
            continue
        fields, event = {**NO_POD, "queuePosition": None}, None
        if member.status.ready_time is not None:
            # Nobody here deleted it: kubectl did, or a drain of its node.
            said = ended_by(end, words=f"pod {member.status.pod_name}: {RUNTIME.say(end.meaning)}").message
            fields["lastTermination"] = LastTermination(time=floor(view.now), reason=end.reason, message=said)
            event = Event("Warning", end.reason, said) if member is members[0] else None
        desired = Desired("Pending", reason, message, fields, (("Ready", "False", reason, message),))
        say(view.now, member, desired, result, event)


def _one_claim(view: GroupView, result: Plan) -> Service | None:
    """The group's claim; more than one (a lost reply) is one too many."""
    claims = sorted(view.claims, key=lambda c: c.metadata.name)
    result.actions.extend(ReleaseClaim(extra) for extra in claims[1:])
    return claims[0] if claims else None


def _create_pod(view: GroupView, members: list[Instance], claim: Service, result: Plan) -> None:
    server, pool, avatar = members[0], view.pool, view.avatar
    if pool is None or avatar is None:
        raise ValueError("a pod is planned only for instances that passed check()")
    port = int(claim.metadata.labels[LABEL_PORT])
    settings = resolve(server, pool, avatar, view.engines)
    placement = view.gpu.reserved if pool.spec.gpu.mode in PLACED_MODES else view.gpu.place
    # Unlike the claim's and the pod's, this name is used once: one that is being deleted must not be in the way.
    device_claim = f"{claim.metadata.name}-{int(view.now.timestamp() * 1000):x}" if pool.spec.gpu.mode == "DRA" else ""
    body = objects.pod(pool, members, settings, view.key.id, port, placement, device_claim)
    result.actions.append(CreatePod(body))
    woken = server.status.phase == "Stopped"
    on = f" on GPU {placement.index} of {placement.node}" if placement and placement.uuid and placement.node else ""
    event = Event(
        "Normal",
        "Woken" if woken else "Starting",
        f"{'woken by a connection, ' if woken else ''}claimed port {port} and created pod {claim.metadata.name}{on}",
    )
    fields = {
        **NO_POD,
        "port": port,
        "podName": claim.metadata.name,
        "startTime": floor(view.now),
        "queuePosition": None,
        "retryTime": None,
    }
    conditions = [
        ("PortClaimed", "True", "Claimed", f"Service {claim.metadata.name}"),
        ("Ready", "False", "Starting", "the runtime is starting"),
    ]
    if (gpu := gpu_status(view.gpu, pool)) is not None:
        fields["gpu"] = gpu
        conditions.append(("GPUAssigned", *reserved(view.gpu, pool, gpu)))
    conditions += speech(settings.tts, None, view.engines, pool.spec.tts.url)
    say(view.now, server, Desired("Starting", "Starting", "", fields, tuple(conditions)), result, event)
    follow(view, members, result)


def _queue(view: GroupView, members: list[Instance], result: Plan) -> None:
    admission, pool = view.admission, view.pool
    if pool is None:
        return
    queue, server = pool.spec.queue, members[0]
    reason, message = admission.reason, admission.message
    position: int | None = admission.position
    phase = "Pending"
    if admission.position > queue.max_length:
        phase, reason, position = "Failed", "QueueFull", None
        message = f"{queue.max_length} instances wait already (spec.queue.maxLength of the AvatarPool); try later"
    elif queue.timeout_seconds and server.status.phase != "Failed":
        since = waiting_since(server) or view.now
        deadline = since + timedelta(seconds=queue.timeout_seconds)
        result.wake_at(deadline)
        if view.now >= deadline:
            what = "port" if reason != "GPUExhausted" else "GPU"
            text = f"no {what} became free in {queue.timeout_seconds} s (spec.queue.timeoutSeconds of the AvatarPool)"
            text += f": {message}" if what == "GPU" else ""
            _fail(view, members, PodState(PodPhase.FAILED, "QueueTimeout", text), result)
            return
    fields = {**NO_POD, "queuePosition": position, "retryTime": None}
    conditions = [
        ("PortClaimed", "False", reason, message),
        ("Ready", "False", reason, message),
    ]
    if reason == "GPUExhausted":
        if position and position > 1 and (server.status.reason, server.status.queue_position) == (reason, position):
            # The figures move with each report; only the one whose turn it is keeps up with them.
            message = server.status.message
        without = "no port is claimed before there is a GPU"
        conditions = [
            ("PortClaimed", "False", reason, without),
            ("GPUAssigned", "False", reason, message),
            ("Ready", "False", reason, "waiting for a GPU"),
        ]
        # Telemetry may age without an event; besides, it comes as one.
        result.wake_at(view.now + timedelta(seconds=LOOK_FOR_GPU_SECONDS))
    desired = Desired(phase, reason, message, fields, tuple(conditions))
    event = Event("Normal", reason, message) if server.status.reason != reason else None
    say(view.now, server, desired, result, event)
    follow(view, members, result)


def waiting_since(server: Instance) -> datetime | None:
    """Since when an instance has waited for a port: its creation, or its last end."""
    last = server.status.last_termination
    return last.time if last is not None and last.time is not None else server.metadata.creation_timestamp
