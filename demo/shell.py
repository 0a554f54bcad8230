"""Running commands so that who watches sees them, and steps with their times."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

console = Console(highlight=False, soft_wrap=True)
BEGAN = time.monotonic()


class DemoError(Exception):
    """A step failed; the message says what to look at."""


@contextmanager
def step(title: str) -> Iterator[None]:
    """A numbered-by-time step: its title before, its duration after."""
    began = time.monotonic()
    console.print(f"\n[bold cyan][{began - BEGAN:6.1f} s][/] [bold]{title}[/]")
    yield
    console.print(f"[dim]           done in {time.monotonic() - began:.1f} s[/]")


def say(text: str) -> None:
    """A line of explanation."""
    console.print(f"           {text}")


class Shell:
    """Commands with the demo cluster's kubectl and helm on the PATH."""

    def __init__(self, bin_dir: Path, kubeconfig: Path) -> None:
        self._env = {**os.environ, "PATH": f"{bin_dir}:{os.environ['PATH']}", "KUBECONFIG": str(kubeconfig)}

    def run(self, *command: str, show: bool = True, timeout: float = 300) -> str:
        """Run a command; its output, printed too with ``show``. DemoError when it fails."""
        if show:
            console.print(f"[green]           $ {_shown(command)}[/]", markup=True)
        done = subprocess.run(command, env=self._env, capture_output=True, text=True, timeout=timeout, check=False)
        if done.returncode:
            raise DemoError(f"{_shown(command)} failed:\n{done.stdout}{done.stderr}")
        if show:
            for line in done.stdout.rstrip().splitlines():
                console.print(f"           {line}", markup=False)
        return done.stdout

    def json(self, *command: str) -> Any:
        """The JSON that a command prints; None when what it asks for is not there."""
        done = subprocess.run(
            [*command, "-o", "json"], env=self._env, capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode:
            if "NotFound" in done.stderr:
                return None
            raise DemoError(f"{_shown(command)} failed:\n{done.stderr}")
        return json.loads(done.stdout)


def wait_for(what: str, look: Callable[[], Any], timeout: float, last: Callable[[], str] = str) -> Any:
    """Ask ``look`` until its answer is true; DemoError with the last state after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise DemoError(f"timed out after {timeout:.0f} s waiting for {what}; {last()}")
        time.sleep(0.1)


def _shown(command: Sequence[str]) -> str:
    return " ".join(f"'{part}'" if any(c in part for c in ' {"') else part for part in command)
