"""Where a cluster keeps its files, and the addresses that belong to it."""

import fcntl
import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from devcluster.errors import DevclusterError
from devcluster.progress import say

PROJECT = "avatar-operator"
SLOTS = 250
SLOT_LOCK = "slots"
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?")


def source_dir() -> Path:
    """Return the folder of this package."""
    return Path(__file__).resolve().parent


def state_root() -> Path:
    """Return the folder that holds one folder a cluster."""
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser() / PROJECT


def cache_root() -> Path:
    """Return the folder of everything that can be made again."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / PROJECT


@dataclass(frozen=True)
class Layout:
    """The files of the cluster ``name``; nothing is created by asking for a path."""

    name: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise DevclusterError(
                f"{self.name!r} cannot be a cluster's name.",
                "Take 1 to 10 lower-case letters, digits and dashes, a letter first.",
            )

    @property
    def state(self) -> Path:
        """The cluster's own folder."""
        return state_root() / self.name

    @property
    def logs(self) -> Path:
        """One file a component."""
        return self.state / "logs"

    @property
    def pids(self) -> Path:
        """One file a running component."""
        return self.state / "pids"

    @property
    def pki(self) -> Path:
        """Keys, certificates, tokens."""
        return self.state / "pki"

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig of the administrator, usable on this machine."""
        return self.state / "kubeconfig"

    @property
    def facts_file(self) -> Path:
        """What ``up`` decided: provider, slot, build."""
        return self.state / "cluster.json"

    def facts(self) -> dict[str, object]:
        """Return what ``up`` decided, empty when there is no cluster."""
        try:
            facts = json.loads(self.facts_file.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return facts if isinstance(facts, dict) else {}

    def remember(self, **facts: object) -> None:
        """Add to what ``up`` decided."""
        self.state.mkdir(parents=True, exist_ok=True)
        self.facts_file.write_text(json.dumps(self.facts() | facts, indent=2) + "\n")

    def lock(self) -> AbstractContextManager[None]:
        """Hold the cluster against another ``up`` or ``down`` of the same name."""
        return lock(self.name)


@contextmanager
def lock(name: str) -> Iterator[None]:
    """Hold the lock ``name`` against other commands, waiting for it as long as those run."""
    state_root().mkdir(parents=True, exist_ok=True)
    with (state_root() / f".{name}.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another devcluster command on {name!r} to end")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def clusters() -> list[str]:
    """Return the names of the clusters that have a folder."""
    if not state_root().is_dir():
        return []
    return sorted(path.parent.name for path in state_root().glob("*/cluster.json"))


def choose_slot(layout: Layout) -> int:
    """Return the cluster's slot: its own if it has one, else by its name, past those of the others.

    Who keeps what it gets holds ``lock(SLOT_LOCK)`` until it is remembered.
    """
    mine = layout.facts().get("slot")
    if isinstance(mine, int):
        return mine
    taken = {Layout(other).facts().get("slot") for other in clusters() if other != layout.name}
    first = zlib.crc32(layout.name.encode()) % SLOTS
    for offset in range(SLOTS):
        slot = (first + offset) % SLOTS
        if slot not in taken:
            return slot
    raise DevclusterError(f"All {SLOTS} address slots are taken.", "Take some clusters down.")


@dataclass(frozen=True)
class Addresses:
    """The addresses of the cluster in ``slot``.

    Nodes and pods live in 198.18.0.0/15 (RFC 2544, on no real network), fake pods in 240.0.0.0/4
    (reserved), so that nothing hides a network that the machine uses.
    """

    slot: int

    @property
    def outer(self) -> str:
        """The host's end of the link."""
        return f"198.18.{self.slot}.1"

    @property
    def inner(self) -> str:
        """The node: API server, hostNetwork pods, hostPorts, DNS."""
        return f"198.18.{self.slot}.2"

    @property
    def pods(self) -> str:
        """The network of real pods; the host reaches it through the node."""
        return f"198.19.{self.slot}.0/24"

    @property
    def pod_gateway(self) -> str:
        """The node in the pods' network."""
        return f"198.19.{self.slot}.1"

    @property
    def fake(self) -> str:
        """The network of kwok's nodes and pods: local to the host, where a test may listen on any of it."""
        return f"240.{self.slot}.0.0/16"

    @property
    def fake_pods(self) -> str:
        """The half of ``fake`` that pods get."""
        return f"240.{self.slot}.0.0/17"

    def fake_node(self, index: int) -> str:
        """Return the address of the fake node ``index``."""
        return f"240.{self.slot}.{128 + index // 250}.{index % 250 + 1}"

    @property
    def services(self) -> str:
        """ClusterIPs, known inside the node only, and so the same in every cluster."""
        return "10.96.0.0/16"

    @property
    def kubernetes_service(self) -> str:
        """The ClusterIP of the API server."""
        return "10.96.0.1"


def digest(*parts: bytes) -> str:
    """Return a short hash of ``parts``."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, "big"))
        whole.update(part)
    return whole.hexdigest()[:16]
