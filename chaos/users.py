"""The users of a run: what they do to the namespace, with plain requests of their own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp

from tests.support.api import Json, Refused
from tests.support.world import World

from .deeds import Deeds
from .plan import PoolPlan, Step
from .runtimes import Runtimes

Deed = Callable[..., Awaitable[None]]
# Answers that a user lives with: it is gone, it is there already, somebody else was faster, or it is not valid now.
ROUTINE = (404, 409, 422, 429)
ENDS: dict[str, Json] = {
    "fail": {"labels": {"avatars.test/fail": "true"}},
    "complete": {"labels": {"avatars.test/complete": "true"}},
    "crash": {"labels": {"avatars.test/crash": "true"}},
    "evicted": {"status": {"phase": "Failed", "reason": "Evicted", "message": "the node was low on memory"}},
    "oom": {"status": {"phase": "Failed", "reason": "OutOfcpu", "message": "the node has not enough cpu"}},
}


class Users:
    """Plays the users' steps in ``world``; what they do is written down in ``deeds``."""

    def __init__(self, world: World, deeds: Deeds, runtimes: Runtimes | None) -> None:
        self.world = world
        self.deeds = deeds
        self.done = 0
        self.refused = 0
        self._runtimes = runtimes
        self._unready: set[str] = set()
        self._lost: list[Callable[[], Awaitable[Any]]] = []
        self.steps: dict[str, Deed] = {
            "create": self.create,
            "delete": self.delete,
            "connect": self.connect,
            "disconnect": self.disconnect,
            "json-connect": self.json_connect,
            "join": self.join,
            "leave": self.leave,
            "talk": self.talk,
            "set-idle": self.set_idle,
            "set-capacity": self.set_capacity,
            "set-image": self.set_image,
            "set-voice": self.set_voice,
            "set-spec": self.set_spec,
            "lose-avatar": self.lose_avatar,
            "make-avatar": self.make_avatar,
            "delete-pod": self.delete_pod,
            "evict-pod": self.evict_pod,
            "end-pod": self.end_pod,
            "unready-pod": self.unready_pod,
            "delete-service": self.delete_service,
            "wipe-status": self.wipe_status,
        }

    async def do(self, step: Step) -> None:
        """One step; what the API server refuses as routine is no error."""
        try:
            await self.steps[step.what](**step.args)
            self.done += 1
        except Refused as refused:
            self.refused += 1
            if refused.status not in ROUTINE and refused.status < 500:
                raise
        except (aiohttp.ClientError, TimeoutError):
            self.refused += 1

    async def begin(self, pools: tuple[PoolPlan, ...], spec: Json, avatars: tuple[str, ...]) -> None:
        """The pools and avatars that a run begins with; ``spec`` is what all pools have."""
        for pool in pools:
            await self.world.pool(
                pool.name,
                **{
                    "ports": {"base": pool.base, "count": pool.count},
                    "maxInstances": pool.capacity,
                    "idle": {
                        "timeoutSeconds": pool.idle,
                        "action": pool.action,
                        "activitySource": pool.source,
                        "connectionLeakSeconds": pool.leak,
                    },
                    "queue": {"timeoutSeconds": pool.queue_timeout},
                    "health": {"periodSeconds": 1, "failures": 3},
                    "startupTimeoutSeconds": 6,
                    "termination": {"drainSeconds": 1},
                    **spec,
                },
            )
        await self.world.avatar(*avatars)

    async def calm(self) -> None:
        """Take back what would keep the system from settling: pods held unready, avatars away."""
        for name in sorted(self._unready):
            with contextlib.suppress(Refused):
                await self.world.patch_pod(name, labels={"avatars.test/unready": None, "avatars.test/crash": None})

    # ---- instances ---------------------------------------------------------------------

    async def create(
        self,
        name: str,
        avatar: str,
        pool: str = "default",
        exclusive: bool = False,
        idle: int | None = None,
        action: str = "",
    ) -> None:
        """Make an AvatarInstance."""
        wish: Json = {**({} if idle is None else {"timeoutSeconds": idle}), **({"action": action} if action else {})}
        await self.world.instance(name, avatar, poolRef=pool, exclusive=exclusive, **({"idle": wish} if wish else {}))

    async def delete(self, name: str) -> None:
        """Delete one."""
        await self._delete("avatarinstances", name)

    async def connect(self, name: str, count: int) -> None:
        """Count connections as a backend does, with a merge patch."""
        await self._count(name, lambda body: {"status": {"connections": count, "sessions": []}}, count)

    async def disconnect(self, name: str) -> None:
        """All clients leave."""
        await self._count(name, lambda body: {"status": {"connections": 0, "sessions": []}}, 0)

    async def json_connect(self, name: str, count: int) -> None:
        """Count connections with a JSON patch."""
        patch = [{"op": "add", "path": "/status/connections", "value": count}]
        await self._count(name, lambda body: patch if "status" in body else None, count, kind="json")

    async def join(self, name: str, id: str, lease: int | None) -> None:
        """A named session, by compare-and-swap, with a lease of so many seconds."""
        now = datetime.now(UTC).replace(microsecond=0)
        session: Json = {"id": id, "user": "chaos", "since": f"{now:%Y-%m-%dT%H:%M:%SZ}"}
        if lease is not None:
            session |= {"expires": f"{now + timedelta(seconds=lease + 1):%Y-%m-%dT%H:%M:%SZ}", "ttlSeconds": lease}

        def roll(body: Json) -> Json:
            status = body.get("status", {})
            old = status.get("sessions", [])
            kept = [s for s in old if s["id"] != id]
            surplus = max(0, status.get("connections", 0) - len(old))
            return _exactly(body, {"sessions": [*kept, session], "connections": len(kept) + 1 + surplus})

        await self._count(name, roll, -1)

    async def leave(self, name: str, id: str) -> None:
        """A named session ends."""

        def roll(body: Json) -> Json | None:
            status = body.get("status", {})
            old = status.get("sessions", [])
            kept = [s for s in old if s["id"] != id]
            if len(kept) == len(old):
                return None
            return _exactly(body, {"sessions": kept, "connections": max(0, status.get("connections", 0) - 1)})

        await self._count(name, roll, -1)

    async def set_spec(self, name: str, idle: int, sessions: int) -> None:
        """Change an instance's spec."""
        body = {"spec": {"idle": {"timeoutSeconds": idle}, "maxSessions": sessions}}
        await self.world.api.patch("avatarinstances", self.world.namespace, name, body)

    async def wipe_status(self, name: str) -> None:
        """Somebody removes the status, counts and all."""
        await self._count(name, lambda body: {"status": None}, 0)

    async def _count(self, name: str, make: Callable[[Json], Any], count: int, kind: str = "merge") -> None:
        body = await self.world.get(name)
        patch = make(body) if body is not None else None
        if body is None or patch is None:
            return
        uid = body["metadata"]["uid"]
        try:
            answer = await self.world.api.patch(
                "avatarinstances", self.world.namespace, name, patch, "status", kind=kind
            )
        except Refused:
            raise
        except BaseException:
            # No answer came, or the run's time was over while one was waited for: it may have been done.
            self.deeds.perhaps.add((uid, count))
            raise
        self.deeds.counted.add((answer["metadata"]["uid"], int(answer["metadata"]["resourceVersion"])))

    async def talk(self, port: int, seconds: float) -> None:
        """A page opens a session with the runtime itself; nobody counts it."""
        if self._runtimes is not None:
            await self._runtimes.talk(port, seconds)

    # ---- administrators ----------------------------------------------------------------

    async def set_idle(self, pool: str, seconds: int) -> None:
        """Change a pool's idle timeout."""
        await self._pool(pool, {"idle": {"timeoutSeconds": seconds}})

    async def set_capacity(self, pool: str, count: int) -> None:
        """Change how many may run."""
        await self._pool(pool, {"maxInstances": count})

    async def set_image(self, pool: str, tag: int) -> None:
        """Change what pods are made of: they roll."""
        await self._pool(pool, {"runtime": {"image": f"runtime.test/avatar:{tag}"}})

    async def set_voice(self, avatar: str, voice: str) -> None:
        """Change an avatar: its pods roll."""
        body = {"spec": {"tts": {"voice": voice}}}
        await self.world.api.patch("avatars", self.world.namespace, avatar.lower(), body)

    async def lose_avatar(self, avatar: str, seconds: float) -> None:
        """An Avatar is deleted by mistake and comes back."""
        await self.world.api.delete("avatars", self.world.namespace, avatar.lower())
        await asyncio.sleep(seconds)
        await self.world.avatar(avatar)

    async def make_avatar(self, avatar: str) -> None:
        """An Avatar that was waited for."""
        await self.world.avatar(avatar)

    async def _pool(self, name: str, spec: Json) -> None:
        await self.world.api.patch("avatarpools", self.world.namespace, name, {"spec": spec})

    # ---- pods and Services -------------------------------------------------------------

    async def delete_pod(self, port: int, now: bool) -> None:
        """Delete a pod by hand, perhaps without grace."""
        await self._delete("pods", f"avatar-{port}", **({"gracePeriodSeconds": 0} if now else {}))

    async def delete_service(self, port: int) -> None:
        """Delete a claim by hand."""
        await self._delete("services", f"avatar-{port}")

    async def evict_pod(self, port: int) -> None:
        """Evict as a drain of the node does."""
        name = f"avatar-{port}"
        pod = await self.world.api.get("pods", self.world.namespace, name)
        if pod is None:
            return
        self.deeds.delete(pod["metadata"]["uid"])
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
        path = f"/api/v1/namespaces/{self.world.namespace}/pods/{name}/eviction"
        await self.world.api.call("POST", path, body)

    async def end_pod(self, port: int, how: str) -> None:
        """The pod fails, or its runtime ends."""
        pod = await self._breaking(port)
        if pod is not None:
            await self.world.patch_pod(pod, **ENDS[how])

    async def unready_pod(self, port: int, seconds: float) -> None:
        """The runtime does not answer its probe for a while."""
        pod = await self._breaking(port)
        if pod is None:
            return
        await self.world.patch_pod(pod, labels={"avatars.test/unready": "true"})
        await asyncio.sleep(seconds)
        await self.world.patch_pod(pod, labels={"avatars.test/unready": None})

    async def _breaking(self, port: int) -> str | None:
        name = f"avatar-{port}"
        pod = await self.world.api.get("pods", self.world.namespace, name)
        if pod is None:
            return None
        self.deeds.break_pod(pod["metadata"]["uid"])
        self._unready.add(name)
        return name

    async def _delete(self, resource: str, name: str, **options: Any) -> None:
        found = await self.world.api.get(resource, self.world.namespace, name)
        if found is None:
            return
        uid = found["metadata"]["uid"]
        self.deeds.delete(uid, f"{resource}/{name}")
        await self.world.api.delete(resource, self.world.namespace, name, {"preconditions": {"uid": uid}, **options})


def _exactly(body: Json, status: Json) -> Json:
    """A patch that holds for this version only."""
    return {"metadata": {"resourceVersion": body["metadata"]["resourceVersion"]}, "status": status}
