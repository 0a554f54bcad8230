"""Asking a cluster through kubectl."""

import json
import os
from pathlib import Path

from devcluster.errors import DevclusterError
from devcluster.process import run


class Kubectl:
    """``kubectl`` of ``programs`` (of the path where that is ``None``) with one kubeconfig."""

    def __init__(self, programs: Path | None, kubeconfig: Path) -> None:
        # A proxy of the user's would not find addresses of this machine.
        direct = [os.environ.get("NO_PROXY", os.environ.get("no_proxy", "")), "198.18.0.0/15", "127.0.0.0/8"]
        self.env = {"NO_PROXY": ",".join(filter(None, direct))}
        self.command = [str(programs / "kubectl") if programs else "kubectl", f"--kubeconfig={kubeconfig}"]

    def run(self, *arguments: str, stdin: str | None = None, timeout: float = 60) -> str:
        """Run a command and return its output; a failure is an error."""
        return run([*self.command, *arguments], stdin=stdin, timeout=timeout, env=self.env).stdout

    def ready(self) -> bool:
        """Tell whether the API server says that it is ready."""
        try:
            done = run(
                [*self.command, "get", "--raw=/readyz", "--request-timeout=5s"], check=False, timeout=20, env=self.env
            )
        except DevclusterError:
            return False
        return done.returncode == 0 and done.stdout.strip() == "ok"

    def node_ready(self, name: str | None = None) -> bool:
        """Tell whether the node is Ready; without a name, whether all are and there is one."""
        command = ["get", "nodes", "-o", "json", "--request-timeout=5s"]
        try:
            done = run([*self.command, *command], check=False, timeout=20, env=self.env)
        except DevclusterError:
            return False
        if done.returncode:
            return False
        nodes = [node for node in json.loads(done.stdout)["items"] if name in (None, node["metadata"]["name"])]
        return bool(nodes) and all(
            any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions", []))
            for node in nodes
        )


def fake_nodes(addresses: list[str], gpus: int) -> str:
    """Return the manifests of fake nodes for kwok, one for each of ``addresses``.

    They are tainted ``kwok.x-k8s.io/node=fake:NoSchedule``, so only pods that tolerate it come there.
    """
    resources = {"cpu": "1000", "memory": "4000Gi", "pods": "11000", "ephemeral-storage": "4000Gi"}
    if gpus:
        resources["nvidia.com/gpu"] = str(gpus)
    items = []
    for index, address in enumerate(addresses):
        name = f"fake-{index}"
        status = {
            "allocatable": resources,
            "capacity": resources,
            "addresses": [
                {"type": "InternalIP", "address": address},
                {"type": "Hostname", "address": name},
            ],
        }
        items.append(
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {
                    "name": name,
                    "annotations": {"kwok.x-k8s.io/node": "fake"},
                    "labels": {
                        "type": "kwok",
                        "kubernetes.io/hostname": name,
                        "kubernetes.io/os": "linux",
                        "kubernetes.io/arch": "amd64",
                        "node.kubernetes.io/exclude-from-external-load-balancers": "true",
                    },
                },
                "spec": {"taints": [{"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}]},
                "status": status,
            }
        )
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
