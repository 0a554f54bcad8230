"""What the queue and the store go by: groups, pools, avatars, GPU nodes; and which of them an object belongs to."""

from __future__ import annotations

from typing import NamedTuple

from avatar_operator.domain import groups
from avatar_operator.domain.resources import Instance, Meta
from avatar_operator.domain.tts_view import TtsKey
from avatar_operator.domain.view import GroupKey


class PoolKey(NamedTuple):
    """Namespace and name of an AvatarPool."""

    namespace: str
    name: str
    kind: str = "pool"


class AvatarKey(NamedTuple):
    """Namespace and avatarName of an Avatar, and of its namesakes."""

    namespace: str
    avatar_name: str
    kind: str = "avatar"


class GpuNodeKey(NamedTuple):
    """Name of a GPUNode; it is cluster-scoped, ``namespace`` is empty."""

    namespace: str
    name: str
    kind: str = "gpunode"


Key = GroupKey | PoolKey | AvatarKey | GpuNodeKey | TtsKey
ObjectId = tuple[str, str]


def object_id(meta: Meta) -> ObjectId:
    """Namespace and name."""
    return meta.namespace, meta.name


def version_of(meta: Meta) -> int:
    """The resourceVersion as a number; 0 = none."""
    # Comparable as numbers by contract since Kubernetes 1.35 (KEP-5504), and always in practice.
    return int(meta.resource_version or 0)


def group_of(item: Instance) -> tuple[GroupKey, PoolKey]:
    """The group and the pool of an instance."""
    return groups.group_of(item), PoolKey(item.metadata.namespace, item.spec.pool_ref)


def labelled(meta: Meta) -> tuple[GroupKey, PoolKey, int] | None:
    """Group, pool and port of a claim or a runtime pod; None for anything else."""
    found = groups.labelled(meta)
    return None if found is None else (found.group, PoolKey(meta.namespace, found.pool), found.port)
