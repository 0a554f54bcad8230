"""One run: a namespace, operators behind proxies, users and faults for some seconds, then quiet, and the verdict."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Coroutine
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.support.api import Api, Json
from tests.support.gpus import GPUNODES, LABEL_WORLD, Gpus
from tests.support.history import Event, History, Stream
from tests.support.nodes import make_node
from tests.support.observer import Observer
from tests.support.runtime import pods_at
from tests.support.world import World

from .cluster import Components
from .deeds import Deeds
from .faults import Faults
from .final import State, complaints
from .objects import INSTANCES, LEASES
from .operators import Operators, faketime
from .plan import AVATARS, Plan, Step, draw
from .rules import RESOURCES, Rules
from .runtimes import Runtimes
from .users import Users

NODE_LABEL = "avatars.test/run"
# One GPU of a size for two instances: a pool with GPUs has more ports than that.
GPU_MIB = 12000
# A node that was away counts as away until its taints are gone.
NODE_BACK_SECONDS = 6.0
# How long the operators may take to be ready once all faults have ended, the system to come to rest then, and to give
# everything back afterwards.
READY_SECONDS = 120.0
SETTLE_SECONDS = 20.0
# The backoffs of Kubernetes' own components go on for a while when they have found an API server that was killed again.
CLUSTER_SETTLE_SECONDS = 60.0
END_SECONDS = 20.0
# After this a step is given up: the machine is too busy, or something hangs.
STEP_SECONDS = 20.0


@dataclass
class Verdict:
    """What a run found. ``settled``: seconds from all operators being ready to rest."""

    seed: int
    seconds: float = 0.0
    settled: float = 0.0
    operators: int = 0
    starts: int = 0
    actions: int = 0
    refused: int = 0
    faults: int = 0
    writes: int = 0
    exits: list[int] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    def line(self) -> str:
        """As a line of JSON."""
        return json.dumps(asdict(self))


async def run(
    seed: int, kubeconfig: Path, out: Path, *, seconds: float | None = None, cluster: bool = False
) -> Verdict:
    """Play the run of ``seed``; logs and history of one that fails stay in ``out/<seed>``."""
    plan = draw(seed, seconds=seconds, skews=bool(faketime()), cluster=cluster)
    folder = out / str(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    verdict = Verdict(seed, operators=plan.operators)
    began = time.monotonic()
    events: list[Event] = []
    try:
        async with Api(kubeconfig) as api, _place(api, seed) as (world, node):
            events = await _play(plan, kubeconfig, folder, world, node, verdict)
    except Exception as error:
        verdict.violations.append(f"the run broke: {type(error).__name__}: {error}")
    verdict.seconds = round(time.monotonic() - began, 2)
    _keep(plan, folder, verdict, events, began)
    return verdict


@contextlib.asynccontextmanager
async def _place(api: Api, seed: int) -> AsyncIterator[tuple[World, str]]:
    """A namespace and a node of the run's own; both go when the block ends, and are not waited for."""
    name = f"chaos-{seed}-{secrets.token_hex(2)}"
    await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    try:
        await make_node(api, name, {NODE_LABEL: name, "type": "kwok"})
        yield World(api, name), name
    finally:
        for resource in ("namespaces", "nodes"):
            with contextlib.suppress(Exception):
                await api.delete(resource, "", name)


async def _play(plan: Plan, kubeconfig: Path, folder: Path, world: World, node: str, verdict: Verdict) -> list[Event]:
    deeds = Deeds()
    streams = {r: Stream(world.api, r, world.namespace, bridge=plan.cluster) for r in RESOURCES}
    skew = max(abs(s) for s in plan.skews)
    gpus: Gpus | None = None
    async with contextlib.AsyncExitStack() as stack:
        pool: Json = {"runtime": {"nodeSelector": {NODE_LABEL: node}}}
        if plan.gpus:
            gpus = await stack.enter_async_context(Gpus.playing(world.api, world.namespace, alone=False))
            node = (await gpus.node(GPU_MIB)).name
            pool |= {"runtime": {"nodeSelector": {LABEL_WORLD: gpus.world}}, "gpu": gpus.pool()["gpu"]}
            streams[GPUNODES] = Stream(world.api, GPUNODES, "", bridge=plan.cluster)
        restless = frozenset({LEASES, GPUNODES})
        history = await stack.enter_async_context(History.recording(*streams.values(), restless=restless))
        runtimes = None
        if plan.pools[0].source == "Runtime":
            ports = [port for one in plan.pools for port in one.ports]
            runtimes = await stack.enter_async_context(Runtimes.playing(ports, streams["pods"], deeds))
            pool["runtime"] |= pods_at(runtimes.address)
        operators = await stack.enter_async_context(
            Operators.running(kubeconfig, world.namespace, folder, plan.skews, nodes=plan.gpus)
        )
        users = Users(world, deeds, runtimes)
        faults = Faults(world.api, node, operators, runtimes, deeds, Components() if plan.cluster else None)
        await users.begin(plan.pools, pool, AVATARS)
        await _steps(plan, users, faults)
        await faults.calm()
        await users.calm()
        verdict.violations += await _ready(operators)
        limit = CLUSTER_SETTLE_SECONDS if plan.cluster else SETTLE_SECONDS
        verdict.violations += await _settle(world, skew, verdict, limit)
        verdict.violations += await _end(world, users)
        verdict.violations += await operators.stop()
        verdict.starts = sum(r.starts for r in operators.replicas)
        verdict.exits = [code for r in operators.replicas for code in r.exits]
        verdict.actions, verdict.refused, verdict.faults = users.done, users.refused, faults.done
    rules = Rules(deeds, skew)
    verdict.violations += [str(v) for v in rules.check(e for e in history.events if e.resource != GPUNODES)]
    verdict.writes = rules.writes
    if gpus is not None:
        verdict.violations += _overbooked(history.events, plan, gpus.world, deeds)
    return history.events


def _overbooked(events: list[Event], plan: Plan, world: str, deeds: Deeds) -> list[str]:
    """What the observer of GPU reservations finds, by the books alone: faults make reports late.

    Nobody gets memory of a node that is away; a reservation there may end at once.
    """
    away = {e.version for e in events if deeds.outage(e.at, NODE_BACK_SECONDS)}
    observer = Observer(operators=plan.operators, ledger_only=True)
    observer.check([e for e in events if e.resource in (INSTANCES, "pods", "services", GPUNODES)], world)
    found = (v for v in observer.violations if not (v.rule == "released early" and v.version in away))
    return [str(v) for v in found]


async def _steps(plan: Plan, users: Users, faults: Faults) -> None:
    """Every step at its time; those that last go on side by side, to their end."""
    loop = asyncio.get_running_loop()
    zero = loop.time()
    tasks: list[asyncio.Task[None]] = []

    async def do(step: Step) -> None:
        what: Coroutine[Any, Any, None] = users.do(step) if step.user else faults.do(step)
        await asyncio.wait_for(what, STEP_SECONDS)

    try:
        for step in plan.steps:
            await asyncio.sleep(max(0.0, zero + step.at - loop.time()))
            tasks.append(asyncio.create_task(do(step)))
        await asyncio.sleep(max(0.0, zero + plan.seconds - loop.time()))
    finally:
        if tasks:
            # Faults that last end with the plan's time, all at once: that is what calm is for.
            await asyncio.wait(tasks, timeout=0.05)
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception):
            raise end


async def _ready(operators: Operators) -> list[str]:
    """Wait until all operators say that they are ready. They may have been started a moment ago, on a busy machine."""
    deadline = time.monotonic() + READY_SECONDS
    while wrong := await operators.unready():
        if time.monotonic() > deadline:
            return wrong + operators.states()
        await asyncio.sleep(0.2)
    return []


async def _settle(world: World, skew: float, verdict: Verdict, limit: float) -> list[str]:
    """Wait until nothing is unexplained; what still is when the time is over."""
    began = time.monotonic()
    while True:
        left = complaints(await State.of(world), skew)
        verdict.settled = round(time.monotonic() - began, 2)
        if not left:
            return []
        if verdict.settled > limit:
            return [f"not settled after {limit:.0f} s: {text}" for text in left]
        await asyncio.sleep(0.25)


async def _end(world: World, users: Users) -> list[str]:
    """Delete all instances: pods and claims follow."""
    for name in await world.statuses():
        await users.delete(name)
    deadline = time.monotonic() + END_SECONDS
    while left := await world.left():
        if time.monotonic() > deadline:
            return [f"left over {END_SECONDS:.0f} s after the last instance: {', '.join(left)}"]
        await asyncio.sleep(0.25)
    return []


def _keep(plan: Plan, folder: Path, verdict: Verdict, events: list[Event], began: float) -> None:
    """Leave what helps to find out why a run failed; nothing of one that did not."""
    if not verdict.violations:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        return
    (folder / "plan.txt").write_text(f"{plan}\n")
    (folder / "violations.txt").write_text("\n".join(verdict.violations) + "\n")
    with (folder / "history.jsonl").open("w") as file:
        for event in events:
            entry = {"version": event.version, "at": round(event.at - began, 3), "kind": event.kind}
            file.write(json.dumps({**entry, "resource": event.resource, "body": _slim(event.body)}) + "\n")


def _slim(body: Json) -> Json:
    """Without what nobody reads."""
    meta = {k: v for k, v in body["metadata"].items() if k != "managedFields"}
    return {**body, "metadata": meta}
