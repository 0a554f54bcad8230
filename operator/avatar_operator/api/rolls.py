"""Writes of sessions: one writer for each instance, which takes all that wait and sends one patch.

A join is one patch of the status subresource by compare-and-swap. Forty
clients who do that by themselves to one object get in each other's way; here
they wait for the patch that is under way, and go together with the next.
What is answered was true at the API server, not only in the local copy.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec
from msgspec.structs import replace

from avatar_operator.domain.resources import Instance, Meta
from avatar_operator.domain.sessions import (
    Answer,
    Caller,
    Join,
    Leave,
    LeaveOne,
    Left,
    Operation,
    Renewed,
    Roll,
    apply,
)
from avatar_operator.kube.client import METADATA_ONLY, KubeClient
from avatar_operator.kube.errors import ApiError, BusyError, ConflictError, NotFoundError
from avatar_operator.kube.kinds import INSTANCES
from avatar_operator.kube.reflector import Key, Reflector

from .metrics import ApiMetrics
from .problems import unavailable

log = logging.getLogger(__name__)

# So many may wait for one instance in this process, and so many go into one patch.
WAITING_MOST = 5000
BATCH_MOST = 1000
ATTEMPTS = 12
BACKOFF_FIRST, BACKOFF_MOST = 0.005, 0.5


class _Written(msgspec.Struct):
    metadata: Meta


_decode = msgspec.json.Decoder(_Written).decode


class GoneError(Exception):
    """The instance is not there, or about to go."""


@dataclass(slots=True)
class _Request:
    operation: Operation
    cap: int | None
    done: asyncio.Future[tuple[Answer, Instance]]


@dataclass(slots=True)
class _Line:
    """Those who wait for one instance, and the task that serves them."""

    waiting: list[_Request] = field(default_factory=list)
    task: asyncio.Task[None] | None = None


class Rolls:
    """``submit`` is the only way in. Requests for one instance are answered in their order."""

    def __init__(
        self, client: KubeClient, instances: Reflector[Instance], metrics: ApiMetrics, now: Callable[[], datetime]
    ) -> None:
        self._client = client
        self._instances = instances
        self._metrics = metrics
        self._now = now
        self._lines: dict[Key, _Line] = {}

    async def submit(
        self, namespace: str, name: str, operation: Operation, cap: int | None = None
    ) -> tuple[Answer, Instance]:
        """The answer and the instance as it was then; GoneError when there is none, BusyError after many tries."""
        key = Key(namespace, name)
        line = self._lines.setdefault(key, _Line())
        if len(line.waiting) >= WAITING_MOST:
            raise unavailable(f"{WAITING_MOST} requests wait for this avatar already", 1)
        request = _Request(operation, cap, asyncio.get_running_loop().create_future())
        line.waiting.append(request)
        if line.task is None:
            line.task = asyncio.create_task(self._serve(key, line), name=f"rolls-{name}")
        return await request.done

    async def _serve(self, key: Key, line: _Line) -> None:
        try:
            while line.waiting:
                batch, line.waiting = line.waiting[:BATCH_MOST], line.waiting[BATCH_MOST:]
                # Who has gone away while waiting is not counted.
                batch = [r for r in batch if not r.done.done()]
                if batch:
                    await self._write(key, batch)
        finally:
            self._lines.pop(key, None)
            for request in line.waiting:
                _fail(request, GoneError())

    async def _write(self, key: Key, batch: list[_Request]) -> None:
        try:
            operations = [r.operation for r in batch]
            # One cap for all: they join the same instance.
            cap = next((r.cap for r in batch if r.cap is not None), None)
            answers, item = await self._apply(key, operations, cap)
        except Exception as error:
            for request in batch:
                _fail(request, error)
            return
        self._metrics.batch.observe(len(batch))
        for request, answer in zip(batch, answers, strict=True):
            if not request.done.done():
                request.done.set_result((answer, item))

    async def _apply(self, key: Key, operations: list[Operation], cap: int | None) -> tuple[list[Answer], Instance]:
        item = self._instances.get(*key)
        certain = False
        error: ApiError | None = None
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(min(BACKOFF_MOST, BACKOFF_FIRST * 2**attempt) * random.uniform(0.5, 1))  # noqa: S311
            try:
                if item is None:
                    item, certain = await self._read(key), True
                if item.metadata.deletion_timestamp is not None:
                    raise GoneError
                roll = Roll.of(item.status)
                after, answers = apply(roll, operations, self._now(), cap)
                if after == roll:
                    if certain or all(isinstance(a, Renewed) for a in answers):
                        return answers, item
                    # Nothing to write by the local copy, which may be behind: ask before saying so.
                    item, certain = await self._read(key), True
                    after, answers = apply(Roll.of(item.status), operations, self._now(), cap)
                    if after == Roll.of(item.status):
                        return answers, item
                return answers, await self._patch(item, after)
            except ConflictError as conflict:
                self._metrics.conflicts.inc()
                item, error = None, conflict
            except NotFoundError:
                if item is not None:
                    self._instances.drop(key.namespace, key.name, item.metadata.uid)
                raise GoneError from None
            except BusyError as busy:
                # It may have been written all the same: what is not the same twice must not be done twice.
                operations = _repeatable(operations, answers) if item is not None else operations
                item, error = None, busy
        raise error if error is not None else GoneError()

    async def _read(self, key: Key) -> Instance:
        return self._instances.offer(await self._client.get(INSTANCES, key.namespace, key.name))

    async def _patch(self, item: Instance, after: Roll) -> Instance:
        meta = item.metadata
        status = {"connections": after.connections, "sessions": after.sessions}
        body = {"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version}, "status": status}
        raw = await self._client.merge_patch(INSTANCES, meta.namespace, meta.name, body, "status", METADATA_ONLY)
        # By its resourceVersion it was what we had, so it is now that and what we wrote: no need to read all of it.
        return self._instances.put(
            replace(
                item,
                metadata=_decode(raw).metadata,
                status=replace(item.status, sessions=after.sessions, connections=after.connections),
            )
        )


def _repeatable(operations: Sequence[Operation], answers: Sequence[Answer]) -> list[Operation]:
    """Name what "one of them" meant the first time."""
    named: list[Operation] = []
    for operation, answer in zip(operations, answers, strict=True):
        if isinstance(operation, LeaveOne) and isinstance(answer, Left) and answer.session and answer.session.id:
            named.append(Leave(answer.session.id, Caller(any=True)))
        else:
            named.append(operation)
    return named


def _fail(request: _Request, error: BaseException) -> None:
    if not request.done.done():
        request.done.set_exception(error)


__all__ = ["GoneError", "Join", "Rolls"]
