"""A real node on this machine, in namespaces of its own (root on Linux)."""

import os
import platform
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from devcluster import node_config, packages, teardown
from devcluster.binaries import bin_dir, ensure_binaries
from devcluster.components import ControlPlane, Node
from devcluster.errors import DevclusterError
from devcluster.images import PAUSE_IMAGE, load_once, pack_program
from devcluster.kube import Kubectl
from devcluster.layout import SLOT_LOCK, Addresses, Layout, choose_slot, lock, source_dir
from devcluster.namespaces import Namespaces
from devcluster.process import Daemon, run
from devcluster.progress import say, step, wait_for

# Raised when a running cluster of the old shape cannot be repaired into the new one.
SHAPE = 1
_SOCKET_PATH = 90  # the kernel takes 107, and kubelet and containerd add a little
_USERS = ("controller-manager", "scheduler", "kubelet", "proxy", "kwok", "coredns")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def why_not() -> str | None:
    """Return why this machine cannot have a native node, ``None`` when it can."""
    if not sys.platform.startswith("linux"):
        return "the native provider needs Linux"
    if os.geteuid() != 0:
        return "the native provider needs root"
    if shutil.which("unshare") and run(["unshare", "--net", "--mount", "true"], check=False).returncode:
        return "this root may not make namespaces (unshare --net --mount is refused)"
    return None


class Native:
    """The provider ``native``."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.node_name = f"{layout.name}-node"
        self._place()

    def _place(self) -> None:
        self.addresses = Addresses(choose_slot(self.layout))
        self.namespaces = Namespaces(self.layout.name, self.layout.state, self.addresses)

    # The cluster's parts

    def daemons(self) -> dict[str, Daemon]:
        """Return every component by name, in the order in which they start."""
        programs = self.programs()
        control = ControlPlane(
            layout=self.layout,
            programs=programs,
            address=self.addresses.inner,
            listen="0.0.0.0",
            services=self.addresses.services,
        )
        node = Node(self.layout, programs, self.node_name, self.addresses.inner)
        stages = source_dir() / "kwok-stages.yaml"
        plain = [
            control.etcd(),
            node.containerd(),
            control.apiserver(kubelets=True),
            control.controller_manager(),
            control.scheduler(),
            node.kubelet(),
            node.proxy(),
            node.coredns(),
            control.kwok(stages, self.addresses.fake_pods, self.addresses.fake_node(0)),
        ]
        return {daemon.name: replace(daemon, command=self.namespaces.enter(*daemon.command)) for daemon in plain}

    def _kubectl(self) -> Kubectl:
        return Kubectl(self.programs(), self.layout.kubeconfig)

    # Provider

    def up(self) -> None:
        """Bring the cluster up; repair what is broken; rebuild it when repair fails."""
        refusal = why_not()
        if refusal:
            raise DevclusterError(f"{refusal[0].upper()}{refusal[1:]}.", "Take --provider control-plane or kind.")
        if len(f"{self.layout.state}/containerd.sock") > _SOCKET_PATH:
            raise DevclusterError(
                f"The path {self.layout.state} is too long for the sockets in it.",
                "Set XDG_STATE_HOME to a shorter one.",
            )
        facts = self.layout.facts()
        if facts and self.healthy():
            if facts.get("programs") != str(bin_dir()):
                say("the cluster runs programs of an older build; `down` and `up` change them")
            return
        if facts and not self._repairable():
            say("what is left of the cluster cannot be repaired; taking it down first")
            self.down()
            facts = {}
        packages.ensure_packages()
        ensure_binaries()
        try:
            self._start()
        except DevclusterError as error:
            if not facts:
                raise
            say(f"repairing did not help ({str(error).splitlines()[0]}); rebuilding the cluster")
            self.down()
            self._start()

    def _repairable(self) -> bool:
        facts = self.layout.facts()
        recorded = facts.get("programs")
        return (
            facts.get("shape") == SHAPE
            and isinstance(recorded, str)
            and (Path(recorded) / ".complete").exists()
            and self.namespaces.exist()
        )

    def _start(self) -> None:
        layout = self.layout
        if not layout.facts().get("programs"):
            with lock(SLOT_LOCK):
                self._place()
                layout.remember(
                    provider="native",
                    shape=SHAPE,
                    slot=self.addresses.slot,
                    programs=str(bin_dir()),
                    address=self.addresses.inner,
                    node=self.node_name,
                    created=time.time(),
                )
        with step(f"network and mount namespace {self.namespaces.netns} ({self.addresses.inner})"):
            self.namespaces.create()
        self._configure()
        daemons = self.daemons()
        with step("etcd, containerd and API server"):
            for name in ("etcd", "containerd"):
                self._launch(daemons[name])
            self._launch(daemons["kube-apiserver"])
            self._load_pause(daemons["containerd"])
            self._wait_ready(daemons["kube-apiserver"])
        with step("controllers, scheduler, kubelet, proxy, DNS, kwok"):
            for daemon in daemons.values():
                self._launch(daemon)
            self._wait_node(daemons)
            self._wait_dns(daemons["coredns"])
        for daemon in daemons.values():
            daemon.check_alive()

    def _launch(self, daemon: Daemon) -> None:
        if daemon.start():
            say(f"  started {daemon.name}")

    def _configure(self) -> None:
        layout, addresses = self.layout, self.addresses
        cni = packages.cni_dir()
        if cni is None:
            raise DevclusterError("The CNI plugins are gone.", "apt-get install containernetworking-plugins")
        for folder in (layout.logs, layout.pids):
            folder.mkdir(parents=True, exist_ok=True)
        node_config.write_keys(layout, self.programs(), self.node_name, addresses.inner, addresses.kubernetes_service)
        node_config.write_kubeconfigs(layout, f"https://{addresses.inner}:6443", _USERS)
        node_config.write_audit_policy(layout)
        node_config.write_containerd(layout, cni)
        node_config.write_cni(layout, addresses)
        node_config.write_kubelet(layout, addresses)
        node_config.write_dns(layout, addresses)

    def _load_pause(self, containerd: Daemon) -> None:
        def answers() -> bool:
            containerd.check_alive()
            return run(self._ctr("version"), check=False, timeout=10).returncode == 0

        wait_for("containerd answering", answers, timeout=30, on_timeout=containerd.tail)
        if PAUSE_IMAGE in run(self._ctr("images", "list", "-q")).stdout:
            return
        archive = self.layout.state / "pause.tar"
        arch = _ARCHITECTURES.get(platform.machine(), platform.machine())
        pack_program(self.programs() / "pause", PAUSE_IMAGE, archive, arch)
        run(self._ctr("images", "import", str(archive)))

    def _wait_ready(self, apiserver: Daemon) -> None:
        kubectl = self._kubectl()

        def ready() -> bool:
            apiserver.check_alive()
            return kubectl.ready()

        wait_for(
            "the API server getting ready",
            ready,
            timeout=90,
            interval=0.2,
            on_timeout=apiserver.tail,
            remedy="Is the machine very busy? Run `up` again, or `down` and `up`.",
        )

    def _wait_node(self, daemons: dict[str, Daemon]) -> None:
        kubectl = self._kubectl()

        def ready() -> bool:
            daemons["kubelet"].check_alive()
            return kubectl.node_ready(self.node_name)

        wait_for(
            f"node {self.node_name} getting Ready",
            ready,
            timeout=90,
            interval=0.2,
            on_timeout=daemons["kubelet"].tail,
            remedy=f"`kubectl describe node {self.node_name}` names the condition that is missing.",
        )

    def _wait_dns(self, coredns: Daemon) -> None:
        def ready() -> bool:
            coredns.check_alive()
            return teardown.port_open(self.addresses.inner, 53)

        wait_for("DNS answering", ready, timeout=30, on_timeout=coredns.tail)

    def _ctr(self, *arguments: str) -> list[str]:
        # In the node's mount namespace: an import unpacks by mounting.
        socket = f"{self.layout.state}/containerd.sock"
        return self.namespaces.enter("ctr", "-a", socket, "-n", "k8s.io", *arguments)

    def down(self) -> list[str]:
        """End every process of the cluster, remove its namespaces and its files."""
        return teardown.take_down(self.layout, self.namespaces)

    def healthy(self) -> bool:
        """Tell whether all components run and the node is Ready."""
        if not self.namespaces.exist() or any(d.pid() is None for d in self.daemons().values()):
            return False
        kubectl = self._kubectl()
        return kubectl.ready() and kubectl.node_ready(self.node_name)

    def status(self) -> dict[str, str]:
        """Return the components with their pids, and the node."""
        parts = {}
        for name, daemon in self.daemons().items():
            pid = daemon.pid()
            parts[name] = f"running, pid {pid}" if pid else "not running"
        kubectl = self._kubectl()
        parts["API server"] = "ready" if kubectl.ready() else "does not answer"
        parts["node"] = "Ready" if kubectl.node_ready(self.node_name) else "not Ready"
        parts["address"] = self.addresses.inner
        parts["pods"] = self.addresses.pods
        parts["fake pods"] = self.addresses.fake
        parts["audit log"] = f"{self.layout.state}/audit.log"
        return parts

    def kubeconfig(self) -> Path:
        """Return the administrator's kubeconfig."""
        return self.layout.kubeconfig

    def programs(self) -> Path:
        """Return the folder of the programs that the cluster runs, or would run."""
        recorded = self.layout.facts().get("programs")
        return Path(recorded) if isinstance(recorded, str) else bin_dir()

    def fake_node_address(self, index: int) -> str:
        """Return the address of the fake node ``index``."""
        return self.addresses.fake_node(index)

    def load_images(self, archives: Sequence[Path]) -> None:
        """Import docker-archives into containerd."""

        def load(archive: Path) -> None:
            with step(f"loading {archive.name} ({archive.stat().st_size / 1e6:.0f} MB)"):
                run(self._ctr("images", "import", str(archive)), timeout=600)

        load_once(list(archives), self.layout.state, load)

    def enter(self, command: Sequence[str]) -> list[str]:
        """Return ``command`` made to run in the node's network, with the host's files."""
        return self.namespaces.enter(*command, mounts=False)
