"""A restart with many instances: what happens now goes before what has to be looked through."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conftest import Cluster, MakeOperator
from tests.support.api import until
from tests.support.proxy import Call, Proxy, matching
from tests.support.world import World

pytestmark = pytest.mark.cluster

MANY = 96
# Each write of the backlog takes so long (seconds): with 32 workers the backlog lasts three times as long.
SLOW = 1.0


@pytest.fixture
async def proxy(cluster: Cluster) -> AsyncIterator[Proxy]:
    async with Proxy(cluster.kubeconfig) as found:
        yield found


async def test_live_events_go_before_the_backlog(
    world: World, proxy: Proxy, operator_factory: MakeOperator, tmp_path: Path
) -> None:
    operator = await operator_factory(proxy.kubeconfig(tmp_path / "kubeconfig")).start()
    names = [f"old-{number}" for number in range(MANY)]
    await world.pool(ports={"base": 20000, "count": MANY + 1})
    await world.avatar("new", *names)
    await asyncio.gather(*(world.instance(name, name) for name in names))
    for name in names:
        await world.phase(name, "Running", timeout=90)
    operator.kill()
    # Every status has to be written anew: the URL is another one.
    await world.api.patch("avatarpools", world.namespace, "default", {"spec": {"network": {"externalHost": "a.test"}}})
    backlog: list[str] = []

    async def note(call: Call) -> None:
        backlog.append(call.name)
        await asyncio.sleep(SLOW)

    proxy.before(matching("patch", "avatarinstances"), note, times=-1)
    operator.launch()
    await until("the backlog being worked on", lambda: asyncio.sleep(0, len(backlog)), bool, timeout=40)
    await world.instance("new", "new")
    await until("its pod", lambda: world.api.get("pods", world.namespace, f"avatar-{20000 + MANY}"), bool)
    behind = MANY - len(set(backlog) - {"new"})
    assert behind >= 16, f"only {behind} of {MANY} of the backlog were behind it"
    await until(
        "the whole backlog", lambda: asyncio.sleep(0, set(backlog)), lambda done: done >= set(names), timeout=60
    )
