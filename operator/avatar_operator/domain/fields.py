"""The fields of a struct, read once: msgspec goes through the annotations each time that it is asked."""

from __future__ import annotations

from functools import cache

import msgspec


@cache
def fields_of(kind: type[msgspec.Struct]) -> dict[str, str]:
    """Name in JSON → name in Python, in order. Not to be changed."""
    return {field.encode_name: field.name for field in msgspec.structs.fields(kind)}
