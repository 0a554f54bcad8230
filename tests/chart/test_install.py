"""The chart on a real API server: Pod Security, and a release's whole life. Its pods run on fake nodes."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import time
from collections.abc import Iterator

import pytest
import yaml

from avatar_operator.domain import objects, tts_objects
from avatar_operator.domain.resources import Network
from avatar_operator.domain.settings import resolve
from tests.chart.conftest import CHART, Helm, Json, Render, named
from tests.conftest import ROOT, Cluster, RunKubectl
from tests.unit.builders import avatar, instance, pool
from tests.unit.tts_builders import engine

pytestmark = pytest.mark.cluster
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"
API = ("api.enabled=true", "api.auth.jwt.secretName=jwt")


@pytest.fixture
def restricted(kubectl: RunKubectl) -> Iterator[str]:
    """A namespace of the level restricted."""
    name = f"chart-{secrets.token_hex(4)}"
    kubectl("create", "namespace", name, check=True)
    kubectl("label", "namespace", name, RESTRICTED, check=True)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


# ---- Pod Security ---------------------------------------------------------------------


def admitted(kubectl: RunKubectl, namespace: str, spec: Json) -> str:
    """What Pod Security has against a pod; "" when it lets it in. Its account need not be there."""
    spec = {key: value for key, value in spec.items() if key not in ("serviceAccountName", "runtimeClassName")}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "try"}, "spec": spec}
    done = kubectl("-n", namespace, "create", "--dry-run=server", "-f", "-", input=json.dumps(pod))
    assert done.returncode == 0 or "violates PodSecurity" in done.stderr, done.stderr
    return "" if done.returncode == 0 else done.stderr


def test_operator_api_and_test_are_restricted_and_the_agent_is_the_exception(
    render: Render, kubectl: RunKubectl, restricted: str
) -> None:
    documents = render(*API, "agent.enabled=true")
    for workload in named(documents, "Deployment").values():
        assert admitted(kubectl, restricted, workload["spec"]["template"]["spec"]) == ""
    (test,) = named(documents, "Pod").values()
    assert admitted(kubectl, restricted, test["spec"]) == ""
    (agent,) = named(documents, "DaemonSet").values()
    refused = admitted(kubectl, restricted, agent["spec"]["template"]["spec"])
    assert "host namespaces (hostPID=true)" in refused
    assert refused.count("violates") == 1
    assert "restricted volume types" not in refused, "the node's processes are all that it shares"


@pytest.mark.parametrize(
    ("mode", "exception"),
    [("Pod", ""), ("HostNetwork", "host namespaces (hostNetwork=true)"), ("HostPort", "hostPort")],
)
def test_instances_are_restricted_but_for_the_nodes_network(
    kubectl: RunKubectl, restricted: str, mode: str, exception: str
) -> None:
    """As the operator makes them for a pool that says nothing of security."""
    server, kind, drawn = instance(), pool(network=Network(mode=mode)), avatar()
    body = objects.pod(kind, [server], resolve(server, kind, drawn), "g", 8615)
    refused = admitted(kubectl, restricted, body["spec"])
    assert (exception in refused) if exception else (refused == "")


def test_speech_engines_are_restricted(kubectl: RunKubectl, restricted: str) -> None:
    deployment = tts_objects.deployment(engine("edgetts"), 1)
    assert admitted(kubectl, restricted, deployment["spec"]["template"]["spec"]) == ""


# ---- a release ------------------------------------------------------------------------

VALUES = """
nodeSelector: {type: kwok}
tolerations: [{key: kwok.x-k8s.io/node, operator: Exists}]
sampleAvatars: {enabled: true}
pools: {default: {network: {mode: Pod}}}
networkPolicies: {enabled: true}
admission:
  backends: {enabled: true, groups: [backends]}
  deleteProtection: {enabled: true}
api: {enabled: true, auth: {jwt: {secretName: jwt}}}
"""


def test_a_release_comes_changes_goes_back_and_goes(
    helm: Helm, kubectl: RunKubectl, restricted: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """In a namespace of the level restricted: ReplicaSets, too, get their pods in."""
    values = tmp_path_factory.mktemp("values") / "values.yaml"
    values.write_text(f"{VALUES}\nwatchNamespaces: [{restricted}]\n")
    name = f"demo-{restricted}"
    place = ("--namespace", restricted, "--wait", "--timeout", "90s")
    common = ("--values", str(values), "--set", f"fullnameOverride={name}")
    kubectl("-n", restricted, "create", "secret", "generic", "jwt", f"--from-literal=secret={'x' * 40}", check=True)

    def running() -> Json:
        done = kubectl("-n", restricted, "get", "deployment", name, "-o", "json", check=True)
        found: Json = json.loads(done.stdout)
        return found

    def left() -> list[str]:
        kinds = (
            "deployment,service,serviceaccount,role,rolebinding,poddisruptionbudget,networkpolicy,avatarpool,"
            "avatar.avatars.virtualtutor.io,ttsengine,clusterrole,clusterrolebinding,validatingadmissionpolicy,"
            "validatingadmissionpolicybinding"
        )
        selector = f"app.kubernetes.io/instance={restricted}"
        done = kubectl("-n", restricted, "get", kinds, "-l", selector, "-o", "name", check=True)
        return done.stdout.split()

    try:
        helm("install", restricted, str(CHART), *place, *common, check=True)
        assert running()["status"]["readyReplicas"] == 2
        assert len(left()) > 20
        more = ("--set", "replicas=3", "--set", "commonLabels.team=avatars")
        helm("upgrade", restricted, str(CHART), *place, *common, *more, check=True)
        assert running()["status"]["readyReplicas"] == 3
        helm("rollback", restricted, "1", *place, check=True)
        deployment = running()
        assert deployment["spec"]["replicas"] == 2
        assert "team" not in deployment["metadata"]["labels"]

        # Somebody talks to an avatar when the release is taken away.
        used = {
            "apiVersion": "avatars.virtualtutor.io/v1alpha1",
            "kind": "AvatarInstance",
            "metadata": {"name": "ada"},
            "spec": {"avatarName": "ada"},
        }
        kubectl("-n", restricted, "create", "-f", "-", input=json.dumps(used), check=True)
        count = ("--subresource=status", "--type=merge", "-p", '{"status":{"connections":2}}')
        kubectl("-n", restricted, "patch", "avi", "ada", *count, check=True)
        refused = kubectl("-n", restricted, "delete", "avi", "ada", "--wait=false")
        assert "is in use" in refused.stderr
    finally:
        gone = helm("uninstall", restricted, *place)
    assert gone.returncode == 0, gone.stderr
    assert left() == []
    assert kubectl("-n", restricted, "get", "avi", "ada").returncode == 0, "people's instances stay"
    assert kubectl("get", "crd", "avatarinstances.avatars.virtualtutor.io").returncode == 0
    # The API server follows the policies a moment behind.
    deadline = time.monotonic() + 20
    while (done := kubectl("-n", restricted, "delete", "avi", "ada", "--timeout=20s")).returncode:
        assert time.monotonic() < deadline, f"the policy has not gone with the release: {done.stderr}"
        time.sleep(0.5)


def test_old_definitions_are_told_before_anything_is_installed(
    helm: Helm, kubectl: RunKubectl, restricted: str
) -> None:
    """As `helm upgrade` with a newer chart would find them; the command in the message cures it."""
    crd = "avatars.avatars.virtualtutor.io"
    path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/description"
    older = json.dumps([{"op": "replace", "path": path, "value": "of an older chart"}])
    kubectl("patch", "crd", crd, "--type=json", "-p", older, check=True)
    install = ("install", "old", str(CHART), "--namespace", restricted, "--dry-run=server")
    try:
        done = helm(*install)
        assert done.returncode != 0
        assert f"the resource definition {crd} in the cluster is not that of this chart" in done.stderr
        assert "helm show crds CHART | kubectl apply --server-side --force-conflicts -f -" in done.stderr
        assert helm(*install, "--set", "crds.check=false").returncode == 0
        shown = helm("show", "crds", str(CHART), check=True)
        kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=shown.stdout, check=True)
        done = helm(*install)
        assert done.returncode == 0, done.stderr
    finally:
        kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"), check=True)


def test_the_packaged_chart_has_its_definitions_and_files(helm: Helm, tmp_path_factory: pytest.TempPathFactory) -> None:
    """crds/ is a link in the tree; in the archive it must be files, and alerts and dashboard beside them."""
    folder = tmp_path_factory.mktemp("package")
    helm("package", str(CHART), "--destination", str(folder), check=True)
    (archive,) = folder.glob("avatar-operator-*.tgz")
    shown = helm("show", "crds", str(archive), check=True)
    definitions = [d for d in yaml.safe_load_all(shown.stdout) if d]
    assert len(definitions) == 5
    both = ("--set", "metrics.prometheusRule.enabled=true", "--set", "metrics.dashboard.enabled=true")
    rendered = helm("template", "demo", str(archive), *both, check=True)
    kinds = {d["kind"] for d in yaml.safe_load_all(rendered.stdout) if d}
    assert {"PrometheusRule", "ConfigMap"} <= kinds


def test_the_chart_of_a_release_names_the_images_of_the_release(
    helm: Helm, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("release")
    command = [ROOT / "scripts/package-chart", "--version", "1.2.3", "--images", "registry.test/o/n", "--to", folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=cluster.env())
    assert done.returncode == 0, done.stderr
    archive = str(folder / "avatar-operator-1.2.3.tgz")
    on = ("--set", "agent.enabled=true", "--set", "api.enabled=true", "--set", "api.auth.jwt.secretName=jwt")
    rendered = helm("template", "demo", archive, *on, check=True).stdout
    images = set(re.findall(r"^\s*(?:- )?image: \"?([^\s\"]+)", rendered, re.MULTILINE))
    assert images == {f"registry.test/o/n/{name}:1.2.3" for name in ("operator", "runtime", "tts")}
    assert yaml.safe_load(helm("show", "chart", archive, check=True).stdout)["appVersion"] == "1.2.3"
