"""The heart: from everything known about one group to what should be done about it.

Level-triggered: the plan follows from the view alone, whatever happened
before. It is called again after each of its actions has changed something,
until it asks for nothing more.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from . import objects, serving
from .actions import (
    ConfirmPlacement,
    CreateClaim,
    CreateDeviceClaim,
    CreatePod,
    DeletePod,
    Event,
    PatchStatus,
    Plan,
    RaiseEstimate,
    ReadAllocation,
    ReleaseClaim,
    SetOwners,
)
from .assigned import gpu_status, reservation_holds, reserved
from .clock import floor
from .devices import DEVICE_REQUEST, PLACED_MODES, placement_of, resource_claim
from .estimate import need, raise_after
from .failure import fail
from .names import LABEL_PORT
from .podstate import PodPhase, PodState, classify
from .resources import (
    Avatar,
    AvatarSpec,
    Instance,
    InstanceStatus,
    LastTermination,
    Meta,
    Pod,
    Pool,
    Service,
    Termination,
)
from .sessions import Roll, lapse, next_lapse
from .settings import check, resolve
from .status import ASLEEP, NO_POD, Desired, planned, say
from .tts_choice import conditions as speech
from .view import GroupView

# What a new instance refers to may come this much later (seconds) before it counts as missing.
BELIEVE_SECONDS = 2

# So many sessions are named in one event.
NAMED_SESSIONS = 3
# Those that wait for a GPU are looked at this often (seconds), whatever is heard meanwhile.
LOOK_FOR_GPU_SECONDS = 10
# A pod on a lost GPU serves nobody any more: it is not given the time to drain (seconds).
LOST_GPU_GRACE_SECONDS = 2

# Phases of a pod in which its container runs: an answer of the runtime itself is as good as the kubelet's Ready.
_UP = (PodPhase.STARTING, PodPhase.UNREADY)


def wants_to_run(instance: Instance) -> bool:
    """Whether ``instance`` should have a pod: always, but when asleep and not called."""
    if instance.metadata.deletion_timestamp is not None:
        return False
    return instance.status.phase != "Stopped" or instance.counted_connections > 0


def needs_claim(view: GroupView) -> bool:
    """Whether the group waits for a port: what the pool's queue is made of."""
    if view.claims or view.pods:
        return False
    server = next((m for m in view.members if wants_to_run(m) and check(m, view.pool, view.avatar) is None), None)
    # The server's backoff is the group's: its followers do not hold a place in the queue meanwhile.
    retry = server.status.retry_time if server is not None else None
    return server is not None and (retry is None or retry <= view.now)


def plan(view: GroupView) -> Plan:
    """What to do about ``view`` now, and when to look again."""
    result = Plan()
    if _lapse(view, result):
        return result
    live = [p for p in view.pods if p.metadata.deletion_timestamp is None]
    wanting = [m for m in view.members if wants_to_run(m)]
    if view.pool is None and live and wanting:
        # Its pool was deleted under a running instance: nobody is thrown out for that.
        return result
    if not live:
        valid = _refuse_invalid(view, wanting, result)
        if valid:
            _start(view, valid, result)
        else:
            _clean_up(view, result)
        _settle_asleep(view, result)
        return result
    if not wanting:
        for pod in live:
            result.actions.append(DeletePod(pod, "NotWanted"))
        _settle_asleep(view, result)
        return result
    pod = _one_pod(live, result)
    # Nobody is thrown out for a limit that was lowered since: then all of them stay.
    valid = [m for m in wanting if _within_limits(m, view)] or wanting
    _refuse(view, [m for m in wanting if m not in valid], result)
    _run(view, valid, pod, result)
    _settle_asleep(view, result)
    return result


def _lapse(view: GroupView, result: Plan) -> bool:
    """End the sessions whose lease is over; whether there were any. What follows from it is the next plan's."""
    for member in view.members:
        roll = Roll.of(member.status)
        left = lapse(roll, view.now)
        result.wake_at(next_lapse(left.sessions))
        if left is roll:
            continue
        ended = [s for s in roll.sessions if s not in left.sessions]
        who = ", ".join(f"{s.id} of {s.user}" if s.user else s.id for s in ended[:NAMED_SESSIONS])
        more = f" and {len(ended) - NAMED_SESSIONS} more" if len(ended) > NAMED_SESSIONS else ""
        text = f"no sign of life from session {who}{more} in its time; {left.connections} connected still"
        # By compare-and-swap: a session that is renewed in this very moment stays.
        event = Event("Normal", "SessionExpired", text)
        result.actions.append(PatchStatus(member, dict(left.status()), exact=True, events=(event,)))
    return bool(result.actions)


# ---- members ---------------------------------------------------------------------


def _within_limits(instance: Instance, view: GroupView) -> bool:
    problem = check(instance, view.pool, view.avatar or _nameless(instance))
    return problem is None or problem.reason != "LimitExceeded"


def _refuse_invalid(view: GroupView, wanting: list[Instance], result: Plan) -> list[Instance]:
    """Those of ``wanting`` that can run; the others get their problem as status."""
    valid = [m for m in wanting if check(m, view.pool, view.avatar) is None]
    _refuse(view, [m for m in wanting if m not in valid], result)
    return valid


def _refuse(view: GroupView, refused: Iterable[Instance], result: Plan) -> None:
    for member in refused:
        problem = check(member, view.pool, view.avatar)
        if problem is None:
            continue
        believed = (member.metadata.creation_timestamp or view.now) + timedelta(seconds=BELIEVE_SECONDS)
        if problem.reason in ("PoolNotFound", "AvatarNotFound") and not member.status.phase and view.now < believed:
            # Applied together with it, and on its way to us by another watch.
            result.wake_at(believed)
            continue
        desired = Desired(
            "Failed",
            problem.reason,
            problem.message,
            {**NO_POD, "queuePosition": None, "retryTime": None},
            (("Ready", "False", problem.reason, problem.message),),
        )
        say(view.now, member, desired, result, Event("Warning", problem.reason, problem.message))


def _settle_asleep(view: GroupView, result: Plan) -> None:
    """Stopped members that nobody calls: their status holds nothing of a pod."""
    for member in view.members:
        if member.status.phase == "Stopped" and not wants_to_run(member):
            desired = Desired(
                "Stopped",
                member.status.reason,
                member.status.message,
                {**NO_POD, "queuePosition": None},
                (ASLEEP,),
            )
            say(view.now, member, desired, result)


def _clean_up(view: GroupView, result: Plan) -> None:
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


# ---- without a pod ---------------------------------------------------------------


def _start(view: GroupView, members: list[Instance], result: Plan) -> None:
    server = members[0]
    if any(m.status.ready_time for m in members) and not view.pods:
        _lost(view, members, result)
        return
    if view.rejection is not None:
        _fail(view, members, PodState(PodPhase.FAILED, *view.rejection), result)
        return
    retry = server.status.retry_time
    if retry is not None and retry > view.now:
        _clean_up(view, result)
        result.wake_at(retry)
        _follow(view, members, result)
        return
    if view.pods:
        _wait_for_end(view, members, result)
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


def _use_claim(view: GroupView, members: list[Instance], claim: Service, result: Plan) -> None:
    """Put a pod behind the claim, if the GPU that it reserves is good and really ours."""
    pool, avatar = view.pool, view.avatar
    if pool is None or avatar is None:
        raise ValueError("a claim is used only for instances that passed check()")
    if not reservation_holds(view.gpu, pool):
        result.actions.append(ReleaseClaim(claim))
    elif pool.spec.gpu.mode in PLACED_MODES and view.gpu.report is not None and not view.gpu.confirmed:
        result.actions.append(ConfirmPlacement(claim, need(pool.spec.gpu, avatar)))
    else:
        _create_pod(view, members, claim, result)


def _lost(view: GroupView, members: list[Instance], result: Plan) -> None:
    """The pod of a ready instance is gone and nobody here deleted it: build it anew."""
    _fail(view, members, PodState(PodPhase.FAILED, "PodLost", "the pod disappeared"), result)


def _fail(view: GroupView, members: list[Instance], state: PodState, result: Plan) -> None:
    """A start that failed without a pod of its own to look at."""
    fail(view, members, state, result)
    _follow(view, members, result)


def _wait_for_end(view: GroupView, members: list[Instance], result: Plan) -> None:
    """An earlier pod still terminates and holds the port; its end is an event."""
    reason, message = "Terminating", "waiting for the previous pod to end"
    for member in members:
        if member.status.phase == "Failed":
            continue
        fields = {**NO_POD, "queuePosition": None}
        if member.status.ready_time is not None:
            # Nobody here deleted it: kubectl did, or a drain of its node.
            why = f"pod {member.status.pod_name} was deleted"
            fields["lastTermination"] = LastTermination(time=floor(view.now), reason="PodDeleted", message=why)
        desired = Desired("Pending", reason, message, fields, (("Ready", "False", reason, message),))
        say(view.now, member, desired, result)


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
    placement = view.gpu.reserved if pool.spec.gpu.mode in PLACED_MODES else view.gpu.place or view.gpu.reserved
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
    _follow(view, members, result)


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
        since = _waiting_since(server) or view.now
        deadline = since + timedelta(seconds=queue.timeout_seconds)
        result.wake_at(deadline)
        if view.now >= deadline:
            text = f"no port became free in {queue.timeout_seconds} s (spec.queue.timeoutSeconds of the AvatarPool)"
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
    _follow(view, members, result)


# ---- with a pod ------------------------------------------------------------------


def _one_pod(live: list[Pod], result: Plan) -> Pod:
    """The pod that serves; another of the same group is deleted."""

    def merit(pod: Pod) -> tuple[bool, str]:
        ready = pod.condition("Ready")
        return (ready is None or ready.status != "True", pod.metadata.name)

    first, *others = sorted(live, key=merit)
    result.actions.extend(DeletePod(extra, "Duplicate") for extra in others)
    return first


def _run(view: GroupView, members: list[Instance], pod: Pod, result: Plan) -> None:
    server, pool = members[0], view.pool
    if pool is None:
        return
    avatar = view.avatar or _nameless(server)
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
    if view.gpu.lost:
        _leave_gpu(view, members, pod, result)
    elif state.phase is PodPhase.FAILED:
        result.actions.append(DeletePod(pod, state.reason))
        if state.reason == "GPUOutOfMemory":
            _learn_from(view, pool, pod, result)
        fail(view, members, state, result)
    elif state.phase is PodPhase.READY or (state.phase in _UP and serving.answers_until(view, pod) is not None):
        serving.serve(serving.Case(view, pool, members, pod, settings), result)
    else:
        serving.wait(serving.Case(view, pool, members, pod, settings), state, result)
    _follow(view, members, result, pod)


def _claim_device(view: GroupView, pool: Pool, pod: Pod, result: Plan) -> None:
    """The pod's ResourceClaim is made after the pod, which owns it; what it got is read when a node has it."""
    name = next((c.resource_claim_name for c in pod.spec.resource_claims if c.name == DEVICE_REQUEST), "")
    placement = view.gpu.place or view.gpu.reserved
    if not name or placement is None:
        return
    if pod.spec.node_name:
        if view.gpu.allocated is None:
            result.actions.append(ReadAllocation(pod, name, pool.spec.gpu.dra))
    elif not view.gpu.claim_made:
        result.actions.append(CreateDeviceClaim(pod, resource_claim(pool, pod.metadata, placement, name)))


def _leave_gpu(view: GroupView, members: list[Instance], pod: Pod, result: Plan) -> None:
    """The GPU under the pod is lost: start anew on another one. The instance has not failed."""
    message = f"{view.gpu.lost}; moving to another GPU"
    result.actions.append(DeletePod(pod, "GPULost", grace=LOST_GPU_GRACE_SECONDS))
    fail(view, members, PodState(PodPhase.FAILED, "GPULost", message), result)


def _learn_from(view: GroupView, pool: Pool, pod: Pod, result: Plan) -> None:
    """A pod that ran out of GPU memory reserves more next time."""
    reservation = placement_of(pod.metadata)
    if view.avatar is None or reservation is None or pool.spec.gpu.estimates == "Fixed":
        return
    vram = raise_after(view.avatar.status.vram, reservation.mib)
    if vram is not None:
        result.actions.append(RaiseEstimate(view.avatar, vram))


def _claim_for_pod(view: GroupView, server: Instance, pod: Pod, result: Plan) -> None:
    """A pod without its claim (somebody deleted the Service) gets it back."""
    port = int(pod.metadata.labels.get(LABEL_PORT, "0"))
    if port and not any(c.metadata.name == pod.metadata.name for c in view.claims):
        placement = placement_of(pod.metadata)
        result.actions.append(CreateClaim(port, objects.service(server, view.key.id, port, placement), placement))
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


def _follow(view: GroupView, members: list[Instance], result: Plan, pod: Pod | None = None) -> None:
    """Followers show what their server shows, in the words of a follower."""
    server = members[0]
    status = planned(server, result)
    ready = pod is not None and status.ready_time is not None and status.phase in ("Running", "Draining")
    for member in members[1:]:
        if ready:
            reason, message = "Shared", f"served by AvatarInstance {server.metadata.name}"
            desired = Desired(
                "Shared",
                reason,
                message,
                {
                    "port": status.port,
                    "webrtcUrl": status.webrtc_url,
                    "node": status.node,
                    "gpu": status.gpu,
                    "podName": status.pod_name,
                    "readyTime": status.ready_time,
                    "sharedWith": server.metadata.name,
                    "queuePosition": None,
                    "retryTime": None,
                    "idleDeadline": None,
                    "drainDeadline": None,
                },
                (("Ready", "True", reason, message), *_speech_of(status)),
            )
        else:
            message = f"shares AvatarInstance {server.metadata.name}: {status.message or status.reason}"
            fields = {**NO_POD, "sharedWith": server.metadata.name, "queuePosition": status.queue_position}
            phase = "Pending" if status.phase in ("Starting", "Running", "Draining", "") else status.phase
            desired = Desired(
                phase,
                status.reason,
                message,
                fields,
                (("Ready", "False", status.reason or "Waiting", message),),
            )
        event = Event("Normal", "Shared", desired.message) if member.status.phase != desired.phase == "Shared" else None
        say(view.now, member, desired, result, event)


# ---- small parts -----------------------------------------------------------------


def _speech_of(server: InstanceStatus) -> tuple[tuple[str, str, str, str], ...]:
    """Followers speak through their server's engine."""
    return tuple((c.type, c.status, c.reason, c.message) for c in server.conditions if c.type == "TTSReady")


def _waiting_since(server: Instance) -> datetime | None:
    """Since when an instance has waited for a port: its creation, or its last end."""
    last = server.status.last_termination
    return last.time if last is not None and last.time is not None else server.metadata.creation_timestamp


def _nameless(instance: Instance) -> Avatar:
    """Stands in for an Avatar deleted under a running instance."""
    return Avatar(metadata=Meta(name=""), spec=AvatarSpec(avatar_name=instance.spec.avatar_name))
