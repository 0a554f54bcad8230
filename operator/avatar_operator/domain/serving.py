"""A group whose pod is there: starting, ready, in use, idle, and when to begin to drain (then see draining)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from . import flow as flows
from . import leak as leaks
from . import media as ways
from . import objects
from .actions import Event, Json, Plan, ProbeActivity, ProbeMedia, ProbeReady, SetDraining
from .assigned import condition, gpu_status
from .case import Case
from .clock import ceil, floor
from .idle import Clock, look, patience_ends, unseen_ends
from .names import ANNOTATION_TEMPLATE
from .podstate import PodPhase, PodState, running_since, started_at
from .resources import Instance, Pod, Pool
from .settings import check, resolve
from .status import Desired, say
from .tts_choice import conditions as speech
from .upkeep import give_up_on_media, media_of, probe_once, protect
from .view import GroupView

# Why an instance drains, by the reason that its status says.
WHY_DRAINING = {
    "Idle": "idle past its timeout",
    "Unclaimed": "nobody has connected in idle.claimTimeoutSeconds",
    "MaxAge": "older than idle.maxAgeSeconds",
    "Outdated": "its pool or avatar changed",
}
# How long a decision to drain may take before a user should wonder (seconds).
DRAIN_DECISION_SECONDS = 30
# How often a start is looked at whose deadline has passed without failing (a long pull).
LOOK_AGAIN_SECONDS = 5

# A starting runtime is asked so often whether it serves (seconds); the kubelet asks once a second at most.
ASK_SECONDS = 0.1
# After so many seconds of starting it is loading a model: every second will do.
ASK_SLOWLY_AFTER_SECONDS = 10
# So long, and two periods of the kubelet's probe, an answer to us stands in for the kubelet's Ready.
ANSWER_SECONDS = 5
# A runtime may need so long (seconds) to know which GPUs it sees; some never tell.
ASK_FOR_GPUS_SECONDS = 40


def wait(case: Case, state: PodState, result: Plan) -> None:
    """The pod is not ready: say why when it is worth saying, and look again at the timeout."""
    now, pod = case.view.now, case.pod
    begun = started_at(pod) or pod.status.start_time or pod.metadata.creation_timestamp or now
    deadline = ceil(begun + timedelta(seconds=case.settings.startup_timeout))
    result.wake_at(deadline if deadline > now else now + timedelta(seconds=LOOK_AGAIN_SECONDS))
    media = media_of(case)
    if state.phase is PodPhase.UNREADY and give_up_on_media(case, media, result):
        return
    if state.phase is PodPhase.STARTING and pod.status.pod_ip:
        _ask_whether_it_serves(case, (now - begun).total_seconds(), result)
    # Every step of a start is not worth a write: a cold start has four (design §2.7).
    reason, message = "Starting", ""
    if state.phase is PodPhase.UNREADY or state.reason == "Unschedulable":
        reason, message = state.reason, state.message
    fields: Json = {
        "port": case.port,
        "podName": pod.metadata.name,
        "startTime": _start_time(case),
        "queuePosition": None,
        "retryTime": None,
        "sharedWith": None,
        # The idle clock stops while nobody could use it, and starts anew when it serves again.
        "idleDeadline": None,
    }
    conditions = (
        ("PortClaimed", "True", "Claimed", f"Service {pod.metadata.name}"),
        ("Ready", "False", reason, message or "the runtime is starting"),
        *((media.condition,) if media.condition is not None else ()),
    )
    drop = (flows.CONDITION,) if media.drop else ()
    case.say(Desired("Starting", reason, message, fields, conditions, drop), result, media.event)


def _ask_whether_it_serves(case: Case, age: float, result: Plan) -> None:
    """Do not leave it to the kubelet alone, whose second would be a third of a start."""
    interval = timedelta(seconds=ASK_SECONDS if age < ASK_SLOWLY_AFTER_SECONDS else 1.0)
    asked = case.view.runtime.asked_at
    if asked is None or case.view.now >= asked + interval:
        result.actions.append(ProbeReady(case.pod, case.port, case.pool.spec.runtime.probes.path))
    else:
        result.wake_at(asked + interval)


def answers_until(view: GroupView, pod: Pod) -> datetime | None:
    """Until when an answer of the runtime stands in for the kubelet's Ready; None = there is none.

    Only an answer that the container gave which runs now, and only as long as
    the kubelet's own probe may take to find it out.
    """
    answered, begun = view.runtime.answered_at, running_since(pod)
    if answered is None or begun is None or answered < begun or view.pool is None:
        return None
    period = view.pool.spec.runtime.probes.period_seconds
    until = answered + timedelta(seconds=ANSWER_SECONDS + 2 * period)
    return until if view.now < until else None


# ---- in service --------------------------------------------------------------------


def serve(case: Case, result: Plan) -> None:
    """The pod is ready and does not drain: keep status true, run the clocks, begin to drain when one is over."""
    runtime = case.view.runtime
    # By then the kubelet must say so too.
    result.wake_at(answers_until(case.view, case.pod))
    if runtime.draining or (runtime.activity is not None and runtime.activity.draining):
        # Left over from a drain that was called off, perhaps by another process.
        result.actions.append(SetDraining(case.pod, case.port, draining=False))
    timeout = group_timeout(case)
    clock = look(
        case.server.status,
        case.counted,
        runtime.activity,
        case.view.now,
        timeout=timeout,
        claim_timeout=case.pool.spec.idle.claim_timeout_seconds,
        beat=case.beat,
        ask_runtime=case.settings.count_from_runtime,
        not_before=_not_before(case, timeout),
    )
    result.wake_at(clock.next_look)
    leak = _leak(case)
    result.wake_at(leak.next_look)
    old = too_old(case)
    if not old:
        result.wake_at(age_limit(case))
    running = case.server.status.phase == "Running"
    seen = runtime.activity
    if seen is not None and seen.sessions is None and give_up_on_media(case, media_of(case), result):
        return
    if running and leak.correct:
        _correct_count(case, result)
    elif running and old:
        _begin_drain(case, "MaxAge", result)
    elif running and clock.collect:
        _begin_drain(case, "Unclaimed" if clock.unclaimed else "Idle", result)
    elif running and outdated(case) and _unused(case, result):
        _begin_drain(case, "Outdated", result)
    elif running and clock.probe:
        # What status says next depends on the answer.
        result.actions.append(ProbeActivity(case.pod, case.port))
    else:
        say_running(case, clock, result, leak.condition)
        ask = leak.probe or _ask_for_gpus(case, result)
        if running and ask:
            probe_once(case, result)
        if running:
            _probe_media(case, result)
    if running:
        protect(case, timeout, result)


def _media_known(case: Case) -> bool:
    """Whether status tells more of the pod's media than this process, which has not probed it yet."""
    told = case.server.status
    return case.view.runtime.media is None and told.phase == "Running" and told.media is not None


def _probe_media(case: Case, result: Plan) -> None:
    """Find out, from time to time, whether peers reach the media."""
    due = ways.next_probe(case.pool, case.view.runtime.media, case.view.now)
    if due is not None and due <= case.view.now:
        result.actions.append(ProbeMedia(case.pod, case.port))
    else:
        result.wake_at(due)


def _ask_for_gpus(case: Case, result: Plan) -> bool:
    """Whether to ask the runtime now which GPUs it sees: once, and again for a while if it does not tell yet."""
    if case.pool.spec.gpu.mode == "None":
        return False
    seen, ready = case.view.runtime.activity, case.server.status.ready_time
    if seen is None:
        return True
    if seen.gpus is not None or ready is None or seen.at >= ready + timedelta(seconds=ASK_FOR_GPUS_SECONDS):
        return False
    again = seen.at + timedelta(seconds=ASK_FOR_GPUS_SECONDS / 4)
    result.wake_at(again)
    return case.view.now >= again


def _unused(case: Case, result: Plan) -> bool:
    """Whether nobody uses it, as far as anybody knows now; asks once a beat while that is open."""
    if case.counted or not case.settings.count_from_runtime:
        return not case.counted
    seen, now = case.view.runtime.activity, case.view.now
    if seen is None or now >= seen.at + timedelta(seconds=case.beat):
        result.actions.append(ProbeActivity(case.pod, case.port))
        return False
    result.wake_at(seen.at + timedelta(seconds=case.beat))
    return seen.sessions == 0


def _leak(case: Case) -> leaks.Leak:
    if not case.settings.count_from_runtime:
        return leaks.Leak()
    return leaks.look(
        case.server.status,
        case.counted,
        case.view.runtime.activity,
        case.view.now,
        beat=case.pool.spec.health.period_seconds,
        patience=case.pool.spec.idle.connection_leak_seconds,
        counted_since=max((since for m in case.members if (since := m.counted_since) is not None), default=None),
    )


def _correct_count(case: Case, result: Plan) -> None:
    """Set counts to what the runtime says: nobody. By compare-and-swap, as somebody may just come.

    The doubt ends in the same write, the server's first: who is counted the moment after has a time of their own.
    """
    for member in case.members:
        status, event = member.status, None
        conditions = (leaks.CONFIRMED,) if leaks.doubted(status) else ()
        desired = Desired(status.phase, status.reason, status.message, {}, conditions)
        if member.counted_connections:
            message = (
                f"status counted {member.counted_connections} connections while the runtime had no session for "
                f"{case.pool.spec.idle.connection_leak_seconds} s (idle.connectionLeakSeconds); set to 0"
            )
            event = Event("Warning", "CountCorrected", message)
            desired = replace(desired, fields={"connections": 0, "sessions": []})
        if desired.fields or desired.conditions:
            say(case.view.now, member, desired, result, event, exact=True)


def say_running(case: Case, clock: Clock, result: Plan, count: tuple[str, str, str, str] | None = None) -> None:
    """Status and conditions of an instance that serves; ``count``: the condition of its count, if it is to change."""
    now, server, pod, pool = case.view.now, case.server, case.pod, case.pool
    url = webrtc_url(pool, pod, case.port)
    conditions = [
        ("Ready", "True", "Serving", ""),
        ("PortClaimed", "True", "Claimed", f"Service {pod.metadata.name}"),
        _activity_condition(case, clock),
    ]
    if count is not None:
        conditions.append(count)
    media = media_of(case)
    if media.condition is not None:
        conditions.append(media.condition)
    conditions += speech(case.settings.tts, pod.metadata, case.view.engines, pool.spec.tts.url)
    gpu = gpu_status(case.view.gpu, pool, pod)
    assigned = condition(case.view, pool, pod)
    if assigned is not None:
        conditions.append(assigned)
    fields: Json = {
        "port": case.port,
        "webrtcUrl": url,
        "node": pod.spec.node_name,
        "podName": pod.metadata.name,
        "gpu": gpu,
        "startTime": _start_time(case),
        "readyTime": server.status.ready_time or floor(now),
        "retryTime": None,
        "queuePosition": None,
        "sharedWith": None,
        "drainDeadline": None,
        "observedSessions": clock.observed,
        "idleDeadline": ceil(clock.deadline) if clock.deadline else None,
        "lastActivityTime": floor(clock.last_activity) if clock.last_activity else None,
    }
    if not _media_known(case):
        fields["media"] = ways.status(pool, pod, case.port, case.view.runtime.media)
        conditions.append(ways.condition(pool, pod, case.view.runtime.media))
    drop = [*(["GPUAssigned"] if assigned is None else []), *([flows.CONDITION] if media.drop else [])]
    desired = Desired("Running", "Serving", "", fields, tuple(conditions), tuple(drop))
    case.say(desired, result, _became(server, pod, url) or _no_gpu(server, assigned) or media.event)


def _activity_condition(case: Case, clock: Clock) -> tuple[str, str, str, str]:
    if clock.known:
        return ("ActivityKnown", "True", "Known", "")
    seen = case.view.runtime.activity
    error = seen.error if seen is not None else "not asked yet"
    return ("ActivityKnown", "False", "Unreachable", f"the runtime does not say who uses it: {error}")


def _became(server: Instance, pod: Pod, url: str) -> Event | None:
    match server.status.phase:
        case "Running":
            return None
        case "Draining":
            return Event("Normal", "DrainCalledOff", "somebody uses it after all")
        case "Shared":
            return Event("Normal", "TookOver", f"serves the avatar now, in pod {pod.metadata.name}, at {url}")
        case _:
            return Event("Normal", "Ready", f"pod {pod.metadata.name} is ready at {url}")


def _no_gpu(server: Instance, assigned: tuple[str, str, str, str] | None) -> Event | None:
    """Said once: when the condition turns."""
    if assigned is None or assigned[2] != "NoGPUVisible":
        return None
    known = next((c for c in server.status.conditions if c.type == assigned[0]), None)
    return Event("Warning", assigned[2], assigned[3]) if known is None or known.reason != assigned[2] else None


def webrtc_url(pool: Pool, pod: Pod, port: int) -> str:
    """Where clients post their offer: the pool's external host, the Service, or the node."""
    network = pool.spec.network
    host = network.external_host
    if not host and network.mode in ("Pod", "Relay"):
        host = f"{pod.metadata.name}.{pod.metadata.namespace}.svc"
    host = host or pod.status.host_ip or pod.spec.node_name
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/offer"


def _begin_drain(case: Case, reason: str, result: Plan) -> None:
    """Mark by compare-and-swap: a client who arrived since the view was taken wins."""
    if reason == "MaxAge":
        # It goes on for those who are there, however long they stay: no deadline.
        message = f"{WHY_DRAINING[reason]}; refusing offers until its last session has ended"
        event = Event("Normal", reason, message)
        case.say(Desired("Draining", reason, message, {"idleDeadline": None}), result, event, exact=True)
        return
    deadline = ceil(case.view.now + timedelta(seconds=DRAIN_DECISION_SECONDS))
    message = f"{WHY_DRAINING[reason]}; refusing offers and looking once more"
    case.say(Desired("Draining", reason, message, {"drainDeadline": deadline}), result, exact=True)


# ---- small parts ---------------------------------------------------------------------


def _start_time(case: Case) -> datetime:
    """When the start began: where that was not said, as in a crowd, by the pod."""
    return case.server.status.start_time or case.pod.metadata.creation_timestamp or floor(case.view.now)


def age_limit(case: Case) -> datetime | None:
    """When the pod has reached idle.maxAgeSeconds; None = there is no such limit."""
    limit, created = case.pool.spec.idle.max_age_seconds, case.pod.metadata.creation_timestamp
    return created + timedelta(seconds=limit) if limit and created is not None else None


def too_old(case: Case) -> bool:
    """Whether the pod has reached that age."""
    limit = age_limit(case)
    return limit is not None and case.view.now >= limit


def group_timeout(case: Case) -> int:
    """The longest idle timeout of the sharers; one that says never wins (0)."""
    avatar, pool = case.view.avatar, case.pool
    if avatar is None:
        return pool.spec.idle.timeout_seconds
    # One that asks for more than the pool allows has no say, unless it is all there is.
    allowed = [m for m in case.members if check(m, pool, avatar) is None] or case.members
    each = [resolve(m, pool, avatar) for m in allowed]
    if not all(s.collects for s in each):
        return 0
    return max(s.idle_timeout for s in each)


def _last_asked(case: Case) -> datetime | None:
    """When somebody came last to share the pod; None while nobody shares it."""
    times = (m.metadata.creation_timestamp for m in case.members[1:])
    return max((t for t in times if t is not None), default=None)


def _patience_ends(case: Case, timeout: int) -> datetime | None:
    claim_timeout = case.pool.spec.idle.claim_timeout_seconds
    return patience_ends(_last_asked(case), case.view.runtime.used_at, timeout, claim_timeout)


def _not_before(case: Case, timeout: int) -> datetime | None:
    ends = (_patience_ends(case, timeout), unseen_ends(case.view.runtime.known_since, timeout))
    return max((end for end in ends if end is not None), default=None)


def awaited(case: Case) -> bool:
    """Whether a sharer came so late, or left so lately, that there was no time to connect, or to come back.

    So it is for ever where one of them, who may have come since, is never to be collected.
    """
    timeout = group_timeout(case)
    ends = _patience_ends(case, timeout)
    return not timeout or (ends is not None and case.view.now < ends)


def outdated(case: Case) -> bool:
    """Whether the pod would be made differently today."""
    if case.view.avatar is None or check(case.server, case.pool, case.view.avatar) is not None:
        return False
    wanted = objects.pod(case.pool, case.members, case.settings, case.view.key.id, case.port)
    return case.pod.metadata.annotations.get(ANNOTATION_TEMPLATE) != objects.template_hash(wanted)
