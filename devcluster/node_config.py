"""The configuration files of a node's components, written into its state folder."""

import base64
import json
import secrets
from pathlib import Path

from devcluster.images import PAUSE_IMAGE
from devcluster.layout import Addresses, Layout
from devcluster.process import run

ADMIN = "devcluster-admin"
# User names as the audit log shows them; groups give the rights that upstream's roles expect.
CLIENTS = {
    "controller-manager": "system:kube-controller-manager",
    "scheduler": "system:kube-scheduler",
    "proxy": "system:kube-proxy",
    "kwok": "kwok,system:masters",
    "coredns": "coredns,system:masters",
    "apiserver-kubelet": "kube-apiserver,system:masters",
}


def write_keys(layout: Layout, programs: Path, node: str, address: str, service_address: str) -> None:
    """Write the CA, all certificates and the administrator's token."""
    names = (
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    )
    servers = [f"apiserver={','.join((address, service_address, '127.0.0.1', 'localhost', *names))}"]
    servers.append(f"kubelet-server={node},{address}")
    clients = [f"{name}={subject}" for name, subject in CLIENTS.items()]
    clients.append(f"kubelet=system:node:{node},system:nodes")
    command = [str(programs / "pki"), "-dir", str(layout.pki)]
    command += [part for server in servers for part in ("-server", server)]
    command += [part for client in clients for part in ("-client", client)]
    run(command)
    tokens = layout.pki / "tokens.csv"
    if not tokens.exists():
        tokens.touch(mode=0o600)
        tokens.write_text(f'{secrets.token_hex(24)},{ADMIN},{ADMIN},"system:masters"\n')


def write_kubeconfigs(layout: Layout, server: str, users: tuple[str, ...]) -> None:
    """Write the administrator's kubeconfig (a token) and those of the components (certificates)."""
    token = (layout.pki / "tokens.csv").read_text().split(",", 1)[0]
    _write_kubeconfig(layout, layout.kubeconfig, server, f"avatar-{layout.name}", {"token": token})
    for user in users:
        credentials = {
            "client-certificate": str(layout.pki / f"{user}.crt"),
            "client-key": str(layout.pki / f"{user}.key"),
        }
        _write_kubeconfig(layout, layout.state / f"{user}.kubeconfig", server, user, credentials)


def _write_kubeconfig(layout: Layout, path: Path, server: str, name: str, user: dict[str, str]) -> None:
    authority = base64.b64encode((layout.pki / "ca.crt").read_bytes()).decode()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": authority}}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(config, indent=2) + "\n")  # JSON is YAML, and the standard library writes it


def write_audit_policy(layout: Layout) -> None:
    """Log who wrote what, once a request, without bodies: tests and benchmarks count from it."""
    policy = {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived", "ResponseStarted"],
        "omitManagedFields": True,
        "rules": [
            {"level": "None", "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}]},
            {"level": "Metadata", "verbs": ["create", "update", "patch", "delete", "deletecollection"]},
            {"level": "None"},
        ],
    }
    (layout.state / "audit-policy.json").write_text(json.dumps(policy))


def write_containerd(layout: Layout, cni: Path) -> None:
    """Write containerd's configuration and the pods' network."""
    state = layout.state
    (state / "containerd.toml").write_text(
        f"""version = 2
root = "{state}/containerd"
state = "{state}/run-containerd/state"
[grpc]
  address = "{state}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  # containerd may not lower its own OOM score below the one it started with.
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{cni}"
  conf_dir = "{state}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
"""
    )


def write_cni(layout: Layout, addresses: Addresses) -> None:
    """Write the pods' network: every pod has its own link to the node, and everything is routed.

    A bridge would need br_netfilter for ClusterIPs between pods of one node, a module that a machine may
    not have.
    """
    network = {
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": False,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(layout.state / "cni-state" / "addresses"),
                    "ranges": [[{"subnet": addresses.pods, "gateway": addresses.pod_gateway}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
        ],
    }
    folder = layout.state / "cni"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "10-pods.conflist").write_text(json.dumps(network, indent=2))


def write_kubelet(layout: Layout, addresses: Addresses) -> None:
    """Write kubelet's and kube-proxy's configuration."""
    (layout.state / "resolv.conf").write_text(f"nameserver {addresses.inner}\n")
    kubelet = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": "0.0.0.0",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(layout.pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(layout.pki / "kubelet-server.crt"),
        "tlsPrivateKeyFile": str(layout.pki / "kubelet-server.key"),
        "containerRuntimeEndpoint": f"unix://{layout.state}/containerd.sock",
        "clusterDNS": [addresses.inner],
        "clusterDomain": "cluster.local",
        "resolvConf": str(layout.state / "resolv.conf"),
        # A machine shared with others: no cgroup hierarchy of kubelet's own, no swap or cgroup demands.
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": False,
        "enforceNodeAllocatable": [],
        "failCgroupV1": False,
        "failSwapOn": False,
        # Images cannot be pulled again: no garbage collection of them, and no eviction for a full disk.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "serializeImagePulls": False,
        "kubeAPIQPS": 100,
        "kubeAPIBurst": 200,
        "eventRecordQPS": 100,
        "eventBurst": 200,
        "syncFrequency": "10s",
        "maxPods": 200,
        "volumePluginDir": str(layout.state / "kubelet" / "volume-plugins"),
        "shutdownGracePeriod": "0s",
    }
    (layout.state / "kubelet.json").write_text(json.dumps(kubelet, indent=2))
    proxy = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(layout.state / "proxy.kubeconfig"), "qps": 100, "burst": 200},
        "mode": "iptables",
        "clusterCIDR": addresses.pods,
        "detectLocalMode": "ClusterCIDR",
        "conntrack": {"maxPerCore": 0, "min": 0},
        "iptables": {"minSyncPeriod": "100ms", "syncPeriod": "30s"},
        "metricsBindAddress": "127.0.0.1:10249",
    }
    (layout.state / "proxy.json").write_text(json.dumps(proxy, indent=2))


def write_dns(layout: Layout, addresses: Addresses) -> None:
    """Write CoreDNS's Corefile: Services and pods of this cluster, nothing beyond."""
    (layout.state / "Corefile").write_text(
        f""". {{
    bind {addresses.inner}
    errors
    nxdomain
}}
cluster.local in-addr.arpa ip6.arpa {{
    bind {addresses.inner}
    errors
    ready 127.0.0.1:8181
    cache 2
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        kubeconfig {layout.state}/coredns.kubeconfig
        pods insecure
        ttl 2
    }}
}}
"""
    )
