"""What a client that waits is told, phase by phase; TURN credentials."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from avatar_operator.domain import turn
from avatar_operator.domain.progress import Ready, Refused, Wait, serves, verdict
from avatar_operator.domain.resources import IceServer, Instance, InstanceMeta, InstanceSpec, InstanceStatus

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
UNTIL = NOW + timedelta(seconds=30)


def instance(**status: Any) -> Instance:
    return Instance(
        metadata=InstanceMeta(name="g"), spec=InstanceSpec(avatar_name="g"), status=InstanceStatus(**status)
    )


UP = {"webrtc_url": "http://h:8615/offer", "port": 8615}


@pytest.mark.parametrize("phase", ["Running", "Shared"])
def test_who_serves(phase: str) -> None:
    assert verdict(instance(phase=phase, **UP), NOW, UNTIL) == Ready()
    assert not serves(instance(phase=phase))
    assert isinstance(verdict(instance(phase=phase), NOW, UNTIL), Wait)


@pytest.mark.parametrize("phase", ["", "Pending", "Starting", "Draining", "Stopped"])
def test_who_is_on_the_way(phase: str) -> None:
    found = verdict(instance(phase=phase, **UP), NOW, UNTIL)
    assert isinstance(found, Wait)
    assert not found.full
    assert found.retry_after > 0


@pytest.mark.parametrize("reason", ["PoolFull", "PortsExhausted", "GPUExhausted"])
def test_who_waits_for_room(reason: str) -> None:
    found = verdict(instance(phase="Pending", reason=reason, message="full", queue_position=3), NOW, UNTIL)
    assert isinstance(found, Wait)
    assert found.full
    assert found.message == "full (place 3 in the queue)"


def test_who_failed_and_is_tried_again() -> None:
    soon = instance(phase="Failed", reason="Crashed", message="boom", retry_time=NOW + timedelta(seconds=5))
    assert verdict(soon, NOW, UNTIL) == Wait("boom; tried again in 5 s", 5)
    late = instance(phase="Failed", reason="Crashed", message="boom", retry_time=NOW + timedelta(seconds=90))
    assert verdict(late, NOW, UNTIL) == Refused("boom; tried again in 90 s", 90)


@pytest.mark.parametrize(
    ("reason", "missing"), [("AvatarNotFound", True), ("PoolNotFound", True), ("LimitExceeded", False)]
)
def test_who_failed_for_good(reason: str, missing: bool) -> None:
    found = verdict(instance(phase="Failed", reason=reason, message="why"), NOW, UNTIL)
    assert isinstance(found, Refused)
    assert (found.message, found.missing) == ("why", missing)


def test_turn_credentials() -> None:
    servers = [
        IceServer(urls=["stun:s"]),
        IceServer(urls=["turn:t", "turns:t"]),
        IceServer(urls=["turn:own"], username="u", credential="c"),
    ]
    assert turn.ice_servers(servers, "ann", None, 60, NOW) == servers
    stun, made, own = turn.ice_servers(servers, "ann", b"secret", 60, NOW)
    assert (stun, own) == (servers[0], servers[2])
    until, _, name = made.username.partition(":")
    assert int(until) == NOW.timestamp() + 60
    # coturn takes what is behind the colon as it is: no user's name goes there.
    assert "ann" not in name
    assert base64.b64decode(made.credential) == hmac.new(b"secret", made.username.encode(), hashlib.sha1).digest()
    assert turn.ice_servers(servers, "bob", b"secret", 60, NOW)[1].username != made.username
