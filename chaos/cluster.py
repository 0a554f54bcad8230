"""The cluster that the runs share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAME = "chaos"


def devcluster(*arguments: str, timeout: float = 1800) -> str:
    """Output of a devcluster command for the cluster of the runs; its progress goes to stderr."""
    command = [sys.executable, "-m", "devcluster", "--name", NAME, *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=timeout, check=False)
    if done.returncode:
        raise SystemExit(f"`devcluster {' '.join(arguments)}` failed (above); chaos needs a cluster")
    return done.stdout


def bring_up(kubeconfig: str) -> Path:
    """The kubeconfig of a cluster with the definitions applied and kwok; brings one up where none is given."""
    programs = Path(devcluster("binaries").strip())
    if not kubeconfig:
        devcluster("up")
        kubeconfig = devcluster("kubeconfig").strip()
    apply = [str(programs / "kubectl"), f"--kubeconfig={kubeconfig}", "apply", "--server-side", "--force-conflicts"]
    subprocess.run([*apply, "-f", str(ROOT / "crds")], check=True, timeout=120, stdout=subprocess.DEVNULL)
    return Path(kubeconfig)
