"""Where peers find an instance's media, what a probe proves in each network mode, and when to probe."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from avatar_operator.domain import media
from avatar_operator.domain.actions import PatchStatus, ProbeMedia
from avatar_operator.domain.media import MediaReport
from avatar_operator.domain.plan import plan
from avatar_operator.domain.resources import IceServer, Network, Pod, PodStatus, Pool
from tests.unit.builders import (
    NOT_PROBED,
    NOW,
    PORT,
    RuntimeView,
    ago,
    having,
    instance,
    later,
    meta,
    pod,
    pool,
    service,
    view,
)

TURN = [IceServer(urls=["turn:turn.example.org:3478"])]
STUN = [IceServer(urls=["stun:stun.example.org:3478"])]
NODE, INSIDE = "192.0.2.7", "10.42.0.9"
HERE = Pod(
    metadata=meta("avatar-8616", labels={"avatars.virtualtutor.io/port": "8616"}),
    status=PodStatus(host_ip=NODE, pod_ip=INSIDE),
)
PLACE = f"{NODE}:50021"


def of(mode: str, **network: Any) -> Pool:
    return pool(network=Network(mode=mode, **network))


def report(**fields: Any) -> MediaReport:
    return MediaReport(NOW, **{"told": (PLACE,), **fields})


@pytest.mark.parametrize(
    ("in_pool", "seen", "reachable", "reason", "words"),
    [
        # A pod's own address: nobody knows who has a route to it, and the user is told.
        (of("Pod"), None, "Unknown", "PodAddressesOnly", [INSIDE, "HostPort", "Relay"]),
        (of("Pod", ice_servers=STUN), None, "Unknown", "PodAddressesOnly", ["TURN"]),
        (of("Pod", ice_servers=TURN), report(relay="turn:t", relayed=True), "True", "Relayed", ["turn:t"]),
        # Those with a route get there all the same.
        (of("Pod", ice_servers=TURN), report(relay="turn:t"), "Unknown", "NotRelayed", ["turnSecretRef"]),
        (of("Relay", ice_servers=TURN), report(relay="turn:t", relayed=True), "True", "Relayed", ["turn:t"]),
        (of("Relay", ice_servers=TURN), report(relay="turn:t"), "False", "NotRelayed", ["NetworkPolicies"]),
        (of("Relay", ice_servers=TURN), report(answered=(PLACE,)), "Unknown", "NotProbed", ["turnSecretRef"]),
        (of("HostPort"), None, "Unknown", "NotProbed", ["50020-50039", NODE]),
        (of("HostPort"), NOT_PROBED, "Unknown", "NotProbed", ["/api/admin/media"]),
        (of("HostPort"), report(error="refused"), "Unknown", "NotProbed", ["refused"]),
        (of("HostPort"), report(answered=(PLACE,)), "True", "Answered", [NODE, "operator's pod"]),
        (of("HostPort"), report(), "False", "NoAnswer", [NODE, "50020-50039", "portmap"]),
        (of("HostPort"), report(told=()), "False", "NoCandidate", ["window"]),
        (of("HostNetwork"), report(answered=(PLACE,)), "True", "Answered", ["operator's pod"]),
        (of("HostNetwork"), report(), "False", "NoAnswer", ["firewall"]),
        # Not every NAT leads back in from the inside.
        (of("HostNetwork", external_host="203.0.113.5"), report(), "Unknown", "NoAnswer", ["outside"]),
    ],
)
def test_what_a_probe_proves(
    in_pool: Pool, seen: MediaReport | None, reachable: str, reason: str, words: list[str]
) -> None:
    kind, state, why, message = media.condition(in_pool, HERE, seen)
    assert (kind, state, why) == ("MediaReachable", reachable, reason)
    assert not [word for word in words if word not in message], message
    told = media.status(in_pool, HERE, 8616, seen)
    assert (told.reachable, told.message, told.mode) == (reachable, message, in_pool.spec.network.mode)


@pytest.mark.parametrize(
    ("in_pool", "host", "candidates", "window"),
    [
        (of("HostNetwork"), "", (INSIDE,), ""),
        (of("HostNetwork", external_host="203.0.113.5"), "203.0.113.5", ("203.0.113.5",), ""),
        # Whoever writes candidates looks it up.
        (of("HostNetwork", external_host="a.example.org"), "a.example.org", ("a.example.org",), ""),
        (of("HostPort"), NODE, (NODE,), "50020-50039"),
        (of("HostPort", external_host="203.0.113.5"), "203.0.113.5", ("203.0.113.5",), "50020-50039"),
        # There the external host is where the signalling goes.
        (of("Pod", external_host="203.0.113.5"), "", (INSIDE,), ""),
        (of("Relay", ice_servers=TURN, external_host="203.0.113.5"), "", (INSIDE,), ""),
    ],
)
def test_what_peers_are_told(in_pool: Pool, host: str, candidates: tuple[str, ...], window: str) -> None:
    told = media.status(in_pool, HERE, 8616, None)
    assert (told.host, told.candidates, told.udp_port_range) == (host, candidates, window)
    places = (PLACE, f"{NODE}:50022", "[2001:db8::7]:50023")
    assert media.status(in_pool, HERE, 8616, report(told=places)).candidates == (NODE, "2001:db8::7")


def test_the_ports_of_a_probe_are_not_worth_a_write() -> None:
    one, other = (report(told=(f"{NODE}:{p}",), answered=(f"{NODE}:{p}",)) for p in (50021, 50022))
    assert media.status(of("HostPort"), HERE, 8616, one) == media.status(of("HostPort"), HERE, 8616, other)


@pytest.mark.parametrize(
    ("in_pool", "seen", "due"),
    [
        (of("Pod"), None, None),
        (of("Pod", ice_servers=TURN), None, NOW),
        (of("HostPort"), None, NOW),
        (of("HostPort"), NOT_PROBED, None),
        (of("HostPort"), report(answered=(PLACE,)), later(600)),
        (of("HostPort"), report(), later(60)),
        (of("HostPort"), report(error="refused"), later(60)),
        (of("Relay", ice_servers=TURN), report(relay="turn:t", relayed=True), later(600)),
        (of("Relay", ice_servers=TURN), report(relay="turn:t", answered=(PLACE,)), later(60)),
    ],
)
def test_when_to_probe(in_pool: Pool, seen: MediaReport | None, due: object) -> None:
    assert media.next_probe(in_pool, seen, NOW) == due


def running(seen: MediaReport | None, **fields: Any) -> Any:
    """The plan for an instance that serves in mode HostNetwork, probed as ``seen`` says."""
    one = having(instance(), phase="Running", ready_time=ago(50), **fields)
    whole = view(one, claims=(service(one),), pods=(pod([one]),), runtime=RuntimeView(media=seen))
    # A view of the builders has been probed unless one says otherwise.
    return plan(replace(whole, runtime=replace(whole.runtime, media=seen)))


def test_an_instance_that_serves_is_probed_and_told() -> None:
    assert [a.port for a in running(None).actions if isinstance(a, ProbeMedia)] == [PORT]
    result = running(report(answered=(PLACE,)))
    assert not [a for a in result.actions if isinstance(a, ProbeMedia)]
    [patch] = [a.status for a in result.actions if isinstance(a, PatchStatus)]
    assert patch["media"]["reachable"] == "True"


def test_a_new_operator_leaves_what_is_known_until_it_has_probed_itself() -> None:
    known = media.status(pool(), HERE, PORT, report(answered=(PLACE,)))
    [patch] = [a.status for a in running(None, media=known).actions if isinstance(a, PatchStatus)]
    assert "media" not in patch
    assert "MediaReachable" not in {c["type"] for c in patch["conditions"]}
