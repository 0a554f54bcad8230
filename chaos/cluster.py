"""The cluster that the runs share, and the faults of its own components (on the devcluster of this suite alone)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import subprocess
import sys
from pathlib import Path

from tests.support.api import Api, Refused, until
from tests.support.cluster import define
from tests.support.nodes import make_node

from .objects import ready as is_ready
from .plan import COMPONENTS

ROOT = Path(__file__).resolve().parents[1]
NAME = "chaos"
CANARY = "avatars.test/canary"
CANARY_SECONDS = 180.0


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

    def kubectl(*arguments: str) -> None:
        command = [str(programs / "kubectl"), f"--kubeconfig={kubeconfig}", *arguments]
        subprocess.run(command, check=True, timeout=120, stdout=subprocess.DEVNULL)

    define(kubectl)
    return Path(kubeconfig)


def is_own(kubeconfig: Path) -> bool:
    """Whether it leads to the devcluster of this suite, whose components may be killed."""
    found = subprocess.run(
        [sys.executable, "-m", "devcluster", "--name", NAME, "kubeconfig"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return found.returncode == 0 and Path(found.stdout.strip()).resolve() == kubeconfig.resolve()


class Components:
    """The components of the cluster: killed, frozen, started; and etcd's disk, full."""

    # What etcd's own gateway takes; it answers inside the node alone.
    ETCD = "http://127.0.0.1:2379/v3/maintenance/alarm"

    async def fail(self, name: str, how: str, seconds: float) -> None:
        """``how``: kill (and start again) or freeze (and thaw), after so many seconds."""
        # It may have ended by itself, for what another fault did to it.
        await self._component("start", name)
        await self._component(how, name)
        await asyncio.sleep(seconds)
        await self._component("start" if how == "kill" else "thaw", name)

    async def disk_full(self, seconds: float) -> None:
        """Etcd raises its alarm NOSPACE, as with a disk or a quota that is full: it reads and does not write."""
        await self._alarm("ACTIVATE")
        await asyncio.sleep(seconds)
        await self._alarm("DEACTIVATE")

    async def calm(self, api: Api) -> None:
        """Everything runs again: the API server answers, and a pod that anybody makes becomes Ready on a new node.

        Scheduler and kwok take up to a minute to find an API server again that was killed, and a scheduler that finds
        its cache in disorder then ends itself, to be started again by its kubelet. That wait is theirs.
        """
        for name in COMPONENTS:
            await self._component("start", name)
            await self._component("thaw", name)

        async def ready() -> str:
            with contextlib.suppress(Exception):
                await self._alarm("DEACTIVATE")
                await api.list("namespaces")
                return "ok"
            return "no answer"

        await until("the API server answering", ready, lambda said: said == "ok", timeout=90, interval=0.5)
        keeping = asyncio.create_task(self._keep_running())
        try:
            await _canary(api)
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    async def _keep_running(self) -> None:
        """What ends is started, until cancelled."""
        while True:
            for name in COMPONENTS:
                await self._component("start", name)
            await asyncio.sleep(2)

    async def _alarm(self, action: str) -> None:
        body = json.dumps({"action": action, "alarm": "NOSPACE"})
        curl = ("curl", "--silent", "--fail", "--max-time", "10", "--data", body, self.ETCD)
        await asyncio.to_thread(_quiet, "exec-net", "--", *curl)

    async def _component(self, action: str, name: str) -> None:
        await asyncio.to_thread(_quiet, "component", action, name)


def _quiet(*arguments: str) -> None:
    command = [sys.executable, "-m", "devcluster", "--name", NAME, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise RuntimeError(f"`devcluster {' '.join(arguments)}`: {(done.stderr or done.stdout).strip()[-400:]}")


async def _canary(api: Api) -> None:
    """Wait until a node of nobody's becomes Ready, and a pod on it."""
    name = f"canary-{secrets.token_hex(3)}"
    try:
        await make_node(api, name, {CANARY: name}, patience=CANARY_SECONDS)
        spec = {
            "containers": [{"name": "canary", "image": "canary"}],
            "nodeSelector": {CANARY: name},
            "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
            "automountServiceAccountToken": False,
        }
        # Not in a run's namespace: what is there is the run's.
        await api.create("pods", "default", {"metadata": {"name": name}, "spec": spec})
        await until(
            "a pod of nobody's being Ready",
            lambda: api.get("pods", "default", name),
            lambda pod: pod is not None and is_ready(pod),
            CANARY_SECONDS,
        )
    finally:
        for resource, namespace in (("pods", "default"), ("nodes", "")):
            with contextlib.suppress(Refused):
                await api.delete(resource, namespace, name)
