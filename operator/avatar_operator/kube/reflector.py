"""A local copy of one resource, kept by LIST and WATCH, that others can wait on: one dict of structs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Generic, NamedTuple, Protocol, TypeVar

import msgspec

from avatar_operator.domain.resources import Meta

from .client import KubeClient, Page, Resource
from .glance import Where
from .stream import Stream


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


class Reflector(Stream, Generic[T]):
    """Objects of one resource in one namespace (empty = all), as the API server told them last.

    ``most``: only so many are kept, those that changed last (0 = all): of what
    comes and is never taken back, like events. For the others see Stream.
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
        super().__init__(client, resource, namespace, optional=optional, selector=selector, fields=fields)
        self._most = most
        self._decode = msgspec.json.Decoder(kind).decode
        self._items: dict[Key, T] = {}
        self._waiting: dict[Key, set[asyncio.Event]] = {}
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
        newest = _version(known) if known is not None else self.version
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

    async def take_list(self, pages: AsyncIterator[Page]) -> int:
        """Take in everything that there is, and forget what is not; the list's resourceVersion."""
        found: dict[Key, T] = {}
        listed_at = 0
        async for page in pages:
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
        return listed_at

    def take_event(self, kind: str, where: Where, item: msgspec.Raw) -> None:
        """Take in a change, unless one of our own writes has told it."""
        key, version = Key(where.namespace, where.name), int(where.resource_version)
        known = self._items.get(key)
        if kind == "DELETED":
            if known is None or version >= _version(known):
                self._set(key, None)
        elif known is None or version > _version(known):
            self._set(key, self._decode(item))

    def take_absence(self) -> None:
        """The resource is not there: nor is any object of it."""
        for key in list(self._items):
            self._set(key, None)


def _key(item: HasMeta) -> Key:
    return Key(item.metadata.namespace, item.metadata.name)


def _version(item: HasMeta) -> int:
    return int(item.metadata.resource_version or 0)
