"""One resource followed for ever by LIST and WATCH; what is done with what comes is the subclass's.

A watch goes on where the last one ended. A version that is too old, or a line
that cannot be understood, costs a new LIST; whatever else fails is tried again
after a backoff. What the API server forbids is told with the RBAC rule that is
missing. Objects come as JSON: who knows them already need not decode them.
"""

from __future__ import annotations

import abc
import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator

import msgspec

from .client import KubeClient, Page, Resource
from .errors import ApiError, NotFoundError, RejectedError
from .glance import Where, glance

log = logging.getLogger(__name__)

# A watch lives about so long (seconds): one that hears nothing is found out soon after.
WATCH_SECONDS = 60
# While the API server is away it is asked again at this distance at most: nobody waits longer when it is back.
BACKOFF_FIRST, BACKOFF_MOST = 0.2, 5.0
# A resource that the cluster does not have, or does not let us see, is asked for again so often.
ABSENT_SECONDS = 30.0
# A watch that has been open for so long is not at fault.
PROVEN_SECONDS = 1.0
GONE, FORBIDDEN = 410, 403


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


class Stream(abc.ABC):
    """All that happens to one resource in one namespace (empty = all).

    ``optional``: a resource that is not there is an empty one, and no reason
    not to be ready. ``selector`` and ``fields`` pick by labels and by fields.
    ``version``: the newest resourceVersion that was heard of.
    ``trouble``: why it may be out of date at this moment; empty = it is not.
    ``forbidden``: what the API server does not allow ("watch pods"); empty = nothing.
    """

    def __init__(
        self,
        client: KubeClient,
        resource: Resource,
        namespace: str = "",
        *,
        optional: bool = False,
        selector: str = "",
        fields: str = "",
    ) -> None:
        self.resource = resource
        self.namespace = namespace
        self._client = client
        self._optional = optional
        self._selector, self._fields = selector, fields
        self._listed = False
        self.version = 0
        self.synced = asyncio.Event()
        self.heard_at = time.monotonic()
        self.relists = 0
        self.trouble = ""
        self.forbidden = ""
        self._open_since: float | None = None
        self._failing_since: float | None = None

    @property
    def deaf_for(self) -> float:
        """Seconds since the first of the failures after which no watch has stayed open; 0 = it is open."""
        if self._failing_since is None or self._open_for > PROVEN_SECONDS:
            return 0.0
        return time.monotonic() - self._failing_since

    @property
    def _open_for(self) -> float:
        return 0.0 if self._open_since is None else time.monotonic() - self._open_since

    # ---- what a subclass does with it --------------------------------------------

    @abc.abstractmethod
    async def take_list(self, pages: AsyncIterator[Page]) -> int:
        """Take in everything that there is, and forget what is not; the list's resourceVersion."""

    @abc.abstractmethod
    def take_event(self, kind: str, where: Where, item: msgspec.Raw) -> None:
        """Take in an object that was ADDED, MODIFIED or DELETED; it may be known already."""

    @abc.abstractmethod
    def take_absence(self) -> None:
        """Forget everything: the resource, an optional one, is not there."""

    # ---- following ---------------------------------------------------------------

    async def load(self) -> None:
        """LIST it. Raises ApiError; run() goes on from here."""
        try:
            pages = self._client.pages(self.resource, self.namespace, self._selector, fields=self._fields)
            self.version = await self.take_list(pages)
        except ApiError as error:
            self._refused("list", error)
            raise
        self._allowed("list")
        self._listed = True
        self.relists += 1
        self.heard_at = time.monotonic()
        self.synced.set()

    async def run(self) -> None:
        """Follow until cancelled; whatever fails is tried again."""
        failures = 0
        while True:
            try:
                if not self._listed:
                    await self.load()
                await self._follow()
                # A stream that ends at once is a failure, too.
                failures = 0 if self._open_for > PROVEN_SECONDS else failures + 1
            except _TooOldError as error:
                log.info("%s: %s; listing anew", self.resource.plural, error)
                self.trouble = str(error)
                self._listed, failures = False, failures + 1
            except (NotFoundError, RejectedError) as error:
                self._listed = False
                if self._optional:
                    self.trouble = ""
                    self._absent(error)
                    await asyncio.sleep(ABSENT_SECONDS)
                    continue
                failures += 1
                if not self.forbidden and self.trouble != error.message:
                    log.warning("cannot list or watch %s: %s", self.resource.plural, error)
                self.trouble = error.message
            except (ApiError, msgspec.DecodeError, msgspec.ValidationError) as error:
                failures = 1 if self._open_for > PROVEN_SECONDS else failures + 1
                # What cannot be decoded is read anew, in case the stream is at fault.
                self._listed = self._listed and isinstance(error, ApiError)
                self.trouble = str(error)
                level = logging.INFO if failures < 3 else logging.WARNING
                log.log(level, "watch of %s: %s", self.resource.plural, error)
            self._closed(failures)
            if failures:
                most = min(BACKOFF_MOST, BACKOFF_FIRST * 2 ** min(failures - 1, 10))
                await asyncio.sleep(most * random.uniform(0.5, 1))  # noqa: S311 - spreads load

    def _closed(self, failures: int) -> None:
        if not failures or self._open_for > PROVEN_SECONDS:
            self._failing_since = None
        if failures and self._failing_since is None:
            self._failing_since = time.monotonic()
        self._open_since = None

    def _absent(self, error: ApiError) -> None:
        self.take_absence()
        self._open_since = None
        if not self.synced.is_set():
            log.info("%s cannot be read and count as none: %s", self.resource.plural, error)
        self.synced.set()
        self.heard_at = time.monotonic()

    async def _follow(self) -> None:
        seconds = round(WATCH_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load
        lines = self._client.watch(
            self.resource, self.namespace, str(self.version), seconds, self._selector, self._fields
        )
        try:
            async for line in lines:
                if line:
                    self._take(_event(line))
                else:
                    self._open_since = time.monotonic()
                    self._allowed("watch")
                self.trouble = ""
        except ApiError as error:
            if error.status == GONE:
                raise _TooOldError(error.message) from error
            self._refused("watch", error)
            raise
        self.heard_at = time.monotonic()

    def _take(self, event: Event) -> None:
        self.heard_at = time.monotonic()
        if event.type in ("ADDED", "MODIFIED", "DELETED"):
            where = glance(event.object).metadata
            self.version = max(self.version, int(where.resource_version))
            self.take_event(event.type, where, event.object)
            return
        told = msgspec.json.decode(event.object, type=_Told)
        if event.type == "BOOKMARK":
            self.version = max(self.version, int(str(told.metadata.get("resourceVersion", "0"))))
        elif told.code == GONE:
            raise _TooOldError(told.message)
        else:
            raise ApiError(told.code, "WatchError", told.message)

    # ---- what is forbidden -------------------------------------------------------

    def _refused(self, verb: str, error: ApiError) -> None:
        what = f"{verb} {self.resource.plural}" + (f" in namespace {self.namespace}" if self.namespace else "")
        if error.status != FORBIDDEN or self._optional or self.forbidden == what:
            return
        self.forbidden = what
        log.error(
            "the API server refuses to let us %s (HTTP 403): nothing is heard of them until our Role has the rule "
            '{apiGroups: ["%s"], resources: [%s], verbs: [get, list, watch]}',
            what,
            self.resource.group,
            self.resource.plural,
        )

    def _allowed(self, verb: str) -> None:
        # A LIST that is allowed says nothing of the watch.
        if self.forbidden.startswith(verb):
            log.info("may %s again", self.forbidden)
            self.forbidden = ""


_event = msgspec.json.Decoder(Event).decode
