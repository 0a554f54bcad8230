"""A thin client of the Kubernetes API on one shared aiohttp session.

Why not a generated client: it would deserialise whole objects into classes
that nobody reads (research: 0.25 ms against 1.7 ms of CPU per call). Bodies go
out as JSON and come back as bytes; callers decode the few fields they need.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Protocol

import aiohttp
import msgspec

from avatar_operator.domain.resources import Meta

from .errors import BusyError, ConflictError, NotFoundError, RejectedError, from_status

Json = dict[str, Any]

MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
# How the API server refuses a JSON patch with an operation that does not fit the object, a test among them.
NOT_APPLICABLE = "the server rejected our request due to an error in our request"
# JSON is YAML, too.
APPLY_PATCH = "application/apply-patch+yaml"
# A metadata-only list: all that a resync compares, at a tenth of the cost.
PARTIAL_LIST = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json"

METADATA_ONLY = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json"

REQUEST_TIMEOUT_SECONDS = 15.0
LIST_TIMEOUT_SECONDS = 120.0
# Objects of a page. A page is decoded at once, to what takes five times its bytes where it is decoded to dicts.
LIST_PAGE = 500
# An object is 1.5 MiB at most in etcd; with its bookkeeping a line of a watch stays well below this.
WATCH_LINE_LIMIT = 16 << 20

# What a status says as a whole goes by these; nobody but the operator writes them.
TESTED = ("phase", "reason", "port")
Observer = Callable[[str, str, int, float], None]


class WithStatus(Protocol):
    """A state of a custom resource."""

    @property
    def metadata(self) -> Meta:
        """Its metadata."""

    @property
    def status(self) -> msgspec.Struct:
        """Its status; all defaults where it has none."""


class Resource(msgspec.Struct, frozen=True):
    """Where a kind lives in the API."""

    group: str
    version: str
    plural: str

    @property
    def api_version(self) -> str:
        """As objects of it say it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The request path of the collection or of one object."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        scope = f"/namespaces/{namespace}" if namespace else ""
        tail = f"/{name}" if name else ""
        tail += f"/{subresource}" if subresource else ""
        return f"{root}{scope}/{self.plural}{tail}"


class _PageMeta(msgspec.Struct, frozen=True):
    resource_version: str = msgspec.field(default="", name="resourceVersion")
    rest: str = msgspec.field(default="", name="continue")


class Page(msgspec.Struct, frozen=True):
    """A part of a list: ``items`` are objects as JSON, not decoded."""

    metadata: _PageMeta = _PageMeta()
    items: list[msgspec.Raw] | None = None

    @property
    def version(self) -> str:
        """The resourceVersion of the whole list."""
        return self.metadata.resource_version


class KubeClient:
    """get, list, create, patch, apply, delete; errors as in kube.errors, never retried here."""

    def __init__(
        self, session: aiohttp.ClientSession, server: str, *, concurrency: int = 64, observe: Observer | None = None
    ) -> None:
        self._session = session
        self._server = server.rstrip("/")
        self._slots = asyncio.Semaphore(concurrency)
        self._observe = observe or (lambda verb, resource, code, seconds: None)
        self._unanswered_since: float | None = None

    @property
    def silent_for(self) -> float:
        """Seconds since the first request after the last good answer; 0 while everything is answered.

        An answer that says no is an answer; one that says that the API server cannot (5xx) is none.
        """
        return 0.0 if self._unanswered_since is None else time.monotonic() - self._unanswered_since

    async def get(self, resource: Resource, namespace: str, name: str) -> bytes:
        """The object as JSON bytes; NotFoundError when it is not there."""
        return await self._request("GET", resource, resource.path(namespace, name))

    async def list_pages(
        self, resource: Resource, namespace: str, selector: str = "", accept: str = "", fields: str = ""
    ) -> tuple[list[Json], str]:
        """All objects and the list's resourceVersion; selectors are of labels and of fields."""
        items: list[Json] = []
        version = ""
        async for page in self.pages(resource, namespace, selector, accept, fields):
            items += map(msgspec.json.decode, page.items or ())
            version = page.version
        return items, version

    async def pages(
        self, resource: Resource, namespace: str, selector: str = "", accept: str = "", fields: str = ""
    ) -> AsyncIterator[Page]:
        """The same page by page: of thousands of objects nobody needs to have more than a page at hand as JSON."""
        params = {"limit": str(LIST_PAGE)}
        if selector:
            params["labelSelector"] = selector
        if fields:
            params["fieldSelector"] = fields
        headers = {"Accept": accept} if accept else {}
        while True:
            raw = await self._request(
                "GET", resource, resource.path(namespace), params=params, headers=headers, timeout=LIST_TIMEOUT_SECONDS
            )
            page = _page(raw)
            yield page
            if not page.metadata.rest:
                return
            params["continue"] = page.metadata.rest

    async def watch(
        self, resource: Resource, namespace: str, version: str, seconds: int, selector: str = "", fields: str = ""
    ) -> AsyncIterator[bytes]:
        """Events since ``version``, a line of JSON each, for ``seconds``; bookmarks among them.

        An empty line comes first: the API server has accepted. Ends when the
        API server ends it. BusyError when the stream breaks, or nothing comes
        for longer than it may be open.
        """
        path = resource.path(namespace)
        params = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(seconds),
            **({"labelSelector": selector} if selector else {}),
            **({"fieldSelector": fields} if fields else {}),
        }
        timeout = aiohttp.ClientTimeout(total=seconds + REQUEST_TIMEOUT_SECONDS, sock_connect=REQUEST_TIMEOUT_SECONDS)
        rest = b""
        try:
            async with self._session.get(self._server + path, params=params, timeout=timeout) as response:
                if response.status >= 400:
                    raise from_status(response.status, _status_body(await response.read()), _retry_after(response))
                yield b""
                # Not by readline: its limit is smaller than what an object may have.
                async for chunk in response.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        yield line
                    if len(rest) > WATCH_LINE_LIMIT:
                        raise BusyError(0, "TooLong", f"WATCH {path}: an event of more than {WATCH_LINE_LIMIT} bytes")
                if rest:
                    yield rest
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            text = f"WATCH {path}: {type(error).__name__} {error}".strip()
            raise BusyError(0, "Unreachable", text) from error

    async def answers(self, timeout: float) -> None:
        """BusyError unless the API server answers anything within ``timeout`` seconds."""
        with contextlib.suppress(NotFoundError, RejectedError):
            await self._request("GET", Resource("", "", "version"), "/version", timeout=timeout)

    async def logs(self, namespace: str, pod: str, params: Mapping[str, str]) -> AsyncIterator[bytes]:
        """A pod's log in pieces as they come, until it ends; with ``follow`` in ``params`` that may be never.

        BusyError when the stream breaks.
        """
        path = Resource("", "v1", "pods").path(namespace, pod, "log")
        follows = params.get("follow") == "true"
        timeout = aiohttp.ClientTimeout(
            sock_connect=REQUEST_TIMEOUT_SECONDS, sock_read=None if follows else LIST_TIMEOUT_SECONDS
        )
        try:
            async with self._session.get(self._server + path, params=params, timeout=timeout) as response:
                if response.status >= 400:
                    raise from_status(response.status, _status_body(await response.read()), _retry_after(response))
                async for piece in response.content.iter_any():
                    yield piece
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise BusyError(0, "Unreachable", f"GET {path}: {type(error).__name__} {error}".strip()) from error

    async def create(self, resource: Resource, namespace: str, body: Json) -> bytes:
        """POST; the created object."""
        return await self._request("POST", resource, resource.path(namespace), body=body)

    async def merge_patch(
        self, resource: Resource, namespace: str, name: str, body: Json, subresource: str = "", accept: str = ""
    ) -> bytes:
        """Merge-PATCH; a metadata.resourceVersion in ``body`` is a precondition.

        ``accept`` METADATA_ONLY: the answer holds the object's metadata, not the whole of it.
        """
        return await self._request(
            "PATCH",
            resource,
            resource.path(namespace, name, subresource),
            body=body,
            headers={"Content-Type": MERGE_PATCH, **({"Accept": accept} if accept else {})},
        )

    async def json_patch(self, resource: Resource, namespace: str, name: str, operations: list[Json]) -> bytes:
        """JSON-PATCH; replacing /metadata/resourceVersion by the one that was seen makes it a precondition."""
        return await self._request(
            "PATCH",
            resource,
            resource.path(namespace, name),
            body=operations,
            headers={"Content-Type": JSON_PATCH},
        )

    async def patch_status(self, resource: Resource, item: WithStatus, status: Json, *, exact: bool = False) -> bytes:
        """Set fields of .status, whole each (None removes), of the custom resource that ``item`` is a state of.

        Raises ConflictError when another one has its name by now, or it says something else than ``item`` in what
        only we write; with ``exact``, when it is another version. Of a merge patch to this subresource the API server
        takes the status alone: a metadata.uid in it is not held against the object's. So it goes by resourceVersion,
        or by a JSON patch that tests, which those who write other parts of the status do not hold up.
        """
        meta = item.metadata
        if exact or item.status == type(item.status)():
            # A JSON patch sets no field of a status that is not there yet.
            body = {"metadata": {"resourceVersion": meta.resource_version}, "status": status}
            return await self.merge_patch(resource, meta.namespace, meta.name, body, "status")
        path = resource.path(meta.namespace, meta.name, "status")
        operations, headers = status_operations(item, status), {"Content-Type": JSON_PATCH}
        try:
            return await self._request("PATCH", resource, path, body=operations, headers=headers)
        except RejectedError as error:
            if error.status == 422 and error.message.startswith(NOT_APPLICABLE):
                text = f"{resource.plural} {meta.name} is not the one with UID {meta.uid}, or not as it was known"
                raise ConflictError(409, "Conflict", text) from error
            raise

    async def apply(
        self, resource: Resource, namespace: str, name: str, body: Json, *, manager: str, subresource: str = ""
    ) -> bytes:
        """Server-side apply: the object is made if it is not there (its status is not: NotFoundError).

        ``body`` is all that ``manager`` wants of it: what it applied before and does not name any more is removed.
        """
        return await self._request(
            "PATCH",
            resource,
            resource.path(namespace, name, subresource),
            body=body,
            params={"fieldManager": manager, "force": "true"},
            headers={"Content-Type": APPLY_PATCH},
        )

    async def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        uid: str = "",
        resource_version: str = "",
        grace: int | None = None,
    ) -> bytes:
        """DELETE with preconditions; the object (when it ends gracefully, in ``grace`` seconds) or a Status."""
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        body: Json = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "propagationPolicy": "Background",
            "preconditions": {k: v for k, v in preconditions.items() if v},
            **({"gracePeriodSeconds": grace} if grace is not None else {}),
        }
        return await self._request("DELETE", resource, resource.path(namespace, name), body=body)

    async def _request(
        self,
        verb: str,
        resource: Resource,
        path: str,
        *,
        body: Json | list[Json] | None = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = REQUEST_TIMEOUT_SECONDS,
    ) -> bytes:
        sent = {"Content-Type": "application/json", "Accept": "application/json", **(headers or {})}
        data = msgspec.json.encode(body) if body is not None else None
        began, code = time.monotonic(), 0
        if self._unanswered_since is None:
            self._unanswered_since = began
        try:
            async with (
                self._slots,
                self._session.request(
                    verb,
                    self._server + path,
                    data=data,
                    params=params,
                    headers=sent,
                    timeout=aiohttp.ClientTimeout(total=timeout),
                ) as response,
            ):
                code = response.status
                content = await response.read()
                if code < 500:
                    self._unanswered_since = None
                if code < 400:
                    return content
                raise from_status(code, _status_body(content), _retry_after(response))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            text = f"{verb} {path}: {type(error).__name__} {error}".strip()
            raise BusyError(0, "Unreachable", text) from error
        finally:
            self._observe(verb, resource.plural, code, time.monotonic() - began)


_page = msgspec.json.Decoder(Page).decode


def status_operations(item: WithStatus, status: Json) -> list[Json]:
    """The JSON patch that sets fields of .status (None removes) if the object is the one that was known.

    The change is what was missing from a state that may be an old one: laid over another it would make a status that
    contradicts itself.
    """
    result: list[Json] = [{"op": "test", "path": "/metadata/uid", "value": item.metadata.uid}]
    known = ((name, getattr(item.status, name, None)) for name in TESTED)
    result += ({"op": "test", "path": f"/status/{name}", "value": value} for name, value in known if value)
    for name, value in status.items():
        path = f"/status/{name}"
        result.append({"op": "add", "path": path, "value": _present(value)})
        if value is None:
            # Removing what is not there would fail; it is, from the line before on.
            result.append({"op": "remove", "path": path})
    return result


def _present(value: Any) -> Any:
    """Without fields that are None, at any depth: the schema takes no nulls."""
    if isinstance(value, dict):
        return {name: _present(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, (list, tuple)):
        return [_present(inner) for inner in value]
    return value


def _status_body(content: bytes) -> Json:
    try:
        body = msgspec.json.decode(content)
    except msgspec.DecodeError:
        body = None
    return body if isinstance(body, dict) else {"message": content[:200].decode(errors="replace")}


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdigit() else None
