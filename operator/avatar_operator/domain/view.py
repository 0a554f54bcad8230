"""What a plan sees: one group (an avatar in a pool) with everything that serves it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from .gpunode import GpuReport
from .media import MediaReport
from .placement import Placement
from .ports import Admission
from .resources import Avatar, Instance, Pod, Pool, Service
from .tts import TtsEngine


class GroupKey(NamedTuple):
    """Namespace and group id (names.group_id): what reconciling goes by."""

    namespace: str
    id: str
    # Keys of different kinds share a queue: equal names must not make them equal.
    kind: str = "group"


@dataclass(frozen=True, slots=True)
class Activity:
    """What the runtime said of itself at ``at``; ``sessions`` None = it could not be asked.

    ``gpus``: the UUIDs that it sees; None = it does not tell. ``frames``: video
    frames that it has handed to viewers in all, None = it does not count them;
    ``viewers``: connected sessions that take video. ``first_frame``: when it showed
    its first picture to anybody.
    """

    at: datetime
    sessions: int | None
    idle_seconds: float | None = None
    draining: bool = False
    error: str = ""
    gpus: tuple[str, ...] | None = None
    frames: int | None = None
    viewers: int = 0
    first_frame: datetime | None = None


@dataclass(frozen=True, slots=True)
class FrameMark:
    """An answer since which the count of frames stands still; ``flowing``: it had grown until then."""

    at: datetime
    frames: int
    viewers: int
    flowing: bool = False


@dataclass(frozen=True, slots=True)
class RuntimeView:
    """What this process remembers of a pod's runtime; lost on restart, so only a hint.

    ``draining``: what we last told it (None = nothing yet), at ``told_at``.
    ``asked_at``, ``answered_at``: when it was last asked whether it serves, and last did.
    ``known_since``: since when this process has known of the pod. ``used_at``:
    when somebody was last counted in its instances, or changed one of them at
    the moment of its collection. ``frames``: see flow.
    ``media``: the last probe of its media.
    """

    activity: Activity | None = None
    draining: bool | None = None
    told_at: datetime | None = None
    asked_at: datetime | None = None
    answered_at: datetime | None = None
    known_since: datetime | None = None
    used_at: datetime | None = None
    frames: FrameMark | None = None
    media: MediaReport | None = None


@dataclass(frozen=True, slots=True)
class GpuHints:
    """What this process remembers of a group's GPU; lost on restart, and then found out again.

    ``wrote``: UID of the claim that this process wrote itself. ``confirmed``: UID
    of the claim after whose writing everything on the GPU was read, and fits.
    ``claim_made``: the pod's ResourceClaim exists.
    ``allocated``: what the scheduler gave it.
    """

    wrote: str = ""
    confirmed: str = ""
    claim_made: bool = False
    allocated: Placement | None = None


@dataclass(frozen=True, slots=True)
class GpuView:
    """What is known of the GPU that a group's claim holds.

    ``reserved``: what the claim says. ``place``: where a new pod would go by
    now (modes in which the scheduler has the last word). ``lost``: why no pod
    can go on there. ``report``: the newest one of that GPU, made at
    ``reported``; ``stale`` = too old to go by. ``podless_since``: since when
    the claim has no pod; ``had_pod``: it had one before; ``processes_gone``: the
    agent saw its processes leave.

    ``foreign_until``: the claim was written by another process, which has until
    then to go on with it. ``confirmed``, ``claim_made``, ``allocated``: see GpuHints.
    """

    reserved: Placement | None = None
    place: Placement | None = None
    lost: str = ""
    stale: bool = False
    report: GpuReport | None = None
    reported: datetime | None = None
    node: str = ""
    podless_since: datetime | None = None
    had_pod: bool = False
    processes_gone: bool = False
    foreign_until: datetime | None = None
    confirmed: bool = False
    claim_made: bool = False
    allocated: Placement | None = None


@dataclass(frozen=True, slots=True)
class GroupView:
    """One group at one moment. ``members`` are oldest first.

    ``rejection``: reason and message with which the API server has just
    refused the group's pod (quota, Pod Security, an invalid field).
    ``engines``: the TTSEngines of the namespace.

    ``ended``: the last pod, which somebody deleted, as it was at its end; None
    where there is another one by now, or nothing was heard of it.
    ``lost``: UID of each pod on a lost node, and why the node counts as lost.
    ``stranded``: those whose end is waited for no longer; neither they nor
    their claims are among ``pods`` and ``claims`` (see nodeloss).
    """

    key: GroupKey
    now: datetime
    members: tuple[Instance, ...] = ()
    pool: Pool | None = None
    avatar: Avatar | None = None
    claims: tuple[Service, ...] = ()
    pods: tuple[Pod, ...] = ()
    ended: Pod | None = None
    admission: Admission = Admission()
    runtime: RuntimeView = RuntimeView()
    rejection: tuple[str, str] | None = None
    gpu: GpuView = GpuView()
    engines: tuple[TtsEngine, ...] = ()
    lost: dict[str, str] = field(default_factory=dict)
    stranded: tuple[Pod, ...] = ()
