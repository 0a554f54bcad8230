"""What every kind of cluster can do, and which kind this machine can have."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from devcluster.errors import DevclusterError
from devcluster.layout import Layout
from devcluster.process import Daemon
from devcluster.progress import say

PROVIDERS = ("native", "kind", "existing", "control-plane")


class Provider(Protocol):
    """A way to have a cluster."""

    def up(self) -> None:
        """Bring the cluster up, or repair it, or find that it is up already."""

    def down(self) -> list[str]:
        """Remove the cluster in whatever state it is; return what could not be removed."""

    def status(self) -> dict[str, str]:
        """Return each part with its state."""

    def healthy(self) -> bool:
        """Tell whether the API server answers and the nodes are Ready."""

    def kubeconfig(self) -> Path:
        """Return the path of the administrator's kubeconfig."""

    def programs(self) -> Path | None:
        """Return the folder with kubectl and helm, ``None`` where those on the path are meant."""

    def fake_node_address(self, index: int) -> str:
        """Return the address of the fake node ``index``; an error where there is no kwok."""

    def load_images(self, archives: Sequence[Path]) -> None:
        """Put docker-archive files into the nodes' image stores."""

    def daemons(self) -> dict[str, Daemon]:
        """Return the components that run as processes of this machine by name, in the order of their start."""

    def enter(self, command: Sequence[str]) -> list[str]:
        """Return ``command`` made to run in the node's network."""


def choose(layout: Layout, wanted: str | None, kubeconfig: str | None) -> Provider:
    """Return the provider that was asked for, else the one the cluster was made with, else the best here."""
    from devcluster.providers import control_plane, existing, kind, native

    recorded = layout.facts().get("provider")
    if wanted and recorded and wanted != recorded:
        raise DevclusterError(
            f"The cluster {layout.name!r} was made by the provider {recorded}, not {wanted}.",
            f"Take it down first: python3 -m devcluster --name {layout.name} down",
        )
    name = wanted or recorded
    if name is None:
        refusals = {"native": native.why_not()}
        if refusals["native"]:
            refusals["kind"] = kind.why_not()
        name = next((each for each, refusal in refusals.items() if refusal is None), "control-plane")
        for each, refusal in refusals.items():
            if refusal:
                say(f"provider {each} cannot be used here: {refusal}; taking {name}")
    if name == "native":
        return native.Native(layout)
    if name == "kind":
        return kind.Kind(layout)
    if name == "existing":
        return existing.Existing(layout, kubeconfig)
    if name == "control-plane":
        return control_plane.ControlPlaneOnly(layout)
    raise DevclusterError(f"There is no provider {name!r}.", f"Take one of {', '.join(PROVIDERS)}.")
