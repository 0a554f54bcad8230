"""coturn's configuration, and the credentials that it takes."""

from __future__ import annotations

import pytest

from avatar_turn.config import ConfigError, configuration

PODS = {"TURN_PEERS": "10.42.0.0/16"}


def lines(**env: str) -> list[str]:
    return configuration({**PODS, **env}, "secret").splitlines()


def test_it_relays_to_pods_alone() -> None:
    found = [line for line in lines(TURN_PEERS="10.42.0.0/16, fd00:42::/48") if "-peer-ip" in line]
    assert found == [
        "denied-peer-ip=0.0.0.0-255.255.255.255",
        "denied-peer-ip=::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        "allowed-peer-ip=10.42.0.0-10.42.255.255",
        "allowed-peer-ip=fd00:42::-fd00:42:0:ffff:ffff:ffff:ffff:ffff",
    ]


def test_addresses_and_ports() -> None:
    assert {"listening-port=3478", "min-port=49152", "max-port=65535", "use-auth-secret"} <= set(lines())
    told = lines(TURN_ADDRESS="192.0.2.7", TURN_EXTERNAL="203.0.113.5", TURN_PORT="5000", TURN_MAX_PORT="50000")
    assert {
        "listening-ip=192.0.2.7",
        "relay-ip=192.0.2.7",
        "external-ip=203.0.113.5/192.0.2.7",
        "listening-port=5000",
        "max-port=50000",
    } <= set(told)
    assert "static-auth-secret=secret" in told


@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({"TURN_PEERS": " , "}, "TURN_PEERS"),
        ({"TURN_PEERS": "pods"}, "TURN_PEERS"),
        ({"TURN_PORT": "0"}, "TURN_PORT"),
        ({"TURN_MIN_PORT": "60000", "TURN_MAX_PORT": "50000"}, "TURN_MIN_PORT"),
        ({"TURN_EXTERNAL": "203.0.113.5"}, "TURN_ADDRESS"),
        ({"TURN_ADDRESS": "turn.example.org"}, "TURN_ADDRESS"),
    ],
)
def test_what_is_wrong_is_named(env: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        configuration({**PODS, **env}, "secret")


@pytest.mark.parametrize("secret", ["", "one\nallowed-peer-ip=0.0.0.0-255.255.255.255"])
def test_a_secret_is_one_line(secret: str) -> None:
    with pytest.raises(ConfigError, match="one line"):
        configuration(PODS, secret)
