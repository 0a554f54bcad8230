"""The node agent as a process of its own, on a driver that a file plays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from .driver import FOLDER, FakeDriver
from .operator import ROOT, Operator

_MAIN = "from avatar_operator.cli.main import app; app()"


class Agent(Operator):
    """One agent of a node, perhaps several processes after each other, as the kubelet would start them."""

    def __init__(
        self,
        kubeconfig: Path,
        log: Path,
        node: str,
        driver: FakeDriver,
        *options: str,
        env: dict[str, str] | None = None,
    ):
        super().__init__(kubeconfig, log)
        self.env = {**driver.env(), "PYTHONPATH": os.pathsep.join((str(FOLDER), str(ROOT / "operator"))), **(env or {})}
        self.command = [sys.executable, "-c", _MAIN, "agent", f"--node={node}", f"--kubeconfig={kubeconfig}"]
        self.command += [f"--listen=127.0.0.1:{self.port}", "--log-level=debug", *options]

    def launch(self) -> None:
        """Start the process and do not wait for it."""
        assert not self.running, "it runs already"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, env={**os.environ, **self.env}, cwd=ROOT
            )
