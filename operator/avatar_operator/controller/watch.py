"""kopf as what it is best at here: the watch streams, reconnecting, and the process around them.

Only ``on.event`` is used: no annotations, no finalizers, no writes of kopf's
own. Its handlers feed the store and await nothing (research: kopf 1.4–1.7).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from typing import Any

import kopf

from avatar_operator.domain.names import GROUP
from avatar_operator.kube.client import Resource
from avatar_operator.kube.kinds import AnyObject

from .metrics import Metrics
from .resync import AGAIN_SECONDS, Resync
from .store import Store
from .watched import Watched

# kopf has a worker for each object, which holds the last event, as dicts, while it waits so long for another one. Of
# what was listed none comes soon: with 5,000 instances that was 350 MiB at a start, most of it never given back. But
# to start a worker for each live event makes patches a fifth dearer.
LISTED_SECONDS, LIVE_SECONDS = 0.2, 5.0


class _NoDiffBase(kopf.DiffBaseStorage):
    """Remembers nothing: on.event needs no differences, and building them costs half of each event."""

    def build(self, *, body: Any, extra_fields: Any = None) -> Any:
        return {}

    def fetch(self, *, body: Any) -> Any:
        return None

    def store(self, *, body: Any, patch: Any, essence: Any) -> None:
        return None


class _NoProgress(kopf.ProgressStorage):
    """Knows of no handler's progress: those of on.event have none, and are looked for at each event."""

    def fetch(self, *, key: Any, body: Any) -> None:
        return None

    def store(self, *, key: Any, record: Any, body: Any, patch: Any) -> None:
        return None

    def purge(self, *, key: Any, body: Any, patch: Any) -> None:
        return None

    def touch(self, *, body: Any, patch: Any, value: str | None) -> None:
        return None

    def clear(self, *, essence: Any) -> Any:
        return essence


class _Backoffs:
    """Endless, growing, with jitter: kopf gives a stream up after a finite list."""

    def __iter__(self) -> Iterator[float]:
        delay = 0.5
        while True:
            yield delay * random.uniform(0.75, 1.25)  # noqa: S311 - jitter, not a secret
            delay = min(AGAIN_SECONDS, delay * 2)


def settings(watched: Sequence[Watched]) -> kopf.OperatorSettings:
    """kopf's settings; each line cures something that research/kopf.md measured."""
    result = kopf.OperatorSettings()
    result.persistence.diffbase_storage = _NoDiffBase()
    result.persistence.progress_storage = _NoProgress()
    result.persistence.finalizer = f"{GROUP}/unused"
    result.posting.enabled = False
    result.posting.loggers = False
    result.scanning.disabled = True
    result.networking.error_backoffs = _Backoffs()
    result.networking.request_timeout = 120
    result.networking.connect_timeout = 5
    result.watching.chunk_size = 200
    for what in watched:
        if what.selector:
            result.watching.label_selectors[_spec(what.resource)] = what.selector
    return result


def registry(
    watched: Sequence[Watched],
    store: Store,
    resync: Resync,
    metrics: Metrics,
    login: kopf.AiohttpSession,
    wanted: kopf.OperatorSettings,
) -> kopf.OperatorRegistry:
    """Handlers that carry every event of the watched kinds into ``store``; ``wanted``: kopf's settings."""
    result = kopf.OperatorRegistry()

    async def log_in(**_: Any) -> kopf.AiohttpSession:
        return login

    kopf.on.login(registry=result)(log_in)
    for what in watched:
        kopf.on.event(*_spec(what.resource), registry=result, id=what.resource.plural)(
            handler(what.resource, what.kind, store, resync, metrics, wanted)
        )
    return result


def _spec(resource: Resource) -> tuple[str, str, str]:
    return resource.group, resource.version, resource.plural


def handler(
    resource: Resource,
    kind: type[AnyObject],
    store: Store,
    resync: Resync,
    metrics: Metrics,
    wanted: kopf.OperatorSettings,
) -> Any:
    """What takes an event of kopf's into ``store``, and keeps nothing of it."""
    seen = metrics.watch_events.labels(resource.plural)

    async def on_event(event: Any, **_: Any) -> None:
        seen.inc()
        wanted.queueing.idle_timeout = LISTED_SECONDS if event["type"] is None else LIVE_SECONDS
        item = event["object"]
        if event["type"] == "DELETED":
            meta = item["metadata"]
            store.remove(kind, meta.get("namespace", ""), meta["name"], meta["uid"], meta.get("resourceVersion", ""))
        else:
            resync.take(resource, kind, item)
        # kopf's Body and its views refer to each other, so the event, some hundred dicts, would stay until the garbage
        # collector finds them; and the last one of each object for as long as kopf's worker waits for another.
        item.clear()

    return on_event


async def run(
    watched: Sequence[Watched],
    store: Store,
    resync: Resync,
    metrics: Metrics,
    login: kopf.AiohttpSession,
    namespaces: Sequence[str],
    started: asyncio.Event,
) -> None:
    """Watch until cancelled; sets ``started``. Raises when a stream is beyond repair (kopf ≥ 1.45)."""
    wanted = settings(watched)
    await kopf.operator(
        registry=registry(watched, store, resync, metrics, login, wanted),
        settings=wanted,
        standalone=True,
        clusterwide=not namespaces,
        namespaces=list(namespaces),
        ready_flag=started,
    )
