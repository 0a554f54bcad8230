"""GPU nodes of a test's own: kwok nodes whose GPUs are played by arithmetic and reported as the node agent does.

Every quarter of a second the model moves: external processes grow or shrink, pods that are Ready load their share,
pods that are gone let go of it. What comes out is applied to GPUNode.status whenever it changed, and once per
heartbeat, with the field manager of the agent. Which GPU a pod computes on is read from NVIDIA_VISIBLE_DEVICES in
its container, as the hardware would: not from labels that the operator keeps its books in.

Memory in MiB, times in seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from .api import GROUP, Api, Json, Refused, path_of, until

GPUNODES = "gpunodes"
TICK = 0.25
GIB_24 = 24576
LABEL_WORLD = "avatars.test/world"
LABEL_TIER = "avatars.test/tier"
LABEL_GPU = f"{GROUP}/gpu"
GPU_NODE = f"{GROUP}/gpu-node"
GPU_INDEX = f"{GROUP}/gpu-index"
GPU_MIB = f"{GROUP}/gpu-mib"
AVATAR_NAME = f"{GROUP}/avatar-name"


@dataclass
class Use:
    """What one pod does with one GPU. ``share`` is what it takes once it is loaded."""

    share: float
    loading: float
    ready_at: float | None = None
    gone_at: float | None = None

    def at(self, now: float) -> float:
        """MiB that its processes hold: growing while it loads."""
        if self.ready_at is None:
            return 0
        if self.loading <= 0:
            return self.share
        return self.share * min(1.0, max(0.0, (now - self.ready_at) / self.loading))


@dataclass
class FakeGpu:
    """One GPU. ``external`` moves to ``target`` by ``rate`` per second upwards, at once downwards."""

    uuid: str
    index: int
    total: int = GIB_24
    external: float = 0
    target: float = 0
    rate: float = 0
    healthy: bool = True
    memory_known: bool = True
    processes_known: bool = True
    uses: dict[str, Use] = field(default_factory=dict)
    # The pods that were ever seen to compute here.
    visitors: set[str] = field(default_factory=set)
    # Those of them that gave everything back.
    left: set[str] = field(default_factory=set)

    def outside(self, mib: float, grow_to: float | None = None, rate: float = 1000) -> None:
        """Somebody outside Kubernetes uses ``mib`` now and grows to ``grow_to``."""
        self.external = mib
        self.target = mib if grow_to is None else grow_to
        self.rate = rate

    def ours(self, now: float) -> float:
        """What pods use."""
        return sum(use.at(now) for use in self.uses.values())

    def move(self, now: float, seconds: float) -> None:
        """Let ``seconds`` pass. What has no room does not grow: an allocation fails, memory is never overdrawn."""
        if self.external < self.target:
            room = max(0.0, self.total - self.ours(now) - self.external)
            self.external += min(self.rate * seconds, room, self.target - self.external)
        else:
            self.external = self.target

    def report(self, now: float) -> Json:
        """Its entry in GPUNode.status.gpus."""
        result: Json = {
            "uuid": self.uuid,
            "index": self.index,
            "product": "NVIDIA-L4",
            "healthy": self.healthy,
            "processesKnown": self.processes_known and self.healthy,
        }
        if not self.healthy:
            return {**result, "reason": "GPULost", "message": "NVML: GPU is lost (15)"}
        result["temperatureCelsius"] = 40
        if self.memory_known:
            used = min(self.total, round(self.external + self.ours(now)))
            result["memory"] = {
                "totalMiB": self.total,
                "usedMiB": used,
                "freeMiB": self.total - used,
                "reservedMiB": 0,
            }
        if self.processes_known:
            result["pods"] = [
                {"uid": uid, "usedMiB": round(use.at(now))}
                for uid, use in sorted(self.uses.items())
                if round(use.at(now))
            ]
        return result


@dataclass
class FakeGpuNode:
    """A node. ``silent`` agents report nothing more."""

    name: str
    gpus: list[FakeGpu]
    silent: bool = False
    uid: str = ""
    last: Json | None = None
    reported_at: float = 0


@dataclass
class Gpus:
    """The nodes of one test. ``share``: what a pod takes, unless ``shares`` names its avatar.

    A tenth less than the 5000 MiB that ``pool`` reserves for each: then nothing is learned from it.
    """

    api: Api
    namespace: str
    world: str
    share: float = 4500
    shares: dict[str, float] = field(default_factory=dict)
    loading: float = 1.0
    lingering: float = 0.3
    heartbeat: int = 2
    nodes: list[FakeGpuNode] = field(default_factory=list)
    _pods: dict[str, Json] = field(default_factory=dict)
    _then: float = 0
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @classmethod
    @contextlib.asynccontextmanager
    async def playing(cls, api: Api, namespace: str, *, alone: bool = True) -> AsyncIterator[Gpus]:
        """An empty world in which agents report until the block ends; its nodes are removed then.

        ``alone`` False: other worlds of this cluster are at work beside it.
        """
        # A run that was killed leaves its own behind; nodes are the whole cluster's.
        for left in await api.list("nodes", query=f"?labelSelector={LABEL_WORLD}") if alone else ():
            await api.delete("nodes", "", left["metadata"]["name"])
            await api.delete("gpunodes", "", left["metadata"]["name"])
        found = cls(api, namespace, secrets.token_hex(3), _then=time.monotonic())
        found._tasks = [asyncio.create_task(found._follow()), asyncio.create_task(found._play())]
        try:
            yield found
            broken = [t.exception() for t in found._tasks if t.done() and not t.cancelled()]
            assert not broken, f"the agents of the test broke: {broken}"
        finally:
            for task in found._tasks:
                task.cancel()
            await asyncio.gather(*found._tasks, return_exceptions=True)
            await found._remove()

    # ---- making ----------------------------------------------------------------------------

    async def node(self, *totals: int, tier: str = "", agent: bool = True) -> FakeGpuNode:
        """A node with a GPU for each of ``totals`` (default two of 24 GiB), Ready, and reported once."""
        name = f"gpu-{self.world}-{len(self.nodes)}"
        labels = {
            "type": "kwok",
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            "node.kubernetes.io/exclude-from-external-load-balancers": "true",
            LABEL_WORLD: self.world,
            LABEL_TIER: tier or "none",
        }
        resources = {"cpu": "1000", "memory": "4000Gi", "pods": "1000", "ephemeral-storage": "4000Gi"}
        made = await self.api.create(
            "nodes",
            "",
            {
                "metadata": {"name": name, "annotations": {"kwok.x-k8s.io/node": "fake"}, "labels": labels},
                "spec": {"taints": [{"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}]},
                "status": {"allocatable": resources, "capacity": resources},
            },
        )
        gpus = [
            FakeGpu(f"GPU-{self.world}-{len(self.nodes)}-{index}", index, total)
            for index, total in enumerate(totals or (GIB_24, GIB_24))
        ]
        found = FakeGpuNode(name, gpus, silent=not agent, uid=made["metadata"]["uid"])
        self.nodes.append(found)
        await until(f"node {name} being usable", lambda: self.api.get("nodes", "", name), _usable)
        if agent:
            await self._create(found)
        return found

    def pool(self, **gpu: Any) -> Json:
        """Keyword arguments for World.pool: instances of 5000 MiB on this world's nodes, many ports."""
        return {
            "ports": {"base": 8615, "count": 40},
            "maxInstances": 40,
            "gpu": {"mode": "VisibleDevices", "minFreeMiB": 6000, "perInstanceMiB": 5000, **gpu},
            "runtime": {"nodeSelector": {LABEL_WORLD: self.world}},
            "queue": {"timeoutSeconds": 0},
        }

    async def cordon(self, node: FakeGpuNode, *gpus: FakeGpu) -> None:
        """Write spec.cordoned as an administrator."""
        body = {"spec": {"cordoned": [g.uuid for g in gpus]}}
        await self.api.patch(GPUNODES, "", node.name, body)

    # ---- looking ---------------------------------------------------------------------------

    @property
    def all(self) -> list[FakeGpu]:
        """Every GPU."""
        return [gpu for node in self.nodes for gpu in node.gpus]

    def of(self, uuid: str) -> FakeGpu:
        """The GPU with this UUID."""
        return next(gpu for gpu in self.all if gpu.uuid == uuid)

    async def status(self, node: FakeGpuNode) -> Json:
        """GPUNode.status."""
        return dict((await self.api.get(GPUNODES, "", node.name) or {}).get("status", {}))

    async def reported(self, node: FakeGpuNode | None = None) -> None:
        """Return when what is true now has been written (by all nodes, or one)."""
        await asyncio.sleep(TICK)
        for one in self.nodes if node is None else [node]:
            if not one.silent:
                begin = time.monotonic()
                await self._report(one, begin, force=True)

    async def still(self, timeout: float = 20) -> None:
        """Return when nothing has grown for a second, and that is reported."""
        seen: list[float] = []

        async def moved() -> float:
            before, now = list(seen), time.monotonic()
            seen[:] = [gpu.external + gpu.ours(now) for gpu in self.all]
            return sum(abs(a - b) for a, b in zip(before, seen, strict=True)) if before else 1.0

        await until("the GPUs' memory being still", moved, lambda mib: mib < 1, timeout, interval=1)
        await self.reported()

    # ---- playing ---------------------------------------------------------------------------

    async def _follow(self) -> None:
        """Keep ``_pods`` as the API server has them."""
        while True:
            seen: dict[str, Json] = {}
            with contextlib.suppress(TimeoutError):
                async for event in self.api.watch("pods", self.namespace):
                    pod = event["object"]
                    if pod.get("kind") != "Pod":
                        break
                    uid = pod["metadata"]["uid"]
                    if event["type"] == "DELETED":
                        self._pods.pop(uid, None)
                    else:
                        self._pods[uid] = seen[uid] = pod
            await asyncio.sleep(0.2)

    async def _play(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            now = time.monotonic()
            self._move(now)
            for node in list(self.nodes):
                if not node.silent:
                    await self._report(node, now)

    def _move(self, now: float) -> None:
        seconds, self._then = now - self._then, now
        for pod in self._pods.values():
            gpu = self._gpu_of(pod)
            if gpu is None:
                continue
            uid = pod["metadata"]["uid"]
            if uid in gpu.left:
                # It has failed, and whoever cleans up has not come yet.
                continue
            gpu.visitors.add(uid)
            use = gpu.uses.setdefault(uid, Use(self._share(pod), self.loading))
            ready = any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))
            if ready and use.ready_at is None:
                use.ready_at = now
            if pod["status"].get("phase") in ("Failed", "Succeeded") and use.gone_at is None:
                use.gone_at = now
        for gpu in self.all:
            for uid, use in list(gpu.uses.items()):
                if uid not in self._pods and use.gone_at is None:
                    use.gone_at = now
                if use.gone_at is not None and now - use.gone_at >= self.lingering:
                    del gpu.uses[uid]
                    gpu.left.add(uid)
            gpu.move(now, seconds)

    def _share(self, pod: Json) -> float:
        avatar = pod["metadata"].get("annotations", {}).get(AVATAR_NAME, "")
        return self.shares.get(avatar, self.share)

    def _gpu_of(self, pod: Json) -> FakeGpu | None:
        node = next((n for n in self.nodes if n.name == pod["spec"].get("nodeName")), None)
        seen = visible(pod)
        if node is None or seen is None:
            return None
        return next((g for g in node.gpus if seen in (g.uuid, str(g.index))), None)

    async def _create(self, node: FakeGpuNode) -> None:
        body = {
            "apiVersion": f"{GROUP}/v1alpha1",
            "kind": "GPUNode",
            "metadata": {
                "name": node.name,
                "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": node.name, "uid": node.uid}],
            },
            "spec": {},
        }
        await self.api.create(GPUNODES, "", body)
        await self._report(node, time.monotonic(), force=True)

    async def _report(self, node: FakeGpuNode, now: float, force: bool = False) -> None:
        gpus = [gpu.report(now) for gpu in node.gpus]
        facts: Json = {
            "heartbeatSeconds": self.heartbeat,
            "driverVersion": "570.86.15",
            "gpus": gpus,
            "gpuCount": len(gpus),
            "freeMiB": sum(g["memory"]["freeMiB"] for g in gpus if g["healthy"] and "memory" in g),
            "hottestCelsius": 40,
        }
        if not force and facts == node.last and now - node.reported_at < self.heartbeat * 0.8:
            return
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        body = {
            "apiVersion": f"{GROUP}/v1alpha1",
            "kind": "GPUNode",
            "metadata": {"name": node.name},
            "status": {**facts, "lastReport": stamp},
        }
        path = path_of(GPUNODES, "", node.name, "status") + "?fieldManager=avatar-operator-agent&force=true"
        try:
            await self.api.call("PATCH", path, body, "application/apply-patch+yaml")
        except Refused as refused:
            if refused.status != 404:
                raise
            # A test removed it.
            return
        node.last, node.reported_at = facts, now

    async def _remove(self) -> None:
        """Pods first: on a node that kwok does not play any more they would never end."""
        at_once: Json = {"gracePeriodSeconds": 0, "propagationPolicy": "Background"}
        with contextlib.suppress(Refused):
            await self.api.call("DELETE", path_of("pods", self.namespace), at_once)
        for node in self.nodes:
            await self.api.delete(GPUNODES, "", node.name)
            await self.api.delete("nodes", "", node.name)


def visible(pod: Json) -> str | None:
    """NVIDIA_VISIBLE_DEVICES of its first container."""
    env = pod["spec"]["containers"][0].get("env", [])
    return next((e.get("value") for e in env if e["name"] == "NVIDIA_VISIBLE_DEVICES"), None)


def _usable(node: Json | None) -> bool:
    if node is None:
        return False
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions", []))
    return ready and not any(t["key"].startswith("node.kubernetes.io/") for t in node["spec"].get("taints", []))


def dump(status: Json) -> str:
    """A status for an assertion's message."""
    return json.dumps(status, sort_keys=True)[:2000]
