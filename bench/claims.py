"""What a Service costs the API server, with a cluster IP and without, beside none and beside many that have one.

    python -m bench.claims [--beside 5000] [--out FILE]

Why the operator's Services have none (docs/design-notes.md). On a cluster of its own (`claims`): Services of each kind
are created by a client with 40 requests in flight, in an empty cluster and beside the others. Their cost is the CPU of
the API server, from the first request until a second after the last. They lead nowhere: there are no pods.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from pathlib import Path

import uvloop

from bench.figures import Json, cpu_seconds, where
from bench.fleet import at_once
from tests.support.api import Api
from tests.support.cluster import OwnCluster

COUNT = 600
ROUNDS = 2
PROBED, OTHERS = "probed", "others"
# Until what follows from a creation or a deletion is done: endpoints, the allocator's bookkeeping.
AFTER_SECONDS, DELETED_SECONDS = 1.0, 4.0


def service(name: str, *, address: bool) -> Json:
    """A Service with a selector that no pod has."""
    spec: Json = {"selector": {"nobody": name}, "ports": [{"port": 8615}]}
    return {"metadata": {"name": name}, "spec": spec if address else {**spec, "clusterIP": "None"}}


async def cost(api: Api, pid: int, *, address: bool) -> Json:
    """Milliseconds of the API server's CPU for one Service, and how many were created a second."""
    names = [f"probe-{number}" for number in range(COUNT)]
    used, began = cpu_seconds(pid), time.monotonic()
    await at_once(api.create("services", PROBED, service(name, address=address)) for name in names)
    took = time.monotonic() - began
    await asyncio.sleep(AFTER_SECONDS)
    used = cpu_seconds(pid) - used
    await at_once(api.delete("services", PROBED, name) for name in names)
    await asyncio.sleep(DELETED_SECONDS)
    return {"cpu_ms": round(1000 * used / COUNT, 2), "per_second": round(COUNT / took)}


async def both(api: Api, pid: int) -> Json:
    """The costs of both kinds, in turns."""
    found: Json = {"with_address": [], "without": []}
    for _ in range(ROUNDS):
        found["with_address"].append(await cost(api, pid, address=True))
        found["without"].append(await cost(api, pid, address=False))
    return found


async def measure(own: OwnCluster, beside: int) -> Json:
    """The figures of one run."""
    pid = own.pids()["kube-apiserver"]
    async with Api(own.kubeconfig) as api:
        for name in (PROBED, OTHERS):
            await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        # The first requests fill the API server's caches.
        await cost(api, pid, address=True)
        alone = await both(api, pid)
        await at_once(api.create("services", OTHERS, service(f"other-{n}", address=True)) for n in range(beside))
        await asyncio.sleep(DELETED_SECONDS)
        return {"bench": "claims", **where(), "beside": beside, "alone": alone, "beside_others": await both(api, pid)}


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beside", type=int, default=5000, help="Services with an address (%(default)s)")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with OwnCluster("claims").up() as own:
        text = json.dumps(uvloop.run(measure(own, given.beside)), indent=2)
    if given.out:
        given.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
