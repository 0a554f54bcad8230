"""A small client of the API server for tests: JSON in, JSON out, and waiting that says what it waited for."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Self, TypeVar

import aiohttp

from avatar_operator.kube.credentials import from_kubeconfig

Json = dict[str, Any]
T = TypeVar("T")

GROUP = "avatars.virtualtutor.io"
_OURS = {"avatarinstances", "avatars", "avatarpools", "gpunodes", "ttsengines"}
_PATCH = {"merge": "application/merge-patch+json", "json": "application/json-patch+json"}


class Refused(AssertionError):
    """An answer of 400 or above; ``status`` is the HTTP code, ``message`` the API server's words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


def path_of(resource: str, namespace: str = "", name: str = "", subresource: str = "") -> str:
    """The URL path of a resource: ours, core, or another group's as ``group/version/plural``."""
    if "/" in resource:
        base = f"/apis/{resource.rpartition('/')[0]}"
        resource = resource.rpartition("/")[2]
    else:
        base = f"/apis/{GROUP}/v1alpha1" if resource in _OURS else "/api/v1"
    parts = [base, *(["namespaces", namespace] if namespace else []), resource, name, subresource]
    return "/".join(part for part in parts if part)


async def until(
    what: str, look: Callable[[], Awaitable[T]], good: Callable[[T], Any], timeout: float = 20, interval: float = 0.05
) -> T:
    """Look again and again until ``good`` says yes; fails with the last thing seen."""
    deadline = time.monotonic() + timeout
    while True:
        seen = await look()
        if good(seen):
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout} s for {what}; last seen: {json.dumps(seen, default=str)[:4000]}")
        await asyncio.sleep(interval)


class Api:
    """The API server as a test sees it. Use as ``async with Api(kubeconfig)``."""

    def __init__(self, kubeconfig: Path) -> None:
        self._found = from_kubeconfig(kubeconfig)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        headers = {"User-Agent": "tests"}
        if token := self._found.bearer():
            headers["Authorization"] = f"Bearer {token}"
        connector = aiohttp.TCPConnector(limit=0, ssl=self._found.tls if self._found.tls is not None else True)
        self._session = aiohttp.ClientSession(self._found.server, connector=connector, headers=headers)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def call(self, verb: str, path: str, body: Any = None, kind: str = "application/json") -> Json:
        """One request; the answer, or Refused."""
        assert self._session is not None, "use `async with`"
        data = None if body is None else json.dumps(body).encode()
        timeout = aiohttp.ClientTimeout(total=20)
        async with self._session.request(
            verb, path, data=data, headers={"Content-Type": kind}, timeout=timeout
        ) as response:
            answer = json.loads(await response.read())
            if response.status >= 400:
                raise Refused(response.status, str(answer.get("message", answer)))
            return dict(answer)

    async def get(self, resource: str, namespace: str, name: str) -> Json | None:
        """The object, or None."""
        try:
            return await self.call("GET", path_of(resource, namespace, name))
        except Refused as refused:
            if refused.status == 404:
                return None
            raise

    async def list(self, resource: str, namespace: str = "", query: str = "") -> list[Json]:
        """All objects of a namespace."""
        return list((await self.call("GET", path_of(resource, namespace) + query))["items"])

    async def create(self, resource: str, namespace: str, body: Json) -> Json:
        """POST."""
        return await self.call("POST", path_of(resource, namespace), body)

    async def patch(
        self, resource: str, namespace: str, name: str, body: Any, subresource: str = "", kind: str = "merge"
    ) -> Json:
        """PATCH; ``kind`` is merge or json."""
        return await self.call("PATCH", path_of(resource, namespace, name, subresource), body, _PATCH[kind])

    async def delete(self, resource: str, namespace: str, name: str, options: Json | None = None) -> None:
        """DELETE; something that is gone already is well."""
        try:
            await self.call("DELETE", path_of(resource, namespace, name), options)
        except Refused as refused:
            if refused.status != 404:
                raise

    async def watch(
        self, resource: str, namespace: str, opened: asyncio.Event | None = None, query: str = ""
    ) -> AsyncIterator[Json]:
        """Watch events for ever, what exists first; from the moment that ``opened`` is set none is missed."""
        assert self._session is not None, "use `async with`"
        path = path_of(resource, namespace) + "?watch=true" + query
        async with self._session.get(path, timeout=aiohttp.ClientTimeout(total=None), read_bufsize=1 << 22) as response:
            assert response.status == 200, await response.text()
            if opened is not None:
                opened.set()
            async for line in response.content:
                yield json.loads(line)
