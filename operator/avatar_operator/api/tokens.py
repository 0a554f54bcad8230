"""JSON Web Tokens: HS256 with a shared secret, RS256 and ES256 with the keys of a JWKS address.

The algorithm is chosen by the server's options and the key, never by the token.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import jwt
import msgspec

from .auth import AuthConfigError, Identity, Roles, is_loopback, subject_of, unauthorised
from .problems import unavailable

log = logging.getLogger(__name__)

LEEWAY_SECONDS = 30
SECRET_BYTES_LEAST = 32
KEYS_SECONDS = 300.0
# A token with an unknown key may mean new keys, or mischief: they are fetched again no more often than this.
REFETCH_SECONDS = 10.0
FETCH_TIMEOUT = aiohttp.ClientTimeout(total=5)
KEYS_BYTES_MOST = 1 << 20
KEYS_MOST = 64


@dataclass(frozen=True, slots=True)
class Claims:
    """What is asked of every token. ``role``: name of the claim, dots for nested ones."""

    roles: Roles
    role: str = "role"
    issuer: str = ""
    audience: str = ""

    def decode(self, token: str, key: Any, algorithms: Sequence[str]) -> Identity:
        """The identity, or 401 in words that tell an attacker nothing."""
        try:
            payload = jwt.decode(
                token,
                key,
                algorithms=list(algorithms),
                audience=self.audience or None,
                issuer=self.issuer or None,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "sub"], "verify_aud": bool(self.audience)},
            )
        except jwt.ExpiredSignatureError:
            raise unauthorised("the token has expired") from None
        except (jwt.InvalidTokenError, RecursionError, ValueError) as error:
            log.debug("token refused: %s", type(error).__name__)
            raise unauthorised("the token is not valid here") from None
        return Identity(subject_of(payload["sub"]), self.roles.of(_values(payload, self.role)), float(payload["exp"]))


def _values(payload: Any, path: str) -> list[str]:
    for name in path.split("."):
        payload = payload.get(name) if isinstance(payload, dict) else None
    found = payload if isinstance(payload, list) else [payload]
    return [v for v in found if isinstance(v, str)]


class SharedSecret:
    """HS256. The secret's file is read again when it changes."""

    def __init__(self, file: Path, claims: Claims) -> None:
        self._file = file
        self._claims = claims
        self._stamp: tuple[float, int] | None = None
        self._secret = b""
        self._looked = 0.0
        self._read()

    def _read(self) -> None:
        try:
            found = self._file.stat()
            if (found.st_mtime, found.st_size) == self._stamp:
                return
            secret = self._file.read_bytes().strip()
        except OSError as error:
            raise AuthConfigError(f"--jwt-secret-file {self._file}: {error.strerror}") from error
        if len(secret) < SECRET_BYTES_LEAST:
            raise AuthConfigError(
                f"--jwt-secret-file {self._file}: {len(secret)} bytes; HS256 needs {SECRET_BYTES_LEAST} or more "
                "(openssl rand -base64 48)"
            )
        self._secret, self._stamp = secret, (found.st_mtime, found.st_size)

    async def verify(self, token: str) -> Identity:
        """As Verifier."""
        if time.monotonic() - self._looked > 1:
            self._looked = time.monotonic()
            try:
                self._read()
            except AuthConfigError as error:
                log.error("%s; the secret before it stays in use", error)
        return self._claims.decode(token, self._secret, ["HS256"])


class KeySet:
    """RS256 and ES256 with keys by ``kid`` from a JWKS address, fetched anew as they rotate."""

    def __init__(self, url: str, claims: Claims, session: aiohttp.ClientSession) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
            raise AuthConfigError(f"--jwks-url {url}: keys come by https only (http is taken from this machine)")
        self._url = url
        self._claims = claims
        self._session = session
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched = self._tried = -1e9
        self._lock = asyncio.Lock()

    async def verify(self, token: str) -> Identity:
        """As Verifier; 503 while there are no keys."""
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.InvalidTokenError, RecursionError, ValueError):
            raise unauthorised("the token is not valid here") from None
        kid = header.get("kid")
        key = await self._key(kid if isinstance(kid, str) else "")
        if key is None:
            raise unauthorised("the token is not valid here")
        return self._claims.decode(token, key.key, [key.algorithm_name])

    async def _key(self, kid: str) -> jwt.PyJWK | None:
        if time.monotonic() - self._fetched > KEYS_SECONDS or kid not in self._keys:
            await self._fetch()
        if not self._keys:
            raise unavailable("the keys to check tokens with cannot be had at the moment", 5)
        if not kid and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(kid)

    async def _fetch(self) -> None:
        async with self._lock:
            if time.monotonic() - self._tried < REFETCH_SECONDS:
                return
            self._tried = time.monotonic()
            try:
                content = await self._download()
                self._keys = _parse(content)
                self._fetched = time.monotonic()
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                # Those that are known stay good: the provider's pause is not ours.
                log.warning("no keys from %s: %s %s", self._url, type(error).__name__, error)

    async def _download(self) -> bytes:
        async with self._session.get(self._url, timeout=FETCH_TIMEOUT, allow_redirects=False) as response:
            if response.status != 200:
                raise ValueError(f"HTTP {response.status}")
            content = b""
            async for chunk in response.content.iter_any():
                content += chunk
                if len(content) > KEYS_BYTES_MOST:
                    raise ValueError("too large")
            return content


def _parse(content: bytes) -> dict[str, jwt.PyJWK]:
    found = msgspec.json.decode(content, type=dict[str, Any])
    keys: dict[str, jwt.PyJWK] = {}
    for entry in list(found.get("keys") or [])[:KEYS_MOST]:
        if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
            continue
        try:
            key = jwt.PyJWK.from_dict(entry)
        except (jwt.InvalidTokenError, jwt.PyJWTError, ValueError, TypeError, KeyError):
            continue
        if key.algorithm_name in ("RS256", "ES256"):
            keys[str(entry.get("kid", ""))] = key
    if not keys:
        raise ValueError("no key for RS256 or ES256")
    return keys
