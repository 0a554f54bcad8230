"""coturn's configuration from the environment. Pure text."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address, ip_network


class ConfigError(ValueError):
    """The environment is wrong; the text names the variable and the remedy."""


# It relays for users of the pool, to its pods alone: no other address, in the cluster or elsewhere, is reached by it.
_EVERYTHING = ("0.0.0.0-255.255.255.255", "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")


def configuration(env: Mapping[str, str], secret: str) -> str:
    """The text of turnserver.conf.

    ``TURN_PEERS``: CIDRs of the pods, with commas; required. ``TURN_ADDRESS``: own
    address to listen on and to relay from. ``TURN_EXTERNAL``: the address of a
    1:1 NAT before it. ``TURN_PORT``, ``TURN_MIN_PORT``, ``TURN_MAX_PORT``,
    ``TURN_REALM``, ``TURN_USER_QUOTA``. ``secret`` is the one shared with whoever
    makes credentials. Raises `ConfigError`.
    """
    if not secret or "\n" in secret:
        raise ConfigError("the shared secret is empty or has several lines: put one line into the Secret's key")
    low, high = _port(env, "TURN_MIN_PORT", 49152), _port(env, "TURN_MAX_PORT", 65535)
    if low > high:
        raise ConfigError(f"TURN_MIN_PORT {low} is above TURN_MAX_PORT {high}")
    lines = [
        f"listening-port={_port(env, 'TURN_PORT', 3478)}",
        f"min-port={low}",
        f"max-port={high}",
        "use-auth-secret",
        f"static-auth-secret={secret}",
        f"realm={env.get('TURN_REALM') or 'avatars'}",
        "fingerprint",
        f"user-quota={env.get('TURN_USER_QUOTA') or '20'}",
        "no-cli",
        "no-tls",
        "no-dtls",
        "no-multicast-peers",
        "no-software-attribute",
        "stale-nonce=600",
        "log-file=stdout",
        "simple-log",
        "pidfile=/tmp/turnserver.pid",
        "userdb=/tmp/turndb",
    ]
    if address := _address(env, "TURN_ADDRESS"):
        lines += [f"listening-ip={address}", f"relay-ip={address}"]
        if external := _address(env, "TURN_EXTERNAL"):
            lines.append(f"external-ip={external}/{address}")
    elif env.get("TURN_EXTERNAL"):
        raise ConfigError("TURN_EXTERNAL needs TURN_ADDRESS, the address that it stands for")
    lines += [f"denied-peer-ip={everything}" for everything in _EVERYTHING]
    lines += [f"allowed-peer-ip={peers}" for peers in _peers(env)]
    return "".join(f"{line}\n" for line in lines)


def _peers(env: Mapping[str, str]) -> list[str]:
    """coturn takes ranges, not CIDRs."""
    given = [p.strip() for p in env.get("TURN_PEERS", "").split(",") if p.strip()]
    if not given:
        raise ConfigError("TURN_PEERS is empty: name the CIDRs of the pods, which clients are relayed to")
    try:
        networks = [ip_network(p, strict=False) for p in given]
    except ValueError as error:
        raise ConfigError(f"TURN_PEERS: {error}; name CIDRs such as 10.42.0.0/16, with commas between them") from error
    return [f"{n[0]}-{n[-1]}" for n in networks]


def _address(env: Mapping[str, str], name: str) -> str:
    text = env.get(name, "")
    try:
        return str(ip_address(text)) if text else ""
    except ValueError as error:
        raise ConfigError(f"{name}: {error}; give one IP address") from error


def _port(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name) or str(default)
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:6]) <= 65535:
        raise ConfigError(f"{name} is {text!r}: use a port, 1–65535")
    return int(text)
