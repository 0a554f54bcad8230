"""Times as Kubernetes writes them: UTC, whole seconds."""

from __future__ import annotations

from datetime import datetime, timedelta


def floor(when: datetime) -> datetime:
    """The whole second at or before ``when``: for what happened."""
    return when.replace(microsecond=0)


def ceil(when: datetime) -> datetime:
    """The whole second at or after ``when``: for deadlines, never early."""
    return when if when.microsecond == 0 else when.replace(microsecond=0) + timedelta(seconds=1)
