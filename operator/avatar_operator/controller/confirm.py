"""Write, then read: whether what one operator has reserved on a GPU fits beside what others have (docs/gpu.md)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from avatar_operator.domain.devices import placement_of
from avatar_operator.domain.ledger import Reservation
from avatar_operator.domain.names import LABEL_GPU, SELECTOR
from avatar_operator.domain.resources import Meta, Service
from avatar_operator.kube.client import KubeClient
from avatar_operator.kube.errors import BusyError, NotFoundError
from avatar_operator.kube.kinds import SERVICES

from .store import Store

# Two operators that wanted the same memory try again up to this long apart.
CONFLICT_PAUSE_SECONDS = 0.5


async def free_for(client: KubeClient, store: Store, namespaces: Sequence[str], service: Service) -> int | None:
    """What is free for the reservation of ``service`` beside everything that the API server has by now; MiB.

    None: the Service itself is not there any more, and the store knows it.
    """
    reserved = placement_of(service.metadata)
    if reserved is None:
        raise ValueError("only a Service that reserves a GPU is confirmed")
    others, present = [], False
    for namespace in namespaces:
        page, _ = await client.list_pages(SERVICES, namespace, f"{SELECTOR},{LABEL_GPU}={reserved.uuid}")
        for item in page:
            found = msgspec.convert(item, Service)
            store.apply(found)
            placement = placement_of(found.metadata)
            if found.metadata.uid == service.metadata.uid:
                present = True
            elif placement is not None:
                others.append(Reservation(found.metadata.namespace, found.metadata.name, "", "", placement.mib))
    if not present:
        # Somebody deleted it meanwhile; or the list is an old one, by which nothing may be forgotten.
        meta = service.metadata
        if await _exists(client, meta):
            raise BusyError(0, "OldList", f"a list of Services lacks {meta.namespace}/{meta.name}, which exists")
        store.remove(Service, meta.namespace, meta.name, meta.uid, meta.resource_version)
        return None
    mine = (service.metadata.namespace, service.metadata.name)
    return store.gpus.free_beside(reserved.uuid, others, mine, datetime.now(UTC))


async def _exists(client: KubeClient, meta: Meta) -> bool:
    try:
        raw = await client.get(SERVICES, meta.namespace, meta.name)
    except NotFoundError:
        return False
    return msgspec.json.decode(raw, type=Service).metadata.uid == meta.uid


async def pause(seconds: float) -> None:
    """Wait a random part of ``seconds``: whoever collided with us is told the same, not both again at once."""
    await asyncio.sleep(random.uniform(0, seconds))  # noqa: S311 - jitter, not a secret
