"""Nodes of a test's own, played by kwok, with whatever resources it wants."""

from __future__ import annotations

from .api import Api, Json, until

RESOURCES = {"cpu": "1000", "memory": "4000Gi", "pods": "11000", "ephemeral-storage": "4000Gi"}


async def make_node(api: Api, name: str, labels: dict[str, str], **resources: str) -> None:
    """A Ready node; pods come there that tolerate the taint ``kwok.x-k8s.io/node``."""
    given = {**RESOURCES, **resources}
    node: Json = {
        "metadata": {
            "name": name,
            "annotations": {"kwok.x-k8s.io/node": "fake"},
            "labels": {"kubernetes.io/hostname": f"host-of-{name}", "kubernetes.io/os": "linux", **labels},
        },
        "spec": {"taints": [{"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}]},
        "status": {"allocatable": given, "capacity": given},
    }
    await api.create("nodes", "", node)
    await until(f"node {name} being Ready", lambda: api.get("nodes", "", name), _ready)


def _ready(node: Json | None) -> bool:
    conditions = (node or {}).get("status", {}).get("conditions", [])
    taints = {taint["key"] for taint in (node or {}).get("spec", {}).get("taints", [])}
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    # The taint of a node that was not Ready yet goes a moment later.
    return ready and "node.kubernetes.io/not-ready" not in taints
