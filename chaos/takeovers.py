"""The acting one of two operators is killed again and again while clients start and stop instances.

    python -m chaos.takeovers --kubeconfig FILE [--kills 50] [--clients 12] [--seed N]

On kwok nodes (`devcluster fake-nodes 4`), in a namespace of its own. After each SIGKILL the other operator takes the
Lease over; the killed one is started again and stands by. Clients start avatars in a pool that has fewer ports than
there are clients, use them for a moment and delete them.

The API server's history is read: the gap of a takeover is the time from SIGKILL to the first write of an operator
that comes after those which were on their way; at each version there is one pod for each port and avatar at most,
and no more than the pool allows. When all instances are deleted, nothing may be left.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import secrets
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.api import GROUP, Api
from tests.support.history import Event, Stream
from tests.support.operator import Operator, leader_of
from tests.support.world import World

PORTS = 8
# What was written before the kill is told within this (seconds).
ON_THE_WAY = 0.3
LONGEST_GAP = 5.0
# A busy machine's scheduler and kwok take their time; the operator is judged by its own writes.
PATIENCE = 180.0


@dataclass
class Outcome:
    """``gaps`` in seconds, one for each kill; ``problems`` is what must not be."""

    gaps: list[float] = field(default_factory=list)
    started: int = 0
    pods: int = 0
    most: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


class Takeovers:
    """Two operators, clients, and somebody who kills."""

    def __init__(
        self, api: Api, namespace: str, kubeconfig: Path, folder: Path, *, clients: int, seed: int, longest: float
    ) -> None:
        self.world = World(api, namespace)
        self.outcome = Outcome()
        self._clients, self._seed, self._longest = clients, seed, longest
        self._operators = [
            Operator(kubeconfig, folder / f"{number}.log", (namespace,), (f"--lease={namespace}/operator",))
            for number in range(2)
        ]
        self._streams = [Stream(api, resource, namespace) for resource in ("services", "pods", "avatarinstances")]
        self._kills: list[float] = []
        self._over = asyncio.Event()

    async def run(self, kills: int) -> Outcome:
        """Kill so many times, then let everybody go, and judge."""
        began = time.monotonic()
        world = self.world
        await asyncio.gather(*(operator.start() for operator in self._operators))
        await world.pool(ports={"base": 20000, "count": PORTS})
        await world.avatar(*(f"avatar {number}" for number in range(self._clients)))
        for stream in self._streams:
            await stream.begin()
        followers = [asyncio.create_task(stream.follow()) for stream in self._streams]
        clients = [asyncio.create_task(self._client(number)) for number in range(self._clients)]
        try:
            rng = random.Random(self._seed)
            for number in range(kills):
                await self._kill(rng)
                if any(client.done() for client in clients):
                    break
                print(
                    f"{time.monotonic() - began:5.0f} s {number + 1:3} kills, {self.outcome.started} starts", flush=True
                )
            self._over.set()
            await asyncio.gather(*clients)
            await world.delete(*(await world.statuses()))
            await world.nothing_left(PATIENCE)
            await asyncio.gather(*(stream.caught_up(30) for stream in self._streams))
        finally:
            for task in (*followers, *clients):
                task.cancel()
            await asyncio.gather(*followers, *clients, return_exceptions=True)
            for operator in self._operators:
                operator.kill()
        self._judge()
        self.outcome.seconds = time.monotonic() - began
        return self.outcome

    async def _kill(self, rng: random.Random) -> None:
        """Kill who leads, wait for the other one, start the dead one again."""
        leader = await leader_of(*self._operators)
        await asyncio.sleep(rng.uniform(0.2, 2.5))
        leader.kill()
        self._kills.append(time.monotonic())
        other = next(o for o in self._operators if o is not leader)
        assert await leader_of(other) is other
        await asyncio.sleep(rng.uniform(0, 1))
        await leader.start()

    async def _client(self, number: int) -> None:
        rng = random.Random(f"{self._seed}-{number}")
        generation = 0
        while not self._over.is_set():
            name, generation = f"c{number}-{generation}", generation + 1
            await self.world.instance(name, f"avatar {number}")
            # Some change their mind while it starts or waits for a port.
            if rng.random() < 0.8:
                await self.world.phase(name, "Running", timeout=PATIENCE)
                self.outcome.started += 1
                await asyncio.sleep(rng.uniform(0, 0.5))
            else:
                await asyncio.sleep(rng.uniform(0, 1))
            await self.world.delete(name)

    def _judge(self) -> None:
        outcome = self.outcome
        outcome.problems += [gap for stream in self._streams for gap in stream.gaps]
        events = sorted((e for s in self._streams for e in s.events), key=lambda e: e.version)
        writes = sorted(e.at for e in events if _by_operator(e))
        for killed in self._kills:
            after = next((at for at in writes if at > killed + ON_THE_WAY), None)
            if after is not None:
                outcome.gaps.append(after - killed)
        if outcome.gaps and max(outcome.gaps) > self._longest:
            outcome.problems.append(f"nobody acted for {max(outcome.gaps):.1f} s")
        if len(outcome.gaps) < len(self._kills):
            outcome.problems.append(f"only {len(outcome.gaps)} of {len(self._kills)} kills were followed by a write")
        outcome.pods = sum(e.kind == "ADDED" and e.resource == "pods" for e in events)
        live: dict[str, dict[str, str]] = {}
        for event in events:
            if event.resource == "pods":
                _follow(live, event)
                outcome.most = max(outcome.most, len(live))
                outcome.problems += [f"[{event.version}] {text}" for text in doubled(live.values())]
        if outcome.most > PORTS:
            outcome.problems.append(f"{outcome.most} pods in a pool of {PORTS}")


def _by_operator(event: Event) -> bool:
    """Only the operator makes Services and pods and writes statuses here: clients POST and DELETE instances."""
    if event.resource == "avatarinstances":
        return event.kind == "MODIFIED"
    return event.kind == "ADDED" or (event.resource == "services" and event.kind == "DELETED")


def _follow(live: dict[str, dict[str, str]], event: Event) -> None:
    meta = event.body["metadata"]
    if event.kind == "DELETED":
        live.pop(meta["uid"], None)
    else:
        live[meta["uid"]] = {"ending": meta.get("deletionTimestamp", ""), **meta.get("labels", {})}


def doubled(live: Iterable[dict[str, str]]) -> Iterator[str]:
    """Ports and avatars that more than one pod has. One that is told to end still has its port, but no avatar."""
    pods = list(live)
    ports = Counter(pod.get(f"{GROUP}/port", "") for pod in pods)
    groups = Counter(pod.get(f"{GROUP}/group", "") for pod in pods if not pod["ending"])
    yield from (f"{count} pods have the port {port}" for port, count in ports.items() if count > 1)
    yield from (f"{count} pods are of the group {group}" for group, count in groups.items() if count > 1)


async def experiment(
    kubeconfig: Path, folder: Path, kills: int, clients: int = 12, seed: int = 1, longest: float = LONGEST_GAP
) -> Outcome:
    """The whole of it, in a namespace of its own."""
    namespace = f"takeover-{secrets.token_hex(3)}"
    async with Api(kubeconfig) as api:
        await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        try:
            made = Takeovers(api, namespace, kubeconfig, folder, clients=clients, seed=seed, longest=longest)
            return await made.run(kills)
        finally:
            await api.delete("namespaces", "", namespace)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(experiment(options.kubeconfig, Path(folder), options.kills, options.clients, options.seed))
    gaps = sorted(found.gaps)
    print(f"\n{len(gaps)} kills of the leader in {found.seconds:.0f} s, {found.started} starts, {found.pods} pods made")
    print(f"  gap: p50 {statistics.median(gaps):.2f} s, longest {gaps[-1]:.2f} s")
    print(f"  most pods at a time {found.most} of {PORTS}; problems: {len(found.problems)}")
    for text in found.problems[:20]:
        print(f"    {text}")
    return 1 if found.problems else 0


if __name__ == "__main__":
    sys.exit(main())
