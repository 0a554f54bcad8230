"""One request to a runtime, bounded in bytes; where a pod answers; which sessions a runtime lists.

Stock LiveTalking answers refusals with HTTP 200 and a code inside; what an
answer means is decided elsewhere (domain.signalling). Here it is only fetched.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec

from avatar_operator.domain.resources import Pod

BODY_LIMIT = 1 << 20
# LiveTalking joins render threads on its event loop (about a second each), so an answer may take a while.
TIMEOUT = aiohttp.ClientTimeout(total=4, connect=2)

# What a request may raise when nobody answers, or no HTTP comes back.
UNREACHABLE = (aiohttp.ClientError, TimeoutError, OSError)


@dataclass(frozen=True, slots=True)
class Answer:
    """HTTP status and body; ``document`` is the body's JSON object, None when it is none."""

    status: int
    body: bytes

    @property
    def document(self) -> dict[str, Any] | None:
        """The JSON object that the body is, or None."""
        try:
            found = msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return found if isinstance(found, dict) else None


def host_of(pod: Pod) -> str:
    """Where the pod's ports are; empty while it has no address."""
    return pod.status.pod_ip or pod.status.host_ip


def base_url(host: str, port: int) -> str:
    """The URL of a runtime, without a slash at its end."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


async def request(
    session: aiohttp.ClientSession,
    verb: str,
    url: str,
    *,
    json: object = None,
    data: aiohttp.FormData | None = None,
    timeout: aiohttp.ClientTimeout = TIMEOUT,
) -> Answer:
    """The answer, whatever its status; raises one of UNREACHABLE, or ValueError for a body over BODY_LIMIT."""
    async with session.request(verb, url, json=json, data=data, timeout=timeout, allow_redirects=False) as response:
        body = bytearray()
        async for chunk in response.content.iter_chunked(1 << 16):
            body += chunk
            if len(body) > BODY_LIMIT:
                raise ValueError(f"the answer has more than {BODY_LIMIT} bytes")
        return Answer(response.status, bytes(body))


async def ask(
    session: aiohttp.ClientSession, verb: str, url: str, json: dict[str, Any] | None = None
) -> dict[str, Any] | None:
    """The answer as an object; None for 404 and 405 (the route is not there), ValueError for other errors."""
    answer = await request(session, verb, url, json=json)
    if answer.status in (404, 405):
        return None
    if answer.status >= 400:
        raise ValueError(f"HTTP {answer.status}")
    if answer.document is None:
        raise ValueError("the answer is not a JSON object")
    return answer.document


async def sessions(session: aiohttp.ClientSession, base: str) -> list[dict[str, Any]] | None:
    """What GET /api/admin/sessions lists, connecting sessions included; None when the runtime has no such list."""
    listed = await ask(session, "GET", f"{base}/api/admin/sessions")
    data = listed.get("data") if listed else None
    found = data.get("sessions") if isinstance(data, dict) else None
    if not isinstance(found, list):
        return None
    return [entry for entry in found if isinstance(entry, dict)]
