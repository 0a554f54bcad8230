"""The picture for the audit from the API server itself: lists and nothing else, operator or no operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from avatar_operator.domain.findings import Finding, ObjectRef, Picture
from avatar_operator.domain.gpunode import GpuNode, Node
from avatar_operator.domain.resources import Avatar, Instance, Pod, Pool, Service
from avatar_operator.domain.tts import Deployment, TtsEngine
from avatar_operator.kube.client import KubeClient
from avatar_operator.kube.errors import RejectedError
from avatar_operator.kube.kinds import AnyObject, K

from .watched import Watched, watched

FORBIDDEN = 403

KINDS: dict[type[AnyObject], str] = {
    Pool: "AvatarPool",
    Avatar: "Avatar",
    Instance: "AvatarInstance",
    Pod: "Pod",
    Service: "Service",
    GpuNode: "GPUNode",
    TtsEngine: "TTSEngine",
    Deployment: "Deployment",
}


@dataclass(frozen=True, slots=True)
class Seen:
    """``picture`` with the objects in it that do not fit their schema, and what may not be read."""

    picture: Picture
    undecodable: tuple[Finding, ...] = ()
    skipped: tuple[str, ...] = ()


async def take(client: KubeClient, namespaces: Sequence[str]) -> Seen:
    """List everything of ``namespaces`` (empty = all). Raises kube.errors.ApiError when that is not possible.

    What is cluster-scoped and may not be read is left out and said.
    """
    found: dict[type[AnyObject], list[AnyObject] | None] = {}
    bad: list[Finding] = []
    skipped: list[str] = []
    for what in watched(nodes=True):
        if what.kind is Node:
            continue
        try:
            found[what.kind] = await _list(client, what, namespaces, bad)
        except RejectedError as error:
            if not what.cluster_scoped or error.status != FORBIDDEN:
                raise
            found[what.kind] = None
            skipped.append(f"{what.resource.plural}: {error.message}")

    def of(kind: type[K]) -> tuple[K, ...]:
        return tuple(item for item in found.get(kind) or () if isinstance(item, kind))

    picture = Picture(
        datetime.now(UTC),
        of(Instance),
        of(Pool),
        of(Avatar),
        of(Pod),
        of(Service),
        of(TtsEngine),
        of(Deployment),
        None if found[GpuNode] is None else of(GpuNode),
    )
    return Seen(picture, tuple(bad), tuple(skipped))


async def _list(client: KubeClient, what: Watched, namespaces: Sequence[str], bad: list[Finding]) -> list[AnyObject]:
    result: list[AnyObject] = []
    for namespace in ("",) if what.cluster_scoped else tuple(namespaces) or ("",):
        items, _ = await client.list_pages(what.resource, namespace, what.selector)
        for item in items:
            try:
                result.append(msgspec.convert(item, what.kind))
            except (msgspec.ValidationError, ValueError) as error:
                bad.append(_undecodable(KINDS[what.kind], item["metadata"], error))
    return result


def _undecodable(kind: str, meta: dict[str, Any], error: Exception) -> Finding:
    ref = ObjectRef(kind, meta.get("namespace", ""), meta["name"], meta.get("uid", ""))
    return Finding("Undecodable", ref, f"{kind} {ref.name} does not fit its schema: {error}")
