"""A cluster that is there already."""

import os
from collections.abc import Sequence
from pathlib import Path

from devcluster.errors import DevclusterError
from devcluster.kube import Kubectl
from devcluster.layout import Layout
from devcluster.process import Daemon


class Existing:
    """The provider ``existing``: uses a kubeconfig, and leaves the cluster as it is."""

    def __init__(self, layout: Layout, kubeconfig: str | None) -> None:
        self.layout = layout
        recorded = layout.facts().get("kubeconfig")
        given = kubeconfig or os.environ.get("KUBECONFIG") or (recorded if isinstance(recorded, str) else None)
        self._kubeconfig = Path(given).expanduser() if given else None

    def up(self) -> None:
        """Check that the cluster answers."""
        if not Kubectl(None, self.kubeconfig()).ready():
            raise DevclusterError(
                f"The cluster of {self.kubeconfig()} does not answer.",
                "Try `kubectl get --raw=/readyz` with it.",
            )
        self.layout.remember(provider="existing", kubeconfig=str(self.kubeconfig()))

    def down(self) -> list[str]:
        """Forget the cluster, which goes on."""
        self.layout.facts_file.unlink(missing_ok=True)
        return []

    def status(self) -> dict[str, str]:
        """Return whether it answers."""
        return {"API server": "ready" if Kubectl(None, self.kubeconfig()).ready() else "does not answer"}

    def healthy(self) -> bool:
        """Tell whether the API server answers."""
        return Kubectl(None, self.kubeconfig()).ready()

    def kubeconfig(self) -> Path:
        """Return the kubeconfig that was given."""
        if self._kubeconfig is None or not self._kubeconfig.exists():
            raise DevclusterError(
                f"There is no kubeconfig {self._kubeconfig or ''}".rstrip() + ".",
                "Give it as --kubeconfig FILE or in $KUBECONFIG.",
            )
        return self._kubeconfig

    def programs(self) -> Path | None:
        """Return ``None``: kubectl and helm of the path."""
        return None

    def fake_node_address(self, index: int) -> str:
        """Refuse: kwok does not run here."""
        raise DevclusterError("Only the native and control-plane providers run kwok for fake nodes.")

    def load_images(self, archives: Sequence[Path]) -> None:
        """Refuse: how images get into a foreign cluster is its owner's business."""
        raise DevclusterError("Images cannot be loaded into an existing cluster.", "Push them to its registry.")

    def daemons(self) -> dict[str, Daemon]:
        """Return nothing: its components are not processes of ours."""
        return {}

    def enter(self, command: Sequence[str]) -> list[str]:
        """Return ``command`` as it is."""
        return list(command)
