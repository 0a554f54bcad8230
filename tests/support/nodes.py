"""Nodes of a test's own, played by kwok, with whatever resources it wants."""

from __future__ import annotations

from datetime import UTC, datetime

from .api import Api, Json, until

RESOURCES = {"cpu": "1000", "memory": "4000Gi", "pods": "11000", "ephemeral-storage": "4000Gi"}


async def make_node(
    api: Api, name: str, labels: dict[str, str], *, mute: bool = False, patience: float = 20, **resources: str
) -> None:
    """A Ready node; pods come there that tolerate the taint ``kwok.x-k8s.io/node``.

    ``mute``: nobody plays its kubelet. What is on it moves only by the test's own patches (``say_ready``,
    World.patch_pod), and a pod that is deleted there stays Terminating. Kubernetes calls such a node unreachable after
    40 to 50 s. ``patience``: seconds until it must be Ready.
    """
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
    if mute:
        del node["metadata"]["annotations"]
        node["status"]["conditions"] = [_condition("True")]
    await api.create("nodes", "", node)
    await until(f"node {name} being Ready", lambda: api.get("nodes", "", name), _ready, patience)


async def say_ready(api: Api, name: str, status: str) -> None:
    """Play the kubelet of a mute node (True, False), or the controller that misses it (Unknown)."""
    await api.patch("nodes", "", name, {"status": {"conditions": [_condition(status)]}}, "status")


def _condition(status: str) -> Json:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    times = {"lastHeartbeatTime": now, "lastTransitionTime": now}
    return {"type": "Ready", "status": status, "reason": "Test", "message": "played by a test", **times}


def _ready(node: Json | None) -> bool:
    conditions = (node or {}).get("status", {}).get("conditions", [])
    taints = {taint["key"] for taint in (node or {}).get("spec", {}).get("taints", [])}
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    # The taint of a node that was not Ready yet goes a moment later.
    return ready and "node.kubernetes.io/not-ready" not in taints
