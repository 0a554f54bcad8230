"""From bytes to what a request asks: bounded, validated, with errors that name the field."""

from __future__ import annotations

import asyncio
import re
from typing import TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request

from .problems import Problem, bad_request

BODY_MOST = 64 * 1024
BODY_SECONDS = 10.0
# So many bytes get BODY_SECONDS; larger bodies more.
BYTES_A_BODY_TIME = 2 << 20
JSON, SDP = "application/json", "application/sdp"
SDP_PATTERN = r"^v=0\r?\n"
KEY_MOST = 255

T = TypeVar("T", bound=msgspec.Struct)

_WORDS = {
    "avatar_name": "1 to 128 characters, none of them a control character, '/' or '\\'; it may not begin with '-', "
    "begin or end with white space, or be '.' or '..'",
    "avatar_id": "1 to 128 characters, none of them a control character, '/' or '\\'",
    "sessionid": "what the answer to the offer said, a number or 1 to 128 characters of ASCII without spaces",
    "pool": "the name of an AvatarPool: lower-case letters, digits and '-'",
}


async def body(request: Request, most: int = BODY_MOST) -> bytes:
    """The whole body, of ``most`` bytes; 408 and 413 when it comes too slowly, or is larger."""
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > most:
        raise _too_large(most)
    # A large one may take longer, as long as it keeps coming.
    seconds = BODY_SECONDS * max(1, most / BYTES_A_BODY_TIME)
    found = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                found += chunk
                if len(found) > most:
                    raise _too_large(most)
    except TimeoutError:
        raise Problem(408, f"the body did not come in {seconds:.0f} s", headers={"Connection": "close"}) from None
    except ClientDisconnect:
        raise bad_request("the body ended too early") from None
    return bytes(found)


async def read(request: Request, kind: type[T], *, empty: bool = False) -> T:
    """The body as ``kind``; ``empty``: it may be left out."""
    found = await body(request)
    if not found and empty:
        return kind()
    name = content_type(request) or JSON
    if name != JSON and not re.fullmatch(r"application/[a-z0-9.-]+\+json", name):
        raise Problem(415, "send JSON (Content-Type: application/json)")
    return decode(found, kind)


async def read_sdp(request: Request) -> str:
    """The body as an SDP offer."""
    if content_type(request) != SDP:
        raise Problem(415, f"send an SDP offer (Content-Type: {SDP})")
    try:
        offer = (await body(request)).decode()
    except UnicodeDecodeError:
        raise bad_request("the body is no SDP: it is not UTF-8") from None
    if not re.match(SDP_PATTERN, offer):
        raise bad_request("the body is no SDP: it begins with the line v=0")
    return offer


def content_type(request: Request) -> str:
    """The header without its parameters, in lower case; empty when there is none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def decode(body: bytes, kind: type[T]) -> T:
    """JSON as ``kind``, or 400."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise bad_request(_say(str(error))) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise bad_request("the body is not valid JSON") from None
    except RecursionError:
        raise bad_request("the body is nested too deeply") from None


def _say(text: str) -> str:
    what, _, where = text.partition(" - at `$.")
    name = where.rstrip("`")
    if name in _WORDS and ("regex" in what or "length" in what):
        return f"{name}: {_WORDS[name]}"
    if "missing required field" in what:
        return f"{what.rpartition('field ')[2].strip('`')} is required"
    return f"{name}: {what}" if name else what


def idempotency_key(request: Request) -> str | None:
    """The header, or None."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    if not 1 <= len(key) <= KEY_MOST or not key.isascii() or not key.isprintable():
        raise bad_request(f"Idempotency-Key: 1 to {KEY_MOST} printable ASCII characters")
    return key


def preferences(request: Request) -> tuple[bool, float | None]:
    """From the header Prefer (RFC 7240): whether to answer at once, and how long to wait at most (seconds)."""
    respond_async, wait = False, None
    for header in request.headers.getlist("prefer"):
        for part in header.split(","):
            name, _, value = part.strip().partition("=")
            value = value.strip().strip('"')
            if name.strip().lower() == "respond-async":
                respond_async = True
            elif name.strip().lower() == "wait" and value.isascii() and value.isdigit() and len(value) < 7:
                wait = min(300.0, float(value))
    return respond_async, wait


def _too_large(most: int) -> Problem:
    return Problem(413, f"the body may have {most // 1024} KiB", headers={"Connection": "close"})
