"""LiveTalking's HTTP routes. Refusals are HTTP 200 with ``{"code": -1, "msg": …}``, as there."""

import asyncio
import json
import logging
import re
from dataclasses import asdict
from typing import Any

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from avatar_runtime.pcm import AudioError
from avatar_runtime.recorder import RecordError, path_of
from avatar_runtime.service import Service
from avatar_runtime.session import RECORDED, OfferError, Session
from avatar_runtime.sessions import Refused
from avatar_runtime.sounds import decode_file
from avatar_runtime.speech import prepare

log = logging.getLogger("avatar_runtime")

MAX_BODY = 64 * 1024
MAX_AUDIO = 10 << 20
MAX_TEXT = 5000
SERVICE: web.AppKey[Service] = web.AppKey("service", Service)

_CORS = {
    # Pages of any origin may talk to an instance, as with LiveTalking; who may is decided in front of it.
    # The admin routes are no page's business.
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Headers": "*",
    "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
}


class BadRequest(ValueError):
    """The caller's mistake; the text goes to the caller."""


def build(service: Service) -> web.Application:
    """Return the application."""
    app = web.Application(client_max_size=MAX_BODY, middlewares=[_answer_errors])
    app[SERVICE] = service
    app.add_routes(
        [
            web.post("/offer", offer),
            web.post("/human", human),
            web.post("/humanaudio", humanaudio),
            web.post("/interrupt_talk", interrupt_talk),
            web.post("/is_speaking", is_speaking),
            web.post("/hangup", hangup),
            web.post("/record", record),
            web.get("/record/{sessionid}", recorded),
            web.get("/health", health),
            web.get("/api/admin/sessions", sessions),
            web.get("/api/admin/config", config),
            web.post("/api/admin/drain", drain),
            web.post("/api/admin/media", media),
        ]
    )
    return app


@web.middleware
async def _answer_errors(request: web.Request, handler: Any) -> web.StreamResponse:
    response: web.StreamResponse
    try:
        # A route for OPTIONS on any path would turn every unknown path into 405.
        response = web.Response(status=204) if request.method == "OPTIONS" else await handler(request)
    except (BadRequest, OfferError, RecordError, Refused) as error:
        response = web.json_response({"code": -1, "msg": str(error)})
    except web.HTTPRequestEntityTooLarge:
        response = web.json_response({"code": -1, "msg": f"the body is larger than {MAX_BODY} bytes"})
    except web.HTTPException as error:
        response = web.json_response({"code": -1, "msg": f"{request.method} {request.path}: {error.reason}"})
        response.set_status(error.status)
    except Exception as error:
        log.exception("request failed path=%s", request.path)
        response = web.json_response({"code": -1, "msg": f"internal error: {type(error).__name__}"})
    if not request.path.startswith("/api/admin/"):
        response.headers.update(_CORS)
    return response


async def offer(request: web.Request) -> web.Response:
    """``{sdp, type}`` → ``{sdp, type, sessionid}``."""
    body = await _body(request)
    sdp, kind = body.get("sdp"), body.get("type")
    if not isinstance(sdp, str) or not isinstance(kind, str):
        raise BadRequest("sdp and type are required, both texts")
    sessionid, answer = await request.app[SERVICE].open(sdp, kind)
    return web.json_response({"sdp": answer.sdp, "type": answer.type, "sessionid": sessionid})


async def human(request: web.Request) -> web.Response:
    """``{sessionid, text, type: "echo", interrupt?}``: say the text."""
    body = await _body(request)
    session = _session(request, body)
    text, kind = body.get("text"), body.get("type", "echo")
    if not isinstance(text, str) or not text.strip():
        raise BadRequest("text is missing or empty")
    # JSON can hold half a surrogate pair; no engine and no data channel can.
    text = text.encode("utf-8", "replace").decode()
    if len(text) > MAX_TEXT:
        raise BadRequest(f"text has {len(text)} characters; the limit is {MAX_TEXT}")
    if kind != "echo":
        raise BadRequest(f"type {kind!r} is not supported: this runtime has no language model, use echo")
    if body.get("interrupt"):
        session.interrupt()
    try:
        session.say(text)
    except asyncio.QueueFull:
        raise BadRequest("too many sentences wait to be said; interrupt or wait") from None
    return _ok()


async def humanaudio(request: web.Request) -> web.Response:
    """A form with sessionid and file (WAV, MP3, or what else ffmpeg knows): say the recording."""
    sessionid, recording = "", b""
    if not request.content_type.startswith("multipart/"):
        raise BadRequest("send a form (multipart/form-data) with sessionid and file")
    try:
        async for part in await request.multipart():
            if isinstance(part, BodyPartReader) and part.name == "sessionid":
                sessionid = (await _part(part, MAX_BODY)).decode("utf-8", "replace")
            elif isinstance(part, BodyPartReader) and part.name == "file":
                recording = await _part(part, MAX_AUDIO)
    except (ValueError, HttpProcessingError) as error:
        raise BadRequest(f"the form cannot be read: {error}") from error
    session = _session(request, {"sessionid": sessionid})
    try:
        samples = await asyncio.to_thread(decode_file, recording, RECORDED)
    except AudioError as error:
        raise BadRequest(f"file: {error}") from error
    if not len(samples):
        raise BadRequest("file: there is no sound in it")
    try:
        session.play(await asyncio.to_thread(prepare, "", samples, None))
    except asyncio.QueueFull:
        raise BadRequest("too much waits to be said; interrupt or wait") from None
    return _ok()


async def _part(part: BodyPartReader, most: int) -> bytes:
    data = bytearray()
    while chunk := await part.read_chunk():
        data += chunk
        if len(data) > most:
            raise BadRequest(f"{part.name} is larger than {most} bytes")
    return bytes(data)


async def interrupt_talk(request: web.Request) -> web.Response:
    """``{sessionid}``: stop talking."""
    _session(request, await _body(request)).interrupt()
    return _ok()


async def is_speaking(request: web.Request) -> web.Response:
    """``{sessionid}`` → data: bool."""
    return _ok(_session(request, await _body(request)).speaking)


async def record(request: web.Request) -> web.Response:
    """``{sessionid, type: "start_record" | "end_record"}``: keep what the viewer sees and hears as an MP4 file."""
    body = await _body(request)
    session, kind = _session(request, body), body.get("type")
    if kind == "start_record":
        session.start_record(request.app[SERVICE].config.record_dir)
    elif kind == "end_record":
        await session.end_record()
    else:
        raise BadRequest("type is start_record or end_record")
    return _ok()


async def recorded(request: web.Request) -> web.StreamResponse:
    """The recording of a session, once it has ended; 404 else."""
    sessionid = request.match_info["sessionid"]
    path = path_of(request.app[SERVICE].config.record_dir, sessionid)
    # Our ids are UUIDs; a path is none.
    if not re.fullmatch(r"[0-9a-f-]{36}", sessionid) or not path.is_file():
        raise web.HTTPNotFound(reason="there is no such recording, or it has not ended")
    return web.FileResponse(path, headers={"Content-Type": "video/mp4"})


async def hangup(request: web.Request) -> web.Response:
    """``{sessionid}``: end the session; who has it need not wait for its peer to fall silent."""
    session = _session(request, await _body(request))
    await request.app[SERVICE].close(session.sessionid, "hung up")
    return _ok()


async def health(request: web.Request) -> web.Response:
    """Session counts; see `Service.health`."""
    return web.json_response(request.app[SERVICE].health())


async def sessions(request: web.Request) -> web.Response:
    """All sessions, connecting ones included."""
    return _ok({"sessions": request.app[SERVICE].listed()})


async def config(request: web.Request) -> web.Response:
    """What the process runs with."""
    service = request.app[SERVICE]
    return _ok(
        {
            "config": {
                "avatar_id": service.avatar.name,
                "model": service.model,
                "transport": "webrtc",
                "max_session": service.max_session,
                "tts": service.engine,
                "TTS_SERVER": service.config.tts_server,
                "REF_FILE": service.voice,
                "listenport": service.config.port,
                "fps": 25,
            }
        }
    )


async def media(request: web.Request) -> web.Response:
    """``{open: true}``: open UDP ports for a moment, for a probe → data: where they are; see `reach.Opened`."""
    if request.content_type != "application/json":
        raise BadRequest("send application/json")
    if (await _body(request)).get("open") is not True:
        raise BadRequest("open is required: true")
    return _ok(asdict(await request.app[SERVICE].reach.open()))


async def drain(request: web.Request) -> web.Response:
    """``{drain: bool}``: refuse new offers, or take them again. Running sessions go on."""
    # A page of another origin can send text without asking first, but not JSON.
    if request.content_type != "application/json":
        raise BadRequest("send application/json")
    wanted = (await _body(request)).get("drain")
    if not isinstance(wanted, bool):
        raise BadRequest("drain is required: true or false")
    return _ok({"sessions": request.app[SERVICE].set_draining(wanted)})


def _ok(data: Any = None) -> web.Response:
    return web.json_response({"code": 0, "msg": "ok", **({} if data is None else {"data": data})})


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.text())
    except (ValueError, LookupError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise BadRequest("the body must be a JSON object")
    return body


def _session(request: web.Request, body: dict[str, Any]) -> Session:
    # LiveTalking's ids were numbers once: clients may send either.
    sessionid = str(body.get("sessionid", ""))
    session = request.app[SERVICE].session(sessionid)
    if session is None:
        raise BadRequest(f"no session {sessionid!r}: it has ended, or never was")
    return session
