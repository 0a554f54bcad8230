"""What a second shard brings where the operator is the bound: one for all against two, each for its share.

    python -m bench.shards [--instances 300] [--cores 0.07] [--rounds 3] [--out FILE]

On a cluster of its own (`shards`: control plane and kwok nodes), with half of the instances in a namespace of each
shard. Where two cores have API server and all, the API server is the bound and no operator is ever busy. So each has a
small share of a core (`--cores`, by a cgroup: root is needed), that one alone is short of and two use up with cores
left for everybody else. It has it once it has started some instances and is at rest: a start of the process would take
for ever, and what is done for the first time costs more.

All is created at once and has to be Running: with one operator, then with two, and so on. `faster` is the rate of two
over that of one, the median of such pairs. Beside each rate is how much of its quota an operator used: where that is
not nearly 1, something else was the bound. What an operator does at its own pace (the status of pools, say) is a larger
part of a smaller share, so two may bring more than twice as much. A round should be over well within a minute, when the
operator begins to mark pods as unused, which is no part of a start.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop

from avatar_operator.domain.shards import ALL, Shard
from bench.figures import Json, cpu_seconds, where
from bench.fleet import IN_FLIGHT, Fleet, at_once, running
from bench.quota import LEAST_CORES, CannotCap, capped, hierarchy
from tests.support.api import Api, until
from tests.support.cluster import OwnCluster
from tests.support.operator import Operator

TWO = (Shard(0, 2), Shard(1, 2))
# So many of each namespace before: each of an operator's workers has had one, and its connection is open.
WARM_UP = 40


def _namespace(shard: Shard) -> str:
    drawn = (f"shards-{secrets.token_hex(3)}" for _ in itertools.count())
    return next(name for name in drawn if shard.has(name))


async def _start(fleet: Fleet, names: Sequence[str]) -> None:
    """These of its instances at once, until all that there are so far are Running."""
    everybody = len(fleet.seen.statuses) + len(names)
    await at_once((fleet.world.instance(name, name) for name in names), IN_FLIGHT // len(TWO))
    await fleet.seen.until("all being Running", lambda: fleet.in_phase("Running") == everybody)


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


async def _warm_up(fleets: Sequence[Fleet]) -> None:
    """Until each operator has started some and has nothing left to do."""
    await asyncio.gather(*(_start(fleet, fleet.names[:WARM_UP]) for fleet in fleets))
    for fleet in fleets:
        await fleet.at_rest()


async def create(own: OwnCluster, api: Api, shards: Sequence[Shard], count: int, cores: float, folder: Path) -> Json:
    """The rate of ``count`` instances, half of them for each of TWO; what an operator with ``cores`` used for it."""
    namespaces = [_namespace(shard) for shard in TWO]
    operators = [
        Operator(own.kubeconfig, folder / f"{shard.index}.log", (), ("--log-level=warning", f"--shard={shard}"))
        for shard in shards
    ]
    async with contextlib.AsyncExitStack() as stack:
        for operator in operators:
            stack.callback(operator.kill)
        fleets = []
        for namespace, operator in zip(namespaces, itertools.cycle(operators), strict=False):
            await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
            stack.push_async_callback(_gone, api, namespace)
            fleets.append(Fleet(own, api, operator, namespace, WARM_UP + count // len(TWO)))
        await asyncio.gather(*(operator.start() for operator in operators))
        for fleet in fleets:
            await fleet.prepare()
            await stack.enter_async_context(running(fleet.seen.follow(api, fleet.namespace)))
        await _warm_up(fleets)
        pids = [operator.process.pid for operator in operators if operator.process is not None]
        for pid in pids:
            stack.enter_context(capped(pid, cores))
        used, began = [cpu_seconds(pid) for pid in pids], time.monotonic()
        await asyncio.gather(*(_start(fleet, fleet.names[WARM_UP:]) for fleet in fleets))
        took = time.monotonic() - began
        used = [cpu_seconds(pid) - before for pid, before in zip(pids, used, strict=True)]
    return {
        "per_second": round(count / took, 1),
        "operator_cpu_ms_per_instance": [round(1000 * seconds / count, 2) for seconds in used],
        "operator_share_of_quota": [round(seconds / (cores * took), 2) for seconds in used],
    }


async def measure(own: OwnCluster, count: int, cores: float, rounds: int) -> Json:
    """Both in turn."""
    one: list[Json] = []
    two: list[Json] = []
    with tempfile.TemporaryDirectory() as folder:
        async with Api(own.kubeconfig) as api:
            for _ in range(rounds):
                for shards, found in (((ALL,), one), (TWO, two)):
                    found.append(await create(own, api, shards, count, cores, Path(folder)))
                    print(f"{len(shards)} of {cores} cores: {json.dumps(found[-1])}", file=sys.stderr, flush=True)
    return {"instances": count, "cores": cores, "one": one, "two": two, **faster(one, two)}


def faster(one: Sequence[Json], two: Sequence[Json]) -> Json:
    """How many times the rate of one the rate of two is: the median of the pairs, the least and the largest."""
    ratios = [b["per_second"] / a["per_second"] for a, b in zip(one, two, strict=True)]
    return {
        "faster": round(statistics.median(ratios), 2),
        "faster_least_and_most": [round(min(ratios), 2), round(max(ratios), 2)],
    }


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=300, help="in a round (%(default)s)")
    parser.add_argument(
        "--cores", type=float, default=0.07, help=f"an operator's, of one core, at least {LEAST_CORES} (%(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="with one operator and with two (%(default)s)")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.cores < LEAST_CORES:
        parser.error(f"--cores {given.cores}: the least is {LEAST_CORES}")
    try:
        # Before a cluster is brought up for nothing.
        hierarchy()
    except CannotCap as error:
        parser.error(str(error))
    with OwnCluster("shards").up() as own:
        begun = {"bench": "shards", **where()}
        found = uvloop.run(measure(own, given.instances, given.cores, given.rounds))
    text = json.dumps({**begun, **found}, indent=2)
    if given.out:
        given.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
