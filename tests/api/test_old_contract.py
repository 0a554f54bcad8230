"""The old manager's contract: the examples of its README (and what its code added), replayed against the live API.

``like`` is the documented answer: every key of it must be there, with a value of the same type. ``exact`` names the
values that must be equal, ``null`` those that may be null as well (there is no GPU here). ``before`` is done first.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.conftest import Cluster
from tests.support.api import Api, until
from tests.support.operator import Operator
from tests.support.rest import Rest, RestServer
from tests.support.world import World, named

pytestmark = pytest.mark.cluster
TABLE: list[dict[str, Any]] = json.loads((Path(__file__).parent / "old_contract.json").read_text(encoding="utf-8"))
GPU = {
    "uuid": "GPU-00000000-0000-0000-0000-000000000001",
    "index": 1,
    "product": "NVIDIA A100",
    "memory": {"totalMiB": 40960, "usedMiB": 12800, "freeMiB": 28160},
    "healthy": True,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gpu(cluster: Cluster) -> AsyncIterator[None]:
    """A node agent's report of one GPU, of a node that nobody has."""
    async with Api(cluster.kubeconfig) as api:
        path = "/apis/avatars.virtualtutor.io/v1alpha1/gpunodes"
        for old in (await api.call("GET", path))["items"]:
            if old["metadata"]["name"].startswith("box-of-"):
                await api.call("DELETE", f"{path}/{old['metadata']['name']}")
        name = "box-of-the-contract"
        await api.call("POST", path, named("GPUNode", name, {}))
        body = {"status": {"lastReport": "2026-01-01T00:00:00Z", "gpus": [GPU]}}
        await api.call("PATCH", f"{path}/{name}/status", body, "application/merge-patch+json")
        yield
        await api.call("DELETE", f"{path}/{name}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(
    cluster: Cluster, shared_operator: Operator, gpu: None, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[World, Rest]]:
    """One namespace and one server for the whole table; each row leaves it empty."""
    async with Api(cluster.kubeconfig) as api:
        namespace = f"t-contract-{shared_operator.port}"
        await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        world = World(api, namespace)
        await world.pool()
        await world.avatar("g")
        await api.create("avatars", namespace, named("Avatar", "test-yongen", {"avatarName": "test_yongen"}))
        server = RestServer(cluster.kubeconfig, namespace, tmp_path_factory.mktemp("api") / "api.log")
        await shared_operator.until_ready()
        try:
            await server.start()
            async with Rest(server.url) as rest:
                yield world, rest
        finally:
            server.stop()
            await api.delete("namespaces", "", namespace)


def at(body: Any, path: str) -> Any:
    for part in path.split("."):
        body = body[int(part)] if isinstance(body, list) else body[part]
    return body


def differs(seen: Any, like: Any, null: set[str], path: str = "") -> str:
    """Where an answer is not shaped like the example; empty when it is."""
    if seen is None and path in null:
        return ""
    if isinstance(like, dict):
        if not isinstance(seen, dict):
            return f"{path}: no object"
        for key, value in like.items():
            here = f"{path}.{key}".lstrip(".")
            if key not in seen:
                return f"{here}: missing"
            if found := differs(seen[key], value, null, here):
                return found
        return ""
    if isinstance(like, list):
        if not isinstance(seen, list):
            return f"{path}: no list"
        found = [differs(s, like[0], null, f"{path}.{i}") for i, s in enumerate(seen)]
        return next((f for f in found if f), "" if seen else f"{path}: empty")
    kinds = (int, float) if isinstance(like, float) else type(like)
    return "" if isinstance(seen, kinds) else f"{path}: {seen!r} is no {type(like).__name__}"


def covers(seen: Any, like: Any) -> bool:
    """Whether all of ``like`` stands in ``seen`` with equal values."""
    if isinstance(like, dict):
        return isinstance(seen, dict) and all(k in seen and covers(seen[k], v) for k, v in like.items())
    if isinstance(like, list):
        return len(seen) >= len(like) and all(any(covers(s, v) for s in seen) for v in like)
    return bool(seen == like)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("row", TABLE, ids=[row["name"] for row in TABLE])
async def test_as_documented(shared: tuple[World, Rest], row: dict[str, Any]) -> None:
    world, rest = shared
    await rest.post("/avatar/stop-all")
    await world.nothing_left()
    await until("the API to see it", lambda: rest.get("/status"), lambda a: a.data["manager"]["available"] == 5)
    for step in row.get("before", []):
        done = await rest.call(step["method"], step["path"], step.get("json"))
        assert done.code == 200, done
    ask = row["request"]
    answer = await rest.call(ask["method"], ask["path"], ask.get("json"))
    assert answer.code == row["status"], answer
    assert not (found := differs(answer.body, row["like"], set(row.get("null", ())))), f"{found} in {answer}"
    for path in row.get("exact", ()):
        assert covers(at(answer.body, path), at(row["like"], path)), f"{path} in {answer}"
    for look in row.get("after", ()):
        await until(
            f"{look['path']} to say so",
            lambda look=look: rest.get(look["path"]),  # type: ignore[misc]
            lambda a, look=look: at(a.body, look["field"]) == look["value"],  # type: ignore[misc]
        )
