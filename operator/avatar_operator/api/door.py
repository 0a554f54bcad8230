"""Who comes in: the token, the role that a route needs, and how often."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from .auth import Authenticator
from .caller import Principal, Role
from .edge import Trail, trail
from .limits import Limiter, Rate
from .metrics import ApiMetrics
from .problems import Problem, forbidden


@dataclass(frozen=True, slots=True)
class Policy:
    """What the options say: seconds, rates, names."""

    pool: str = "default"
    patience: float = 30.0
    subject_rate: Rate = Rate(30, 60)
    address_rate: Rate = Rate(120, 60)
    failure_rate: Rate = Rate(60, 60)


@dataclass(slots=True)
class Door:
    """What every route but /health passes first."""

    authenticator: Authenticator
    limiter: Limiter
    metrics: ApiMetrics
    policy: Policy

    async def enter(self, request: Request, route: str, least: Role) -> tuple[Principal, Trail]:
        """The caller, if its role is ``least`` or more; 401, 403 or 429 else."""
        path = trail(request.scope)
        path.route = route
        token = request.headers.get("authorization")
        try:
            who = await self.authenticator.authenticate(token, path.address)
        except Problem as problem:
            if problem.code == 401 and token:
                # Guesses; who sends no token at all guesses nothing.
                await self._take("failures", path.address, self.policy.failure_rate)
            raise
        path.subject, path.role = who.subject, who.role.name.lower()
        if who.role < least:
            raise forbidden(f"this needs the role {least.name.lower()}, and yours is {path.role}")
        return who, path

    async def limit(self, who: Principal, kind: str) -> None:
        """Users may do things of this ``kind`` so often; an administrator is a backend that speaks for many."""
        if who.role is not Role.ADMIN:
            await self._take(kind, who.subject, self.policy.subject_rate)
            await self._take("address", who.address, self.policy.address_rate)

    async def _take(self, kind: str, name: str, rate: Rate) -> None:
        wait = await self.limiter.take(kind, name, rate)
        if wait:
            self.metrics.limited.labels(kind).inc()
            raise Problem(429, "too many requests; try again later", retry_after=wait)
