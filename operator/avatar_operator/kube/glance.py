"""As much of an object as tells whether it is news."""

from __future__ import annotations

import msgspec


class Where(msgspec.Struct, frozen=True, rename="camel"):
    """The parts of metadata that say which object it is, and which state of it."""

    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = "0"


class Glance(msgspec.Struct, frozen=True):
    """Any object."""

    metadata: Where


glance = msgspec.json.Decoder(Glance).decode
