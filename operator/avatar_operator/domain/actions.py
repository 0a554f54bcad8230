"""What a plan may ask for. Actions of one plan do not depend on each other:
they run at the same time, and what depends on their result waits for the next plan.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .resources import Instance, Pod, Service

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """A Kubernetes Event about an instance; ``reason`` is CamelCase."""

    type: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class CreateClaim:
    """POST the Service that claims ``port`` for the group."""

    port: int
    body: Json


@dataclass(frozen=True, slots=True)
class ReleaseClaim:
    """DELETE a claim, with its UID as a precondition."""

    service: Service


@dataclass(frozen=True, slots=True)
class CreatePod:
    """POST the runtime pod."""

    body: Json


@dataclass(frozen=True, slots=True)
class DeletePod:
    """DELETE a pod (its own grace period), with its UID as a precondition."""

    pod: Pod
    reason: str


@dataclass(frozen=True, slots=True)
class SetOwners:
    """PATCH a pod's ownerReferences: it lives while any instance that it serves does."""

    pod: Pod
    owners: list[Json]


@dataclass(frozen=True, slots=True)
class PatchStatus:
    """Merge-PATCH the status of an instance.

    With ``exact`` the patch carries the resourceVersion that the plan saw, so
    that a client who arrived meanwhile wins (409, plan again).
    """

    instance: Instance
    status: Json
    exact: bool = False
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class DeleteInstance:
    """DELETE an instance with UID and resourceVersion as preconditions."""

    instance: Instance
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
class SetDraining:
    """Tell the runtime in ``pod`` to refuse new offers, or to take them again."""

    pod: Pod
    port: int
    draining: bool


Action = (
    CreateClaim
    | ReleaseClaim
    | CreatePod
    | DeletePod
    | SetOwners
    | PatchStatus
    | DeleteInstance
    | ProbeActivity
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
