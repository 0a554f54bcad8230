"""The picture by group: who is of one avatar in one pool."""

from __future__ import annotations

from collections import defaultdict

from .findings import Picture, live
from .groups import Labelled, group_of, labelled
from .names import LABEL_TTS
from .resources import Avatar, Instance, Pod, Pool, Service
from .view import GroupKey


class Members:
    """``instances`` (oldest first) and ``pods`` of each group, those that end left out; ``claims`` by their name."""

    def __init__(self, picture: Picture) -> None:
        self.instances: dict[GroupKey, list[Instance]] = defaultdict(list)
        self.pods: dict[GroupKey, list[Pod]] = defaultdict(list)
        # Groups with a pod of any kind: one that ends holds its port still.
        self.occupied: set[GroupKey] = set()
        self.claims: dict[tuple[str, str], tuple[Service, Labelled]] = {}
        self.pod_named: dict[tuple[str, str], tuple[Pod, Labelled]] = {}
        self.pools: dict[tuple[str, str], Pool] = {(p.metadata.namespace, p.metadata.name): p for p in picture.pools}
        self._avatars: dict[tuple[str, str], Avatar] = {}
        # The oldest of its name counts.
        for avatar in sorted(picture.avatars, key=lambda a: (str(a.metadata.creation_timestamp), a.metadata.name)):
            self._avatars.setdefault((avatar.metadata.namespace, avatar.spec.avatar_name), avatar)
        for item in sorted((i for i in picture.instances if live(i.metadata)), key=lambda i: i.age_key):
            self.instances[group_of(item)].append(item)
        for pod in picture.pods:
            if LABEL_TTS not in pod.metadata.labels and (found := labelled(pod.metadata)) is not None:
                self.pod_named[pod.metadata.namespace, pod.metadata.name] = pod, found
                self.occupied.add(found.group)
                if live(pod.metadata):
                    self.pods[found.group].append(pod)
        for claim in picture.services:
            if LABEL_TTS not in claim.metadata.labels and (found := labelled(claim.metadata)) is not None:
                self.claims[claim.metadata.namespace, claim.metadata.name] = claim, found

    def pool_of(self, item: Instance) -> Pool | None:
        """The AvatarPool that an instance names, if it exists."""
        return self.pools.get((item.metadata.namespace, item.spec.pool_ref))

    def avatar_of(self, item: Instance) -> Avatar | None:
        """The Avatar that an instance names, if it exists."""
        return self._avatars.get((item.metadata.namespace, item.spec.avatar_name))
