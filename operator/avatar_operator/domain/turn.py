"""What a client gets as RTCConfiguration.iceServers: the pool's servers, with TURN credentials of its own.

The credentials are those of the TURN REST convention (coturn's
use-auth-secret): the user name holds the end of its life, the password is its
HMAC-SHA1 under the shared secret.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import datetime

from .resources import IceServer


def ice_servers(servers: list[IceServer], user: str, secret: bytes | None, ttl: int, now: datetime) -> list[IceServer]:
    """``servers`` with credentials for ``user``, good for ``ttl`` seconds, where TURN servers have none."""
    if not secret:
        return servers
    name = f"{int(now.timestamp()) + ttl}:{hashlib.sha256(user.encode()).hexdigest()[:16]}"
    password = base64.b64encode(hmac.new(secret, name.encode(), hashlib.sha1).digest()).decode()
    return [IceServer(urls=s.urls, username=name, credential=password) if wants_credentials(s) else s for s in servers]


def relays(servers: list[IceServer]) -> bool:
    """Whether a TURN server is among ``servers``."""
    return any(_is_turn(s) for s in servers)


def wants_credentials(server: IceServer) -> bool:
    """Whether it is a TURN server without credentials of its own."""
    return not server.username and _is_turn(server)


def _is_turn(server: IceServer) -> bool:
    return any(u.startswith(("turn:", "turns:")) for u in server.urls)
