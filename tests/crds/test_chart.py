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


@pytest.mark.parametrize("agent", ["false", "true"])
def test_the_server_takes_what_the_chart_renders(helm: Run, server: Run, agent: str) -> None:
    args = ("--namespace", "avatar-operator", "--set", f"agent.enabled={agent}")
    rendered = helm("template", "demo", str(CHART), *args)
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
        ("tts.engines.edgetts.imgae=x", ["/tts/engines/edgetts", "imgae"]),
        ("tts.engines.mine.image=x", ["/tts/engines/mine", "protocol"]),
        ("log.level=loud", ["/log/level", "'info'"]),
        ("pools.default.idel.timeoutSeconds=3", ["/pools/default", "idel"]),
        ("pools.default.maxInstances=0", ["/pools/default/maxInstances"]),
        ("pools.Bad_Name.maxInstances=3", ["Bad_Name"]),
        ("watchNamespaces={Not A Namespace}", ["/watchNamespaces/0"]),
        ("metrics.service.port=70000", ["/metrics/service/port", "maximum"]),
        ("rbac.node=false", ["/rbac", "node"]),
        ("agent.enable=true", ["/agent", "enable"]),
        ("agent.thresholds.temperature=90", ["/agent/thresholds", "temperature"]),
        ("agent.thresholds.memoryPercent=101", ["/agent/thresholds/memoryPercent", "maximum"]),
        ("agent.periodSeconds=0", ["/agent/periodSeconds", "minimum"]),
        ("agent.extraEnv[0].value=x", ["/agent/extraEnv/0", "name"]),
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
    granted = grants(named(render(), "ClusterRole")["demo-avatar-operator"])
    assert not [entry for entry in granted if "*" in entry]
    assert not [entry for entry in granted if entry[1] in {"secrets", "nodes", "namespaces", "pods/exec"}]
    assert {verb for _, resource, verb in granted if resource == "avatarpools"} == {"get", "list", "watch"}


def grants(role: dict[str, Any]) -> set[tuple[str, str, str]]:
    """What a role allows, one verb each."""
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


READ = ("get", "list", "watch")
NODES = {
    *(("", "nodes", verb) for verb in READ),
    *(("avatars.virtualtutor.io", "gpunodes", verb) for verb in READ),
    ("avatars.virtualtutor.io", "gpunodes/status", "patch"),
    ("resource.k8s.io", "resourceslices", "list"),
}


@pytest.mark.parametrize("scope", [(), ("--set", "watchNamespaces={a,b}")], ids=["all", "two"])
def test_what_is_in_no_namespace_is_a_role_of_its_own(
    render: Callable[..., list[dict[str, Any]]], scope: tuple[str, ...]
) -> None:
    documents = render(*scope, "--set", "rbac.aggregate=false")
    role = named(documents, "ClusterRole")["demo-avatar-operator-nodes"]
    assert grants(role) == NODES
    (subject,) = named(documents, "ClusterRoleBinding")["demo-avatar-operator-nodes"]["subjects"]
    assert subject["name"] == "demo-avatar-operator"
    others = [r for r in documents if r["kind"] in ("Role", "ClusterRole") and r is not role]
    assert others
    for other in others:
        assert not grants(other) & NODES
        if other["metadata"]["name"].endswith("-lease"):
            continue
        claims = {verb for _, resource, verb in grants(other) if resource == "resourceclaims"}
        assert claims == {"get", "create"}
    assert "--no-nodes" not in operator_args(documents)


def test_the_lease_is_the_operators_alone(render: Callable[..., list[dict[str, Any]]]) -> None:
    documents = render()
    args = operator_args(documents)
    namespace, _, name = args[args.index("--lease") + 1].partition("/")
    role = named(documents, "Role")[f"{name}-lease"]
    assert role["metadata"]["namespace"] == namespace
    assert [rule.get("resourceNames") for rule in role["rules"]] == [None, [name]]
    assert {verb for _, _, verb in grants(role)} == {"create", "get", "patch"}
    assert named(documents, "Deployment")[name]["spec"]["replicas"] == 2
    assert named(documents, "PodDisruptionBudget")[name]["spec"]["maxUnavailable"] == 1


def operator_args(documents: list[dict[str, Any]]) -> list[str]:
    (container,) = named(documents, "Deployment")["demo-avatar-operator"]["spec"]["template"]["spec"]["containers"]
    args: list[str] = container["args"]
    return args


def test_namespaced_installation_grants_nothing_cluster_wide(render: Callable[..., list[dict[str, Any]]]) -> None:
    off = ("--set", "rbac.aggregate=false", "--set", "rbac.nodes=false")
    documents = render("--set", "watchNamespaces={a,b}", *off)
    roles = {(d["metadata"]["namespace"], d["metadata"]["name"]) for d in documents if d["kind"] == "Role"}
    name = "demo-avatar-operator"
    assert roles == {("a", name), ("b", name), ("demo", f"{name}-lease")}
    assert not named(documents, "ClusterRole")
    assert not named(documents, "ClusterRoleBinding")
    args = operator_args(documents)
    assert "--no-nodes" in args, "the operator must know that it may not read them"
    assert [args[index + 1] for index, arg in enumerate(args) if arg == "--namespace"] == ["a", "b"]


def test_who_may_edit_a_namespace_may_not_choose_what_runs(render: Callable[..., list[dict[str, Any]]]) -> None:
    role = named(render(), "ClusterRole")["demo-avatar-operator-edit"]
    resources = {resource for rule in role["rules"] for resource in rule["resources"]}
    assert resources == {"avatarinstances", "avatarinstances/status"}


def test_pods_meet_the_restricted_standard(render: Callable[..., list[dict[str, Any]]]) -> None:
    """All but the agent's shared process ids, which no level but privileged allows."""
    documents = render("--set", "agent.enabled=true")
    workloads = [document for document in documents if document["kind"] in ("Deployment", "DaemonSet")]
    assert len(workloads) == 2
    for workload in workloads:
        pod = workload["spec"]["template"]["spec"]
        assert not {"hostNetwork", "hostIPC"} & set(pod)
        assert "hostPID" not in pod or workload["kind"] == "DaemonSet"
        assert not [volume for volume in pod.get("volumes", []) if "hostPath" in volume]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert "limits" in container["resources"]


# ---- the agent ------------------------------------------------------------------------


AGENT = ("--set", "agent.enabled=true")


def agent_pod(documents: list[dict[str, Any]]) -> dict[str, Any]:
    pod: dict[str, Any] = named(documents, "DaemonSet")["demo-avatar-operator-agent"]["spec"]["template"]["spec"]
    return pod


def test_no_agent_unless_asked_for(render: Callable[..., list[dict[str, Any]]]) -> None:
    assert not [document for document in render() if document["metadata"]["name"].endswith(("-agent", "agent-metrics"))]


def test_agent_sees_gpus_and_the_nodes_processes(render: Callable[..., list[dict[str, Any]]]) -> None:
    pod = agent_pod(render(*AGENT))
    assert (pod["hostPID"], pod["runtimeClassName"]) == (True, "nvidia")
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    (container,) = pod["containers"]
    env = {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container["env"]}
    assert env == {
        "NODE_NAME": {"fieldRef": {"fieldPath": "spec.nodeName"}},
        "NVIDIA_VISIBLE_DEVICES": "all",
        "NVIDIA_DRIVER_CAPABILITIES": "utility",
    }
    assert container["args"][0] == "agent"
    assert not [arg for arg in container["args"] if not arg]
    assert (container["readinessProbe"]["httpGet"]["path"], container["livenessProbe"]["httpGet"]["path"]) == (
        "/readyz",
        "/healthz",
    )
    assert "runtimeClassName" not in agent_pod(render(*AGENT, "--set", "agent.runtimeClassName="))


@pytest.mark.parametrize("command", ["run", "agent"])
def test_programs_know_the_options_that_the_chart_gives(
    render: Callable[..., list[dict[str, Any]]], command: str
) -> None:
    documents = render(*AGENT, "--set", "rbac.nodes=false", "--set", "watchNamespaces={a}")
    args = operator_args(documents) if command == "run" else agent_pod(documents)["containers"][0]["args"]
    assert args[0] == command
    program = [sys.executable, "-m", "avatar_operator", command, "--help"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "operator"), "COLUMNS": "200", "NO_COLOR": "1"}
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    for arg in args:
        assert not arg.startswith("--") or arg in done.stdout, f"{command} has no {arg}:\n{done.stdout}"


def test_agent_takes_what_a_cluster_needs(render: Callable[..., list[dict[str, Any]]]) -> None:
    given = {
        "agent.nodeSelector.nvidia\\.com/gpu\\.present": '"true"',
        "agent.extraEnv[0].name": "PYTHONPATH",
        "agent.extraEnv[0].value": "/fake",
        "agent.extraVolumes[0].name": "fake",
        "agent.extraVolumes[0].configMap.name": "fake-nvml",
        "agent.extraVolumeMounts[0].name": "fake",
        "agent.extraVolumeMounts[0].mountPath": "/fake",
        "agent.extraArgs[0]": "--more",
        "agent.priorityClassName": "system-node-critical",
        "agent.securityContext.privileged": "true",
        "agent.periodSeconds": "3",
        "agent.thresholds.temperatureCelsius": "70",
    }
    pod = agent_pod(render(*AGENT, *(part for key, value in given.items() for part in ("--set", f"{key}={value}"))))
    (container,) = pod["containers"]
    assert pod["nodeSelector"] == {"nvidia.com/gpu.present": '"true"'}
    assert {"name": "PYTHONPATH", "value": "/fake"} in container["env"]
    assert {"name": "fake", "configMap": {"name": "fake-nvml"}} in pod["volumes"]
    assert {"name": "fake", "mountPath": "/fake"} in container["volumeMounts"]
    assert container["args"][-1] == "--more"
    assert pod["priorityClassName"] == "system-node-critical"
    assert container["securityContext"] == {"privileged": True}
    for option, value in (("--period-seconds", "3"), ("--temperature-celsius", "70")):
        assert container["args"][container["args"].index(option) + 1] == value


def test_agent_may_write_its_report_and_no_more(render: Callable[..., list[dict[str, Any]]]) -> None:
    documents = render(*AGENT, "--set", "watchNamespaces={a}", "--set", "rbac.aggregate=false")
    group = "avatars.virtualtutor.io"
    assert grants(named(documents, "ClusterRole")["demo-avatar-operator-agent"]) == {
        *((group, "gpunodes", verb) for verb in ("get", "create", "patch")),
        (group, "gpunodes/status", "patch"),
        ("", "nodes", "get"),
        ("", "events", "create"),
    }
    (subject,) = named(documents, "ClusterRoleBinding")["demo-avatar-operator-agent"]["subjects"]
    assert subject["name"] == agent_pod(documents)["serviceAccountName"] == "demo-avatar-operator-agent"


def test_services_do_not_take_each_others_pods(render: Callable[..., list[dict[str, Any]]]) -> None:
    documents = render(*AGENT)
    workloads = [document for document in documents if document["kind"] in ("Deployment", "DaemonSet")]
    labels = {w["metadata"]["name"]: w["spec"]["template"]["metadata"]["labels"].items() for w in workloads}
    behind = {
        name: [pod for pod, has in labels.items() if service["spec"]["selector"].items() <= has]
        for name, service in named(documents, "Service").items()
    }
    assert behind == {
        "demo-avatar-operator-metrics": ["demo-avatar-operator"],
        "demo-avatar-operator-agent-metrics": ["demo-avatar-operator-agent"],
    }
    assert named(documents, "Service")["demo-avatar-operator-agent-metrics"]["spec"]["clusterIP"] == "None"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["pools.default.gpu.mode=VisibleDevices"], ["WARNING: pool default", "agent.enabled is\nfalse"]),
        (["pools.a.gpu.mode=HAMi", "pools.b.gpu.mode=DRA"], ["WARNING: pool a is", "--set agent.enabled=true"]),
        (
            ["pools.a.gpu.mode=HAMi", "agent.enabled=true", "rbac.nodes=false"],
            ["WARNING: pool a is", "rbac.nodes is\nfalse"],
        ),
        (["pools.default.gpu.mode=VisibleDevices", "agent.enabled=true"], []),
        (["pools.default.gpu.mode=DevicePlugin"], []),
        ([], []),
    ],
)
def test_notes_warn_of_pools_that_see_no_memory(helm: Run, settings: list[str], words: list[str]) -> None:
    given = [part for setting in settings for part in ("--set", setting)]
    done = helm("install", "demo", str(CHART), "--dry-run=client", *given)
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("\nNOTES:")[2]
    assert ("WARNING" in notes) == bool(words), notes
    for word in words:
        assert word in notes, notes
    assert ("kubectl get gpun" in notes) == ("agent.enabled=true" in settings), notes


def test_nothing_needs_the_operator_to_die(render: Callable[..., list[dict[str, Any]]]) -> None:
    for document in render(*AGENT):
        assert "finalizers" not in document["metadata"]
        # `helm test` is asked for by people; nothing else waits for a hook.
        assert document["metadata"].get("annotations", {}).get("helm.sh/hook", "test") == "test"


def test_pools_take_their_image_from_the_chart(render: Callable[..., list[dict[str, Any]]]) -> None:
    pools = named(render("--set", "pools.second.ports.base=8700", "--set", "runtime.image.tag=v7"), "AvatarPool")
    assert set(pools) == {"default", "second"}
    assert pools["second"]["spec"]["runtime"]["image"] == "localhost/avatar-operator/runtime:v7"
    own = named(render("--set", "pools.default.runtime.image=x:1"), "AvatarPool")
    assert own["default"]["spec"]["runtime"]["image"] == "x:1"
    assert "tts" not in own["default"]["spec"]
    assert not named(render("--set", "pools.default=null"), "AvatarPool")


def test_the_four_engines_of_the_old_manager(render: Callable[..., list[dict[str, Any]]]) -> None:
    engines = {name: e["spec"] for name, e in named(render("--set", "tts.image.tag=v7"), "TTSEngine").items()}
    assert {name: spec["port"] for name, spec in engines.items()} == {
        "edgetts": 5002, "tacotron": 5005, "cosyvoice": 5006, "sovits": 5007,
    }  # fmt: skip
    for name, spec in engines.items():
        assert spec["image"] == "localhost/avatar-operator/tts:v7"
        assert spec["args"] == ["--port", str(spec["port"]), "--model_name", name]
        assert spec["protocol"] in spec["speaks"]
        assert spec.get("fallback", "edgetts") == "edgetts"
    assert not named(render("--set", "tts.enabled=false"), "TTSEngine")
    assert set(named(render("--set", "tts.engines.sovits=null"), "TTSEngine")) == {"edgetts", "tacotron", "cosyvoice"}


def test_a_real_engine_is_one_value(render: Callable[..., list[dict[str, Any]]]) -> None:
    """What the reference server is started with is nothing to another."""
    found = named(render("--set", "tts.engines.cosyvoice.image=example.org/cosyvoice:2"), "TTSEngine")["cosyvoice"]
    assert found["spec"] == {
        "image": "example.org/cosyvoice:2",
        "imagePullSecrets": [],
        "healthPath": "",
        "protocol": "cosyvoice",
        "port": 5006,
        "aliases": ["CosyVoice", "cosyvoice2"],
        "fallback": "edgetts",
    }


def test_manifests_are_what_the_chart_says(search_path: str) -> None:
    command = [str(ROOT / "manifests" / "render"), "--check"]
    environment = {**os.environ, "PATH": search_path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_server_takes_the_kustomization_and_the_samples(server: Run) -> None:
    for folder in ("base", "agent", "api"):
        base = server("apply", "--dry-run=server", "--validate=strict", "-k", str(ROOT / "manifests" / folder))
        assert base.returncode == 0, base.stderr
    samples = server("apply", "--dry-run=server", "--validate=strict", "-f", str(SAMPLES))
    assert samples.returncode == 0, samples.stderr


def test_there_is_a_sample_for_each_gpu_mode() -> None:
    objects = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(SAMPLES.glob("avatarpool-*.yaml"))]
    schema = yaml.safe_load((ROOT / "crds" / "avatarpools.yaml").read_text(encoding="utf-8"))
    spec = schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    modes = spec["properties"]["gpu"]["properties"]["mode"]["enum"]
    assert {item["spec"]["gpu"]["mode"] for item in objects} == set(modes)


def test_samples_fit_each_other() -> None:
    objects = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(SAMPLES.glob("*.yaml"))]
    avatars = {item["spec"]["avatarName"] for item in objects if item["kind"] == "Avatar"}
    pools = {item["metadata"]["name"] for item in objects if item["kind"] == "AvatarPool"}
    instances = [item for item in objects if item["kind"] == "AvatarInstance"]
    assert len(instances) == 3
    for instance in instances:
        assert instance["spec"]["avatarName"] in avatars
        assert instance["spec"].get("poolRef", "default") in pools
    folders = {path.name for path in (ROOT / "runtime" / "data" / "avatars").iterdir()}
    assert avatars <= folders
