"""A group whose pod is there: starting, running, in use, idle, draining, collected."""

from __future__ import annotations

from datetime import timedelta

from . import objects
from .actions import (
    DeleteInstance,
    DeletePod,
    Event,
    Json,
    Plan,
    ProbeActivity,
    SetDraining,
)
from .clock import ceil, floor
from .idle import Clock, look
from .names import ANNOTATION_TEMPLATE, LABEL_PORT
from .podstate import PodPhase, PodState, started_at
from .resources import GpuStatus, Instance, LastTermination, Pod, Pool
from .settings import Settings, check, resolve
from .status import NO_POD, Desired, say
from .view import GroupView

# How long a drain decision may take before it is taken anew (seconds).
DRAIN_DECISION_SECONDS = 30


def wait(view: GroupView, members: list[Instance], pod: Pod, state: PodState, settings: Settings, result: Plan) -> None:
    """The pod is not ready: say why when it is worth saying, and look again at the timeout."""
    server = members[0]
    begun = started_at(pod) or pod.status.start_time or pod.metadata.creation_timestamp or view.now
    deadline = ceil(begun + timedelta(seconds=settings.startup_timeout))
    # Past the timeout (an image is being pulled) a look every few seconds will do.
    result.wake_at(max(deadline, view.now + timedelta(seconds=5)))
    if state.phase is PodPhase.UNREADY or state.reason == "Unschedulable":
        reason, message = state.reason, state.message
    else:
        # Every step of a start is not worth a write: a cold start has four (design §2.7).
        reason, message = "Starting", ""
    fields: Json = {
        "port": int(pod.metadata.labels[LABEL_PORT]),
        "podName": pod.metadata.name,
        "queuePosition": None,
        "retryTime": None,
        "sharedWith": None,
    }
    if server.status.start_time is None:
        fields["startTime"] = floor(view.now)
    conditions = (
        ("PortClaimed", "True", "Claimed", f"Service {pod.metadata.name}"),
        ("Ready", "False", reason, message or "the runtime is starting"),
    )
    say(view.now, server, Desired("Starting", reason, message, fields, conditions), result)


def serve(view: GroupView, members: list[Instance], pod: Pod, settings: Settings, result: Plan) -> None:
    """The pod is ready: keep status true, run the idle clock, drain and collect."""
    pool = view.pool
    if pool is None:
        raise ValueError("serve() needs the pool")
    if members[0].status.phase == "Draining":
        _drain(view, members, pod, settings, pool, result)
    else:
        _in_service(view, members, pod, settings, pool, result)


# ---- in service --------------------------------------------------------------------


def _in_service(
    view: GroupView, members: list[Instance], pod: Pod, settings: Settings, pool: Pool, result: Plan
) -> None:
    server = members[0]
    port = int(pod.metadata.labels[LABEL_PORT])
    if view.runtime.draining or (view.runtime.activity is not None and view.runtime.activity.draining):
        # Left over from a drain that was called off, perhaps by another process.
        result.actions.append(SetDraining(pod, port, draining=False))
    clock = look(
        server.status,
        _counted(members),
        view.runtime.activity,
        view.now,
        timeout=_group_timeout(view, members, pool),
        beat=_beat(pool, settings),
        ask_runtime=settings.count_from_runtime,
    )
    if clock.probe:
        result.actions.append(ProbeActivity(pod, port))
    result.wake_at(clock.next_look)
    outdated = _outdated(view, members, pod, settings, pool)
    if clock.collect or (outdated and not _counted(members)):
        _begin_drain(view, server, "Idle" if clock.collect else "Outdated", pool, result)
        return
    if clock.probe and server.status.phase == "Running":
        # What status says depends on the answer.
        return
    _say_running(view, server, pod, pool, clock, result)


def _say_running(view: GroupView, server: Instance, pod: Pod, pool: Pool, clock: Clock, result: Plan) -> None:
    port = int(pod.metadata.labels[LABEL_PORT])
    known = ("ActivityKnown", "True", "Answered", "")
    if not clock.known:
        error = view.runtime.activity.error if view.runtime.activity else "not asked yet"
        known = ("ActivityKnown", "False", "Unreachable", f"the runtime does not say who uses it: {error}")
    conditions = [
        ("Ready", "True", "Serving", ""),
        ("PortClaimed", "True", "Claimed", f"Service {pod.metadata.name}"),
        known,
    ]
    if pool.spec.gpu.mode != "None":
        conditions.append(("GPUAssigned", "True", "Scheduled", f"by {pool.spec.gpu.mode} on {pod.spec.node_name}"))
    url = webrtc_url(pool, pod, port)
    fields: Json = {
        "port": port,
        "webrtcUrl": url,
        "node": pod.spec.node_name,
        "podName": pod.metadata.name,
        "gpu": GpuStatus(node=pod.spec.node_name) if pool.spec.gpu.mode != "None" else None,
        "readyTime": server.status.ready_time or floor(view.now),
        "retryTime": None,
        "queuePosition": None,
        "sharedWith": None,
        "drainDeadline": None,
        "observedSessions": clock.observed,
        "idleDeadline": ceil(clock.deadline) if clock.deadline else None,
        "lastActivityTime": floor(clock.last_activity) if clock.last_activity else None,
    }
    if server.status.start_time is None:
        fields["startTime"] = floor(view.now)
    say(
        view.now,
        server,
        Desired("Running", "Serving", "", fields, tuple(conditions)),
        result,
        _became(server, pod, url),
    )


def _became(server: Instance, pod: Pod, url: str) -> Event | None:
    if server.status.phase == "Running":
        return None
    if server.status.phase == "Shared":
        return Event("Normal", "TookOver", f"serves the avatar now, in pod {pod.metadata.name}, at {url}")
    return Event("Normal", "Ready", f"pod {pod.metadata.name} is ready at {url}")


def webrtc_url(pool: Pool, pod: Pod, port: int) -> str:
    """Where clients post their offer: the node, the pool's external host, or the Service."""
    network = pool.spec.network
    host = network.external_host
    if not host and network.mode == "Pod":
        host = f"{pod.metadata.name}.{pod.metadata.namespace}.svc"
    host = host or pod.status.host_ip or pod.spec.node_name
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/offer"


# ---- drain and collect ---------------------------------------------------------------


def _begin_drain(view: GroupView, server: Instance, reason: str, pool: Pool, result: Plan) -> None:
    """Mark by compare-and-swap: a client who arrived since the view was taken wins."""
    deadline = ceil(view.now + timedelta(seconds=DRAIN_DECISION_SECONDS))
    message = {
        "Idle": "idle past its timeout; refusing offers and looking once more",
        "Outdated": "its pool or avatar changed; refusing offers and looking once more",
    }[reason]
    desired = Desired("Draining", reason, message, {"drainDeadline": deadline})
    say(view.now, server, desired, result, exact=True)


def _drain(view: GroupView, members: list[Instance], pod: Pod, settings: Settings, pool: Pool, result: Plan) -> None:
    """Refuse offers, look a second time, then collect or call it off."""
    server, runtime = members[0], view.runtime
    port = int(pod.metadata.labels[LABEL_PORT])
    if _counted(members) or server.status.reason not in ("Idle", "Outdated"):
        _call_off(view, members, pod, settings, pool, result)
        return
    if runtime.draining is not True or runtime.told_at is None:
        result.actions.append(SetDraining(pod, port, draining=True))
        return
    if settings.count_from_runtime:
        seen = runtime.activity
        if seen is None or seen.at < runtime.told_at:
            result.actions.append(ProbeActivity(pod, port))
            return
        if seen.sessions is None or seen.sessions > 0:
            _call_off(view, members, pod, settings, pool, result)
            return
    if server.status.reason == "Outdated":
        _replace(view, server, pod, result)
    else:
        _collect(view, members, pod, pool, result)


def _call_off(view: GroupView, members: list[Instance], pod: Pod, settings: Settings, pool: Pool, result: Plan) -> None:
    """Somebody is there, or nobody knows: take offers again, then say Running."""
    server, runtime = members[0], view.runtime
    if runtime.draining is not False:
        result.actions.append(SetDraining(pod, int(pod.metadata.labels[LABEL_PORT]), draining=False))
        return
    seen = runtime.activity
    sessions = seen.sessions if seen is not None else None
    known = _counted(members) > 0 or not settings.count_from_runtime or sessions is not None
    observed = sessions if settings.count_from_runtime else None
    clock = Clock(None, view.now, observed, known, next_look=view.now + timedelta(seconds=_beat(pool, settings)))
    result.wake_at(clock.next_look)
    _say_running(view, server, pod, pool, clock, result)


def _replace(view: GroupView, server: Instance, pod: Pod, result: Plan) -> None:
    """Roll an unused pod whose template changed; the claim stays."""
    result.actions.append(DeletePod(pod, "Outdated"))
    last = LastTermination(time=floor(view.now), reason="Outdated")
    fields = {**NO_POD, "lastTermination": last}
    message = "replacing the pod: its pool or avatar changed"
    conditions = (("Ready", "False", "Outdated", message),)
    event = Event("Normal", "Outdated", message)
    say(view.now, server, Desired("Starting", "Outdated", message, fields, conditions), result, event)


def _collect(view: GroupView, members: list[Instance], pod: Pod, pool: Pool, result: Plan) -> None:
    """Followers first, the server last: what is interrupted in between is still a whole."""
    followers = members[1:]
    for member in followers or members:
        settings = resolve(member, pool, view.avatar) if view.avatar else None
        action = settings.idle_action if settings else pool.spec.idle.action
        idle = _idle_seconds(view, members[0])
        message = f"nobody used it for {idle} s (idle.timeoutSeconds); action {action}"
        event = Event("Normal", "IdleCollected", message)
        if action == "Delete":
            result.actions.append(DeleteInstance(member, event))
            continue
        last = LastTermination(time=floor(view.now), reason="Idle", message=message, idle_seconds=idle)
        desired = Desired(
            "Stopped",
            "Idle",
            message,
            {**NO_POD, "restarts": 0, "lastTermination": last},
            (
                ("Ready", "False", "Stopped", "asleep; raising status.connections wakes it"),
                ("PortClaimed", "False", "Stopped", "released"),
            ),
        )
        # By compare-and-swap: a connection counted in this very moment wins.
        say(view.now, member, desired, result, event, exact=True)


# ---- small parts ---------------------------------------------------------------------


def _counted(members: list[Instance]) -> int:
    return sum(m.counted_connections for m in members)


def _group_timeout(view: GroupView, members: list[Instance], pool: Pool) -> int:
    """The longest idle timeout of the sharers; one that says never wins (0)."""
    if view.avatar is None:
        return pool.spec.idle.timeout_seconds
    each = [resolve(m, pool, view.avatar) for m in members if check(m, pool, view.avatar) is None]
    if not each or not all(s.collects for s in each):
        return 0
    return max(s.idle_timeout for s in each)


def _beat(pool: Pool, settings: Settings) -> int:
    """Seconds between looks at a runtime that only it knows to be in use."""
    half = settings.idle_timeout // 2 if settings.idle_timeout else pool.spec.health.period_seconds
    return max(1, min(pool.spec.health.period_seconds, half))


def _outdated(view: GroupView, members: list[Instance], pod: Pod, settings: Settings, pool: Pool) -> bool:
    """Whether the pod would be made differently today."""
    if view.avatar is None or check(members[0], pool, view.avatar) is not None:
        return False
    port = int(pod.metadata.labels[LABEL_PORT])
    wanted = objects.template_hash(objects.pod(pool, members, settings, view.key.id, port))
    return pod.metadata.annotations.get(ANNOTATION_TEMPLATE) != wanted


def _idle_seconds(view: GroupView, server: Instance) -> int:
    since = server.status.last_activity_time or server.status.ready_time or view.now
    return max(0, int((view.now - since).total_seconds()))
