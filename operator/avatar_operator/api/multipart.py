"""A form with a recording and the session that it is for, from bytes that are bounded already."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from aiohttp import BodyPartReader, MultipartReader, StreamReader, hdrs
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict, CIMultiDictProxy

from .problems import Problem, bad_request

PARTS_MOST = 4
SESSION_MOST = 256


@dataclass(slots=True)
class Form:
    """``file``: name, content type and bytes; None and empty where the part is missing."""

    sessionid: str = ""
    file: tuple[str, str, bytes] | None = None


async def parse(content_type: str, body: bytes) -> Form:
    """The form that ``body`` is; 415 when it says to be something else, 400 when it is broken."""
    if not content_type.lower().startswith("multipart/form-data"):
        raise Problem(415, "send a form with a file (Content-Type: multipart/form-data)")
    form = Form()
    try:
        reader = MultipartReader(CIMultiDictProxy(CIMultiDict({hdrs.CONTENT_TYPE: content_type})), _stream(body))
        for _ in range(PARTS_MOST):
            part = await reader.next()
            if part is None:
                return form
            if not isinstance(part, BodyPartReader):
                raise bad_request("the form holds another form")
            await _take(form, part)
    except (ValueError, AssertionError, RuntimeError, LookupError, HttpProcessingError) as error:
        # The first line says enough; the rest repeats what came.
        reason = str(getattr(error, "message", error)).partition("\n")[0][:200]
        raise bad_request(f"the form cannot be read: {reason}") from None
    raise bad_request(f"the form may have {PARTS_MOST} parts")


async def _take(form: Form, part: BodyPartReader) -> None:
    data = bytes(await part.read(decode=True))
    if part.name == "file":
        kind = part.headers.get(hdrs.CONTENT_TYPE, "application/octet-stream")
        form.file = (part.filename or "recording", kind, data)
    elif part.name == "sessionid":
        form.sessionid = data[:SESSION_MOST].decode("utf-8", "replace")
    else:
        raise bad_request("the form has sessionid and file, and nothing else")


def _stream(body: bytes) -> StreamReader:
    # Its limit is when to ask the sender to pause; there is none.
    stream = StreamReader(BaseProtocol(asyncio.get_running_loop()), len(body) + 1)
    stream.feed_data(body)
    stream.feed_eof()
    return stream
