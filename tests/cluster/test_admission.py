"""The chart's admission policies on a real API server: whom they stop, and whom they must not stop."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conftest import ROOT, Cluster, RunKubectl
from tests.support.world import World

pytestmark = pytest.mark.cluster
BACKEND = "system:serviceaccount:shop:backend"
ANOTHER = "system:serviceaccount:shop:other"
FORCE = "avatars.virtualtutor.io/force-delete"
Done = subprocess.CompletedProcess[str]
Act = Callable[..., Done]


@pytest.fixture
def policies(cluster: Cluster, kubectl: RunKubectl, namespace: str) -> Iterator[Callable[..., None]]:
    """``policies("admission.….enabled=true", …)``: the chart's policies, bound to this test's namespace alone."""
    made: list[str] = []

    def apply(*settings: str) -> None:
        command = ["helm", "template", "demo", str(ROOT / "charts/avatar-operator"), "--namespace", namespace]
        command += ["--show-only", "templates/admission.yaml"]
        settings = (*settings, f"watchNamespaces={{{namespace}}}", "fullnameOverride=demo")
        command += [part for setting in settings for part in ("--set", setting)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=cluster.env())
        assert done.returncode == 0, done.stderr
        made.append(done.stdout)
        kubectl("apply", "--validate=strict", "-f", "-", input=done.stdout, check=True)

    yield apply
    for text in made:
        kubectl("delete", "-f", "-", "--wait=false", "--ignore-not-found", input=text)


@pytest.fixture
def acting(kubectl: RunKubectl, namespace: str) -> Act:
    """``acting(user, *args)``: kubectl as somebody whose Role allows everything with AvatarInstances here."""
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "everything", "namespace": namespace},
        "rules": [{"apiGroups": ["avatars.virtualtutor.io"], "resources": ["*"], "verbs": ["*"]}],
    }
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "everything", "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "everything"},
        "subjects": [{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "testers"}],
    }
    kubectl("apply", "-f", "-", input=f"{json.dumps(role)}\n---\n{json.dumps(binding)}", check=True)

    def run(user: str, *args: str) -> Done:
        return kubectl(f"--as={user}", "--as-group=testers", "--namespace", namespace, *args)

    return run


def patch(act: Act, user: str, body: dict[str, Any], *options: str) -> Done:
    """A merge patch of the instance ada."""
    return act(user, "patch", "avi", "ada", "--type=merge", "-p", json.dumps(body), *options)


def status(act: Act, user: str, **fields: Any) -> Done:
    """A merge patch of its status."""
    return patch(act, user, {"status": fields}, "--subresource=status")


def once_denied(what: Callable[[], Done], words: str) -> Done:
    """The answer of what is to be refused, as soon as the API server knows the policy."""
    deadline = time.monotonic() + 20
    while True:
        done = what()
        if words in done.stderr:
            return done
        assert time.monotonic() < deadline, f"not refused: {done.stdout}{done.stderr}"
        time.sleep(0.2)


# ---- backends -------------------------------------------------------------------------


async def test_a_backend_counts_and_does_nothing_else(world: World, policies: Callable[..., None], acting: Act) -> None:
    policies("admission.backends.enabled=true", f"admission.backends.users={{{BACKEND}}}")
    await world.instance("ada")
    await world.set_status("ada", {"phase": "Running", "port": 8615, "connections": 1})

    def touch() -> Done:
        return patch(acting, BACKEND, {"spec": {"maxSessions": 7}}, "--dry-run=server")

    once_denied(touch, "nothing in its spec")
    assert status(acting, BACKEND, connections=2).returncode == 0
    session = {"id": "a", "user": "u", "since": "2030-01-01T00:00:00Z"}
    assert status(acting, BACKEND, connections=1, sessions=[session]).returncode == 0
    assert status(acting, BACKEND, connections=None, sessions=None).returncode == 0
    for fields, word in (
        ({"phase": "Failed"}, "phase"),
        ({"connections": 3, "port": 8616}, "port"),
        ({"port": None}, "port"),
        ({"webrtcUrl": "http://evil.test/"}, "webrtcUrl"),
        ({"conditions": []}, "conditions"),
    ):
        refused = status(acting, BACKEND, **fields)
        assert refused.returncode != 0, fields
        assert f"status, and not {word}" in refused.stderr, refused.stderr
    found = await world.status("ada")
    assert (found["phase"], found["port"], found.get("webrtcUrl")) == ("Running", 8615, None)
    assert status(acting, ANOTHER, phase="Failed").returncode == 0, "others are as free as their Roles make them"


async def test_a_first_count_of_an_instance_without_status(
    world: World, policies: Callable[..., None], acting: Act
) -> None:
    """A whole group of backends, an instance that nobody has looked at yet."""
    policies("admission.backends.enabled=true", "admission.backends.groups={testers}")
    await world.instance("ada")
    # Not for good: until the API server knows the policy, it would be done.
    fail = ({"status": {"phase": "Failed"}}, "--subresource=status", "--dry-run=server")
    once_denied(lambda: patch(acting, ANOTHER, *fail), "and not phase")
    assert status(acting, ANOTHER, connections=1).returncode == 0
    label = patch(acting, ANOTHER, {"metadata": {"labels": {"a": "b"}}})
    assert label.returncode == 0, label.stderr
    assert acting(ANOTHER, "delete", "avi", "ada", "--wait=false").returncode == 0


# ---- delete protection ----------------------------------------------------------------


async def protected(world: World, policies: Callable[..., None], acting: Act) -> None:
    """The instance ada, in use and protected."""
    policies("admission.deleteProtection.enabled=true", "admission.deleteProtection.users={janitor}")
    await world.instance("ada")
    await world.connections("ada", 2)
    refused = once_denied(lambda: acting(ANOTHER, "delete", "avi", "ada", "--dry-run=server"), "is in use")
    assert f"kubectl annotate avi ada {FORCE}=true" in refused.stderr
    assert "status.connections: 2" in refused.stderr


async def test_an_instance_in_use_stays(
    world: World, policies: Callable[..., None], acting: Act, kubectl: RunKubectl
) -> None:
    await protected(world, policies, acting)
    admin = kubectl("--namespace", world.namespace, "delete", "avi", "ada", "--wait=false")
    assert "is in use" in admin.stderr
    every = kubectl("--namespace", world.namespace, "delete", "avi", "--all", "--wait=false")
    assert "is in use" in every.stderr
    assert await world.get("ada") is not None
    await world.set_status("ada", {"connections": 0, "sessions": [{"id": "g_user_1"}]})
    sessions = acting(ANOTHER, "delete", "avi", "ada", "--wait=false")
    assert "is in use (status.sessions: 1)" in sessions.stderr
    await world.set_status("ada", {"sessions": []})
    assert acting(ANOTHER, "delete", "avi", "ada", "--wait=false").returncode == 0


async def test_who_says_so_may(world: World, policies: Callable[..., None], acting: Act) -> None:
    await protected(world, policies, acting)
    assert patch(acting, ANOTHER, {"metadata": {"annotations": {FORCE: "no"}}}).returncode == 0
    assert "is in use" in acting(ANOTHER, "delete", "avi", "ada", "--wait=false").stderr
    assert patch(acting, ANOTHER, {"metadata": {"annotations": {FORCE: "true"}}}).returncode == 0
    done = acting(ANOTHER, "delete", "avi", "ada", "--wait=false")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["demo", "demo-api", None], ids=["operator", "api", "named"])
async def test_the_operator_the_api_and_those_named_may(
    world: World, policies: Callable[..., None], acting: Act, name: str | None
) -> None:
    await protected(world, policies, acting)
    user = f"system:serviceaccount:{world.namespace}:{name}" if name else "janitor"
    done = acting(user, "delete", "avi", "ada", "--wait=false")
    assert done.returncode == 0, done.stderr
    await world.gone("ada")


async def test_a_namespace_can_be_deleted_with_everything_in_use(
    world: World, policies: Callable[..., None], acting: Act, kubectl: RunKubectl
) -> None:
    await protected(world, policies, acting)
    done = kubectl("delete", "namespace", world.namespace, "--timeout=60s", timeout=70)
    assert done.returncode == 0, done.stderr


def test_backends_must_be_named(cluster: Cluster) -> None:
    command = ["helm", "template", "demo", "charts/avatar-operator", "--set", "admission.backends.enabled=true"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, env=cluster.env())
    assert "admission.backends.users or .groups" in done.stderr
