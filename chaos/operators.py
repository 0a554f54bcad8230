"""The operators of a run: each behind a proxy of its own, started again when it ends, as a kubelet would."""

from __future__ import annotations

import asyncio
import contextlib
import glob
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.support.operator import Operator
from tests.support.proxy import Proxy

RESYNC_SECONDS = 2
RESTART_SECONDS = 0.3
# Looked for often enough that a run need not wait, and seldom enough to cost nothing.
LOOK_SECONDS = 0.1
STOP_SECONDS = 30
# The first start; with several runs at once on few cores it is a matter of many seconds.
START_SECONDS = 120
# The last word of one that ends because another one leads: a SIGTERM on its way out changes nothing.
OUSTED = "avatar-operator: lease has ended"


def faketime() -> str:
    """The path of libfaketime (Debian's package of that name); empty = clocks cannot be made wrong here."""
    return next(iter(sorted(glob.glob("/usr/lib/*/faketime/libfaketime.so.1"))), "")


@dataclass
class Replica:
    """One operator. ``skew``: seconds by which its clock is wrong."""

    proxy: Proxy
    operator: Operator
    skew: float
    frozen: bool = False
    starts: int = 1
    # Exits that nobody asked for, and those that went wrong.
    exits: list[int] = field(default_factory=list)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if there is one."""
        process = self.operator.process
        if process is not None and process.poll() is None:
            process.send_signal(number)
            self.frozen = number == signal.SIGSTOP or (self.frozen and number not in (signal.SIGCONT, signal.SIGKILL))


class Operators:
    """Use as ``async with Operators.running(…) as operators``."""

    def __init__(self, replicas: list[Replica]) -> None:
        self.replicas = replicas
        self._ending = False

    @classmethod
    @contextlib.asynccontextmanager
    async def running(
        cls, kubeconfig: Path, namespace: str, folder: Path, skews: tuple[float, ...], *, nodes: bool
    ) -> AsyncIterator[Self]:
        """Start an operator for each of ``skews`` and keep it running until the block ends; logs go to ``folder``."""
        options = [f"--resync-seconds={RESYNC_SECONDS}", "--nodes" if nodes else "--no-nodes"]
        if len(skews) > 1:
            options.append(f"--lease={namespace}/operator")
        async with contextlib.AsyncExitStack() as stack:
            replicas = []
            for number, skew in enumerate(skews):
                proxy = await stack.enter_async_context(Proxy(kubeconfig))
                path = proxy.kubeconfig(folder / f"kubeconfig-{number}")
                log = folder / f"operator-{number}.log"
                operator = Operator(path, log, (namespace,), tuple(options), _clock(skew))
                replicas.append(Replica(proxy, operator, skew))
            found = cls(replicas)
            keepers: list[asyncio.Task[None]] = []
            try:
                await asyncio.gather(*(r.operator.start(START_SECONDS) for r in replicas))
                keepers = [asyncio.create_task(found._keep(replica)) for replica in replicas]
                yield found
            finally:
                for task in keepers:
                    task.cancel()
                await asyncio.gather(*keepers, return_exceptions=True)
                for replica in replicas:
                    replica.operator.kill()

    def which(self, who: int | str) -> Replica:
        """A replica by number, or the one that holds the lease as far as its own writes tell."""
        if isinstance(who, int):
            return self.replicas[who]
        return max(self.replicas, key=_led_at)

    def calm(self) -> None:
        """End all faults of proxies and processes."""
        for replica in self.replicas:
            replica.proxy.heal()
            replica.signal(signal.SIGCONT)

    async def unready(self) -> list[str]:
        """Operators that do not say that they are ready, and why."""
        said = await asyncio.gather(*(r.operator.readiness() for r in self.replicas))
        return [f"operator {n} is not ready: {text or 'no answer'}" for n, text in enumerate(said) if text != "ok"]

    def states(self) -> list[str]:
        """What the processes do, as the kernel sees them: for one that does not answer."""
        found = []
        for number, replica in enumerate(self.replicas):
            process = replica.operator.process
            with contextlib.suppress(OSError):
                path = Path(f"/proc/{process.pid if process is not None else 0}")
                state = (path / "stat").read_text().rsplit(")", 1)[1].split()[0]
                waits = (path / "wchan").read_text()
                found.append(f"operator {number}: state {state}, waits in {waits or '-'}, clock {replica.skew:+} s")
        return found

    async def stop(self) -> list[str]:
        """End them as a kubelet does; what was wrong with how they ended."""
        self._ending = True
        for replica in self.replicas:
            replica.signal(signal.SIGTERM)
        wrong = []
        for number, replica in enumerate(self.replicas):
            process = replica.operator.process
            deadline = time.monotonic() + STOP_SECONDS
            while process is not None and process.poll() is None and time.monotonic() < deadline:
                await asyncio.sleep(0.05)
            code = process.poll() if process is not None else 0
            if code is None:
                wrong.append(f"operator {number} does not end within {STOP_SECONDS} s of SIGTERM")
            elif code != 0 and not replica.operator.tail(1).startswith(OUSTED):
                wrong.append(f"operator {number} ends with {code} after SIGTERM")
        return wrong

    async def _keep(self, replica: Replica) -> None:
        while not self._ending:
            await asyncio.sleep(LOOK_SECONDS)
            if replica.operator.running or self._ending:
                continue
            process = replica.operator.process
            replica.exits.append(process.returncode if process is not None else 0)
            replica.frozen = False
            await asyncio.sleep(RESTART_SECONDS)
            if not self._ending:
                replica.operator.launch()
                replica.starts += 1


def _clock(skew: float) -> dict[str, str]:
    if not skew:
        return {}
    return {"LD_PRELOAD": faketime(), "FAKETIME": f"{skew:+.1f}", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def _led_at(replica: Replica) -> float:
    """When its last write to the Lease succeeded."""
    writes = (c for c in reversed(replica.proxy.calls) if c.resource == "leases" and c.writes)
    return next((c.at for c in writes if c.code in (200, 201)), 0.0)
