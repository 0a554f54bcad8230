"""What the store learns from a patch that carries the version it was decided on."""

from __future__ import annotations

from collections.abc import Awaitable

import msgspec

from avatar_operator.kube.client import KubeClient, Resource
from avatar_operator.kube.errors import ConflictError, NotFoundError
from avatar_operator.kube.kinds import AnyObject

from .store import FOR_GOOD, Store


async def take_in(
    client: KubeClient, store: Store, resource: Resource, item: AnyObject, patch: Awaitable[bytes]
) -> bool:
    """Await ``patch`` of ``item``; the store knows the object by then. Whether it was patched.

    Where somebody else was faster it is read again, and planned with; one that is gone is forgotten.
    """
    meta = item.metadata
    try:
        raw = await patch
    except NotFoundError:
        store.remove(type(item), meta.namespace, meta.name, meta.uid, FOR_GOOD)
        return False
    except ConflictError:
        await read_again(client, store, resource, item)
        return False
    store.apply(msgspec.json.decode(raw, type=type(item)))
    return True


async def read_again(client: KubeClient, store: Store, resource: Resource, item: AnyObject) -> None:
    """Let the store know what the API server has of ``item`` now; one that is gone is forgotten."""
    meta = item.metadata
    try:
        raw = await client.get(resource, meta.namespace, meta.name)
    except NotFoundError:
        store.remove(type(item), meta.namespace, meta.name, meta.uid, FOR_GOOD)
        return
    store.apply(msgspec.json.decode(raw, type=type(item)))
