"""Who is connected to an instance: joins, leaves and leases on status.sessions and status.connections.

Pure: a roll of sessions, what is asked of it, and the time go in; the new roll and an answer for each request come
out. The REST API writes the result by compare-and-swap; the operator uses ``lapse`` alone, so that a lease ends
though no API lives.

``connections`` may be more than the sessions have names for: a backend that patches the number beside the API. That
surplus is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from .clock import ceil, floor
from .resources import InstanceStatus, Session

# A renewal that would move the end of a lease by less is not written: a heartbeat is not worth a write each time.
RENEW_STEP_SECONDS = 15


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. ``name`` empty = unknown; ``any`` = may touch other users' sessions, too."""

    name: str = ""
    any: bool = False

    def may_touch(self, session: Session) -> bool:
        """Whether the session is the caller's own, or ownership does not bind it."""
        return self.any or (self.name != "" and session.user == self.name)


@dataclass(frozen=True, slots=True)
class Lease:
    """Seconds. ``ttl`` from a sign of life to the next; ``connect`` to the first; ``reconnect`` is added to ``ttl``."""

    ttl: int
    connect: int
    reconnect: int = 0


@dataclass(frozen=True, slots=True)
class Join:
    """Count a session; one of the same id is the same session. Without ``lease`` it does not expire.

    ``tentative``: seconds after which a new session ends unless it is attached (see Attach) or joined for good.
    """

    id: str
    caller: Caller
    lease: Lease | None = None
    tentative: int | None = None


@dataclass(frozen=True, slots=True)
class Attach:
    """Note what the runtime calls a session whose offer it has answered; from now on it lasts as long as the peer."""

    id: str
    caller: Caller
    runtime_session: str


@dataclass(frozen=True, slots=True)
class Detach:
    """The peer is gone, or never came (``runtime_session`` empty): ends the session unless somebody else keeps it.

    One that is attached to another of the runtime's sessions by now is left, and
    so is one that was never attached and is counted for good; one with a lease
    of its own keeps to that. An unknown one is no error.
    """

    id: str
    runtime_session: str = ""


@dataclass(frozen=True, slots=True)
class Leave:
    """End the session of an id; an unknown one is no error."""

    id: str
    caller: Caller


@dataclass(frozen=True, slots=True)
class LeaveOne:
    """End one session without naming it: the oldest of the caller's own, or of all where nobody is known."""

    caller: Caller


@dataclass(frozen=True, slots=True)
class Renew:
    """A sign of life: the lease begins anew."""

    id: str
    caller: Caller
    reconnect: int = 0


Operation = Join | Attach | Detach | Leave | LeaveOne | Renew


@dataclass(frozen=True, slots=True)
class Joined:
    """``fresh``: it was not counted before. ``connections`` includes it."""

    session: Session
    connections: int
    fresh: bool


@dataclass(frozen=True, slots=True)
class Left:
    """``session`` None = there was nothing to end."""

    session: Session | None
    connections: int


@dataclass(frozen=True, slots=True)
class Renewed:
    """The session as it is kept now."""

    session: Session
    connections: int


@dataclass(frozen=True, slots=True)
class Full:
    """As many sessions as allowed are connected."""

    connections: int
    cap: int


@dataclass(frozen=True, slots=True)
class Foreign:
    """The session belongs to somebody else."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """No session has this id: it never was, has ended, or its lease has lapsed."""


Answer = Joined | Left | Renewed | Full | Foreign | Unknown


@dataclass(frozen=True, slots=True)
class Roll:
    """What status says of who is connected."""

    sessions: tuple[Session, ...] = ()
    connections: int = 0

    @classmethod
    def of(cls, status: InstanceStatus) -> Roll:
        """The roll of an instance's status."""
        return cls(status.sessions, max(status.connections, len(status.sessions)))

    @property
    def surplus(self) -> int:
        """Connections that were counted without a name."""
        return max(0, self.connections - len(self.sessions))

    def status(self) -> dict[str, object]:
        """The fields of status for a merge patch."""
        return {"connections": self.connections, "sessions": msgspec.to_builtins(self.sessions)}


def lapse(roll: Roll, now: datetime) -> Roll:
    """The roll without the sessions whose lease has ended; the same object when there are none."""
    # Every join of an instance with many sessions comes through here: in one go, without a call for each.
    kept = [s for s in roll.sessions if s.expires is None or s.expires > now]
    if len(kept) == len(roll.sessions):
        return roll
    return Roll(tuple(kept), len(kept) + roll.surplus)


def next_lapse(sessions: Sequence[Session]) -> datetime | None:
    """When the next lease ends, or None while none does."""
    return min((s.expires for s in sessions if s.expires is not None), default=None)


def apply(
    roll: Roll, operations: Sequence[Operation], now: datetime, cap: int | None = None
) -> tuple[Roll, list[Answer]]:
    """Apply ``operations`` in their order; an answer for each, as if they had come alone.

    ``cap``: most connections at a time, None = no bound. The roll is equal to
    the given one when nothing has to be written.
    """
    roll = lapse(roll, now)
    book = _Book({s.id: s for s in roll.sessions}, roll.surplus, now, cap)
    answers = [book.apply(operation) for operation in operations]
    return Roll(tuple(book.sessions.values()), book.count), answers


@dataclass(slots=True)
class _Book:
    """The roll while a batch is applied."""

    sessions: dict[str, Session]
    surplus: int
    now: datetime
    cap: int | None

    @property
    def count(self) -> int:
        return len(self.sessions) + self.surplus

    def apply(self, operation: Operation) -> Answer:
        match operation:
            case Join():
                return self.join(operation)
            case Attach():
                return self.attach(operation)
            case Detach():
                return self.detach(operation)
            case Leave():
                return self.leave(operation)
            case LeaveOne():
                return self.leave_one(operation.caller)
            case Renew():
                return self.renew(operation)

    def join(self, join: Join) -> Answer:
        known = self.sessions.get(join.id)
        if known is not None:
            if not join.caller.may_touch(known):
                return Foreign()
            if join.lease is not None:
                # A client that starts again has not connected yet: it gets the connect window anew, never less.
                until = ceil(self.now + timedelta(seconds=join.lease.connect))
                ttl = join.lease.ttl
                self.keep(known, max(until, known.expires or until), ttl, changed=known.ttl_seconds != ttl)
            elif known.ttl_seconds is None and known.expires is not None:
                # Tentative: who joins for good makes it last, another offer begins its time anew.
                until_attached = self.until(join.tentative)
                self.sessions[join.id] = msgspec.structs.replace(known, expires=until_attached)
            return Joined(self.sessions[join.id], self.count, fresh=False)
        if self.cap is not None and self.count >= self.cap:
            return Full(self.count, self.cap)
        lease = join.lease
        session = Session(
            id=join.id,
            user=join.caller.name,
            since=floor(self.now),
            expires=self.until(lease.connect if lease else join.tentative),
            ttl_seconds=lease.ttl if lease else None,
        )
        self.sessions[join.id] = session
        return Joined(session, self.count, fresh=True)

    def until(self, seconds: int | None) -> datetime | None:
        return None if seconds is None else ceil(self.now + timedelta(seconds=seconds))

    def attach(self, attach: Attach) -> Answer:
        known = self.sessions.get(attach.id)
        if known is None:
            return Unknown()
        if not attach.caller.may_touch(known):
            return Foreign()
        expires = known.expires if known.ttl_seconds is not None else None
        attached = msgspec.structs.replace(known, runtime_session_id=attach.runtime_session, expires=expires)
        self.sessions[attach.id] = attached
        return Joined(attached, self.count, fresh=False)

    def detach(self, detach: Detach) -> Answer:
        known = self.sessions.get(detach.id)
        if known is None or known.runtime_session_id != detach.runtime_session:
            return Left(None, self.count)
        if known.ttl_seconds is not None:
            self.sessions[detach.id] = msgspec.structs.replace(known, runtime_session_id="")
            return Left(None, self.count)
        if not detach.runtime_session and known.expires is None:
            return Left(None, self.count)
        del self.sessions[detach.id]
        return Left(known, self.count)

    def leave(self, leave: Leave) -> Answer:
        known = self.sessions.get(leave.id)
        if known is None:
            return Left(None, self.count)
        if not leave.caller.may_touch(known):
            return Foreign()
        del self.sessions[leave.id]
        return Left(known, self.count)

    def leave_one(self, caller: Caller) -> Answer:
        if caller.name:
            own = next((s for s in self.sessions.values() if s.user == caller.name), None)
        elif self.surplus:
            self.surplus -= 1
            return Left(Session(id=""), self.count)
        else:
            own = next(iter(self.sessions.values()), None)
        if own is not None:
            del self.sessions[own.id]
        return Left(own, self.count)

    def renew(self, renew: Renew) -> Answer:
        known = self.sessions.get(renew.id)
        if known is None:
            return Unknown()
        if not renew.caller.may_touch(known):
            return Foreign()
        if known.ttl_seconds is not None:
            until = ceil(self.now + timedelta(seconds=known.ttl_seconds + renew.reconnect))
            self.keep(known, until, known.ttl_seconds)
        return Renewed(self.sessions[renew.id], self.count)

    def keep(self, session: Session, until: datetime, ttl: int, *, changed: bool = False) -> None:
        """Move the end of a lease where that is worth a write: later by a quarter of it, or to shorten it."""
        old = session.expires
        step = timedelta(seconds=min(RENEW_STEP_SECONDS, max(1, ttl // 4)))
        if changed or old is None or until - old >= step or until < old:
            self.sessions[session.id] = msgspec.structs.replace(session, expires=until, ttl_seconds=ttl)
