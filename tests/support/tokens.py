"""Tokens and keys for tests."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, rsa

SECRET = "a secret of the tests, thirty-two bytes and more"


def hs256(subject: str | None = "ann", role: str | None = "user", secret: str = SECRET, **claims: Any) -> str:
    """A token with the shared secret."""
    return jwt.encode(_claims(subject, role, claims), secret, algorithm="HS256")


def _claims(subject: str | None, role: str | None, claims: dict[str, Any]) -> dict[str, Any]:
    found = {"sub": subject, "role": role, "exp": int(time.time()) + 600, **claims}
    return {k: v for k, v in found.items() if v is not None}


def unsigned(subject: str = "root", role: str = "admin", algorithm: str = "none") -> str:
    """What the algorithm `none` would look like."""
    parts = [{"alg": algorithm, "typ": "JWT"}, _claims(subject, role, {})]
    return ".".join(base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in parts) + "."


class Issuer:
    """An identity provider with a JWKS page; ``rotate`` replaces its keys. Use as ``async with``."""

    def __init__(self) -> None:
        self.asked = 0
        self.broken = False
        self.rotate()

    def rotate(self) -> None:
        """New keys, new names."""
        serial = f"{time.monotonic_ns()}"
        self.rsa = (f"rsa-{serial}", rsa.generate_private_key(public_exponent=65537, key_size=2048))
        self.ec = (f"ec-{serial}", ec.generate_private_key(ec.SECP256R1()))

    def token(self, algorithm: str = "RS256", subject: str = "ann", role: str = "user", **claims: Any) -> str:
        """A token by the current key."""
        kid, key = self.rsa if algorithm == "RS256" else self.ec
        return jwt.encode(_claims(subject, role, claims), key, algorithm=algorithm, headers={"kid": kid})

    async def __aenter__(self) -> Issuer:
        app = web.Application()
        app.router.add_get("/keys", self._keys)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/keys"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _keys(self, _: web.Request) -> web.Response:
        self.asked += 1
        if self.broken:
            return web.Response(status=500)
        rsa_key = jwt.algorithms.RSAAlgorithm.to_jwk(self.rsa[1].public_key(), as_dict=True)
        ec_key = jwt.algorithms.ECAlgorithm.to_jwk(self.ec[1].public_key(), as_dict=True)
        keys = [{**rsa_key, "kid": self.rsa[0]}, {**ec_key, "kid": self.ec[0]}, {"kty": "oct", "k": "AAAA", "kid": "o"}]
        return web.json_response({"keys": keys})
