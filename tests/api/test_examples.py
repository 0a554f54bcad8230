"""The examples, as they stand in examples/, and the client library, against the live API."""

from __future__ import annotations

import asyncio
import importlib.util
import secrets
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from flask_jwt_extended import create_access_token
from kubernetes import client, config

from avatar_operator.client import AsyncAvatarClient, AvatarApiError, AvatarClient, NotConnectedError
from tests.api.conftest import MakeServer
from tests.conftest import Cluster
from tests.support.operator import Operator
from tests.support.rest import RestServer
from tests.support.world import World

pytestmark = pytest.mark.cluster
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def load(path: str) -> ModuleType:
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(path.replace("/", "_").replace("-", "_"), EXAMPLES / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


async def test_flask_backend(
    world: World, operator: Operator, server: RestServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two users, one avatar; a change of avatar; ends that are repeated."""
    await world.pool()
    await world.avatar("g", "h")
    monkeypatch.setenv("AVATAR_MANAGER_URL", server.url)
    monkeypatch.setenv("JWT_SECRET_KEY", secrets.token_hex(32))
    app = load("flask-backend/app.py").create_app()
    with app.app_context():
        headers = [{"Authorization": f"Bearer {create_access_token(str(uid))}"} for uid in (1, 2)]

    def call(verb: str, path: str, user: int, **body: Any) -> tuple[int, dict[str, Any]]:
        kwargs = {"json": body} if verb == "POST" else {}
        answer = app.test_client().open(f"/api/avatar/{path}", method=verb, headers=headers[user], **kwargs)
        return answer.status_code, answer.get_json()

    def story() -> None:
        assert call("GET", "status", 0) == (200, {"status": "no_avatar"})
        assert call("POST", "connect", 0)[0] == 400
        assert call("POST", "connect", 0, avatar_name="nobody")[0] == 404
        code, first = call("POST", "connect", 0, avatar_name="g")
        assert (code, first["connections"], first["is_new_instance"]) == (200, 1, True)
        code, second = call("POST", "connect", 1, avatar_name="g")
        assert (code, second["connections"], second["is_new_instance"]) == (200, 2, False)
        assert first["port"] == second["port"]
        # The reply was lost, the user clicks again: no count goes up.
        assert call("POST", "connect", 1, avatar_name="g")[1]["connections"] == 2
        assert call("GET", "status", 1)[1]["avatar"]["avatar_id"] == "g_user_2"
        assert call("POST", "connect", 0, avatar_name="h")[1]["connections"] == 1
        assert call("GET", "status", 1)[1]["avatar"]["connections"] == 1
        for user in (0, 1, 1):
            assert call("POST", "disconnect", user) == (200, {"status": "success"})

    await asyncio.to_thread(story)
    assert sorted(s["connections"] for s in (await world.statuses()).values()) == [0, 0]
    server.kill()
    assert (await asyncio.to_thread(call, "POST", "connect", 0, avatar_name="g"))[0] == 503


async def test_status_patch_backend(world: World, operator: Operator, cluster: Cluster) -> None:
    """Ten backends count one avatar at the same time; it sleeps when the last has gone, and wakes."""
    await world.pool(idle={"timeoutSeconds": 1, "action": "Sleep"})
    await world.avatar("ada")
    backend = load("status-patch-backend/backend.py")
    api = client.CustomObjectsApi(config.new_client_from_config(str(cluster.kubeconfig)))
    avatars = backend.Avatars(api, world.namespace)

    def story() -> None:
        with ThreadPoolExecutor(10) as pool:
            statuses = list(pool.map(lambda _: avatars.connect("ada", "ada"), range(10)))
            assert len({s["webrtcUrl"] for s in statuses}) == 1
            assert avatars.get("ada")["status"]["connections"] == 10
            assert sorted(pool.map(lambda _: avatars.disconnect("ada"), range(10))) == list(range(10))
        assert avatars.disconnect("ada") == 0

    await asyncio.to_thread(story)
    await world.phase("ada", "Stopped")
    status = await asyncio.to_thread(avatars.connect, "ada", "ada")
    assert status["phase"] == "Running"
    assert await asyncio.to_thread(avatars.disconnect, "never") is None


def test_blocking_client(world_ready: World, operator: Operator, server: RestServer) -> None:
    with AvatarClient(server.url) as avatars:
        started = avatars.start("g_user_1", "g")
        assert (started.running, started.connections, started.is_new) == (True, 1, True)
        assert avatars.start(None, "g", idempotency_key="k").connections == 2
        assert avatars.info("g_user_1").sessions is not None
        assert [i.real_avatar_name for i in avatars.list()] == ["g"]
        assert avatars.status().manager.running == 1
        with pytest.raises(AvatarApiError) as refused:
            avatars.stop("g", force=False)
        assert refused.value.code == 409
        assert avatars.disconnect("g_user_1", "g").disconnected is True
        assert avatars.disconnect("g_user_1", "g").disconnected is False
        with avatars.session("s", "g", ttl_seconds=3) as session:
            assert session.connections == 2
            assert avatars.heartbeat("s").running is True
        with pytest.raises(AvatarApiError, match="404"):
            avatars.heartbeat("s")
        assert avatars.restart("g").running is True
        assert len(avatars.stop_all().stopped) == 1
    with AvatarClient("http://127.0.0.1:1", patience=0.3) as nobody, pytest.raises(NotConnectedError):
        nobody.list()


@pytest.fixture
async def world_ready(world: World) -> World:
    """With a pool and the avatar g."""
    await world.pool(runtime={"podAnnotations": {"avatars.test/ready-after": "500ms"}})
    await world.avatar("g")
    return world


async def test_async_client(world_ready: World, operator: Operator, servers: MakeServer) -> None:
    """A server that ends while a start waits: the client goes on by itself when it is back."""
    server = await servers()
    async with AsyncAvatarClient(server.url) as avatars:
        starting = asyncio.create_task(avatars.start("a", "g"))
        await asyncio.sleep(0.2)
        server.kill()
        await server.start()
        started = await starting
        assert (started.connections, started.running) == (1, True)
        async with avatars.session("b", "g", ttl_seconds=2) as session:
            assert session.connections == 2
            await asyncio.sleep(3)
            assert (await avatars.heartbeat("b")).connections == 2
        assert (await avatars.info("g")).connections == 1
        assert not (await avatars.start("c", "g", respond_async=True)).is_new
    async with AsyncAvatarClient("http://127.0.0.1:1", token="x", patience=0) as nobody:
        with pytest.raises(NotConnectedError):
            await nobody.list()
