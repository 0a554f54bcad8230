"""What the store learns from a patch that carries the version it was decided on."""

from __future__ import annotations

from collections.abc import Awaitable

import msgspec

from avatar_operator.domain.resources import Meta
from avatar_operator.kube.client import KubeClient, Resource
from avatar_operator.kube.errors import ConflictError, NotFoundError
from avatar_operator.kube.kinds import AnyObject

from .store import Store


async def take_in(
    client: KubeClient,
    store: Store,
    resource: Resource,
    kind: type[AnyObject],
    meta: Meta,
    patch: Awaitable[bytes],
) -> bool:
    """Await ``patch`` of the object of ``meta``; the store knows the object by then. Whether it was patched.

    Where somebody else was faster it is read again, and planned with; one that is gone is forgotten.
    """
    try:
        raw, done = await patch, True
    except NotFoundError:
        store.remove(kind, meta.namespace, meta.name, meta.uid, meta.resource_version)
        return False
    except ConflictError:
        raw, done = await client.get(resource, meta.namespace, meta.name), False
    store.apply(msgspec.json.decode(raw, type=kind))
    return done
