"""Many instances on idle nodes: rates against a plain client, and what the operator costs while they run.

    python -m bench.fleet [--sizes 100,1000,5000] [--without idle] [--deadlines 17] [--out FILE]

On a cluster of its own (`fleet`: control plane and kwok nodes). For each size, with an operator started for it:

- **create**: so many AvatarInstances at once by a client with 40 requests in flight, until each is Running; against as
  many pairs of the same Service and Pod by the same client, until each Pod is Ready (1,000 pairs at most), before and
  after; and against pairs whose Service has a cluster IP, which is what people make and the operator does without.
  Three times in turn where that takes minutes. Beside the rates: writes to the API server per instance, everybody's,
  and conflicts.
- **patches**: a backend that patches `connections` of all of them in turn, 40 in flight, while somebody is connected
  to each: with the operator and, while it is stopped, without, three times in turn. The same where each patch is the
  first to come or the last to leave (`first_and_last`), which the operator writes down: the API server has two writes
  for each then. The reaction is the time from the answer to a single patch, 20 a second being sent, until the operator
  has written what follows from it (idleDeadline).
- **rest**: CPU and memory of the operator while nothing happens, over two of its comparisons with the API server.
- **restart**: killed and started; until ready, until every instance was looked through, and the reaction meanwhile; the
  memory then.
- **idle**: each instance's deadline differs, 17 a second (`--deadlines`); how much later than its own it is deleted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import msgspec
import uvloop

from avatar_operator.controller.resync import PERIOD_SECONDS
from avatar_operator.domain.eviction import UNUSED_SECONDS
from avatar_operator.domain.resources import Avatar, Pool
from bench.cold_start import by_hand, is_ready
from bench.figures import (
    Json,
    Kind,
    asked,
    conflicts,
    cpu_seconds,
    memory_mib,
    own_writes,
    reads,
    spread,
    where,
    writes,
)
from tests.support.api import Api, Refused, until
from tests.support.cluster import OwnCluster
from tests.support.operator import Operator, total
from tests.support.world import World

IN_FLIGHT = 40
PAIRS = 1000
FIRST_PORT = 20000
PATCH_SECONDS = 8.0
PATCH_ROUNDS = 3
REACTIONS = 200
REACTIONS_PER_SECOND = 20.0
REST_SECONDS = 2 * PERIOD_SECONDS
# The share of a core below which an operator has nothing left to do.
AT_REST = 0.1
# The first deadline comes so long (seconds) after the last patch; so many come a second, however many instances.
IDLE_SECONDS = 60
DEADLINES_PER_SECOND = 1000 / 60
# Up to so many are created so often.
FEW, CREATE_ROUNDS = 1000, 3
LIMIT_SECONDS = 1800.0
FOLLOW_AGAIN_SECONDS = 0.1
# All need the instances that `create` makes.
STEPS = ("rest", "patches", "restart", "idle")
NEVER = 36000


@dataclass
class Following:
    """What a watch of the instances has told: each one's status, and when something happened (monotonic seconds)."""

    statuses: dict[str, Json] = field(default_factory=dict)
    gone: dict[str, datetime] = field(default_factory=dict)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def follow(self, api: Api, namespace: str) -> None:
        """Until cancelled: the API server ends the stream of one who is too busy to read it, or tells it so."""
        while True:
            # On a machine that is as busy as this one is made, an answer may take too long as well.
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async for event in api.watch("avatarinstances", namespace):
                    if event["type"] == "ERROR":
                        break
                    await self._hear(event["object"], gone=event["type"] == "DELETED")
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                there = {item["metadata"]["name"] for item in await api.list("avatarinstances", namespace)}
                for name in self.statuses.keys() - there - self.gone.keys():
                    await self._hear({"metadata": {"name": name}}, gone=True)
            await asyncio.sleep(FOLLOW_AGAIN_SECONDS)

    async def _hear(self, item: Json, *, gone: bool) -> None:
        name = item["metadata"]["name"]
        async with self.news:
            if gone:
                self.gone[name] = datetime.now(UTC)
            else:
                self.statuses[name] = item.get("status", {})
            self.news.notify_all()

    def forget(self) -> None:
        """Begin anew, with others of the same names."""
        self.statuses.clear()
        self.gone.clear()

    async def until(self, what: str, good: Callable[[], bool], timeout: float = LIMIT_SECONDS) -> None:
        """Wait for something that follows from what was told."""
        try:
            async with asyncio.timeout(timeout), self.news:
                await self.news.wait_for(good)
        except TimeoutError:
            raise AssertionError(f"waited {timeout:.0f} s for {what}") from None


class Fleet:
    """``count`` instances in a namespace of their own, each of an avatar of its own."""

    def __init__(
        self,
        own: OwnCluster,
        api: Api,
        operator: Operator,
        namespace: str,
        count: int,
        deadlines: float = DEADLINES_PER_SECOND,
    ) -> None:
        self.own, self.api, self.operator, self.namespace = own, api, operator, namespace
        self.deadlines_per_second = deadlines
        self.world = World(api, namespace)
        self.names = [f"a{number}" for number in range(count)]
        self.seen = Following()

    @property
    def pid(self) -> int:
        assert self.operator.process is not None
        return self.operator.process.pid

    async def prepare(self) -> None:
        """The pool and the avatars."""
        count = len(self.names)
        await self.world.pool(
            ports={"base": FIRST_PORT, "count": count},
            maxInstances=count,
            idle={"timeoutSeconds": NEVER},
            queue={"maxLength": 10000},
        )
        await at_once(self.world.avatar(name) for name in self.names)

    async def asked(self) -> Counter[Kind]:
        """What the API server was asked so far."""
        return await asked(self.own.kubeconfig)

    # ---- create ----------------------------------------------------------------------

    async def pairs(self, *, with_address: bool = False) -> tuple[float, Json]:
        """Pairs of Service and Pod a second, by hand, and the CPU that each took.

        They are the operator's own; ``with_address``: the Service gets a cluster IP, as one gets that does not say
        anything about it.
        """
        names = [f"by-hand-{number}" for number in range(min(len(self.names), PAIRS))]
        ready: set[str] = set()
        done = asyncio.Event()

        def hear(pod: Json) -> None:
            if is_ready(pod):
                ready.add(pod["metadata"]["name"])
            if ready.issuperset(names):
                done.set()

        async def look() -> None:
            # Its own pods: 10,000 others would be most of its work.
            # The API server ends the stream of one who is too busy to read it.
            while not done.is_set():
                async for event in self.api.watch("pods", self.namespace, query="&labelSelector=by-hand"):
                    hear(event["object"])

        pool = msgspec.convert(await self.api.get("avatarpools", self.namespace, "default"), Pool)
        avatar = msgspec.convert(await self.api.get("avatars", self.namespace, self.names[0]), Avatar)

        async def one(name: str) -> None:
            body, service = by_hand(pool, avatar, name)
            if with_address:
                service["spec"].pop("clusterIP")
            await self.api.create("services", self.namespace, service)
            await self.api.create("pods", self.namespace, body)

        async with running(look()), asyncio.timeout(LIMIT_SECONDS):
            used, began = self.used(), time.monotonic()
            await at_once(one(name) for name in names)
            await done.wait()
            took, used = time.monotonic() - began, self.used() - used
        await at_once(self.api.delete(kind, self.namespace, name) for name in names for kind in ("pods", "services"))
        await until("the pairs being gone", self._by_hand, lambda left: not left, 300, 0.5)
        return len(names) / took, per_item(used, len(names))

    async def _by_hand(self) -> list[str]:
        found = await self.api.list("pods", self.namespace, "?labelSelector=by-hand")
        return [pod["metadata"]["name"] for pod in found]

    async def create(self) -> Json:
        """All instances at once, until each is Running: the round with the median ratio, and all ratios."""
        rounds = [await self.created()]
        while len(rounds) < CREATE_ROUNDS and len(self.names) <= FEW:
            await self.empty()
            rounds.append(await self.created())
        rounds.sort(key=lambda one: float(one["ratio"]))
        every = {f"{name}s": [one[name] for one in rounds] for name in ("ratio", "addressed_ratio")}
        return {**rounds[len(rounds) // 2], **every}

    async def empty(self) -> None:
        """No instance is left, and nothing of any."""
        await at_once(self.world.delete(name) for name in self.names)
        await self.world.nothing_left(LIMIT_SECONDS)
        await self.seen.until("every instance being gone", lambda: len(self.seen.gone) == len(self.names))
        self.seen.forget()
        await self.at_rest()

    async def created(self) -> Json:
        """All instances at once, between pairs."""
        addressed, addressed_cpu = await self.pairs(with_address=True)
        plain, pair_cpu = await self.pairs()
        before, late, used = await self.asked(), await self.lag(), self.used()
        own = own_writes(await self.operator.page("/metrics"))
        began = time.monotonic()
        await at_once(self.world.instance(name, name) for name in self.names)
        await self.seen.until("every instance being Running", lambda: self.in_phase("Running") == len(self.names))
        took = time.monotonic() - began
        used = self.used() - used
        lag, looks = (b - a for a, b in zip(late, await self.lag(), strict=True))
        await asyncio.sleep(2)
        cost = await self.asked()
        cost.subtract(before)
        own = own_writes(await self.operator.page("/metrics")) - own
        await self.marked()
        again, pair_cpu_after = await self.pairs()
        addressed_again, addressed_cpu_after = await self.pairs(with_address=True)
        count = len(self.names)
        written, refused = writes(cost), conflicts(cost)
        return {
            "per_second": round(count / took, 1),
            "pairs_per_second": [round(plain, 1), round(again, 1)],
            "ratio": round(count / took / statistics.fmean((plain, again)), 2),
            "addressed_pairs_per_second": [round(addressed, 1), round(addressed_again, 1)],
            "addressed_ratio": round(count / took / statistics.fmean((addressed, addressed_again)), 2),
            "cpu_ms_per_instance": per_item(used, count),
            "cpu_ms_per_pair": pair_cpu,
            "cpu_ms_per_pair_after": pair_cpu_after,
            "cpu_ms_per_addressed_pair": addressed_cpu,
            "cpu_ms_per_addressed_pair_after": addressed_cpu_after,
            "event_loop_lag_ms": round(1000 * lag / max(1, looks), 2),
            "writes_per_instance": round(written.total() / count, 2),
            "operator_writes_per_instance": round(own / count, 2),
            "writes_by_kind": {kind: round(n / count, 2) for kind, n in written.most_common(12)},
            "events_per_instance": round(cost[Kind("POST", "events", "201")] / count, 2),
            "reads_by_kind": {kind: round(n / count, 2) for kind, n in reads(cost).most_common(6)},
            "conflicts_per_instance": round(refused.total() / count, 3),
            "conflicts_by_kind": {kind: round(n / count, 3) for kind, n in refused.most_common()},
        }

    async def marked(self) -> None:
        """Wait until the operator has said of each pod that nobody uses it: a write that is no part of a creation."""
        await asyncio.sleep(UNUSED_SECONDS + 10)
        await self.at_rest()

    async def lag(self) -> tuple[float, float]:
        """How late the operator's event loop was so far: seconds over all looks, and how many looks."""
        page = await self.operator.page("/metrics")
        name = "avatar_process_event_loop_lag_seconds"
        return total(page, f"{name}_sum"), total(page, f"{name}_count")

    def used(self) -> Counter[str]:
        """Milliseconds of CPU that each process has used so far: the cluster's, the operator, and this client."""
        pids = {**self.own.pids(), "client": os.getpid()}
        if self.operator.running:
            pids["operator"] = self.pid
        return Counter({name: round(1000 * cpu_seconds(pid)) for name, pid in pids.items()})

    def in_phase(self, phase: str) -> int:
        """How many are."""
        return sum(status.get("phase") == phase for status in self.seen.statuses.values())

    # ---- patches ---------------------------------------------------------------------

    async def patches(self) -> Json:
        """Rates with and without the operator, in turns, and how soon it reacts."""
        await self.all_in_use()
        with_it, without = [], []
        for _ in range(PATCH_ROUNDS):
            rate, each = await self.patch_rate(1)
            with_it.append(rate)
            self.operator.stop()
            rate, each_without = await self.patch_rate(1)
            without.append(rate)
            await self.operator.start(120)
            await self.at_rest()
        await at_once(self.world.connections(name, 0) for name in self.names)
        await self.settled()
        first_and_last, _ = await self.patch_rate(0)
        await self.settled()
        return {
            "per_second": [round(rate) for rate in with_it],
            "without_operator_per_second": [round(rate) for rate in without],
            "ratio": round(statistics.median(a / b for a, b in zip(with_it, without, strict=True)), 2),
            "first_and_last_per_second": round(first_and_last),
            "first_and_last_ratio": round(first_and_last / statistics.median(without), 2),
            "operator_cpu_ms_per_patch": each["operator"],
            "cpu_ms_per_patch": each,
            "cpu_ms_per_patch_without": each_without,
            "reaction_ms": spread(await self.reactions(REACTIONS)),
        }

    async def patch_rate(self, least: int) -> tuple[float, Json]:
        """Patches of the count a second, and the CPU for one: each changes it between ``least`` and one more.

        With 0 each is the first to come or the last to leave, and a write of the operator's follows from it. All are at
        ``least`` before and after.
        """
        turns = itertools.count()
        more: set[str] = set()
        used, began = self.used(), time.monotonic()

        async def patch() -> None:
            while time.monotonic() - began < PATCH_SECONDS:
                name = self.names[next(turns) % len(self.names)]
                more.symmetric_difference_update([name])
                await self.world.connections(name, least + 1 if name in more else least)

        await asyncio.gather(*(patch() for _ in range(IN_FLIGHT)))
        took, used, count = time.monotonic() - began, self.used() - used, next(turns)
        await at_once(self.world.connections(name, least) for name in more)
        return count / took, per_item(used, count)

    async def at_rest(self) -> None:
        """Wait until the operator has nothing left to do: what came before is no part of what is measured next."""

        async def busy() -> float:
            used = cpu_seconds(self.pid)
            await asyncio.sleep(1)
            return cpu_seconds(self.pid) - used

        await until("the operator being at rest", busy, lambda share: share < AT_REST, 300)

    async def all_in_use(self) -> None:
        """Somebody connects to each; wait until no idle clock runs."""
        await at_once(self.world.connections(name, 1) for name in self.names)
        statuses = self.seen.statuses
        await self.seen.until(
            "every idle clock standing", lambda: not any("idleDeadline" in s for s in statuses.values()), 300
        )
        # Their pods are marked as in use.
        await self.at_rest()

    async def settled(self) -> None:
        """Wait until what was patched has been looked at: nobody is connected, and each one's clock runs."""

        def good() -> bool:
            return all("idleDeadline" in s and not s.get("connections") for s in self.seen.statuses.values())

        await self.seen.until("every instance's clock running", good, 300)

    async def reactions(self, count: int, over: asyncio.Event | None = None) -> list[float]:
        """Seconds from the answer to a patch until the idle clock stands, one instance after the other."""
        took: list[float] = []
        for name in itertools.islice(itertools.cycle(self.names), count):
            if over is not None and over.is_set():
                break
            await self.world.connections(name, 1)
            began = time.monotonic()
            await self.seen.until(
                f"{name} being in use",
                lambda name=name: "idleDeadline" not in self.seen.statuses[name],  # type: ignore[misc]
                120,
            )
            took.append(time.monotonic() - began)
            await self.world.connections(name, 0)
            await asyncio.sleep(1 / REACTIONS_PER_SECOND)
        return took

    # ---- rest, restart, idle -----------------------------------------------------------

    async def rest(self) -> Json:
        """Memory, and the share of a core while nothing happens; right after create(), which leaves no pod to mark."""
        await self.at_rest()
        used, began = cpu_seconds(self.pid), time.monotonic()
        await asyncio.sleep(REST_SECONDS)
        share = (cpu_seconds(self.pid) - used) / (time.monotonic() - began)
        return {
            "cpu_percent_of_a_core": round(share * 100, 2),
            "rss_mib": round(memory_mib(self.pid), 1),
            "rss_peak_mib": round(memory_mib(self.pid, "VmHWM"), 1),
        }

    async def restart(self) -> Json:
        """Killed and started: seconds until ready and until all was looked through, and reactions in between."""
        self.operator.kill()
        began = time.monotonic()
        self.operator.launch()
        await self.operator.until_ready(300)
        ready = time.monotonic() - began
        through = asyncio.Event()

        async def look() -> float:
            while True:
                looked = await self.operator.metric("avatar_operator_reconcile_seconds_count")
                if looked >= len(self.names) and await self.operator.metric("avatar_operator_workqueue_depth") < 3:
                    through.set()
                    return time.monotonic() - began
                await asyncio.sleep(0.25)

        looking = asyncio.create_task(look())
        reactions = await self.reactions(100000, through)
        done = await looking
        used = cpu_seconds(self.pid)
        await self.settled()
        return {
            "ready_seconds": round(ready, 1),
            "all_looked_through_seconds": round(done, 1),
            "cpu_seconds": round(used, 1),
            "rss_mib": round(memory_mib(self.pid), 1),
            "reaction_ms": spread(reactions) if reactions else None,
        }

    async def idle(self) -> Json:
        """How much later than its deadline each instance is deleted."""
        pool = {"spec": {"idle": {"timeoutSeconds": IDLE_SECONDS}}}
        await self.all_in_use()
        statuses = self.seen.statuses
        await self.api.patch("avatarpools", self.namespace, "default", pool)
        began = time.monotonic()

        async def leave(number: int, name: str) -> None:
            await asyncio.sleep(max(0.0, began + number / self.deadlines_per_second - time.monotonic()))
            await self.world.connections(name, 0)

        await asyncio.gather(*(leave(number, name) for number, name in enumerate(self.names)))
        await self.seen.until("every instance being gone", lambda: len(self.seen.gone) == len(self.names))
        late = []
        for name, when in self.seen.gone.items():
            deadline = datetime.fromisoformat(statuses[name]["idleDeadline"])
            late.append((when - deadline).total_seconds())
        return {"late_ms": spread(late), "deadlines_per_second": round(self.deadlines_per_second)}


def per_item(used: Counter[str], count: int) -> Json:
    """Milliseconds of CPU of each process for one of ``count``, the largest first; and of all together."""
    each = {name: round(ms / count, 2) for name, ms in used.most_common()}
    return {"all": round(used.total() / count, 2), **each}


async def at_once(work: Iterable[Awaitable[object]], limit: int = IN_FLIGHT) -> None:
    """All of it, so many in flight."""
    slots = asyncio.Semaphore(limit)

    async def one(item: Awaitable[object]) -> None:
        async with slots:
            await item

    await asyncio.gather(*(one(item) for item in work))


@contextlib.asynccontextmanager
async def running(work: Awaitable[object]) -> AsyncIterator[None]:
    """``work`` beside the block."""
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        if task.done() and not task.cancelled() and (error := task.exception()):
            print(f"what ran beside it has failed: {error!r}", file=sys.stderr, flush=True)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def measure(own: OwnCluster, count: int, without: Sequence[str], deadlines: float) -> Json:
    """The figures of one size; steps in ``without`` are left out, ``deadlines`` are those a second of idle()."""
    namespace = f"fleet-{secrets.token_hex(3)}"
    with tempfile.TemporaryDirectory() as folder:
        operator = Operator(own.kubeconfig, Path(folder) / "operator.log", (namespace,), ("--log-level=warning",))
        async with Api(own.kubeconfig) as api:
            await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
            try:
                await operator.start()
                fleet = Fleet(own, api, operator, namespace, count, deadlines)
                await fleet.prepare()
                result: Json = {"instances": count}
                async with running(fleet.seen.follow(api, namespace)):
                    for name, step in (
                        ("create", fleet.create),
                        ("rest", fleet.rest),
                        ("patches", fleet.patches),
                        ("restart", fleet.restart),
                        ("idle", fleet.idle),
                    ):
                        if name in without:
                            continue
                        began = time.monotonic()
                        result[name] = await step()
                        took = time.monotonic() - began
                        print(
                            f"{count:6} {name} ({took:.0f} s): {json.dumps(result[name])}", file=sys.stderr, flush=True
                        )
                return result
            finally:
                operator.kill()
                with contextlib.suppress(Refused):
                    await api.delete("namespaces", "", namespace)


async def campaign(sizes: list[int], without: Sequence[str] = (), deadlines: float = DEADLINES_PER_SECOND) -> Json:
    """The figures of all sizes, each on a cluster made for it: what was before would weigh on etcd."""
    result: Json = {"bench": "fleet", **where(), "sizes": []}
    for size in sizes:
        with OwnCluster("fleet", nodes=max(2, size // 500)).up() as own:
            result["sizes"].append(await measure(own, size, without, deadlines))
    return result


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="100,1000", help="instances, with commas (%(default)s)")
    parser.add_argument("--without", nargs="*", choices=STEPS, default=(), help="steps to leave out")
    parser.add_argument("--deadlines", type=float, default=DEADLINES_PER_SECOND, help="of idle, a second")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    sizes = [int(size) for size in options.sizes.split(",")]
    text = json.dumps(uvloop.run(campaign(sizes, options.without, options.deadlines)), indent=2)
    if options.out:
        options.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
