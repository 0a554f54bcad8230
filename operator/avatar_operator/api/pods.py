"""Where the runtime of an instance answers: the pod's own address, as the operator's probe uses it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import msgspec

from avatar_operator.domain.names import LABEL_PORT
from avatar_operator.domain.resources import Instance, Pod
from avatar_operator.kube.client import KubeClient
from avatar_operator.kube.errors import NotFoundError
from avatar_operator.kube.kinds import PODS
from avatar_operator.runtimes.http import base_url, host_of

# An address is looked up anew after so long (seconds), and whenever nobody answers there.
KEPT_SECONDS = 30.0
MOST = 4096


@dataclass(frozen=True, slots=True)
class _Known:
    url: str
    until: float


class Pods:
    """Pods of instances; what was read lately is kept."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self._client = client
        self._namespace = namespace
        self._known: dict[tuple[object, ...], _Known] = {}

    async def read(self, item: Instance) -> Pod | None:
        """The pod that serves an instance, if it is one of the operator's and not about to go; raises ApiError."""
        if not item.status.pod_name:
            return None
        try:
            raw = await self._client.get(PODS, self._namespace, item.status.pod_name)
        except NotFoundError:
            return None
        pod = msgspec.json.decode(raw, type=Pod)
        owned = any(o.uid == item.metadata.uid for o in pod.metadata.owner_references)
        return pod if owned and pod.metadata.deletion_timestamp is None else None

    async def runtime(self, item: Instance) -> str | None:
        """The base URL of an instance's runtime; None while it has no pod with an address. Raises ApiError."""
        key = _key(item)
        known = self._known.get(key)
        if known is not None and time.monotonic() < known.until:
            return known.url
        pod = await self.read(item)
        port = pod.metadata.labels.get(LABEL_PORT, "") if pod is not None else ""
        if pod is None or not host_of(pod) or not port.isdigit():
            self._known.pop(key, None)
            return None
        if len(self._known) >= MOST:
            self._known.clear()
        # The label is the operator's own; whoever may write the status could name another port.
        url = base_url(host_of(pod), int(port))
        self._known[key] = _Known(url, time.monotonic() + KEPT_SECONDS)
        return url

    def forget(self, item: Instance) -> None:
        """Nobody answered there."""
        self._known.pop(_key(item), None)


def _key(item: Instance) -> tuple[object, ...]:
    """Another pod of the instance is another key: pod names are used again."""
    status = item.status
    return item.metadata.uid, status.pod_name, status.ready_time, status.restarts
