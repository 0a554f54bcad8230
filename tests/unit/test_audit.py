"""The audit: a consistent picture has no finding, and one that is broken in one way has exactly that finding."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from avatar_operator.domain.audit import audit, lasting
from avatar_operator.domain.findings import GRACE_SECONDS, LATE_SECONDS, RULES, Finding, ObjectRef, Picture, Severity
from avatar_operator.domain.names import (
    LABEL_GPU,
    LABEL_GROUP,
    LABEL_MANAGED_BY,
    LABEL_POOL,
    LABEL_PORT,
    LABEL_TTS,
    MANAGER,
)
from avatar_operator.domain.placement import Placement
from avatar_operator.domain.podstate import PULL_TIMEOUT
from avatar_operator.domain.resources import Instance, InstanceStatus, Ports, Queue, Session
from avatar_operator.domain.tts_view import TtsKey
from tests.unit.builders import (
    NOW,
    ago,
    avatar,
    condition,
    group_of,
    having,
    instance,
    later,
    meta,
    pod,
    pool,
    service,
)
from tests.unit.gpu_builders import A0, TOTAL, VISIBLE, gpu, gpu_pod, gpunode
from tests.unit.tts_builders import deployment, engine
from tests.unit.tts_builders import pod as tts_pod
from tests.unit.tts_builders import service as tts_service

DOCS = Path(__file__).resolve().parents[2] / "docs" / "audit.md"
ON_A0 = Placement(4000, "a", A0, 0)
GPU_POOL = msgspec.structs.replace(VISIBLE, spec=msgspec.structs.replace(VISIBLE.spec, ports=Ports(base=8620, count=5)))


def serving(port: int, **more: Any) -> InstanceStatus:
    """The status of an instance that runs on a port."""
    return InstanceStatus(
        phase="Running", port=port, pod_name=f"avatar-{port}", start_time=ago(60), ready_time=ago(50), **more
    )


ONE = instance("one", status=serving(8615))
TWO = instance(
    "two",
    age=500,
    status=InstanceStatus(phase="Shared", port=8615, pod_name="avatar-8615", shared_with="one", ready_time=ago(50)),
)
BOB = instance("bob", "Bob", status=serving(8616, connections=1, sessions=(Session(id="s1", expires=later(30)),)))
ASLEEP = instance("asleep", "Cy", status=InstanceStatus(phase="Stopped", reason="Idle"))
QUEUED = instance("queued", "Dan", status=InstanceStatus(phase="Pending", reason="PoolFull", queue_position=1))
GIL = instance("gil", "Gil", pool_ref="visible", status=serving(8620))
COSY = engine("cosyvoice", status={"phase": "Ready", "start_time": ago(60), "ready_time": ago(50)}, fallback="edgetts")
EDGE = engine("edgetts", status={"phase": "Stopped"})

GOOD = Picture(
    NOW,
    instances=(ONE, TWO, BOB, ASLEEP, QUEUED, GIL),
    pools=(pool(), GPU_POOL),
    avatars=tuple(avatar(name) for name in ("Ada", "Bob", "Cy", "Dan", "Gil")),
    pods=(
        pod([ONE, TWO]),
        pod([BOB], port=8616),
        gpu_pod(GIL, ON_A0, port=8620, on="a"),
        tts_pod(COSY),
    ),
    services=(service(ONE), service(BOB, 8616), service(GIL, 8620, ON_A0), tts_service(COSY), tts_service(EDGE)),
    engines=(COSY, EDGE),
    deployments=(deployment(COSY), deployment(EDGE, replicas=0)),
    gpunodes=(gpunode("a", gpu(A0)),),
)

FIELDS = {
    "AvatarInstance": "instances",
    "AvatarPool": "pools",
    "Pod": "pods",
    "Service": "services",
    "TTSEngine": "engines",
    "Deployment": "deployments",
}


def without(kind: str, name: str, picture: Picture = GOOD) -> Picture:
    """The picture with one object less."""
    kept = tuple(i for i in getattr(picture, FIELDS[kind]) if i.metadata.name != name)
    assert len(kept) == len(getattr(picture, FIELDS[kind])) - 1
    return replace(picture, **{FIELDS[kind]: kept})


def plus(kind: str, item: Any, picture: Picture = GOOD) -> Picture:
    """The picture with one object more."""
    return replace(picture, **{FIELDS[kind]: (*getattr(picture, FIELDS[kind]), item)})


def edited(kind: str, name: str, change: Callable[[Any], Any], picture: Picture = GOOD) -> Picture:
    """The picture with one object changed."""
    (item,) = [i for i in getattr(picture, FIELDS[kind]) if i.metadata.name == name]
    return plus(kind, change(item), without(kind, name, picture))


def status(name: str, **fields: Any) -> Picture:
    """With the status of an instance changed."""
    return edited("AvatarInstance", name, lambda i: having(i, **fields))


def metadata(kind: str, name: str, **fields: Any) -> Picture:
    """With the metadata of an object changed."""

    def change(item: Any) -> Any:
        return msgspec.structs.replace(item, metadata=msgspec.structs.replace(item.metadata, **fields))

    return edited(kind, name, change)


def labelled(kind: str, name: str, **labels: str) -> Picture:
    """With some labels of an object changed."""

    def change(item: Any) -> Any:
        merged = {**item.metadata.labels, **{ALIASES[k]: v for k, v in labels.items()}}
        return msgspec.structs.replace(item, metadata=msgspec.structs.replace(item.metadata, labels=merged))

    return edited(kind, name, change)


ALIASES = {"pool": LABEL_POOL, "port": LABEL_PORT, "gpu": LABEL_GPU, "tts": LABEL_TTS, "group": LABEL_GROUP}


def led(name: str, **spec: Any) -> Picture:
    """With the spec of a Service changed."""
    return edited("Service", name, lambda s: msgspec.structs.replace(s, spec=msgspec.structs.replace(s.spec, **spec)))


def engine_status(name: str, **fields: Any) -> Picture:
    """With the status of an engine changed."""
    return edited(
        "TTSEngine", name, lambda e: msgspec.structs.replace(e, status=msgspec.structs.replace(e.status, **fields))
    )


def again(item: Any, name: str) -> Any:
    """A copy of an object under another name."""
    made = msgspec.structs.replace(item.metadata, name=name, uid=f"uid-{name}")
    return msgspec.structs.replace(item, metadata=made)


def nobody(name: str = "gone", of: str = "Zoe") -> Instance:
    """An instance that is not in the picture."""
    return instance(name, of, status=serving(8617))


def waiting(seconds: float, **fields: Any) -> Picture:
    """One instance more, created so long ago, of an avatar that nobody else has."""
    one = instance("late", "Eve", age=seconds, status=InstanceStatus(**fields))
    return plus("AvatarInstance", one, replace(GOOD, avatars=(*GOOD.avatars, avatar("Eve"))))


def overcommitted() -> Picture:
    other = instance("guy", "Guy", pool_ref="visible", status=serving(8621))
    place = replace(ON_A0, mib=TOTAL)
    made = plus("Pod", gpu_pod(other, place, port=8621, on="a"), plus("Service", service(other, 8621, place)))
    return plus("AvatarInstance", other, replace(made, avatars=(*made.avatars, avatar("Guy"))))


def without_gpu(picture: Picture = GOOD, **node: Any) -> Picture:
    return replace(picture, gpunodes=(gpunode("a", gpu("GPU-other"), **node),))


BROKEN: dict[str, tuple[str, str, Picture]] = {
    "a claim that nobody wants": ("ClaimWithoutInstance", "avatar-8617", plus("Service", service(nobody(), 8617))),
    "a claim of one that sleeps": ("ClaimWithoutInstance", "avatar-8617", plus("Service", service(ASLEEP, 8617))),
    "a claim deleted under its pod": ("PodWithoutClaim", "avatar-8615", without("Service", "avatar-8615")),
    "a claim that is another avatar's": (
        "PodWithoutClaim",
        "avatar-8615",
        plus("Service", service(BOB, 8615), without("Service", "avatar-8615")),
    ),
    "a pod that nobody wants": (
        "PodWithoutInstance",
        "avatar-8617",
        plus("Pod", pod([nobody()], port=8617), plus("Service", service(nobody(), 8617))),
    ),
    "a pod of one that sleeps": (
        "PodWithoutInstance",
        "avatar-8617",
        plus("Pod", pod([ASLEEP], port=8617), plus("Service", service(ASLEEP, 8617))),
    ),
    "two pods of one avatar": (
        "TwoPodsForAvatar",
        "avatar-8617",
        plus("Pod", pod([ONE, TWO], port=8617), plus("Service", service(ONE, 8617))),
    ),
    "two pods on one port": ("TwoPodsOnPort", "rogue", plus("Pod", again(pod([nobody()]), "rogue"))),
    "a selector that leads nowhere": ("ServiceDiffers", "avatar-8615", led("avatar-8615", selector={"a": "b"})),
    "a selector with one more": (
        "ServiceDiffers",
        "avatar-8615",
        edited(
            "Service",
            "avatar-8615",
            lambda s: msgspec.structs.replace(
                s, spec=msgspec.structs.replace(s.spec, selector={**s.spec.selector, "a": "b"})
            ),
        ),
    ),
    "a Service without ports": ("ServiceDiffers", "avatar-8616", led("avatar-8616", ports=())),
    "a Service of another pool": ("ServiceDiffers", "avatar-8616", labelled("Service", "avatar-8616", pool="x")),
    "a Service of another port": ("ServiceDiffers", "avatar-8616", labelled("Service", "avatar-8616", port="9")),
    "a pod without its owner": ("PodNotOwned", "avatar-8616", metadata("Pod", "avatar-8616", owner_references=())),
    "a Service without a group": (
        "LabelsIncomplete",
        "odd",
        plus(
            "Service",
            again(
                msgspec.structs.replace(service(ONE), metadata=meta("odd", labels={LABEL_MANAGED_BY: MANAGER})), "odd"
            ),
        ),
    ),
    "two pools on the same ports": (
        "PortRangesOverlap",
        "other",
        plus("AvatarPool", pool("other", ports=Ports(base=8611))),
    ),
    "a pod lost under a running one": ("RunningWithoutPod", "bob", without("Pod", "avatar-8616")),
    "a draining one without a pod": (
        "RunningWithoutPod",
        "late",
        waiting(60, phase="Draining", drain_deadline=later(10)),
    ),
    "sharing with nobody": ("SharedWithNobody", "two", status("two", shared_with="nobody")),
    "sharing with another avatar's": ("SharedWithNobody", "two", status("two", shared_with="bob")),
    "a pod that is not there": ("StatusPodMissing", "queued", status("queued", pod_name="avatar-8619", port=8619)),
    "another's pod": ("StatusPodForeign", "two", status("two", pod_name="avatar-8616", port=8616)),
    "a port that is not the pod's": ("StatusPortWrong", "one", status("one", port=8619)),
    "a port without a pod": ("StatusPortWrong", "queued", status("queued", port=8619)),
    "a negative count": ("CountNegative", "one", status("one", connections=-1)),
    "fewer connections than sessions": ("CountContradicts", "bob", status("bob", connections=0)),
    "a lease that ended long ago": (
        "LeaseOverdue",
        "bob",
        status("bob", sessions=(Session(id="s1", expires=ago(LATE_SECONDS + 1)),)),
    ),
    "nobody takes notice": ("StuckPhase", "late", waiting(LATE_SECONDS + 1)),
    "starting for ever": ("StuckPhase", "late", waiting(PULL_TIMEOUT + 30 + LATE_SECONDS + 1, phase="Starting")),
    "pending without a place": ("StuckPhase", "late", waiting(LATE_SECONDS + 1, phase="Pending")),
    "pending past the queue's timeout": (
        "StuckPhase",
        "queued",
        edited(
            "AvatarPool",
            "default",
            lambda p: msgspec.structs.replace(
                p, spec=msgspec.structs.replace(p.spec, queue=Queue(timeout_seconds=600 - LATE_SECONDS - 1))
            ),
        ),
    ),
    "draining past its deadline": (
        "StuckPhase",
        "one",
        status("one", phase="Draining", drain_deadline=ago(LATE_SECONDS + 31)),
    ),
    "a retry that did not come": (
        "StuckPhase",
        "late",
        waiting(600, phase="Failed", retry_time=ago(LATE_SECONDS + 1)),
    ),
    "a pod that does not end": (
        "StuckTerminating",
        "avatar-8617",
        plus(
            "Pod",
            pod([nobody()], port=8617, metadata={"deletion_timestamp": ago(LATE_SECONDS + 1)}),
            plus("Service", service(nobody(), 8617)),
        ),
    ),
    "an instance that does not end": (
        "StuckTerminating",
        "asleep",
        metadata("AvatarInstance", "asleep", deletion_timestamp=ago(LATE_SECONDS + 1)),
    ),
    "more reserved than there is": ("GpuOvercommitted", "a", overcommitted()),
    "a claim on another GPU": ("GpuDisagreement", "avatar-8620", labelled("Service", "avatar-8620", gpu="GPU-x")),
    "a claim without the GPU": (
        "GpuDisagreement",
        "avatar-8620",
        plus("Service", service(GIL, 8620), without("Service", "avatar-8620")),
    ),
    "a GPU that is gone": ("GpuLost", "avatar-8620", without_gpu()),
    "a GPU that is unhealthy": (
        "GpuLost",
        "avatar-8620",
        replace(GOOD, gpunodes=(gpunode("a", gpu(A0, healthy=False, reason="XID")),)),
    ),
    "a GPU that an old report lacks": ("GpuUnknown", "avatar-8620", without_gpu(at=ago(600))),
    "a GPU of a node that does not report": (
        "GpuUnknown",
        "avatar-8620",
        replace(GOOD, gpunodes=(gpunode("b", gpu("GPU-b0")),)),
    ),
    "an engine that is ready without pods": ("EngineReadyWithoutPods", "cosyvoice", without("Pod", "tts-cosyvoice-x1")),
    "a Deployment of no engine": (
        "EngineObjectWithoutEngine",
        "tts-tacotron",
        plus("Deployment", deployment(engine("tacotron"))),
    ),
    "a Service that is not the engine's": (
        "EngineObjectWithoutEngine",
        "tts-edgetts",
        metadata("Service", "tts-edgetts", owner_references=()),
    ),
    "an engine's Service that leads elsewhere": (
        "EngineServiceAstray",
        "cosyvoice",
        led("tts-cosyvoice", selector={LABEL_TTS: "nobody"}),
    ),
    "a fallback that the Service does not know": (
        "EngineServiceAstray",
        "cosyvoice",
        engine_status("cosyvoice", phase="Fallback", fallback="edgetts"),
    ),
    "an engine that starts for ever": (
        "StuckPhase",
        "edgetts",
        engine_status("edgetts", phase="Starting", start_time=ago(30 + LATE_SECONDS + 1)),
    ),
}


def test_a_consistent_picture_has_no_finding() -> None:
    assert audit(GOOD) == []


@pytest.mark.parametrize("name", BROKEN)
def test_one_thing_wrong_is_one_finding(name: str) -> None:
    kind, about, picture = BROKEN[name]
    found = audit(picture)
    assert [(f.kind, f.ref.name) for f in found] == [(kind, about)], [f.message for f in found]
    (finding,) = found
    # Whoever reads it learns which object; what is done about it stands in the rule.
    assert about in finding.message


def test_every_rule_has_a_picture() -> None:
    # A fallback that is not there has a test of its own below; what does not decode is the command's alone.
    assert {kind for kind, _, _ in BROKEN.values()} | {"Undecodable"} == set(RULES)


def test_a_fallback_that_is_not_there() -> None:
    astray = tts_service(COSY, "edgetts")
    picture = plus("Service", astray, without("Service", "tts-cosyvoice"))
    picture = edited(
        "TTSEngine",
        "cosyvoice",
        lambda e: msgspec.structs.replace(
            e, status=msgspec.structs.replace(e.status, phase="Fallback", fallback="edgetts")
        ),
        picture,
    )
    assert audit(picture) == []
    gone = without(
        "Service", "tts-edgetts", without("Deployment", "tts-edgetts", without("TTSEngine", "edgetts", picture))
    )
    assert [(f.kind, f.ref.name) for f in audit(gone)] == [("EngineServiceAstray", "cosyvoice")]


# ---- what is on its way ---------------------------------------------------------------

YOUNG = {"creation_timestamp": NOW - timedelta(seconds=GRACE_SECONDS - 1)}
ON_THE_WAY: dict[str, Picture] = {
    "a claim just made": plus("Service", service(nobody(), 8617, **YOUNG)),
    "a pod just made": plus("Pod", pod([nobody()], port=8617, metadata=YOUNG)),
    "an instance just created": waiting(1),
    "an instance that waits to start": waiting(30, phase="Pending"),
    "a pull that takes long": waiting(PULL_TIMEOUT, phase="Starting"),
    "an old instance that starts again": waiting(86400, phase="Starting", start_time=ago(30)),
    "an old instance whose container has just failed": waiting(
        86400,
        phase="Starting",
        reason="NotAnswering",
        start_time=ago(80000),
        conditions=(condition("Ready", "False", since=ago(20)),),
    ),
    "a pod that ends in its grace": plus(
        "Pod",
        pod([nobody()], port=8617, metadata={"deletion_timestamp": later(20)}),
        plus("Service", service(nobody(), 8617)),
    ),
    "a drain that lasts as long as somebody is there": status("one", phase="Draining", reason="MaxAge"),
    "a lease that has just ended": status("bob", sessions=(Session(id="s1", expires=ago(1)),)),
    "a retry that is due": waiting(600, phase="Failed", retry_time=ago(5)),
    "a queue without a timeout": waiting(86400, phase="Pending", reason="PoolFull", queue_position=3),
    "one that cannot run": waiting(86400, phase="Failed", reason="LimitExceeded"),
    "an engine that starts": engine_status("edgetts", phase="Starting", start_time=ago(20)),
    "GPUs that nobody may read": replace(without_gpu(), gpunodes=None),
    "GPUs that nobody reports": replace(GOOD, gpunodes=()),
}


@pytest.mark.parametrize("name", ON_THE_WAY)
def test_what_is_on_its_way_is_no_finding(name: str) -> None:
    assert [f.message for f in audit(ON_THE_WAY[name])] == []


def test_a_claim_whose_gpu_is_being_released_is_given_its_time() -> None:
    picture = plus("Service", service(nobody(), 8617, ON_A0))
    (finding,) = audit(picture)
    assert finding.kind == "ClaimWithoutInstance"
    assert finding.patience == pool().spec.termination.gpu_release_seconds + GRACE_SECONDS
    assert lasting([finding], [finding], finding.patience - 1) == []
    assert lasting([finding], [finding], finding.patience) == [finding]


def test_only_what_two_looks_found_lasts() -> None:
    def one(uid: str, text: str = "") -> Finding:
        return Finding("PodWithoutClaim", ObjectRef("Pod", "live", "avatar-8615", uid), text)

    assert lasting([], [one("a")], 3) == []
    assert lasting([one("a")], [], 3) == []
    assert lasting([one("a")], [one("a", "other words")], 3) == [one("a", "other words")]
    assert lasting([one("a")], [one("b")], 3) == [], "a namesake made since is another one"


def test_errors_come_first() -> None:
    both = plus("Service", service(nobody(), 8617), status("one", port=8619))
    assert [f.rule.severity for f in audit(both)] == [Severity.ERROR, Severity.WARNING]


def test_a_finding_says_whose_plan_repairs_it() -> None:
    (claim,) = audit(BROKEN["a claim that nobody wants"][2])
    assert claim.plan == ("live", group_of(nobody()), "group")
    assert claim.pool == "default"
    (speech,) = audit(BROKEN["an engine that is ready without pods"][2])
    assert speech.plan == TtsKey("live", "cosyvoice")


# ---- what people read -----------------------------------------------------------------


def test_the_page_says_what_the_rules_say() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.+?) \| (.+?) \|$", DOCS.read_text(encoding="utf-8"), re.M)
    assert [tuple(row) for row in rows] == [(kind, r.severity, r.meaning, r.remedy) for kind, r in RULES.items()]
