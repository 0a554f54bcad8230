"""What NetworkPolicies let through, by the rules of Kubernetes' API: the development cluster enforces none."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Peer:
    """One end of a connection: a pod with labels in a namespace, or an address outside the cluster (no namespace)."""

    labels: Json = field(default_factory=dict)
    namespace: str = ""
    address: str = "203.0.113.1"


def selects(selector: Json, labels: Json) -> bool:
    """Whether a label selector picks these labels."""
    assert not selector.keys() - {"matchLabels"}, "more than the chart uses"
    return selector.get("matchLabels", {}).items() <= labels.items()


def allowed(policies: list[Json], source: Peer, target: Peer, port: int, protocol: str = "TCP") -> bool:
    """Whether the policies let ``source`` connect to ``target``."""
    out = _passes(policies, source, target, port, protocol, "Egress")
    return out and _passes(policies, target, source, port, protocol, "Ingress")


def _passes(policies: list[Json], pod: Peer, other: Peer, port: int, protocol: str, way: str) -> bool:
    """One end's own policies: none that is about this way lets everything through."""
    mine = [
        policy["spec"]
        for policy in policies
        if pod.namespace == policy["metadata"]["namespace"]
        and selects(policy["spec"]["podSelector"], pod.labels)
        and way in policy["spec"]["policyTypes"]
    ]
    if not mine:
        return True
    peers = "from" if way == "Ingress" else "to"
    return any(
        _at(rule.get("ports"), port, protocol) and _is(rule.get(peers), other, spec["namespace"])
        for spec in (dict(s, namespace=pod.namespace) for s in mine)
        for rule in spec.get(way.lower(), ())
    )


def _at(ports: list[Json] | None, port: int, protocol: str) -> bool:
    if not ports:
        return True
    return any(p["protocol"] == protocol and p["port"] <= port <= p.get("endPort", p["port"]) for p in ports)


def _is(peers: list[Json] | None, other: Peer, namespace: str) -> bool:
    if not peers:
        return True
    return any(_one(peer, other, namespace) for peer in peers)


def _one(peer: Json, other: Peer, namespace: str) -> bool:
    if "ipBlock" in peer:
        # Addresses of pods are no business of ipBlock.
        network = ip_network(peer["ipBlock"]["cidr"])
        return not other.namespace and ip_address(other.address) in network
    if not other.namespace:
        return False
    if "namespaceSelector" in peer:
        inside = selects(peer["namespaceSelector"], {"kubernetes.io/metadata.name": other.namespace})
    else:
        inside = other.namespace == namespace
    return inside and selects(peer.get("podSelector", {}), other.labels)
