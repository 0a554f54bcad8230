"""What a second shard brings: one operator for all against two, each for its share.

    python -m bench.shards [--instances 400] [--out FILE]

On a cluster of its own (`shards`: control plane and kwok nodes), with half of the instances in a namespace of each
shard. Everything is created at once: first with one operator, then with two, then the same again. An operator has one
core at most, so what bounds the rate, where cores and API server do not, is the CPU of the busiest operator for one of
all instances: the ratio of these two figures is how much faster two shards are on a machine with cores enough. The
rates on this machine stand beside it; where it has two cores, API server and all, they hardly differ.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import secrets
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop

from avatar_operator.domain.shards import ALL, Shard
from bench.figures import Json, cpu_seconds, where
from bench.fleet import IN_FLIGHT, Fleet, at_once, running
from tests.support.api import Api, until
from tests.support.cluster import OwnCluster
from tests.support.operator import Operator

TWO = (Shard(0, 2), Shard(1, 2))
ROUNDS = 2


def _namespace(shard: Shard) -> str:
    drawn = (f"shards-{secrets.token_hex(3)}" for _ in itertools.count())
    return next(name for name in drawn if shard.has(name))


async def _start(fleet: Fleet) -> None:
    """All of its instances at once, until each is Running."""
    await at_once((fleet.world.instance(name, name) for name in fleet.names), IN_FLIGHT // len(TWO))
    await fleet.seen.until("all being Running", lambda: fleet.in_phase("Running") == len(fleet.names))


async def _gone(api: Api, namespace: str) -> None:
    """Delete it and wait: what is left of one round would be work for the operators of the next."""
    await api.delete("namespaces", "", namespace)
    await until(
        f"namespace {namespace} being gone",
        lambda: api.get("namespaces", "", namespace),
        lambda found: found is None,
        300,
        1,
    )


async def create(own: OwnCluster, api: Api, shards: Sequence[Shard], count: int, folder: Path) -> Json:
    """The rate and each operator's CPU milliseconds for one of ``count`` instances, half of them for each of TWO."""
    namespaces = [_namespace(shard) for shard in TWO]
    operators = [
        Operator(own.kubeconfig, folder / f"{shard.index}.log", (), ("--log-level=warning", f"--shard={shard}"))
        for shard in shards
    ]
    async with contextlib.AsyncExitStack() as stack:
        for operator in operators:
            stack.callback(operator.kill)
        fleets = []
        for namespace in namespaces:
            await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
            stack.push_async_callback(_gone, api, namespace)
            fleets.append(Fleet(own, api, operators[0], namespace, count // 2))
        await asyncio.gather(*(operator.start() for operator in operators))
        for fleet in fleets:
            await fleet.prepare()
            await stack.enter_async_context(running(fleet.seen.follow(api, fleet.namespace)))
        pids = [operator.process.pid for operator in operators if operator.process is not None]
        used, began = [cpu_seconds(pid) for pid in pids], time.monotonic()
        await asyncio.gather(*(_start(fleet) for fleet in fleets))
        took = time.monotonic() - began
        used = [cpu_seconds(pid) - before for pid, before in zip(pids, used, strict=True)]
    return {
        "per_second": round(count / took, 1),
        "operator_cpu_ms_per_instance": [round(1000 * seconds / count, 2) for seconds in used],
    }


async def measure(own: OwnCluster, count: int) -> Json:
    """Both in turn."""
    one, two = [], []
    with tempfile.TemporaryDirectory() as folder:
        async with Api(own.kubeconfig) as api:
            for _ in range(ROUNDS):
                one.append(await create(own, api, (ALL,), count, Path(folder)))
                two.append(await create(own, api, TWO, count, Path(folder)))
    key = "operator_cpu_ms_per_instance"
    faster = [max(a[key]) / max(b[key]) for a, b in zip(one, two, strict=True)]
    return {
        "instances": count,
        "one": one,
        "two": two,
        "faster_where_the_operator_is_the_bound": round(statistics.median(faster), 2),
    }


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=400)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with OwnCluster("shards").up() as own:
        text = json.dumps({"bench": "shards", **where(), **uvloop.run(measure(own, given.instances))}, indent=2)
    if given.out:
        given.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
