"""An hour of everything at once: does the operator stay as it was?

    python -m bench.soak [--minutes 60] [--users 30] [--out FILE]

On a cluster of its own (`soak`: control plane and kwok nodes), with an operator whose API server is behind a proxy, and
the REST API beside it. Users start avatars through the REST API and by AvatarInstances, join, patch counts, leave, or
vanish without a word; what nobody uses is collected after seconds. Meanwhile faults come and go: pods and claims
deleted by hand, pods that fail, watches cut, answers lost, errors, and every ten minutes the operator is killed.

Every half minute a line: memory, open files, tasks and event-loop lag of both processes, claims and instances. At the
end the users stop, and nothing may be left. The exit status is 1 where something is, or where one of the figures of
the last third is clearly above that of the first (its first minutes left out: caches fill).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import secrets
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import aiohttp
import uvloop

from bench.figures import Json, cpu_seconds, where
from tests.support.api import Api, Refused, until
from tests.support.cluster import OwnCluster
from tests.support.operator import Operator, total
from tests.support.proxy import Proxy, matching
from tests.support.rest import Rest, RestServer
from tests.support.world import World

AVATARS = tuple(f"avatar-{number}" for number in range(20))
FIRST_PORT, PORTS = 20000, 16
IDLE_SECONDS = 4
SAMPLE_SECONDS = 30.0
WARM_UP = 4
# What has failed again and again waits for its next try (five minutes and a tenth at most) before it can be idle.
REST_SECONDS = 420.0
# A figure may grow by so much between the thirds: what is left after a garbage collection differs.
GROWTH = 1.10
WATCHED = ("operator_mib", "operator_fds", "operator_tasks", "api_mib", "api_fds", "api_tasks", "claims")


@dataclass
class Soak:
    """Users and faults in a namespace. ``done``: how often each deed was done; ``refused``: and by whom it was not."""

    world: World
    rest: Rest
    proxy: Proxy
    operator: Operator
    server: RestServer
    chance: random.Random
    done: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    # ---- users -----------------------------------------------------------------------

    async def user(self, number: int) -> None:
        """One after the other until it is over: somebody comes, stays for a while, and goes or vanishes."""
        deeds = (self.old_client, self.old_client, self.backend, self.kubectl)
        while not self.over.is_set():
            deed = self.chance.choice(deeds)
            try:
                await deed(f"user-{number}-{secrets.token_hex(3)}")
                self.done[deed.__name__] += 1
            except (Refused, AssertionError, aiohttp.ClientError, TimeoutError) as error:
                self.refused[f"{deed.__name__}: {type(error).__name__}"] += 1
            await asyncio.sleep(self.chance.uniform(0.1, 2))

    async def old_client(self, who: str) -> None:
        """Starts or joins by REST with a lease; most of them leave."""
        avatar = self.chance.choice(AVATARS)
        answer = await self.rest.start(who, avatar, ttl_seconds=10, timeout=20)
        self.done[f"start {answer.code}"] += 1
        if answer.code != 200:
            return
        await asyncio.sleep(self.chance.uniform(0.5, 6))
        if self.chance.random() < 0.8:
            await self.rest.disconnect(avatar_id=who, avatar_name=avatar)

    async def backend(self, who: str) -> None:
        """Makes an instance and counts in its status; takes the count back, and what has no pod of its own."""
        await self.world.instance(who, self.chance.choice(AVATARS))
        for count in (1, 2, 1, 0):
            await asyncio.sleep(self.chance.uniform(0.2, 1.5))
            await self.world.connections(who, count)
        phase = (await self.world.status(who)).get("phase", "Gone")
        self.done[f"backend {phase}"] += 1
        if phase not in ("Running", "Gone"):
            # Nobody else would take away what waits for a port, nor what shares a pod that is always in use: the load
            # would grow for ever. What has a pod of its own is left to be collected.
            await self.world.delete(who)

    async def kubectl(self, who: str) -> None:
        """Makes an instance and deletes it, whatever has become of it."""
        await self.world.instance(who, self.chance.choice(AVATARS))
        await asyncio.sleep(self.chance.uniform(0, 4))
        await self.world.delete(who)

    # ---- faults ----------------------------------------------------------------------

    async def faults(self) -> None:
        """One every few seconds until cancelled."""
        deeds: tuple[Callable[[], Awaitable[None]], ...] = (
            self.lose_pod,
            self.fail_pod,
            self.lose_claim,
            self.cut,
            self.lose_answers,
            self.errors,
        )
        while True:
            await asyncio.sleep(self.chance.uniform(2, 8))
            deed = self.chance.choice(deeds)
            with contextlib.suppress(Refused):
                await deed()
            self.done[deed.__name__] += 1

    async def lose_pod(self) -> None:
        """Somebody deletes a pod."""
        if pods := await self.world.pods():
            await self.world.delete_pod(self.chance.choice(pods)["metadata"]["name"])

    async def fail_pod(self) -> None:
        """A pod's process ends."""
        if pods := await self.world.pods():
            name = self.chance.choice(pods)["metadata"]["name"]
            await self.world.patch_pod(name, labels={"avatars.test/fail": "true"})

    async def lose_claim(self) -> None:
        """Somebody deletes a claim."""
        if claims := await self.world.services():
            await self.world.api.delete(
                "services", self.world.namespace, self.chance.choice(claims)["metadata"]["name"]
            )

    async def cut(self) -> None:
        """All watches of the operator end."""
        self.proxy.cut_watches()

    async def lose_answers(self) -> None:
        """The next writes are done, and nobody is told."""
        self.proxy.lose_answers(matching(verb=self.chance.choice(("create", "patch", "delete"))), times=3)

    async def errors(self) -> None:
        """The next writes are refused."""
        verb = self.chance.choice(("create", "patch", "delete"))
        self.proxy.refuse(lambda call: call.verb == verb, self.chance.choice((429, 500, 503)), times=5)

    async def kills(self, seconds: float) -> None:
        """The operator is killed every so many seconds."""
        while True:
            await asyncio.sleep(seconds)
            self.operator.kill()
            await self.operator.start(120)
            self.done["killed"] += 1

    # ---- looking ----------------------------------------------------------------------

    async def sample(self) -> Json:
        """How both processes are at this moment. Raises OSError where one of them ends in it."""
        assert self.operator.process is not None
        told = {"operator": await self.operator.page("/metrics"), "api": await self.server.page()}
        if not told["operator"]:
            raise ProcessLookupError("the operator has been killed")
        result: Json = {}
        for name, page in told.items():
            looks = max(1, total(page, "avatar_process_event_loop_lag_seconds_count"))
            result |= {
                f"{name}_mib": round(total(page, "process_resident_memory_bytes") / (1 << 20), 1),
                f"{name}_fds": total(page, "process_open_fds"),
                f"{name}_tasks": total(page, "avatar_process_tasks"),
                f"{name}_lag_ms": round(1000 * total(page, "avatar_process_event_loop_lag_seconds_sum") / looks, 2),
            }
        return result | {
            "operator_cpu": cpu_seconds(self.operator.process.pid),
            "claims": len(await self.world.services()),
            "pods": len(await self.world.pods()),
            "instances": len(await self.world.statuses()),
            "culled_active": total(told["operator"], "avatar_operator_culled_active_total"),
            "corrected": total(told["operator"], "avatar_operator_resync_corrections_total"),
        }


async def everything(world: World) -> list[str]:
    """Names of the operator's pods and Services, and of the instances."""
    return [*await world.left(), *(f"avi/{name}" for name in await world.statuses())]


def grown(samples: list[Json]) -> list[str]:
    """The figures whose median of the last third is clearly above that of the first."""
    settled = samples[WARM_UP:]
    third = len(settled) // 3
    if third < 2:
        return []
    found = []
    for name in WATCHED:
        first = statistics.median(s[name] for s in settled[:third])
        last = statistics.median(s[name] for s in settled[-third:])
        # Small numbers jump: a few files or tasks more are no growth.
        if last > first * GROWTH + 3:
            found.append(f"{name}: {first} in the first third, {last} in the last")
    return found


async def soak(own: OwnCluster, given: argparse.Namespace, folder: Path) -> Json:
    """The run; its report."""
    here = where()
    namespace = f"soak-{secrets.token_hex(3)}"
    async with Api(own.kubeconfig) as api, Proxy(own.kubeconfig) as proxy:
        await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        kubeconfig = proxy.kubeconfig(folder / "proxied")
        operator = Operator(kubeconfig, folder / "operator.log", (namespace,), ("--log-level=warning",))
        server = RestServer(own.kubeconfig, namespace, folder / "api.log", ("--auth=none", "--log-level=warning"))
        world = World(api, namespace)
        try:
            await operator.start()
            await server.start()
            await world.pool(
                ports={"base": FIRST_PORT, "count": PORTS}, maxInstances=PORTS, idle={"timeoutSeconds": IDLE_SECONDS}
            )
            await world.avatar(*AVATARS)
            async with Rest(server.url) as rest:
                run = Soak(world, rest, proxy, operator, server, random.Random(given.seed))
                samples = await under_load(run, given)
                proxy.heal()
                try:
                    await until(
                        "nothing being left", partial(everything, world), lambda left: not left, REST_SECONDS, 0.5
                    )
                except AssertionError:
                    # What it was shall be known afterwards: the cluster goes.
                    print(json.dumps(await world.statuses()), file=sys.stderr, flush=True)
                    raise
                await asyncio.sleep(5)
                last = await run.sample()
            return {
                "bench": "soak",
                **here,
                "minutes": given.minutes,
                "done": dict(run.done),
                "refused": dict(run.refused),
                "grown": grown(samples),
                "at_rest": last,
                "samples": samples,
            }
        finally:
            operator.kill()
            server.kill()


async def under_load(run: Soak, given: argparse.Namespace) -> list[Json]:
    """Users and faults for the time given; the samples."""
    samples: list[Json] = []
    began = time.monotonic()
    users = [asyncio.create_task(run.user(number)) for number in range(given.users)]
    faults = [asyncio.create_task(run.faults()), asyncio.create_task(run.kills(given.kill_seconds))]
    try:
        while time.monotonic() - began < given.minutes * 60:
            await asyncio.sleep(SAMPLE_SECONDS)
            try:
                sample = {"at": round(time.monotonic() - began), **await run.sample()}
            except OSError:
                # Killed a moment ago.
                continue
            samples.append(sample)
            print(json.dumps(sample), file=sys.stderr, flush=True)
            if ended := [task for task in (*users, *faults) if task.done()]:
                raise AssertionError(f"a user or the faults ended: {ended[0]}")
        run.over.set()
        # Who counts takes the count back: it would stand for ever.
        await asyncio.wait(users, timeout=60)
    finally:
        for task in (*users, *faults):
            task.cancel()
        await asyncio.gather(*users, *faults, return_exceptions=True)
    return samples


def main() -> int:
    """Run and print JSON; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--users", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kill-seconds", type=float, default=600.0, help="from one kill of the operator to the next")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with OwnCluster("soak").up() as own, tempfile.TemporaryDirectory() as folder:
        report = uvloop.run(soak(own, given, Path(folder)))
    text = json.dumps(report, indent=2)
    if given.out:
        given.out.write_text(text + "\n")
    print(json.dumps({name: value for name, value in report.items() if name != "samples"}, indent=2))
    return 1 if report["grown"] else 0


if __name__ == "__main__":
    sys.exit(main())
