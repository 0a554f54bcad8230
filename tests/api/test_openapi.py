"""schemathesis against the API's own OpenAPI document: no 5xx, no answer that the document does not have."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import negative_data_rejection

from avatar_operator.api.app import document
from tests.conftest import Cluster
from tests.support.api import Api
from tests.support.operator import Operator
from tests.support.rest import RestServer
from tests.support.runtime import FakeRuntime, pods_at
from tests.support.tokens import SECRET, hs256
from tests.support.world import World

pytestmark = pytest.mark.cluster
# Of each operation that takes anything: 2,000 cases and more in all.
CASES = 130
PORTS = 50
done: list[int] = []


@pytest.fixture(scope="module")
def runtime() -> Iterator[FakeRuntime]:
    """What answers in every pod; in a thread of its own, as the cases hold up the loop of this one."""
    fake = FakeRuntime(ports=PORTS, talks=True)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(fake.up())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield fake
    asyncio.run_coroutine_threadsafe(fake.down(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(
    cluster: Cluster, shared_operator: Operator, runtime: FakeRuntime, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[str]:
    """A server with the avatar g_user_1 (the examples' id stands for its name, too), and an administrator's token."""
    async with Api(cluster.kubeconfig) as api:
        namespace = f"t-openapi-{shared_operator.port}"
        await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        world = World(api, namespace)
        pods = pods_at(runtime.address)
        await world.pool(ports={"base": 8615, "count": PORTS}, runtime=pods)
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


@schemathesis.serializer("application/sdp")
def sdp(_: Any, value: Any) -> bytes:
    """As it is: schemathesis knows JSON, forms and text."""
    return str(value).encode("utf-8", "replace")


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
    # What names the session in place of avatar_id stands in a header: the body's schema cannot say so.
    keyed = "Idempotency-Key" in (case.headers or {})
    # In a form everything is text: `true` is a string there, whatever it was meant to violate.
    form = case.media_type == "multipart/form-data"
    case.call_and_validate(base_url=url, excluded_checks=[negative_data_rejection] if keyed or form else [])


def test_there_were_enough_cases() -> None:
    assert len(done) >= 2000, len(done)
    print(len(done), "cases")


def test_the_server_serves_this_document(url: str) -> None:
    assert requests.get(f"{url}/openapi.json", timeout=10).json() == document()
