"""Clients that come in the very moment in which their instance is collected.

    python -m chaos.collect_race --kubeconfig FILE [--count N] [--seats N] [--source Runtime] [--seed N]

Starts an operator of its own for a namespace of its own, on kwok nodes (`devcluster fake-nodes 4`). The idle timeout
is one second. Each seat is an instance and a client that waits for the deadline and then connects: some around the
deadline, some right after the mark (phase Draining), so that many get in between mark, second look and deletion.
Half of the instances are deleted when they are idle, half are put to sleep.

An interleaving is one such arrival. It ends in one of four ways: the client was counted before the mark, it was
counted while the operator was about to collect (and must be kept), it found its instance asleep (and woke it), or it
was told that it came too late (404; it starts anew). Who was answered "yes" and lost the instance all the same is
*culled*: there may be none. That is judged by the API server's own history in the order of its versions, not by what
the operator says.

With `--source Runtime` nobody patches a count: clients open a session in the runtime behind the pod, which is played
here, with the latency of a network. It refuses offers while it drains.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.support.api import Api, Json, Refused
from tests.support.history import Event, Stream
from tests.support.operator import Operator
from tests.support.runtime import own_address, pods_at
from tests.support.world import POOL, World, merged, named

FIRST_PORT = 20000
# Seconds. Arrivals are spread evenly over ± SPREAD around the deadline, or over AFTER_MARK from the mark on.
SPREAD = 0.2
AFTER_MARK = 0.05
# A network's way, each of there and back: evenly from 0 to this.
WAY = 0.02
# So long may anything take that the operator is waited for.
PATIENCE = 120.0
INSTANCES = "avatarinstances"


class Versions(Stream):
    """A stream that keeps of each version what the rules need, and wakes those who wait for an instance."""

    def __init__(self, api: Api, resource: str, namespace: str) -> None:
        super().__init__(api, resource, namespace)
        self.latest: dict[str, Json] = {}
        self._changed: dict[str, asyncio.Event] = {}
        self.told: list[Callable[[Event], None]] = []

    def _take(self, kind: str, body: Json, *, gap: bool = False) -> None:
        meta, status = body["metadata"], body.get("status", {})
        keep = ("name", "uid", "resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "ownerReferences")
        slim: Json = {
            "metadata": {key: meta[key] for key in keep if key in meta},
            "status": {k: status[k] for k in ("phase", "connections", "port", "idleDeadline") if k in status},
        }
        super()._take(kind, slim, gap=gap)
        self.latest[meta["name"]] = {"gone": True} if kind == "DELETED" else slim
        for tell in self.told:
            tell(self.events[-1])
        if meta["name"] in self._changed:
            self._changed[meta["name"]].set()

    async def wait(self, name: str, what: str, good: Callable[[Json], Any]) -> Json:
        """The instance as soon as ``good`` says yes to it; ``{"gone": True}`` once it is deleted."""
        changed = self._changed.setdefault(name, asyncio.Event())
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    changed.clear()
                    seen = self.latest.get(name)
                    if seen is not None and ("gone" in seen or good(seen)):
                        return seen
                    await changed.wait()
        except TimeoutError:
            raise AssertionError(f"{name}: waited {PATIENCE:.0f} s for {what}; is {self.latest.get(name)}") from None
        finally:
            self._changed.pop(name, None)


@dataclass
class Played:
    """One runtime: who is in, and whether it takes offers."""

    sessions: int = 0
    draining: bool = False
    idle_since: float = field(default_factory=time.monotonic)


class Runtimes:
    """The runtimes of all pods, on one address with a port each."""

    def __init__(self, ports: range, rng: random.Random) -> None:
        self.address = own_address()
        self._ports = ports
        self._rng = rng
        self._played: dict[int, Played] = {port: Played() for port in ports}

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Answer on all ports until the block ends."""
        app = web.Application()
        app.add_routes([web.get("/health", self._health), web.post("/api/admin/drain", self._drain)])
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            for port in self._ports:
                await web.TCPSite(runner, self.address, port).start()
            yield
        finally:
            await runner.cleanup()

    async def offer(self, port: int) -> bool:
        """A client's offer; whether it was taken."""
        await self._way()
        played = self._played[port]
        if not played.draining:
            played.sessions += 1
        taken = not played.draining
        await self._way()
        return taken

    def hang_up(self, port: int) -> None:
        """The client leaves."""
        played = self._played[port]
        played.sessions, played.idle_since = max(0, played.sessions - 1), time.monotonic()

    def end(self, port: int) -> int:
        """The pod on ``port`` is no more: how many sessions ended with it. The next one there begins anew."""
        ended = self._played[port].sessions
        self._played[port] = Played()
        return ended

    async def _way(self) -> None:
        await asyncio.sleep(self._rng.uniform(0, WAY))

    def _of(self, request: web.Request) -> Played:
        assert request.transport is not None
        return self._played[request.transport.get_extra_info("sockname")[1]]

    async def _health(self, request: web.Request) -> web.Response:
        await self._way()
        played = self._of(request)
        idle = 0.0 if played.sessions else time.monotonic() - played.idle_since
        status = "draining" if played.draining else "healthy"
        body = {"status": status, "sessions": played.sessions, "idle_seconds": round(idle, 3)}
        await self._way()
        return web.json_response(body)

    async def _drain(self, request: web.Request) -> web.Response:
        drain = bool((await request.json())["drain"])
        await self._way()
        self._of(request).draining = drain
        await self._way()
        return web.json_response({"code": 0})


class Race:
    """``count`` interleavings over ``seats`` instances at a time. ``ended`` counts how they ended."""

    def __init__(self, api: Api, namespace: str, *, count: int, seats: int, source: str, seed: int) -> None:
        self.world = World(api, namespace)
        self.ended: Counter[str] = Counter()
        self.culled: list[str] = []
        self.source, self.seed = source, seed
        self._count, self._seats = count, seats
        self._instances = Versions(api, INSTANCES, namespace)
        self._pods = Versions(api, "pods", namespace)
        # Versions that a client wrote: only there may a count fall.
        self._ours: set[int] = set()
        self._writing: set[asyncio.Task[str]] = set()
        self.taken_by_kwok = 0
        ports = range(FIRST_PORT, FIRST_PORT + seats + 20)
        self._runtimes = Runtimes(ports, random.Random(seed))
        # Where each instance was seen to serve, by UID.
        self._port_of: dict[str, int] = {}
        self._instances.told.append(self._hear)

    @property
    def done(self) -> int:
        """Interleavings so far."""
        return self.ended.total()

    async def run(self) -> None:
        """Run until ``count`` is reached, then judge."""
        await self._make_pool()
        for stream in (self._instances, self._pods):
            await stream.begin()
        followers = [asyncio.create_task(stream.follow()) for stream in (self._instances, self._pods)]
        try:
            async with self._runtimes.listening():
                await self._play()
            await asyncio.gather(*(stream.caught_up(60) for stream in (self._instances, self._pods)))
        finally:
            for task in followers:
                task.cancel()
            await asyncio.gather(*followers, return_exceptions=True)
        gaps = self._instances.gaps + self._pods.gaps
        assert not gaps, gaps
        self.culled += culled(self._instances.events, self._pods.events, self._ours)
        self.taken_by_kwok = len(set(_taken_by_kwok(self._pods.events)))

    async def _play(self) -> None:
        seats = [asyncio.create_task(self._seat(number)) for number in range(self._seats)]
        try:
            while self.done < self._count:
                ended, _ = await asyncio.wait(seats, timeout=0.2, return_when=asyncio.FIRST_EXCEPTION)
                for seat in ended:
                    seat.result()
        finally:
            # Those in the middle of something are of no use to the count.
            for seat in seats:
                seat.cancel()
            await asyncio.gather(*seats, *self._writing, return_exceptions=True)

    async def _make_pool(self) -> None:
        runtime = self.source == "Runtime"
        spec: Json = {
            "ports": {"base": FIRST_PORT, "count": self._seats + 20},
            "idle": {"timeoutSeconds": 1, "activitySource": self.source, "connectionLeakSeconds": 3600},
            "health": {"periodSeconds": 1},
            "runtime": pods_at(self._runtimes.address) if runtime else {},
        }
        await self.world.api.create(
            "avatarpools", self.world.namespace, named("AvatarPool", "default", merged(POOL, spec))
        )
        await self.world.avatar(*(f"avatar {number}" for number in range(self._seats)))

    # ---- the clients -----------------------------------------------------------------------

    async def _seat(self, number: int) -> None:
        """One client after the other, of one avatar."""
        rng = random.Random(f"{self.seed}-{number}")
        arrive = self._open_session if self.source == "Runtime" else self._count_one
        generation = 0
        while self.done < self._count:
            name, generation = f"s{number}-{generation}", generation + 1
            action = "Sleep" if number % 2 else "Delete"
            made = await self.world.instance(name, f"avatar {number}", idle={"action": action})
            while self.done < self._count and await self._interleave(name, made["metadata"]["uid"], rng, arrive):
                pass

    async def _interleave(self, name: str, uid: str, rng: random.Random, arrive: Callable[..., Any]) -> bool:
        """Wait for the deadline, connect in some moment around it; whether the instance is still there."""
        seen = await self._instances.wait(name, "an idle deadline", lambda i: _idle(i) or _asleep(i))
        if "gone" in seen or _asleep(seen):
            # Collected before this client had as much as looked.
            self.ended["too late"] += 1
            return await self._wake(name, uid, seen)
        if rng.random() < 0.5:
            due = datetime.fromisoformat(seen["status"]["idleDeadline"]).timestamp()
            await asyncio.sleep(max(0.0, due + rng.uniform(-SPREAD, SPREAD) - time.time()))
        else:
            await self._instances.wait(name, "the mark", lambda i: i["status"].get("phase") in ("Draining", "Stopped"))
            await asyncio.sleep(rng.uniform(0, AFTER_MARK))
        return bool(await arrive(name, uid, seen["status"]["port"], rng))

    async def _count_one(self, name: str, uid: str, _port: int, rng: random.Random) -> bool:
        """As a backend does it: patch the count, serve, patch it back."""
        phase = await self._patch(name, uid, 1)
        self.ended[_ENDS[phase]] += 1
        if phase == "gone":
            return False
        kept = await self._instances.wait(
            name,
            "serving its client",
            lambda i: i["status"].get("phase") == "Running" and "idleDeadline" not in i["status"],
        )
        await asyncio.sleep(rng.uniform(0, 0.5))
        if "gone" in kept or await self._patch(name, uid, 0) == "gone":
            self.culled.append(f"{name}: answered yes, and gone while its client was counted")
            return False
        return True

    async def _patch(self, name: str, uid: str, connections: int) -> str:
        """The phase that the API server answered with, "gone" for 404."""
        # To its end even when the race is over: the judge must know which versions are ours.
        task = asyncio.create_task(self._write(name, uid, connections))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        return await asyncio.shield(task)

    async def _write(self, name: str, uid: str, connections: int) -> str:
        body = {"metadata": {"uid": uid}, "status": {"connections": connections}}
        try:
            answer = await self.world.api.patch(INSTANCES, self.world.namespace, name, body, "status")
        except Refused as refused:
            if refused.status not in (404, 409):
                raise
            return "gone"
        self._ours.add(int(answer["metadata"]["resourceVersion"]))
        return str(answer["status"].get("phase", ""))

    async def _open_session(self, name: str, uid: str, port: int, rng: random.Random) -> bool:
        """As a page does it: offer, talk, hang up. Nobody counts it."""
        before = self._instances.latest[name]
        if "gone" in before or before["status"].get("phase") == "Stopped":
            self.ended["too late"] += 1
            return await self._wake(name, uid, before)
        if not await self._runtimes.offer(port):
            self.ended["refused while draining"] += 1
            after = await self._instances.wait(name, "a decision", lambda i: i["status"].get("phase") != "Draining")
            return await self._wake(name, uid, after)
        phase = self._instances.latest[name].get("status", {}).get("phase", "gone")
        self.ended["session while draining" if phase == "Draining" else "session before the mark"] += 1
        await asyncio.sleep(rng.uniform(0.5, 2))
        if "gone" in self._instances.latest[name]:
            return False
        self._runtimes.hang_up(port)
        return True

    async def _wake(self, name: str, uid: str, seen: Json) -> bool:
        """Start anew what was put to sleep, as a backend does for its next client; False where nothing is left."""
        if "gone" in seen:
            return False
        if seen["status"].get("phase") == "Stopped":
            await self._patch(name, uid, 1)
            await self._instances.wait(name, "waking", lambda i: i["status"].get("phase") == "Running")
            await self._patch(name, uid, 0)
        return True

    def _hear(self, event: Event) -> None:
        """A runtime ends with its instance, or when that is put to sleep: nobody may be in it."""
        if self.source != "Runtime":
            return
        status = event.body["status"]
        if event.kind == "DELETED" or (status.get("phase") == "Stopped" and not status.get("connections")):
            port = self._port_of.pop(event.body["metadata"]["uid"], None)
            if port is not None and (ended := self._runtimes.end(port)):
                self.culled.append(f"[{event.version}] {event.name}: {ended} sessions in the runtime when it ended")
        elif status.get("port"):
            self._port_of[event.body["metadata"]["uid"]] = status["port"]


_ENDS = {
    "Running": "counted before the mark",
    "Draining": "counted while draining",
    "Stopped": "asleep, woken",
    "Starting": "asleep, woken",
    "Pending": "asleep, woken",
    "gone": "too late",
}


def _idle(instance: Json) -> bool:
    status = instance["status"]
    return bool(status.get("phase") == "Running" and status.get("idleDeadline") and not status.get("connections"))


def _asleep(instance: Json) -> bool:
    return bool(instance["status"].get("phase") == "Stopped" and not instance["status"].get("connections"))


def culled(instances: list[Event], pods: list[Event], ours: set[int]) -> list[str]:
    """What the API server's history says against us, in the order of its versions.

    An instance may not be deleted or put to sleep at a version at which it counts a connection, a count may
    fall only by a client's own write (``ours``: their versions), and the pod of an instance that serves
    somebody may not be deleted by us.
    """
    found: list[str] = []
    kwoks = set(_taken_by_kwok(pods))
    now: dict[str, Json] = {}
    dying: set[str] = set()
    for event in sorted([*instances, *pods], key=lambda e: e.version):
        meta = event.body["metadata"]
        if event.resource == "pods":
            if meta["uid"] in dying | kwoks or "deletionTimestamp" not in meta:
                continue
            dying.add(meta["uid"])
            for owner in meta.get("ownerReferences", []):
                status = now.get(owner["uid"], {})
                if status.get("connections") and status.get("phase") in ("Running", "Draining"):
                    found.append(f"[{event.version}] pod {event.name} deleted under {owner['name']}: {status}")
            continue
        status, before = event.body["status"], now.get(meta["uid"], {})
        counted = status.get("connections", 0)
        if event.kind == "DELETED":
            if counted:
                found.append(f"[{event.version}] {event.name} deleted with {counted} connections")
            now.pop(meta["uid"], None)
            continue
        if status.get("phase") == "Stopped" != before.get("phase") and counted:
            found.append(f"[{event.version}] {event.name} put to sleep with {counted} connections")
        if counted < before.get("connections", 0) and event.version not in ours:
            found.append(f"[{event.version}] {event.name} counted {before['connections']} and then {counted}")
        now[meta["uid"]] = status
    return found


def _taken_by_kwok(pods: list[Event]) -> Iterator[str]:
    """UIDs of pods that ended without a grace period and without having been told to end before.

    kwok plays a kubelet and removes the pods that are told to end, but by name: when it does so twice it
    takes the young namesake along. The operator and the garbage collector give each pod its grace period.
    """
    seen: set[str] = set()
    for event in pods:
        meta = event.body["metadata"]
        if "deletionTimestamp" in meta and meta["uid"] not in seen:
            seen.add(meta["uid"])
            if meta.get("deletionGracePeriodSeconds") == 0:
                yield meta["uid"]


async def run(options: argparse.Namespace) -> int:
    """The whole experiment; the exit status."""
    namespace = f"race-{secrets.token_hex(3)}"
    async with Api(options.kubeconfig) as api:
        await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        with tempfile.TemporaryDirectory() as folder:
            operator = Operator(options.kubeconfig, Path(folder) / "operator.log", (namespace,), ("--log-level=info",))
            try:
                await operator.start()
                return await _report(api, namespace, operator, options)
            finally:
                operator.kill()
                await api.delete("namespaces", "", namespace)


async def _report(api: Api, namespace: str, operator: Operator, options: argparse.Namespace) -> int:
    race = Race(api, namespace, count=options.count, seats=options.seats, source=options.source, seed=options.seed)
    began = time.monotonic()
    task = asyncio.create_task(race.run())
    while not (await asyncio.wait([task], timeout=10))[0]:
        print(f"{time.monotonic() - began:5.0f} s {race.done:6} {dict(race.ended)}", flush=True)
    seconds = time.monotonic() - began
    if error := task.exception():
        print(operator.tail(), file=sys.stderr)
        raise error
    metric = await operator.metric("avatar_operator_culled_active_total")
    print(f"\nclients come while instances are collected: source {options.source}, seed {options.seed}")
    for how, number in race.ended.most_common():
        print(f"  {how:28} {number:6}")
    print(f"  {'interleavings':28} {race.done:6} in {seconds:.0f} s")
    print(
        f"  {'young pods taken by kwok':28} {race.taken_by_kwok:6}  (it deletes by name; the operator made them anew)"
    )
    print(f"  {'culled':28} {len(race.culled):6}  (culled_active_total {metric:.0f})")
    for text in race.culled[:20]:
        print(f"    {text}")
    return 1 if race.culled or metric else 0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--count", type=int, default=10000, help="interleavings (%(default)s)")
    parser.add_argument("--seats", type=int, default=80, help="instances at a time (%(default)s)")
    parser.add_argument("--source", choices=("Connections", "Runtime"), default="Connections")
    parser.add_argument("--seed", type=int, default=1)
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
