"""Cold start of an AvatarInstance against a bare Service and Pod made by hand.

    python -m bench.cold_start --kubeconfig FILE [--fake] [--runs 20]

Both make the same Service and the same Pod (the operator's own builders); the
pair by hand posts them one after the other and waits for the Pod's Ready, the
instance is posted and waited for until it says Running. They take turns in
one run. ``--fake``: on a kwok node instead of the real kubelet. The operator
must be running in the cluster (or beside it) and see all namespaces.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aiohttp
import msgspec

from avatar_operator.domain import objects
from avatar_operator.domain.names import API_VERSION
from avatar_operator.domain.resources import Avatar, Instance, Pool
from avatar_operator.domain.settings import resolve
from avatar_operator.kube import credentials
from avatar_operator.kube.client import KubeClient, Resource
from avatar_operator.kube.errors import NotFoundError
from avatar_operator.kube.kinds import AVATARS, INSTANCES, PODS, POOLS, SERVICES
from bench.figures import Json, spread, where

NAMESPACES = Resource("", "v1", "namespaces")
PAIR_PORT = 9700
TIMEOUT_SECONDS = 60.0

FAKE = {
    "nodeSelector": {"type": "kwok"},
    "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
}


class Bench:
    """One namespace with a pool and an avatar; a watch of pods and instances each."""

    def __init__(self, client: KubeClient, session: aiohttp.ClientSession, server: str, namespace: str) -> None:
        self.client = client
        self.session = session
        self.server = server
        self.namespace = namespace

    @asynccontextmanager
    async def watch(self, resource: Resource) -> AsyncIterator[asyncio.Queue[Json]]:
        """Events of a resource in the namespace, from now on."""
        _, version = await self.client.list_pages(resource, self.namespace)
        queue: asyncio.Queue[Json] = asyncio.Queue()
        url = f"{self.server}{resource.path(self.namespace)}?watch=1&resourceVersion={version}"

        async def pump() -> None:
            async with self.session.get(url, timeout=aiohttp.ClientTimeout(total=None)) as response:
                async for line in response.content:
                    queue.put_nowait(msgspec.json.decode(line))

        task = asyncio.create_task(pump())
        try:
            yield queue
        finally:
            task.cancel()

    async def pair(self, body: Json, service: Json) -> float:
        """Seconds from the POST of the Service to the Pod's Ready."""
        async with self.watch(PODS) as events:
            began = time.monotonic()
            await self.client.create(SERVICES, self.namespace, service)
            await self.client.create(PODS, self.namespace, body)
            async with asyncio.timeout(TIMEOUT_SECONDS):
                while True:
                    pod = (await events.get())["object"]
                    if pod["metadata"]["name"] == body["metadata"]["name"] and is_ready(pod):
                        break
            took = time.monotonic() - began
        await self.client.delete(PODS, self.namespace, body["metadata"]["name"])
        await self.client.delete(SERVICES, self.namespace, service["metadata"]["name"])
        await self.gone(PODS, body["metadata"]["name"])
        return took

    async def instance(self, name: str, avatar: str) -> float:
        """Seconds from the POST of the AvatarInstance to its phase Running."""
        body = {"apiVersion": API_VERSION, "kind": "AvatarInstance", "metadata": {"name": name}}
        async with self.watch(INSTANCES) as events:
            began = time.monotonic()
            await self.client.create(INSTANCES, self.namespace, {**body, "spec": {"avatarName": avatar}})
            async with asyncio.timeout(TIMEOUT_SECONDS):
                while True:
                    status = (await events.get())["object"].get("status", {})
                    if status.get("phase") == "Running":
                        break
            took = time.monotonic() - began
        await self.client.delete(INSTANCES, self.namespace, name)
        await self.gone(SERVICES, status["podName"])
        return took

    async def gone(self, resource: Resource, name: str) -> None:
        """Wait until an object is no more."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while True:
                try:
                    await self.client.get(resource, self.namespace, name)
                except NotFoundError:
                    return
                await asyncio.sleep(0.05)


async def measure(given: argparse.Namespace) -> Json:
    """The figures of one run."""
    found = credentials.find(given.kubeconfig)
    async with credentials.open_session(found, "bench") as session:
        client = KubeClient(session, found.server)
        namespace = f"bench-{secrets.token_hex(3)}"
        await client.create(NAMESPACES, "", {"metadata": {"name": namespace}})
        try:
            return await _measure(given, Bench(client, session, found.server, namespace))
        finally:
            await client.delete(NAMESPACES, "", namespace)


async def _measure(given: argparse.Namespace, bench: Bench) -> Json:
    runtime = {"image": given.image, **(FAKE if given.fake else {})}
    here = where()
    # A fake pod answers nobody, so its activity is not asked for.
    source = "Connections" if given.fake else "Runtime"
    spec = {
        "runtime": runtime,
        "network": {"mode": "Pod"},
        "termination": {"drainSeconds": 1},
        "idle": {"activitySource": source},
    }
    made = {"apiVersion": API_VERSION, "metadata": {"name": "default"}}
    pool = await bench.client.create(POOLS, bench.namespace, {**made, "kind": "AvatarPool", "spec": spec})
    made = {"apiVersion": API_VERSION, "metadata": {"name": "ada"}}
    avatar = await bench.client.create(
        AVATARS, bench.namespace, {**made, "kind": "Avatar", "spec": {"avatarName": "ada"}}
    )
    body, service = by_hand(msgspec.json.decode(pool, type=Pool), msgspec.json.decode(avatar, type=Avatar))
    pairs, instances = [], []
    for turn in range(given.warmup + given.runs):
        took = await bench.pair(body, service), await bench.instance(f"i{turn}", "ada")
        if turn >= given.warmup:
            pairs.append(took[0])
            instances.append(took[1])
            print(f"\r{turn - given.warmup + 1}/{given.runs}", end="", flush=True)
    print()
    return {
        "bench": "cold_start",
        "node": "kwok" if given.fake else "kubelet",
        **here,
        "runs": given.runs,
        "pair_ms": spread(pairs),
        "instance_ms": spread(instances),
        "ratio_p50": round(statistics.median(instances) / statistics.median(pairs), 3),
        "added_p50_ms": round((statistics.median(instances) - statistics.median(pairs)) * 1000, 1),
    }


def by_hand(pool: Pool, avatar: Avatar, name: str = "by-hand") -> tuple[Json, Json]:
    """The Pod and the Service that the operator would make, under a name of their own."""
    meta = {"name": name, "namespace": pool.metadata.namespace, "uid": "none"}
    instance = msgspec.convert({"metadata": meta, "spec": {"avatarName": avatar.spec.avatar_name}}, Instance)
    body = objects.pod(pool, [instance], resolve(instance, pool, avatar), name, PAIR_PORT)
    service = objects.service(instance, name, PAIR_PORT)
    for item in (body, service):
        # Not the operator's: it would clean them up.
        item["metadata"] |= {"name": name, "labels": {"by-hand": name}}
        item["metadata"].pop("ownerReferences", None)
    service["spec"]["selector"] = {"by-hand": name}
    return body, service


def is_ready(pod: Json) -> bool:
    """Whether a Pod's condition says so."""
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions", ()))


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line's, or those given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kubeconfig")
    parser.add_argument("--fake", action="store_true", help="on a kwok node")
    parser.add_argument("--image", default="localhost/avatar-operator/runtime:dev")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=2)
    return parser.parse_args(arguments)


def main() -> None:
    """Measure and print JSON."""
    print(json.dumps(asyncio.run(measure(options())), indent=2))


if __name__ == "__main__":
    main()
