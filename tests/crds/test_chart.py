"""The chart and the manifests: what they render, what they refuse, and that a real API server takes all of it.

All marked `cluster`, as helm comes with the development cluster's programs.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "avatar-operator"
SAMPLES = ROOT / "manifests" / "samples"
Run = Callable[..., CompletedProcess[str]]
pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def search_path() -> str:
    """PATH with the development cluster's helm and kubectl first."""
    command = [sys.executable, "-m", "devcluster", "binaries"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    folder = done.stdout.strip()
    return f"{folder}:{os.environ['PATH']}" if done.returncode == 0 and folder else os.environ["PATH"]


@pytest.fixture(scope="module")
def helm(search_path: str) -> Run:
    program = shutil.which("helm", path=search_path)
    assert program, "helm is not there: `python3 -m devcluster up` brings it"

    def run(*args: str) -> CompletedProcess[str]:
        return subprocess.run([program, *args], capture_output=True, text=True, timeout=60, check=False)

    return run


@pytest.fixture
def render(helm: Run) -> Callable[..., list[dict[str, Any]]]:
    def run(*args: str) -> list[dict[str, Any]]:
        done = helm("template", "demo", str(CHART), "--namespace", "demo", *args)
        assert done.returncode == 0, done.stderr
        return [document for document in yaml.safe_load_all(done.stdout) if document]

    return run


@pytest.fixture(scope="module")
def server(kubectl: Run) -> Iterator[Run]:
    """Kubectl, with the definitions applied and the namespace that the manifests name in place."""
    applied = kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
    assert applied.returncode == 0, applied.stderr
    had_it = kubectl("get", "namespace", "avatar-operator").returncode == 0
    if not had_it:
        kubectl("create", "namespace", "avatar-operator")
    yield kubectl
    if not had_it:
        kubectl("delete", "namespace", "avatar-operator", "--wait=false")


def named(documents: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {document["metadata"]["name"]: document for document in documents if document["kind"] == kind}


def test_lint_has_nothing_to_say(helm: Run) -> None:
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout


def test_the_server_takes_what_the_chart_renders(helm: Run, server: Run) -> None:
    rendered = helm("template", "demo", str(CHART), "--namespace", "avatar-operator")
    done = server("apply", "--dry-run=server", "--validate=strict", "-f", "-", input=rendered.stdout)
    assert done.returncode == 0, done.stderr
    for name in ("avatarpool.avatars.virtualtutor.io/default", "avatar.avatars.virtualtutor.io/ada"):
        assert name in done.stdout


def test_chart_brings_the_definitions_as_they_are(helm: Run) -> None:
    done = helm("template", "demo", str(CHART), "--include-crds")
    brought = named([document for document in yaml.safe_load_all(done.stdout) if document], "CustomResourceDefinition")
    with_source = {}
    for path in (ROOT / "crds").glob("*.yaml"):
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        with_source[document["metadata"]["name"]] = document
    assert brought == with_source


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("imgae.tag=x", ["imgae"]),
        ("tts.prot=1", ["/tts", "prot"]),
        ("log.level=loud", ["/log/level", "'info'"]),
        ("pools.default.idel.timeoutSeconds=3", ["/pools/default", "idel"]),
        ("pools.default.maxInstances=0", ["/pools/default/maxInstances"]),
        ("pools.Bad_Name.maxInstances=3", ["Bad_Name"]),
        ("watchNamespaces={Not A Namespace}", ["/watchNamespaces/0"]),
        ("metrics.service.port=70000", ["/metrics/service/port", "maximum"]),
    ],
)
def test_a_typo_in_the_values_is_named(helm: Run, setting: str, words: list[str]) -> None:
    done = helm("template", "demo", str(CHART), "--set", setting)
    assert done.returncode != 0, f"{setting} was taken"
    for word in words:
        assert word in done.stderr, done.stderr


def test_every_value_has_a_comment_and_a_schema() -> None:
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    for block in text.split("\n\n"):
        assert "#" in block, f"no comment in:\n{block}"
    schema = yaml.safe_load((CHART / "values.schema.json").read_text(encoding="utf-8"))
    assert set(yaml.safe_load(text)) == set(schema["properties"]) - {"global"}


def test_least_privileges(render: Callable[..., list[dict[str, Any]]]) -> None:
    role = named(render(), "ClusterRole")["demo-avatar-operator"]
    granted = {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert not [entry for entry in granted if "*" in entry]
    assert not [entry for entry in granted if entry[1] in {"secrets", "nodes", "namespaces", "pods/exec"}]
    assert {verb for _, resource, verb in granted if resource == "avatarpools"} == {"get", "list", "watch"}


def test_namespaced_installation_grants_nothing_cluster_wide(render: Callable[..., list[dict[str, Any]]]) -> None:
    documents = render("--set", "watchNamespaces={a,b}", "--set", "rbac.aggregate=false")
    assert {document["metadata"]["namespace"] for document in documents if document["kind"] == "Role"} == {"a", "b"}
    assert not named(documents, "ClusterRole")
    assert not named(documents, "ClusterRoleBinding")
    (container,) = named(documents, "Deployment")["demo-avatar-operator"]["spec"]["template"]["spec"]["containers"]
    args = container["args"]
    assert [args[index + 1] for index, arg in enumerate(args) if arg == "--namespace"] == ["a", "b"]


def test_who_may_edit_a_namespace_may_not_choose_what_runs(render: Callable[..., list[dict[str, Any]]]) -> None:
    role = named(render(), "ClusterRole")["demo-avatar-operator-edit"]
    resources = {resource for rule in role["rules"] for resource in rule["resources"]}
    assert resources == {"avatarinstances", "avatarinstances/status"}


def test_pods_meet_the_restricted_standard(render: Callable[..., list[dict[str, Any]]]) -> None:
    for deployment in named(render(), "Deployment").values():
        pod = deployment["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert "limits" in container["resources"]


def test_nothing_needs_the_operator_to_die(render: Callable[..., list[dict[str, Any]]]) -> None:
    for document in render():
        assert "finalizers" not in document["metadata"]
        assert "helm.sh/hook" not in document["metadata"].get("annotations", {})


def test_pools_take_image_and_tts_from_the_chart(render: Callable[..., list[dict[str, Any]]]) -> None:
    pools = named(render("--set", "pools.second.ports.base=8700", "--set", "runtime.image.tag=v7"), "AvatarPool")
    assert set(pools) == {"default", "second"}
    assert pools["second"]["spec"]["runtime"]["image"] == "localhost/avatar-operator/runtime:v7"
    assert pools["second"]["spec"]["tts"]["url"] == "http://avatar-tts:5002"
    own = named(render("--set", "pools.default.runtime.image=x:1", "--set", "tts.enabled=false"), "AvatarPool")
    assert own["default"]["spec"]["runtime"]["image"] == "x:1"
    assert "tts" not in own["default"]["spec"]
    assert not named(render("--set", "pools.default=null"), "AvatarPool")


def test_manifests_are_what_the_chart_says(search_path: str) -> None:
    command = [str(ROOT / "manifests" / "render"), "--check"]
    environment = {**os.environ, "PATH": search_path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_server_takes_the_kustomization_and_the_samples(server: Run) -> None:
    base = server("apply", "--dry-run=server", "--validate=strict", "-k", str(ROOT / "manifests" / "base"))
    assert base.returncode == 0, base.stderr
    samples = server("apply", "--dry-run=server", "--validate=strict", "-f", str(SAMPLES))
    assert samples.returncode == 0, samples.stderr


def test_samples_fit_each_other() -> None:
    objects = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(SAMPLES.glob("*.yaml"))]
    avatars = {item["spec"]["avatarName"] for item in objects if item["kind"] == "Avatar"}
    pools = {item["metadata"]["name"] for item in objects if item["kind"] == "AvatarPool"}
    instances = [item for item in objects if item["kind"] == "AvatarInstance"]
    assert len(instances) == 2
    for instance in instances:
        assert instance["spec"]["avatarName"] in avatars
        assert instance["spec"].get("poolRef", "default") in pools
    folders = {path.name for path in (ROOT / "runtime" / "data" / "avatars").iterdir()}
    assert avatars <= folders
