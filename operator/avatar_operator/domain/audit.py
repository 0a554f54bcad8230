"""Whether everything fits together: the whole picture at once, where a plan sees one group.

A finding is what no step of a plan explains. What is on its way looks the same for a moment; so an
object that was made just now is not judged, and who asks looks a second time (``lasting``).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from . import audit_gpus, audit_ports, audit_status, audit_tts
from .audit_members import Members
from .findings import LATE_SECONDS, Finding, Picture, about, in_order
from .groups import labelled


def audit(picture: Picture) -> list[Finding]:
    """Everything that is inconsistent, errors first. Some of it may be on its way: see ``lasting``."""
    members = Members(picture)
    found = [
        *audit_ports.look(picture, members),
        *audit_status.look(picture, members),
        *audit_gpus.look(picture),
        *audit_tts.look(picture),
        *_terminating(picture),
    ]
    return in_order({f.identity: f for f in found}.values())


def lasting(first: list[Finding], second: list[Finding], seconds: float) -> list[Finding]:
    """Those of ``second`` that a look so many seconds before found, too, and that time does not explain."""
    before = {f.identity for f in first}
    return [f for f in second if f.identity in before and f.patience <= seconds]


def _terminating(picture: Picture) -> Iterator[Finding]:
    """A pod's deletionTimestamp is when its grace ends; nothing else has a reason to stay."""
    kinds = (
        ("AvatarInstance", picture.instances),
        ("AvatarPool", picture.pools),
        ("Avatar", picture.avatars),
        ("Pod", picture.pods),
        ("Service", picture.services),
        ("TTSEngine", picture.engines),
        ("Deployment", picture.deployments),
    )
    for kind, items in kinds:
        for item in items:
            meta, due = item.metadata, item.metadata.deletion_timestamp
            if due is None or not picture.late(due):
                continue
            found = labelled(meta)
            text = f"{kind} {meta.name} was to be gone {_span(picture.now - due)} ago and is still there"
            yield Finding("StuckTerminating", about(kind, meta), text, found.pool if found else "")


def _span(span: timedelta) -> str:
    seconds = int(span.total_seconds())
    return f"{seconds} s" if seconds < 2 * LATE_SECONDS else f"{seconds // 60} min"
