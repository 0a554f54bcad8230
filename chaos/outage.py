"""The API server away for minutes, frozen, without its etcd; watches that silently stall.

    python -m chaos.outage [--seconds 300] [--fault stopped|frozen|etcd|stalled …]

Brings up a cluster of its own (`outage`) with two operators of which one acts, and instances whose clients are
connected and whose idle timeout is far shorter than the outage. While the fault lasts, each operator is asked every
half second whether it is alive and ready. When the API server answers again, clients start and stop instances at
once, and everything is compared: nobody's pod may have been touched, no operator may have ended, readiness must have
told the truth, and all must be consistent within 15 seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.api import Api, Json, until
from tests.support.cluster import OwnCluster
from tests.support.operator import Operator, leader_of, leads
from tests.support.proxy import Proxy
from tests.support.world import World

FAULTS = ("stopped", "frozen", "etcd", "stalled")
# Seconds. What the acceptance asks for; and how soon an operator may say that it hears nothing.
CONSISTENT = 15.0
TOLD = 30.0
# A watch is opened anew when it has been silent for 15 s longer than it may be open, 72 s at most.
STALL = 90.0


@dataclass
class Sampled:
    """What an operator said of itself while the fault lasted."""

    operator: Operator
    seconds: list[tuple[float, str, str]] = field(default_factory=list)

    async def sample(self, began: float) -> None:
        """Ask every half second, for ever."""
        while True:
            at = time.monotonic() - began
            health, ready = await asyncio.gather(self.operator.page("/healthz"), self.operator.page("/readyz"))
            self.seconds.append((at, health.strip(), ready.strip()))
            await asyncio.sleep(0.5)

    def unready_after(self) -> float | None:
        """When it first said that it is not ready."""
        return next((at for at, _, ready in self.seconds if ready != "ok"), None)

    def sick(self) -> list[str]:
        """What /healthz said but "ok"."""
        return sorted({health for _, health, _ in self.seconds if health != "ok"})


@dataclass
class Result:
    """Seconds; ``problems`` is what must not be."""

    fault: str
    lasted: float = 0.0
    stood_down: float | None = None
    unready: list[float | None] = field(default_factory=list)
    new_start: float = 0.0
    running: float = 0.0
    released: float = 0.0
    ready_again: float = 0.0
    slowest_start: float = 0.0
    writes: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def consistent(self) -> float:
        """From the API server's first answer until everything was as it should be."""
        return max(self.new_start, self.released, self.ready_again)


class Experiment:
    """Two operators and ``count`` instances in use."""

    def __init__(self, kubeconfig: Path, api: Api, namespace: str, operators: list[Operator], count: int) -> None:
        self.kubeconfig = kubeconfig
        self.world = World(api, namespace)
        self.operators = operators
        self.names = [f"used-{number}" for number in range(count)]

    @classmethod
    @contextlib.asynccontextmanager
    async def begun(
        cls, kubeconfig: Path, folder: Path, count: int = 30, through: Path | None = None
    ) -> AsyncIterator[Experiment]:
        """All instances run and are connected; ``through``: the operators' kubeconfig, of a proxy."""
        namespace = f"outage-{secrets.token_hex(3)}"
        options = (f"--lease={namespace}/operator",)
        operators = [
            Operator(through or kubeconfig, folder / f"{namespace}-{number}.log", (namespace,), options)
            for number in range(2)
        ]
        async with Api(kubeconfig) as api:
            await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
            made = cls(kubeconfig, api, namespace, operators, count)
            try:
                await asyncio.gather(*(operator.start() for operator in operators))
                await made._start_all()
                yield made
            finally:
                for operator in operators:
                    operator.kill()
                await api.delete("namespaces", "", namespace)

    async def _start_all(self) -> None:
        world = self.world
        # Whoever mistakes silence for idleness collects them all.
        await world.pool(ports={"base": 20000, "count": len(self.names) + 20}, idle={"timeoutSeconds": 10})
        others = ("late", "goner", *(f"probe-{number}" for number in range(20)))
        await world.avatar(*self.names, *others)

        async def use(name: str) -> None:
            await world.instance(name, name)
            await world.connections(name, 1)
            await world.until(
                name, "being in use", lambda s: s.get("phase") == "Running" and "idleDeadline" not in s, timeout=90
            )

        await asyncio.gather(*(use(name) for name in self.names))
        await world.instance("goner", "goner", idle={"timeoutSeconds": 0})
        await world.phase("goner", "Running")

    async def picture(self) -> dict[str, Json]:
        """What may not change: who serves whom where, and since when."""
        pods = {pod["metadata"]["name"]: pod for pod in await self.world.pods()}
        found: dict[str, Json] = {}
        for name, status in (await self.world.statuses()).items():
            if name in self.names:
                pod = pods.get(status.get("podName", ""), {})
                found[name] = {
                    **{
                        key: status.get(key)
                        for key in ("phase", "port", "podName", "connections", "restarts", "readyTime")
                    },
                    "pod": pod.get("metadata", {}).get("uid"),
                    "container restarts": [
                        c["restartCount"] for c in pod.get("status", {}).get("containerStatuses", [])
                    ],
                }
        return found

    async def suffer(
        self, fault: str, begin: Callable[[], None], end: Callable[[], None], seconds: float, bound: float
    ) -> Result:
        """The fault for so long; then all that must hold."""
        result = Result(fault)
        before, pids = await self.picture(), self._pids()
        began = time.monotonic()
        samples = [Sampled(operator) for operator in self.operators]
        sampling = [asyncio.create_task(sample.sample(began)) for sample in samples]
        try:
            await asyncio.to_thread(begin)
            if seconds > 10:
                result.stood_down = await self._stood_down(began, seconds)
            await asyncio.sleep(max(0.0, began + seconds - time.monotonic()))
            await asyncio.to_thread(end)
            await self._answers()
            result.lasted = time.monotonic() - began
        finally:
            for task in sampling:
                task.cancel()
        await self._come_back(result)
        self._judge_health(result, samples, seconds)
        after = await self.picture()
        for name in self.names:
            if after.get(name) != before[name]:
                result.problems.append(f"{name} was {before[name]}, is {after.get(name)}")
        if self._pids() != pids or not all(operator.running for operator in self.operators):
            result.problems.append("an operator has ended")
        if result.consistent > bound:
            result.problems.append(f"consistent only {result.consistent:.1f} s after the API server answered")
        return result

    def _pids(self) -> list[int]:
        return [operator.process.pid if operator.process else 0 for operator in self.operators]

    async def _stood_down(self, began: float, seconds: float) -> float | None:
        """When nobody acted any more."""
        while time.monotonic() < began + seconds:
            if not any([await leads(operator) for operator in self.operators]):
                return time.monotonic() - began
            await asyncio.sleep(0.2)
        return None

    async def _answers(self) -> None:
        """The API server writes, too, and our kinds, which come after its own: etcd and all paths are there."""

        async def write() -> bool:
            change = {"metadata": {"annotations": {"seen": secrets.token_hex(4)}}}
            try:
                await asyncio.wait_for(self.world.api.patch("avatarpools", self.world.namespace, "default", change), 2)
            except (OSError, TimeoutError, ValueError, AssertionError):
                return False
            return True

        await until("the API server answering", write, bool, timeout=120, interval=0.1)

    async def _come_back(self, result: Result) -> None:
        """Clients start and stop at once; when that is done, and when both operators are ready."""
        world, began = self.world, time.monotonic()

        async def timed(what: Awaitable[Any]) -> float:
            await what
            return time.monotonic() - began

        async def start() -> None:
            await world.instance("late", "late", idle={"timeoutSeconds": 0})
            # What the operator does for it. The scheduler and kwok take their own time to come back.
            await world.until("late", "having its pod", lambda s: s.get("phase") in ("Starting", "Running"), timeout=90)

        async def stop() -> None:
            # That it is not wanted any more is known as soon as its pod is told to end; kwok ends it.
            claim = (await world.status("goner"))["podName"]
            await world.delete("goner")
            await until("its pod ending", world.pods, lambda pods: _ends(pods, claim), timeout=90)

        async def ready() -> None:
            for operator in self.operators:
                await operator.until_ready(90)
            await leader_of(*self.operators)

        result.new_start, result.released, result.ready_again = await asyncio.gather(
            timed(start()), timed(stop()), timed(ready())
        )
        await world.phase("late", "Running", timeout=120)
        result.running = time.monotonic() - began

    def _judge_health(self, result: Result, samples: list[Sampled], seconds: float) -> None:
        result.unready = [sample.unready_after() for sample in samples]
        for sample in samples:
            if sick := sample.sick():
                result.problems.append(f"/healthz said {sick}: the kubelet would have restarted it")
        if seconds > TOLD:
            if any(at is None or at > TOLD for at in result.unready):
                result.problems.append(f"not ready first after {result.unready} s")
            if result.stood_down is None:
                result.problems.append("somebody still said that it leads")


def _ends(pods: list[Json], name: str) -> bool:
    return all("deletionTimestamp" in p["metadata"] for p in pods if p["metadata"]["name"] == name)


async def away(
    own: OwnCluster, folder: Path, fault: str, seconds: float, count: int = 30, bound: float = CONSISTENT
) -> Result:
    """The API server stopped or frozen for ``seconds``, or etcd killed for a moment; ``bound``: consistent after."""
    actions = {
        "stopped": (("kill", "kube-apiserver"), ("start", "kube-apiserver"), seconds),
        "frozen": (("freeze", "kube-apiserver"), ("thaw", "kube-apiserver"), seconds),
        "etcd": (("kill", "etcd"), ("start", "etcd"), 1.0),
    }
    begin, end, lasts = actions[fault]
    async with Experiment.begun(own.kubeconfig, folder, count) as made:
        return await made.suffer(
            fault,
            lambda: _quiet(own.run("component", *begin)),
            lambda: _quiet(own.run("component", *end)),
            lasts,
            bound,
        )


async def stalled(kubeconfig: Path, folder: Path, seconds: float = STALL, count: int = 30) -> Result:
    """All open watches go silent while the connections stand. Clients go on starting instances meanwhile."""
    result = Result("stalled")
    async with Proxy(kubeconfig) as proxy:
        through = proxy.kubeconfig(folder / "through")
        async with Experiment.begun(kubeconfig, folder, count, through) as made:
            before, pids, began = await made.picture(), made._pids(), time.monotonic()
            samples = [Sampled(operator) for operator in made.operators]
            sampling = [asyncio.create_task(sample.sample(began)) for sample in samples]
            proxy.stall_watches(new=False)
            for number in range(20):
                if time.monotonic() > began + seconds:
                    break
                asked = time.monotonic()
                await made.world.instance(f"probe-{number}", f"probe-{number}", idle={"timeoutSeconds": 0})
                await made.world.phase(f"probe-{number}", "Running", timeout=120)
                result.slowest_start = max(result.slowest_start, time.monotonic() - asked)
                await asyncio.sleep(5)
            result.lasted = time.monotonic() - began
            for task in sampling:
                task.cancel()
            await made._come_back(result)
            made._judge_health(result, samples, 0)
            if await made.picture() != before:
                result.problems.append("somebody's pod was touched")
            if made._pids() != pids or not all(operator.running for operator in made.operators):
                result.problems.append("an operator has ended")
            if result.slowest_start > STALL:
                result.problems.append(f"a start waited {result.slowest_start:.0f} s")
    return result


def _quiet(_: str) -> None:
    """Drop a command's output."""


def table(results: list[Result]) -> str:
    """What was measured, for people."""
    lines = [
        f"{'fault':8} {'lasted':>7} {'stood down':>10} {'unready after':>14} {'new pod':>8} {'stopped':>8} "
        f'{"ready":>6} {"consistent":>10} {"running":>8}  (seconds; those from "new pod" on: since the first answer)'
    ]
    for r in results:
        unready = "/".join("-" if at is None else f"{at:.0f}" for at in r.unready)
        down = "-" if r.stood_down is None else f"{r.stood_down:.1f}"
        lines.append(
            f"{r.fault:8} {r.lasted:7.0f} {down:>10} {unready:>14} {r.new_start:8.1f} {r.released:8.1f} "
            f"{r.ready_again:6.1f} {r.consistent:10.1f} {r.running:8.1f}"
            + (f"  slowest start while stalled {r.slowest_start:.0f}" if r.slowest_start else "")
        )
        lines += [f"    PROBLEM {text}" for text in r.problems]
    return "\n".join(lines)


async def run(options: argparse.Namespace) -> int:
    """All faults asked for, one after the other; the exit status."""
    results = []
    with OwnCluster("outage").up() as own, tempfile.TemporaryDirectory() as folder:
        for fault in options.fault or FAULTS:
            print(f"{fault} …", flush=True)
            if fault == "stalled":
                results.append(await stalled(own.kubeconfig, Path(folder), max(STALL, options.stall)))
            else:
                results.append(await away(own, Path(folder), fault, options.seconds))
            print(table(results[-1:]), flush=True)
    print(f"\n{table(results)}")
    return 1 if any(r.problems for r in results) else 0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=float, default=300, help="how long the API server is away (%(default)s)")
    parser.add_argument("--stall", type=float, default=STALL, help="how long clients go on while watches stall")
    parser.add_argument("--fault", action="append", choices=FAULTS, help="one of several; default: all")
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
