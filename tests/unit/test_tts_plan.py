"""The life of a speech engine, table by table."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
import pytest

from avatar_operator.domain import tts_objects
from avatar_operator.domain.names import ANNOTATION_TEMPLATE
from avatar_operator.domain.tts import DeploymentCondition, DeploymentStatus
from avatar_operator.domain.tts_plan import plan, stand_in
from avatar_operator.domain.tts_view import (
    CreateDeployment,
    CreateTtsService,
    PatchDeployment,
    PatchTtsService,
    TtsHints,
    TtsPlan,
)
from tests.unit.builders import NOW, ago, condition, later
from tests.unit.tts_builders import (
    deployment,
    engine,
    events,
    in_phase,
    kinds,
    pod,
    running,
    said,
    service,
    view,
)

READY = in_phase("Ready", since=600)


def replicas_of(action: PatchDeployment) -> int | None:
    return next((op["value"] for op in action.operations if op["path"] == "/spec/replicas"), None)


# ---- start -----------------------------------------------------------------------------


def test_nobody_needs_it_nothing_is_made() -> None:
    result = plan(view(engine()))
    assert kinds(result) == ["SayEngine"]
    assert said(result)["phase"] == "Stopped"
    assert said(result)["url"] == "http://tts-cosyvoice.live.svc:5002"
    assert said(result)["users"] == 0
    assert events(result) == []


def test_the_first_user_starts_it_all_at_once() -> None:
    result = plan(view(engine(status=in_phase("Stopped")), users=1))
    assert kinds(result) == ["CreateDeployment", "CreateTtsService", "SayEngine"]
    assert said(result)["phase"] == "Starting"
    assert (said(result)["users"], said(result)["replicas"]) == (1, 1)
    assert said(result)["startTime"] == NOW.isoformat().replace("+00:00", "Z")
    assert events(result) == ["Starting"]
    (made,) = [a for a in result.actions if isinstance(a, CreateDeployment)]
    assert made.body["spec"]["replicas"] == 1


def test_a_second_start_scales_what_is_there() -> None:
    one = engine(status=in_phase("Stopped"))
    result = plan(running(one, users=1, deployment=deployment(one, 0)))
    assert kinds(result) == ["PatchDeployment", "SayEngine"]


def test_while_it_starts_nothing_is_written() -> None:
    one = engine(status=in_phase("Starting", users=1, replicas=1, url="http://tts-cosyvoice.live.svc:5006"))
    one = settled(one, running(one, pod(one, "starting"), users=1))
    for state in ("pending", "starting"):
        result = plan(running(one, pod(one, state), users=1))
        assert result.actions == []
        assert result.wake == later(25)


def settled(one: Any, of: Any) -> Any:
    """The engine once its status says what the plan wants."""
    patch = said(plan(of))
    if not patch:
        return one
    merged = {**msgspec.to_builtins(one.status), **{k: v for k, v in patch.items() if v is not None}}
    return msgspec.structs.replace(one, status=msgspec.convert(merged, type(one.status)))


def test_it_is_ready_when_its_health_route_answers() -> None:
    one = engine(status=in_phase("Starting"))
    result = plan(running(one, pod(one), users=1))
    assert (said(result)["phase"], said(result)["readyReplicas"]) == ("Ready", 1)
    assert events(result) == ["Ready"]


@pytest.mark.parametrize(
    ("spec", "users", "there", "wanted"),
    [
        ({}, 1, 0, 1),
        ({}, 500, 0, 1),
        ({"max_replicas": 3, "users_per_replica": 4}, 1, 0, 1),
        ({"max_replicas": 3, "users_per_replica": 4}, 5, 1, 2),
        ({"max_replicas": 3, "users_per_replica": 4}, 50, 1, 3),
        # Those that are one too many may be speaking.
        ({"max_replicas": 3, "users_per_replica": 4}, 1, 3, 3),
        ({"max_replicas": 2, "users_per_replica": 4}, 1, 3, 2),
        ({"min_replicas": 2, "max_replicas": 3}, 1, 0, 2),
        ({"min_replicas": 1}, 0, 0, 1),
    ],
)
def test_pods_by_users(spec: dict[str, Any], users: int, there: int, wanted: int) -> None:
    one = engine(status=READY, **spec)
    result = plan(running(one, users=users, deployment=deployment(one, there)))
    changed = [replicas_of(a) for a in result.actions if isinstance(a, PatchDeployment)]
    assert changed == ([] if there == wanted else [wanted])


def deadline(result: TtsPlan) -> datetime:
    return msgspec.convert(said(result)["idleDeadline"], datetime)


# ---- idle ------------------------------------------------------------------------------


def test_the_idle_clock_starts_with_the_last_user_and_stands_in_status() -> None:
    one = engine(status=READY, idle_timeout_seconds=60)
    result = plan(running(one, pod(one)))
    assert deadline(result) == later(60)
    assert result.wake == later(60)
    assert not [a for a in result.actions if isinstance(a, PatchDeployment)]


@pytest.mark.parametrize("hints", [TtsHints(), TtsHints(said_at=ago(1))])
def test_a_restart_neither_resets_nor_shortens_the_clock(hints: TtsHints) -> None:
    one = engine(status={**READY, "idle_deadline": later(7)}, idle_timeout_seconds=60)
    result = plan(running(one, pod(one), hints=hints))
    assert "idleDeadline" not in said(result)
    assert result.wake == later(7)


def test_it_is_collected_at_its_deadline() -> None:
    one = engine(status={**READY, "idle_deadline": NOW}, idle_timeout_seconds=60)
    result = plan(running(one, pod(one)))
    (scaled,) = [a for a in result.actions if isinstance(a, PatchDeployment)]
    assert replicas_of(scaled) == 0
    assert (said(result)["phase"], said(result)["idleDeadline"], said(result)["startTime"]) == ("Stopped", None, None)
    assert events(result) == ["IdleCollected"]


@pytest.mark.parametrize("who", [{"users": 1}, {"covers": 1}])
def test_never_while_somebody_uses_it(who: dict[str, int]) -> None:
    one = engine(status={**READY, "idle_deadline": ago(100)}, idle_timeout_seconds=60)
    result = plan(running(one, pod(one), **who))
    assert not [a for a in result.actions if isinstance(a, PatchDeployment)]
    assert said(result)["idleDeadline"] is None
    assert said(result)["users"] == 1


def test_a_lowered_timeout_counts_from_now() -> None:
    one = engine(status={**READY, "idle_deadline": later(600)}, idle_timeout_seconds=60)
    assert deadline(plan(running(one, pod(one)))) == later(60)


def test_zero_is_never() -> None:
    one = engine(status=READY, idle_timeout_seconds=0)
    result = plan(running(one, pod(one)))
    assert not [a for a in result.actions if isinstance(a, PatchDeployment)]
    assert result.wake is None


def test_counts_alone_are_not_written_each_time() -> None:
    one = engine(status=READY)
    one = settled(one, running(one, pod(one), users=1))
    result = plan(running(one, pod(one), users=2, hints=TtsHints(said_at=ago(1))))
    assert result.actions == []
    assert result.wake == later(1)
    assert said(plan(running(one, pod(one), users=2, hints=TtsHints(said_at=ago(2))))) == {"users": 2}


# ---- trouble ---------------------------------------------------------------------------

EDGE = engine("edgetts", status=in_phase("Stopped"))


@pytest.mark.parametrize(
    ("state", "since", "phase", "reason"),
    [
        ("pending", 10, "Starting", "Starting"),
        ("starting", 29, "Starting", "Starting"),
        ("starting", 31, "Fallback", "StartupTimeout"),
        ("pending", 31, "Fallback", "StartupTimeout"),
        ("none", 10, "Starting", "Scheduling"),
        ("none", 31, "Fallback", "StartupTimeout"),
        ("crashed", 10, "Fallback", "CrashLoop"),
    ],
)
@pytest.mark.parametrize("fallback", ["edgetts", ""])
def test_an_engine_that_does_not_come(state: str, since: float, phase: str, reason: str, fallback: str) -> None:
    one = engine(status=in_phase("Starting", since=since), fallback=fallback)
    pods = () if state == "none" else (pod(one, state, age=since, restarts=3 if state == "crashed" else 0),)
    result = plan(running(one, *pods, users=1, others=(EDGE,)))
    if phase == "Fallback" and not fallback:
        phase = "Failed"
    told = {"phase": one.status.phase, "reason": one.status.reason, **said(result)}
    assert (told["phase"], told["reason"]) == (phase, reason)
    assert told.get("fallback") == ("edgetts" if phase == "Fallback" else None)
    leads_elsewhere = [a for a in result.actions if isinstance(a, PatchTtsService)]
    assert len(leads_elsewhere) == (phase == "Fallback")
    if phase == "Fallback":
        assert leads_elsewhere[0].body["spec"]["selector"] == tts_objects.selector("edgetts")
        assert leads_elsewhere[0].body["spec"]["ports"][0]["targetPort"] == "http"
    # It goes on trying.
    assert not [a for a in result.actions if isinstance(a, PatchDeployment)]


def test_an_engine_that_was_ready_has_its_time_again() -> None:
    """Killed while it speaks: its container restarts in a moment, which is no reason for another voice."""
    one = engine(status=READY, fallback="edgetts")
    result = plan(running(one, pod(one, "unready", age=600, restarts=1), users=1, others=(EDGE,)))
    assert (said(result)["phase"], events(result)) == ("Starting", ["Unready"])
    silent = in_phase("Starting", since=600, ready_time=ago(500))
    for ago_s, phase in ((20.0, "Starting"), (31.0, "Fallback")):
        silent["conditions"] = (condition("Serving", "False", since=ago(ago_s)),)
        one = engine(status=silent, fallback="edgetts")
        result = plan(running(one, pod(one, "unready", age=600, restarts=1), users=1, others=(EDGE,)))
        assert {"phase": "Starting", **said(result)}["phase"] == phase


@pytest.mark.parametrize("phase", ["Fallback", "Failed"])
def test_it_recovers_as_soon_as_it_answers(phase: str) -> None:
    one = engine(status=in_phase(phase, since=100, fallback="edgetts" if phase == "Fallback" else None))
    at = "edgetts" if phase == "Fallback" else ""
    result = plan(running(one, pod(one), users=1, service=service(one, at), others=(EDGE,)))
    assert (said(result)["phase"], events(result)) == ("Ready", ["Recovered"])
    back = [a.body["spec"]["selector"] for a in result.actions if isinstance(a, PatchTtsService)]
    assert back == ([tts_objects.selector("cosyvoice")] if at else [])


@pytest.mark.parametrize("phase", ["Fallback", "Failed"])
def test_it_stays_unavailable_until_then(phase: str) -> None:
    """Its tries are not told one by one: each would be a write for every instance."""
    status = in_phase(phase, since=5, observed_generation=1, reason="CrashLoop", message="ended 4 times")
    one = engine(status=status, fallback="edgetts" if phase == "Fallback" else "")
    for state in ("starting", "crashed", "pending"):
        told = said(plan(running(one, pod(one, state, age=2, restarts=3), users=1, others=(EDGE,))))
        assert told.get("phase", phase) == phase
        assert "reason" not in told
        assert "message" not in told


@pytest.mark.parametrize(
    ("fallback", "others", "expected"),
    [
        ("", (), ("", "")),
        ("edgetts", (EDGE,), ("edgetts", "")),
        ("edgetts", (), ("", "spec.fallback: there is no TTSEngine 'edgetts' here")),
        (
            "edgetts",
            (engine("edgetts", speaks=[]),),
            ("", "spec.fallback: edgetts does not speak cosyvoice (its spec.speaks)"),
        ),
        ("edgetts", (engine("edgetts", status=in_phase("Failed")),), ("", "edgetts is unavailable, too")),
        (
            "edgetts",
            (engine("edgetts", status=in_phase("Failed"), fallback="tacotron"), engine("tacotron")),
            ("tacotron", ""),
        ),
        (
            "edgetts",
            (engine("edgetts", status=in_phase("Fallback"), fallback="cosyvoice"),),
            ("", "edgetts is unavailable, too"),
        ),
        ("cosyvoice", (), ("", "spec.fallback leads back to cosyvoice")),
    ],
)
def test_who_may_stand_in(fallback: str, others: tuple[Any, ...], expected: tuple[str, str]) -> None:
    one = engine(fallback=fallback)
    assert stand_in(one, (one, *others)) == expected


def test_who_stands_in_is_started_for_it() -> None:
    result = plan(view(EDGE, covers=3))
    assert kinds(result) == ["CreateDeployment", "CreateTtsService", "SayEngine"]
    assert said(result)["users"] == 3


def test_why_there_is_no_pod() -> None:
    one = engine(status=in_phase("Starting"))
    failing = DeploymentCondition(type="ReplicaFailure", status="True", reason="FailedCreate", message="quota")
    broken = msgspec.structs.replace(deployment(one), status=DeploymentStatus(conditions=(failing,)))
    result = plan(running(one, users=1, deployment=broken))
    assert (said(result)["phase"], said(result)["reason"], said(result)["message"]) == (
        "Failed",
        "FailedCreate",
        "quota",
    )


@pytest.mark.parametrize(
    ("hints", "reason"),
    [
        (TtsHints(taken="Service tts-cosyvoice is there and not this engine's"), "NameTaken"),
        (TtsHints(rejection="the API server refuses it: quota"), "Rejected"),
    ],
)
def test_what_is_in_the_way_is_said(hints: TtsHints, reason: str) -> None:
    result = plan(view(engine(status=in_phase("Starting")), users=1, hints=hints))
    assert (said(result)["phase"], said(result)["reason"]) == ("Failed", reason)


# ---- by hand ---------------------------------------------------------------------------


def test_a_deployment_deleted_by_hand_comes_back() -> None:
    one = engine(status=READY)
    result = plan(running(one, users=1, deployment=None))
    assert [a.body["spec"]["replicas"] for a in result.actions if isinstance(a, CreateDeployment)] == [1]
    assert said(result)["phase"] == "Starting"


def test_a_service_deleted_by_hand_comes_back() -> None:
    one = engine(status=READY)
    result = plan(running(one, pod(one), users=1, service=None))
    assert [a.body["metadata"]["name"] for a in result.actions if isinstance(a, CreateTtsService)] == ["tts-cosyvoice"]


def test_an_engine_that_is_being_deleted_is_left_to_its_end() -> None:
    one = engine()
    ending = msgspec.structs.replace(one, metadata=msgspec.structs.replace(one.metadata, deletion_timestamp=NOW))
    assert plan(view(ending, users=3)).actions == []


def test_another_image_rolls_the_pods() -> None:
    old, new = engine(status=READY), engine(status=READY, image="registry.example/tts:2")
    result = plan(running(new, pod(old), users=1, deployment=deployment(old)))
    (patch,) = [a for a in result.actions if isinstance(a, PatchDeployment)]
    by_path = {op["path"]: op["value"] for op in patch.operations}
    assert by_path["/spec/template"]["spec"]["containers"][0]["image"] == "registry.example/tts:2"
    assert by_path["/metadata/annotations/avatars.virtualtutor.io~1template"] == tts_objects.template_hash(new)
    # A stopped one is changed when it starts.
    stopped = plan(running(new, deployment=deployment(old, 0)))
    assert not [a for a in stopped.actions if isinstance(a, PatchDeployment)]


def test_another_port_changes_the_service() -> None:
    old, new = engine(status=READY), engine(status=READY, port=5099)
    result = plan(running(new, pod(old), users=1, service=service(old), deployment=deployment(new)))
    (patch,) = [a for a in result.actions if isinstance(a, PatchTtsService)]
    assert patch.body["spec"]["ports"][0]["port"] == 5099


# ---- objects ---------------------------------------------------------------------------


def test_the_objects_belong_to_the_engine_and_are_restricted() -> None:
    one = engine(health_path="/live", args=["--port", "5002"], env=[{"name": "A", "value": "b"}])
    body = tts_objects.deployment(one, 1)
    (owner,) = body["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["blockOwnerDeletion"]) == ("TTSEngine", "uid-cosyvoice", False)
    spec = body["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert spec["automountServiceAccountToken"] is False
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["readinessProbe"]["httpGet"] == {"path": "/live", "port": "http"}
    assert container["livenessProbe"]["initialDelaySeconds"] == 30
    assert container["args"] == ["--port", "5002"]
    assert body["spec"]["selector"]["matchLabels"].items() <= body["spec"]["template"]["metadata"]["labels"].items()
    assert body["metadata"]["annotations"][ANNOTATION_TEMPLATE] == tts_objects.template_hash(one)
    tcp = tts_objects.deployment(engine(health_path=""), 1)["spec"]["template"]["spec"]["containers"][0]
    assert tcp["readinessProbe"]["tcpSocket"] == {"port": "http"}
