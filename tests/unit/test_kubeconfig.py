"""Kubeconfigs: several files as one, contexts, login programs, and what goes with each request."""

from __future__ import annotations

import stat
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from avatar_operator.kube import credentials, kubeconfig
from avatar_operator.kube.credentials import CredentialsError, as_kubectl, from_kubeconfig
from tests.support.api import Json

PORT = "http://127.0.0.1:1"


def config(name: str, server: str = PORT, user: Json | None = None, **context: Any) -> Json:
    """One cluster, one user, one context of that name, which is the current one."""
    return {
        "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": server}}],
        "users": [{"name": name, "user": user or {}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, **context}}],
    }


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, Json], Path]:
    def make(name: str, body: Json) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(body))
        return path

    return make


Write = Callable[[str, Json], Path]


def test_of_two_files_the_first_counts(write: Write) -> None:
    one = write("one", {**config("a", namespace="from-one"), "current-context": ""})
    two = write("two", config("b", namespace="from-two"))
    both = write("three", config("a", namespace="never"))
    assert kubeconfig.contexts([one, two, both]) == ["a", "b"]
    assert kubeconfig.choose([one, two, both]).namespace == "from-two"
    assert kubeconfig.choose([one, two, both], "a").namespace == "from-one"


def test_the_environment_may_name_several_and_some_that_are_not_there(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [write("one", config("a", namespace="ns-a")), tmp_path / "missing", write("two", config("b"))]
    monkeypatch.setenv("KUBECONFIG", ":".join(map(str, paths)))
    assert as_kubectl().context == "a"
    assert as_kubectl().namespace == "ns-a"
    assert as_kubectl(context="b").namespace == "default"


def test_paths_are_relative_to_their_file(write: Write) -> None:
    path = write("deep/config", config("a", user={"tokenFile": "token"}))
    (path.parent / "token").write_text("from the file\n")
    assert from_kubeconfig(path).bearer() == "from the file"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"current-context": ""}, "has no current-context; give --context"),
        ({"current-context": "x"}, "has no context 'x'; it has: a"),
        ({"clusters": []}, "has no cluster 'a'; it has: none"),
        ({"users": [{"name": "b"}]}, "has no user 'a'; it has: b"),
        ({"users": [{"name": "a"}]}, "user 'a' is empty"),
        ({"clusters": [{"name": "a", "cluster": {"x": 1}}]}, "cluster 'a' has no server"),
        ({"users": [{"name": "a", "user": {"auth-provider": {"name": "gcp"}}}]}, "an auth-provider"),
    ],
)
def test_what_is_missing_is_named(write: Write, change: Json, told: str) -> None:
    with pytest.raises(CredentialsError) as caught:
        from_kubeconfig(write("config", {**config("a"), **change}))
    assert told in str(caught.value)


def test_no_kubeconfig_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(CredentialsError, match="give --kubeconfig"):
        as_kubectl()


async def test_impersonation_and_basic_authentication_go_with_every_request(write: Write) -> None:
    user = {
        "username": "u",
        "password": "p",
        "as": "eve",
        "as-groups": ["g1", "g2"],
        "as-user-extra": {"reason": ["audit"]},
    }
    found = from_kubeconfig(write("config", config("a", user=user)))
    async with credentials.open_session(found, "test") as session:
        headers = session.headers
        assert headers["Impersonate-User"] == "eve"
        assert headers.getall("Impersonate-Group") == ["g1", "g2"]
        assert headers["Impersonate-Extra-reason"] == "audit"
        assert headers["Authorization"] == "Basic dTpw"


def test_the_proxy_of_the_environment_but_not_for_the_own_machine(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    far, near = write("far", config("a", "http://far.example:6443")), write("near", config("a"))
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "other.example")
    assert as_kubectl(str(far)).credentials.proxy == "http://proxy.example:3128"
    assert as_kubectl(str(near)).credentials.proxy == ""
    monkeypatch.setenv("no_proxy", ".example")
    assert as_kubectl(str(far)).credentials.proxy == ""


# ---- login programs --------------------------------------------------------------------


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], Json]:
    """``program(code)``: the ``exec`` of a user whose program is this Python code."""

    def make(code: str) -> Json:
        path = tmp_path / "bin" / "login"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!{sys.executable}\nimport json, os\n{code}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        # Relative to the kubeconfig, as its documentation says.
        return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "bin/login", "args": ["x"]}}

    return make


COUNTED = """
path = os.path.join(os.path.dirname(__file__), "runs")
runs = open(path).read().count("x") if os.path.exists(path) else 0
open(path, "a").write("x")
status = {"token": f"token-{runs}", "expirationTimestamp": %r}
print(json.dumps({"kind": "ExecCredential", "status": status}))
"""


def test_a_login_is_used_until_it_ends(write: Write, program: Callable[[str], Json]) -> None:
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    found = from_kubeconfig(write("config", config("a", user=program(COUNTED % tomorrow))))
    assert [found.bearer(), found.bearer()] == ["token-0", "token-0"]


def test_a_login_that_has_ended_is_made_anew(write: Write, program: Callable[[str], Json]) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=5)).isoformat().replace("+00:00", "Z")
    found = from_kubeconfig(write("config", config("a", user=program(COUNTED % soon))))
    assert [found.bearer(), found.bearer()] == ["token-1", "token-2"]


def test_a_program_is_told_of_the_cluster_and_gets_its_environment(
    write: Write, program: Callable[[str], Json]
) -> None:
    code = """
info = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
token = " ".join([info["apiVersion"], info["spec"]["cluster"]["server"], os.environ["WHO"]])
print(json.dumps({"status": {"token": token}}))
"""
    user = program(code)
    user["exec"] |= {"provideClusterInfo": True, "env": [{"name": "WHO", "value": "me"}]}
    found = from_kubeconfig(write("config", config("a", user=user)))
    assert found.bearer() == f"client.authentication.k8s.io/v1 {PORT} me"


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("raise SystemExit(3)", "failed with exit code 3"),
        ("print('hello')", "printed no ExecCredential"),
        ("print(json.dumps({'status': {}}))", "neither a token nor a certificate"),
    ],
)
def test_a_login_that_fails(write: Write, program: Callable[[str], Json], code: str, told: str) -> None:
    with pytest.raises(CredentialsError) as caught:
        from_kubeconfig(write("config", config("a", user=program(code))))
    assert told in str(caught.value)


def test_a_program_that_is_not_installed_says_how_to_get_it(write: Write) -> None:
    user = {"exec": {"command": "no-such-login-program", "installHint": "brew install it"}}
    with pytest.raises(CredentialsError) as caught:
        from_kubeconfig(write("config", config("a", user=user)))
    assert "cannot be run" in str(caught.value)
    assert "brew install it" in str(caught.value)
