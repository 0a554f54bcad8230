"""Reading requests: JSON, forms and query strings come to the same fields."""

import json

from aiohttp import BodyPartReader, web

MAX_TEXT = 5000
_MAX_FIELD = 64 * 1024


class BadRequest(ValueError):
    """The caller's mistake; the text goes to the caller."""


async def read_fields(request: web.Request) -> dict[str, str]:
    """Return the text fields of a query, a form or a JSON object, and of each file its name.

    Files are read past: espeak-ng clones no voice, but the name of the recording may be one that it has.
    """
    fields: dict[str, str] = dict(request.query.items())
    content_type = request.content_type
    if content_type == "application/json":
        fields.update(await _read_json(request))
    elif content_type == "application/x-www-form-urlencoded":
        fields.update({k: v for k, v in (await request.post()).items() if isinstance(v, str)})
    elif content_type == "multipart/form-data":
        fields.update(await _read_form(request))
    elif request.can_read_body:
        raise BadRequest(f"send a form or JSON, not {content_type}")
    return fields


async def _read_json(request: web.Request) -> dict[str, str]:
    try:
        body = json.loads(await request.text())
    except (ValueError, LookupError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise BadRequest("the JSON body must be an object")
    return {str(k): v if isinstance(v, str) else json.dumps(v) for k, v in body.items() if v is not None}


async def _read_form(request: web.Request) -> dict[str, str]:
    fields: dict[str, str] = {}
    try:
        async for part in await request.multipart():
            # A nested multipart has no name and nothing for us.
            if not isinstance(part, BodyPartReader) or part.name is None:
                if part is not None:
                    await part.release()
            elif part.filename is not None:
                fields[part.name] = part.filename
                await part.release()
            else:
                fields[part.name] = (await _read_field(part)).decode("utf-8")
    except BadRequest:
        raise
    except (ValueError, AssertionError, RuntimeError) as error:
        raise BadRequest(f"the multipart form cannot be read: {error}") from error
    return fields


async def _read_field(part: BodyPartReader) -> bytes:
    raw = bytes(await part.read(decode=True))
    if len(raw) > _MAX_FIELD:
        raise BadRequest(f"field {part.name} is longer than {_MAX_FIELD} bytes")
    return raw


def text_of(fields: dict[str, str], name: str) -> str:
    """Return the text to speak from the field `name`."""
    text = fields.get(name, "").strip()
    if not text:
        raise BadRequest(f"{name} is missing or empty")
    if len(text) > MAX_TEXT:
        raise BadRequest(f"{name} has {len(text)} characters; the limit is {MAX_TEXT}: send it in sentences")
    return text


def is_true(value: str) -> bool:
    """Whether a flag is set, as JSON or a query string has it."""
    return value.strip().lower() in ("1", "2", "3", "true", "yes", "on")
