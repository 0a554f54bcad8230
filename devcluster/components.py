"""The command lines of the cluster's components."""

from dataclasses import dataclass
from pathlib import Path

from devcluster.layout import Layout
from devcluster.process import Daemon

# The garbage collector runs half as often for twice the heap: memory is there, cores are few.
_GO = {"GOGC": "200"}


@dataclass(frozen=True)
class Ports:
    """The ports of the control plane; the defaults are upstream's, for a node of its own."""

    etcd: int = 2379
    etcd_peer: int = 2380
    apiserver: int = 6443
    controller_manager: int = 10257
    scheduler: int = 10259


@dataclass(frozen=True)
class ControlPlane:
    """What the control plane's command lines depend on."""

    layout: Layout
    programs: Path
    address: str  # where the API server is reached
    listen: str  # what it binds
    services: str
    ports: Ports = Ports()

    def _daemon(self, name: str, *arguments: str) -> Daemon:
        return Daemon(name, [str(self.programs / name), *arguments], self.layout.state, _GO)

    @property
    def server(self) -> str:
        """The API server's URL."""
        return f"https://{self.address}:{self.ports.apiserver}"

    def etcd(self) -> Daemon:
        """Return etcd; losing a second of data in a crash of the machine is fine here."""
        client = f"http://127.0.0.1:{self.ports.etcd}"
        peer = f"http://127.0.0.1:{self.ports.etcd_peer}"
        return self._daemon(
            "etcd",
            f"--data-dir={self.layout.state}/etcd",
            "--name=devcluster",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=devcluster={peer}",
            "--unsafe-no-fsync",
            "--auto-compaction-retention=10m",
            "--quota-backend-bytes=4294967296",
            "--log-level=warn",
        )

    def apiserver(self, *, kubelets: bool) -> Daemon:
        """Return the API server; with ``kubelets`` it reaches real kubelets for logs, exec, port-forward."""
        pki = self.layout.pki
        arguments = [
            f"--etcd-servers=http://127.0.0.1:{self.ports.etcd}",
            f"--bind-address={self.listen}",
            f"--secure-port={self.ports.apiserver}",
            f"--advertise-address={self.address}",
            f"--cert-dir={pki}",
            f"--tls-cert-file={pki}/apiserver.crt",
            f"--tls-private-key-file={pki}/apiserver.key",
            f"--client-ca-file={pki}/ca.crt",
            f"--token-auth-file={pki}/tokens.csv",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={pki}/sa.pub",
            f"--service-account-signing-key-file={pki}/sa.key",
            f"--service-cluster-ip-range={self.services}",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged=true",
            "--profiling=false",
            f"--audit-policy-file={self.layout.state}/audit-policy.json",
            f"--audit-log-path={self.layout.state}/audit.log",
            "--audit-log-maxsize=200",
            "--audit-log-maxbackup=2",
        ]
        if kubelets:
            arguments += [
                "--kubelet-preferred-address-types=InternalIP",
                f"--kubelet-certificate-authority={pki}/ca.crt",
                f"--kubelet-client-certificate={pki}/apiserver-kubelet.crt",
                f"--kubelet-client-key={pki}/apiserver-kubelet.key",
            ]
        else:
            # Nothing routes ClusterIPs without a node, and a loopback address is no valid endpoint.
            arguments.append("--endpoint-reconciler-type=none")
        return self._daemon("kube-apiserver", *arguments)

    def controller_manager(self, *, endpoints: bool = True) -> Daemon:
        """Return the controller manager; without ``endpoints`` nothing resolves Services to pods."""
        pki = self.layout.pki
        without = ("endpoints-controller", "endpointslice-controller", "endpointslice-mirroring-controller")
        return self._daemon(
            "kube-controller-manager",
            f"--kubeconfig={self.layout.state}/controller-manager.kubeconfig",
            "--bind-address=127.0.0.1",
            f"--secure-port={self.ports.controller_manager}",
            f"--cert-dir={self.layout.state}/controller-manager",
            "--use-service-account-credentials",
            f"--service-account-private-key-file={pki}/sa.key",
            f"--root-ca-file={pki}/ca.crt",
            "--controllers=*" + ("" if endpoints else "".join(f",-{name}" for name in without)),
            f"--cluster-signing-cert-file={pki}/ca.crt",
            f"--cluster-signing-key-file={pki}/ca.key",
            "--leader-elect=false",
            "--kube-api-qps=500",
            "--kube-api-burst=1000",
        )

    def scheduler(self) -> Daemon:
        """Return the scheduler."""
        return self._daemon(
            "kube-scheduler",
            f"--kubeconfig={self.layout.state}/scheduler.kubeconfig",
            "--bind-address=127.0.0.1",
            f"--secure-port={self.ports.scheduler}",
            f"--cert-dir={self.layout.state}/scheduler",
            "--leader-elect=false",
            "--kube-api-qps=500",
            "--kube-api-burst=1000",
        )

    def kwok(self, stages: Path, pods: str, node_address: str) -> Daemon:
        """Return kwok, which plays the nodes annotated ``kwok.x-k8s.io/node=fake`` and no other."""
        return self._daemon(
            "kwok",
            f"--kubeconfig={self.layout.state}/kwok.kubeconfig",
            f"--config={stages}",
            "--manage-all-nodes=false",
            "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
            "--node-lease-duration-seconds=40",
            f"--cidr={pods}",
            f"--node-ip={node_address}",
        )


@dataclass(frozen=True)
class Node:
    """The parts of a real node, beside the control plane."""

    layout: Layout
    programs: Path
    name: str
    address: str

    def containerd(self) -> Daemon:
        """Return containerd."""
        config = f"{self.layout.state}/containerd.toml"
        return Daemon("containerd", ["containerd", f"--config={config}"], self.layout.state)

    def kubelet(self) -> Daemon:
        """Return kubelet."""
        state = self.layout.state
        command = [
            str(self.programs / "kubelet"),
            f"--config={state}/kubelet.json",
            f"--kubeconfig={state}/kubelet.kubeconfig",
            f"--hostname-override={self.name}",
            f"--node-ip={self.address}",
            f"--cert-dir={state}/kubelet-pki",
        ]
        return Daemon("kubelet", command, state)

    def proxy(self) -> Daemon:
        """Return kube-proxy."""
        state = self.layout.state
        command = [
            str(self.programs / "kube-proxy"),
            f"--config={state}/proxy.json",
            f"--hostname-override={self.name}",
        ]
        return Daemon("kube-proxy", command, state)

    def coredns(self) -> Daemon:
        """Return CoreDNS."""
        state = self.layout.state
        return Daemon("coredns", [str(self.programs / "coredns"), "-conf", f"{state}/Corefile"], state)
