"""plan() where a pool has GPUs: each situation between a claim and the end of its memory."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from avatar_operator.domain import names
from avatar_operator.domain.actions import (
    ConfirmPlacement,
    CreateClaim,
    CreateDeviceClaim,
    CreatePod,
    DeletePod,
    PatchStatus,
    Plan,
    RaiseEstimate,
    ReadAllocation,
    ReleaseClaim,
)
from avatar_operator.domain.failure import fail
from avatar_operator.domain.placement import LOOK_FOR_GPU_SECONDS, Need, Placement
from avatar_operator.domain.plan import plan
from avatar_operator.domain.podstate import PodPhase, PodState
from avatar_operator.domain.resources import (
    Avatar,
    AvatarStatus,
    GpuStatus,
    Instance,
    InstanceStatus,
    LastTermination,
    Pod,
    Pool,
    Queue,
    VramStatus,
)
from avatar_operator.domain.running import LOST_GPU_GRACE_SECONDS
from avatar_operator.domain.view import GpuView, GroupView, RuntimeView
from tests.unit.builders import (
    NOW,
    Admission,
    ago,
    avatar,
    condition,
    ending,
    having,
    instance,
    kinds,
    later,
    patches,
    pod,
    pool,
    replace,
    seen,
    service,
    terminated,
    view,
)
from tests.unit.gpu_builders import A0, A1, DRA, HAMI, PLUGIN, VISIBLE, gpu, gpu_pod

ON_A0 = Placement(4000, "a", A0, 0)
BARE = Placement(4000)
FINE = GpuView(reserved=ON_A0, report=gpu(A0), reported=ago(5), node="a", confirmed=True)
STARTING = InstanceStatus(phase="Starting", reason="Starting", observed_generation=1, port=8615)


def claimed(known: GpuView, kind: Pool = VISIBLE, one: Instance | None = None, **fields: Any) -> GroupView:
    """A group with a claim and no pod."""
    one = one or instance()
    return view(one, pool=kind, claims=(service(one, placement=known.reserved),), gpu=known, **fields)


def serving(**fields: Any) -> Instance:
    """An instance that serves on GPU A0."""
    given = {
        "phase": "Running",
        "reason": "Serving",
        "observed_generation": 1,
        "port": 8615,
        "pod_name": "avatar-8615",
        "gpu": GpuStatus(node="a", index=0, uuid=A0, reserved_mib=4000),
        "ready_time": ago(50),
        "start_time": ago(60),
        "conditions": (condition("GPUAssigned", "True", "Reserved", since=ago(50)),),
    }
    return instance(status=InstanceStatus(**{**given, **fields}))


def placed(known: GpuView = FINE, one: Instance | None = None, kind: Pool = VISIBLE, **fields: Any) -> GroupView:
    """A group with its claim and its pod on node a."""
    one = one or serving()
    made = fields.pop("made", None) or gpu_pod(one, ON_A0, on="a")
    return view(one, pool=kind, claims=(service(one, placement=known.reserved),), pods=(made,), gpu=known, **fields)


def learned(observed: int = 0, estimate: int = 0, **spec: Any) -> Avatar:
    vram = VramStatus(observed_mib=observed, estimate_mib=estimate)
    return msgspec.structs.replace(avatar(**spec), status=AvatarStatus(vram=vram))


def only(result: Plan, kind: type) -> Any:
    (found,) = [a for a in result.actions if isinstance(a, kind)]
    return found


# ---- the claim ---------------------------------------------------------------------------


def test_a_claim_carries_its_part_of_a_gpu() -> None:
    (action,) = plan(view(instance(), pool=VISIBLE, admission=Admission(port=8615, placement=ON_A0))).actions
    assert isinstance(action, CreateClaim)
    assert (action.port, action.placement) == (8615, ON_A0)
    made = action.body["metadata"]
    assert made["labels"][names.LABEL_GPU] == A0
    assert {key: made["annotations"][key] for key in made["annotations"] if "gpu" in key} == {
        names.ANNOTATION_GPU_NODE: "a",
        names.ANNOTATION_GPU_INDEX: "0",
        names.ANNOTATION_GPU_MIB: "4000",
    }


def test_whose_turn_comes_in_a_moment_does_nothing() -> None:
    assert plan(view(instance(), pool=VISIBLE, admission=Admission(position=2))).actions == []


@pytest.mark.parametrize("kind", [VISIBLE, HAMI])
@pytest.mark.parametrize(
    ("known", "actions"),
    [
        pytest.param(GpuView(reserved=ON_A0, report=gpu(A0)), ["ConfirmPlacement"], id="is-confirmed-first"),
        pytest.param(FINE, ["CreatePod", "PatchStatus"], id="confirmed"),
        pytest.param(GpuView(reserved=ON_A0, report=gpu(A0), stale=True), ["ConfirmPlacement"], id="by-an-old-report"),
        pytest.param(GpuView(reserved=ON_A0), ["CreatePod", "PatchStatus"], id="nothing-to-confirm-it-by"),
        pytest.param(GpuView(reserved=ON_A0, report=gpu(A0), lost="lost"), ["ReleaseClaim"], id="lost"),
        pytest.param(
            GpuView(reserved=ON_A0, report=gpu(A0), lost="x", confirmed=True), ["ReleaseClaim"], id="lost-since"
        ),
        pytest.param(GpuView(), ["ReleaseClaim"], id="of-a-cpu-pool"),
        pytest.param(
            GpuView(reserved=ON_A0, report=gpu(A0), foreign_until=later(3)), [], id="another-process-is-at-it"
        ),
        pytest.param(
            GpuView(reserved=ON_A0, report=gpu(A0), had_pod=True, podless_since=ago(1)),
            [],
            id="its-last-pod-has-not-given-the-memory-back",
        ),
        pytest.param(
            GpuView(reserved=ON_A0, report=gpu(A0), had_pod=True, podless_since=ago(3)),
            ["ConfirmPlacement"],
            id="which-is-back-by-now",
        ),
        pytest.param(
            GpuView(reserved=ON_A0, report=gpu(A0), podless_since=ago(1)), ["ConfirmPlacement"], id="there-was-no-pod"
        ),
        pytest.param(
            GpuView(reserved=ON_A0, report=gpu(A0), foreign_until=ago(0)), ["ConfirmPlacement"], id="which-has-left-it"
        ),
    ],
)
def test_a_claim_without_a_pod(kind: Pool, known: GpuView, actions: list[str]) -> None:
    assert kinds(plan(claimed(known, kind)).actions) == actions


def test_a_claim_of_another_process_is_looked_at_again() -> None:
    known = GpuView(reserved=ON_A0, report=gpu(A0), foreign_until=later(3))
    assert plan(claimed(known)).wake == later(3)


def test_what_is_confirmed() -> None:
    one = avatar(vram_mib=5000, min_free_mib=6000)
    action = only(plan(claimed(GpuView(reserved=ON_A0, report=gpu(A0)), avatar=one)), ConfirmPlacement)
    assert action.need == Need(5000, 6000)
    assert action.service.metadata.name == "avatar-8615"


def test_the_pod_and_what_is_said_of_it() -> None:
    result = plan(claimed(FINE))
    body = only(result, CreatePod).body
    assert body["metadata"]["labels"][names.LABEL_GPU] == A0
    env = {e["name"]: e["value"] for e in body["spec"]["containers"][0]["env"]}
    assert env["NVIDIA_VISIBLE_DEVICES"] == A0
    said = patches(result)["one"]
    assert said["gpu"] == {"node": "a", "index": 0, "uuid": A0, "reservedMiB": 4000}
    assigned = next(c for c in said["conditions"] if c["type"] == "GPUAssigned")
    assert (assigned["status"], assigned["message"]) == ("True", f"4000 MiB of GPU 0 ({A0}) of a")
    (event,) = only(result, PatchStatus).events
    assert event.message == "claimed port 8615 and created pod avatar-8615 on GPU 0 of a"


@pytest.mark.parametrize(
    ("old", "new", "keeps"),
    [
        pytest.param(ON_A0, PLUGIN, False, id="visible-plugin"),
        pytest.param(ON_A0, DRA, False, id="visible-dra"),
        pytest.param(ON_A0, HAMI, True, id="visible-hami"),
        pytest.param(ON_A0, pool(), False, id="visible-none"),
        pytest.param(BARE, VISIBLE, False, id="plugin-visible"),
        pytest.param(BARE, DRA, True, id="plugin-dra"),
        pytest.param(None, PLUGIN, False, id="none-plugin"),
        pytest.param(None, pool(), True, id="none-none"),
    ],
)
def test_a_claim_of_the_pools_last_mode(old: Placement | None, new: Pool, keeps: bool) -> None:
    known = GpuView(reserved=old, confirmed=True, place=BARE)
    assert kinds(plan(claimed(known, new)).actions) == (["CreatePod", "PatchStatus"] if keeps else ["ReleaseClaim"])


@pytest.mark.parametrize(
    ("reason", "of", "released"),
    [
        pytest.param("GPUOutOfMemory", learned(estimate=5056), True, id="ran-out-of-it"),
        pytest.param("GPUOutOfMemory", learned(estimate=4000), False, id="and-nothing-changed"),
        pytest.param("CrashLoop", learned(estimate=5056), False, id="another-failure"),
    ],
)
def test_a_pod_does_not_start_again_on_what_was_too_little(reason: str, of: Avatar, released: bool) -> None:
    one = instance(status=InstanceStatus(phase="Starting", last_termination=LastTermination(time=NOW, reason=reason)))
    found = kinds(plan(claimed(FINE, one=one, avatar=of)).actions)
    assert found == (["ReleaseClaim"] if released else ["CreatePod", "PatchStatus"])


def test_of_two_claims_one_goes() -> None:
    one = instance()
    claims = (service(one, 8616, ON_A0), service(one, 8615, ON_A0))
    result = plan(view(one, pool=VISIBLE, claims=claims, gpu=FINE))
    assert only(result, ReleaseClaim).service.metadata.name == "avatar-8616"
    assert only(result, CreatePod).body["metadata"]["name"] == "avatar-8615"


# ---- the queue -----------------------------------------------------------------------------


MISSING = "needs 8000 MiB free on one GPU, 1000 MiB are missing; GPU 0 of a has most: 7000 of 24000 MiB"
EXHAUSTED = Admission(position=1, reason="GPUExhausted", message=MISSING)


def test_who_waits_for_a_gpu_says_what_is_missing() -> None:
    result = plan(view(instance(), pool=VISIBLE, admission=EXHAUSTED))
    said = patches(result)["one"]
    assert (said["phase"], said["reason"], said["message"], said["queuePosition"]) == (
        "Pending",
        "GPUExhausted",
        MISSING,
        1,
    )
    found = {c["type"]: (c["status"], c["reason"], c["message"]) for c in said["conditions"]}
    assert found["GPUAssigned"] == ("False", "GPUExhausted", MISSING)
    assert found["Ready"][:2] == found["PortClaimed"][:2] == ("False", "GPUExhausted")
    (event,) = only(result, PatchStatus).events
    assert (event.type, event.reason, event.message) == ("Normal", "GPUExhausted", MISSING)
    assert result.wake == later(LOOK_FOR_GPU_SECONDS)


@pytest.mark.parametrize(("position", "news"), [(1, True), (2, False)])
def test_figures_that_move_are_news_for_the_next_one_only(position: int, news: bool) -> None:
    admission = Admission(position=position, reason="GPUExhausted", message=MISSING)
    one = instance()
    said = patches(plan(view(one, pool=VISIBLE, admission=admission)))["one"]
    waiting = having(one, **{k: msgspec.convert(said[n], t) for n, k, t in FIELDS})
    moved = Admission(position=position, reason="GPUExhausted", message=MISSING.replace("7000", "7001"))
    result = plan(view(waiting, pool=VISIBLE, admission=moved))
    assert kinds(result.actions) == (["PatchStatus"] if news else [])
    assert result.wake == later(LOOK_FOR_GPU_SECONDS)
    assert kinds(plan(view(waiting, pool=VISIBLE, admission=admission)).actions) == []


FIELDS = (
    ("phase", "phase", str),
    ("reason", "reason", str),
    ("message", "message", str),
    ("queuePosition", "queue_position", int),
    ("observedGeneration", "observed_generation", int),
    ("conditions", "conditions", tuple[type(condition("x", "True")), ...]),
)


def test_a_timeout_says_what_was_missing() -> None:
    limited = msgspec.structs.replace(
        VISIBLE, spec=msgspec.structs.replace(VISIBLE.spec, queue=Queue(timeout_seconds=60))
    )
    said = patches(plan(view(instance(age=61), pool=limited, admission=EXHAUSTED)))["one"]
    assert (said["phase"], said["reason"]) == ("Failed", "QueueTimeout")
    assert said["message"].startswith("no GPU became free in 60 s (spec.queue.timeoutSeconds of the AvatarPool): needs")


# ---- the end ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "due"),
    [
        pytest.param(GpuView(reserved=ON_A0, podless_since=ago(1)), 2, id="memory-is-still-held"),
        pytest.param(GpuView(reserved=ON_A0, podless_since=ago(3)), None, id="time-has-passed"),
        pytest.param(GpuView(reserved=ON_A0, podless_since=ago(1), processes_gone=True), None, id="seen-to-be-gone"),
        pytest.param(GpuView(reserved=ON_A0, podless_since=ago(1), lost="lost"), None, id="lost"),
        pytest.param(GpuView(reserved=ON_A0), None, id="nobody-knows-of-a-pod"),
        pytest.param(GpuView(), None, id="no-gpu"),
    ],
)
def test_the_claim_outlives_the_pod(known: GpuView, due: float | None) -> None:
    one = instance(metadata={"deletion_timestamp": ago(9)})
    result = plan(view(claims=(service(one, placement=known.reserved),), pool=VISIBLE, gpu=known))
    assert kinds(result.actions) == ([] if due else ["ReleaseClaim"])
    assert result.wake == (None if due is None else later(due))


def test_the_pools_own_release_time() -> None:
    slow = msgspec.structs.replace(
        VISIBLE,
        spec=msgspec.structs.replace(
            VISIBLE.spec, termination=msgspec.structs.replace(VISIBLE.spec.termination, gpu_release_seconds=30)
        ),
    )
    claim = service(instance(), placement=ON_A0)
    known = GpuView(reserved=ON_A0, podless_since=ago(1))
    assert plan(view(claims=(claim,), pool=slow, gpu=known)).wake == later(29)
    assert plan(view(claims=(claim,), pool=None, gpu=known)).wake == later(2), "a pool that is gone: the default"


def test_a_claim_is_kept_while_its_pod_ends() -> None:
    one = instance(metadata={"deletion_timestamp": ago(9)})
    known = GpuView(reserved=ON_A0)
    claim = service(one, placement=ON_A0)
    result = plan(view(claims=(claim,), pods=(ending(gpu_pod(one, ON_A0)),), pool=VISIBLE, gpu=known))
    assert result.actions == []


def test_a_backoff_releases_it_too() -> None:
    one = instance(status=InstanceStatus(phase="Failed", retry_time=later(60), restarts=2))
    assert kinds(plan(claimed(GpuView(reserved=ON_A0, podless_since=ago(1)), one=one)).actions) == []
    assert kinds(plan(claimed(GpuView(reserved=ON_A0, podless_since=ago(9)), one=one)).actions) == ["ReleaseClaim"]


# ---- a GPU that is lost -------------------------------------------------------------------------


LOST = GpuView(reserved=ON_A0, lost="GPU 0 of a: fell off the bus")


@pytest.mark.parametrize("restarts", [0, 3])
def test_a_lost_gpu_moves_its_instance(restarts: int) -> None:
    result = plan(placed(LOST, serving(restarts=restarts)))
    deleted = only(result, DeletePod)
    assert (deleted.reason, deleted.grace) == ("GPULost", LOST_GPU_GRACE_SECONDS)
    said = patches(result)["one"]
    assert (said["phase"], said["reason"]) == ("Starting", "GPULost")
    assert said["message"] == "GPU 0 of a: fell off the bus; moving to another GPU"
    assert (said["gpu"], said.get("restarts", restarts), said.get("retryTime")) == (None, restarts, None)
    assert {c["type"]: c["status"] for c in said["conditions"]} == {
        "GPUAssigned": "False",
        "Ready": "False",
        "PortClaimed": "False",
    }
    (event,) = only(result, PatchStatus).events
    assert (event.type, event.reason) == ("Warning", "GPULost")


def test_one_that_starts_moves_too() -> None:
    one = instance(status=STARTING)
    result = plan(placed(LOST, one, made=gpu_pod(one, ON_A0, on="a", ready=False)))
    assert only(result, DeletePod).reason == "GPULost"
    assert patches(result)["one"]["reason"] == "GPULost"


def test_then_its_claim_goes_and_it_waits_for_another() -> None:
    moved = instance(status=InstanceStatus(phase="Starting", reason="GPULost"))
    assert kinds(plan(claimed(LOST, one=moved)).actions) == ["ReleaseClaim"]
    admission = Admission(port=8615, placement=Placement(4000, "a", A1, 1))
    assert kinds(plan(view(moved, pool=VISIBLE, admission=admission)).actions) == ["CreateClaim"]


# ---- memory that did not suffice -------------------------------------------------------------------


def out_of_memory(reserved: Placement = ON_A0) -> Pod:
    message = "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"
    container = terminated(1, "Error", message)
    made = gpu_pod(serving(), reserved, on="a")
    return msgspec.structs.replace(
        made, status=msgspec.structs.replace(made.status, conditions=(), container_statuses=(container,))
    )


@pytest.mark.parametrize(
    ("of", "estimates", "raised"),
    [
        pytest.param(avatar(), "AtLeast", 5056, id="first"),
        pytest.param(learned(3000, 3328), "Learned", 5056, id="learned-too-little"),
        pytest.param(learned(3000, 6016), "AtLeast", None, id="known-already"),
        pytest.param(avatar(), "Fixed", None, id="fixed"),
        pytest.param(None, "AtLeast", None, id="its-avatar-is-gone"),
    ],
)
def test_out_of_memory_raises_the_estimate(of: Avatar | None, estimates: str, raised: int | None) -> None:
    rules = msgspec.structs.replace(VISIBLE.spec.gpu, estimates=estimates)
    kind = msgspec.structs.replace(VISIBLE, spec=msgspec.structs.replace(VISIBLE.spec, gpu=rules))
    result = plan(placed(one=serving(), kind=kind, avatar=of, made=out_of_memory()))
    assert only(result, DeletePod).reason == "GPUOutOfMemory"
    assert patches(result)["one"]["reason"] == "GPUOutOfMemory"
    found = [a.vram.estimate_mib for a in result.actions if isinstance(a, RaiseEstimate)]
    assert found == ([raised] if raised else [])


# ---- DRA ---------------------------------------------------------------------------------------------


SPREAD = Placement(4000, primary=(A1,), backup=(A0,))


def waiting_pod(on: str = "") -> Pod:
    return gpu_pod(instance(), BARE, on=on, ready=False, mode="DRA", claim="avatar-8615-7")


def test_the_pod_comes_before_its_device() -> None:
    result = plan(claimed(GpuView(reserved=BARE, place=SPREAD), DRA))
    assert kinds(result.actions) == ["CreatePod", "PatchStatus"]
    spec = only(result, CreatePod).body["spec"]
    (claim,) = spec["resourceClaims"]
    assert claim["resourceClaimName"].startswith("avatar-8615-")
    other = plan(replace(claimed(GpuView(reserved=BARE, place=SPREAD), DRA), now=later(1)))
    assert only(other, CreatePod).body["spec"]["resourceClaims"] != spec["resourceClaims"], "the name is used once"


@pytest.mark.parametrize("kind", [PLUGIN, DRA])
def test_where_the_room_was_taken_meanwhile_the_port_is_given_back(kind: Pool) -> None:
    assert kinds(plan(claimed(GpuView(reserved=BARE), kind)).actions) == ["ReleaseClaim"]


def test_a_device_is_not_asked_for_where_there_is_no_room() -> None:
    result = plan(placed(GpuView(reserved=BARE), instance(status=STARTING), DRA, made=waiting_pod()))
    assert "CreateDeviceClaim" not in kinds(result.actions)
    assert result.wake is not None
    assert result.wake <= later(LOOK_FOR_GPU_SECONDS)


def test_the_nodes_of_a_device_plugin_are_those_of_now() -> None:
    known = GpuView(reserved=Placement(4000, "a"), place=Placement(4000, nodes=("b", "c")))
    body = only(plan(claimed(known, PLUGIN)), CreatePod).body
    assert body["metadata"]["annotations"][names.ANNOTATION_GPU_NODE] == "b"
    assert names.LABEL_GPU not in body["metadata"]["labels"]
    terms = body["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert [t["matchFields"][0]["values"] for t in terms["nodeSelectorTerms"]] == [["b"], ["c"]]


@pytest.mark.parametrize(
    ("known", "on", "kind"),
    [
        pytest.param(GpuView(reserved=BARE, place=SPREAD), "", CreateDeviceClaim, id="its-claim"),
        pytest.param(GpuView(reserved=BARE, place=SPREAD, claim_made=True), "", None, id="once"),
        pytest.param(GpuView(reserved=BARE, claim_made=True), "a", ReadAllocation, id="what-it-got"),
        pytest.param(GpuView(reserved=BARE), "a", ReadAllocation, id="also-after-a-restart"),
        pytest.param(
            GpuView(reserved=BARE, claim_made=True, allocated=Placement(4000, "a", A1, 1)),
            "a",
            None,
            id="which-is-read-once",
        ),
    ],
)
def test_a_device_for_a_pod(known: GpuView, on: str, kind: type | None) -> None:
    one = instance(status=STARTING)
    result = plan(placed(known, one, DRA, made=waiting_pod(on)))
    found = [a for a in result.actions if isinstance(a, CreateDeviceClaim | ReadAllocation)]
    assert [type(a) for a in found] == ([kind] if kind else [])
    if kind is CreateDeviceClaim:
        assert isinstance(found[0], CreateDeviceClaim)
        assert found[0].body["metadata"]["name"] == "avatar-8615-7"
        owner = found[0].body["metadata"]["ownerReferences"][0]
        assert (owner["kind"], owner["uid"]) == ("Pod", "uid-avatar-8615")
        assert A1 in str(found[0].body["spec"])
    elif kind is ReadAllocation:
        assert isinstance(found[0], ReadAllocation)
        assert found[0].claim == "avatar-8615-7"


def test_what_it_got_is_said() -> None:
    known = GpuView(reserved=BARE, allocated=Placement(4096, "a", A1, 1), report=gpu(A1, 1))
    one = serving(gpu=None)
    result = plan(placed(known, one, DRA, made=gpu_pod(one, BARE, on="a", mode="DRA")))
    assert patches(result)["one"]["gpu"] == {"node": "a", "index": 1, "uuid": A1, "reservedMiB": 4096}


# ---- what is not about GPUs ------------------------------------------------------------------------------


def test_the_runtime_is_asked_once_which_gpu_it_sees() -> None:
    quiet = serving(idle_deadline=later(999), observed_sessions=0)
    first = plan(placed(one=quiet))
    assert "ProbeActivity" in kinds(first.actions)
    told = plan(placed(one=quiet, runtime=RuntimeView(activity=seen(0, gpus=(A0,)))))
    assert "ProbeActivity" not in kinds(told.actions)
    blind = plan(placed(one=quiet, runtime=RuntimeView(activity=seen(0, gpus=()))))
    assigned = next(c for c in patches(blind)["one"]["conditions"] if c["type"] == "GPUAssigned")
    assert (assigned["status"], assigned["reason"]) == ("False", "NoGPUVisible")


def test_a_pod_gets_its_claim_back_with_its_gpu() -> None:
    one = serving()
    made = gpu_pod(one, ON_A0, on="a")
    action = only(plan(view(one, pool=VISIBLE, pods=(made,), gpu=FINE)), CreateClaim)
    assert (action.port, action.placement) == (8615, ON_A0)
    assert action.body["metadata"]["labels"][names.LABEL_GPU] == A0


def test_a_cpu_pool_knows_no_gpu() -> None:
    one = instance()
    cold = plan(view(one, claims=(service(one),)))
    assert "gpu" not in patches(cold)["one"]
    assert {c["type"] for c in patches(cold)["one"]["conditions"]} == {"PortClaimed", "Ready"}
    body = only(cold, CreatePod).body
    assert not [key for key in (*body["metadata"]["labels"], *body["metadata"]["annotations"]) if "gpu" in key]
    warm = plan(view(having(one, phase="Running"), claims=(service(one),), pods=(pod([one]),)))
    told = {c["type"] for c in patches(warm)["one"]["conditions"]}
    assert told == {"PortClaimed", "Ready", "ActivityKnown", "MediaReachable"}
    assert "ProbeActivity" not in kinds(warm.actions)


def test_a_failed_one_says_that_it_holds_none() -> None:
    one, result = serving(), Plan()
    fail(view(one, pool=VISIBLE), [one], PodState(PodPhase.FAILED, "OOMKilled", "ended"), result)
    assigned = next(c for c in patches(result)["one"]["conditions"] if c["type"] == "GPUAssigned")
    assert (assigned["status"], assigned["reason"], assigned["message"]) == ("False", "OOMKilled", "released")
