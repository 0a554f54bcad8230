"""Which instances a person or a client means by a word."""

from __future__ import annotations

from collections.abc import Iterable

from .names import instance_name
from .resources import Instance


def meant(instances: Iterable[Instance], text: str) -> list[Instance]:
    """By an instance's name or avatarId, else all of the avatar with this real name, oldest first."""
    found = list(instances)
    return [i for i in found if text in (i.metadata.name, i.spec.avatar_id)] or of_avatar(found, text)


def of_avatar(instances: Iterable[Instance], real_name: str, pool: str | None = None) -> list[Instance]:
    """Instances of an avatar, oldest first; those that the REST API keeps before those that share with them."""
    found = [i for i in instances if i.spec.avatar_name == real_name and pool in (None, i.spec.pool_ref)]
    own = {instance_name(i.spec.pool_ref, real_name) for i in found}
    return sorted(found, key=lambda i: (i.metadata.name not in own, i.age_key))
