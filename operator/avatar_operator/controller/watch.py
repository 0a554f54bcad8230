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
from avatar_operator.domain.resources import AnyObject
from avatar_operator.kube.client import Resource

from .metrics import Metrics
from .resync import Resync
from .store import Store
from .watched import WATCHED


class _NoDiffBase(kopf.DiffBaseStorage):
    """Remembers nothing: on.event needs no differences, and building them costs half of each event."""

    def build(self, *, body: Any, extra_fields: Any = None) -> Any:
        return {}

    def fetch(self, *, body: Any) -> Any:
        return None

    def store(self, *, body: Any, patch: Any, essence: Any) -> None:
        return None


class _Backoffs:
    """Endless, growing to 15 s, with jitter: kopf gives a stream up after a finite list."""

    def __iter__(self) -> Iterator[float]:
        delay = 0.5
        while True:
            yield delay * random.uniform(0.75, 1.25)  # noqa: S311 - jitter, not a secret
            delay = min(15.0, delay * 2)


def settings() -> kopf.OperatorSettings:
    """kopf's settings; each line cures something that research/kopf.md measured."""
    result = kopf.OperatorSettings()
    result.persistence.diffbase_storage = _NoDiffBase()
    result.persistence.finalizer = f"{GROUP}/unused"
    result.posting.enabled = False
    result.posting.loggers = False
    result.scanning.disabled = True
    result.networking.error_backoffs = _Backoffs()
    result.networking.request_timeout = 120
    result.networking.connect_timeout = 5
    result.watching.chunk_size = 2000
    for resource, _, selector in WATCHED:
        if selector:
            result.watching.label_selectors[_spec(resource)] = selector
    return result


def registry(store: Store, resync: Resync, metrics: Metrics, login: kopf.AiohttpSession) -> kopf.OperatorRegistry:
    """Handlers that carry every event of the watched kinds into ``store``."""
    result = kopf.OperatorRegistry()

    async def log_in(**_: Any) -> kopf.AiohttpSession:
        return login

    kopf.on.login(registry=result)(log_in)
    for resource, kind, _ in WATCHED:
        kopf.on.event(*_spec(resource), registry=result, id=resource.plural)(
            _handler(resource, kind, store, resync, metrics)
        )
    return result


def _spec(resource: Resource) -> tuple[str, str, str]:
    return resource.group, resource.version, resource.plural


def _handler(resource: Resource, kind: type[AnyObject], store: Store, resync: Resync, metrics: Metrics) -> Any:
    seen = metrics.watch_events.labels(resource.plural)

    async def on_event(event: Any, **_: Any) -> None:
        seen.inc()
        item = event["object"]
        if event["type"] == "DELETED":
            meta = item["metadata"]
            store.remove(kind, meta.get("namespace", ""), meta["name"], meta["uid"], meta.get("resourceVersion", ""))
        else:
            resync.take(resource, kind, item)

    return on_event


async def run(
    store: Store,
    resync: Resync,
    metrics: Metrics,
    login: kopf.AiohttpSession,
    namespaces: Sequence[str],
    started: asyncio.Event,
) -> None:
    """Watch until cancelled; sets ``started``. Raises when a stream is beyond repair (kopf ≥ 1.45)."""
    await kopf.operator(
        registry=registry(store, resync, metrics, login),
        settings=settings(),
        standalone=True,
        clusterwide=not namespaces,
        namespaces=list(namespaces),
        ready_flag=started,
    )
