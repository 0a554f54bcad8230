"""One namespace of a test with everything in it, and the sentences that tests are written in."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from .api import GROUP, Api, Json, Refused, until

MANAGED = "?labelSelector=app.kubernetes.io/component%3Davatar-runtime"
POOL: Json = {
    "runtime": {
        "image": "runtime.test/avatar:1",
        "nodeSelector": {"type": "kwok"},
        "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
    },
    # With fake nodes shared by all tests, host ports of one test would keep another's pods off them.
    "network": {"mode": "Pod"},
    "idle": {"timeoutSeconds": 0, "activitySource": "Connections"},
}


def merged(base: Json, over: Json) -> Json:
    """``base`` with ``over`` laid over it, objects into each other."""
    result = copy.deepcopy(base)
    for key, value in over.items():
        inner = result.get(key)
        result[key] = merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return result


def named(kind: str, name: str, spec: Json) -> Json:
    """An object of our group."""
    return {"apiVersion": f"{GROUP}/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


@dataclass
class World:
    """``namespace`` through ``api``."""

    api: Api
    namespace: str

    # ---- making ----------------------------------------------------------------------------

    async def pool(self, name: str = "default", **spec: Any) -> Json:
        """An AvatarPool on fake nodes; ``spec`` is laid over a plain one."""
        return await self.api.create("avatarpools", self.namespace, named("AvatarPool", name, merged(POOL, spec)))

    async def avatar(self, *names: str, **spec: Any) -> None:
        """An Avatar for each name."""
        for name in names:
            body = named("Avatar", name.lower().replace(" ", "-"), {"avatarName": name, **spec})
            await self.api.create("avatars", self.namespace, body)

    async def instance(self, name: str, avatar: str = "ada", **spec: Any) -> Json:
        """An AvatarInstance."""
        body = named("AvatarInstance", name, {"avatarName": avatar, **spec})
        return await self.api.create("avatarinstances", self.namespace, body)

    async def engine(self, name: str, **spec: Any) -> Json:
        """A TTSEngine."""
        return await self.api.create("ttsengines", self.namespace, named("TTSEngine", name, spec))

    async def engine_status(self, name: str) -> Json:
        """Its status; empty while there is none, ``{"gone": True}`` when it is gone."""
        found = await self.api.get("ttsengines", self.namespace, name)
        return {"gone": True} if found is None else dict(found.get("status", {}))

    async def engine_phase(self, name: str, phase: str, timeout: float = 20) -> Json:
        """Wait for an engine's phase; the status then."""
        return await until(
            f"engine {name} being {phase}",
            lambda: self.engine_status(name),
            lambda s: s.get("phase") == phase,
            timeout,
        )

    async def engine_pods(self, name: str) -> list[Json]:
        """The pods of an engine."""
        return await self.api.list("pods", self.namespace, f"?labelSelector={GROUP}%2Ftts-engine%3D{name}")

    async def used(self, *names: str) -> None:
        """An Avatar and an AvatarInstance for each name, running, with a client."""
        await self.avatar(*names)
        for name in names:
            await self.instance(name, name)
            await self.connections(name, 1)
        for name in names:
            await self.until(name, "being used", lambda s: s.get("phase") == "Running" and "idleDeadline" not in s)

    async def delete(self, *names: str) -> None:
        """Delete AvatarInstances."""
        for name in names:
            await self.api.delete("avatarinstances", self.namespace, name)

    async def connections(self, name: str, count: int) -> None:
        """Patch the count as a backend does."""
        await self.set_status(name, {"connections": count})

    async def set_status(self, name: str, status: Json) -> Json:
        """Merge-patch an instance's status."""
        return await self.api.patch("avatarinstances", self.namespace, name, {"status": status}, "status")

    async def patch_pod(self, name: str, status: Json | None = None, labels: Json | None = None) -> None:
        """Play the kubelet (status), or steer kwok (labels)."""
        if labels is not None:
            await self.api.patch("pods", self.namespace, name, {"metadata": {"labels": labels}})
        if status is not None:
            await self.api.patch("pods", self.namespace, name, {"status": status}, "status")

    async def delete_pod(self, name: str) -> None:
        """Delete a pod by hand."""
        await self.api.delete("pods", self.namespace, name)

    # ---- looking ---------------------------------------------------------------------------

    async def get(self, name: str) -> Json | None:
        """The AvatarInstance."""
        return await self.api.get("avatarinstances", self.namespace, name)

    async def status(self, name: str) -> Json:
        """Its status; empty while there is none, ``{"gone": True}`` when the instance is gone."""
        found = await self.get(name)
        return {"gone": True} if found is None else dict(found.get("status", {}))

    async def statuses(self) -> dict[str, Json]:
        """All of them."""
        items = await self.api.list("avatarinstances", self.namespace)
        return {item["metadata"]["name"]: item.get("status", {}) for item in items}

    async def pods(self) -> list[Json]:
        """The avatars' pods."""
        return await self.api.list("pods", self.namespace, MANAGED)

    async def pod_uids(self) -> dict[str, str]:
        """UIDs of the avatars' pods by name."""
        return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in await self.pods()}

    async def is_in(self, name: str, phase: str) -> bool:
        """Whether an instance is in a phase now."""
        return bool((await self.status(name)).get("phase") == phase)

    async def services(self) -> list[Json]:
        """The operator's Services."""
        return await self.api.list("services", self.namespace, MANAGED)

    async def left(self) -> list[str]:
        """Names of the operator's pods and Services."""
        pods, services = await asyncio.gather(self.pods(), self.services())
        return [f"pod/{p['metadata']['name']}" for p in pods] + [f"svc/{s['metadata']['name']}" for s in services]

    async def events(self, reason: str) -> list[Json]:
        """Events with a reason."""
        return [e for e in await self.api.list("events", self.namespace) if e["reason"] == reason]

    # ---- waiting ---------------------------------------------------------------------------

    async def until(
        self, name: str, what: str, good: Callable[[Json], Any], timeout: float = 20, interval: float = 0.05
    ) -> Json:
        """Wait for an instance's status."""
        return await until(f"{name} {what}", lambda: self.status(name), good, timeout, interval)

    async def phase(self, name: str, phase: str, timeout: float = 20, reason: str = "") -> Json:
        """Wait for a phase (and a reason); the status then."""
        return await self.until(
            name,
            f"being {phase} {reason}".rstrip(),
            lambda s: s.get("phase") == phase and reason in ("", s.get("reason")),
            timeout,
        )

    async def gone(self, name: str, timeout: float = 20) -> None:
        """Wait until an instance is gone."""
        await self.until(name, "being gone", lambda s: "gone" in s, timeout)

    async def nothing_left(self, timeout: float = 20) -> None:
        """Wait until no pod and no Service of the operator is left."""
        await until("no pod and no Service being left", self.left, lambda names: not names, timeout)

    async def stays(self, what: str, look: Callable[[], Any], seconds: float) -> None:
        """``look`` (an async function) stays true for some seconds."""
        end = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < end:
            assert await look(), f"{what} did not stay so"
            await asyncio.sleep(0.1)


def condition(status: Json, kind: str) -> Json:
    """A condition of a status; empty when it is not there."""
    return next((dict(c) for c in status.get("conditions", []) if c["type"] == kind), {})


@dataclass
class Invariants:
    """Watches pods and Services and notes every moment at which a port was held twice, or the pool overfull.

    Use as ``async with Invariants.watching(world, capacity)``.
    """

    capacity: int
    most: int = 0
    broken: list[str] = field(default_factory=list)
    _live: dict[str, dict[str, str]] = field(default_factory=lambda: {"pods": {}, "services": {}})

    @classmethod
    @contextlib.asynccontextmanager
    async def watching(cls, world: World, capacity: int) -> AsyncIterator[Invariants]:
        """Watch until the block ends."""
        found = cls(capacity)
        opened = {resource: asyncio.Event() for resource in ("pods", "services")}
        tasks = [asyncio.create_task(found._follow(world, *watch)) for watch in opened.items()]
        try:
            await asyncio.wait_for(asyncio.gather(*(event.wait() for event in opened.values())), 15)
            yield found
            failed = [t for t in tasks if t.done()]
            assert not failed, f"a watch ended: {failed}"
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, world: World, resource: str, opened: asyncio.Event) -> None:
        live = self._live[resource]
        async for event in world.api.watch(resource, world.namespace, opened):
            meta = event["object"]["metadata"]
            port = meta.get("labels", {}).get(f"{GROUP}/port")
            if port is None:
                continue
            if event["type"] == "DELETED":
                live.pop(meta["uid"], None)
                continue
            live[meta["uid"]] = port
            self.most = max(self.most, len(live))
            if len(set(live.values())) != len(live):
                self.broken.append(f"two {resource} with one port: {sorted(live.values())}")
            if len(live) > self.capacity:
                self.broken.append(f"{len(live)} {resource} in a pool of {self.capacity}")


__all__ = ["MANAGED", "Invariants", "Refused", "World", "condition", "until"]
