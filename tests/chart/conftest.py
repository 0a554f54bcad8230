"""Fixtures of the chart's tests: helm on the tests' cluster, promtool, and definitions of others from Go modules."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT, Cluster, RunKubectl

CHART = ROOT / "charts/avatar-operator"
Json = dict[str, Any]
Helm = Callable[..., subprocess.CompletedProcess[str]]
Render = Callable[..., list[Json]]

# Where the definitions of what the chart can make are published: module, version, hash of the module, files.
PROMETHEUS_OPERATOR = (
    "github.com/prometheus-operator/prometheus-operator",
    "v0.85.0",
    "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
    "example/prometheus-operator-crd/monitoring.coreos.com_{}.yaml",
    ("servicemonitors", "podmonitors", "prometheusrules"),
)
GATEWAY_API = (
    "sigs.k8s.io/gateway-api",
    "v1.3.0",
    "h1:q6okN+/UKDATola4JY7zXzx40WO4VISk7i9DIfOvr9M=",
    "config/crd/standard/gateway.networking.k8s.io_{}.yaml",
    ("httproutes",),
)


@pytest.fixture(scope="session")
def helm(cluster: Cluster) -> Helm:
    """``helm(*args, check=True)``: the finished process with its output as text."""

    def run(*args: str, check: bool = False, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["helm", *args], capture_output=True, text=True, timeout=timeout, check=False, env=cluster.env(), cwd=ROOT
        )
        if check and done.returncode:
            raise AssertionError(f"helm {' '.join(args)}: {done.stdout}{done.stderr}")
        return done

    return run


@pytest.fixture(scope="session")
def render(helm: Helm) -> Render:
    """``render("key=value", …)``: the objects that the chart makes with these values, as release demo in demo."""

    def run(*settings: str, namespace: str = "demo", release: str = "demo") -> list[Json]:
        sets = [part for setting in settings for part in ("--set", setting)]
        done = helm("template", release, str(CHART), "--namespace", namespace, *sets, check=True)
        return [document for document in yaml.safe_load_all(done.stdout) if document]

    return run


def named(documents: list[Json], kind: str) -> dict[str, Json]:
    """The objects of a kind, by their names."""
    return {document["metadata"]["name"]: document for document in documents if document["kind"] == kind}


@pytest.fixture(scope="session")
def promtool() -> str:
    """The path of promtool."""
    done = subprocess.run([ROOT / "scripts/promtool"], capture_output=True, text=True, timeout=200, check=False)
    if done.returncode:
        unavailable(f"promtool: {done.stderr.strip()[-400:]}")
    return done.stdout.strip()


@pytest.fixture(scope="session")
def foreign_definitions(kubectl: RunKubectl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The definitions of prometheus-operator and of Gateway API are in the cluster."""
    files = [
        path
        for module in (PROMETHEUS_OPERATOR, GATEWAY_API)
        for path in fetched(*module, tmp_path_factory.mktemp("go"))
    ]
    made = []
    for path in files:
        name = yaml.safe_load(path.read_text())["metadata"]["name"]
        if kubectl("get", "crd", name).returncode:
            kubectl("apply", "--server-side", "-f", str(path), check=True)
            made.append(name)
        kubectl("wait", "--for=condition=Established", "--timeout=30s", f"crd/{name}", check=True)
    yield
    for name in made:
        kubectl("delete", "crd", name, "--wait=false")


def fetched(module: str, version: str, digest: str, pattern: str, names: tuple[str, ...], folder: Path) -> list[Path]:
    """Files of a Go module, downloaded by the go command and checked against its hash."""
    go = shutil.which("go") or "/usr/local/go/bin/go"
    command = [go, "mod", "download", "-json", f"{module}@{version}"]
    environment = {**os.environ, "GOFLAGS": "-mod=mod"}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200, check=False
        )
    except FileNotFoundError:
        unavailable("there is no go")
    if done.returncode:
        unavailable(f"{module}: {done.stdout}{done.stderr}")
    found = json.loads(done.stdout)
    assert found["Sum"] == digest, f"{module}@{version} is not what it was"
    return [Path(found["Dir"]) / pattern.format(name) for name in names]


def unavailable(reason: str) -> None:
    """Skip what a registry has to give; in CI that is a failure."""
    if os.environ.get("CI", "").lower() in ("true", "1"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
