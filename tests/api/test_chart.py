"""The chart's part for the API: what it refuses, and that its Roles are enough and no more."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.api.conftest import MakeServer
from tests.conftest import Cluster, RunKubectl
from tests.support.operator import Operator
from tests.support.rest import Rest
from tests.support.world import World

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).resolve().parents[2]
JWT = ("--set", "api.enabled=true", "--set", "api.auth.jwt.secretName=jwt")
Render = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def render(cluster: Cluster) -> Render:
    """Helm's output for the API's template."""

    def run(*args: str, namespace: str = "demo") -> subprocess.CompletedProcess[str]:
        command = ["helm", "template", "demo", str(ROOT / "charts/avatar-operator"), "--namespace", namespace]
        command += ["--show-only", "templates/api.yaml", *args]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=cluster.env())

    return run


def documents(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return [d for d in yaml.safe_load_all(done.stdout) if d]


def test_it_is_off_by_default_and_wants_to_know_who_may_come_in(render: Render) -> None:
    assert "could not find template" in render().stderr
    assert "api.auth.jwt.secretName" in render("--set", "api.enabled=true").stderr
    none = render("--set", "api.enabled=true", "--set", "api.auth.mode=none")
    assert "/api/auth/mode" in none.stderr
    plain = render(*JWT[:2], "--set", "api.auth.jwt.jwksUrl=http://keys.test/")
    assert "/api/auth/jwt/jwksUrl" in plain.stderr


def test_the_server_takes_it_and_every_option_is_one(render: Render, kubectl: RunKubectl) -> None:
    """`avatar-operator api` knows each argument that the chart gives it."""
    full = ("api.tls.secretName=tls", "api.redis.secretName=redis", "api.turnSecretNames={turn}")
    more = ("api.corsOrigins={https://a.test}", "api.trustedProxies={10.0.0.0/8}", "api.auth.roles.tutor=admin")
    sets = [a for entry in (*full, *more, "api.auth.audience=x", "api.auth.jwt.issuer=y") for a in ("--set", entry)]
    done = render(*JWT, *sets, namespace="default")
    applied = kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", input=done.stdout)
    assert applied.returncode == 0, applied.stderr
    [deployment] = [d for d in documents(done) if d["kind"] == "Deployment"]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    help_ = subprocess.run(
        [str(ROOT / ".venv/bin/python"), "-m", "avatar_operator", "api", "--help"],
        cwd=ROOT / "operator",
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={"COLUMNS": "300", "PATH": "/usr/bin"},
    ).stdout
    for argument in container["args"]:
        if argument.startswith("--"):
            assert argument in help_, argument


def test_secrets_are_named_one_by_one(render: Render) -> None:
    def secret_rules(*args: str) -> list[dict[str, Any]]:
        roles = [d for d in documents(render(*JWT, *args)) if d["kind"] in ("Role", "ClusterRole")]
        return [r for d in roles for r in d["rules"] if "secrets" in r["resources"]]

    assert secret_rules() == []
    [rule] = secret_rules("--set", "api.turnSecretNames={turn}")
    assert (rule["resourceNames"], rule["verbs"]) == (["turn"], ["get"])


async def test_its_account_may_do_what_it_does(
    world: World,
    operator: Operator,
    servers: MakeServer,
    render: Render,
    kubectl: RunKubectl,
    cluster: Cluster,
    tmp_path: Path,
) -> None:
    """Every route, with the token of the chart's ServiceAccount and its Roles alone."""
    name = f"demo-{world.namespace}"
    done = render(
        *JWT, "--set", f"fullnameOverride={name}", "--set", "api.auth.mode=tokenreview", namespace=world.namespace
    )
    kinds = ("ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
    rights = [d for d in documents(done) if d["kind"] in kinds]
    text = yaml.safe_dump_all(rights)
    kubectl("apply", "-f", "-", input=text, check=True)
    try:
        account = f"{name}-api"
        token = kubectl("create", "token", account, "-n", world.namespace, check=True).stdout.strip()
        found = yaml.safe_load(cluster.kubeconfig.read_text())
        for user in found["users"]:
            user["user"] = {"token": token}
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(yaml.safe_dump(found))
        await world.pool()
        await world.avatar("g")
        server = await servers("--auth=tokenreview", "--default-role=admin", kubeconfig=kubeconfig)
        async with Rest(server.url, token) as rest:
            assert (await rest.start("a", "g", ttl_seconds=60)).code == 200
            assert (await rest.post("/avatar/heartbeat", {"avatar_id": "a"})).code == 200
            assert (await rest.get("/status")).code == 200
            assert (await rest.post("/avatar/restart", {"avatar_id": "g"})).code == 200
            assert (await rest.disconnect(avatar_name="g", avatar_id="a")).data["disconnected"]
            assert (await rest.start("unknown", "nobody")).code == 404
            assert (await rest.post("/avatar/stop", {"avatar_id": "g", "force": False})).code == 200
        assert "gpus cannot be read" not in server.tail()
        assert "forbidden" not in server.tail().lower()
    finally:
        kubectl("delete", "-f", "-", "--wait=false", input=text)
