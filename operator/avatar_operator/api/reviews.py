"""Kubernetes tokens: the API server says whose a ServiceAccount's (or a user's) token is."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from avatar_operator.kube.client import KubeClient, Resource
from avatar_operator.kube.errors import ApiError

from .auth import Identity, Roles, subject_of, unauthorised
from .problems import unavailable

TOKEN_REVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews")
# Guesses must not become a load on the API server.
AT_ONCE = 8
WAITING_MOST = 200


class TokenReviews:
    """A TokenReview for each token not seen lately; roles by user name and groups."""

    def __init__(self, client: KubeClient, roles: Roles, audience: str = "") -> None:
        self._client = client
        self._roles = roles
        self._audience = audience
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    async def verify(self, token: str) -> Identity:
        """As Verifier."""
        if self._waiting >= WAITING_MOST:
            raise unavailable("too many tokens to check at once", 2)
        self._waiting += 1
        try:
            async with self._slots:
                status = await self._ask(token)
        finally:
            self._waiting -= 1
        user: dict[str, Any] = status.get("user") or {}
        if not status.get("authenticated"):
            raise unauthorised("the token is not valid here")
        if self._audience and self._audience not in (status.get("audiences") or []):
            raise unauthorised("the token is not meant for this server")
        name = subject_of(user.get("username"))
        return Identity(name, self._roles.of([name, *(g for g in user.get("groups") or [] if isinstance(g, str))]))

    async def _ask(self, token: str) -> dict[str, Any]:
        spec: dict[str, Any] = {"token": token}
        if self._audience:
            spec["audiences"] = [self._audience]
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
        try:
            answer = msgspec.json.decode(await self._client.create(TOKEN_REVIEWS, "", body))
        except ApiError as error:
            raise unavailable("tokens cannot be checked at the moment", 5) from error
        return dict(answer.get("status") or {})
