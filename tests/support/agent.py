"""The node agent as a process of its own, on a driver that a file plays."""

from __future__ import annotations

import os
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
        path = os.pathsep.join((str(FOLDER), str(ROOT / "operator")))
        super().__init__(kubeconfig, log, env={**driver.env(), "PYTHONPATH": path, **(env or {})})
        self._command = [sys.executable, "-c", _MAIN, "agent", f"--node={node}", f"--kubeconfig={kubeconfig}"]
        self._command += ["--log-level=debug", *options]
