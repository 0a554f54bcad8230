"""Kubernetes Events as they are read: what happened to an object of ours."""

from __future__ import annotations

from datetime import datetime

from .resources import Meta, Model


class About(Model, frozen=True):
    """involvedObject."""

    kind: str = ""
    name: str = ""


class Told(Model, frozen=True):
    """One Event (core/v1)."""

    metadata: Meta
    involved_object: About = About()
    type: str = "Normal"
    reason: str = ""
    message: str = ""
    first_timestamp: datetime | None = None
    last_timestamp: datetime | None = None
    event_time: datetime | None = None
    count: int | None = None

    @property
    def at(self) -> datetime | None:
        """When it happened last."""
        return self.last_timestamp or self.event_time or self.first_timestamp or self.metadata.creation_timestamp
