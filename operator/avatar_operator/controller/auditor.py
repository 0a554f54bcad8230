"""The operator's own audit, over its store: when it begins to lead, and every so often. It reports and queues plans."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from avatar_operator.domain.actions import Event
from avatar_operator.domain.audit import audit
from avatar_operator.domain.findings import RULES, Finding, ObjectRef, about
from avatar_operator.domain.resources import Meta
from avatar_operator.domain.shards import ALL, Shard
from avatar_operator.domain.standing import Change, Standing, inconsistent, repaired
from avatar_operator.kube.events import Recorder

from .keys import Key, PoolKey
from .leader import STAND_BY_SECONDS, Alone, Leadership
from .metrics import Metrics
from .store import Store

log = logging.getLogger(__name__)

# What was found new is looked at again after this (seconds): has it lasted, has it been repaired?
AGAIN_SECONDS = 5.0

# Kinds about which the recorder writes events.
OURS = ("AvatarPool", "AvatarInstance", "TTSEngine")


class Auditor:
    """``plan`` is called with each key whose plan is the repair; ``period`` in seconds. Reports what ``shard`` has."""

    def __init__(
        self,
        store: Store,
        plan: Callable[[Key], None],
        recorder: Recorder,
        metrics: Metrics,
        leadership: Leadership | Alone,
        period: float,
        shard: Shard = ALL,
    ) -> None:
        self._store = store
        self._plan = plan
        self._recorder = recorder
        self._metrics = metrics
        self._leadership = leadership
        self._period = period
        self._shard = shard
        self._again = min(AGAIN_SECONDS, period)
        self._standing = Standing()
        # Of each object about which an event was written: how many findings of each kind it has had since.
        self._said: dict[ObjectRef, Counter[str]] = defaultdict(Counter)

    async def run(self) -> None:
        """Look whenever this process leads, for ever."""
        while True:
            await self._leadership.acting.wait()
            # Nobody has acted until this moment: what is wrong now is not on its way.
            sure = True
            while self._leadership.held:
                delay = self._again
                try:
                    change = await self.look(sure=sure)
                    if not (change.suspects or change.new):
                        delay = self._period * random.uniform(0.9, 1.1)  # noqa: S311 - jitter
                except Exception:
                    # A bug in the report must not end what it reports on.
                    self._metrics.reconcile_errors.labels("Bug").inc()
                    log.exception("audit failed; again in %.1f s", delay)
                sure = False
                await asyncio.sleep(delay)
            self._standing = Standing()
            self._said.clear()
            self._count()
            # It may be lost while ``acting`` still says otherwise: whoever watches over it must be let run.
            await asyncio.sleep(STAND_BY_SECONDS)

    async def look(self, *, sure: bool = False) -> Change:
        """One look; ``sure``: what it finds counts at once."""
        # Taken before anything is awaited: when we begin to lead, before any worker has acted.
        now = datetime.now(UTC)
        picture = self._store.picture(now)
        # With thousands of instances it takes a part of a second, in which others may work.
        everything = await asyncio.to_thread(audit, picture)
        # The others' are theirs to report: what they do is on its way, as seen from here.
        found = [f for f in everything if self._shard.has(f.ref.namespace)]
        self._standing, change = self._standing.look(found, now, self._again, sure=sure)
        for key in {f.plan for f in found if f.plan is not None}:
            self._plan(key)
        for finding in change.gone:
            self._metrics.repairs.labels(finding.kind).inc()
        self._count()
        self._say(change.new)
        return change

    def _count(self) -> None:
        counts = Counter(f.kind for f in self._standing.findings.values())
        for kind in RULES:
            self._metrics.inconsistencies.labels(kind).set(counts[kind])

    def _say(self, new: Iterable[Finding]) -> None:
        """One event for an object about which something is new, and one when nothing stands about it any more."""
        standing: dict[ObjectRef, list[Finding]] = defaultdict(list)
        for finding in self._standing.findings.values():
            standing[self._subject(finding)].append(finding)
        fresh = Counter((self._subject(f), f.kind) for f in new)
        for subject in {subject for subject, _ in fresh}:
            self._record(subject, inconsistent(standing[subject]))
        for (subject, kind), number in fresh.items():
            self._said[subject][kind] += number
        for subject in [s for s in self._said if s not in standing]:
            self._record(subject, repaired(self._said.pop(subject)))

    def _subject(self, finding: Finding) -> ObjectRef:
        """What an event about the finding is about: the pool, where there is one."""
        ref = finding.ref
        namespace = ref.namespace or (finding.plan.namespace if finding.plan is not None else "")
        pool = self._store.pool(PoolKey(namespace, finding.pool))
        return about("AvatarPool", pool.metadata) if pool is not None else ref

    def _record(self, subject: ObjectRef, event: Event) -> None:
        level = logging.WARNING if event.type == "Warning" else logging.INFO
        extra = {"namespace": subject.namespace, "object": str(subject)}
        log.log(level, "%s: %s", event.reason, event.message, extra=extra)
        if subject.kind in OURS:
            meta = Meta(name=subject.name, namespace=subject.namespace, uid=subject.uid)
            self._recorder.record(subject.kind, meta, event)
