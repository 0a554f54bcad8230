"""The API as OpenAPI says it: one table of routes, with the old manager's examples."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from . import shapes

Json = dict[str, Any]

DESCRIPTION = """\
Starts talking avatars and counts who uses them. Drop-in for Avatar Manager's API: the same routes, fields and error
shape. A start is idempotent by `avatar_id` (or by the header `Idempotency-Key`); it waits until the avatar serves, at
most for `wait_seconds` or `Prefer: wait=`, and answers 503 with `Retry-After` when that was too short. With
`Prefer: respond-async` it answers 202 at once, and `GET /avatar/events/{avatar_id}` tells of the phases. With
`ttl_seconds` a session has a lease that `POST /avatar/heartbeat` renews. `POST /avatar/{avatar_id}/offer` and `…/whep`
pass a WebRTC offer on to an avatar that runs, and count the session for as long as its peer is there.
"""


@dataclass(frozen=True, slots=True)
class Route:
    """``request`` and ``answers`` are names of schemas; ``errors`` besides 401, 403 and 429."""

    name: str
    method: str
    path: str
    summary: str
    description: str
    answers: dict[int, str]
    errors: tuple[int, ...] = ()
    request: str = ""
    body_required: bool = True
    media: str = "application/json"
    headers: tuple[str, ...] = ()
    open: bool = False
    request_example: Json | str = field(default_factory=dict)
    example: Json = field(default_factory=dict)


_INSTANCE: Json = {
    "avatar_id": "g_user_1",
    "real_avatar_name": "g",
    "port": 8615,
    "gpu": 1,
    "running": True,
    "connections": 2,
    "uptime_seconds": 3600,
    "start_time": "2025-11-17T09:30:00Z",
    "webrtc_url": "http://localhost:8615/offer",
    "phase": "Running",
    "reason": "Serving",
    "message": "",
    "instance": "g-0a1b2c3d4e",
    "pool": "default",
    "node": "gpu-box",
    "queue_position": None,
    "observed_sessions": 2,
    "idle_deadline": None,
    "restarts": 0,
    "tts": {"engine": "edgetts", "voice": "en-US-BrianNeural"},
    "pid": None,
    "sessions": None,
}
_START: Json = {
    "avatar_id": "g_user_1",
    "port": 8615,
    "gpu": 1,
    "webrtc_url": "http://localhost:8615/offer",
    "connections": 2,
    "is_new": False,
    "real_avatar_name": "g",
    "running": True,
    "phase": "Running",
    "instance": "g-0a1b2c3d4e",
    "start_time": "2025-11-17T09:30:00Z",
    "uptime_seconds": 3600,
    "queue_position": None,
    "expires": None,
    "ice_servers": [],
    "ice_transport_policy": "all",
    "pid": None,
}
_OFFER = """\
v=0
o=- 4611731400430051336 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0
m=audio 9 UDP/TLS/RTP/SAVPF 111
c=IN IP4 0.0.0.0
a=rtcp:9 IN IP4 0.0.0.0
a=ice-ufrag:8hhY
a=ice-pwd:asd88fgpdd777uzjYhagZg
a=fingerprint:sha-256 \
19:E2:1C:3B:4B:9F:81:E6:B8:5C:F4:A5:A8:D8:73:04:BB:05:2F:70:9F:04:A9:0E:05:E9:26:33:E8:70:88:A2
a=setup:actpass
a=mid:0
a=recvonly
a=rtcp-mux
a=rtpmap:111 opus/48000/2
""".replace("\n", "\r\n")
_SESSION = "2f1d7c1e-8d0c-4b60-9b7b-4a4a1f0f6f0d"
_SIGNALLING_ERRORS = (400, 404, 408, 409, 413, 415, 501, 502, 503, 504)

_MANAGER: Json = {
    "running": 2,
    "max": 5,
    "available": 3,
    "queue_length": 0,
    "connections": 3,
    "phases": {"Running": 2},
    "pools": {
        "default": {
            "max": 5,
            "running": 2,
            "available": 3,
            "queue_length": 0,
            "ports": [8615, 8616],
            "phases": {"Running": 2},
        }
    },
}
_GPU: Json = {
    "gpu_id": 1,
    "name": "NVIDIA A100",
    "memory": {"total_gb": 40.0, "used_gb": 12.5, "free_gb": 27.5, "usage_percent": 31.3},
    "temperature_celsius": 54,
    "gpu_utilization_percent": 35,
    "power_draw_watts": 120.0,
    "power_limit_watts": 400.0,
    "node": "gpu-box",
    "uuid": "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6",
    "healthy": True,
    "alerts": [],
}

ROUTES: tuple[Route, ...] = (
    Route(
        name="health",
        method="GET",
        path="/health",
        summary="Whether this server works",
        description="Needs no token.",
        answers={200: "Health"},
        errors=(503,),
        open=True,
        example={
            "status": "healthy",
            "service": "avatar-manager",
            "version": "1.0.0",
            "timestamp": "2025-11-17T10:30:00Z",
        },
    ),
    Route(
        name="start",
        method="POST",
        path="/avatar/start",
        summary="Start or join an avatar",
        description=(
            "The same avatar_id is the same session, however often it is sent. When the avatar does not serve in time, "
            "or its pool is full, the answer is 503 with Retry-After, and a session that this request counted is given "
            "back; with `Prefer: respond-async` it is kept. avatar_id may be left out where avatar_name and "
            "Idempotency-Key are given; the answer names it. A session of somebody else is refused with 403."
        ),
        request="StartRequest",
        answers={200: "StartAnswer", 202: "StartAnswer"},
        errors=(400, 404, 408, 409, 413, 415, 503),
        headers=("Idempotency-Key", "Prefer"),
        request_example={"avatar_id": "g_user_1", "avatar_name": "g"},
        example={"status": "success", "message": "Avatar reused successfully", "data": _START},
    ),
    Route(
        name="disconnect",
        method="POST",
        path="/avatar/disconnect",
        summary="End a session",
        description=(
            "By avatar_id: ends that session; a second time, or for an unknown one, nothing happens and the answer is "
            "the same. By avatar_name alone: ends one session of the avatar, the caller's own oldest where callers are "
            "known. The count never goes below 0; an unused avatar is stopped by its idle timeout."
        ),
        request="DisconnectRequest",
        answers={200: "DisconnectAnswer"},
        errors=(400, 408, 413, 415, 503),
        request_example={"avatar_name": "g"},
        example={
            "status": "success",
            "message": "Avatar disconnected successfully",
            "data": {"avatar_name": "g", "avatar_id": "g_user_1", "connections": 1, "disconnected": True},
        },
    ),
    Route(
        name="heartbeat",
        method="POST",
        path="/avatar/heartbeat",
        summary="Renew the lease of a session",
        description=(
            "For sessions started with ttl_seconds. 404: the session has ended, start it again. `running` false and "
            "Retry-After: the avatar restarts, the session is kept."
        ),
        request="HeartbeatRequest",
        answers={200: "HeartbeatAnswer"},
        errors=(400, 404, 408, 413, 415, 503),
        request_example={"avatar_id": "g_user_1"},
        example={
            "status": "success",
            "data": {
                "avatar_id": "g_user_1",
                "expires": "2025-11-17T10:31:00Z",
                "connections": 2,
                "running": True,
                "phase": "Running",
            },
        },
    ),
    Route(
        name="events",
        method="GET",
        path="/avatar/events/{avatar_id}",
        summary="Phases of a session's avatar, as they come",
        description=(
            "Server-sent events: `phase` for each change, then one of `ready` (data as in the answer to a start), "
            "`failed` and `gone`, and the end."
        ),
        answers={200: "text/event-stream"},
        errors=(404, 503),
    ),
    Route(
        name="offer",
        method="POST",
        path="/avatar/{avatar_id}/offer",
        summary="Connect to an avatar: a WebRTC offer, and its answer",
        description=(
            "avatar_id in the path: of a session, of an instance, or an avatar's name. Starts nothing: 503 with "
            "Retry-After while it does not serve, 409 when it is full. The session is counted under avatar_id of the "
            "body (or of the path, where that is a session's; else a new one, which the answer names), as a start "
            "does it, and ends when its peer has gone. The same avatar_id again takes the place of the peer before. "
            "A peer that needs ice_servers for its offer gets them from a start."
        ),
        request="OfferRequest",
        answers={200: "OfferAnswer"},
        errors=_SIGNALLING_ERRORS,
        request_example={"sdp": _OFFER, "type": "offer", "avatar_id": "g_user_1"},
        example={
            "sdp": _OFFER.replace("recvonly", "sendonly"),
            "type": "answer",
            "sessionid": _SESSION,
            "avatar_id": "g_user_1",
            "ice_servers": [],
        },
    ),
    Route(
        name="human",
        method="POST",
        path="/avatar/{avatar_id}/human",
        summary="Have an avatar say something",
        description=(
            "type echo says the text, chat has the runtime's language model answer it (400 where it has none). The "
            "session must have come by offer or whep, and be the caller's own."
        ),
        request="HumanRequest",
        answers={200: "TalkAnswer"},
        errors=_SIGNALLING_ERRORS,
        request_example={"sessionid": _SESSION, "text": "Hello.", "type": "echo", "interrupt": True},
        example={"status": "success"},
    ),
    Route(
        name="interrupt-talk",
        method="POST",
        path="/avatar/{avatar_id}/interrupt_talk",
        summary="Have an avatar stop talking",
        description="What waits to be said is forgotten, too.",
        request="SpeakerRequest",
        answers={200: "TalkAnswer"},
        errors=_SIGNALLING_ERRORS,
        request_example={"sessionid": _SESSION},
        example={"status": "success"},
    ),
    Route(
        name="is-speaking",
        method="POST",
        path="/avatar/{avatar_id}/is_speaking",
        summary="Whether an avatar talks",
        description="Or is about to.",
        request="SpeakerRequest",
        answers={200: "SpeakingAnswer"},
        errors=_SIGNALLING_ERRORS,
        request_example={"sessionid": _SESSION},
        example={"status": "success", "data": True},
    ),
    Route(
        name="humanaudio",
        method="POST",
        path="/avatar/{avatar_id}/humanaudio",
        summary="Have an avatar say a recording",
        description="A form with sessionid and file, a WAV or MP3 file of 10 MiB at most.",
        request="AudioRequest",
        media="multipart/form-data",
        answers={200: "TalkAnswer"},
        errors=_SIGNALLING_ERRORS,
        request_example={"sessionid": _SESSION, "file": "RIFF"},
        example={"status": "success"},
    ),
    Route(
        name="whep",
        method="POST",
        path="/avatar/{avatar_id}/whep",
        summary="Connect to an avatar by WHEP",
        description=(
            "For players that know WHEP (draft-ietf-wish-whep): an SDP offer with all candidates, and its answer. "
            "Counted as an offer; DELETE of the Location ends it. There is no trickle: PATCH is 405."
        ),
        request="Sdp",
        media="application/sdp",
        answers={201: "application/sdp"},
        errors=_SIGNALLING_ERRORS,
        request_example=_OFFER,
    ),
    Route(
        name="whep-options",
        method="OPTIONS",
        path="/avatar/{avatar_id}/whep",
        summary="What WHEP takes",
        description="Accept-Post. A preflight of CORS is answered like every other.",
        answers={204: ""},
        open=True,
    ),
    Route(
        name="whep-end",
        method="DELETE",
        path="/avatar/{avatar_id}/whep/{resource}",
        summary="End a session of WHEP",
        description="The peer is hung up where the runtime can do that.",
        answers={200: "TalkAnswer"},
        errors=(404, 409, 503),
        example={"status": "success"},
    ),
    Route(
        name="stop",
        method="POST",
        path="/avatar/stop",
        summary="Stop an avatar",
        description=(
            "avatar_id: of a session, of an instance, or an avatar's name. With force false it is refused with 409 "
            "while somebody is connected. Needs the role admin."
        ),
        request="StopRequest",
        answers={200: "StopAnswer"},
        errors=(400, 404, 408, 409, 413, 415, 503),
        request_example={"avatar_id": "test_yongen", "force": True},
        example={
            "status": "success",
            "message": "Avatar test_yongen stopped",
            "data": {"stopped": ["test-yongen-0a1b2c3d4e"], "in_use": []},
        },
    ),
    Route(
        name="restart",
        method="POST",
        path="/avatar/restart",
        summary="Restart an avatar",
        description="Its sessions stay counted; 503 with Retry-After when it takes longer. Needs the role admin.",
        request="RestartRequest",
        answers={200: "InstanceAnswer"},
        errors=(400, 404, 408, 409, 413, 415, 503),
        headers=("Prefer",),
        request_example={"avatar_id": "test_yongen"},
        example={"status": "success", "message": "Avatar test_yongen restarted", "data": _INSTANCE},
    ),
    Route(
        name="stop-all",
        method="POST",
        path="/avatar/stop-all",
        summary="Stop all avatars",
        description="With force false those in use are left, and named. Needs the role admin.",
        request="StopAllRequest",
        body_required=False,
        answers={200: "StopAnswer"},
        errors=(400, 408, 413, 415, 503),
        request_example={"force": True},
        example={
            "status": "success",
            "message": "All avatars stopped",
            "data": {"stopped": ["g-0a1b2c3d4e"], "in_use": []},
        },
    ),
    Route(
        name="list",
        method="GET",
        path="/avatar/list",
        summary="All avatars",
        description="Oldest first.",
        answers={200: "ListAnswer"},
        example={"status": "success", "count": 1, "data": [_INSTANCE]},
    ),
    Route(
        name="info",
        method="GET",
        path="/avatar/info/{avatar_id}",
        summary="One avatar",
        description="avatar_id: of a session, of an instance, or an avatar's name. Shows the caller's own sessions.",
        answers={200: "InstanceAnswer"},
        errors=(404,),
        example={"status": "success", "data": _INSTANCE, "message": ""},
    ),
    Route(
        name="status",
        method="GET",
        path="/status",
        summary="State of everything",
        description="Pools, ports, queue, all GPUs that node agents report, speech engines in use.",
        answers={200: "StatusAnswer"},
        example={
            "status": "success",
            "data": {"manager": _MANAGER, "gpu": [_GPU], "tts": [{"engine": "edgetts", "users": 2}]},
        },
    ),
)

_ERRORS = {
    400: "The request is not valid; the message names the field.",
    401: "No token, or not a valid one.",
    403: "The role, the session's owner or the origin does not allow it.",
    404: "There is no such thing.",
    408: "The body came too slowly.",
    409: "The state of things does not allow it: in use, full, stopped meanwhile.",
    413: "The body is larger than 64 KiB (a recording: 10 MiB).",
    415: "The body is not JSON, or what the route takes instead.",
    429: "Too many requests; Retry-After says when to come again.",
    500: "A bug; the message holds the request's id.",
    501: "The avatar's runtime has no such route.",
    502: "The avatar's runtime cannot be reached, or answers nonsense.",
    504: "The avatar's runtime does not answer in time.",
    503: "Not now; Retry-After says when to come again.",
}
_HEADERS: dict[str, Json] = {
    "Idempotency-Key": {
        "description": "Names the session where avatar_id is left out: the same key is the same session.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[\\x21-\\x7e]+$"},
        "example": "7d9f2c1e-5a0b-4f7e-9c7b-0d3b1f6c2a11",
    },
    "Prefer": {
        "description": "RFC 7240: respond-async, or wait=SECONDS.",
        "schema": {"type": "string"},
        "example": "respond-async",
    },
}


def complete(document: Json) -> Json:
    """FastAPI's document with the schemas that the routes refer to."""
    document["components"] = {
        "schemas": shapes.schemas(),
        "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
    }
    document["security"] = [{"bearer": []}]
    return document


def responses(route: Route) -> dict[int | str, Json]:
    """What a route may answer."""
    found: dict[int | str, Json] = {code: _answer(route, name) for code, name in route.answers.items()}
    return found | {code: _error(code) for code in _codes(route)}


def operation(route: Route) -> Json:
    """Parameters, body and security of a route."""
    found: Json = {"parameters": _parameters(route)}
    if route.open:
        found["security"] = []
    if route.request:
        content = {"schema": {"$ref": f"#/components/schemas/{route.request}"}, "example": route.request_example}
        found["requestBody"] = {"required": route.body_required, "content": {route.media: content}}
    return found


def _codes(route: Route) -> list[int]:
    common = () if route.open else (401, 403, 429)
    return sorted({*route.errors, *common, 403, 500, 503})


def _parameters(route: Route) -> list[Json]:
    found: list[Json] = []
    for name, example in (("avatar_id", "g_user_1"), ("resource", "o-2f1d7c1e8d0c4b609b7b4a4a")):
        if f"{{{name}}}" in route.path:
            schema = {"type": "string", "minLength": 1}
            found.append({"name": name, "in": "path", "required": True, "schema": schema, "example": example})
    return found + [{"name": name, "in": "header", "required": False, **_HEADERS[name]} for name in route.headers]


def _answer(route: Route, name: str) -> Json:
    if not name:
        return {"description": route.summary}
    if name == "application/sdp":
        headers = {"Location": {"description": "What to DELETE.", "schema": {"type": "string"}}}
        return {"description": route.summary, "headers": headers, "content": {name: {"schema": {"type": "string"}}}}
    if "/" in name:
        properties = {"event": {"enum": ["phase", "ready", "failed", "gone"]}, "data": {"type": "string"}}
        schema = {"type": "object", "properties": properties, "required": ["event", "data"]}
        return {"description": route.summary, "content": {name: {"schema": schema}}}
    content = {"schema": {"$ref": f"#/components/schemas/{name}"}, "example": route.example}
    return {"description": route.summary, "content": {"application/json": content}}


def _error(code: int) -> Json:
    schema = {"$ref": "#/components/schemas/Error"}
    return {"description": _ERRORS[code], "content": {"application/json": {"schema": schema}}}
