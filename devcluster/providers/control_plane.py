"""API server, controllers, scheduler and kwok nodes as an ordinary user: everything but real containers."""

import shutil
import socket
import time
from collections.abc import Sequence
from pathlib import Path

from devcluster import node_config
from devcluster.binaries import bin_dir, ensure_binaries
from devcluster.components import ControlPlane, Ports
from devcluster.errors import DevclusterError
from devcluster.kube import Kubectl, fake_nodes
from devcluster.layout import Layout, source_dir
from devcluster.process import Daemon, end, marked
from devcluster.progress import say, step, wait_for

_USERS = ("controller-manager", "scheduler", "kwok")
# An ordinary user has no other addresses than the loopback range, all of which are local: a test may listen
# on a fake pod's address. Endpoints may not be loopback addresses, but then nothing here would use them.
_FAKE_PODS = "127.64.0.0/16"


def fake_node_address(index: int) -> str:
    """Return the address of the fake node ``index``."""
    return f"127.65.{index // 250}.{index % 250 + 1}"


def _free_ports(count: int) -> list[int]:
    """Return ports of the loopback address that nothing uses now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


class ControlPlaneOnly:
    """The provider ``control-plane``."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def _control(self) -> ControlPlane:
        recorded = self.layout.facts().get("ports")
        if not isinstance(recorded, list):
            recorded = _free_ports(5)
            self.layout.remember(provider="control-plane", ports=recorded, programs=str(bin_dir()))
        return ControlPlane(
            layout=self.layout,
            programs=self.programs(),
            address="127.0.0.1",
            listen="127.0.0.1",
            services="10.96.0.0/16",
            ports=Ports(*recorded),
        )

    def daemons(self) -> dict[str, Daemon]:
        """Return every component by name, in the order in which they start."""
        control = self._control()
        plain = [
            control.etcd(),
            control.apiserver(kubelets=False),
            control.controller_manager(endpoints=False),
            control.scheduler(),
            control.kwok(source_dir() / "kwok-stages.yaml", _FAKE_PODS, fake_node_address(0)),
        ]
        return {daemon.name: daemon for daemon in plain}

    def up(self) -> None:
        """Start what does not run, with one fake node."""
        if self.layout.facts() and self.healthy():
            return
        ensure_binaries()
        control = self._control()
        for folder in (self.layout.logs, self.layout.pids):
            folder.mkdir(parents=True, exist_ok=True)
        node_config.write_keys(self.layout, control.programs, "none", "127.0.0.1", "10.96.0.1")
        node_config.write_kubeconfigs(self.layout, control.server, _USERS)
        node_config.write_audit_policy(self.layout)
        etcd, apiserver, *others = self.daemons().values()
        with step("etcd and API server"):
            etcd.start()
            apiserver.start()
            kubectl = self._kubectl()

            def ready() -> bool:
                etcd.check_alive()
                apiserver.check_alive()
                return kubectl.ready()

            wait_for("the API server getting ready", ready, timeout=90, on_timeout=apiserver.tail)
        with step("controllers, scheduler, kwok with a fake node"):
            for daemon in others:
                daemon.start()
            kubectl.run("apply", "-f", "-", stdin=fake_nodes([fake_node_address(0)], 0))
            wait_for(
                "the fake node getting Ready",
                lambda: kubectl.node_ready("fake-0"),
                timeout=60,
                on_timeout=others[-1].tail,
            )

    def _kubectl(self) -> Kubectl:
        return Kubectl(self.programs(), self.layout.kubeconfig)

    def down(self) -> list[str]:
        """End the processes and remove the files."""
        state = self.layout.state
        left = [f"process {pid}" for pid in end(marked(state), grace=3)]
        time.sleep(0.1)
        shutil.rmtree(state, ignore_errors=True)
        if state.exists():
            left.append(f"folder {state}")
        for item in left:
            say(f"left behind: {item}")
        return left

    def status(self) -> dict[str, str]:
        """Return the components with their pids."""
        parts = {}
        for daemon in self.daemons().values():
            pid = daemon.pid()
            parts[daemon.name] = f"running, pid {pid}" if pid else "not running"
        parts["API server"] = "ready" if self._kubectl().ready() else "does not answer"
        parts["audit log"] = f"{self.layout.state}/audit.log"
        return parts

    def healthy(self) -> bool:
        """Tell whether all components run and the API server is ready."""
        return all(daemon.pid() is not None for daemon in self.daemons().values()) and self._kubectl().ready()

    def kubeconfig(self) -> Path:
        """Return the administrator's kubeconfig."""
        return self.layout.kubeconfig

    def programs(self) -> Path:
        """Return the folder of the programs that the cluster runs, or would run."""
        recorded = self.layout.facts().get("programs")
        return Path(recorded) if isinstance(recorded, str) else bin_dir()

    def fake_node_address(self, index: int) -> str:
        """Return the address of the fake node ``index``."""
        return fake_node_address(index)

    def load_images(self, archives: Sequence[Path]) -> None:
        """Refuse: there is no node that could run an image."""
        raise DevclusterError("A control plane has no node to load images into.", "Take --provider native or kind.")

    def enter(self, command: Sequence[str]) -> list[str]:
        """Return ``command`` as it is: the control plane uses the machine's own network."""
        return list(command)
