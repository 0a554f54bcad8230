"""What a plan sees: one group (an avatar in a pool) with everything that serves it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from .ports import Admission
from .resources import Avatar, Instance, Pod, Pool, Service


class GroupKey(NamedTuple):
    """Namespace and group id (names.group_id): what reconciling goes by."""

    namespace: str
    id: str
    # Keys of different kinds share a queue: equal names must not make them equal.
    kind: str = "group"


@dataclass(frozen=True, slots=True)
class Activity:
    """What the runtime said of itself at ``at``; ``sessions`` None = it could not be asked."""

    at: datetime
    sessions: int | None
    idle_seconds: float | None = None
    draining: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class RuntimeView:
    """What this process remembers of a pod's runtime; lost on restart, so only a hint.

    ``draining``: what we last told it (None = nothing yet), at ``told_at``.
    ``asked_at``, ``answered_at``: when it was last asked whether it serves, and last did.
    """

    activity: Activity | None = None
    draining: bool | None = None
    told_at: datetime | None = None
    asked_at: datetime | None = None
    answered_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class GroupView:
    """One group at one moment. ``members`` are oldest first.

    ``rejection``: reason and message with which the API server has just
    refused the group's pod (quota, Pod Security, an invalid field).
    """

    key: GroupKey
    now: datetime
    members: tuple[Instance, ...] = ()
    pool: Pool | None = None
    avatar: Avatar | None = None
    claims: tuple[Service, ...] = ()
    pods: tuple[Pod, ...] = ()
    admission: Admission = Admission()
    runtime: RuntimeView = RuntimeView()
    rejection: tuple[str, str] | None = None
