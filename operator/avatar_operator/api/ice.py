"""The shared secret of TURN servers, read from where the pool says it is."""

from __future__ import annotations

import base64
import logging
import time
from datetime import datetime

import msgspec

from avatar_operator.domain import turn
from avatar_operator.domain.resources import IceServer, Pool
from avatar_operator.kube.client import KubeClient, Resource
from avatar_operator.kube.errors import ApiError

log = logging.getLogger(__name__)

SECRETS = Resource("", "v1", "secrets")
# A new secret is used after so long (seconds); coturn's restarts take longer.
KEPT_SECONDS = 60.0


class _Secret(msgspec.Struct):
    data: dict[str, str] = {}


class Ice:
    """``servers`` never fails: without the secret, clients get the servers as the pool lists them."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self._client = client
        self._namespace = namespace
        self._secrets: dict[tuple[str, str], tuple[float, bytes | None]] = {}

    async def servers(self, pool: Pool, user: str, now: datetime) -> list[IceServer]:
        """What ``user`` gives its RTCPeerConnection."""
        network = pool.spec.network
        if not network.ice_servers or network.turn_secret_ref is None:
            return network.ice_servers
        secret = await self._secret(network.turn_secret_ref.name, network.turn_secret_ref.key)
        return turn.ice_servers(network.ice_servers, user, secret, network.turn_ttl_seconds, now)

    async def _secret(self, name: str, key: str) -> bytes | None:
        until, known = self._secrets.get((name, key), (0.0, None))
        if time.monotonic() < until:
            return known
        secret = known
        try:
            raw = await self._client.get(SECRETS, self._namespace, name)
            data = msgspec.json.decode(raw, type=_Secret).data
            secret = base64.b64decode(data[key]).strip()
        except KeyError:
            log.warning("Secret %s has no key %s (spec.network.turnSecretRef of the pool)", name, key)
        except (ApiError, ValueError) as error:
            log.warning("Secret %s (spec.network.turnSecretRef of the pool): %s", name, error)
        self._secrets[name, key] = (time.monotonic() + KEPT_SECONDS, secret)
        return secret
