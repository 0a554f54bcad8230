"""A restart with thousands of instances: how long until all is looked through, and how long live events wait meanwhile.

    python -m chaos.restart [--instances 2000]

On a cluster of its own (`restart`). A client patches the count of one instance after the other; the reaction is the
time until the operator has written that the idle clock stands. It is measured in the steady state, and from the
moment on in which a new process acts until it has looked through everything.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.support.api import Api
from tests.support.cluster import OwnCluster
from tests.support.operator import Operator
from tests.support.world import World

AT_ONCE = 40
SAMPLES = 40


class Restart:
    """``count`` instances, one operator."""

    def __init__(self, api: Api, namespace: str, operator: Operator, count: int) -> None:
        self.world, self.operator = World(api, namespace), operator
        self.names = [f"old-{number}" for number in range(count)]
        self._next = iter(self.names)

    async def make(self) -> float:
        """Start them all; the seconds that it took."""
        began, slots = time.monotonic(), asyncio.Semaphore(AT_ONCE)
        await self.world.pool(
            ports={"base": 20000, "count": len(self.names)}, idle={"timeoutSeconds": 3600}, queue={"maxLength": 10000}
        )

        async def one(name: str) -> None:
            async with slots:
                await self.world.avatar(name)
                await self.world.instance(name, name)

        await asyncio.gather(*(one(name) for name in self.names))
        while (left := await self._not_running()) and time.monotonic() < began + 1500:
            print(f"{time.monotonic() - began:5.0f} s {left} do not run yet", flush=True)
            await asyncio.sleep(5)
        return time.monotonic() - began

    async def _not_running(self) -> int:
        return sum(status.get("phase") != "Running" for status in (await self.world.statuses()).values())

    async def reaction(self) -> float:
        """Of one patch of the count of an instance that was not patched yet."""
        name, began = next(self._next), time.monotonic()
        await self.world.connections(name, 1)
        await self.world.until(name, "being in use", lambda s: "idleDeadline" not in s, timeout=120, interval=0.01)
        return time.monotonic() - began

    async def steady(self) -> list[float]:
        """Reactions with nothing else to do."""
        return [await self.reaction() for _ in range(SAMPLES)]

    async def restart(self) -> tuple[float, float, list[float]]:
        """Seconds until it is ready, until all is looked through, and the reactions in between."""
        self.operator.kill()
        began = time.monotonic()
        self.operator.launch()
        await self.operator.until_ready(120)
        ready = time.monotonic() - began
        found: list[float] = []
        while not await self._looked_through() or not found:
            found.append(await self.reaction())
        return ready, time.monotonic() - began, found

    async def _looked_through(self) -> bool:
        done = await self.operator.metric("avatar_operator_reconcile_seconds_count")
        return done >= len(self.names) and await self.operator.metric("avatar_operator_workqueue_depth") < 2


async def run(count: int) -> int:
    """The whole measurement."""
    namespace = f"restart-{secrets.token_hex(3)}"
    with OwnCluster("restart", nodes=4).up() as own, tempfile.TemporaryDirectory() as folder:
        operator = Operator(own.kubeconfig, Path(folder) / "operator.log", (namespace,), ("--log-level=info",))
        async with Api(own.kubeconfig) as api:
            await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
            try:
                await operator.start()
                made = Restart(api, namespace, operator, count)
                print(f"{count} instances running after {await made.make():.0f} s", flush=True)
                steady = await made.steady()
                ready, through, live = await made.restart()
            finally:
                operator.kill()
    print(f"ready {ready:.1f} s after the start of the process, all looked through after {through:.1f} s")
    print(f"reaction to a patch: steady p50 {_ms(steady)}, largest {max(steady) * 1000:.0f} ms ({len(steady)} patches)")
    print(f"  during the backlog: p50 {_ms(live)}, largest {max(live) * 1000:.0f} ms ({len(live)} patches)")
    print(f"  ratio of the medians {statistics.median(live) / statistics.median(steady):.1f}")
    return 0


def _ms(seconds: list[float]) -> str:
    return f"{statistics.median(seconds) * 1000:.0f} ms"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--instances", type=int, default=2000)
    return asyncio.run(run(parser.parse_args().instances))


if __name__ == "__main__":
    sys.exit(main())
