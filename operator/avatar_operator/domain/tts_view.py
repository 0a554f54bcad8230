"""What the plan of a speech engine sees, and what it may ask for."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from .actions import Event, Json
from .placement import Need, Placement, Refusal
from .resources import Pod, Service
from .tts import Deployment, TtsEngine

# Of an engine, in the order of its life; the last two are left for Ready as soon as it answers.
PHASES = ("Stopped", "Pending", "Starting", "Ready", "Fallback", "Failed")


class TtsKey(NamedTuple):
    """Namespace and name of a TTSEngine."""

    namespace: str
    name: str
    kind: str = "tts"


@dataclass(frozen=True, slots=True)
class TtsHints:
    """What this process remembers of an engine; lost on restart, and then found out again.

    ``said_at``: when its status was last written. ``confirmed``: UID of the Service after
    whose writing everything on its GPU was read, and fits. ``rejection``: why the API server has
    just refused one of its objects. ``taken``: what has its name and is not its own.
    """

    said_at: datetime | None = None
    confirmed: str = ""
    rejection: str = ""
    taken: str = ""


@dataclass(frozen=True, slots=True)
class TtsGpuView:
    """The GPU of an engine: what its Service reserves, or where it could go (``place``).

    ``lost``, ``reported``, ``podless_since``, ``processes_gone``: as in view.GpuView.
    """

    reserved: Placement | None = None
    place: Placement | Refusal | None = None
    lost: str = ""
    reported: bool = False
    podless_since: datetime | None = None
    processes_gone: bool = False


@dataclass(frozen=True, slots=True)
class EngineView:
    """One engine at one moment.

    ``users``: instances that speak through it. ``covers``: those of engines that it stands in for.
    ``engines``: all of the namespace, itself included.
    """

    key: TtsKey
    now: datetime
    engine: TtsEngine | None = None
    deployment: Deployment | None = None
    service: Service | None = None
    pods: tuple[Pod, ...] = ()
    users: int = 0
    covers: int = 0
    engines: tuple[TtsEngine, ...] = ()
    gpu: TtsGpuView = TtsGpuView()
    hints: TtsHints = TtsHints()


@dataclass(frozen=True, slots=True)
class Speaker:
    """What status says of who speaks. ``stands_in``: the engine that does in its place."""

    phase: str
    reason: str
    message: str = ""
    stands_in: str = ""


@dataclass(frozen=True, slots=True)
class CreateTtsService:
    """POST the engine's Service, with the GPU that it reserves."""

    body: Json
    placement: Placement | None = None


@dataclass(frozen=True, slots=True)
class PatchTtsService:
    """Merge-PATCH the engine's Service: who answers, or the GPU that it reserves."""

    service: Service
    body: Json
    placement: Placement | None = None


@dataclass(frozen=True, slots=True)
class CreateDeployment:
    """POST the engine's Deployment."""

    body: Json


@dataclass(frozen=True, slots=True)
class PatchDeployment:
    """Change the Deployment by these JSON patch operations, if it is still as the plan saw it."""

    deployment: Deployment
    operations: list[Json]


@dataclass(frozen=True, slots=True)
class SayEngine:
    """Merge-PATCH the status of an engine."""

    engine: TtsEngine
    status: Json
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class ConfirmEngine:
    """Read everything that is reserved on the GPU of the engine's Service (as ConfirmPlacement for avatars)."""

    service: Service
    need: Need


TtsAction = CreateTtsService | PatchTtsService | CreateDeployment | PatchDeployment | SayEngine | ConfirmEngine


@dataclass(slots=True)
class TtsPlan:
    """Actions to run now, and when to plan again though nothing happens."""

    actions: list[TtsAction] = field(default_factory=list)
    wake: datetime | None = None

    def wake_at(self, when: datetime | None) -> None:
        """Plan again at ``when`` at the latest."""
        if when is not None and (self.wake is None or when < self.wake):
            self.wake = when
