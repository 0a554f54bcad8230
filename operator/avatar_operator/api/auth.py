"""Who may come in: what all ways of authentication share.

A way takes a bearer token and says whose it is. Which role a token's claims
give is said by the server's options; a claim that nobody mapped gives the
default role, never more.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

from .caller import Principal, Role
from .problems import Problem

# A token that was good is looked at again after so long (seconds), one that was not a bit sooner.
GOOD_SECONDS, BAD_SECONDS = 30.0, 5.0
REMEMBERED_MOST = 10_000
TOKEN_MOST = 8192
SUBJECT_MOST = 253


class AuthConfigError(Exception):
    """Options that cannot be used, or would be unsafe; the message names the remedy."""


def unauthorised(message: str) -> Problem:
    """401, with what RFC 6750 asks for."""
    return Problem(401, message, headers={"WWW-Authenticate": 'Bearer realm="avatar-operator"'})


@dataclass(frozen=True, slots=True)
class Roles:
    """Values of claims (or names of groups) and the role that each gives; the highest counts."""

    values: Mapping[str, Role] = field(default_factory=dict)
    default: Role = Role.VIEWER

    def of(self, found: Iterable[str]) -> Role:
        """The role of somebody with these values."""
        return max((self.values[v] for v in found if v in self.values), default=self.default)


@dataclass(frozen=True, slots=True)
class Identity:
    """What a token says. ``until``: when it ends, seconds since the epoch; None = not said."""

    subject: str
    role: Role
    until: float | None = None


class Verifier(Protocol):
    """A way to tell whose token this is."""

    async def verify(self, token: str) -> Identity:
        """Problem (401, or 503 when it cannot be told now)."""
        ...


class Authenticator(Protocol):
    """From the Authorization header and the address to a principal."""

    async def authenticate(self, authorization: str | None, address: str) -> Principal:
        """Problem when it is nobody."""
        ...


class Open:
    """No authentication: everybody is an administrator without a name. Only for the loopback."""

    async def authenticate(self, authorization: str | None, address: str) -> Principal:
        """Anybody."""
        return Principal("", Role.ADMIN, address)


class Bearer:
    """``Authorization: Bearer``, with a short memory of what a verifier said."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        self._known: OrderedDict[bytes, tuple[float, Identity | Problem]] = OrderedDict()
        self._asking: dict[bytes, asyncio.Future[Identity]] = {}

    async def authenticate(self, authorization: str | None, address: str) -> Principal:
        """401 without a token or with a bad one."""
        if not authorization:
            raise unauthorised("authentication is required: send Authorization: Bearer TOKEN")
        scheme, _, token = authorization.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token or len(token) > TOKEN_MOST or not token.isascii():
            raise unauthorised("the Authorization header holds no usable bearer token")
        identity = await self._identity(token)
        return Principal(identity.subject, identity.role, address)

    async def _identity(self, token: str) -> Identity:
        digest, now = hashlib.sha256(token.encode()).digest(), time.monotonic()
        known = self._known.get(digest)
        if known is not None and known[0] > now:
            if isinstance(known[1], Problem):
                # A new one each time: an exception that is raised again and again keeps all its tracebacks.
                raise unauthorised(known[1].message)
            if known[1].until is None or known[1].until > time.time():
                return known[1]
        asking = self._asking.get(digest)
        if asking is not None:
            return await asyncio.shield(asking)
        asking = self._asking[digest] = asyncio.get_running_loop().create_future()
        # Nobody else may have asked.
        asking.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            identity = await self._verifier.verify(token)
        except Problem as problem:
            if problem.code == 401:
                self._remember(digest, now + BAD_SECONDS, problem)
            asking.set_exception(problem)
            raise
        except BaseException:
            asking.cancel()
            raise
        else:
            self._remember(digest, now + GOOD_SECONDS, identity)
            asking.set_result(identity)
            return identity
        finally:
            self._asking.pop(digest, None)

    def _remember(self, digest: bytes, until: float, what: Identity | Problem) -> None:
        self._known[digest] = (until, what)
        self._known.move_to_end(digest)
        while len(self._known) > REMEMBERED_MOST:
            self._known.popitem(last=False)


def subject_of(text: object) -> str:
    """A subject that can be kept with a session and written to a log, or 401."""
    if not isinstance(text, str) or not text or len(text) > SUBJECT_MOST or not text.isprintable():
        raise unauthorised("the token names no usable subject")
    return text


@lru_cache(256)
def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address to listen on."""
    host = host.strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
