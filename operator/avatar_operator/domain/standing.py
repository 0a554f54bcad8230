"""What stands inconsistent from one look to the next: new, lasting, repaired."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from .actions import Event
from .findings import Finding, ObjectRef

# So many findings are named in one event.
NAMED = 3

_Identity = tuple[str, ObjectRef]


@dataclass(frozen=True, slots=True)
class Change:
    """What a look made of what stood before. ``suspects``: how many may be a step on the way still."""

    new: tuple[Finding, ...] = ()
    gone: tuple[Finding, ...] = ()
    suspects: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """``findings`` are those that last; ``since`` says when each that was found at the last look was first seen."""

    findings: dict[_Identity, Finding] = field(default_factory=dict)
    since: dict[_Identity, datetime] = field(default_factory=dict)

    def look(
        self, found: Iterable[Finding], now: datetime, confirm: float, *, sure: bool = False
    ) -> tuple[Standing, Change]:
        """The next state after ``found`` was found at ``now``.

        A finding stands when it has been seen for ``confirm`` seconds, and for as long as its own patience;
        at once with ``sure``: nobody acts, so nothing is on its way.
        """
        seen = {f.identity: f for f in found}
        since = {identity: self.since.get(identity, now) for identity in seen}
        findings = {
            identity: finding
            for identity, finding in seen.items()
            if sure
            or identity in self.findings
            or now >= since[identity] + timedelta(seconds=max(confirm, finding.patience))
        }
        change = Change(
            tuple(f for i, f in findings.items() if i not in self.findings),
            tuple(f for i, f in self.findings.items() if i not in seen),
            len(seen) - len(findings),
        )
        return Standing(findings, since), change


def inconsistent(findings: list[Finding]) -> Event:
    """One event for all that stands about one object."""
    named = "; ".join(f"{f.kind}: {f.message}" for f in findings[:NAMED])
    more = f" and {len(findings) - NAMED} more (avatar-operator audit)" if len(findings) > NAMED else ""
    count = "1 inconsistency" if len(findings) == 1 else f"{len(findings)} inconsistencies"
    return Event("Warning", "Inconsistent", f"{count}: {named}{more}")


def repaired(gone: Mapping[str, int]) -> Event:
    """Nothing stands about the object any more; ``gone``: how many of each kind did."""
    return Event("Normal", "Repaired", f"consistent again: {', '.join(f'{n} {kind}' for kind, n in gone.items())}")
