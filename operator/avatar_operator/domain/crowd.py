"""Many starts at once: what need not be said at once, for what follows says it as well.

A start has two writes to a status: that it starts, and that it serves. In a
crowd the first waits a moment; where the pod serves by then, there is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeGuard

from .actions import Action, PatchStatus

# That an instance starts is said so many seconds later at most.
FIRST_WORD_SECONDS = 1


@dataclass(frozen=True, slots=True)
class Turn:
    """``actions``: to carry out now. ``told``: their events are told, though they wait. ``since``: since when some do.

    ``again``: when to look again, for what waits.
    """

    actions: Sequence[Action]
    told: Sequence[PatchStatus] = ()
    since: datetime | None = None
    again: datetime | None = None


def in_turn(actions: Sequence[Action], since: datetime | None, now: datetime, *, busy: bool) -> Turn:
    """What of ``actions`` is carried out now. ``busy``: whether there is a crowd; ``since``: of the last turn."""
    first = [action for action in actions if _first_word(action)]
    if not first or not busy:
        return Turn(actions)
    again = (since or now) + timedelta(seconds=FIRST_WORD_SECONDS)
    if now >= again:
        return Turn(actions, since=since)
    rest = [action for action in actions if not _first_word(action)]
    return Turn(rest, () if since else first, since or now, again)


def _first_word(action: Action) -> TypeGuard[PatchStatus]:
    """Whether it is the first thing that a status says, and no more than that the instance starts."""
    return (
        isinstance(action, PatchStatus)
        and not action.instance.status.phase
        and action.status.get("phase") == "Starting"
    )
