"""Which API resources the store is fed from, and what they decode to."""

from __future__ import annotations

from avatar_operator.domain.names import SELECTOR
from avatar_operator.domain.resources import AnyObject, Avatar, Instance, Pod, Pool, Service
from avatar_operator.kube.client import Resource
from avatar_operator.kube.kinds import AVATARS, INSTANCES, PODS, POOLS, SERVICES

# Pools and avatars first: an instance is planned with what it refers to at hand.
WATCHED: tuple[tuple[Resource, type[AnyObject], str], ...] = (
    (POOLS, Pool, ""),
    (AVATARS, Avatar, ""),
    (SERVICES, Service, SELECTOR),
    (PODS, Pod, SELECTOR),
    (INSTANCES, Instance, ""),
)
