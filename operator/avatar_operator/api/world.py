"""The local copies of what the API works with, and how to find things in them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from avatar_operator.domain import meaning
from avatar_operator.domain import sessions as rules
from avatar_operator.domain.gpunode import GpuNode
from avatar_operator.domain.names import API_VERSION
from avatar_operator.domain.resources import Avatar, Instance, Pool
from avatar_operator.domain.told import Told
from avatar_operator.domain.tts import TtsEngine
from avatar_operator.kube.client import KubeClient
from avatar_operator.kube.kinds import AVATARS, ENGINES, EVENTS, GPUNODES, INSTANCES, POOLS
from avatar_operator.kube.reflector import Reflector

# An instance that nobody has told of for so long may be out of date (seconds): not ready.
SILENCE_SECONDS = 180.0
# Events end an hour after they were told, whatever their number: more than the console shows are not kept.
EVENTS_KEPT = 1000
EPOCH = datetime.fromtimestamp(0, UTC)

Copy = (
    Reflector[Instance]
    | Reflector[Pool]
    | Reflector[Avatar]
    | Reflector[GpuNode]
    | Reflector[TtsEngine]
    | Reflector[Told]
)


class World:
    """Everything of one namespace, as the API server told it last; ``console``: what only the console shows, too."""

    def __init__(self, client: KubeClient, namespace: str, *, console: bool = False) -> None:
        self.namespace, self.console = namespace, console
        self.instances = Reflector(client, INSTANCES, Instance, namespace)
        self.pools = Reflector(client, POOLS, Pool, namespace)
        self.avatars = Reflector(client, AVATARS, Avatar, namespace)
        self.gpus = Reflector(client, GPUNODES, GpuNode, "", optional=True)
        # For the console alone.
        self.engines = Reflector(client, ENGINES, TtsEngine, namespace, optional=True)
        about = f"involvedObject.apiVersion={API_VERSION}"
        self.events = Reflector(client, EVENTS, Told, namespace, optional=True, fields=about, most=EVENTS_KEPT)
        self._by_session: dict[str, set[str]] = {}
        self._leased: set[str] = set()
        self._attached: set[str] = set()
        self._by_avatar: dict[str, str] = {}
        self.instances.listeners.append(self._index_sessions)
        self.avatars.listeners.append(self._index_avatars)

    @property
    def reflectors(self) -> dict[str, Copy]:
        """All that are followed, by name."""
        found: dict[str, Copy] = {
            "instances": self.instances,
            "pools": self.pools,
            "avatars": self.avatars,
            "gpus": self.gpus,
        }
        return found | ({"engines": self.engines, "events": self.events} if self.console else {})

    async def synced(self) -> None:
        """Wait until everything was listed once."""
        await asyncio.gather(*(r.synced.wait() for r in self.reflectors.values()))

    # ---- finding -------------------------------------------------------------------

    def instance(self, name: str) -> Instance | None:
        """By its object name."""
        return self.instances.get(self.namespace, name)

    def pool(self, name: str) -> Pool | None:
        """By its name."""
        return self.pools.get(self.namespace, name)

    def avatar(self, real_name: str) -> Avatar | None:
        """By its real name; of several the oldest, as the operator has it."""
        name = self._by_avatar.get(real_name)
        return self.avatars.get(self.namespace, name) if name is not None else None

    def of_session(self, avatar_id: str) -> list[Instance]:
        """Instances that count a session of this id (one, but for a moment)."""
        found = (self.instance(name) for name in sorted(self._by_session.get(avatar_id, ())))
        return [item for item in found if item is not None]

    def of_avatar(self, real_name: str, pool: str | None = None) -> list[Instance]:
        """Instances of an avatar, oldest first; the API's own before those that share with it."""
        return meaning.of_avatar(self.instances.values(), real_name, pool)

    def resolve(self, text: str) -> list[Instance]:
        """What an id in a request means: a session, an instance by its avatarId or name, or an avatar."""
        return self.of_session(text) or meaning.meant(self.instances.values(), text)

    def leased(self) -> list[Instance]:
        """Instances with a session that may lapse."""
        return [item for name in list(self._leased) if (item := self.instance(name)) is not None]

    def attached(self) -> list[Instance]:
        """Instances with a session that lasts as long as its peer."""
        return [item for name in list(self._attached) if (item := self.instance(name)) is not None]

    def silent_for(self, now: float) -> float:
        """Seconds since the quietest of the watches was heard of last; by the monotonic clock."""
        return max(now - r.heard_at for r in self.reflectors.values())

    # ---- indexes -------------------------------------------------------------------

    def _index_sessions(self, before: Instance | None, after: Instance | None) -> None:
        old = before.status.sessions if before is not None else ()
        new = after.status.sessions if after is not None else ()
        if old is new or old == new:
            return
        item = after if after is not None else before
        if item is None:
            return
        name = item.metadata.name
        had, has = {s.id for s in old}, {s.id for s in new}
        for gone in had - has:
            names = self._by_session.get(gone)
            if names is not None:
                names.discard(name)
                if not names:
                    del self._by_session[gone]
        for come in has - had:
            self._by_session.setdefault(come, set()).add(name)
        if rules.next_lapse(new) is None:
            self._leased.discard(name)
        else:
            self._leased.add(name)
        if any(s.runtime_session_id for s in new):
            self._attached.add(name)
        else:
            self._attached.discard(name)

    def _index_avatars(self, before: Avatar | None, after: Avatar | None) -> None:
        for real_name in {a.spec.avatar_name for a in (before, after) if a is not None}:
            same = [a for a in self.avatars.values() if a.spec.avatar_name == real_name]
            if same:
                oldest = min(same, key=lambda a: (a.metadata.creation_timestamp or EPOCH, a.metadata.name))
                self._by_avatar[real_name] = oldest.metadata.name
            else:
                self._by_avatar.pop(real_name, None)
