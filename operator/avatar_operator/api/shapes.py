"""Requests and answers: the old manager's fields, and what came to them. The OpenAPI document is made of these."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

# As crds/avatars.yaml has it; the API server has the last word.
NAME_PATTERN = r"^(?!\.{1,2}$)(?![\s-])[^/\\\x00-\x1f\x7f-\x9f\u2028\u2029]+(?<!\s)(?![\s\S])"
ID_PATTERN = r"^[^/\\\x00-\x1f\x7f-\x9f\u2028\u2029]+(?![\s\S])"
OBJECT_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"

AvatarName = Annotated[
    str, Meta(min_length=1, max_length=128, pattern=NAME_PATTERN, description="Real name of the avatar, shared by all.")
]
AvatarId = Annotated[
    str,
    Meta(min_length=1, max_length=128, pattern=ID_PATTERN, description="Id of the caller's session, chosen by it."),
]
PoolName = Annotated[
    str, Meta(min_length=1, max_length=63, pattern=OBJECT_PATTERN, description="AvatarPool; default: the server's.")
]
Ttl = Annotated[float, Meta(ge=1, le=86400, description="Seconds from one heartbeat to the next. None: no lease.")]
WaitSeconds = Annotated[
    float, Meta(ge=0, le=300, description="How long the answer may take, as `Prefer: wait=` says it, too.")
]


class StartRequest(Struct, omit_defaults=True):
    """POST /avatar/start. One of ``avatar_id`` and the header Idempotency-Key is needed."""

    avatar_id: AvatarId | None = None
    avatar_name: AvatarName | None = None
    pool: PoolName | None = None
    ttl_seconds: Ttl | None = None
    wait_seconds: WaitSeconds | None = None


class DisconnectRequest(Struct, omit_defaults=True):
    """POST /avatar/disconnect: by session, or one session of an avatar."""

    avatar_name: AvatarName | None = None
    avatar_id: AvatarId | None = None
    pool: PoolName | None = None


class HeartbeatRequest(Struct, omit_defaults=True):
    """POST /avatar/heartbeat."""

    avatar_id: AvatarId


class StopRequest(Struct, omit_defaults=True):
    """POST /avatar/stop. ``avatar_id``: of a session, of an instance, or the name of an avatar."""

    avatar_id: AvatarId
    force: bool = True


class RestartRequest(Struct, omit_defaults=True):
    """POST /avatar/restart."""

    avatar_id: AvatarId
    wait_seconds: WaitSeconds | None = None


class StopAllRequest(Struct, omit_defaults=True):
    """POST /avatar/stop-all; may be left out."""

    force: bool = True


# What runtimes call their sessions.
SessionId = Annotated[str, Meta(pattern=r"^[\x21-\x7e]{1,128}(?![\s\S])")] | int


class OfferRequest(Struct, omit_defaults=True):
    """POST /avatar/{avatar_id}/offer. ``avatar_id`` names the caller's session; without it, a new one is counted."""

    sdp: Annotated[str, Meta(min_length=1, description="SDP with all candidates: no trickle.")]
    type: Literal["offer"]
    avatar_id: AvatarId | None = None


class HumanRequest(Struct, omit_defaults=True):
    """POST /avatar/{avatar_id}/human. ``sessionid``: what the answer to the offer said."""

    sessionid: SessionId
    text: Annotated[str, Meta(min_length=1, max_length=5000)]
    type: Literal["echo", "chat"] = "echo"
    interrupt: bool = False


class SpeakerRequest(Struct, omit_defaults=True):
    """POST /avatar/{avatar_id}/interrupt_talk and /is_speaking."""

    sessionid: SessionId


class Ice(Struct, omit_defaults=True):
    """As RTCIceServer."""

    urls: list[str]
    username: str = ""
    credential: str = ""


class Tts(Struct):
    """The speech of an instance."""

    engine: str = ""
    voice: str = ""


class SessionView(Struct):
    """One session."""

    avatar_id: str
    user: str | None = None
    since: datetime | None = None
    expires: datetime | None = None


class InstanceView(Struct):
    """An instance as /avatar/list and /avatar/info show it. Times are UTC; ``pid`` is always null."""

    avatar_id: str
    real_avatar_name: str
    port: int | None
    gpu: int | None
    running: bool
    connections: int
    uptime_seconds: int
    start_time: datetime | None
    webrtc_url: str | None
    phase: str
    reason: str
    message: str
    instance: str
    pool: str
    node: str | None
    queue_position: int | None
    observed_sessions: int | None
    idle_deadline: datetime | None
    restarts: int
    tts: Tts
    pid: None = None
    sessions: list[SessionView] | None = None


class StartView(Struct):
    """What a start gives. ``is_new``: this start made the instance or woke it."""

    avatar_id: str
    port: int | None
    gpu: int | None
    webrtc_url: str | None
    connections: int
    is_new: bool
    real_avatar_name: str
    running: bool
    phase: str
    instance: str
    start_time: datetime | None
    uptime_seconds: int
    queue_position: int | None = None
    expires: datetime | None = None
    ice_servers: list[Ice] = []
    ice_transport_policy: str = "all"
    pid: None = None


class DisconnectView(Struct):
    """What is left after a disconnect; ``disconnected`` False: there was no such session."""

    avatar_name: str | None
    avatar_id: str | None
    connections: int
    disconnected: bool


class HeartbeatView(Struct):
    """The lease after a heartbeat; ``running`` False: the instance does not serve at the moment."""

    avatar_id: str
    expires: datetime | None
    connections: int
    running: bool
    phase: str


class StopView(Struct):
    """Names of the instances that were stopped, and of those that were left as somebody uses them."""

    stopped: list[str]
    in_use: list[str] = []


class GpuMemory(Struct):
    """Memory of a GPU in GiB, as the old manager counted."""

    total_gb: float
    used_gb: float
    free_gb: float
    usage_percent: float


class GpuView(Struct):
    """One GPU of a node."""

    gpu_id: int
    name: str
    memory: GpuMemory | None
    temperature_celsius: int | None
    gpu_utilization_percent: int | None
    power_draw_watts: float | None
    power_limit_watts: float | None
    node: str
    uuid: str
    healthy: bool
    alerts: list[str]


class PoolView(Struct):
    """One pool."""

    max: int
    running: int
    available: int
    queue_length: int
    ports: list[int]
    phases: dict[str, int]


class ManagerView(Struct):
    """All pools together."""

    running: int
    max: int
    available: int
    queue_length: int
    connections: int
    phases: dict[str, int]
    pools: dict[str, PoolView]


class TtsView(Struct):
    """A speech engine and how many instances speak with it."""

    engine: str
    users: int


class StatusView(Struct):
    """GET /status."""

    manager: ManagerView
    gpu: list[GpuView]
    tts: list[TtsView]


class Health(Struct):
    """GET /health."""

    status: str
    service: str
    version: str
    timestamp: datetime


class StartAnswer(Struct):
    """A start that serves; with status ``accepted``: one that is on its way."""

    status: str
    message: str
    data: StartView


class OfferAnswer(Struct):
    """The runtime's answer. ``sessionid`` is the runtime's own name of the session, ``avatar_id`` the API's."""

    sdp: str
    type: str
    sessionid: str | int
    avatar_id: str
    ice_servers: list[Ice]


class TalkAnswer(Struct):
    """The runtime has taken it."""

    status: str


class SpeakingAnswer(Struct):
    """Whether the avatar says something, or is about to."""

    status: str
    data: bool


class DisconnectAnswer(Struct):
    """A disconnect."""

    status: str
    message: str
    data: DisconnectView


class HeartbeatAnswer(Struct):
    """A heartbeat."""

    status: str
    data: HeartbeatView


class StopAnswer(Struct):
    """A stop or a stop of all."""

    status: str
    message: str
    data: StopView


class InstanceAnswer(Struct):
    """One instance."""

    status: str
    data: InstanceView
    message: str = ""


class ListAnswer(Struct):
    """All instances."""

    status: str
    count: int
    data: list[InstanceView]


class StatusAnswer(Struct):
    """The state of everything."""

    status: str
    data: StatusView


class Error(Struct):
    """Every answer that is not a success."""

    status: str
    message: str


ANSWERS: tuple[type[Struct], ...] = (
    StartAnswer,
    OfferAnswer,
    TalkAnswer,
    SpeakingAnswer,
    DisconnectAnswer,
    HeartbeatAnswer,
    StopAnswer,
    InstanceAnswer,
    ListAnswer,
    StatusAnswer,
    Health,
    Error,
)
REQUESTS: tuple[type[Struct], ...] = (
    StartRequest,
    OfferRequest,
    HumanRequest,
    SpeakerRequest,
    DisconnectRequest,
    HeartbeatRequest,
    StopRequest,
    RestartRequest,
    StopAllRequest,
)


# Of these fields one must be given. (A start may do without, where it has an Idempotency-Key.)
NEEDED = {"StartRequest": ["avatar_id"], "DisconnectRequest": ["avatar_name", "avatar_id"]}


def schemas() -> dict[str, Any]:
    """JSON schemas of all of the above by name, for components.schemas."""
    _, components = msgspec.json.schema_components([*REQUESTS, *ANSWERS], ref_template="#/components/schemas/{name}")
    for name, needed in NEEDED.items():
        given = [{"required": [field], "properties": {field: {"type": "string"}}} for field in needed]
        components[name]["anyOf"] = given
    # Not read by msgspec: a form, and SDP itself.
    components["AudioRequest"] = {
        "type": "object",
        "required": ["sessionid", "file"],
        "additionalProperties": False,
        "properties": {
            "sessionid": {"type": "string", "minLength": 1},
            "file": {"type": "string", "format": "binary", "minLength": 1},
        },
    }
    components["Sdp"] = {"type": "string", "pattern": r"^v=0\r?\n"}
    return components
