"""plan(): each step in the life of an instance. What the whole life comes to is in test_life and test_plan_machine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from avatar_operator.domain.actions import (
    CreateClaim,
    CreatePod,
    DeleteInstance,
    DeletePod,
    PatchStatus,
    ProbeActivity,
    ReleaseClaim,
    SetDraining,
    SetOwners,
)
from avatar_operator.domain.clock import floor
from avatar_operator.domain.plan import needs_claim, plan, wants_to_run
from avatar_operator.domain.resources import (
    CountFields,
    Instance,
    InstanceIdle,
    InstanceStatus,
    LastTermination,
    Limits,
    ManagedFields,
    OwnedFields,
    PoolIdle,
    Queue,
    Session,
)
from avatar_operator.domain.status import planned
from avatar_operator.domain.view import GroupView
from tests.unit.builders import (
    NOW,
    Admission,
    RuntimeView,
    ago,
    avatar,
    condition,
    ending,
    group_of,
    having,
    instance,
    kinds,
    later,
    media_told,
    patches,
    pod,
    pool,
    running,
    seen,
    service,
    terminated,
    view,
)

FULL = Admission(position=3, reason="PoolFull", message="the pool is full")
FREE = Admission(port=8615)


def status(phase: str, **fields: Any) -> InstanceStatus:
    return InstanceStatus(phase=phase, observed_generation=1, **fields)


def starting(name: str = "one", **fields: Any) -> Instance:
    """An instance whose pod is being started."""
    said = status("Starting", reason="Starting", port=8615, pod_name="avatar-8615", start_time=ago(60), **fields)
    return instance(name, status=said)


def serving(name: str = "one", *, age: float = 600, **fields: Any) -> Instance:
    """An instance that serves; its idle clock runs for a long time yet unless ``fields`` says otherwise."""
    given: dict[str, Any] = {
        "reason": "Serving",
        "port": 8615,
        "pod_name": "avatar-8615",
        "webrtc_url": "http://192.0.2.7:8615/offer",
        "node": "node-1",
        "start_time": ago(60),
        "ready_time": ago(50),
        "idle_deadline": later(1000),
        "observed_sessions": 0,
        "conditions": (
            condition("Ready", "True", "Serving", "", fields.get("ready_time", ago(50))),
            condition("PortClaimed", "True", "Claimed", "Service avatar-8615", ago(50)),
            condition("ActivityKnown", "True", "Known", "", ago(50)),
            media_told()[1],
        ),
        "media": media_told()[0],
    }
    spec = fields.pop("spec", {})
    return instance(name, age=age, status=status(fields.pop("phase", "Running"), **{**given, **fields}), **spec)


def sharing(server: Instance, name: str = "two", age: float = 300, **fields: Any) -> Instance:
    """A follower of ``server``."""
    given: dict[str, Any] = {
        "reason": "Shared",
        "message": f"served by AvatarInstance {server.metadata.name}",
        "port": 8615,
        "pod_name": "avatar-8615",
        "webrtc_url": "http://192.0.2.7:8615/offer",
        "node": "node-1",
        "ready_time": server.status.ready_time,
        "shared_with": server.metadata.name,
        "media": server.status.media,
        "conditions": (
            condition("Ready", "True", "Shared", f"served by AvatarInstance {server.metadata.name}", ago(50)),
        ),
    }
    return instance(name, age=age, status=status("Shared", **{**given, **fields}))


def with_pod(*members: Instance, state: str = "ready", **fields: Any) -> GroupView:
    """A group with its claim and its pod."""
    ordered = sorted(members, key=lambda m: m.age_key)
    made = pod(ordered, state=state, in_pool=fields.get("pool"))
    return view(*members, **{"claims": (service(ordered[0]),), "pods": (made,), **fields})


# ---- who wants to run, who needs a port -----------------------------------------------


@pytest.mark.parametrize(
    ("item", "wants"),
    [
        pytest.param(instance(), True, id="new"),
        pytest.param(instance(status=status("Failed")), True, id="failed"),
        pytest.param(instance(status=status("Stopped")), False, id="asleep"),
        pytest.param(instance(status=status("Stopped", connections=1)), True, id="called-by-a-count"),
        pytest.param(instance(status=status("Stopped", sessions=(Session(id="s"),))), True, id="called-by-a-session"),
        pytest.param(instance(metadata={"deletion_timestamp": NOW}), False, id="deleting"),
    ],
)
def test_wants_to_run(item: Instance, wants: bool) -> None:
    assert wants_to_run(item) is wants


@pytest.mark.parametrize(
    ("group", "needs"),
    [
        pytest.param(view(instance()), True, id="new"),
        pytest.param(view(instance(), pool=None), False, id="no-pool"),
        pytest.param(view(instance(), avatar=None), False, id="no-avatar"),
        pytest.param(view(instance(), claims=(service(instance()),)), False, id="has-a-claim"),
        pytest.param(view(instance(), pods=(ending(pod([instance()])),)), False, id="its-last-pod-ends"),
        pytest.param(view(instance(status=status("Failed", retry_time=later(1)))), False, id="backs-off"),
        pytest.param(view(instance(status=status("Failed", retry_time=NOW))), True, id="has-backed-off"),
        pytest.param(
            view(instance("old", age=99, status=status("Failed", retry_time=later(1))), instance("new", age=9)),
            False,
            id="a-follower-waits-with-its-server",
        ),
        pytest.param(
            view(instance("old", age=99, max_sessions=999), instance("new", age=9)),
            True,
            id="a-refused-one-holds-nobody-up",
        ),
        pytest.param(view(), False, id="nobody"),
    ],
)
def test_needs_claim(group: GroupView, needs: bool) -> None:
    assert needs_claim(group) is needs


# ---- cold start -------------------------------------------------------------------------


def test_first_the_claim() -> None:
    (action,) = plan(view(instance(), admission=FREE)).actions
    assert isinstance(action, CreateClaim)
    assert action.port == 8615
    assert action.body["metadata"]["name"] == "avatar-8615"


def test_then_pod_and_status_together() -> None:
    one = instance()
    result = plan(view(one, claims=(service(one, 8617),)))
    assert kinds(result.actions) == ["CreatePod", "PatchStatus"]
    (created,) = [a for a in result.actions if isinstance(a, CreatePod)]
    assert created.body["metadata"]["name"] == "avatar-8617"
    said = patches(result)["one"]
    assert (said["phase"], said["port"], said["podName"]) == ("Starting", 8617, "avatar-8617")
    assert said["startTime"] == "2026-03-01T12:00:00Z"


def awaited(state: str, age: float = 20, **fields: Any) -> GroupView:
    """A group whose status says all that there is to say of a pod that starts."""
    one = starting(
        conditions=(
            condition("PortClaimed", "True", "Claimed", "Service avatar-8615", ago(60)),
            condition("Ready", "False", "Starting", "the runtime is starting", ago(60)),
        )
    )
    return view(one, claims=(service(one),), pods=(pod([one], state=state, age=age),), **fields)


def test_then_nothing_while_it_is_prepared() -> None:
    result = plan(awaited("pending"))
    assert result.actions == []
    assert result.wake is not None
    assert NOW < result.wake <= later(30)


@pytest.mark.parametrize(
    ("age", "asked", "wake"),
    [
        pytest.param(3, None, None, id="ask-at-once"),
        pytest.param(3, ago(0.1), None, id="ask-again"),
        pytest.param(3, ago(0.04), later(0.06), id="not-yet"),
        pytest.param(20, ago(0.5), later(0.5), id="a-slow-start-is-asked-slowly"),
        pytest.param(20, ago(1), None, id="a-slow-start-again"),
    ],
)
def test_a_starting_runtime_is_asked_whether_it_serves(age: float, asked: Any, wake: Any) -> None:
    result = plan(awaited("starting", age, runtime=RuntimeView(asked_at=asked)))
    assert kinds(result.actions) == ([] if wake else ["ProbeReady"])
    if wake:
        assert result.wake == wake


def test_its_answer_is_as_good_as_the_kubelet_s() -> None:
    result = plan(awaited("starting", runtime=RuntimeView(asked_at=NOW, answered_at=NOW)))
    assert patches(result)["one"]["phase"] == "Running"


def test_an_old_answer_is_none() -> None:
    result = plan(awaited("starting", runtime=RuntimeView(asked_at=ago(8), answered_at=ago(8))))
    assert kinds(result.actions) == ["ProbeReady"]


def test_then_ready() -> None:
    result = plan(with_pod(starting()))
    said = patches(result)["one"]
    assert kinds(result.actions) == ["PatchStatus"]
    assert (said["phase"], said["webrtcUrl"], said["node"]) == ("Running", "http://192.0.2.7:8615/offer", "node-1")
    assert said["readyTime"] == "2026-03-01T12:00:00Z"
    assert said["idleDeadline"] == "2026-03-01T12:30:00Z"
    assert result.wake == later(1800)


def test_then_nothing_at_all() -> None:
    result = plan(with_pod(serving()))
    assert result.actions == []
    # A minute after it was ready: whether it may be evicted.
    assert result.wake == later(10)


def test_startup_timeout_is_looked_at_when_it_is_due() -> None:
    one = starting()
    made = pod([one], state="starting", age=20)
    wake = plan(view(one, claims=(service(one),), pods=(made,))).wake
    # The container started a second after the pod.
    assert wake == later(11)


# ---- the queue -----------------------------------------------------------------------------


def test_in_the_queue() -> None:
    result = plan(view(instance(), admission=FULL))
    said = patches(result)["one"]
    assert kinds(result.actions) == ["PatchStatus"]
    assert (said["phase"], said["reason"], said["queuePosition"]) == ("Pending", "PoolFull", 3)
    assert said["message"] == "the pool is full"


def test_moving_up_is_no_event() -> None:
    waiting = instance(status=status("Pending", reason="PoolFull", message="the pool is full", queue_position=4))
    (action,) = plan(view(waiting, admission=FULL)).actions
    assert isinstance(action, PatchStatus)
    assert action.status["queuePosition"] == 3
    assert action.events == ()


def test_a_full_queue_refuses() -> None:
    result = plan(view(instance(), admission=FULL, pool=pool(queue=Queue(max_length=2))))
    said = patches(result)["one"]
    assert (said["phase"], said["reason"], said.get("queuePosition")) == ("Failed", "QueueFull", None)
    assert "spec.queue.maxLength" in said["message"]


@pytest.mark.parametrize(("age", "reason"), [(59, "PoolFull"), (60, "QueueTimeout")])
def test_waiting_for_too_long(age: float, reason: str) -> None:
    limited = pool(queue=Queue(timeout_seconds=60))
    result = plan(view(instance(age=age), instance("two", age=1), admission=FULL, pool=limited))
    assert patches(result)["one"]["reason"] == reason
    assert patches(result)["two"]["sharedWith"] == "one"


def test_followers_wait_with_their_server() -> None:
    said = patches(plan(view(instance("one"), instance("two", age=1), admission=FULL)))
    assert said["two"]["queuePosition"] == 3
    assert (said["two"]["phase"], said["two"]["sharedWith"]) == ("Pending", "one")


def test_a_pool_that_is_not_known_yet_queues_nobody() -> None:
    said = patches(plan(view(instance(), pool=None)))
    assert said["one"]["reason"] == "PoolNotFound"


# ---- refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "fields", "reason"),
    [
        pytest.param(instance(), {"pool": None}, "PoolNotFound", id="pool"),
        pytest.param(instance(), {"avatar": None}, "AvatarNotFound", id="avatar"),
        pytest.param(instance(max_sessions=500), {}, "LimitExceeded", id="limit"),
    ],
)
def test_refused_leaves_no_claim(item: Instance, fields: dict[str, Any], reason: str) -> None:
    result = plan(view(item, admission=FREE, claims=(service(item),), **fields))
    assert kinds(result.actions) == ["PatchStatus", "ReleaseClaim"]
    said = patches(result)["one"]
    assert (said["phase"], said["reason"]) == ("Failed", reason)
    refused = having(item, **msgspec.structs.asdict(msgspec.convert(said, InstanceStatus)))
    assert plan(view(refused, **fields)).actions == [], "it is said once"


def test_a_claim_is_not_released_under_a_pod_that_ends() -> None:
    one = instance(max_sessions=500)
    made = ending(pod([instance()]))
    assert kinds(plan(view(one, claims=(service(one),), pods=(made,))).actions) == ["PatchStatus"]


def test_a_follower_over_a_limit_is_refused_alone() -> None:
    server = serving()
    result = plan(with_pod(server, instance("two", age=5, max_sessions=500)))
    assert patches(result)["two"]["reason"] == "LimitExceeded"
    assert set(patches(result)) == {"two"}


def test_a_limit_lowered_under_a_running_instance_throws_nobody_out() -> None:
    server = serving(spec={"max_sessions": 50})
    lower = pool(limits=Limits(max_sessions=8))
    made = pod([server], in_pool=pool())
    result = plan(view(server, pool=lower, claims=(service(server),), pods=(made,)))
    assert not [a for a in result.actions if isinstance(a, (DeletePod, DeleteInstance))]
    assert patches(result).get("one", {}).get("phase", "Running") == "Running"


def test_an_avatar_deleted_under_a_running_instance_throws_nobody_out() -> None:
    assert plan(with_pod(serving(), avatar=None)).actions == []


@pytest.mark.parametrize("item", [serving(), starting()], ids=["running", "starting"])
def test_a_pool_deleted_under_a_pod_changes_nothing(item: Instance) -> None:
    known = with_pod(item)
    assert plan(msgspec_replace(known, pool=None)).actions == []


def msgspec_replace(group: GroupView, **fields: Any) -> GroupView:
    from dataclasses import replace

    return replace(group, **fields)


# ---- sharing ---------------------------------------------------------------------------------


def test_a_second_instance_shares() -> None:
    server, second = serving(), instance("two", age=5)
    result = plan(view(server, second, claims=(service(server),), pods=(pod([server]),)))
    assert kinds(result.actions) == ["PatchStatus", "SetOwners"]
    (owners,) = [a for a in result.actions if isinstance(a, SetOwners)]
    assert [(o["name"], o["controller"]) for o in owners.owners] == [("one", True), ("two", False)]
    said = patches(result)["two"]
    assert (said["phase"], said["sharedWith"], said["port"]) == ("Shared", "one", 8615)
    assert said["webrtcUrl"] == server.status.webrtc_url


def test_sharers_at_rest_write_nothing() -> None:
    server = serving()
    assert plan(with_pod(server, sharing(server))).actions == []


def test_a_follower_before_the_server_is_ready() -> None:
    server, second = starting(), instance("two", age=5)
    made = pod([server, second], state="starting", age=10)
    said = patches(plan(view(server, second, claims=(service(server),), pods=(made,))))["two"]
    assert (said["phase"], said["sharedWith"]) == ("Pending", "one")
    assert "port" not in said


def test_the_first_pod_is_owned_by_all() -> None:
    members = (instance("one"), instance("two", age=5))
    (created,) = [a for a in plan(view(*members, claims=(service(members[0]),))).actions if isinstance(a, CreatePod)]
    assert [o["name"] for o in created.body["metadata"]["ownerReferences"]] == ["one", "two"]


def test_takeover() -> None:
    gone = serving()
    heir = sharing(gone)
    made = pod([gone, heir])
    result = plan(view(heir, claims=(service(gone),), pods=(made,)))
    said = patches(result)["two"]
    assert kinds(result.actions) == ["PatchStatus"]
    assert (said["phase"], said["sharedWith"]) == ("Running", None)
    (action,) = result.actions
    assert isinstance(action, PatchStatus)
    assert [e.reason for e in action.events] == ["TookOver"]
    assert "readyTime" not in said, "the pod is the same, and so is its time"


def test_takeover_while_starting() -> None:
    heir = instance("two", age=5, status=status("Pending", shared_with="one"))
    result = plan(view(heir, claims=(service(heir),), pods=(pod([starting(), heir], state="starting", age=10),)))
    assert (patches(result)["two"]["phase"], patches(result)["two"]["sharedWith"]) == ("Starting", None)


def test_a_count_on_a_follower_is_use() -> None:
    server = serving(idle_deadline=ago(5))
    said = patches(plan(with_pod(server, sharing(server, connections=1))))["one"]
    assert said["idleDeadline"] is None


@pytest.mark.parametrize(
    ("others", "deadline"),
    [
        pytest.param([{"idle": InstanceIdle(timeout_seconds=3600)}], later(3600), id="the-longest-timeout-counts"),
        pytest.param([{"idle": InstanceIdle(timeout_seconds=0)}], None, id="never-wins"),
        pytest.param([{"idle": InstanceIdle(timeout_seconds=5)}], later(1800), id="a-shorter-one-does-not"),
    ],
)
def test_timeouts_of_sharers(others: list[dict[str, Any]], deadline: object) -> None:
    members = [starting(), *(instance(f"other-{n}", age=5, **spec) for n, spec in enumerate(others))]
    result = plan(with_pod(*members))
    assert result.wake == deadline


# ---- failure --------------------------------------------------------------------------------


def failed_pod(item: Instance, *followers: Instance) -> GroupView:
    """The group with a pod whose container has ended with code 78."""
    made = pod([item, *followers], container_statuses=(terminated(78, message="no such avatar"),), conditions=())
    return view(item, *followers, claims=(service(item),), pods=(made,))


def test_a_failed_start_backs_off() -> None:
    result = plan(failed_pod(starting()))
    assert kinds(result.actions) == ["DeletePod", "PatchStatus"]
    said = patches(result)["one"]
    assert (said["phase"], said["reason"], said["restarts"]) == ("Failed", "RuntimeConfigError", 1)
    assert said["message"] == "no such avatar"
    assert said["port"] is None
    assert result.wake is not None
    assert later(5) <= result.wake <= later(7)


def test_a_failure_counts_once_however_often_its_pod_must_be_deleted() -> None:
    """The API server refuses the deletion for a while: the pod stays to be seen, and its end has been told."""
    before = failed_pod(starting())
    (ended,) = before.pods
    first = plan(before)
    server = msgspec.structs.replace(before.members[0], status=planned(before.members[0], first))
    assert server.status.last_termination is not None
    assert server.status.last_termination.pod_uid == ended.metadata.uid
    again = plan(replace(before, members=(server,), now=later(2)))
    assert again.actions == [DeletePod(ended, "RuntimeConfigError")]
    another = msgspec.structs.replace(ended, metadata=msgspec.structs.replace(ended.metadata, uid="another"))
    assert patches(plan(replace(before, members=(server,), pods=(another,), now=later(20))))["one"]["restarts"] == 2


def test_followers_hear_of_a_failure_once() -> None:
    server = serving(ready_time=ago(50))
    result = plan(failed_pod(server, sharing(server)))
    said = patches(result)["two"]
    assert said["readyTime"] is None
    assert said["port"] is None
    assert said["phase"] in ("Pending", "Failed")


@pytest.mark.parametrize(
    ("pods", "expected"),
    [
        pytest.param(True, [], id="its-pod-ends"),
        pytest.param(False, ["ReleaseClaim"], id="its-pod-is-gone"),
    ],
)
def test_while_it_backs_off(pods: bool, expected: list[str]) -> None:
    one = instance(status=status("Failed", reason="CrashLoop", restarts=2, retry_time=later(9)))
    result = plan(view(one, claims=(service(one),), pods=(ending(pod([one])),) if pods else ()))
    assert kinds(result.actions) == expected
    assert result.wake == later(9)


def test_then_it_is_tried_again() -> None:
    one = instance(status=status("Failed", reason="CrashLoop", restarts=2, retry_time=NOW))
    assert kinds(plan(view(one, admission=FREE)).actions) == ["CreateClaim"]
    result = plan(view(one, claims=(service(one),)))
    assert kinds(result.actions) == ["CreatePod", "PatchStatus"]
    assert patches(result)["one"]["retryTime"] is None
    assert "restarts" not in patches(result)["one"], "failures in a row are kept"


def test_a_lost_pod_is_rebuilt_at_once() -> None:
    one = serving()
    result = plan(view(one, claims=(service(one),)))
    said = patches(result)["one"]
    assert kinds(result.actions) == ["PatchStatus"]
    assert (said["phase"], said["reason"], said.get("restarts", 0)) == ("Starting", "PodLost", 0)
    again = having(one, phase="Starting", reason="PodLost", ready_time=None)
    assert kinds(plan(view(again, claims=(service(one),))).actions) == ["CreatePod", "PatchStatus"]


def test_a_pod_lost_twice_waits() -> None:
    one = serving(last_termination=LastTermination(time=ago(30), reason="PodLost"))
    assert patches(plan(view(one, claims=(service(one),))))["one"]["phase"] == "Failed"


def test_followers_of_a_lost_pod_lose_its_times() -> None:
    server = serving()
    said = patches(plan(view(server, sharing(server), claims=(service(server),))))
    assert said["two"]["readyTime"] is None
    assert said["two"]["port"] is None


def test_a_pod_that_somebody_deletes_is_waited_for() -> None:
    one = serving(connections=1)
    result = plan(view(one, claims=(service(one),), pods=(ending(pod([one])),)))
    said = patches(result)["one"]
    assert (said["phase"], said["reason"], said["readyTime"]) == ("Pending", "Terminating", None)
    gone = having(one, phase="Pending", reason="Terminating", ready_time=None)
    assert kinds(plan(view(gone, claims=(service(one),))).actions) == ["CreatePod", "PatchStatus"]


def test_a_rejected_pod_backs_off() -> None:
    one = instance()
    result = plan(view(one, claims=(service(one),), rejection=("PodRejected", "exceeded quota")))
    said = patches(result)["one"]
    assert kinds(result.actions) == ["PatchStatus"]
    assert (said["phase"], said["reason"], said["message"]) == ("Failed", "PodRejected", "exceeded quota")


def test_a_restart_in_place_keeps_the_instance() -> None:
    one = serving()
    made = pod([one], container_statuses=(terminated(139, message="Segmentation fault"),), conditions=())
    said = patches(plan(view(one, claims=(service(one),), pods=(made,))))["one"]
    assert (said["phase"], said["reason"]) == ("Starting", "ContainerRestarting")
    assert "Segmentation fault" in said["message"]
    assert "readyTime" not in said
    assert said["idleDeadline"] is None, "the clock stops while nobody could use it"
    back = having(one, phase="Starting", reason="ContainerRestarting", idle_deadline=None)
    said = patches(plan(with_pod(back)))["one"]
    assert said["phase"] == "Running"
    assert "readyTime" not in said
    assert said["idleDeadline"] == "2026-03-01T12:30:00Z", "a whole timeout from now on"


# ---- sleep, wake ------------------------------------------------------------------------------

ASLEEP = (condition("Ready", "False", "Stopped", "asleep; raising status.connections wakes it", ago(60)),)


def asleep(**fields: Any) -> Instance:
    return instance(status=status("Stopped", reason="Idle", conditions=ASLEEP, **fields))


def test_falling_asleep_ends_the_pod_then_the_claim() -> None:
    one = asleep()
    made = pod([one])
    assert [type(a) for a in plan(view(one, claims=(service(one),), pods=(made,))).actions] == [DeletePod]
    assert plan(view(one, claims=(service(one),), pods=(ending(made),))).actions == []
    assert [type(a) for a in plan(view(one, claims=(service(one),))).actions] == [ReleaseClaim]
    assert plan(view(one)).actions == []


def test_asleep_holds_nothing_of_a_pod() -> None:
    said = patches(plan(view(asleep(port=8615, pod_name="avatar-8615"))))["one"]
    assert said == {"port": None, "podName": None}


def test_a_connection_wakes_it() -> None:
    one = asleep(connections=1)
    assert kinds(plan(view(one, admission=FREE)).actions) == ["CreateClaim"]
    result = plan(view(one, claims=(service(one),)))
    assert kinds(result.actions) == ["CreatePod", "PatchStatus"]
    (patch,) = [a for a in result.actions if isinstance(a, PatchStatus)]
    assert [e.reason for e in patch.events] == ["Woken"]


def test_woken_while_its_last_pod_ends() -> None:
    one = asleep(connections=1)
    result = plan(view(one, claims=(service(one),), pods=(ending(pod([one])),)))
    assert patches(result)["one"]["phase"] == "Pending"
    assert kinds(result.actions) == ["PatchStatus"]


def test_one_sleeps_while_another_is_served() -> None:
    sleeper = asleep()
    server = serving("two", age=5)
    result = plan(view(sleeper, server, claims=(service(server),), pods=(pod([server]),)))
    assert result.actions == []


# ---- drain and collect --------------------------------------------------------------------------

TOLD = RuntimeView(None, draining=True, told_at=ago(1))


def draining(reason: str = "Idle", **fields: Any) -> Instance:
    return serving(
        phase="Draining", **{"idle_deadline": ago(3), "drain_deadline": later(27), **fields, "reason": reason}
    )


def test_the_deadline_asks_first() -> None:
    result = plan(with_pod(serving(idle_deadline=NOW)))
    assert kinds(result.actions) == ["ProbeActivity"]


def test_nobody_there_marks_it_by_compare_and_swap() -> None:
    result = plan(with_pod(serving(idle_deadline=NOW), runtime=RuntimeView(seen(0))))
    (action,) = result.actions
    assert isinstance(action, PatchStatus)
    assert action.exact
    assert (action.status["phase"], action.status["reason"]) == ("Draining", "Idle")


@pytest.mark.parametrize(
    ("runtime", "expected"),
    [
        pytest.param(RuntimeView(), SetDraining, id="tell-it"),
        pytest.param(
            RuntimeView(None, draining=False, told_at=ago(9)), SetDraining, id="tell-it-though-told-the-other"
        ),
        pytest.param(TOLD, ProbeActivity, id="look-again"),
        pytest.param(
            RuntimeView(seen(0, at=ago(2)), draining=True, told_at=ago(1)),
            ProbeActivity,
            id="an-earlier-look-does-not-count",
        ),
        pytest.param(RuntimeView(seen(0), draining=True, told_at=ago(1)), DeleteInstance, id="collect"),
    ],
)
def test_drain_step_by_step(runtime: RuntimeView, expected: type) -> None:
    (action,) = plan(with_pod(draining(), runtime=runtime)).actions
    assert isinstance(action, expected)
    if isinstance(action, SetDraining):
        assert action.draining is True


@pytest.mark.parametrize(
    ("item", "runtime", "known"),
    [
        pytest.param(draining(), RuntimeView(seen(1), draining=True, told_at=ago(1)), "True", id="a-session"),
        pytest.param(draining(), RuntimeView(seen(None), draining=True, told_at=ago(1)), "False", id="no-answer"),
        pytest.param(draining(), RuntimeView(seen(None), draining=True, told_at=NOW), "False", id="it-was-not-reached"),
        pytest.param(draining(connections=1), TOLD, "True", id="a-count"),
        pytest.param(draining(sessions=(Session(id="s"),)), TOLD, "True", id="a-counted-session"),
        pytest.param(draining("Unknown"), TOLD, "False", id="a-reason-that-nobody-knows"),
    ],
)
def test_a_drain_is_called_off(item: Instance, runtime: RuntimeView, known: str) -> None:
    result = plan(with_pod(item, runtime=runtime))
    assert kinds(result.actions) == ["PatchStatus", "SetDraining"]
    assert [a.draining for a in result.actions if isinstance(a, SetDraining)] == [False]
    said = patches(result)["one"]
    assert (said["phase"], said["drainDeadline"], said["idleDeadline"]) == ("Running", None, None)
    conditions = {c["type"]: c["status"] for c in said.get("conditions", [])}
    assert conditions.get("ActivityKnown", "True") == known


def test_a_drain_left_over_is_called_off() -> None:
    for runtime in (TOLD, RuntimeView(seen(0, draining=True))):
        actions = plan(with_pod(serving(), runtime=runtime)).actions
        assert [a.draining for a in actions if isinstance(a, SetDraining)] == [False]


def test_collect_by_status_needs_no_second_look_at_the_runtime() -> None:
    counts = pool(idle=PoolIdle(activity_source="Connections"))
    assert kinds(plan(with_pod(serving(idle_deadline=NOW), pool=counts)).actions) == ["PatchStatus"]
    (action,) = plan(with_pod(draining(), pool=counts, runtime=TOLD)).actions
    assert isinstance(action, DeleteInstance)


def test_followers_go_first() -> None:
    server = draining(age=4000)
    collect = RuntimeView(seen(0), draining=True, told_at=ago(1))
    result = plan(with_pod(server, sharing(server, age=3000), runtime=collect))
    assert [a.instance.metadata.name for a in result.actions if isinstance(a, DeleteInstance)] == ["two"]


def test_a_newcomer_has_a_whole_timeout_to_connect() -> None:
    server = serving(age=4000, idle_deadline=NOW)
    newcomer = sharing(server, age=10)
    result = plan(with_pod(server, newcomer, runtime=RuntimeView(seen(0))))
    assert kinds(result.actions) == ["PatchStatus"]
    assert patches(result)["one"]["idleDeadline"] == f"{later(1791):%Y-%m-%dT%H:%M:%SZ}"
    late = plan(with_pod(server, sharing(server, age=1801), runtime=RuntimeView(seen(0))))
    assert patches(late)["one"]["phase"] == "Draining"


def test_a_newcomer_calls_a_drain_off() -> None:
    server = draining(age=4000)
    collect = RuntimeView(seen(0), draining=True, told_at=ago(1))
    result = plan(with_pod(server, sharing(server, age=10), runtime=collect))
    assert kinds(result.actions) == ["PatchStatus", "SetDraining"]
    assert patches(result)["one"]["phase"] == "Running"


def test_one_that_is_never_collected_calls_a_drain_off_however_long_ago_it_came() -> None:
    """It may have come while no operator looked; so may a pool's new timeout."""
    collect = RuntimeView(seen(0), draining=True, told_at=ago(1))
    server = draining(age=4000, spec={"idle": InstanceIdle(timeout_seconds=0)})
    result = plan(with_pod(server, sharing(server, age=3000), runtime=collect))
    assert kinds(result.actions) == ["PatchStatus", "SetDraining"]
    never = plan(with_pod(draining(age=4000), pool=pool(idle=PoolIdle(timeout_seconds=0)), runtime=collect))
    assert kinds(never.actions) == ["PatchStatus", "SetDraining"]


def test_sleep_is_a_patch_by_compare_and_swap() -> None:
    server = draining(spec={"idle": InstanceIdle(action="Sleep")}, restarts=2, last_activity_time=ago(1803))
    result = plan(with_pod(server, runtime=RuntimeView(seen(0), draining=True, told_at=ago(1))))
    (action,) = result.actions
    assert isinstance(action, PatchStatus)
    assert action.exact
    said = action.status
    assert (said["phase"], said["port"], said["restarts"]) == ("Stopped", None, 0)
    assert (said["lastTermination"]["reason"], said["lastTermination"]["idleSeconds"]) == ("Idle", 1803)
    assert [e.reason for e in action.events] == ["IdleCollected"]


def test_keep_warm_is_never_drained() -> None:
    warm = avatar(keep_warm=True)
    server = serving(idle_deadline=None, ready_time=ago(9999))
    result = plan(with_pod(server, avatar=warm, runtime=RuntimeView(seen(0))))
    assert kinds(result.actions) == ["MarkInUse"]
    assert result.wake is None


def test_nobody_came_in_the_time_to_claim_it() -> None:
    """With a timer of its own it is collected for a reason of its own."""
    claims = pool(idle=PoolIdle(timeout_seconds=1800, claim_timeout_seconds=60))
    server = serving(idle_deadline=NOW)
    (action,) = plan(with_pod(server, pool=claims, runtime=RuntimeView(seen(0)))).actions
    assert isinstance(action, PatchStatus)
    assert (action.status["phase"], action.status["reason"]) == ("Draining", "Unclaimed")
    collect = RuntimeView(seen(0), draining=True, told_at=ago(1))
    (action,) = plan(with_pod(draining("Unclaimed"), pool=claims, runtime=collect)).actions
    assert isinstance(action, DeleteInstance)
    assert (action.reason, action.event.reason) == ("Unclaimed", "UnclaimedCollected")
    assert "idle.claimTimeoutSeconds" in action.event.message


# ---- maximum age: drains, never kills ---------------------------------------------------------------

# Pods of the builders are a minute old.
AGED = pool(idle=PoolIdle(max_age_seconds=50))
IN_USE = RuntimeView(seen(2), draining=True, told_at=ago(1))


def test_an_old_pod_in_use_drains_for_as_long_as_it_takes() -> None:
    server = serving(connections=2, last_activity_time=ago(9))
    (action,) = plan(with_pod(server, pool=AGED, runtime=RuntimeView(seen(2)))).actions
    assert isinstance(action, PatchStatus)
    assert action.exact
    assert (action.status["phase"], action.status["reason"]) == ("Draining", "MaxAge")
    assert "drainDeadline" not in action.status
    assert [e.reason for e in action.events] == ["MaxAge"]


@pytest.mark.parametrize(
    ("item", "runtime"),
    [
        pytest.param({"connections": 2, "observed_sessions": 2}, IN_USE, id="counted-and-there"),
        pytest.param({"observed_sessions": 2}, IN_USE, id="there"),
        pytest.param({"connections": 2}, RuntimeView(seen(0), draining=True, told_at=ago(1)), id="counted"),
        pytest.param({}, RuntimeView(seen(None), draining=True, told_at=ago(1)), id="nobody-knows"),
    ],
)
def test_nobody_is_thrown_out_for_its_age(item: dict[str, Any], runtime: RuntimeView) -> None:
    server = draining("MaxAge", drain_deadline=None, idle_deadline=None, **item)
    result = plan(with_pod(server, pool=AGED, runtime=runtime))
    assert result.actions == []
    assert result.wake is not None


def test_it_is_asked_again_who_is_there_still() -> None:
    server = draining("MaxAge", drain_deadline=None, idle_deadline=None, observed_sessions=2)
    asked = RuntimeView(seen(2, at=ago(61), draining=True), draining=True, told_at=ago(99))
    assert kinds(plan(with_pod(server, pool=AGED, runtime=asked)).actions) == ["ProbeActivity"]
    fewer = RuntimeView(seen(1, draining=True), draining=True, told_at=ago(99))
    (action,) = plan(with_pod(server, pool=AGED, runtime=fewer)).actions
    assert isinstance(action, PatchStatus)
    assert action.status == {"observedSessions": 1}


def test_one_that_was_out_of_reach_is_told_again() -> None:
    server = draining("MaxAge", drain_deadline=None, idle_deadline=None, observed_sessions=2)
    told = RuntimeView(seen(2), draining=True, told_at=ago(61))
    (action,) = plan(with_pod(server, pool=AGED, runtime=told)).actions
    assert isinstance(action, SetDraining)
    assert action.draining
    heard = RuntimeView(seen(2, draining=True), draining=True, told_at=ago(61))
    assert plan(with_pod(server, pool=AGED, runtime=heard)).actions == []


def test_the_last_one_has_left_an_old_pod() -> None:
    left = RuntimeView(seen(0), draining=True, told_at=ago(1))
    (action,) = plan(with_pod(draining("MaxAge"), pool=AGED, runtime=left)).actions
    assert isinstance(action, DeleteInstance)
    assert action.reason == "MaxAge"


@pytest.mark.parametrize(
    "kept",
    [
        pytest.param({"pool": pool(idle=PoolIdle(timeout_seconds=0, max_age_seconds=50))}, id="never-idle"),
        pytest.param({"pool": AGED, "avatar": avatar(keep_warm=True)}, id="kept-warm"),
    ],
)
def test_what_is_never_collected_gets_a_new_pod_at_its_age(kept: dict[str, Any]) -> None:
    """Said first, by compare-and-swap; then done."""
    left = RuntimeView(seen(0), draining=True, told_at=ago(1))
    (action,) = plan(with_pod(draining("MaxAge"), runtime=left, **kept)).actions
    assert isinstance(action, PatchStatus)
    assert action.exact
    assert (action.status["phase"], action.status["lastTermination"]["reason"]) == ("Starting", "MaxAge")
    last = LastTermination(time=NOW, reason="MaxAge")
    said = serving(phase="Starting", reason="MaxAge", ready_time=None, pod_name=None, last_termination=last)
    (done,) = plan(with_pod(said, runtime=left, **kept)).actions
    assert isinstance(done, DeletePod)


def test_an_age_limit_that_was_raised_calls_it_off() -> None:
    raised = pool(idle=PoolIdle(max_age_seconds=5000))
    result = plan(with_pod(draining("MaxAge", connections=1), pool=raised, runtime=IN_USE))
    assert patches(result)["one"]["phase"] == "Running"
    assert [a.draining for a in result.actions if isinstance(a, SetDraining)] == [False]


def test_a_young_pod_is_looked_at_when_it_is_old() -> None:
    limit = pool(idle=PoolIdle(timeout_seconds=0, max_age_seconds=100))
    result = plan(with_pod(serving(ready_time=ago(9999)), pool=limit, runtime=RuntimeView(seen(0))))
    assert result.wake == later(40)


# ---- counts that the runtime contradicts -----------------------------------------------------------


def counted(since: float | None = None, among: int = 2, **fields: Any) -> Instance:
    """In use by status alone; ``since``: for how many seconds the runtime has contradicted that (``among`` in all)."""
    said = serving(
        idle_deadline=None, last_activity_time=ago(500), **{"connections": 2, "ready_time": ago(900), **fields}
    )
    if since is None:
        return said
    message = f"{among} connections are counted, and the runtime has no session"
    doubt = condition("CountConfirmed", "False", "NoSession", message, ago(since))
    return having(said, conditions=(*said.status.conditions, doubt))


def test_a_contradicted_count_is_noted() -> None:
    said = patches(plan(with_pod(counted(), runtime=RuntimeView(seen(0)))))["one"]
    assert {c["type"]: c["status"] for c in said["conditions"]}["CountConfirmed"] == "False"


def test_a_count_contradicted_for_too_long_is_corrected_by_compare_and_swap() -> None:
    server = counted(300, among=3)
    result = plan(with_pod(server, sharing(server, sessions=(Session(id="s"),)), runtime=RuntimeView(seen(0))))
    corrections = [a for a in result.actions if isinstance(a, PatchStatus)]
    said = [{**a.status, "conditions": None} if "conditions" in a.status else a.status for a in corrections]
    assert said == [{"connections": 0, "conditions": None}, {"sessions": []}]
    assert all(a.exact for a in corrections)
    assert [e.reason for a in corrections for e in a.events] == ["CountCorrected"] * 2


def test_who_is_counted_right_after_a_correction_does_not_inherit_the_doubt() -> None:
    """The sharer's count is corrected; the doubt, which is the server's to say, ends before that."""
    server = counted(300, among=2, connections=0)
    sharer = sharing(server, connections=2)
    result = plan(with_pod(server, sharer, runtime=RuntimeView(seen(0))))
    first, second = (a for a in result.actions if isinstance(a, PatchStatus))
    assert (first.instance, first.events) == (server, ())
    doubt = {c["type"]: c for c in first.status["conditions"]}["CountConfirmed"]
    assert (doubt["status"], doubt["reason"]) == ("True", "Confirmed")
    assert (second.instance, second.status) == (sharer, {"connections": 0})


def test_a_client_that_comes_to_a_count_in_doubt_has_the_whole_time() -> None:
    server = counted(300, connections=3)
    owned = OwnedFields(CountFields(connections={}))
    counts = ManagedFields(manager="backend", time=ago(1), fields_v1=owned)
    server = msgspec.structs.replace(
        server, metadata=msgspec.structs.replace(server.metadata, managed_fields=(counts,))
    )
    said = patches(plan(with_pod(server, runtime=RuntimeView(seen(0)))))["one"]
    assert "connections" not in said
    doubt = {c["type"]: c for c in said["conditions"]}["CountConfirmed"]
    assert (doubt["status"], doubt["message"]) == ("False", "3 connections are counted, and the runtime has no session")


def test_a_count_that_is_confirmed_after_all() -> None:
    said = patches(plan(with_pod(counted(200), runtime=RuntimeView(seen(1)))))["one"]
    assert {c["type"]: c["status"] for c in said["conditions"]}["CountConfirmed"] == "True"


# ---- sessions that lapse -------------------------------------------------------------------------


def test_a_session_that_lapses_was_in_use_until_then_whatever_clock_ran_meanwhile() -> None:
    """It began while no operator looked: the deadlines from before it are nobody's."""
    server = serving(idle_deadline=ago(1), connections=1, sessions=(Session(id="s", expires=ago(2)),))
    sharer = sharing(server, idle_deadline=None)
    result = plan(with_pod(server, sharer))
    (patch,) = result.actions
    assert isinstance(patch, PatchStatus)
    assert patch.exact
    assert patch.status == {"connections": 0, "sessions": (), "idleDeadline": None, "lastActivityTime": floor(NOW)}
    assert [e.reason for e in patch.events] == ["SessionExpired"]


def test_a_session_of_a_sharer_that_lapses_stops_the_clock_of_the_pod() -> None:
    server = serving(idle_deadline=ago(1))
    sharer = sharing(server, connections=1, sessions=(Session(id="s", expires=ago(2)),))
    changes = patches(plan(with_pod(server, sharer)))
    assert changes["one"] == {"idleDeadline": None, "lastActivityTime": floor(NOW)}
    assert changes[sharer.metadata.name] == {"connections": 0, "sessions": ()}


def test_a_count_in_doubt_is_counted_anew_when_a_session_lapses() -> None:
    """One in doubt, one with a lease came and went while no operator looked: who is left may be another."""
    server = counted(300, among=1, connections=2, sessions=(Session(id="s", expires=ago(2)),))
    sharer = sharing(server)
    said = patches(plan(with_pod(server, sharer, runtime=RuntimeView(seen(0)))))
    assert said["one"]["connections"] == 1
    doubt = {c["type"]: c for c in said["one"]["conditions"]}["CountConfirmed"]
    assert (doubt["status"], doubt["reason"]) == ("Unknown", "Recounted")
    assert sharer.metadata.name not in said


def test_a_sharers_session_that_lapses_counts_for_the_doubt_of_the_pod() -> None:
    server = counted(300, among=2)
    sharer = sharing(server, connections=1, sessions=(Session(id="s", expires=ago(2)),))
    said = patches(plan(with_pod(server, sharer, runtime=RuntimeView(seen(0)))))
    assert {c["type"]: c["status"] for c in said["one"]["conditions"]}["CountConfirmed"] == "Unknown"
    assert said[sharer.metadata.name] == {"connections": 0, "sessions": ()}


# ---- outdated ------------------------------------------------------------------------------------


def outdated(item: Instance, **fields: Any) -> GroupView:
    """The pool's image is newer than the pod."""
    made = pod([item], in_pool=pool(image="registry.example/runtime:0"))
    return view(item, claims=(service(item),), pods=(made,), **fields)


def test_an_outdated_pod_is_asked_first_who_uses_it() -> None:
    assert kinds(plan(outdated(serving())).actions) == ["ProbeActivity"]


@pytest.mark.parametrize("sessions", [1, None])
def test_an_outdated_pod_that_somebody_uses_or_may_use_is_left_alone(sessions: int | None) -> None:
    result = plan(outdated(serving(), runtime=RuntimeView(seen(sessions))))
    assert all(said.get("phase") != "Draining" for said in patches(result).values())


def test_an_unused_outdated_pod_is_drained() -> None:
    (action,) = plan(outdated(serving(), runtime=RuntimeView(seen(0)))).actions
    assert isinstance(action, PatchStatus)
    assert action.exact
    assert (action.status["phase"], action.status["reason"]) == ("Draining", "Outdated")


def test_a_used_outdated_pod_is_left_alone() -> None:
    used = serving(connections=1, idle_deadline=None, last_activity_time=ago(9))
    assert kinds(plan(outdated(used)).actions) == ["ProbeActivity"]
    said = patches(plan(outdated(used, runtime=RuntimeView(seen(1)))))["one"]
    assert said == {"observedSessions": 1}


def test_an_outdated_pod_is_replaced_and_its_claim_stays() -> None:
    result = plan(outdated(draining("Outdated"), runtime=RuntimeView(seen(0), draining=True, told_at=ago(1))))
    assert patches(result)["one"]["lastTermination"]["reason"] == "Outdated"
    [action] = result.actions
    assert isinstance(action, PatchStatus)
    assert action.exact, "a client that is counted meanwhile wins"


def test_an_outdated_pod_is_deleted_when_its_instance_says_so() -> None:
    last = LastTermination(time=NOW, reason="Outdated")
    said = having(instance(), phase="Starting", reason="Outdated", port=8615, last_termination=last)
    assert [type(a) for a in plan(outdated(said)).actions] == [DeletePod]


# ---- deletion -----------------------------------------------------------------------------------


def test_nobody_left_ends_the_pod_then_the_claim() -> None:
    one = instance()
    made, claim = pod([one]), service(one)
    bare: dict[str, Any] = {"pool": pool(), "avatar": None}
    assert [type(a) for a in plan(view(pods=(made,), claims=(claim,), **bare)).actions] == [DeletePod]
    assert plan(view(pods=(ending(made),), claims=(claim,), **bare)).actions == []
    assert [type(a) for a in plan(view(claims=(claim,), **bare)).actions] == [ReleaseClaim]
    assert plan(view(**bare)).actions == []


def test_nobody_left_and_no_pool_either() -> None:
    made = pod([instance()])
    assert [type(a) for a in plan(view(pods=(made,), pool=None, avatar=None)).actions] == [DeletePod]


def test_a_deleting_server_hands_over() -> None:
    leaving = instance("one", metadata={"deletion_timestamp": NOW})
    heir = sharing(serving())
    # The store leaves out who is being deleted; a view that holds it all the same serves the heir.
    result = plan(view(leaving, heir, claims=(service(heir),), pods=(pod([leaving, heir]),)))
    assert set(patches(result)) == {"two"}
    assert patches(result)["two"]["phase"] == "Running"


# ---- things that should not be ---------------------------------------------------------------------


def test_one_claim_too_many() -> None:
    one = instance()
    result = plan(view(one, claims=(service(one, 8617), service(one, 8616))))
    assert kinds(result.actions) == ["CreatePod", "PatchStatus", "ReleaseClaim"]
    (released,) = [a for a in result.actions if isinstance(a, ReleaseClaim)]
    (created,) = [a for a in result.actions if isinstance(a, CreatePod)]
    assert (released.service.metadata.name, created.body["metadata"]["name"]) == ("avatar-8617", "avatar-8616")


def test_a_claim_beside_the_pod_s_own_is_released() -> None:
    one = serving()
    result = plan(view(one, claims=(service(one), service(one, 8616)), pods=(pod([one]),)))
    assert [a.service.metadata.name for a in result.actions if isinstance(a, ReleaseClaim)] == ["avatar-8616"]


@pytest.mark.parametrize("ready", [8615, 8616])
def test_of_two_pods_the_ready_one_stays_and_claims_outlive_pods(ready: int) -> None:
    one = starting()
    pods = tuple(pod([one], port=p, state="ready" if p == ready else "starting", age=5) for p in (8615, 8616))
    other = ({8615, 8616} - {ready}).pop()
    result = plan(view(one, claims=(service(one), service(one, 8616)), pods=pods))
    assert [(a.pod.metadata.name, a.reason) for a in result.actions if isinstance(a, DeletePod)] == [
        (f"avatar-{other}", "Duplicate")
    ]
    assert not [a for a in result.actions if isinstance(a, ReleaseClaim)], "its pod is still there"
    after = plan(
        view(
            one, claims=(service(one), service(one, 8616)), pods=tuple(p for p in pods if str(ready) in p.metadata.name)
        )
    )
    assert [a.service.metadata.name for a in after.actions if isinstance(a, ReleaseClaim)] == [f"avatar-{other}"]


def test_a_pod_without_its_claim_gets_it_back() -> None:
    one = serving()
    (action,) = plan(view(one, pods=(pod([one]),))).actions
    assert isinstance(action, CreateClaim)
    assert action.port == 8615
    assert action.body["metadata"]["labels"]["avatars.virtualtutor.io/group"] == group_of(one)


def test_a_pod_that_ends_beside_a_live_one_keeps_its_claim() -> None:
    one = serving()
    dying = ending(pod([one], port=8616))
    result = plan(view(one, claims=(service(one), service(one, 8616)), pods=(pod([one]), dying)))
    assert result.actions == []


def test_ready_before_its_pod_was_made_is_not_ready() -> None:
    one = starting(ready_time=ago(500))
    made = pod([one], age=20, state="starting")
    slow = view(one, claims=(service(one),), pods=(made,), now=later(30))
    assert kinds(plan(slow).actions) == ["DeletePod", "PatchStatus"], "a startup timeout, not an unready runtime"


def test_running_is_a_runtime_container() -> None:
    assert running().name == "runtime"
