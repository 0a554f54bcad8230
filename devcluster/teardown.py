"""Taking a native node down, whatever state it is in, and looking for what is left."""

import contextlib
import os
import shutil
import socket
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from devcluster.layout import Layout
from devcluster.namespaces import Namespaces
from devcluster.process import alive, all_pids, end, marked
from devcluster.progress import say, step

_CGROUPS = Path("/sys/fs/cgroup")


def take_down(layout: Layout, namespaces: Namespaces) -> list[str]:
    """Remove the node; return what is left of it."""
    state = layout.state
    containers = container_ids(state)
    with step("ending the pods and the node's processes"):
        # Those that would start pods again go first, then the pods, then what holds them.
        end(_named(state, "kube-scheduler", "kube-controller-manager", "kubelet", "kwok"), grace=2)
        containers |= container_ids(state)
        end(_container_processes(state, containers), grace=2)
        end(_named(state, "kube-proxy", "coredns", "containerd", "kube-apiserver"), grace=1)
        for _ in range(3):
            rest = owned(state, namespaces, containers)
            if not rest:
                break
            end(rest, grace=0)
    with step("removing namespaces, cgroups and files"):
        namespaces.delete()
        _remove_cgroups(containers)
        for attempt in range(2):
            shutil.rmtree(state, ignore_errors=attempt == 0)
            if not state.exists():
                break
    left = [f"process {pid} ({_command(pid)})" for pid in owned(state, namespaces, containers)]
    left += namespaces.leftovers()
    left += [f"cgroup {path}" for path in _cgroups(containers)]
    if state.exists():
        left.append(f"folder {state}")
    for item in left:
        say(f"left behind: {item}")
    return left


def container_ids(state: Path) -> set[str]:
    """Return the containers that containerd's shims have a folder for."""
    tasks = state / "run-containerd" / "state" / "io.containerd.runtime.v2.task" / "k8s.io"
    return {path.name for path in tasks.iterdir()} if tasks.is_dir() else set()


def owned(state: Path, namespaces: Namespaces, containers: Iterable[str]) -> list[int]:
    """Return every process of the node: started for it, in its network namespace, or in its containers."""
    pids = set(marked(state)) | set(_container_processes(state, containers))
    with contextlib.suppress(OSError):
        network = namespaces.net_file.stat()
        for pid in all_pids():
            with contextlib.suppress(OSError):
                if os.path.samestat(Path(f"/proc/{pid}/ns/net").stat(), network):
                    pids.add(pid)
    return sorted(pid for pid in pids - {os.getpid()} if alive(pid))


def _container_processes(state: Path, containers: Iterable[str]) -> list[int]:
    """Return the processes in the node's containers: below its shims, or in the containers' cgroups."""
    children: dict[int, list[int]] = defaultdict(list)
    found: set[int] = set()
    known = list(containers)
    for pid in all_pids():
        with contextlib.suppress(OSError, IndexError):
            children[int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])].append(pid)
            if known:
                groups = Path(f"/proc/{pid}/cgroup").read_text()
                if any(container in groups for container in known):
                    found.add(pid)
    pending = [pid for pid in marked(state) if "containerd-shim" in _command(pid)]
    shims = set(pending)
    while pending:
        below = children[pending.pop()]
        found.update(below)
        pending += below
    return sorted(found - shims)


def _named(state: Path, *names: str) -> list[int]:
    return [pid for pid in marked(state) if Path(_command(pid).split(" ", 1)[0]).name in names]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").replace("\0", " ").strip()
    except OSError:
        return "ended"


def _cgroups(containers: Iterable[str]) -> list[Path]:
    names = set(containers)
    parents = [_CGROUPS / "k8s.io", *_CGROUPS.glob("*/k8s.io")]
    return [path for parent in parents if parent.is_dir() for path in parent.iterdir() if path.name in names]


def _remove_cgroups(containers: Iterable[str]) -> None:
    """Remove the containers' cgroups, and the folder above where no other container is in it."""
    for path in _cgroups(containers):
        for folder, _, _ in os.walk(path, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
    for parent in (_CGROUPS / "k8s.io", *_CGROUPS.glob("*/k8s.io")):
        with contextlib.suppress(OSError):
            parent.rmdir()


def port_open(address: str, port: int) -> bool:
    """Tell whether a TCP port takes connections."""
    try:
        with socket.create_connection((address, port), timeout=1):
            return True
    except OSError:
        return False
