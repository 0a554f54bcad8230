"""What the chart and the manifests make, against the schemas of each supported Kubernetes, by kubeconform.

The schemas are those of Kubernetes' own OpenAPI documents (tests/chart/schemas, by scripts/kubernetes-schemas), and
that of the API server that the tests run on. Nothing that a schema does not name is let through.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.conftest import GATEWAY_API, PROMETHEUS_OPERATOR, Json, Render, fetched, unavailable
from tests.chart.test_manifests import FOLDERS, built
from tests.chart.test_render import EVERYTHING
from tests.conftest import ROOT, RunKubectl
from tests.support import schemas

pytestmark = pytest.mark.cluster
FILES = {path.stem: path for path in sorted((ROOT / "tests/chart/schemas").glob("v*.json"))}
VALUES: dict[str, tuple[str, ...]] = {
    "defaults": (),
    "everything": EVERYTHING,
    "namespaces": ("watchNamespaces={a,b}", "rbac.aggregate=false", "rbac.nodes=false", "replicas=1"),
    "gpus": (
        *("agent.enabled=true", "pools.default.gpu.mode=VisibleDevices", "pools.default.gpu.primary.indices={1}"),
        *("pools.second.ports.base=8700", "pools.second.gpu.mode=HAMi", "tts.engines.cosyvoice.image=example.org/c:2"),
    ),
    "production": (
        *EVERYTHING,
        *(
            "imagePullSecrets[0].name=registry",
            "priorityClassName=system-cluster-critical",
            "commonLabels.team=avatars",
        ),
        *("nodeSelector.disk=ssd", "tolerations[0].key=a", "tolerations[0].operator=Exists"),
        *("turn.enabled=true", "turn.peers={10.42.0.0/16}"),
        *("api.tls.secretName=tls", "api.redis.secretName=redis", "api.turnSecretNames={turn}"),
    ),
}


@pytest.fixture(scope="session")
def kubeconform() -> str:
    """The path of kubeconform."""
    done = subprocess.run([ROOT / "scripts/kubeconform"], capture_output=True, text=True, timeout=280, check=False)
    if done.returncode:
        unavailable(f"kubeconform: {done.stderr.strip()[-400:]}")
    return done.stdout.strip()


@pytest.fixture(scope="module")
def documents(render: Render, kubectl: RunKubectl) -> dict[str, list[Json]]:
    """All that is made, by what it is made of."""
    found = {f"values-{name}": render(*settings) for name, settings in VALUES.items()}
    found |= {folder.replace("/", "-"): built(kubectl, folder) for folder in FOLDERS}
    samples = sorted((ROOT / "manifests/samples").glob("*.yaml"))
    found["samples"] = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in samples]
    found["crds"] = definitions(sorted((ROOT / "crds").glob("*.yaml")))
    return found


def definitions(paths: list[Path]) -> list[Json]:
    """Resource definitions."""
    return [yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths]


@pytest.fixture(scope="module")
def custom(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, str], Json]:
    """Schemas of our kinds and of the others' that the chart can make."""
    paths = sorted((ROOT / "crds").glob("*.yaml"))
    for module in (PROMETHEUS_OPERATOR, GATEWAY_API):
        paths += fetched(*module, tmp_path_factory.mktemp("go"))
    found: dict[tuple[str, str, str], Json] = {}
    for crd in definitions(paths):
        found |= schemas.of_definition(crd)
    return found


def checked(kubeconform: str, location: str, files: list[Path]) -> tuple[Json, list[str]]:
    """kubeconform's counts, and what it has against the files."""
    command = [kubeconform, "-strict", "-summary", "-output", "json", "-schema-location", location]
    done = subprocess.run([*command, *map(str, files)], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    against = [
        f"{Path(r['filename']).stem}: {r['kind']} {r['name']}: {r['msg']}" for r in report.get("resources") or ()
    ]
    return report["summary"], against


def test_each_supported_version_is_there() -> None:
    assert list(FILES) == ["v1.33", "v1.34", "v1.35", "v1.36", "v1.37"]


@pytest.fixture(scope="module")
def served(kubectl: RunKubectl) -> Json:
    """What the API server says itself; it knows enumerations, too."""
    document = json.loads(kubectl("get", "--raw", "/openapi/v2", check=True).stdout)
    newest = json.loads(FILES["v1.37"].read_text(encoding="utf-8"))
    return schemas.reduced(document, [tuple(kind.split("/")) for kind in newest["kinds"]])


@pytest.mark.parametrize("version", [*FILES, "server"])
def test_everything_fits_the_schemas(
    kubeconform: str,
    served: Json,
    documents: dict[str, list[Json]],
    custom: dict[tuple[str, str, str], Json],
    tmp_path: Path,
    version: str,
) -> None:
    reduction = served if version == "server" else json.loads(FILES[version].read_text(encoding="utf-8"))
    location = schemas.write(tmp_path / "schemas", reduction, custom)
    files = []
    for name, objects in documents.items():
        files.append(tmp_path / f"{name}.yaml")
        files[-1].write_text(yaml.safe_dump_all(objects), encoding="utf-8")
    summary, against = checked(kubeconform, location, files)
    assert against == []
    assert summary["valid"] == sum(len(objects) for objects in documents.values())
    assert summary["skipped"] == 0


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        ("Deployment", {"spec": {"replica": 2}}, "additional properties 'replica' not allowed"),
        ("Deployment", {"spec": {"replicas": "two"}}, "got string, want integer"),
        ("AvatarPool", {"spec": {"ports": {"bases": 1}}}, "additional properties 'bases' not allowed"),
        ("AvatarPool", {"spec": {"network": {"mode": "hostNetwork"}}}, "value must be one of"),
    ],
)
def test_a_mistake_is_found(
    kubeconform: str,
    documents: dict[str, list[Json]],
    custom: dict[tuple[str, str, str], Json],
    tmp_path: Path,
    kind: str,
    change: Json,
    words: str,
) -> None:
    location = schemas.write(tmp_path / "schemas", json.loads(FILES["v1.37"].read_text(encoding="utf-8")), custom)
    good = next(d for d in documents["values-everything"] if d["kind"] == kind)
    bad = {**good, "spec": {**good["spec"], **change["spec"]}}
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(bad), encoding="utf-8")
    summary, against = checked(kubeconform, location, [tmp_path / "bad.yaml"])
    assert summary["invalid"] == 1
    assert words in against[0]


def test_the_schemas_are_those_of_the_server(kubectl: RunKubectl, served: Json) -> None:
    """Of the version that it runs; an API server of another one is not what these files were made of."""
    version = json.loads(kubectl("version", "-o", "json", check=True).stdout)["serverVersion"]["gitVersion"]
    known = json.loads(FILES["v1.37"].read_text(encoding="utf-8"))
    if version != known["version"] and os.environ.get("AVATAR_TEST_KUBECONFIG"):
        pytest.skip(f"the server is {version}; the files are of {known['version']}")
    assert version == known["version"], "the cluster was moved on: add the version to scripts/kubernetes-schemas"
    assert served["kinds"] == known["kinds"]
    assert bare(served["definitions"]) == bare(known["definitions"])


def bare(node: Any) -> Any:
    """Without enumerations, which the published document does not have."""
    if isinstance(node, dict):
        return {key: bare(value) for key, value in node.items() if key != "enum" or not isinstance(value, list)}
    return node
