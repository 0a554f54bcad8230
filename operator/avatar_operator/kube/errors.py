"""What the API server can answer, as exceptions that callers tell apart."""

from __future__ import annotations


class CredentialsError(Exception):
    """No usable way to the API server; the message says what was looked for."""


class ApiError(Exception):
    """An API request that failed. ``status`` is the HTTP code, 0 = no answer came."""

    def __init__(self, status: int, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after


class NotFoundError(ApiError):
    """404: the object is not there (any more)."""


class AlreadyExistsError(ApiError):
    """409 AlreadyExists: a POST lost to an object of the same name."""


class ConflictError(ApiError):
    """409 Conflict: a resourceVersion or UID precondition did not hold."""


class RejectedError(ApiError):
    """400, 403 or 422: the API server will not have this object (schema, quota, admission, RBAC)."""


class BusyError(ApiError):
    """429 or 5xx, or no answer: worth a retry; ``retry_after`` seconds when the server says so."""


def from_status(status: int, body: dict[str, object], retry_after: float | None) -> ApiError:
    """The exception for an HTTP answer; ``body`` is a metav1.Status where there is one."""
    reason, message = str(body.get("reason", "")), str(body.get("message", ""))
    kind: type[ApiError] = ApiError
    if status == 404:
        kind = NotFoundError
    elif status == 409:
        kind = AlreadyExistsError if reason == "AlreadyExists" else ConflictError
    elif status in (400, 403, 422):
        kind = RejectedError
    elif status == 429 or status >= 500:
        kind = BusyError
    return kind(status, reason or "Unknown", message, retry_after)
