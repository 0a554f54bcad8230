"""Where peers find an instance's audio and video, and whether a probe got there.

The runtime opens UDP ports for a probe and says where they are, as it would
tell a peer; the operator sends STUN binding requests there from its own pod,
and the runtime itself sends some through its TURN server, where it has one:
that is the way of a client that relays. What each of them can prove depends on
the pool's network mode; nobody can tell for a client's own network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from .names import LABEL_PORT
from .network import udp_window
from .resources import MediaStatus, Pod, Pool
from .turn import relays

CONDITION = "MediaReachable"
# The way to a pod may change under it: it is looked at again so often (seconds), sooner when it did not work.
LOOK_SECONDS = 600
LOOK_AGAIN_SECONDS = 60
# So many addresses stand in status.
MOST = 16


@dataclass(frozen=True, slots=True)
class MediaReport:
    """A probe at ``at``. ``told``: host:port of what peers are told; ``answered``: those that answered the operator.

    ``relay``: the TURN server through which the runtime probed itself, empty =
    it did not; ``relayed``: whether that came through. ``error``: why there is
    no result; ``supported`` False = the runtime has no such route (stock LiveTalking).
    """

    at: datetime
    told: tuple[str, ...] = ()
    answered: tuple[str, ...] = ()
    relay: str = ""
    relayed: bool = False
    error: str = ""
    supported: bool = True


def media_host(pool: Pool, pod: Pod) -> str:
    """The address, or name of it, that peers are told instead of the pod's own; empty = the pod's own."""
    network = pool.spec.network
    if network.mode in ("Pod", "Relay"):
        return ""
    return network.external_host or (pod.status.host_ip if network.mode == "HostPort" else "")


def next_probe(pool: Pool, seen: MediaReport | None, now: datetime) -> datetime | None:
    """When to probe next; None = a probe could not tell anything."""
    if pool.spec.network.mode == "Pod" and not relays(pool.spec.network.ice_servers):
        return None
    if seen is None:
        return now
    if not seen.supported:
        return None
    good = seen.relayed or (bool(seen.answered) and not seen.relay)
    return seen.at + timedelta(seconds=LOOK_SECONDS if good else LOOK_AGAIN_SECONDS)


def status(pool: Pool, pod: Pod, port: int, seen: MediaReport | None) -> MediaStatus:
    """status.media of the instance in ``pod`` on ``port``."""
    network = pool.spec.network
    host = media_host(pool, pod)
    window = udp_window(pool, port) if network.mode == "HostPort" else None
    own = host or pod.status.pod_ip
    reachable, _, message = verdict(pool, pod, seen)
    return MediaStatus(
        mode=network.mode,
        host=host,
        candidates=(_hosts(seen.told) if seen is not None else ())[:MOST] or ((own,) if own else ()),
        udp_port_range=f"{window.start}-{window.stop - 1}" if window is not None else "",
        reachable=reachable,
        message=message,
    )


def condition(pool: Pool, pod: Pod, seen: MediaReport | None) -> tuple[str, str, str, str]:
    """The condition that says the same as ``status``."""
    return (CONDITION, *verdict(pool, pod, seen))


def verdict(pool: Pool, pod: Pod, seen: MediaReport | None) -> tuple[str, str, str]:
    """Reachable (True, False, Unknown), a reason for the condition, and a message with the remedy."""
    network = pool.spec.network
    if network.mode == "Pod" and not relays(network.ice_servers):
        return (
            "Unknown",
            "PodAddressesOnly",
            f"media goes to the pod's own address {pod.status.pod_ip}: it reaches only clients that have a route to "
            "pod addresses; for others use network.mode HostNetwork or HostPort, or a TURN server (mode Relay)",
        )
    if seen is None or not seen.supported:
        # The same words for both: a runtime that cannot be probed is not worth another write.
        return "Unknown", "NotProbed", f"not probed (the runtime has to have /api/admin/media); {_way(pool, pod)}"
    if seen.error:
        return "Unknown", "NotProbed", f"no probe: {seen.error}; {_way(pool, pod)}"
    if network.mode in ("Pod", "Relay"):
        return _relayed(pool, seen)
    where = ", ".join(_hosts(seen.told))
    if seen.answered:
        return "True", "Answered", f"{', '.join(_hosts(seen.answered))} answered a STUN request from the operator's pod"
    if not seen.told:
        return (
            "False",
            "NoCandidate",
            "the runtime could open no UDP port: its network has no address, or its window is used up",
        )
    if network.external_host:
        return (
            "Unknown",
            "NoAnswer",
            f"{where} did not answer the operator: not every NAT leads back in from the inside; try it from outside",
        )
    return "False", "NoAnswer", f"{where} did not answer a STUN request from the operator's pod; {_way(pool, pod)}"


def _relayed(pool: Pool, seen: MediaReport) -> tuple[str, str, str]:
    if not seen.relay:
        return (
            "Unknown",
            "NotProbed",
            "the runtime has no credentials for the TURN servers of network.iceServers to probe itself by: set "
            "network.turnSecretRef",
        )
    if seen.relayed:
        return "True", "Relayed", f"a STUN request through {seen.relay} came back to the pod"
    return (
        "False" if pool.spec.network.mode == "Relay" else "Unknown",
        "NotRelayed",
        f"no STUN request through {seen.relay} came back to the pod: is the TURN server up, its secret that of "
        "network.turnSecretRef, and may it send to pod addresses (allowed peers, NetworkPolicies)?",
    )


def _way(pool: Pool, pod: Pod) -> str:
    """What has to be open."""
    network = pool.spec.network
    if network.mode == "Relay":
        return "clients relay through the TURN servers of network.iceServers, which must reach pod addresses by UDP"
    if network.mode == "Pod":
        return "clients need a route to pod addresses, or the TURN servers of network.iceServers"
    host = network.external_host or pod.status.host_ip
    if network.mode == "HostPort":
        window = udp_window(pool, int(pod.metadata.labels[LABEL_PORT]))
        ports = f"UDP {window.start}-{window.stop - 1}"
        return f"clients must reach {ports} of {host}, and the cluster's network must map host ports (CNI portmap)"
    return f"clients must reach {host} on any UDP port above 1023: open it in the firewalls between them"


def _hosts(places: Sequence[str]) -> tuple[str, ...]:
    """The addresses of "host:port"s: each probe has other ports, and no two of them are worth a write."""
    return tuple(dict.fromkeys(place.rpartition(":")[0].strip("[]") for place in places))
