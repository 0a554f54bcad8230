"""What a plan may ask for. Actions of one plan do not depend on each other:
they run at the same time, and what depends on their result waits for the next plan.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .placement import Need, Placement
from .resources import Avatar, Dra, Instance, Pod, Service, VramStatus

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """A Kubernetes Event about an instance; ``reason`` is CamelCase."""

    type: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class CreateClaim:
    """POST the Service that claims ``port``, and a part of a GPU where the pool has GPUs, for the group."""

    port: int
    body: Json
    placement: Placement | None = None


@dataclass(frozen=True, slots=True)
class MendClaim:
    """Merge-PATCH a claim that somebody changed, if it is still as the plan saw it."""

    service: Service
    change: Json


@dataclass(frozen=True, slots=True)
class ReleaseClaim:
    """DELETE a claim, with its UID as a precondition."""

    service: Service


@dataclass(frozen=True, slots=True)
class ConfirmPlacement:
    """Read everything that is reserved on the GPU of a claim, now that the claim itself can be read by others.

    Whoever writes first and reads then cannot miss another who does the same:
    two operators never put more on a GPU than fits.
    """

    service: Service
    need: Need


@dataclass(frozen=True, slots=True)
class CreateDeviceClaim:
    """POST the ResourceClaim that ``pod`` waits for (mode DRA); it belongs to the pod and ends with it."""

    pod: Pod
    body: Json


@dataclass(frozen=True, slots=True)
class ReadAllocation:
    """GET what the scheduler allocated to the ResourceClaim ``claim`` of ``pod``."""

    pod: Pod
    claim: str
    dra: Dra


@dataclass(frozen=True, slots=True)
class RaiseEstimate:
    """PATCH what is known of an avatar's GPU memory: a pod of it ran out of it."""

    avatar: Avatar
    vram: VramStatus


@dataclass(frozen=True, slots=True)
class CreatePod:
    """POST the runtime pod."""

    body: Json


@dataclass(frozen=True, slots=True)
class DeletePod:
    """DELETE a pod, with its UID as a precondition; ``grace`` seconds instead of its own grace period."""

    pod: Pod
    reason: str
    grace: int | None = None


@dataclass(frozen=True, slots=True)
class SetOwners:
    """PATCH a pod's ownerReferences: it lives while any instance that it serves does."""

    pod: Pod
    owners: list[Json]


@dataclass(frozen=True, slots=True)
class MarkInUse:
    """PATCH the label and the annotation by which a pod may be evicted, or not."""

    pod: Pod
    in_use: bool


@dataclass(frozen=True, slots=True)
class PatchStatus:
    """Set fields of the status of an instance (None removes), each whole.

    With ``exact`` the patch carries the resourceVersion that the plan saw, so
    that a client who arrived meanwhile wins (409, plan again); without it the UID alone.
    """

    instance: Instance
    status: Json
    exact: bool = False
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class DeleteInstance:
    """DELETE an instance with UID and resourceVersion as preconditions; ``reason``: that of its Draining."""

    instance: Instance
    reason: str
    event: Event


@dataclass(frozen=True, slots=True)
class ProbeActivity:
    """Ask the runtime in ``pod`` how many sessions it has."""

    pod: Pod
    port: int


@dataclass(frozen=True, slots=True)
class ProbeReady:
    """Ask whether the runtime in ``pod`` serves yet: GET ``path``, or a TCP connect when it is empty."""

    pod: Pod
    port: int
    path: str


@dataclass(frozen=True, slots=True)
class ProbeMedia:
    """Have the runtime in ``pod`` open UDP ports, and ask there whether they can be reached."""

    pod: Pod
    port: int


@dataclass(frozen=True, slots=True)
class SetDraining:
    """Tell the runtime in ``pod`` to refuse new offers, or to take them again."""

    pod: Pod
    port: int
    draining: bool


Action = (
    CreateClaim
    | MendClaim
    | ReleaseClaim
    | ConfirmPlacement
    | CreateDeviceClaim
    | ReadAllocation
    | RaiseEstimate
    | CreatePod
    | DeletePod
    | SetOwners
    | MarkInUse
    | PatchStatus
    | DeleteInstance
    | ProbeActivity
    | ProbeMedia
    | ProbeReady
    | SetDraining
)


@dataclass(slots=True)
class Plan:
    """Actions to run now, and when to plan again though nothing happens."""

    actions: list[Action] = field(default_factory=list)
    wake: datetime | None = None

    def wake_at(self, when: datetime | None) -> None:
        """Plan again at ``when`` at the latest."""
        if when is not None and (self.wake is None or when < self.wake):
            self.wake = when
