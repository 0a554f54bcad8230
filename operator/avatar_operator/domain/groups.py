"""Which group an object belongs to: the instances of one avatar in one pool, their pods and their claims."""

from __future__ import annotations

from typing import NamedTuple

from .names import LABEL_GROUP, LABEL_POOL, LABEL_PORT, group_id
from .resources import Instance, Meta
from .view import GroupKey


class Labelled(NamedTuple):
    """What the labels of a claim or a runtime pod say; ``pool`` is the AvatarPool's name."""

    group: GroupKey
    pool: str
    port: int


def group_of(item: Instance) -> GroupKey:
    """The group of an instance."""
    spec, meta = item.spec, item.metadata
    return GroupKey(meta.namespace, group_id(spec.pool_ref, spec.avatar_name, meta.uid if spec.exclusive else ""))


def labelled(meta: Meta) -> Labelled | None:
    """Group, pool and port of a claim or a runtime pod; None for anything else."""
    group, port = meta.labels.get(LABEL_GROUP), meta.labels.get(LABEL_PORT, "")
    if not group or not port.isdigit():
        return None
    return Labelled(GroupKey(meta.namespace, group), meta.labels.get(LABEL_POOL, ""), int(port))
