"""What the blocking and the async client share: requests, answers, and when to try again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
import msgspec

T = TypeVar("T")

# The server waits for 30 s; its answer must not be given up before.
ANSWER_SECONDS = 40.0
RETRY_FIRST, RETRY_MOST = 0.2, 10.0
AGAIN = frozenset({429, 503})


class AvatarApiError(Exception):
    """The API refused. ``code``: the HTTP status; ``message``: the API's words; ``retry_after`` in seconds."""

    def __init__(self, code: int, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.retry_after = retry_after


class NotConnectedError(Exception):
    """No answer came, however often it was tried."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request. ``repeat`` False: it may not be sent twice."""

    verb: str
    path: str
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    repeat: bool = True


def start(
    avatar_id: str | None,
    avatar_name: str | None,
    *,
    pool: str | None,
    ttl_seconds: int | None,
    wait_seconds: float | None,
    idempotency_key: str | None,
    respond_async: bool,
) -> Call:
    """POST /avatar/start."""
    body = {
        "avatar_id": avatar_id,
        "avatar_name": avatar_name,
        "pool": pool,
        "ttl_seconds": ttl_seconds,
        "wait_seconds": wait_seconds,
    }
    headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
    if respond_async:
        headers["Prefer"] = "respond-async"
    return Call("POST", "/avatar/start", {k: v for k, v in body.items() if v is not None}, headers)


def disconnect(avatar_id: str | None, avatar_name: str | None, pool: str | None) -> Call:
    """POST /avatar/disconnect; by the avatar's name alone it may not be repeated: it would end another session."""
    body = {"avatar_id": avatar_id, "avatar_name": avatar_name, "pool": pool}
    return Call(
        "POST",
        "/avatar/disconnect",
        {k: v for k, v in body.items() if v is not None},
        repeat=avatar_id is not None,
    )


def info(avatar_id: str) -> Call:
    """GET /avatar/info/{avatar_id}."""
    return Call("GET", f"/avatar/info/{quote(avatar_id, safe='')}")


def result(response: httpx.Response, kind: type[T]) -> T:
    """The ``data`` of an answer, or AvatarApiError."""
    if response.is_success:
        return msgspec.convert(msgspec.json.decode(response.content)["data"], kind)
    raise error(response)


def error(response: httpx.Response) -> AvatarApiError:
    """The error that an answer is."""
    try:
        message = str(msgspec.json.decode(response.content)["message"])
    except (msgspec.DecodeError, KeyError, TypeError):
        message = response.text[:200]
    after = response.headers.get("Retry-After", "")
    return AvatarApiError(response.status_code, message, float(after) if after.isdigit() else None)


@dataclass(slots=True)
class Patience:
    """How long a call goes on trying. ``seconds`` 0 = once."""

    seconds: float
    spent: float = 0.0
    tries: int = 0

    def pause(self, call: Call, problem: AvatarApiError | httpx.TransportError) -> float | None:
        """Seconds to wait before trying again, or None to give up."""
        if isinstance(problem, AvatarApiError):
            if problem.code not in AGAIN or (problem.code == 503 and not call.repeat):
                return None
        elif not call.repeat and not isinstance(problem, httpx.ConnectError):
            # It may have been done: not twice.
            return None
        own = min(RETRY_MOST, RETRY_FIRST * 2**self.tries)
        after = problem.retry_after if isinstance(problem, AvatarApiError) else None
        pause = max(own, after or 0.0)
        self.tries += 1
        self.spent += pause
        return pause if self.spent <= self.seconds else None


def options(url: str, token: str | None, timeout: float) -> dict[str, Any]:
    """For httpx."""
    return {
        "base_url": url.rstrip("/"),
        "headers": {"Authorization": f"Bearer {token}"} if token else {},
        "timeout": httpx.Timeout(timeout, connect=5.0),
    }
