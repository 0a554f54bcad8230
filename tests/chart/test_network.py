"""The chart's NetworkPolicies: who reaches whom, connection by connection."""

from __future__ import annotations

import pytest

from avatar_operator.domain import objects, tts_objects
from tests.chart.conftest import Helm, Json, Render, named
from tests.chart.network import Peer, allowed

pytestmark = pytest.mark.cluster

POLICIES = (
    *("networkPolicies.enabled=true", "networkPolicies.nodeCIDRs={10.0.0.0/16}"),
    *("networkPolicies.instanceCIDRs={192.168.0.0/16}", "networkPolicies.apiCIDRs={192.168.7.0/24}"),
    *("networkPolicies.apiFrom[0].namespaceSelector.matchLabels.kubernetes\\.io/metadata\\.name=ingress",),
    *("networkPolicies.kubernetesCIDRs={10.96.0.1/32}", "networkPolicies.instanceEgressCIDRs={198.51.100.0/24}"),
    *("agent.enabled=true", "api.enabled=true", "api.auth.jwt.secretName=jwt"),
    "pools.second.ports.base=8700",
)
RELEASE = {"app.kubernetes.io/name": "avatar-operator", "app.kubernetes.io/instance": "demo"}


def of_release(component: str) -> Peer:
    """A pod of the chart."""
    return Peer({**RELEASE, "app.kubernetes.io/component": component}, "demo")


# What the operator itself puts on its pods.
INSTANCE = Peer(objects.labels("default", "g", 8615), "demo")
SECOND = Peer(objects.labels("second", "g", 8700), "demo")
ELSEWHERE = Peer(objects.labels("default", "g", 8615), "another")
ENGINE = Peer(tts_objects.labels("edgetts"), "demo")
OPERATOR, API, AGENT, TEST = (of_release(component) for component in ("operator", "api", "agent", "test"))
STRANGER = Peer({"app": "stranger"}, "demo")
PROMETHEUS = Peer({"app": "prometheus"}, "monitoring")
INGRESS = Peer({"app": "ingress"}, "ingress")
DNS = Peer({"k8s-app": "kube-dns"}, "kube-system")
CLIENT, BACKEND, OUTSIDE = Peer(address="192.168.9.1"), Peer(address="192.168.7.9"), Peer(address="203.0.113.1")
NODE, KUBERNETES, TURN = Peer(address="10.0.3.4"), Peer(address="10.96.0.1"), Peer(address="198.51.100.7")

OPEN: list[tuple[Peer, Peer, int, str]] = [
    *((CLIENT, INSTANCE, port, "TCP") for port in range(8615, 8620)),
    (CLIENT, INSTANCE, 40000, "UDP"),
    (CLIENT, SECOND, 8704, "TCP"),
    (INSTANCE, CLIENT, 51000, "UDP"),
    (INSTANCE, TURN, 3478, "TCP"),
    (INSTANCE, ENGINE, 5002, "TCP"),
    (NODE, ENGINE, 5002, "TCP"),
    (OPERATOR, INSTANCE, 8615, "TCP"),
    (OPERATOR, ELSEWHERE, 8615, "TCP"),
    (OPERATOR, NODE, 8615, "TCP"),
    # Whether media would come through.
    (OPERATOR, INSTANCE, 40000, "UDP"),
    (OPERATOR, NODE, 40000, "UDP"),
    (OPERATOR, KUBERNETES, 443, "TCP"),
    (API, KUBERNETES, 443, "TCP"),
    (API, INSTANCE, 8615, "TCP"),
    (API, SECOND, 8704, "TCP"),
    (API, ELSEWHERE, 8615, "TCP"),
    (API, NODE, 8615, "TCP"),
    (AGENT, KUBERNETES, 443, "TCP"),
    (BACKEND, API, 8607, "TCP"),
    (INGRESS, API, 8607, "TCP"),
    *((PROMETHEUS, pod, 8080, "TCP") for pod in (OPERATOR, API, AGENT)),
    (PROMETHEUS, ENGINE, 5002, "TCP"),
    (TEST, OPERATOR, 8080, "TCP"),
    (TEST, API, 8607, "TCP"),
    *((pod, DNS, 53, "UDP") for pod in (OPERATOR, API, AGENT, INSTANCE, ENGINE, TEST)),
]
SHUT: list[tuple[Peer, Peer, int, str]] = [
    # The old README: "Block direct access to avatar instance ports (8615-8619)".
    *((OUTSIDE, INSTANCE, port, "TCP") for port in range(8615, 8620)),
    (OUTSIDE, INSTANCE, 40000, "UDP"),
    (CLIENT, INSTANCE, 8614, "TCP"),
    (CLIENT, INSTANCE, 8620, "TCP"),
    (CLIENT, INSTANCE, 8700, "TCP"),
    (CLIENT, SECOND, 8615, "TCP"),
    (CLIENT, INSTANCE, 22, "TCP"),
    (STRANGER, INSTANCE, 8615, "TCP"),
    (INSTANCE, SECOND, 8700, "TCP"),
    (ENGINE, INSTANCE, 8615, "TCP"),
    (INSTANCE, KUBERNETES, 443, "TCP"),
    (INSTANCE, OUTSIDE, 443, "TCP"),
    (ENGINE, OUTSIDE, 443, "TCP"),
    (CLIENT, ENGINE, 5002, "TCP"),
    (CLIENT, API, 8607, "TCP"),
    (OUTSIDE, API, 8607, "TCP"),
    (BACKEND, API, 8080, "TCP"),
    (STRANGER, API, 8607, "TCP"),
    (STRANGER, OPERATOR, 8080, "TCP"),
    (STRANGER, DNS, 53, "UDP"),
    (API, INSTANCE, 22, "TCP"),
    (API, OUTSIDE, 443, "TCP"),
    (OPERATOR, OUTSIDE, 443, "TCP"),
    (AGENT, OUTSIDE, 443, "TCP"),
]


@pytest.fixture(scope="module")
def policies(render: Render) -> list[Json]:
    """The policies of the values above."""
    return list(named(render(*POLICIES), "NetworkPolicy").values())


def test_who_has_business_with_whom_gets_through(policies: list[Json]) -> None:
    assert [way for way in OPEN if not allowed(policies, *way)] == []


def test_nobody_else_does(policies: list[Json]) -> None:
    assert [way for way in SHUT if allowed(policies, *way)] == []


def test_without_addresses_nobody_but_the_operator_and_the_api_reaches_an_instance(render: Render) -> None:
    some = [s for s in POLICIES if "instanceCIDRs" not in s]
    found = list(named(render(*some), "NetworkPolicy").values())
    assert not allowed(found, CLIENT, INSTANCE, 8615)
    assert not allowed(found, INSTANCE, CLIENT, 51000, "UDP")
    assert allowed(found, OPERATOR, INSTANCE, 8615)
    assert allowed(found, API, INSTANCE, 8615)


@pytest.mark.parametrize("on_node", [True, False])
def test_the_relay_reaches_instances_alone(render: Render, on_node: bool) -> None:
    where = f"turn.hostNetwork={str(on_node).lower()}"
    given = ("turn.enabled=true", "turn.peers={10.42.0.0/16}", "turn.secretName=turn", where)
    some = [s for s in POLICIES if "CIDRs={192" not in s]
    found = list(named(render(*some, *given), "NetworkPolicy").values())
    relay = NODE if on_node else of_release("turn")
    assert allowed(found, relay, INSTANCE, 40000, "UDP")
    assert allowed(found, INSTANCE, relay, 49200, "UDP")
    assert allowed(found, INSTANCE, relay, 3478)
    assert not allowed(found, OUTSIDE, INSTANCE, 40000, "UDP")
    if not on_node:
        assert allowed(found, OUTSIDE, relay, 3478, "UDP")
        assert not allowed(found, OUTSIDE, relay, 49200, "UDP")
        assert not allowed(found, relay, OUTSIDE, 443)
        assert not allowed(found, relay, ENGINE, 5002)


def test_others_in_the_namespace_can_be_left_alone(render: Render) -> None:
    found = list(named(render(*POLICIES, "networkPolicies.defaultDeny=false"), "NetworkPolicy").values())
    assert allowed(found, STRANGER, OUTSIDE, 443)
    assert [way for way in SHUT if STRANGER not in way and allowed(found, *way)] == []


def test_there_are_none_unless_asked_for(render: Render) -> None:
    assert not named(render(), "NetworkPolicy")


def test_pools_on_the_nodes_network_need_to_know_the_nodes(helm: Helm) -> None:
    asked = ("--set", "networkPolicies.enabled=true")
    done = helm("template", "demo", "charts/avatar-operator", *asked)
    assert "networkPolicies.nodeCIDRs must say where the nodes are: pool default" in done.stderr
    done = helm("template", "demo", "charts/avatar-operator", *asked, "--set", "pools.default.network.mode=Pod")
    assert done.returncode == 0, done.stderr
    done = helm("template", "demo", "charts/avatar-operator", *asked, "--set", "networkPolicies.instanceCIDRs={all}")
    assert "/networkPolicies/instanceCIDRs/0" in done.stderr


def test_the_notes_say_where_policies_do_not_reach(helm: Helm) -> None:
    def notes(*settings: str) -> str:
        sets = [part for setting in settings for part in ("--set", setting)]
        done = helm("install", "demo", "charts/avatar-operator", "--dry-run=client", *sets, check=True)
        return done.stdout.partition("\nNOTES:")[2]

    policies = ("networkPolicies.enabled=true", "networkPolicies.nodeCIDRs={10.0.0.0/8}")
    assert "most network plugins do not apply NetworkPolicies" in notes(*policies)
    assert "NetworkPolicies" not in notes(*policies, "pools.default.network.mode=Pod")
    assert "NetworkPolicies" not in notes()
