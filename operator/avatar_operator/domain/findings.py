"""What can be inconsistent, how bad each is, and what is done about it; docs/audit.md is this table for people."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from .gpunode import GpuNode
from .resources import Avatar, Instance, Meta, Pod, Pool, Service
from .tts import Deployment, TtsEngine
from .tts_view import TtsKey
from .view import GroupKey

# An object that is younger (seconds) may be one of several that are being written.
GRACE_SECONDS = 5
# What should have happened so long ago (seconds) is late, whatever clocks and queues there are.
LATE_SECONDS = 60


class Severity(StrEnum):
    """How bad it is."""

    ERROR = "Error"  # something that must never be
    WARNING = "Warning"  # will be repaired, or needs a person's look


class Rule(NamedTuple):
    """One kind of inconsistency. ``meaning`` is what is wrong, ``remedy`` who does what about it."""

    severity: Severity
    meaning: str
    remedy: str


_ERROR, _WARNING = Severity.ERROR, Severity.WARNING
_WRITTEN_AGAIN = "The operator writes the status again"

RULES: dict[str, Rule] = {
    # ---- ports: audit_ports
    "ClaimWithoutInstance": Rule(
        _ERROR,
        "A Service claims a port for an avatar that has no pod and that no instance asks for",
        "The operator deletes the Service, and the port is free again",
    ),
    "PodWithoutClaim": Rule(
        _ERROR,
        "A pod serves on a port that no Service claims: the port might be given away",
        "The operator writes the Service; a Service of that name that is not the operator's is in its way: delete it",
    ),
    "PodWithoutInstance": Rule(
        _ERROR,
        "A pod serves an avatar that no instance asks for",
        "The operator (or the garbage collector) deletes the pod",
    ),
    "TwoPodsOnPort": Rule(
        _ERROR,
        "Two pods have the same port",
        "The operator deletes the one that no instance needs; one that it leaves is somebody else's: delete that",
    ),
    "TwoPodsForAvatar": Rule(
        _ERROR,
        "Two pods serve one avatar of a pool",
        "The operator keeps the one that is ready and deletes the other",
    ),
    "ServiceDiffers": Rule(
        _WARNING,
        "Selector, ports or labels of a Service are not what the operator writes",
        "The operator writes them again; other fields, labels and annotations stay as they are",
    ),
    "PodNotOwned": Rule(
        _WARNING,
        "A pod does not have the instance that it serves as an owner: it could outlive it, or end too early",
        "The operator writes the owners again",
    ),
    "LabelsIncomplete": Rule(
        _WARNING,
        "A Service or a pod has the operator's labels, but not those that say for which avatar and port",
        "Delete it, or take the label app.kubernetes.io/managed-by off it; the operator leaves it alone",
    ),
    "PortRangesOverlap": Rule(
        _WARNING,
        "Two pools of a namespace have ports in common: each may take the other's",
        "Give each AvatarPool a range of its own (spec.ports.base, spec.ports.count)",
    ),
    # ---- what status says: audit_status
    "RunningWithoutPod": Rule(
        _ERROR, "An instance says that it runs, and its avatar has no pod", "The operator starts a new pod"
    ),
    "SharedWithNobody": Rule(
        _WARNING,
        "An instance says that it shares another one that does not run, or is not of the same avatar",
        _WRITTEN_AGAIN,
    ),
    "StatusPodMissing": Rule(_WARNING, "status.podName names a pod that is not there", _WRITTEN_AGAIN),
    "StatusPodForeign": Rule(_WARNING, "status.podName names a pod of another avatar", _WRITTEN_AGAIN),
    "StatusPortWrong": Rule(_WARNING, "status.port is not the port of the instance's pod", _WRITTEN_AGAIN),
    "CountNegative": Rule(
        _ERROR,
        "status.connections is below zero",
        "Whoever patches status.connections counts wrong; set it to the real number",
    ),
    "CountContradicts": Rule(
        _WARNING,
        "status.connections is less than status.sessions has entries",
        "The larger one counts; the next join or leave by the REST API writes both. Whoever patches the number must "
        "leave those sessions to the REST API",
    ),
    "LeaseOverdue": Rule(
        _WARNING, "A session is counted whose lease ended long ago", "The operator, or the REST API, ends the session"
    ),
    "StuckPhase": Rule(
        _WARNING,
        "An instance or a speech engine has been in a phase for longer than its timeouts explain",
        "Is an operator running and leading (kubectl get lease; metric avatar_operator_leader)? See its log, and "
        "kubectl describe the object",
    ),
    # ---- GPUs: audit_gpus
    "GpuOvercommitted": Rule(
        _ERROR,
        "More memory of a GPU is reserved than it has",
        "Nothing new goes there; delete an instance of those that are on it, and it starts anew on another GPU",
    ),
    "GpuDisagreement": Rule(
        _ERROR,
        "A pod and its Service do not reserve the same GPU",
        "The operator writes to the Service what the pod has",
    ),
    "GpuLost": Rule(
        _ERROR, "A reservation is on a GPU that is unhealthy or gone", "The operator moves the pod to another GPU"
    ),
    "GpuUnknown": Rule(
        _WARNING,
        "A reservation is on a GPU that no GPUNode reports",
        "Does the agent run on that node (kubectl get gpunodes, and the pods of the agent's DaemonSet)?",
    ),
    # ---- speech engines: audit_tts
    "EngineReadyWithoutPods": Rule(
        _ERROR,
        "A TTSEngine says Ready, and none of its pods is",
        "The operator says so in its status; it starts again, or another engine stands in",
    ),
    "EngineObjectWithoutEngine": Rule(
        _WARNING,
        "A Deployment or a Service belongs to a TTSEngine that is not there",
        "The garbage collector deletes what had the engine as its owner; delete the rest",
    ),
    "EngineServiceAstray": Rule(
        _ERROR,
        "The Service of a TTSEngine does not lead to the engine that speaks",
        "The operator writes its selector again; a status.fallback that does not exist: create it or change "
        "spec.fallback",
    ),
    # ---- anything: audit
    "StuckTerminating": Rule(
        _WARNING,
        "An object was to be gone long ago",
        "A pod: is its node alive? If it is surely down, kubectl delete pod --force. Anything else: see its "
        "metadata.finalizers; the operator sets none",
    ),
    "Undecodable": Rule(
        _WARNING,
        "An object does not fit its schema: the operator does not see it",
        "Correct the field that the message names; is the CRD that of this version?",
    ),
}


class ObjectRef(NamedTuple):
    """What a finding is about; ``uid`` tells it from a namesake made since."""

    kind: str
    namespace: str
    name: str
    uid: str = ""

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One inconsistency. ``kind`` is a key of RULES, ``message`` what is wrong with this object.

    ``pool``: name of the AvatarPool concerned. ``plan``: whose plan repairs it, if any does.
    ``patience``: seconds for which the same picture may be an honest step on the way.
    """

    kind: str
    ref: ObjectRef
    message: str
    pool: str = ""
    plan: GroupKey | TtsKey | None = None
    patience: float = 0

    @property
    def rule(self) -> Rule:
        """Severity, meaning and remedy."""
        return RULES[self.kind]

    @property
    def identity(self) -> tuple[str, ObjectRef]:
        """By which it is the same at the next look, though a figure in its message moved."""
        return self.kind, self.ref


@dataclass(frozen=True, slots=True)
class Picture:
    """Everything that is compared, as it was at ``now``; pods, Services and Deployments: those with our labels.

    ``gpunodes`` None = they may not be read; nothing is said of GPUs then.
    """

    now: datetime
    instances: tuple[Instance, ...] = ()
    pools: tuple[Pool, ...] = ()
    avatars: tuple[Avatar, ...] = ()
    pods: tuple[Pod, ...] = ()
    services: tuple[Service, ...] = ()
    engines: tuple[TtsEngine, ...] = ()
    deployments: tuple[Deployment, ...] = ()
    gpunodes: tuple[GpuNode, ...] | None = None

    def young(self, *metas: Meta) -> bool:
        """Whether one of the objects was made a moment ago."""
        limit = self.now - timedelta(seconds=GRACE_SECONDS)
        return any(m.creation_timestamp is not None and m.creation_timestamp > limit for m in metas)

    def late(self, due: datetime | None, seconds: float = LATE_SECONDS) -> bool:
        """Whether ``due`` was more than so many seconds ago."""
        return due is not None and self.now > due + timedelta(seconds=seconds)


def about(kind: str, meta: Meta) -> ObjectRef:
    """The reference to an object of that kind."""
    return ObjectRef(kind, meta.namespace, meta.name, meta.uid)


def live(meta: Meta) -> bool:
    """Whether nobody has asked for the object's deletion."""
    return meta.deletion_timestamp is None


def in_order(found: Iterable[Finding]) -> list[Finding]:
    """Errors first, then by namespace, kind and name."""
    return sorted(found, key=lambda f: (f.rule.severity, f.ref.namespace, f.kind, f.ref.name))
