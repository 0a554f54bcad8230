"""What a request may be answered with when it does not succeed."""

from __future__ import annotations


class Problem(Exception):
    """An answer ``{"status": "error", "message": …}`` with its code; ``retry_after`` in seconds."""

    def __init__(
        self, code: int, message: str, *, retry_after: int | None = None, headers: dict[str, str] | None = None
    ):
        super().__init__(message)
        self.code = code
        self.message = message
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["Retry-After"] = str(max(1, retry_after))


def bad_request(message: str) -> Problem:
    """400: the request says something that cannot be."""
    return Problem(400, message)


def forbidden(message: str) -> Problem:
    """403: known, but may not."""
    return Problem(403, message)


def not_found(message: str) -> Problem:
    """404."""
    return Problem(404, message)


def conflict(message: str) -> Problem:
    """409: the state of things does not allow it."""
    return Problem(409, message)


def unavailable(message: str, retry_after: int = 5) -> Problem:
    """503: not now."""
    return Problem(503, message, retry_after=retry_after)
