"""A cluster of one's own, for what would end everybody's: control plane and kwok nodes, brought up and taken down."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def define(kubectl: Callable[..., object]) -> None:
    """Apply the custom resource definitions, and wait until they are served. ``kubectl(*arguments)`` raises."""
    files = str(ROOT / "crds")
    kubectl("apply", "--server-side", "--force-conflicts", "-f", files)
    kubectl("wait", "--for=condition=Established", "--timeout=60s", "-f", files)
    # A kind just established answers 429 until its storage is ready; kubectl waits for that.
    kubectl("get", "avatarpools,avatars,avatarinstances,ttsengines,gpunodes", "--all-namespaces")


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM (`timeout`) interrupts as Ctrl-C does, so that what was started is ended, too."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@dataclass
class OwnCluster:
    """The devcluster ``name``. Use as ``with OwnCluster("outage").up() as own``."""

    name: str
    nodes: int = 2
    kubeconfig: Path = field(default=Path(), init=False)

    def run(self, *arguments: str) -> str:
        """Output of a devcluster command."""
        command = [sys.executable, "-m", "devcluster", "--name", self.name, *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
        if done.returncode:
            raise AssertionError(f"{' '.join(command)}: {done.stderr.strip()[-600:]}")
        return done.stdout.strip()

    @contextlib.contextmanager
    def up(self) -> Iterator[OwnCluster]:
        """Up with our definitions, until the block ends."""
        with interruptible():
            try:
                self.run("--provider", "control-plane", "up")
                self.run("fake-nodes", str(self.nodes))
                self.kubeconfig = Path(self.run("kubeconfig"))
                self.define()
                yield self
            finally:
                self.run("down")

    def pids(self) -> dict[str, int]:
        """Each running component's process."""
        return {file.stem: int(file.read_text()) for file in (self.kubeconfig.parent / "pids").glob("*.pid")}

    def define(self) -> None:
        """Apply the custom resource definitions, and wait until they are served."""
        define(self.kubectl)

    def kubectl(self, *arguments: str) -> str:
        """Output of kubectl; a failure is one of the test."""
        command = [f"{self.run('binaries')}/kubectl", f"--kubeconfig={self.kubeconfig}", *arguments]
        env = {**os.environ, "NO_PROXY": "127.0.0.0/8"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=env)
        if done.returncode:
            raise AssertionError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout
