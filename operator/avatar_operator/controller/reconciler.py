"""Workers: take a key, plan, carry out, plan again until there is nothing to do."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime

from avatar_operator.domain.crowd import in_turn
from avatar_operator.domain.plan import plan
from avatar_operator.domain.resources import Avatar, Pod
from avatar_operator.domain.summaries import avatar_patch, gpunode_patch, pool_patch
from avatar_operator.domain.tts_view import TtsKey
from avatar_operator.domain.view import GroupKey
from avatar_operator.kube.client import KubeClient
from avatar_operator.kube.errors import ApiError
from avatar_operator.kube.kinds import AVATARS, GPUNODES, POOLS

from .budgets import Budgets
from .executor import Executor, Memory
from .gate import Later
from .keys import AvatarKey, GpuNodeKey, Key, PoolKey
from .leader import STAND_BY_SECONDS, Alone, Leadership
from .metrics import Metrics
from .patched import take_in
from .queue import WorkQueue
from .store import Store
from .tts_worker import TtsWorker

log = logging.getLogger(__name__)

# A plan that asks for more passes than this chases its own tail; it continues after a pause.
MAX_PASSES = 12
# A pool's status and queue positions follow its instances at this distance at most.
POOL_PERIOD_SECONDS = 2.0


class Reconciler:
    """Runs workers over the queue while this process leads. One key is never worked on twice at a time."""

    def __init__(
        self,
        queue: WorkQueue[Key],
        store: Store,
        executor: Executor,
        client: KubeClient,
        metrics: Metrics,
        leadership: Leadership | Alone,
        speech: TtsWorker,
        budgets: Budgets,
    ) -> None:
        self._queue = queue
        self._store = store
        self._executor = executor
        self._client = client
        self._metrics = metrics
        self._leadership = leadership
        self._speech = speech
        self._budgets = budgets
        self._memory: dict[GroupKey, Memory] = {}
        self._busy_since: dict[Key, float] = {}
        # Whether the store is being filled for the first time.
        self.loading = True

    def changed(self, key: Key) -> None:
        """The store says that ``key`` may need a plan.

        What came before this process acted is its backlog: thousands of keys, most of which need nothing. What
        happens from then on does not wait behind them.
        """
        if isinstance(key, (PoolKey, GpuNodeKey)):
            self._queue.add_after(key, POOL_PERIOD_SECONDS)
        else:
            self._queue.add(key, low=self.loading or not self._leadership.held)

    def woken(self, key: Key) -> None:
        """The store says that there may be room for ``key``.

        One that failed comes by its backoff: where nothing can be claimed, each that fails gives its room back, and
        would bring all the others at once.
        """
        if not self._queue.failing(key):
            self.changed(key)

    def longest_busy(self) -> float:
        """Seconds that the slowest reconcile in progress has taken: health looks at it."""
        return time.monotonic() - min(self._busy_since.values(), default=time.monotonic())

    async def work(self) -> None:
        """One worker; runs until cancelled."""
        while True:
            await self._leadership.acting.wait()
            key, waited = await self._queue.get()
            if not self._leadership.held:
                # It was lost a moment ago; whoever watches over it has not run yet, and must be let run.
                self._queue.done(key)
                self._queue.add(key)
                await asyncio.sleep(STAND_BY_SECONDS)
                continue
            self._metrics.queue_seconds.observe(waited)
            self._metrics.queue_depth.set(len(self._queue))
            began = self._busy_since[key] = time.monotonic()
            try:
                await self._reconcile(key)
                self._queue.forget(key)
            except Later as full:
                self._queue.forget(key)
                self._queue.add_after(key, full.seconds)
            except ApiError as error:
                delay = self._queue.retry(key, error.retry_after)
                self._metrics.reconcile_errors.labels(error.reason).inc()
                log.warning("%s; again in %.1f s", error, delay, extra={"namespace": key.namespace, "key": key[1]})
            except Exception:
                # A bug in a plan must not end the worker, nor be hidden.
                delay = self._queue.retry(key, 1.0)
                self._metrics.reconcile_errors.labels("Bug").inc()
                log.exception("reconcile failed; again in %.1f s", delay, extra={"key": key[1]})
            finally:
                self._busy_since.pop(key, None)
                self._metrics.reconcile_seconds.labels(key.kind).observe(time.monotonic() - began)
                self._queue.done(key)

    async def _reconcile(self, key: Key) -> None:
        match key:
            case GroupKey():
                await self._group(key)
            case PoolKey():
                await self._pool(key)
            case AvatarKey():
                await self._avatar(key)
            case GpuNodeKey():
                await self._gpunode(key)
            case TtsKey():
                wait = await self._speech.reconcile(key)
                if wait is not None:
                    self._queue.add_after(key, wait)

    async def _group(self, key: GroupKey) -> None:
        memory = self._memory.setdefault(key, Memory())
        for _ in range(MAX_PASSES):
            if not self._leadership.held:
                # Another operator may act by now; should it be us again, the key is there.
                self._queue.add(key)
                return
            # One time for both: a group that is not in the queue must not be planned as if it were.
            now = datetime.now(UTC)
            self._store.refresh(key, now)
            view = self._store.view(key, now, memory.runtime, memory.rejection, memory.gpu)
            pool = self._store.pool_of(key)
            if pool is None:
                del self._memory[key]
                return
            live = [p for p in view.pods if p.metadata.deletion_timestamp is None]
            if live:
                before = memory.pod_uid
                memory.about(_served(live, memory))
                if memory.pod_uid != before:
                    continue
            result = plan(memory.note(view))
            turn = in_turn(result.actions, memory.put_off, now, busy=self._queue.busy)
            memory.put_off = turn.since
            result.wake_at(turn.again)
            for waiting in turn.told:
                self._executor.tell(waiting)
            if not turn.actions:
                if result.wake is not None:
                    self._queue.add_after(key, (result.wake - datetime.now(UTC)).total_seconds())
                return
            for action in turn.actions:
                self._executor.prepare(key, pool, action)
            memory.rejection = None
            outcomes = await asyncio.gather(
                *(self._executor.run(key, pool, memory, action) for action in turn.actions), return_exceptions=True
            )
            failed = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
            if failed:
                # What went wrong before what had to wait.
                raise min(failed, key=lambda error: isinstance(error, Later))
        log.warning("plan did not settle", extra={"namespace": key.namespace, "group": key.id})
        self._queue.add_after(key, 1.0)

    async def _pool(self, key: PoolKey) -> None:
        """Queue positions and the pool's own status."""
        pool = self._store.pool(key)
        waiting = self._store.waiting(key)
        for group in waiting:
            if not self._queue.failing(group):
                self._queue.add(group, low=True)
        if pool is None:
            self._budgets.forget(key)
            return
        if pool.metadata.deletion_timestamp is None:
            self._queue.add_after(key, await self._budgets.keep(key, pool))
        others = [p for p in self._store.pools(key.namespace) if p.metadata.name != key.name]
        change = pool_patch(
            pool,
            others,
            list(self._store.members_of(key)),
            self._store.held(key),
            len(waiting),
            datetime.now(UTC),
            self._store.gpu_pool(pool),
        )
        if change is not None:
            await take_in(self._client, self._store, POOLS, pool, self._client.patch_status(POOLS, pool, change))

    async def _gpunode(self, key: GpuNodeKey) -> None:
        """What is reserved on a node's GPUs, for those who read it with kubectl."""
        node = self._store.gpus.node_of(key.name)
        if node is None:
            return
        rooms = [self._store.gpus.room(gpu.uuid) for gpu in node.status.gpus]
        change = gpunode_patch(node, self._store.gpus.reserved_on(key.name), rooms)
        if change is not None:
            # Of the report that we know: one that we have not heard of yet must not come to us as newer than it is.
            patch = self._client.patch_status(GPUNODES, node, change, exact=True)
            await take_in(self._client, self._store, GPUNODES, node, patch)

    async def _avatar(self, key: AvatarKey) -> None:
        """The status of the Avatars of one name: which of them counts."""
        first: Avatar | None = None
        observed = self._store.observed_vram(key)
        for avatar in self._store.avatars(key):
            change = avatar_patch(avatar, first, datetime.now(UTC), 0 if first else observed)
            first = first or avatar
            if change is not None:
                patch = self._client.patch_status(AVATARS, avatar, change)
                await take_in(self._client, self._store, AVATARS, avatar, patch)


def _served(live: list[Pod], memory: Memory) -> Pod:
    """The pod that memory is about, if it still lives; else the first."""
    return next((p for p in live if p.metadata.uid == memory.pod_uid), live[0])
