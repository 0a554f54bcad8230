"""The operator's process: puts the parts together, runs them, stops them in order."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import aiohttp

from avatar_operator import __version__
from avatar_operator.domain.shards import ALL, Shard
from avatar_operator.kube import credentials
from avatar_operator.kube.client import KubeClient
from avatar_operator.kube.errors import ApiError
from avatar_operator.kube.events import Recorder
from avatar_operator.kube.stream import BACKOFF_MOST
from avatar_operator.process import heap, http

from .auditor import Auditor
from .budgets import Budgets
from .executor import Executor
from .gpus import GpuIndex
from .health import Health
from .intake import Intake
from .keys import Key, PoolKey
from .leader import Alone, Leadership
from .metrics import Metrics, StoreCollector
from .probe import RuntimeProbe
from .queue import WorkQueue
from .reconciler import Reconciler
from .resync import PERIOD_SECONDS, Resync
from .store import Store
from .tts_worker import TtsWorker
from .watch import Watches
from .watched import places, watched

log = logging.getLogger(__name__)

WORKERS = 32
# In-flight writes may end by themselves within this on shutdown.
STOP_SECONDS = 5.0


class OperatorError(Exception):
    """The operator cannot go on; a restart may help. The message is for people."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says. ``namespaces`` empty = all; ``resync`` in seconds.

    ``nodes``: whether Nodes and GPUNodes, which are cluster-scoped, may be read.
    ``lease``: namespace/name of the Lease by which one of several operators
    acts; empty = act without asking. ``shard``: the namespaces in which this
    one acts, of those that it sees; each shard has a Lease of its own.
    """

    kubeconfig: str | None = None
    namespaces: Sequence[str] = ()
    listen: str = "0.0.0.0:8080"
    resync: float = PERIOD_SECONDS
    nodes: bool = True
    lease: str = ""
    shard: Shard = ALL


@dataclass(frozen=True, slots=True)
class _Parts:
    """What runs for as long as the process does."""

    server: str
    client: KubeClient
    metrics: Metrics
    reconciler: Reconciler
    recorder: Recorder
    watches: Watches
    resync: Resync
    auditor: Auditor
    leadership: Leadership | Alone


async def run(options: Options) -> None:
    """Run until SIGTERM or SIGINT; raises when a part fails that a restart may cure."""
    found = credentials.find(options.kubeconfig)
    metrics = Metrics()
    async with (
        credentials.open_session(found, f"avatar-operator/{__version__}") as session,
        aiohttp.ClientSession() as runtimes,
    ):
        client = KubeClient(session, found.server, observe=metrics.observe_api)
        queue: WorkQueue[Key] = WorkQueue()

        def changed(key: Key) -> None:
            # The store tells the reconciler, which reads the store: one of them must come first.
            if options.shard.has(key.namespace):
                reconciler.changed(key)

        def woken(key: Key) -> None:
            if options.shard.has(key.namespace):
                reconciler.woken(key)

        store = Store(changed, lambda: datetime.now(UTC), GpuIndex(blind=not options.nodes), woken)
        metrics.registry.register(StoreCollector(store))
        recorder = Recorder(client, metrics.events_dropped.inc, socket.gethostname(), busy=lambda: queue.busy)

        def requeue_port(pool: PoolKey, namespace: str, port: int, seconds: float) -> None:
            asyncio.get_running_loop().call_later(seconds, store.release_quarantine, namespace, port)
            queue.add_after(pool, seconds + 0.1)

        executor = Executor(client, store, recorder, RuntimeProbe(runtimes), metrics, requeue_port, options.namespaces)
        leadership = _leadership(options.lease, client)
        metrics.leader.labels(str(options.shard)).set_function(lambda: float(leadership.held))
        speech = TtsWorker(client, store, recorder, metrics, options.namespaces)
        reconciler = Reconciler(queue, store, executor, client, metrics, leadership, speech, Budgets(client, recorder))
        where = places(watched(nodes=options.nodes), options.namespaces)
        auditor = Auditor(store, changed, recorder, metrics, leadership, options.resync, options.shard)
        intake = Intake(store, metrics)
        watches = Watches(client, store, intake, metrics, where)
        resync = Resync(client, store, intake, metrics, where, options.resync)
        try:
            parts = _Parts(found.server, client, metrics, reconciler, recorder, watches, resync, auditor, leadership)
            await _run_parts(options, parts)
        finally:
            await leadership.release()


def _leadership(lease: str, client: KubeClient) -> Leadership | Alone:
    if not lease:
        return Alone()
    namespace, _, name = lease.partition("/")
    if not namespace or not name:
        raise OperatorError(f"--lease {lease!r}: give it as NAMESPACE/NAME")
    return Leadership(client, namespace, name, f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}")


async def _run_parts(options: Options, parts: _Parts) -> None:
    stop = asyncio.Event()
    _take_signals(stop)
    tasks: list[asyncio.Task[None]] = []

    def failed() -> str:
        return next((f"{t.get_name()} has ended" for t in tasks if t.done() and not stop.is_set()), "")

    try:
        health = Health(parts.client, parts.resync, parts.reconciler, parts.watches, failed, stop.is_set)
        runner = await http.serve(options.listen, parts.metrics.registry, health)
    except OSError as error:
        raise OperatorError(f"cannot listen on {options.listen} (--listen): {error}") from error
    try:
        if not await _load(parts, stop):
            return
        parts.reconciler.loading = False
        heap.keep()
        running = {
            "watches": parts.watches.run(),
            "resync": parts.resync.run(),
            "events": parts.recorder.run(),
            # Before the workers: its first look is at what they find.
            "audit": parts.auditor.run(),
            **{f"worker-{n}": parts.reconciler.work() for n in range(WORKERS)},
            "lease": parts.leadership.run(),
        }
        tasks += [asyncio.create_task(part, name=name) for name, part in running.items()]
        log.info("running", extra={"version": __version__, "server": parts.server, "pid": os.getpid()})
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done() and not stop.is_set():
                raise OperatorError(f"{task.get_name()} has ended: {task.exception()}") from task.exception()
    finally:
        stop.set()
        for task in tasks:
            task.cancel()
        if tasks:
            _, hanging = await asyncio.wait(tasks, timeout=STOP_SECONDS)
            if hanging:
                log.warning("did not end in time: %s", ", ".join(t.get_name() for t in hanging))
        await runner.cleanup()
        log.info("stopped")


def _take_signals(stop: asyncio.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)


async def _load(parts: _Parts, stop: asyncio.Event) -> bool:
    """List everything, however long the API server takes to answer; False when told to stop."""
    delay = 0.5
    while not stop.is_set():
        try:
            await parts.watches.load()
        except ApiError as error:
            parts.resync.problem = str(error)
            log.warning("cannot list yet: %s; again in %.1f s", error, delay)
            try:
                async with asyncio.timeout(delay):
                    await stop.wait()
            except TimeoutError:
                delay = min(BACKOFF_MOST, delay * 2)
        else:
            parts.resync.loaded()
            return True
    return False
