"""Holding the store against the API server, every so often.

A watch can be dead while it looks alive. A LIST of metadata is compared with
the store; what differs still after a moment is put right, counted, and makes
the operator not ready until a resync finds nothing.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Sequence

from avatar_operator.kube.client import PARTIAL_LIST, KubeClient
from avatar_operator.kube.errors import ApiError, NotFoundError
from avatar_operator.kube.glance import glance
from avatar_operator.kube.stream import BACKOFF_MOST

from .intake import Intake
from .keys import ObjectId
from .metrics import Metrics
from .store import Store
from .watched import Place, Watched

log = logging.getLogger(__name__)

PERIOD_SECONDS = 60.0
# How long an event may be on its way before its absence counts as missed.
GRACE_SECONDS = 3.0
# A comparison that had to correct something is followed by another so soon.
SOON_SECONDS = 1.0


class Resync:
    """Keeps comparing; ``problem`` says why the last LIST failed (empty = it did not)."""

    def __init__(
        self,
        client: KubeClient,
        store: Store,
        intake: Intake,
        metrics: Metrics,
        places: Sequence[Place],
        period: float = PERIOD_SECONDS,
    ) -> None:
        self._client = client
        self._store = store
        self._intake = intake
        self._metrics = metrics
        self._lists = places
        self.period = period
        self.synced_at: float | None = None
        self.missed = 0
        self.problem = ""

    def loaded(self) -> None:
        """Everything was listed a moment ago: the store is whole."""
        self._done(0)

    async def run(self) -> None:
        """Compare for ever."""
        delay, failures = self.period, 0
        while True:
            await asyncio.sleep(delay)
            jitter = random.uniform(0.9, 1.1)  # noqa: S311 - not a secret
            delay = self.period * jitter
            try:
                missed = await self.compare()
                self._done(missed)
                failures = 0
                if missed:
                    delay = min(delay, SOON_SECONDS)
            except ApiError as error:
                self.problem = str(error)
                delay = min(delay, BACKOFF_MOST * jitter, SOON_SECONDS * 2.0 ** min(failures, 10))
                failures += 1
                log.warning("resync: %s; again in %.1f s", error, delay)

    async def compare(self) -> int:
        """Put right what differs from the API server; how many objects did."""
        suspects = [
            (what, namespace, found)
            for what, namespace in self._lists
            if (found := await self._differing(what, namespace))
        ]
        if not suspects:
            return 0
        await asyncio.sleep(GRACE_SECONDS)
        missed = 0
        for what, namespace, found in suspects:
            again = await self._differing(what, namespace)
            # The same difference twice: the watch had its time. A newer one is still on its way.
            for key in [k for k, version in found.items() if again.get(k) == version]:
                missed += 1
                self._metrics.resync_corrections.labels(what.resource.plural).inc()
                await self._correct(what, key)
        return missed

    async def _differing(self, what: Watched, namespace: str) -> dict[ObjectId, str]:
        """Objects with another version in the API server than here ("" = gone there)."""
        # The store's state first: what it learns during the LIST must not look missing.
        here = self._store.metas(what.kind)
        there: dict[ObjectId, str] = {}
        async for page in self._client.pages(what.resource, namespace, what.selector, PARTIAL_LIST):
            metas = (glance(item).metadata for item in page.items or ())
            there.update(((meta.namespace, meta.name), meta.resource_version) for meta in metas)
        now = self._store.metas(what.kind)
        differing = {
            key: version
            for key, version in there.items()
            if key not in now or int(now[key].resource_version) < int(version)
        }
        gone = (key for key in here if key not in there and key in now and namespace in ("", key[0]))
        return {**differing, **dict.fromkeys(gone, "")}

    async def _correct(self, what: Watched, key: ObjectId) -> None:
        log.warning("the watch missed %s %s/%s; corrected", what.resource.plural, *key)
        try:
            found = await self._client.get(what.resource, *key)
            self._store.unbury(glance(found).metadata.uid)
            self._intake.read(what, found)
        except NotFoundError:
            self._store.remove(what.kind, *key)

    def _done(self, missed: int) -> None:
        self.missed = missed
        self.problem = ""
        self.synced_at = time.monotonic()
        self._metrics.resync_time.set_to_current_time()
