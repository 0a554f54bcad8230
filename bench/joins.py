"""Joins through the REST API, against plain patches of status by the same client in the same run.

    python -m bench.joins --kubeconfig FILE [--instances 100] [--seconds 5] [--rounds 3] [--replicas 1]

Starts an operator and API replicas of its own for a namespace of its own, on kwok nodes (`devcluster fake-nodes 2`).
Three figures: the latency of joins at a moderate rate; joins per second over many instances, in turns with merge
patches of status.connections of the same instances; joins per second on one instance, all at once.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import secrets
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import uvloop

from avatar_operator.domain.names import API_VERSION, instance_name
from avatar_operator.kube import credentials
from avatar_operator.kube.client import KubeClient
from avatar_operator.kube.kinds import AVATARS, INSTANCES, POOLS
from bench.cold_start import FAKE, NAMESPACES
from bench.figures import Json, asked, cpu_seconds, spread, where, writes
from tests.support.operator import Operator
from tests.support.rest import RestServer

Work = Callable[[int], Awaitable[None]]
SERIAL = itertools.count()


class Bench:
    """A namespace with ``count`` running avatars."""

    def __init__(self, client: KubeClient, http: aiohttp.ClientSession, namespace: str, urls: list[str]) -> None:
        self.client, self.http, self.namespace, self.urls = client, http, namespace, urls
        self.names: list[str] = []

    async def setup(self, count: int) -> None:
        """The pool, the avatars, and one first start of each."""
        spec = {
            "runtime": {"image": "runtime.test/avatar:1", **FAKE},
            "network": {"mode": "Pod"},
            "ports": {"base": 20000, "count": count + 1},
            "idle": {"timeoutSeconds": 0, "activitySource": "Connections"},
            "limits": {"maxSessions": 1000},
            "defaults": {"maxSessions": 1000},
        }
        await self.make(POOLS, "AvatarPool", "default", spec)
        self.names = [f"avatar-{n}" for n in range(count)] + ["hot"]
        for name in self.names:
            await self.make(AVATARS, "Avatar", name, {"avatarName": name})
        await asyncio.gather(*(self.join(name) for name in self.names))

    async def make(self, resource: Any, kind: str, name: str, spec: Json) -> None:
        body = {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
        await self.client.create(resource, self.namespace, body)

    async def join(self, name: str) -> None:
        """One user joins an avatar."""
        number = next(SERIAL)
        body = {"avatar_id": f"user_{number}", "avatar_name": name}
        url = self.urls[number % len(self.urls)]
        async with self.http.post(f"{url}/avatar/start", json=body) as answer:
            text = await answer.read()
            if answer.status != 200:
                raise RuntimeError(f"{answer.status}: {text[:300]!r}")

    async def patch(self, name: str) -> None:
        """A backend counts, in the plainest way."""
        body = {"status": {"connections": next(SERIAL) % 1000}}
        await self.client.merge_patch(INSTANCES, self.namespace, instance_name("default", name), body, "status")

    async def clear(self, *names: str) -> None:
        """Nobody is connected any more."""
        body = {"status": {"connections": 0, "sessions": []}}
        for name in names:
            await self.client.merge_patch(INSTANCES, self.namespace, instance_name("default", name), body, "status")
        await asyncio.sleep(0.5)


async def closed(work: Work, workers: int, seconds: float) -> tuple[float, list[float]]:
    """``workers`` at a time, one after the other: the rate per second, and each one's seconds."""
    took: list[float] = []
    numbers = itertools.count()
    began = time.perf_counter()

    async def loop() -> None:
        while time.perf_counter() - began < seconds:
            started = time.perf_counter()
            await work(next(numbers))
            took.append(time.perf_counter() - started)

    await asyncio.gather(*(loop() for _ in range(workers)))
    return len(took) / (time.perf_counter() - began), took


async def paced(work: Work, rate: float, seconds: float) -> list[float]:
    """Each at its time, whatever the others do: each one's seconds."""
    took: list[float] = []
    began = time.perf_counter()

    async def one(number: int) -> None:
        await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        started = time.perf_counter()
        await work(number)
        took.append(time.perf_counter() - started)

    await asyncio.gather(*(one(n) for n in range(int(rate * seconds))))
    return took


async def measure(given: argparse.Namespace) -> Json:
    """The figures of one run."""
    found = credentials.find(given.kubeconfig)
    namespace = f"bench-{secrets.token_hex(3)}"
    kubeconfig = Path(given.kubeconfig or os.environ["KUBECONFIG"])
    with tempfile.TemporaryDirectory() as folder:
        operator = Operator(kubeconfig, Path(folder) / "operator.log", (namespace,), ("--log-level=warning",))
        logs = [Path(folder) / f"api-{n}.log" for n in range(given.replicas)]
        servers = [RestServer(kubeconfig, namespace, log, ("--auth=none", "--log-level=warning")) for log in logs]
        connector = aiohttp.TCPConnector(limit=0)
        async with (
            credentials.open_session(found, "bench") as session,
            aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=60)) as http,
        ):
            client = KubeClient(session, found.server, concurrency=1000)
            await client.create(NAMESPACES, "", {"metadata": {"name": namespace}})
            try:
                await operator.start()
                for server in servers:
                    await server.start()
                bench = Bench(client, http, namespace, [s.url for s in servers])
                await bench.setup(given.instances)
                return await _measure(given, bench, servers, kubeconfig)
            finally:
                operator.kill()
                for server in servers:
                    server.kill()
                await client.delete(NAMESPACES, "", namespace)


async def _measure(given: argparse.Namespace, bench: Bench, servers: list[RestServer], kubeconfig: Path) -> Json:
    here, many = where(), bench.names[:-1]

    async def join(n: int) -> None:
        await bench.join(many[n % len(many)])

    async def patch(n: int) -> None:
        await bench.patch(many[n % len(many)])

    async def hot(_: int) -> None:
        await bench.join("hot")

    cpu = [0.0, 0.0]
    latency = await paced(join, given.rate, given.seconds * 2)
    rates: dict[str, list[float]] = {"rest": [], "plain": []}
    loaded: list[float] = []
    written: Counter[str] = Counter()
    for turn in range(given.rounds):
        await bench.clear(*many)
        order = (("plain", patch), ("rest", join)) if turn % 2 == 0 else (("rest", join), ("plain", patch))
        for name, work in order:
            if name == "rest":
                await bench.clear(*many)
            before, so_far = _cpu(servers), await asked(kubeconfig)
            rate, took = await closed(work, given.workers, given.seconds)
            rates[name].append(rate)
            if name == "rest":
                loaded += took
                cpu[0] += _cpu(servers) - before
                cost = await asked(kubeconfig)
                cost.subtract(so_far)
                written += writes(cost)
    crowd: list[float] = []
    for _ in range(given.rounds):
        await bench.clear("hot")
        before, began = _cpu(servers), time.perf_counter()
        await asyncio.gather(*(hot(n) for n in range(given.crowd)))
        crowd.append(given.crowd / (time.perf_counter() - began))
        cpu[1] += _cpu(servers) - before
    await bench.clear("hot")
    hot_rate, hot_took = await closed(hot, 40, min(1.0, given.seconds))
    await bench.clear("hot")

    async def plain_hot(_: int) -> None:
        await bench.patch("hot")

    plain_hot_rate, plain_hot_took = await closed(plain_hot, 40, given.seconds)
    rest, plain = statistics.median(rates["rest"]), statistics.median(rates["plain"])
    return {
        "bench": "joins",
        **here,
        "replicas": len(servers),
        "instances": given.instances,
        "paced_joins_per_second": given.rate,
        "join_ms": spread(latency),
        "many_rest_per_second": [round(r) for r in rates["rest"]],
        "many_plain_per_second": [round(r) for r in rates["plain"]],
        "many_ratio": round(rest / plain, 2),
        "many_rest_ms": spread(loaded),
        "many_writes_per_join": round(written.total() / len(loaded), 2),
        "many_api_cpu_ms_per_join": round(cpu[0] / len(loaded) * 1000, 2),
        "hot_api_cpu_ms_per_join": round(cpu[1] / (given.crowd * given.rounds) * 1000, 2),
        "hot_crowd": given.crowd,
        "hot_crowd_joins_per_second": [round(r) for r in crowd],
        "hot_40_joins_per_second": round(hot_rate),
        "hot_40_ms": spread(hot_took),
        "hot_40_plain_per_second": round(plain_hot_rate),
        "hot_40_plain_ms": spread(plain_hot_took),
    }


def _cpu(servers: list[RestServer]) -> float:
    """CPU seconds that the servers have used."""
    return sum(cpu_seconds(server.process.pid) for server in servers if server.process is not None)


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line's, or those given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kubeconfig")
    parser.add_argument("--instances", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--rate", type=float, default=50.0, help="joins per second for the latency")
    parser.add_argument("--workers", type=int, default=40)
    parser.add_argument("--crowd", type=int, default=900, help="joins at once on one instance")
    return parser.parse_args(arguments)


def main() -> None:
    """Measure and print JSON."""
    print(json.dumps(uvloop.run(measure(options())), indent=2))


if __name__ == "__main__":
    main()
