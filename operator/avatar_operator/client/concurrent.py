"""The async client."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Self

import httpx

from avatar_operator.api.shapes import DisconnectView, HeartbeatView, InstanceView, StartView, StatusView, StopView

from . import common
from .common import ANSWER_SECONDS, AvatarApiError, Call, NotConnectedError, Patience, T


class AsyncAvatarClient:
    """One server (or what balances several). ``patience``: seconds of trying again, the answers' own time aside."""

    def __init__(
        self, url: str, token: str | None = None, *, timeout: float = ANSWER_SECONDS, patience: float = 30.0
    ) -> None:
        self._http = httpx.AsyncClient(**common.options(url, token, timeout))
        self._patience = patience

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def start(
        self,
        avatar_id: str | None,
        avatar_name: str | None = None,
        *,
        pool: str | None = None,
        ttl_seconds: int | None = None,
        wait_seconds: float | None = None,
        idempotency_key: str | None = None,
        respond_async: bool = False,
    ) -> StartView:
        """Start or join an avatar; with ``respond_async`` it may not serve yet (``running``)."""
        call = common.start(
            avatar_id,
            avatar_name,
            pool=pool,
            ttl_seconds=ttl_seconds,
            wait_seconds=wait_seconds,
            idempotency_key=idempotency_key,
            respond_async=respond_async,
        )
        return await self._call(call, StartView)

    async def disconnect(
        self, avatar_id: str | None = None, avatar_name: str | None = None, *, pool: str | None = None
    ) -> DisconnectView:
        """End a session; one that is not there is no error."""
        return await self._call(common.disconnect(avatar_id, avatar_name, pool), DisconnectView)

    async def heartbeat(self, avatar_id: str) -> HeartbeatView:
        """Renew the lease of a session; AvatarApiError 404 when it has ended."""
        return await self._call(Call("POST", "/avatar/heartbeat", {"avatar_id": avatar_id}), HeartbeatView)

    async def stop(self, avatar_id: str, *, force: bool = True) -> StopView:
        """Stop an avatar; without ``force`` AvatarApiError 409 while somebody is connected."""
        body = {"avatar_id": avatar_id, "force": force}
        return await self._call(Call("POST", "/avatar/stop", body, repeat=False), StopView)

    async def stop_all(self, *, force: bool = True) -> StopView:
        """Stop every avatar."""
        return await self._call(Call("POST", "/avatar/stop-all", {"force": force}, repeat=False), StopView)

    async def restart(self, avatar_id: str) -> InstanceView:
        """Restart an avatar; its sessions stay counted."""
        return await self._call(Call("POST", "/avatar/restart", {"avatar_id": avatar_id}, repeat=False), InstanceView)

    async def list(self) -> builtins.list[InstanceView]:
        """Every instance."""
        return await self._call(Call("GET", "/avatar/list"), builtins.list[InstanceView])

    async def info(self, avatar_id: str) -> InstanceView:
        """One instance, by a session's id, its own, or the avatar's name."""
        return await self._call(common.info(avatar_id), InstanceView)

    async def status(self) -> StatusView:
        """Pools, GPUs, speech."""
        return await self._call(Call("GET", "/status"), StatusView)

    @contextlib.asynccontextmanager
    async def session(
        self, avatar_id: str, avatar_name: str, *, ttl_seconds: int = 60, **options: Any
    ) -> AsyncIterator[StartView]:
        """A session with a lease for the time of an ``async with`` block, with heartbeats."""
        started = await self.start(avatar_id, avatar_name, ttl_seconds=ttl_seconds, **options)

        async def beat() -> None:
            while True:
                with contextlib.suppress(AvatarApiError, NotConnectedError):
                    await self.heartbeat(avatar_id)
                await asyncio.sleep(ttl_seconds / 3)

        beating = asyncio.create_task(beat())
        try:
            yield started
        finally:
            beating.cancel()
            await self.disconnect(avatar_id, avatar_name)

    async def _call(self, call: Call, kind: type[T]) -> T:
        patience = Patience(self._patience)
        while True:
            problem: AvatarApiError | httpx.TransportError
            try:
                response = await self._http.request(call.verb, call.path, json=call.body, headers=call.headers)
            except httpx.TransportError as error:
                problem = error
            else:
                if response.is_success:
                    return common.result(response, kind)
                problem = common.error(response)
            pause = patience.pause(call, problem)
            if pause is None:
                if isinstance(problem, AvatarApiError):
                    raise problem
                raise NotConnectedError(f"{call.verb} {call.path}: {problem or type(problem).__name__}") from problem
            await asyncio.sleep(pause)
