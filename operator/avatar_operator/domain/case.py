"""A group with a pod: what all decisions about it go by."""

from __future__ import annotations

from dataclasses import dataclass

from .actions import Event, Plan
from .names import LABEL_PORT
from .resources import Instance, Pod, Pool
from .settings import Settings
from .status import Desired, say
from .view import GroupView


@dataclass(frozen=True, slots=True)
class Case:
    """``members``: the server first, then those that share its pod."""

    view: GroupView
    pool: Pool
    members: list[Instance]
    pod: Pod
    settings: Settings

    @property
    def server(self) -> Instance:
        """The instance that the pod serves first; the others share it."""
        return self.members[0]

    @property
    def port(self) -> int:
        """The port that the pod listens on."""
        return int(self.pod.metadata.labels[LABEL_PORT])

    @property
    def counted(self) -> int:
        """Connections that somebody counted, over all members."""
        return sum(m.counted_connections for m in self.members)

    @property
    def beat(self) -> int:
        """Seconds between looks at a runtime that only it knows to be in use."""
        period = self.pool.spec.health.period_seconds
        half = self.settings.idle_timeout // 2 if self.settings.idle_timeout else period
        return max(1, min(period, half))

    def say(self, desired: Desired, result: Plan, event: Event | None = None, *, exact: bool = False) -> None:
        """Plan the server's status."""
        say(self.view.now, self.server, desired, result, event, exact=exact)
