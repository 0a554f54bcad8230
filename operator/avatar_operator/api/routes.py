"""The routes: from a request to what it asks for, and back to the old manager's fields."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from avatar_operator import __version__
from avatar_operator.domain import progress
from avatar_operator.domain.progress import Ready, Refused
from avatar_operator.domain.resources import Instance

from . import requests, shapes, views
from .caller import Principal, Role
from .door import Door, Policy
from .edge import trail
from .ends import Ends
from .ice import Ice
from .metrics import ApiMetrics
from .problems import Problem, bad_request, forbidden, not_found
from .starts import Start, Started, Starts, session_id
from .world import World

JSON = "application/json"
ID_MOST = 253
EVENT_STREAMS_MOST = 1000
# An event stream is closed after so long (seconds); a client that still waits opens another.
EVENT_STREAM_SECONDS = 900.0
EVENT_BEAT_SECONDS = 10.0

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(slots=True)
class Routes:
    """One method for each route."""

    world: World
    starts: Starts
    ends: Ends
    ice: Ice
    door: Door
    metrics: ApiMetrics
    policy: Policy
    now: Callable[[], datetime]
    streams: int = 0

    # ---- open to all -----------------------------------------------------------------

    async def health(self, request: Request) -> Response:
        """Whether this server works; needs no token."""
        trail(request.scope).route = "health"
        if not all(r.synced.is_set() for r in self.world.reflectors.values()):
            raise Problem(503, "not ready: the cluster has not been read yet", retry_after=1)
        return json_answer(shapes.Health("healthy", "avatar-manager", __version__, _seconds(self.now())))

    # ---- sessions --------------------------------------------------------------------

    async def start(self, request: Request) -> Response:
        """Start or join an avatar, and wait until it serves."""
        who, path = await self.door.enter(request, "start", Role.USER)
        ask = self._start_of(request, await requests.read(request, shapes.StartRequest), who)
        path.facts |= {"avatar_id": ask.avatar_id, "avatar_name": ask.avatar_name}
        await self.door.limit(who, "subject")
        started = await self.starts.start(ask, who)
        path.facts |= {"instance": started.instance.metadata.name, "connections": started.connections}
        ice = await self.ice.servers(started.pool, started.session.user or ask.avatar_id, self.now())
        view = views.start_view(
            started.instance, started.session, started.connections, self.now(), is_new=started.is_new, ice=ice
        )
        if ask.respond_async and not started.serves:
            headers = {"Location": _events(ask.avatar_id), "Preference-Applied": "respond-async"}
            return json_answer(shapes.StartAnswer("accepted", "Avatar is starting", view), 202, headers)
        return json_answer(shapes.StartAnswer("success", _start_message(started), view))

    def _start_of(self, request: Request, body: shapes.StartRequest, who: Principal) -> Start:
        key = requests.idempotency_key(request)
        respond_async, wait = requests.preferences(request)
        avatar_id, name = body.avatar_id, body.avatar_name
        if avatar_id is None and (key is None or name is None):
            raise bad_request("avatar_id is required (or avatar_name and the header Idempotency-Key)")
        if name is None:
            # As the old manager did: g_user_1 is a session of g.
            name = (avatar_id or "").split("_user_")[0]
        if avatar_id is None:
            avatar_id = session_id(key or "", who.subject, name)
        asked = body.wait_seconds if body.wait_seconds is not None else wait
        return Start(
            avatar_id=avatar_id,
            avatar_name=name,
            pool=body.pool or self.policy.pool,
            ttl=None if body.ttl_seconds is None else math.ceil(body.ttl_seconds),
            patience=self.policy.patience if asked is None else asked,
            explicit=asked is not None,
            respond_async=respond_async,
        )

    async def disconnect(self, request: Request) -> Response:
        """End a session; the instance stays until it was idle for long enough."""
        who, path = await self.door.enter(request, "disconnect", Role.USER)
        body = await requests.read(request, shapes.DisconnectRequest)
        if body.avatar_id is None and body.avatar_name is None:
            raise bad_request("avatar_name or avatar_id is required")
        path.facts |= {"avatar_id": body.avatar_id, "avatar_name": body.avatar_name}
        done = await self.ends.disconnect(body.avatar_id, body.avatar_name, body.pool or self.policy.pool, who)
        ended = done.session is not None
        path.facts |= {"connections": done.connections, "ended": done.session}
        view = shapes.DisconnectView(done.avatar_name, done.session or body.avatar_id, done.connections, ended)
        message = "Avatar disconnected successfully" if ended else "There was no session to disconnect"
        return json_answer(shapes.DisconnectAnswer("success", message, view))

    async def heartbeat(self, request: Request) -> Response:
        """Renew the lease of a session."""
        who, path = await self.door.enter(request, "heartbeat", Role.USER)
        body = await requests.read(request, shapes.HeartbeatRequest)
        path.facts |= {"avatar_id": body.avatar_id}
        renewed, item = await self.ends.heartbeat(body.avatar_id, who)
        running = progress.serves(item)
        view = shapes.HeartbeatView(
            body.avatar_id, renewed.session.expires, renewed.connections, running, item.status.phase or "Pending"
        )
        return json_answer(shapes.HeartbeatAnswer("success", view), headers={} if running else {"Retry-After": "2"})

    async def events(self, request: Request) -> Response:
        """The phases of a session's instance as server-sent events, until it serves or cannot."""
        who, path = await self.door.enter(request, "events", Role.USER)
        avatar_id = path_id(request)
        item = self._session_of(avatar_id, who)
        if self.streams >= EVENT_STREAMS_MOST:
            self.metrics.limited.labels("streams").inc()
            raise Problem(503, "too many event streams at once; try again", retry_after=5)
        path.facts |= {"avatar_id": avatar_id}
        return StreamingResponse(self._phases(item, avatar_id), media_type="text/event-stream")

    def _session_of(self, avatar_id: str, who: Principal) -> Instance:
        for item in self.world.of_session(avatar_id):
            for session in item.status.sessions:
                if session.id == avatar_id and not who.caller.may_touch(session):
                    raise forbidden(f"avatar_id {avatar_id!r} is the session of another user")
            return item
        raise not_found(f"there is no session {avatar_id!r}")

    async def _phases(self, item: Instance, avatar_id: str) -> AsyncIterator[bytes]:
        self.streams += 1
        told: tuple[object, ...] = ()
        deadline = self.now() + timedelta(seconds=EVENT_STREAM_SECONDS)
        try:
            with self.metrics.streams.track_inprogress():
                async for now in self.starts.follow(item.metadata.name, deadline, EVENT_BEAT_SECONDS):
                    session = next((s for s in now.status.sessions if s.id == avatar_id), None) if now else None
                    if now is None or now.metadata.uid != item.metadata.uid or session is None:
                        yield _event("gone", {"avatar_id": avatar_id, "message": "the session has ended"})
                        return
                    verdict = progress.verdict(now, self.now(), deadline)
                    view = views.start_view(now, session, now.counted_connections, self.now(), is_new=False)
                    facts = (view.phase, now.status.reason, now.status.message, view.queue_position, view.webrtc_url)
                    if facts != told:
                        told = facts
                        yield _event("phase", {**msgspec.to_builtins(view), "message": now.status.message})
                    else:
                        yield b": still here\n\n"
                    if isinstance(verdict, Ready):
                        pool = self.world.pool(now.spec.pool_ref)
                        if pool is not None:
                            ice = await self.ice.servers(pool, session.user or avatar_id, self.now())
                            view.ice_servers = [shapes.Ice(s.urls, s.username, s.credential) for s in ice]
                        yield _event("ready", msgspec.to_builtins(view))
                        return
                    if isinstance(verdict, Refused):
                        yield _event("failed", {"avatar_id": avatar_id, "message": verdict.message})
                        return
                    if self.starts.closing.is_set():
                        return
        finally:
            self.streams -= 1

    # ---- instances -------------------------------------------------------------------

    async def stop(self, request: Request) -> Response:
        """Stop an avatar; without force only if nobody is connected."""
        _, path = await self.door.enter(request, "stop", Role.ADMIN)
        body = await requests.read(request, shapes.StopRequest)
        path.facts |= {"avatar_id": body.avatar_id, "force": body.force}
        stopped = await self.ends.stop(body.avatar_id, force=body.force)
        return json_answer(shapes.StopAnswer("success", f"Avatar {body.avatar_id} stopped", shapes.StopView(stopped)))

    async def stop_all(self, request: Request) -> Response:
        """Stop every avatar of the namespace."""
        _, path = await self.door.enter(request, "stop-all", Role.ADMIN)
        body = await requests.read(request, shapes.StopAllRequest, empty=True)
        stopped, used = await self.ends.stop_all(force=body.force)
        path.facts |= {"force": body.force, "stopped": len(stopped), "in_use": len(used)}
        message = "All avatars stopped" if not used else f"{len(used)} avatars are in use and were left"
        return json_answer(shapes.StopAnswer("success", message, shapes.StopView(stopped, used)))

    async def restart(self, request: Request) -> Response:
        """Replace the pod of an avatar; its sessions stay counted."""
        _, path = await self.door.enter(request, "restart", Role.ADMIN)
        body = await requests.read(request, shapes.RestartRequest)
        path.facts |= {"avatar_id": body.avatar_id}
        _, wait = requests.preferences(request)
        asked = body.wait_seconds if body.wait_seconds is not None else wait
        item = await self.ends.restart(body.avatar_id, self.policy.patience if asked is None else asked)
        view = views.instance_view(self.world, item, self.now(), body.avatar_id)
        return json_answer(shapes.InstanceAnswer("success", view, f"Avatar {body.avatar_id} restarted"))

    # ---- looking ---------------------------------------------------------------------

    async def list(self, request: Request) -> Response:
        """Every instance."""
        await self.door.enter(request, "list", Role.VIEWER)
        found = sorted(self.world.instances.values(), key=lambda i: i.age_key)
        data = [views.instance_view(self.world, i, self.now()) for i in found]
        return json_answer(shapes.ListAnswer("success", len(data), data))

    async def info(self, request: Request) -> Response:
        """One instance, by a session's id, its own, or the avatar's name."""
        who, _ = await self.door.enter(request, "info", Role.VIEWER)
        text = path_id(request)
        found = self.world.resolve(text)
        if not found:
            raise not_found(f"there is no avatar {text!r} running")
        item = found[0]
        asked = text if any(s.id == text for s in item.status.sessions) else ""
        view = views.instance_view(self.world, item, self.now(), asked)
        view.sessions = views.session_views(s for s in item.status.sessions if who.caller.may_touch(s))
        return json_answer(shapes.InstanceAnswer("success", view))

    async def status(self, request: Request) -> Response:
        """Pools, GPUs and speech."""
        await self.door.enter(request, "status", Role.VIEWER)
        return json_answer(shapes.StatusAnswer("success", views.status_view(self.world, self.now())))


def path_id(request: Request, name: str = "avatar_id") -> str:
    """An id in the path."""
    text: str = request.path_params[name]
    if len(text) > ID_MOST:
        raise not_found("there is no avatar with so long an id")
    return text


def json_answer(answer: msgspec.Struct, code: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An answer of ours."""
    return Response(msgspec.json.encode(answer), code, headers, JSON)


def _event(name: str, data: object) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode(data) + b"\n\n"


def _events(avatar_id: str) -> str:
    return f"/avatar/events/{quote(avatar_id, safe='')}"


def _seconds(when: datetime) -> datetime:
    return when.astimezone(UTC).replace(microsecond=0)


def _start_message(started: Started) -> str:
    return "Avatar started successfully" if started.is_new else "Avatar reused successfully"
