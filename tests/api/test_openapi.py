"""schemathesis against the API's own OpenAPI document: no 5xx, no answer that the document does not have."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
import requests
import schemathesis
from hypothesis import HealthCheck, settings

from avatar_operator.api.app import document
from tests.conftest import Cluster
from tests.support.api import Api
from tests.support.operator import Operator
from tests.support.rest import RestServer
from tests.support.tokens import SECRET, hs256
from tests.support.world import World

pytestmark = pytest.mark.cluster
# Of each operation that takes anything: 2,000 cases and more in all.
CASES = 210
done: list[int] = []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(
    cluster: Cluster, shared_operator: Operator, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[str]:
    """A server with the avatar g_user_1 (the examples' id stands for its name, too), and an administrator's token."""
    async with Api(cluster.kubeconfig) as api:
        namespace = f"t-openapi-{shared_operator.port}"
        await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        world = World(api, namespace)
        await world.pool(ports={"base": 8615, "count": 50})
        await world.avatar("g", "0")
        folder = tmp_path_factory.mktemp("api")
        (folder / "secret").write_text(SECRET)
        options = ("--auth=jwt", f"--jwt-secret-file={folder / 'secret'}", "--patience-seconds=5", "--failure-rate=0")
        server = RestServer(cluster.kubeconfig, namespace, folder / "api.log", options)
        await shared_operator.until_ready()
        try:
            await server.start()
            yield server.url
        finally:
            server.stop()
            await api.delete("namespaces", "", namespace)


schema = schemathesis.openapi.from_dict(document())


@schema.auth()
class Backend:
    """A backend's token, where a case does not try what happens without one."""

    def get(self, case: Any, context: Any) -> str:
        return hs256("backend", "admin")

    def set(self, case: Any, data: str, context: Any) -> None:
        case.headers = {**(case.headers or {}), "Authorization": f"Bearer {data}"}


@schema.parametrize()
@settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
def test_every_operation(url: str, case: Any) -> None:
    done.append(1)
    case.call_and_validate(base_url=url)


def test_there_were_enough_cases() -> None:
    assert len(done) >= 2000, len(done)
    print(len(done), "cases")


def test_the_server_serves_this_document(url: str) -> None:
    assert requests.get(f"{url}/openapi.json", timeout=10).json() == document()
