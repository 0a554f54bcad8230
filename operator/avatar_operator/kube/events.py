"""Kubernetes Events: what happened, where `kubectl describe` shows it.

Best effort by nature: a bounded queue, one try each; reconciling never waits for it, and goes first.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

from avatar_operator.domain import names
from avatar_operator.domain.actions import Event, Json
from avatar_operator.domain.resources import Meta

from .client import KubeClient
from .errors import ApiError
from .kinds import EVENTS

log = logging.getLogger(__name__)

QUEUE_LENGTH = 5000
# Between two events while there is other work: they tell when something happened, and may tell it later.
BUSY_PAUSE_SECONDS = 0.1
MESSAGE_LIMIT = 1024


class Recorder:
    """Posts events one after the other; drops them (and counts it) when the queue is full.

    ``busy``: whether work waits for the API server that should not wait for events.
    """

    def __init__(
        self,
        client: KubeClient,
        dropped: Callable[[], None],
        host: str,
        component: str = names.MANAGER,
        busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self._client = client
        self._busy = busy
        self._dropped = dropped
        self._source = {"component": component, "host": host}
        self._queue: asyncio.Queue[tuple[str, Json]] = asyncio.Queue(QUEUE_LENGTH)

    def record(self, kind: str, about: Meta, event: Event) -> None:
        """Queue an event about an object of our API group; never blocks."""
        body = _body(kind, about, event, self._source)
        try:
            self._queue.put_nowait((body["metadata"]["namespace"], body))
        except asyncio.QueueFull:
            self._dropped()

    async def run(self) -> None:
        """Post until cancelled."""
        while True:
            namespace, body = await self._queue.get()
            if self._busy():
                await asyncio.sleep(BUSY_PAUSE_SECONDS)
            try:
                await self._client.create(EVENTS, namespace, body)
            except ApiError as error:
                # An event in a namespace that is being deleted is refused: nothing is lost.
                log.debug("event not posted: %s", error)
                self._dropped()


def _body(kind: str, about: Meta, event: Event, source: Json) -> Json:
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    message = event.message if len(event.message) <= MESSAGE_LIMIT else event.message[: MESSAGE_LIMIT - 1] + "…"
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{about.name[:200]}.{uuid.uuid4().hex[:16]}",
            # An event is always in a namespace; one about a cluster's object must be in this.
            "namespace": about.namespace or "default",
        },
        "involvedObject": {
            "apiVersion": names.API_VERSION,
            "kind": kind,
            "name": about.name,
            "namespace": about.namespace,
            "uid": about.uid,
            "resourceVersion": about.resource_version,
        },
        "type": event.type,
        "reason": event.reason,
        "message": message,
        "source": source,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
