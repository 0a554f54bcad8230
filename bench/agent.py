"""What the node agent costs when nothing much happens: memory, CPU, requests to the API server.

    python -m bench.agent --kubeconfig FILE --node NAME [--gpus 8] [--seconds 120]

A real agent process with its default period and heartbeat, on a driver that a
file plays (in the agent's own process: the figures include it). Temperatures,
load and a little memory move all the time. ``--node`` names any Node, a
kwok one for example; its GPUNode is made and stays. Requests are counted by a
proxy in between.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import tempfile
import time
from pathlib import Path

from bench.figures import cpu_seconds, memory_mib
from tests.support.agent import Agent
from tests.support.driver import FakeDriver, gpu
from tests.support.proxy import Proxy

SETTLE_SECONDS = 15.0
MOVE_SECONDS = 5.0
LIMITS = {"memory now": "80 MiB", "CPU": "1 % of a core", "writes": "2 a minute"}


async def measure(options: argparse.Namespace) -> dict[str, str]:
    """The figures, by their names."""
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder)
        driver = FakeDriver(there / "nvml.json", *(gpu(n) for n in range(options.gpus)))
        async with Proxy(Path(options.kubeconfig)) as proxy:
            kubeconfig = proxy.kubeconfig(there / "kubeconfig")
            agent = Agent(kubeconfig, there / "log", options.node, driver, "--log-level=info")
            await agent.start()
            try:
                return await _watch(agent, driver, proxy, options.seconds)
            finally:
                agent.stop()


async def _watch(agent: Agent, driver: FakeDriver, proxy: Proxy, seconds: float) -> dict[str, str]:
    assert agent.process is not None
    pid = agent.process.pid
    await asyncio.sleep(SETTLE_SECONDS)
    proxy.calls.clear()
    began, used, turn = time.monotonic(), cpu_seconds(pid), 0
    while time.monotonic() - began < seconds:
        turn += 1
        for one in driver.script["gpus"]:
            one.update(temperature=40 + turn % 20, utilization=turn * 7 % 90, otherMiB=8000 + turn * 13 % 200)
        driver.write()
        await agent.page("/metrics")
        await asyncio.sleep(MOVE_SECONDS)
    took = time.monotonic() - began
    page = await agent.page("/metrics")
    reading = next(line for line in page.splitlines() if line.startswith("avatar_operator_gpu_read_seconds"))
    return {
        "memory now": f"{memory_mib(pid, 'VmRSS'):.1f} MiB",
        "memory peak": f"{memory_mib(pid, 'VmHWM'):.1f} MiB",
        "CPU": f"{100 * (cpu_seconds(pid) - used) / took:.2f} % of a core",
        "writes": f"{60 * sum(c.writes for c in proxy.calls) / took:.2f} a minute",
        "reads": f"{60 * sum(not c.writes for c in proxy.calls) / took:.2f} a minute",
        "last reading": f"{1000 * float(reading.split()[-1]):.1f} ms",
    }


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kubeconfig", required=True)
    parser.add_argument("--node", required=True)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=120)
    options = parser.parse_args()
    figures = asyncio.run(measure(options))
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}"
    print(
        f"node agent with {options.gpus} GPUs, {options.seconds:.0f} s, page read every {MOVE_SECONDS:.0f} s; {machine}"
    )
    print(f"{'':14}{'measured':>20}  {'allowed':>14}")
    for name, figure in figures.items():
        print(f"{name:14}{figure:>20}  {LIMITS.get(name, ''):>14}")


if __name__ == "__main__":
    main()
