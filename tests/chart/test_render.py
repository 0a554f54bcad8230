"""What the chart makes of its values: replicas that keep apart, routes, labels; what it refuses by name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.chart.conftest import CHART, Helm, Json, Render, named

pytestmark = pytest.mark.cluster
API = ("api.enabled=true", "api.auth.jwt.secretName=jwt")
EVERYTHING = (
    *API,
    *("agent.enabled=true", "metrics.serviceMonitor.enabled=true", "metrics.prometheusRule.enabled=true"),
    *("metrics.dashboard.enabled=true", "networkPolicies.enabled=true", "networkPolicies.nodeCIDRs={10.0.0.0/8}"),
    *("admission.backends.enabled=true", "admission.backends.groups={backends}"),
    *("admission.deleteProtection.enabled=true", "api.autoscaling.enabled=true"),
    *("api.ingress.enabled=true", "api.ingress.hosts={a.test}"),
    *("api.httpRoute.enabled=true", "api.httpRoute.parentRefs[0].name=web"),
    *("turn.enabled=true", "turn.peers={10.42.0.0/16}", "turn.secretName=turn"),
)


def sections(schema: Json, node: Json, path: str = "") -> Iterator[tuple[str, Json]]:
    """Every object of the schema whose keys are known, with its path."""
    if "$ref" in node:
        node = schema["definitions"][node["$ref"].rpartition("/")[2]]
    if "properties" in node:
        yield path, node
        for name, child in node["properties"].items():
            yield from sections(schema, child, f"{path}/{name}")


SCHEMA: Json = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))


def test_no_level_of_the_values_takes_a_key_it_does_not_know() -> None:
    found = dict(sections(SCHEMA, SCHEMA))
    assert len(found) > 30
    assert {path for path, node in found.items() if node.get("additionalProperties") is not False} == set()


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("networkPolicies.instanceCIDR={10.0.0.0/8}", ["/networkPolicies", "instanceCIDR"]),
        ("networkPolicies.apiFrom[0].nameSpaceSelector.a=b", ["/networkPolicies/apiFrom/0", "nameSpaceSelector"]),
        ("admission.backends.user={a}", ["/admission/backends", "user"]),
        ("admission.deleteprotection.enabled=true", ["/admission", "deleteprotection"]),
        ("metrics.serviceMonitor.interval=often", ["/metrics/serviceMonitor/interval"]),
        ("api.autoscaling.minReplica=3", ["/api/autoscaling", "minReplica"]),
        ("api.ingress.hosts={https://a.test}", ["/api/ingress/hosts/0"]),
        ("api.httpRoute.parentRefs[0].nam=web", ["/api/httpRoute/parentRefs/0", "nam"]),
        ("api.tls.secretName=Not_A_Name", ["/api/tls/secretName"]),
        ("tolerations[0].keys=x", ["/tolerations/0", "keys"]),
        ("affinity.nodeAfinity.x=y", ["/affinity", "nodeAfinity"]),
        ("commonLabels.app\\.kubernetes\\.io/name=x", ["/commonLabels/app.kubernetes.io~1name"]),
        ("pools.default.gpu.primary.indexes={1}", ["/pools/default/gpu/primary", "indexes"]),
        ("pools.default.runtime.probes.periodSecond=1", ["/pools/default/runtime/probes", "periodSecond"]),
        ("pools.default.network.mode=hostNetwork", ["/pools/default/network/mode", "HostNetwork"]),
        ("tts.engines.edgetts.gpu.vramMib=1", ["/tts/engines/edgetts/gpu", "vramMib"]),
        ("turn.peers={10.42.0.0}", ["/turn/peers/0"]),
        ("turn.relayPort.min=1", ["/turn", "relayPort"]),
        ("tests.timeout=3", ["/tests", "timeout"]),
        ("crds.checks=false", ["/crds", "checks"]),
    ],
)
def test_a_typo_is_named_at_every_depth(helm: Helm, setting: str, words: list[str]) -> None:
    done = helm("template", "demo", str(CHART), "--set", setting)
    assert done.returncode != 0, f"{setting} was taken"
    for word in words:
        assert word in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ([*API, "api.ingress.enabled=true"], "api.ingress.hosts"),
        ([*API, "api.httpRoute.enabled=true"], "api.httpRoute.parentRefs"),
        ([*API, "api.autoscaling.enabled=true", "api.autoscaling.minReplicas=9"], "api.autoscaling.maxReplicas"),
        (["turn.enabled=true", "turn.secretName=turn"], "turn.peers"),
        (["turn.enabled=true", "turn.peers={10.42.0.0/16}"], "turn.secretName"),
        (["metrics.serviceMonitor.enabled=true", "metrics.service.enabled=false"], "needs metrics.service.enabled"),
    ],
)
def test_what_is_missing_is_named(helm: Helm, settings: list[str], words: str) -> None:
    done = helm("template", "demo", str(CHART), *(part for s in settings for part in ("--set", s)))
    assert done.returncode != 0
    assert words in done.stderr


def test_labels_of_yours_are_on_everything(render: Render) -> None:
    documents = render(*EVERYTHING, "commonLabels.team=avatars")
    assert len({document["kind"] for document in documents}) > 20
    assert [d["metadata"]["name"] for d in documents if d["metadata"]["labels"].get("team") != "avatars"] == []
    for workload in (*named(documents, "Deployment").values(), *named(documents, "DaemonSet").values()):
        assert "team" not in workload["spec"]["selector"]["matchLabels"], "a selector cannot change"


@pytest.mark.parametrize("name", ["demo-avatar-operator", "demo-avatar-operator-api"])
def test_two_of_a_kind_keep_apart_and_one_of_them_stays(render: Render, name: str) -> None:
    documents = render(*API)
    deployment, budget = named(documents, "Deployment")[name], named(documents, "PodDisruptionBudget")[name]
    assert deployment["spec"]["replicas"] == 2
    labels = deployment["spec"]["selector"]["matchLabels"]
    assert budget["spec"] == {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": labels},
    }
    spread = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert [rule["topologyKey"] for rule in spread] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    for rule in spread:
        assert rule["labelSelector"]["matchLabels"] == labels
        assert rule["whenUnsatisfiable"] == "ScheduleAnyway", "one node is enough"
    single = render(*API, "replicas=1", "api.replicas=1")
    assert not named(single, "PodDisruptionBudget"), "it would keep a node from being drained"


def test_each_shard_has_operators_and_a_lease_of_its_own(render: Render) -> None:
    documents = render("shards=2")
    deployments, budgets = named(documents, "Deployment"), named(documents, "PodDisruptionBudget")
    assert list(deployments) == list(budgets) == ["demo-avatar-operator-0", "demo-avatar-operator-1"]
    selectors = [deployment["spec"]["selector"]["matchLabels"] for deployment in deployments.values()]
    assert selectors[0] != selectors[1]
    for index, (name, deployment) in enumerate(deployments.items()):
        arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
        assert arguments[arguments.index("--shard") + 1] == f"{index}/2"
        lease = arguments[arguments.index("--lease") + 1].partition("/")[2]
        rules = next(role for at, role in named(documents, "Role").items() if at.endswith("-lease"))["rules"]
        assert lease == name
        assert lease in rules[1]["resourceNames"]
        assert deployment["spec"]["template"]["metadata"]["labels"].items() >= selectors[index].items()
        assert budgets[name]["spec"]["selector"]["matchLabels"] == selectors[index]
    service = named(documents, "Service")["demo-avatar-operator-metrics"]["spec"]["selector"]
    assert all(selector.items() >= service.items() for selector in selectors), "all of them are asked for metrics"
    assert "--shard" not in yaml.safe_dump(render("shards=1"))


def test_autoscaling_leaves_the_number_to_the_autoscaler(render: Render) -> None:
    documents = render(*API, "api.autoscaling.enabled=true", "api.replicas=1")
    name = "demo-avatar-operator-api"
    assert "replicas" not in named(documents, "Deployment")[name]["spec"]
    scaler = named(documents, "HorizontalPodAutoscaler")[name]["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"], scaler["scaleTargetRef"]["name"]) == (2, 6, name)
    assert (
        "cpu"
        in named(documents, "Deployment")[name]["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]
    )
    assert name in named(documents, "PodDisruptionBudget")


def test_the_api_goes_where_the_operator_goes_or_where_it_is_told(render: Render) -> None:
    def place(*settings: str) -> dict[str, Any]:
        spec = named(render(*API, *settings), "Deployment")["demo-avatar-operator-api"]["spec"]["template"]["spec"]
        return {key: spec.get(key) for key in ("nodeSelector", "priorityClassName")}

    both = ("nodeSelector.a=b", "priorityClassName=high")
    assert place(*both) == {"nodeSelector": {"a": "b"}, "priorityClassName": "high"}
    own = place(*both, "api.nodeSelector.c=d", "api.priorityClassName=higher")
    assert own == {"nodeSelector": {"c": "d"}, "priorityClassName": "higher"}


def test_pull_secrets_go_to_every_pod(render: Render) -> None:
    documents = render(*API, "agent.enabled=true", "imagePullSecrets[0].name=registry")
    secrets = [{"name": "registry"}]
    workloads = [d["spec"]["template"]["spec"] for d in documents if d["kind"] in ("Deployment", "DaemonSet")]
    workloads += [d["spec"] for d in documents if d["kind"] in ("Pod", "TTSEngine")]
    workloads += [d["spec"]["runtime"] for d in documents if d["kind"] == "AvatarPool"]
    assert len(workloads) == 9
    assert all(spec["imagePullSecrets"] == secrets for spec in workloads)


def test_the_route_and_the_ingress_lead_to_the_api(render: Render) -> None:
    documents = render(*EVERYTHING, "api.ingress.tlsSecretName=tls", "api.service.port=80")
    name = "demo-avatar-operator-api"
    ports = {port["name"]: port["port"] for port in named(documents, "Service")[name]["spec"]["ports"]}
    ingress = named(documents, "Ingress")[name]["spec"]
    assert ingress["tls"] == [{"hosts": ["a.test"], "secretName": "tls"}]
    backend = ingress["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert (backend["name"], backend["port"]["name"] in ports) == (name, True)
    (rule,) = named(documents, "HTTPRoute")[name]["spec"]["rules"]
    assert rule["backendRefs"] == [{"name": name, "port": ports["api"]}]


def test_the_relay_is_restricted_and_the_api_may_read_its_secret(render: Render) -> None:
    documents = render(*EVERYTHING)
    pod = named(documents, "Deployment")["demo-avatar-operator-turn"]["spec"]["template"]["spec"]
    assert (pod["hostNetwork"], pod["automountServiceAccountToken"]) == (True, False)
    (container,) = pod["containers"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert {"name": "TURN_PEERS", "value": "10.42.0.0/16"} in container["env"]
    assert pod["volumes"][0]["secret"]["secretName"] == "turn"
    rules = named(documents, "Role")["demo-avatar-operator-api"]["rules"]
    assert [rule["resourceNames"] for rule in rules if rule["resources"] == ["secrets"]] == [["turn"]]


def test_every_secret_is_one_that_is_there_already(render: Render) -> None:
    """The chart makes none: none stands in values, in the release's history, in git."""
    assert not named(render(*EVERYTHING), "Secret")
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    words = [name for path, _ in leaves(values) for name in path if "password" in name.lower()]
    assert words == []


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict) and value:
        for key, child in value.items():
            yield from leaves(child, (*path, key))
    else:
        yield path, value
