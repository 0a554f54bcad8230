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
    """Calls of one runtime. Refusals (``code`` −1) raise `Refused`, all other faults `ClientError`."""

    def __init__(self, url: str, timeout: float) -> None:
        self.base = base_url(url)
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout))

    async def post(self, route: str, body: dict[str, Any]) -> dict[str, Any]:
        """POST a JSON object; the answer's object."""
        return await self._call("POST", route, body)

    async def get(self, route: str) -> dict[str, Any]:
        """GET a JSON object."""
        return await self._call("GET", route, None)

    async def _call(self, method: str, route: str, body: dict[str, Any] | None) -> dict[str, Any]:
        url = f"{self.base}{route}"
        try:
            async with self._http.request(method, url, json=body) as answer:
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
        """Close the connections."""
        await self._http.close()
