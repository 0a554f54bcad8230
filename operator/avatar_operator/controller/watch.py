"""What feeds the store: a stream for each watched resource, in each watched namespace.

Listed once, in order, then followed from there: nothing is between the LIST
and the watch that neither has seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import msgspec

from avatar_operator.kube.client import KubeClient, Page
from avatar_operator.kube.glance import Where, glance
from avatar_operator.kube.stream import Stream

from .intake import Intake
from .keys import ObjectId, version_of
from .metrics import Metrics
from .store import Store
from .watched import Place, Watched

# A stream that breaks is opened anew at once: so long is longer than that takes, and than the API server's restart.
DEAF_SECONDS = 20.0


class Feed(Stream):
    """One resource in one namespace (empty = all), into the store."""

    def __init__(
        self, client: KubeClient, store: Store, intake: Intake, metrics: Metrics, what: Watched, namespace: str
    ) -> None:
        super().__init__(client, what.resource, namespace, selector=what.selector)
        self._store = store
        self._intake = intake
        self._what = what
        self._seen = metrics.watch_events.labels(what.resource.plural)

    async def take_list(self, pages: AsyncIterator[Page]) -> int:
        """Take in everything that there is, and forget what is not; the list's resourceVersion."""
        there: set[ObjectId] = set()
        listed_at = 0
        async for page in pages:
            listed_at = int(page.version)
            for item in page.items or ():
                where = glance(item).metadata
                there.add((where.namespace, where.name))
                self._intake.hear(self._what, where, item)
        for key, meta in self._store.metas(self._what.kind).items():
            # One of our own writes may be newer than the list.
            if key not in there and self.namespace in ("", key[0]) and version_of(meta) <= listed_at:
                self._store.remove(self._what.kind, *key, meta.uid, str(listed_at))
        return listed_at

    def take_event(self, kind: str, where: Where, item: msgspec.Raw) -> None:
        """Take in a change."""
        self._seen.inc()
        if kind == "DELETED":
            self._intake.end(self._what, where, item)
        else:
            self._intake.hear(self._what, where, item)

    def take_absence(self) -> None:
        """Never happens: nothing that the operator needs is optional."""


class Watches:
    """All streams of the operator."""

    def __init__(
        self,
        client: KubeClient,
        store: Store,
        intake: Intake,
        metrics: Metrics,
        places: Sequence[Place],
    ) -> None:
        self._store = store
        self._feeds = [Feed(client, store, intake, metrics, what, namespace) for what, namespace in places]

    async def load(self) -> None:
        """LIST everything: the store is whole when this returns. Raises ApiError; to be called again then."""
        for feed in self._feeds:
            if not feed.synced.is_set():
                await feed.load()
        self._store.gpus.loading = False

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as group:
            for feed in self._feeds:
                group.create_task(feed.run(), name=f"watch-{feed.resource.plural}")

    def trouble(self) -> str:
        """What is not heard of, and why; empty = everything is, or was a moment ago."""
        forbidden = sorted({feed.forbidden for feed in self._feeds if feed.forbidden})
        if forbidden:
            what = ", ".join(forbidden)
            return f"the API server forbids (HTTP 403) to {what}: see the log for the RBAC rule that is missing"
        deaf = (feed for feed in self._feeds if feed.deaf_for > DEAF_SECONDS)
        return next((f"no watch of {f.resource.plural} for {f.deaf_for:.0f} s: {f.trouble}" for f in deaf), "")
