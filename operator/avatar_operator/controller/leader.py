"""One operator of several acts: a Lease, taken and renewed by compare-and-swap.

The others watch the same objects and are ready to act at once. A leader that
cannot renew stops acting before anybody else may begin.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from datetime import UTC, datetime

import msgspec

from avatar_operator.domain.election import Record, Sighting, Timings, holds, may_take, sight
from avatar_operator.kube.client import Json, KubeClient
from avatar_operator.kube.errors import AlreadyExistsError, ApiError, ConflictError, NotFoundError
from avatar_operator.kube.kinds import LEASES

log = logging.getLogger(__name__)

# Between looks at whether this process leads, while ``acting`` is set and the Lease is not held any more.
STAND_BY_SECONDS = 0.2


class OvertakenError(Exception):
    """Another one leads: what this process knows of its own doings is void, it ends and starts anew."""


class Alone:
    """The leadership of an operator that shares with nobody: it may always act."""

    def __init__(self) -> None:
        self.acting = asyncio.Event()
        self.acting.set()

    @property
    def held(self) -> bool:
        """Always."""
        return True

    async def run(self) -> None:
        """Nothing to do, for ever."""
        await asyncio.Event().wait()

    async def release(self) -> None:
        """Nothing to give up."""


class Leadership:
    """The lease ``namespace/name`` as ``identity`` (unique to this process) sees it.

    ``acting`` is set while this process may act. Losing touch with the API
    server only clears it: nothing could be written anyway, and ending would
    throw away what is known just when it cannot be read again.
    """

    def __init__(
        self, client: KubeClient, namespace: str, name: str, identity: str, timings: Timings | None = None
    ) -> None:
        self._client = client
        self._namespace, self._name = namespace, name
        self.identity = identity
        self.acting = asyncio.Event()
        self._timings = timings or Timings()
        self._seen: Sighting | None = None
        self._renewed: float | None = None

    @property
    def held(self) -> bool:
        """Whether this process may act now."""
        return holds(self._renewed, time.monotonic(), self._timings)

    @property
    def leader(self) -> str:
        """Who holds the lease, as far as is known."""
        return self._seen.record.holder if self._seen else ""

    async def run(self) -> None:
        """Take the lease and keep it, for ever; raises OvertakenError when another has taken it from us."""
        led = False
        while True:
            await self._acquire(led)
            led = True
            self.acting.set()
            log.info("leading", extra={"lease": f"{self._namespace}/{self._name}", "identity": self.identity})
            try:
                await self._keep()
            finally:
                self.acting.clear()
            log.warning("not leading: the lease could not be renewed for %.1f s", self._timings.deadline)

    async def _acquire(self, led: bool) -> None:
        while True:
            try:
                if await self._try():
                    return
                if led:
                    raise OvertakenError(f"{self.leader or 'nobody'} holds the lease now")
            except ApiError as error:
                log.warning("lease: %s", error)
            await asyncio.sleep(self._timings.ask * random.uniform(0.8, 1.2))  # noqa: S311 - jitter

    async def _keep(self) -> None:
        """Renew until that has failed for too long."""
        while self.held:
            await asyncio.sleep(self._timings.renew)
            try:
                async with asyncio.timeout(self._left()):
                    ours = await self._try()
            except (ApiError, TimeoutError) as error:
                log.warning("lease not renewed: %s", error or "the API server does not answer")
                continue
            if not ours:
                raise OvertakenError(f"{self.leader or 'nobody'} holds the lease now")

    async def release(self) -> None:
        """Give the lease up, so that the next one need not wait."""
        if not self.held or self._seen is None:
            return
        self._renewed = None
        try:
            async with asyncio.timeout(self._timings.deadline):
                await self._give_up(self._seen)
            log.info("released the lease")
        except (ApiError, TimeoutError) as error:
            log.warning("lease not released: %s", error)

    # ---- inside ------------------------------------------------------------------------

    async def _give_up(self, seen: Sighting) -> None:
        try:
            await self._free(seen.record.version)
        except ConflictError:
            # A renewal was under way whose answer nobody waited for, or somebody put a label on it.
            await self._look()
            if self._seen is not None and self.leader == self.identity:
                await self._free(self._seen.record.version)

    async def _free(self, version: str) -> None:
        body: Json = {"metadata": {"resourceVersion": version}, "spec": {"holderIdentity": ""}}
        await self._client.merge_patch(LEASES, self._namespace, self._name, body)

    async def _try(self) -> bool:
        """Read, and write our name where the rules allow; whether the lease is ours now."""
        asked = time.monotonic()
        if not self.held:
            await self._look()
        if not may_take(self._seen, self.identity, time.monotonic()):
            return False
        try:
            self._saw(await self._write())
        except (ConflictError, AlreadyExistsError, NotFoundError):
            # Somebody was faster, or only put a label on it, or deleted it.
            await self._look()
            if self._seen is None or self.leader != self.identity:
                self._renewed = None
                return False
            self._saw(await self._write())
        # From when it was asked, not from when the answer came: others may count from then on.
        self._renewed = asked
        return True

    async def _look(self) -> None:
        try:
            self._saw(await self._client.get(LEASES, self._namespace, self._name))
        except NotFoundError:
            self._seen = None

    async def _write(self) -> bytes:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        spec: Json = {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": math.ceil(self._timings.duration),
            "renewTime": now,
        }
        record = self._seen.record if self._seen else None
        if record is None:
            body = {"metadata": {"name": self._name}, "spec": {**spec, "acquireTime": now, "leaseTransitions": 0}}
            return await self._client.create(LEASES, self._namespace, body)
        if record.holder != self.identity:
            spec |= {"acquireTime": now, "leaseTransitions": record.transitions + 1}
        body = {"metadata": {"resourceVersion": record.version}, "spec": spec}
        return await self._client.merge_patch(LEASES, self._namespace, self._name, body)

    def _saw(self, raw: bytes) -> None:
        lease = msgspec.json.decode(raw)
        spec = lease.get("spec") or {}
        record = Record(
            holder=spec.get("holderIdentity") or "",
            version=lease["metadata"]["resourceVersion"],
            duration=float(spec.get("leaseDurationSeconds") or self._timings.duration),
            transitions=int(spec.get("leaseTransitions") or 0),
        )
        self._seen = sight(self._seen, record, time.monotonic())

    def _left(self) -> float:
        since = self._renewed if self._renewed is not None else time.monotonic()
        return max(0.1, since + self._timings.deadline - time.monotonic())
