"""Reading objects as the API server gives them: names of fields and labels, nothing of the operator."""

from __future__ import annotations

from datetime import datetime

from tests.support.api import GROUP, Json

LABEL_PORT = f"{GROUP}/port"
LABEL_POOL = f"{GROUP}/pool"
LABEL_GROUP = f"{GROUP}/group"
INSTANCES, POOLS, LEASES = "avatarinstances", "avatarpools", "coordination.k8s.io/v1/leases"


def label(body: Json, name: str) -> str:
    """A label's value; empty where there is none."""
    return str(body["metadata"].get("labels", {}).get(name, ""))


def group(body: Json) -> str:
    """What the pods and claims of one avatar have in common."""
    return label(body, LABEL_GROUP)


def kin(instance: Json) -> tuple[str, ...]:
    """Instances with the same value share one pod."""
    spec = instance["spec"]
    own = instance["metadata"]["uid"] if spec.get("exclusive") else ""
    return spec.get("poolRef", "default"), spec["avatarName"], own


def lives(pod: Json) -> bool:
    """Whether it has not ended and is not being deleted."""
    ended = pod.get("status", {}).get("phase") in ("Failed", "Succeeded")
    return not ended and "deletionTimestamp" not in pod["metadata"]


def ready(pod: Json) -> bool:
    """Its condition Ready."""
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions", []))


def counted(instance: Json) -> int:
    """Connections that are counted, or sessions if those are more."""
    status = instance.get("status", {})
    return max(int(status.get("connections", 0)), len(status.get("sessions", [])))


def capacity(pool: Json) -> int:
    """How many claims an AvatarPool's spec allows."""
    return min(int(pool.get("maxInstances", 1 << 30)), int(pool["ports"]["count"]))


def seconds(text: str) -> float:
    """A time of the API in Unix seconds."""
    return datetime.fromisoformat(text).timestamp()
