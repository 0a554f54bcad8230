"""kind, where Docker is there."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from devcluster.errors import DevclusterError
from devcluster.images import load_once
from devcluster.kube import Kubectl
from devcluster.layout import Layout
from devcluster.process import Daemon, run
from devcluster.progress import step

# The instance range of the default pool, the REST API and the page.
PORTS = (*range(8615, 8620), 8607)


def why_not() -> str | None:
    """Return why kind cannot be used here, ``None`` when it can."""
    for program in ("docker", "kind", "kubectl"):
        if not shutil.which(program):
            return f"there is no {program}"
    try:
        if run(["docker", "info"], check=False, timeout=20).returncode:
            return "`docker info` fails: is Docker running, and may you use it?"
    except DevclusterError as error:
        return str(error)
    return None


class Kind:
    """The provider ``kind``."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def _exists(self) -> bool:
        return self.layout.name in run(["kind", "get", "clusters"]).stdout.split()

    def up(self) -> None:
        """Create the cluster unless it is there and healthy."""
        refusal = why_not()
        if refusal:
            raise DevclusterError(f"kind cannot be used: {refusal}.", "Take --provider native or control-plane.")
        self.layout.remember(provider="kind")
        if self._exists():
            if self.healthy():
                return
            self._delete()
        mappings = [{"containerPort": port, "hostPort": port, "listenAddress": "127.0.0.1"} for port in PORTS]
        config = {
            "kind": "Cluster",
            "apiVersion": "kind.x-k8s.io/v1alpha4",
            "nodes": [{"role": "control-plane", "extraPortMappings": mappings}],
        }
        file = self.layout.state / "kind.json"
        file.write_text(json.dumps(config))
        with step("kind create cluster (a minute; more when it pulls its image)"):
            run(
                [
                    *("kind", "create", "cluster", "--name", self.layout.name, "--config", str(file)),
                    *("--kubeconfig", str(self.layout.kubeconfig), "--wait", "120s"),
                ],
                timeout=900,
            )

    def _delete(self) -> None:
        with step("kind delete cluster"):
            run(
                [
                    *("kind", "delete", "cluster", "--name", self.layout.name),
                    *("--kubeconfig", str(self.layout.kubeconfig)),
                ],
                timeout=300,
            )
        (self.layout.state / "images.json").unlink(missing_ok=True)

    def down(self) -> list[str]:
        """Delete the cluster."""
        if shutil.which("kind") and self._exists():
            self._delete()
        shutil.rmtree(self.layout.state, ignore_errors=True)
        return []

    def status(self) -> dict[str, str]:
        """Return whether the cluster is there and answers."""
        return {
            "kind cluster": "there" if self._exists() else "not there",
            "API server": "ready" if self.healthy() else "does not answer",
        }

    def healthy(self) -> bool:
        """Tell whether the API server answers and the nodes are Ready."""
        kubectl = Kubectl(None, self.layout.kubeconfig)
        return self.layout.kubeconfig.exists() and kubectl.ready() and kubectl.node_ready()

    def kubeconfig(self) -> Path:
        """Return the kubeconfig that kind wrote."""
        return self.layout.kubeconfig

    def programs(self) -> Path | None:
        """Return ``None``: kubectl and helm of the path."""
        return None

    def fake_node_address(self, index: int) -> str:
        """Refuse: kwok does not run here."""
        raise DevclusterError("Only the native and control-plane providers run kwok for fake nodes.")

    def load_images(self, archives: Sequence[Path]) -> None:
        """Load docker-archives into the node."""

        def load(archive: Path) -> None:
            with step(f"kind load image-archive {archive.name}"):
                run(["kind", "load", "image-archive", str(archive), "--name", self.layout.name], timeout=600)

        load_once(list(archives), self.layout.state, load)

    def daemons(self) -> dict[str, Daemon]:
        """Return nothing: its components are not processes of ours."""
        return {}

    def enter(self, command: Sequence[str]) -> list[str]:
        """Return ``command`` made to run in the node's container."""
        return ["docker", "exec", "-i", f"{self.layout.name}-control-plane", *command]
