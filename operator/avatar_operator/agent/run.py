"""The agent's process: puts the parts together, runs them, ends at once when told to."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from avatar_operator import __version__
from avatar_operator.kube import credentials
from avatar_operator.kube.client import KubeClient
from avatar_operator.kube.events import Recorder
from avatar_operator.process import http

from .alerts import Thresholds
from .faults import DriverGoneError
from .loop import Agent, Pace
from .nvml import Reader
from .pods import Processes
from .publish import MANAGER, Publisher

log = logging.getLogger(__name__)

STOP_SECONDS = 1.0


class AgentError(Exception):
    """The agent cannot go on; a restart may help. The message is for people."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says. ``proc``: where the node's processes are to be seen."""

    node: str
    kubeconfig: str | None = None
    listen: str = "0.0.0.0:8081"
    pace: Pace = Pace()
    thresholds: Thresholds = field(default_factory=Thresholds)
    proc: Path = Path("/proc")


class Health:
    """Why the agent is not alive or not ready; an empty string = it is."""

    def __init__(self, agent: Agent, ended: Callable[[], str]) -> None:
        self._agent = agent
        self._ended = ended

    def dead(self) -> str:
        """What a restart would cure."""
        return self._ended() or self._agent.hung()

    def unready(self) -> str:
        """What keeps the reports from being written."""
        return self.dead() or self._agent.silent()


async def run(options: Options) -> None:
    """Run until SIGTERM or SIGINT; raises AgentError when a restart may help."""
    found = credentials.find(options.kubeconfig)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    reader = Reader(Processes(options.proc).owner, lambda: datetime.now(UTC))
    agent = Agent(reader, options.node, options.pace, options.thresholds)
    async with credentials.open_session(found, f"{MANAGER}/{__version__}") as session:
        client = KubeClient(session, found.server)
        recorder = Recorder(client, agent.metrics.events_dropped.inc, options.node, component=MANAGER)
        tasks: list[asyncio.Task[None]] = []

        def ended() -> str:
            return next((f"{t.get_name()} has ended" for t in tasks if t.done() and not stop.is_set()), "")

        try:
            runner = await http.serve(options.listen, agent.metrics.registry, Health(agent, ended))
        except OSError as error:
            raise AgentError(f"cannot listen on {options.listen} (--listen): {error}") from error
        parts = {
            "reading": agent.read(),
            "writing": agent.write(Publisher(client, recorder, options.node)),
            "events": recorder.run(),
        }
        tasks += [asyncio.create_task(part, name=name) for name, part in parts.items()]
        told = asyncio.create_task(stop.wait())
        log.info("running", extra={"version": __version__, "node": options.node, "pid": os.getpid()})
        try:
            await asyncio.wait([*tasks, told], return_when=asyncio.FIRST_COMPLETED)
            _raise_failed(tasks)
        finally:
            stop.set()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=STOP_SECONDS)
            await runner.cleanup()
            log.info("stopped")


def _raise_failed(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        if not task.done():
            continue
        error = task.exception()
        if isinstance(error, DriverGoneError):
            raise AgentError(f"{error}; this process ends so that a new one loads the driver anew") from error
        raise AgentError(f"{task.get_name()} has ended: {type(error).__name__} {error}") from error
