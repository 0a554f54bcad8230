"""A local copy of one resource, kept by LIST and WATCH, that others can wait on.

What kopf does for the operator, for processes that only look: one dict of
structs, no handlers. A watch goes on where the last one ended; a version that
is too old, or a broken stream, costs a backoff and at worst a new LIST.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Iterator
from typing import Generic, NamedTuple, Protocol, TypeVar

import msgspec

from avatar_operator.domain.resources import Meta

from .client import KubeClient, Resource
from .errors import ApiError, NotFoundError, RejectedError
from .glance import glance

log = logging.getLogger(__name__)

# A watch lives about so long (seconds): one that hears nothing is found out soon after.
WATCH_SECONDS = 60
BACKOFF_FIRST, BACKOFF_MOST = 0.2, 15.0
# A resource that the cluster does not have, or does not let us see, is asked for again so often.
ABSENT_SECONDS = 30.0
GONE = 410


class HasMeta(Protocol):
    """An object with metadata."""

    @property
    def metadata(self) -> Meta:
        """Name, namespace, UID, resourceVersion."""
        ...


T = TypeVar("T", bound=HasMeta)


class Key(NamedTuple):
    """Which object."""

    namespace: str
    name: str


class Event(msgspec.Struct, frozen=True):
    """One line of a watch."""

    type: str
    object: msgspec.Raw


class _Told(msgspec.Struct, frozen=True):
    """What a bookmark or an error holds."""

    code: int = 0
    message: str = ""
    metadata: dict[str, object] = {}


class _TooOldError(Exception):
    """The API server has forgotten the version to go on from."""


class Reflector(Generic[T]):
    """Objects of one resource in one namespace (empty = all), as the API server told them last.

    ``optional``: a resource that is not there is an empty one, and no reason
    not to be ready. ``selector`` and ``fields`` pick by labels and by fields.
    ``most``: only so many are kept, those that changed last (0 = all): of what
    comes and is never taken back, like events.
    ``trouble``: why it may be out of date at this moment; empty = it is not.
    """

    def __init__(
        self,
        client: KubeClient,
        resource: Resource,
        kind: type[T],
        namespace: str = "",
        *,
        optional: bool = False,
        selector: str = "",
        fields: str = "",
        most: int = 0,
    ) -> None:
        self._client = client
        self._resource = resource
        self._namespace = namespace
        self._optional = optional
        self._selector, self._fields = selector, fields
        self._most = most
        self._decode = msgspec.json.Decoder(kind).decode
        self._items: dict[Key, T] = {}
        self._waiting: dict[Key, set[asyncio.Event]] = {}
        self._version = 0
        self.synced = asyncio.Event()
        self.heard_at = time.monotonic()
        self.relists = 0
        self.trouble = ""
        # Called with the object before and after each change; None = not there.
        self.listeners: list[Callable[[T | None, T | None], None]] = []

    # ---- reading -----------------------------------------------------------------

    def get(self, namespace: str, name: str) -> T | None:
        """The object, or None."""
        return self._items.get(Key(namespace, name))

    def values(self) -> list[T]:
        """All objects, in no order."""
        return list(self._items.values())

    @contextlib.contextmanager
    def changes(self, namespace: str, name: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever the object changes; clear it before looking."""
        key, event = Key(namespace, name), asyncio.Event()
        self._waiting.setdefault(key, set()).add(event)
        try:
            yield event
        finally:
            waiting = self._waiting.get(key)
            if waiting is not None:
                waiting.discard(event)
                if not waiting:
                    del self._waiting[key]

    # ---- writing -----------------------------------------------------------------

    def offer(self, raw: bytes) -> T:
        """Take the answer to a read or a write of our own, unless something newer is known; the object that it is."""
        return self.put(self._decode(raw))

    def put(self, item: T) -> T:
        """The same with an object at hand."""
        key, known = _key(item), self._items.get(_key(item))
        version = _version(item)
        # What is not here and not newer than the watch was deleted meanwhile.
        newest = _version(known) if known is not None else self._version
        if version > newest:
            self._set(key, item)
        return item

    def drop(self, namespace: str, name: str, uid: str) -> None:
        """Forget an object that the API server says is not there any more."""
        known = self.get(namespace, name)
        if known is not None and known.metadata.uid == uid:
            self._set(Key(namespace, name), None)

    def _set(self, key: Key, item: T | None) -> None:
        before = self._items.pop(key, None) if item is None or self._most else self._items.get(key)
        if item is not None:
            self._items[key] = item
        if before is None and item is None:
            return
        for event in self._waiting.get(key, ()):
            event.set()
        for listener in self.listeners:
            listener(before, item)
        if self._most and len(self._items) > self._most:
            self._set(next(iter(self._items)), None)

    # ---- following ---------------------------------------------------------------

    async def run(self) -> None:
        """Follow until cancelled; whatever fails is tried again."""
        failures, listed = 0, False
        while True:
            began = time.monotonic()
            try:
                if not listed:
                    await self._list()
                    listed = True
                await self._follow()
                # A stream that ends at once is a failure, too.
                failures = 0 if time.monotonic() - began > 1 else failures + 1
            except _TooOldError as error:
                log.info("%s: %s; listing anew", self._resource.plural, error)
                listed, failures = False, failures + 1
            except (NotFoundError, RejectedError) as error:
                listed = False
                if self._optional:
                    self.trouble = ""
                    self._absent(error)
                    await asyncio.sleep(ABSENT_SECONDS)
                    continue
                failures += 1
                self.trouble = error.message
                log.warning("cannot list or watch %s: %s", self._resource.plural, error)
            except (ApiError, msgspec.DecodeError, msgspec.ValidationError) as error:
                failures = 1 if time.monotonic() - began > BACKOFF_MOST else failures + 1
                # What cannot be decoded is read anew, in case the stream is at fault.
                listed = listed and isinstance(error, ApiError)
                self.trouble = str(error)
                level = logging.INFO if failures < 3 else logging.WARNING
                log.log(level, "watch of %s: %s", self._resource.plural, error)
            if failures:
                most = min(BACKOFF_MOST, BACKOFF_FIRST * 2 ** min(failures - 1, 10))
                await asyncio.sleep(most * random.uniform(0.5, 1))  # noqa: S311 - spreads load

    def _absent(self, error: ApiError) -> None:
        for key in list(self._items):
            self._set(key, None)
        if not self.synced.is_set():
            log.info("%s cannot be read and count as none: %s", self._resource.plural, error)
        self.synced.set()
        self.heard_at = time.monotonic()

    async def _list(self) -> None:
        found: dict[Key, T] = {}
        listed_at = 0
        async for page in self._client.pages(self._resource, self._namespace, self._selector, fields=self._fields):
            found.update((_key(item), item) for item in map(self._decode, page.items or ()))
            listed_at = int(page.version)
        if self._most:
            found = dict(sorted(found.items(), key=lambda known: _version(known[1]))[-self._most :])
        for key, item in list(self._items.items()):
            # One of our own writes may be newer than the list.
            if key not in found and _version(item) <= listed_at:
                self._set(key, None)
        for key, item in found.items():
            known = self._items.get(key)
            if known is None or _version(item) > _version(known):
                self._set(key, item)
        self._version = listed_at
        self.relists += 1
        self.heard_at = time.monotonic()
        self.synced.set()

    async def _follow(self) -> None:
        seconds = round(WATCH_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load
        lines = self._client.watch(
            self._resource, self._namespace, str(self._version), seconds, self._selector, self._fields
        )
        async for line in lines:
            self.trouble = ""
            if line:
                self._take(_event(line))
        self.heard_at = time.monotonic()

    def _take(self, event: Event) -> None:
        self.heard_at = time.monotonic()
        if event.type in ("ADDED", "MODIFIED", "DELETED"):
            where = glance(event.object).metadata
            key, version = Key(where.namespace, where.name), int(where.resource_version)
            self._version = max(self._version, version)
            known = self._items.get(key)
            # Our own writes come back here: their answers have told it all.
            if event.type == "DELETED":
                if known is None or version >= _version(known):
                    self._set(key, None)
            elif known is None or version > _version(known):
                self._set(key, self._decode(event.object))
            return
        told = msgspec.json.decode(event.object, type=_Told)
        if event.type == "BOOKMARK":
            self._version = max(self._version, int(str(told.metadata.get("resourceVersion", "0"))))
        elif told.code == GONE:
            raise _TooOldError(told.message)
        else:
            raise ApiError(told.code, "WatchError", told.message)


_event = msgspec.json.Decoder(Event).decode


def _key(item: HasMeta) -> Key:
    return Key(item.metadata.namespace, item.metadata.name)


def _version(item: HasMeta) -> int:
    return int(item.metadata.resource_version or 0)
