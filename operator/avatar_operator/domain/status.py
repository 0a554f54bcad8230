"""From what an instance's status should say to the smallest patch that says it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from .actions import Event, Json, PatchStatus, Plan
from .clock import floor
from .fields import fields_of
from .resources import Condition, Instance, InstanceStatus

_FIELDS = fields_of(InstanceStatus)

# What an instance without a pod does not have.
NO_POD: Json = {
    "port": None,
    "webrtcUrl": None,
    "node": None,
    "podName": None,
    "gpu": None,
    "media": None,
    "readyTime": None,
    "idleDeadline": None,
    "drainDeadline": None,
    "observedSessions": None,
    "sharedWith": None,
}

# The Ready condition of an instance that sleeps.
ASLEEP = ("Ready", "False", "Stopped", "asleep; raising status.connections wakes it")


@dataclass(frozen=True, slots=True)
class Desired:
    """What the operator wants a status to say; ``fields`` by their names in the CRD.

    Fields that are not named stay as they are; None removes. ``conditions``
    are (type, status, reason, message); types that are not named stay, but
    those in ``drop``.
    """

    phase: str
    reason: str = ""
    message: str = ""
    fields: Json = field(default_factory=dict)
    conditions: tuple[tuple[str, str, str, str], ...] = ()
    drop: tuple[str, ...] = ()


def patch(instance: Instance, desired: Desired, now: datetime) -> Json | None:
    """The merge patch for ``.status`` that makes it say ``desired``; None = it does."""
    wanted: Json = {
        "phase": desired.phase,
        "reason": desired.reason or None,
        "message": desired.message or None,
        "observedGeneration": instance.metadata.generation,
        **desired.fields,
    }
    status = instance.status
    changed = {
        # A merge patch leaves what it does not name: all of a struct, or the old one shines through.
        name: full(value) if isinstance(value, msgspec.Struct) else plain
        for name, value in wanted.items()
        if (plain := _plain(value)) != _plain(getattr(status, _FIELDS[name]))
    }
    conditions = merge_conditions(
        status.conditions, desired.conditions, now, generation=instance.metadata.generation, drop=desired.drop
    )
    if conditions is not None:
        changed["conditions"] = conditions
    return changed or None


def merge_conditions(
    current: Iterable[Condition],
    wanted: Iterable[tuple[str, str, str, str]],
    now: datetime,
    *,
    generation: int,
    drop: Collection[str] = (),
) -> list[Json] | None:
    """All conditions after setting ``wanted`` and dropping ``drop``, or None when nothing but times would change.

    lastTransitionTime moves only when a condition's status does (API conventions).
    """
    before = list(current)
    by_type = {c.type: c for c in before if c.type not in drop}
    changed = len(by_type) != len(before)
    for kind, state, reason, message in wanted:
        old = by_type.get(kind)
        if old is not None and (old.status, old.reason, old.message) == (state, reason, message):
            continue
        changed = True
        since = old.last_transition_time if old is not None and old.status == state else floor(now)
        by_type[kind] = Condition(
            type=kind,
            status=state,
            reason=reason,
            message=message,
            last_transition_time=since,
            observed_generation=generation,
        )
    if not changed:
        return None
    return [full(c) for c in by_type.values()]


def full(model: msgspec.Struct) -> Json:
    """All fields of a struct, empty ones too: what the schema requires, or a merge patch must reset."""
    return {encoded: msgspec.to_builtins(getattr(model, name)) for encoded, name in fields_of(type(model)).items()}


def _plain(value: Any) -> Any:
    """Plain JSON data; an empty string and a missing field are the same, and so are lists and tuples."""
    plain = msgspec.to_builtins(value)
    if isinstance(plain, tuple):
        return list(plain)
    return None if plain == "" else plain


def say(
    now: datetime,
    member: Instance,
    desired: Desired,
    result: Plan,
    event: Event | None = None,
    *,
    exact: bool = False,
) -> None:
    """Plan the patch that makes ``member`` say ``desired``; nothing if it does."""
    change = patch(member, desired, now)
    if change:
        events = (event,) if event else ()
        result.actions.append(PatchStatus(member, change, exact=exact, events=events))


def planned(member: Instance, result: Plan) -> InstanceStatus:
    """The status of ``member`` as it will be once the patch in ``result`` is applied."""
    for action in result.actions:
        if isinstance(action, PatchStatus) and action.instance is member:
            merged = {**msgspec.to_builtins(member.status), **action.status}
            present = {name: value for name, value in merged.items() if value is not None}
            return msgspec.convert(present, InstanceStatus)
    return member.status
