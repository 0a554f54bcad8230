"""Writes the GPUNode: the object itself once, owned by its Node, and its status as often as it is worth it."""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from avatar_operator.domain import names
from avatar_operator.domain.actions import Json
from avatar_operator.domain.fields import fields_of
from avatar_operator.domain.gpunode import GpuNode, GpuNodeStatus
from avatar_operator.domain.resources import Meta
from avatar_operator.kube.client import KubeClient
from avatar_operator.kube.errors import NotFoundError
from avatar_operator.kube.events import Recorder
from avatar_operator.kube.kinds import GPUNODES, NODES

from .events import events

log = logging.getLogger(__name__)

MANAGER = "avatar-operator-agent"
KIND = "GPUNode"
# What the operator writes into the same status; applying them would take them over.
_OPERATORS = {"reservations", "reservedMiB", "externalMiB"}


class NodeMissingError(Exception):
    """There is no Node of the name that the agent was given."""


class Publisher:
    """The GPUNode of ``node`` in the API server. Errors are kube.errors'; nothing is retried here."""

    def __init__(self, client: KubeClient, recorder: Recorder, node: str) -> None:
        self._client = client
        self._recorder = recorder
        self._node = node
        self._meta: Meta | None = None
        self.written = GpuNodeStatus()

    async def adopt(self) -> GpuNodeStatus:
        """What an earlier agent wrote, empty if nothing: the events start from there."""
        try:
            found = msgspec.json.decode(await self._client.get(GPUNODES, "", self._node), type=GpuNode)
        except NotFoundError:
            return GpuNodeStatus()
        self.written = found.status
        return found.status

    async def publish(self, status: GpuNodeStatus) -> bool:
        """Write the status and its events; False = somebody deleted the GPUNode, and wants it forgotten."""
        if self._meta is None:
            self._meta = await self._make()
        body = {**_head(self._node), "status": applied(status)}
        try:
            await self._client.apply(GPUNODES, "", self._node, body, manager=MANAGER, subresource="status")
        except NotFoundError:
            self._meta, self.written = None, GpuNodeStatus()
            return False
        for event in events(self.written, status, self._node):
            log.log(logging.WARNING if event.type == "Warning" else logging.INFO, "%s", event.message)
            self._recorder.record(KIND, self._meta, event)
        self.written = status
        return True

    async def _make(self) -> Meta:
        """The object, made if it is not there. It goes when its Node does."""
        try:
            node = msgspec.json.decode(await self._client.get(NODES, "", self._node))
        except NotFoundError as error:
            raise NodeMissingError(f"there is no Node {self._node!r}: --node must be the name of this node") from error
        owner = {"apiVersion": "v1", "kind": "Node", "name": self._node, "uid": node["metadata"]["uid"]}
        body = _head(self._node)
        body["metadata"]["ownerReferences"] = [owner]
        made = await self._client.apply(GPUNODES, "", self._node, body, manager=MANAGER)
        return msgspec.json.decode(made, type=GpuNode).metadata


def applied(status: GpuNodeStatus) -> Json:
    """The agent's part of the status, in full: what an apply does not name is removed."""
    full = _full(status)
    return {name: value for name, value in full.items() if name not in _OPERATORS}


def _head(node: str) -> Json:
    return {"apiVersion": names.API_VERSION, "kind": KIND, "metadata": {"name": node}}


def _full(value: Any) -> Any:
    """Plain JSON with zeros and False as well, but without what is empty or unknown."""
    if isinstance(value, msgspec.Struct):
        fields = {encoded: _full(getattr(value, name)) for encoded, name in fields_of(type(value)).items()}
        return {name: item for name, item in fields.items() if item is not None and item != ""}
    if isinstance(value, (tuple, list)):
        return [_full(item) for item in value]
    return msgspec.to_builtins(value)
