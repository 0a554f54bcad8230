"""Which sessions exist and in what state. Pure bookkeeping with the time given by the caller.

A slot is taken before the first await of an offer and freed exactly once, so concurrent offers cannot overshoot
the limit and a failed one cannot leak a slot.
"""

from dataclasses import dataclass, field
from enum import StrEnum


class State(StrEnum):
    """A session's life: an offer came, media flows, being closed."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    CLOSING = "closing"


class Refused(Exception):
    """The offer cannot be taken now; the text is for the client."""


@dataclass
class Entry:
    """A session's record. Times are monotonic seconds."""

    sessionid: str
    created: float
    state: State = State.CONNECTING
    connected: float | None = None


@dataclass
class Registry:
    """The sessions of this process."""

    limit: int
    now: float
    draining: bool = False
    entries: dict[str, Entry] = field(default_factory=dict)
    _idle_since: float = field(init=False)

    def __post_init__(self) -> None:
        self._idle_since = self.now

    def open(self, sessionid: str, now: float) -> Entry:
        """Take a slot, or raise `Refused`."""
        if self.draining:
            raise Refused("draining: this avatar takes no new sessions")
        if len(self.entries) >= self.limit:
            raise Refused(f"Maximum session limit reached ({len(self.entries)}/{self.limit})")
        if sessionid in self.entries:
            raise Refused("the session id is taken")
        entry = self.entries[sessionid] = Entry(sessionid, created=now)
        return entry

    def connect(self, sessionid: str, now: float) -> bool:
        """Note that media flows; tell whether that is news."""
        entry = self.entries.get(sessionid)
        if entry is None or entry.state is not State.CONNECTING:
            return False
        entry.state, entry.connected = State.CONNECTED, now
        return True

    def closing(self, sessionid: str) -> bool:
        """Note that the session is being torn down; tell whether this call is the first to say so."""
        entry = self.entries.get(sessionid)
        if entry is None or entry.state is State.CLOSING:
            return False
        entry.state = State.CLOSING
        return True

    def close(self, sessionid: str, now: float) -> bool:
        """Free the slot; tell whether it was taken."""
        if self.entries.pop(sessionid, None) is None:
            return False
        if not self.entries:
            self._idle_since = now
        return True

    def overdue(self, now: float, timeout: float) -> list[str]:
        """Return the sessions that have been connecting for longer than `timeout` seconds."""
        return [
            e.sessionid for e in self.entries.values() if e.state is State.CONNECTING and now - e.created >= timeout
        ]

    def idle_seconds(self, now: float) -> float:
        """Return how long there has been no session: since the last one ended, or since the start."""
        return 0.0 if self.entries else max(0.0, now - self._idle_since)

    def __len__(self) -> int:
        return len(self.entries)
