"""The runtime's HTTP routes, as a client sees them."""

from __future__ import annotations

import json
from typing import Any

import aiohttp

from avatar_client.errors import ClientError, Refused


def base_url(url: str) -> str:
    """Return the runtime's base URL: people paste the one of ``/offer``, and leave slashes at the end."""
    return url.rstrip("/").removesuffix("/offer").rstrip("/")


class Signalling:
    """Calls of one runtime. Refusals (``code`` −1) raise `Refused`, all other faults `ClientError`.

    ``http``: a session to send them with, for who has a way of his own to the runtime; it stays open.
    """

    def __init__(self, url: str, timeout: float, http: aiohttp.ClientSession | None = None) -> None:
        self.base = base_url(url)
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._own = http is None
        self._http = http if http is not None else aiohttp.ClientSession()

    async def post(self, route: str, body: dict[str, Any]) -> dict[str, Any]:
        """POST a JSON object; the answer's object."""
        return await self._call("POST", route, body)

    async def get(self, route: str) -> dict[str, Any]:
        """GET a JSON object."""
        return await self._call("GET", route, None)

    async def _call(self, method: str, route: str, body: dict[str, Any] | None) -> dict[str, Any]:
        url = f"{self.base}{route}"
        try:
            async with self._http.request(method, url, json=body, timeout=self._timeout) as answer:
                text, status = await answer.text(), answer.status
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise ClientError(f"{url} cannot be reached: {reason}. Is the avatar running there?") from error
        if status != 200:
            raise ClientError(f"{url} answered HTTP {status}: {text[:200]}")
        try:
            found = json.loads(text)
        except ValueError as error:
            raise ClientError(f"{url} answered no JSON: {text[:200]}") from error
        if not isinstance(found, dict):
            raise ClientError(f"{url} answered {text[:200]}, not a JSON object")
        if found.get("code", 0) != 0:
            raise Refused(str(found.get("msg") or found))
        return found

    async def close(self) -> None:
        """Close the connections, but not those of a session that was given."""
        if self._own:
            await self._http.close()
