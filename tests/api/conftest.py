"""Fixtures: REST servers of a test's namespace, beside the module's operator."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Cluster, _logs_of
from tests.support.rest import Rest, RestServer
from tests.support.world import World

MakeServer = Callable[..., Awaitable[RestServer]]


@pytest.fixture
def servers(cluster: Cluster, namespace: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[MakeServer]:
    """``await servers("--auth=jwt", …)``: a replica that serves this test's namespace."""
    made: list[RestServer] = []

    async def make(*options: str, kubeconfig: Path | None = None) -> RestServer:
        log = tmp_path / f"api-{len(made)}.log"
        one = RestServer(kubeconfig or cluster.kubeconfig, namespace, log, options or ("--auth=none",))
        made.append(one)
        _logs_of(request.node).append(log)
        return await one.start()

    try:
        yield make
    finally:
        for one in made:
            one.kill()


@pytest.fixture
async def server(servers: MakeServer) -> RestServer:
    """One replica without authentication."""
    return await servers()


@pytest.fixture
async def rest(server: RestServer) -> AsyncIterator[Rest]:
    """A client of it."""
    async with Rest(server.url) as client:
        yield client


@pytest.fixture
async def avatars(world: World) -> Callable[..., Awaitable[None]]:
    """``await avatars("g", "h", pool={…})``: the default pool and some avatars."""

    async def make(*names: str, pool: dict[str, Any] | None = None) -> None:
        await world.pool(**(pool or {}))
        await world.avatar(*(names or ("g",)))

    return make
