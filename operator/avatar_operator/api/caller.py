"""Who makes a request, and what the role allows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from avatar_operator.domain.sessions import Caller


class Role(IntEnum):
    """Each may what those before it may."""

    VIEWER = 1
    USER = 2
    ADMIN = 3

    @classmethod
    def mapping(cls, entries: Iterable[str], *, named: bool) -> dict[str, Role]:
        """From VALUE=ROLE entries; ``named``: the roles' own names are values, too. ValueError when one is neither."""
        names = {role.name.lower(): role for role in cls}
        found = dict(names) if named else {}
        for entry in entries:
            value, _, name = entry.rpartition("=")
            if not value or name not in names:
                raise ValueError(f"--role {entry}: give VALUE=ROLE with a role of {', '.join(names)}")
            found[value] = names[name]
        return found


@dataclass(frozen=True, slots=True)
class Principal:
    """``subject`` empty = nobody in particular (authentication is off)."""

    subject: str
    role: Role
    address: str = ""

    @property
    def caller(self) -> Caller:
        """The same for the rules of sessions."""
        return Caller(self.subject, any=self.role is Role.ADMIN)
