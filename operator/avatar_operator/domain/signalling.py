"""What a runtime's answers mean, and which of its sessions are over.

LiveTalking says everything with HTTP 200 and ``{"code": -1, "msg": …}``; its
forks say some of it with 404 and 503. Here that becomes a status code and a
sentence for the client.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from .resources import Session

# How a runtime says these things is not written down anywhere but in its code: LiveTalking, its forks, and ours.
_FULL = re.compile(r"session limit|reach(ed)? max|max(imum)?[ _]sessions?", re.IGNORECASE)
_BUSY = re.compile(r"drain|initiali[sz]ing|not ready|too many", re.IGNORECASE)
_NO_SESSION = re.compile(
    r"no session|session.{0,60}(not found|not exist|unknown|has ended)|unknown session", re.IGNORECASE
)
_BROKEN = re.compile(r"internal error", re.IGNORECASE)

FULL_RETRY = 10
BUSY_RETRY = 2
MESSAGE_MOST = 300
RUNTIME_ID_MOST = 128


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the client is told: an HTTP status, why, and after how many seconds to come again (None = never)."""

    code: int
    message: str
    retry_after: int | None = None


def refusal(status: int, answer: Mapping[str, Any] | None) -> Refusal | None:
    """What an answer of ``status`` with this JSON object (None = it was none) refuses; None = it is a success."""
    if answer is None:
        if status in (404, 405):
            return Refusal(501, "this avatar's runtime has no such route")
        return Refusal(502, f"the avatar's runtime answered HTTP {status} without a JSON object")
    message = _message(answer)
    if status < 400 and answer.get("code", 0) == 0:
        return None
    if _FULL.search(message):
        return Refusal(409, f"the avatar is full: {message}", FULL_RETRY)
    if _NO_SESSION.search(message):
        return Refusal(404, f"the session has ended: {message}")
    if status == 503 or _BUSY.search(message):
        return Refusal(503, f"not now: {message}", BUSY_RETRY)
    if status >= 500 or _BROKEN.search(message):
        return Refusal(502, f"the avatar's runtime failed: {message}")
    if status in (404, 405):
        return Refusal(501, f"this avatar's runtime cannot do it: {message}")
    return Refusal(400, f"the avatar's runtime refuses it: {message}")


def _message(answer: Mapping[str, Any]) -> str:
    text = next((str(answer[name]) for name in ("msg", "message", "detail", "error") if answer.get(name)), "")
    plain = "".join(c if c.isprintable() else " " for c in text).strip()
    return plain[:MESSAGE_MOST] or "it does not say why"


def runtime_session(value: object) -> str | None:
    """A runtime's sessionid as it is recorded; None when it is none. LiveTalking's were numbers once."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    text = str(value)
    return text if 0 < len(text) <= RUNTIME_ID_MOST and text.isprintable() else None


@dataclass(frozen=True, slots=True)
class Doubt:
    """Since when the runtime was seen to lack a session, or to wait for its peer."""

    since: datetime
    missing: bool


def ended(
    sessions: Iterable[Session],
    doubts: Mapping[str, Doubt],
    listed: Iterable[Mapping[str, Any]],
    now: datetime,
    *,
    apart: float,
    connect: float,
) -> tuple[list[Session], dict[str, Doubt]]:
    """Those whose peer is gone by what the runtime lists now, and the doubts to come back with.

    A session is over when the runtime lacked it in two looks at least ``apart``
    seconds from each other, with none between in which it was there; or when it
    says for ``connect`` seconds that its peer has not connected. ``doubts`` are by
    the runtime's id; to lose them costs time and nothing else. Only looks that
    succeeded come here: a runtime that does not answer says nothing.
    """
    states = {runtime_session(entry.get("sessionid")): entry.get("state") for entry in listed}
    over: list[Session] = []
    kept: dict[str, Doubt] = {}
    for session in sessions:
        name = session.runtime_session_id
        missing = name not in states
        if not name or not (missing or states[name] == "connecting"):
            continue
        before = doubts.get(name)
        doubt = before if before is not None and before.missing == missing else Doubt(now, missing)
        patience = timedelta(seconds=apart if missing else connect)
        if before is doubt and now - doubt.since >= patience:
            over.append(session)
        else:
            kept[name] = doubt
    return over, kept
