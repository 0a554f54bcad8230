"""Which API resources the store is fed from, and what they decode to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from avatar_operator.domain.gpunode import GpuNode, Node
from avatar_operator.domain.names import SELECTOR, TTS_SELECTOR
from avatar_operator.domain.resources import Avatar, Instance, Pod, Pool, Service
from avatar_operator.domain.tts import Deployment, TtsEngine
from avatar_operator.kube.client import Resource
from avatar_operator.kube.kinds import (
    AVATARS,
    DEPLOYMENTS,
    ENGINES,
    GPUNODES,
    INSTANCES,
    NODES,
    PODS,
    POOLS,
    SERVICES,
    AnyObject,
)


class Watched(NamedTuple):
    """One resource with its struct and label selector; ``cluster_scoped`` ones have no namespace."""

    resource: Resource
    kind: type[AnyObject]
    selector: str = ""
    cluster_scoped: bool = False


_NODES = (Watched(NODES, Node, cluster_scoped=True), Watched(GPUNODES, GpuNode, cluster_scoped=True))
# Pools, avatars and engines first: an instance is planned with what it refers to at hand.
_OTHERS = (
    Watched(POOLS, Pool),
    Watched(AVATARS, Avatar),
    Watched(ENGINES, TtsEngine),
    Watched(DEPLOYMENTS, Deployment, TTS_SELECTOR),
    Watched(SERVICES, Service, SELECTOR),
    Watched(PODS, Pod, SELECTOR),
    Watched(INSTANCES, Instance),
)


def watched(*, nodes: bool) -> tuple[Watched, ...]:
    """Everything that the store is fed from; without ``nodes`` nothing that is cluster-scoped."""
    return (*_NODES, *_OTHERS) if nodes else _OTHERS


Place = tuple[Watched, str]


def places(watched: Sequence[Watched], namespaces: Sequence[str]) -> list[Place]:
    """Each of them with each namespace that it is looked at in; "" = all, or none to be in. None given = all."""
    return [
        (what, namespace)
        for what in watched
        for namespace in (("",) if what.cluster_scoped else tuple(namespaces) or ("",))
    ]
