"""What a pod is given so that its media gets out: environment, the TURN secret, its window of UDP ports."""

from __future__ import annotations

import msgspec

from . import turn
from .actions import Json
from .resources import Pool

SECRET_VOLUME = "turn-secret"  # noqa: S105 - the name of a volume
SECRET_FOLDER = "/run/avatar-turn"  # noqa: S105


def environment(pool: Pool) -> list[Json]:
    """What tells the runtime how its media gets out; stock LiveTalking does not read it."""
    network = pool.spec.network
    found: list[Json] = []
    if network.mode in ("HostNetwork", "HostPort"):
        if network.external_host:
            found.append({"name": "AVATAR_MEDIA_HOST", "value": network.external_host})
        elif network.mode == "HostPort":
            # Of each family that the node has: the pod is told where it landed.
            field = {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.hostIPs"}}
            found.append({"name": "AVATAR_MEDIA_HOST", "valueFrom": field})
    if network.ice_servers:
        servers = msgspec.json.encode(network.ice_servers).decode()
        # Kubernetes replaces $(NAME) in values: no dollar sign of a credential may begin one.
        found.append({"name": "AVATAR_ICE_SERVERS", "value": servers.replace("$", "$$")})
        found.append({"name": "AVATAR_ICE_USE", "value": "probe" if network.mode == "Relay" else "all"})
    if _secret_wanted(pool):
        found.append({"name": "AVATAR_TURN_SECRET_FILE", "value": f"{SECRET_FOLDER}/secret"})
    return found


def secret_volume(pool: Pool) -> tuple[list[Json], list[Json]]:
    """Volume and mount of the secret that the pod makes TURN credentials with, for as long as it lives."""
    reference = pool.spec.network.turn_secret_ref
    if reference is None or not _secret_wanted(pool):
        return [], []
    source: Json = {
        "secretName": reference.name,
        "items": [{"key": reference.key, "path": "secret"}],
        # Whichever user the image runs as.
        "defaultMode": 0o444,
        # Without it the avatar serves all those who need no relay.
        "optional": True,
    }
    mount: Json = {"name": SECRET_VOLUME, "mountPath": SECRET_FOLDER, "readOnly": True}
    return [{"name": SECRET_VOLUME, "secret": source}], [mount]


def _secret_wanted(pool: Pool) -> bool:
    network = pool.spec.network
    return network.turn_secret_ref is not None and any(turn.wants_credentials(s) for s in network.ice_servers)


def udp_window(pool: Pool, port: int) -> range:
    """The UDP ports of the instance on ``port`` in HostPort mode (runtime research 3.5)."""
    network = pool.spec.network
    slot = port - pool.spec.ports.base
    start = network.udp_port_base + slot * network.udp_ports_per_instance
    return range(start, start + network.udp_ports_per_instance)
