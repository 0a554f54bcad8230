"""The operator as a process of its own: started, killed, started again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp

from tests.support.api import until

ROOT = Path(__file__).resolve().parents[2]
_MAIN = "from avatar_operator.cli.main import app; app()"
# Compiled files are kept out of the tree and kept: there are many starts.
_CACHE = str(Path(tempfile.gettempdir()) / f"avatar-operator-tests-{os.getuid()}" / "pycache")


def free_port() -> int:
    """A TCP port of the loopback that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _environment() -> dict[str, str]:
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return env | {"PYTHONPATH": str(ROOT / "operator"), "PYTHONPYCACHEPREFIX": _CACHE, "PYTHONUNBUFFERED": "1"}


async def command(*args: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """`avatar-operator` with these arguments, run to its end."""
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", _MAIN, *args],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env=_environment(),
        cwd=ROOT,
    )


def total(page: str, name: str, namespace: str = "") -> float:
    """The sum over all label sets of a metric on a page of metrics, or over those of a namespace."""
    return sum(
        float(line.rpartition(" ")[2])
        for line in page.splitlines()
        if line.split("{")[0].split(" ")[0] == name and (not namespace or f'namespace="{namespace}"' in line)
    )


class Operator:
    """One operator, perhaps several processes after each other; all of them write one log.

    ``env`` is added to their environment.
    """

    def __init__(
        self,
        kubeconfig: Path,
        log: Path,
        namespaces: tuple[str, ...] = (),
        options: tuple[str, ...] = (),
        env: dict[str, str] | None = None,
    ):
        self._env = env or {}
        self.log = log
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._command = [sys.executable, "-c", _MAIN, "run", f"--kubeconfig={kubeconfig}"]
        self._command += ["--log-level=debug", *options]
        self._command += [f"--namespace={name}" for name in namespaces]

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self.process is not None and self.process.poll() is None

    def launch(self) -> None:
        """Start the process and do not wait for it."""
        assert not self.running, "it runs already"
        # Another one each time: while nobody listened, somebody else may have got the last one.
        self.port = free_port()
        command = [*self._command, f"--listen=127.0.0.1:{self.port}"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=_environment() | self._env, cwd=ROOT)

    async def start(self, timeout: float = 40) -> Operator:
        """Start the process and wait until it is ready."""
        self.launch()
        await self.until_ready(timeout)
        return self

    async def until_ready(self, timeout: float = 40) -> None:
        """Wait for /readyz to say yes."""
        deadline = time.monotonic() + timeout
        while (state := await self.readiness()) != "ok":
            if not self.running:
                code = self.process.returncode if self.process else None
                raise AssertionError(f"the operator ended with code {code}:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise AssertionError(f"the operator is not ready after {timeout} s ({state}):\n{self.tail()}")
            await asyncio.sleep(0.05)

    @contextlib.asynccontextmanager
    async def kept_running(self) -> AsyncIterator[None]:
        """Started again whenever it has ended, as a kubelet does, until the block ends."""

        async def keep() -> None:
            while True:
                if not self.running:
                    self.launch()
                await asyncio.sleep(0.1)

        keeping = asyncio.create_task(keep())
        try:
            yield
        finally:
            keeping.cancel()
            await asyncio.wait([keeping])

    async def readiness(self) -> str:
        """What /readyz says; "ok" when ready."""
        return (await self.page("/readyz")).strip()

    async def page(self, path: str) -> str:
        """The text of a page of the operator's own server; empty while it does not listen."""
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
                session.get(f"http://127.0.0.1:{self.port}{path}") as response,
            ):
                return await response.text()
        except (aiohttp.ClientError, TimeoutError):
            return ""

    async def metric(self, name: str, namespace: str = "") -> float:
        """The sum over all label sets of a metric, or over those of a namespace."""
        return total(await self.page("/metrics"), name, namespace)

    def kill(self) -> None:
        """SIGKILL, and wait until the process is gone."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait(10)

    def stop(self) -> int:
        """SIGTERM and the exit code; SIGKILL after ten seconds."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.process.returncode

    def tail(self, lines: int = 60) -> str:
        """The end of the log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])


async def leads(operator: Operator) -> bool:
    """Whether it is the one that acts (``--lease``)."""
    return await operator.metric("avatar_operator_leader") == 1.0


async def leader_of(*operators: Operator) -> Operator:
    """The one of them that acts."""

    async def look() -> list[Operator]:
        return [o for o in operators if o.running and await leads(o)]

    found = await until("one leader", look, lambda who: len(who) == 1, timeout=30)
    return found[0]
