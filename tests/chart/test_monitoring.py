"""Alerts, dashboard and metrics reference: each name in them is one that the code tells, and Prometheus takes it."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.conftest import Helm, Json, Render, named
from tests.conftest import ROOT, RunKubectl

FILES = ROOT / "charts/avatar-operator/files"
ALERTS = yaml.safe_load((FILES / "alerts.yaml").read_text(encoding="utf-8"))
RULES: list[Json] = [rule for group in ALERTS["groups"] for rule in group["rules"]]
TESTS = Path(__file__).with_name("alerts.test.yaml")
DASHBOARD: Json = json.loads((FILES / "dashboard.json").read_text(encoding="utf-8"))
METRIC = re.compile(r"\bavatar_[a-z_]+[a-z]\b")


def script(name: str, *args: str) -> subprocess.CompletedProcess[str]:
    """A script of the repository, run by this Python."""
    command = [sys.executable, str(ROOT / "scripts" / name), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def names_in_the_code() -> set[str]:
    done = script("metrics-reference", "--names")
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def queries() -> Iterator[tuple[str, str]]:
    """Where, and the expression: of all alerts, panels and variables."""
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["definition"]


def test_every_metric_that_is_asked_for_is_told() -> None:
    told = names_in_the_code()
    asked = {(where, name) for where, expr in queries() for name in METRIC.findall(expr)}
    assert len({name for _, name in asked}) > 40
    assert not {(where, name) for where, name in asked if name not in told}


def test_the_generated_files_are_up_to_date() -> None:
    for name in ("metrics-reference", "dashboard", "chart-readme", "chart-schema"):
        done = script(name, "--check")
        assert done.returncode == 0, done.stderr


# ---- alerts ---------------------------------------------------------------------------


def test_prometheus_takes_the_alerts_and_they_do_as_their_tests_say(promtool: str, tmp_path: Path) -> None:
    checked = subprocess.run(
        [promtool, "check", "rules", str(FILES / "alerts.yaml")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    bare = {"groups": [{**g, "rules": [without_words(r) for r in g["rules"]]} for g in ALERTS["groups"]]}
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump(bare))
    (tmp_path / "test.yaml").write_text(TESTS.read_text())
    done = subprocess.run(
        [promtool, "test", "rules", "test.yaml"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout + done.stderr


def without_words(rule: Json) -> Json:
    return {key: value for key, value in rule.items() if key != "annotations"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_alert_is_tested_both_ways_and_says_what_to_do(rule: Json) -> None:
    cases = [case for test in yaml.safe_load(TESTS.read_text())["tests"] for case in test["alert_rule_test"]]
    mine = [case["exp_alerts"] for case in cases if case["alertname"] == rule["alert"]]
    assert [] in mine, "nothing shows that it keeps quiet"
    fired = [alert for case in mine for alert in case]
    assert fired, "nothing shows that it fires"
    assert rule["labels"]["severity"] in ("info", "warning", "critical")
    words = rule["annotations"]
    assert all(words[part].strip() for part in ("summary", "description"))
    used = set(re.findall(r"\$labels\.(\w+)", " ".join(words.values())))
    # A label that the expression drops would be an empty word in the sentence.
    kept = set(re.findall(r"\bby \(([^)]*)\)", rule["expr"])) or {""}
    if rule["expr"].startswith(("sum by", "max by", "histogram_quantile", "time() - max by")):
        assert used <= {label.strip() for group in kept for label in group.split(",")}, used


def test_the_old_managers_key_metrics_are_watched() -> None:
    """Its README's five: running of max, memory of each GPU, connections, shared avatars, port conflicts."""
    shown = {
        name for panel in DASHBOARD["panels"] for t in panel.get("targets", ()) for name in METRIC.findall(t["expr"])
    }
    assert {
        "avatar_operator_instances",
        "avatar_operator_instance_limit",
        "avatar_operator_gpu_memory_used_bytes",
        "avatar_operator_gpu_memory_total_bytes",
        "avatar_operator_connections",
        "avatar_operator_shared_avatars",
        "avatar_operator_port_conflicts_total",
    } <= shown


# ---- dashboard ------------------------------------------------------------------------


def test_prometheus_understands_every_panel(promtool: str, tmp_path: Path) -> None:
    """As rules, with Grafana's own variables filled in."""
    rules = [
        {"record": f"panel:{place}", "expr": expr.replace("$__rate_interval", "5m")}
        for place, expr in enumerate(t["expr"] for p in DASHBOARD["panels"] for t in p.get("targets", ()))
    ]
    assert len(rules) > 40
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(
        [promtool, "check", "rules", str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_panels_have_a_place_of_their_own() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert 0 <= place["x"] <= 24 - place["w"]
        rows = range(place["y"], place["y"] + place["h"])
        cells = set(itertools.product(range(place["x"], place["x"] + place["w"]), rows))
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["fieldConfig"]["defaults"]["unit"]
            refs = [target["refId"] for target in panel["targets"]]
            assert len(set(refs)) == len(refs)
    assert [panel["title"] for panel in panels if panel["type"] == "row"] == [
        "Avatars", "GPUs", "Cold start", "Speech", "REST API", "Operator",
    ]  # fmt: skip


def test_variables_of_the_panels_are_there() -> None:
    known = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]+)", json.dumps(DASHBOARD["panels"])))
    assert used <= known
    assert DASHBOARD["uid"] == "avatar-operator"


# ---- as objects -----------------------------------------------------------------------

ALL = (
    *("metrics.serviceMonitor.enabled=true", "metrics.prometheusRule.enabled=true", "metrics.dashboard.enabled=true"),
    *("agent.enabled=true", "api.enabled=true", "api.auth.jwt.secretName=jwt"),
)


@pytest.mark.cluster
def test_monitors_pick_services_and_ports_that_are_there(render: Render) -> None:
    documents = render(*ALL, "metrics.serviceMonitor.labels.release=prometheus")
    services = named(documents, "Service")
    picked = {}
    for name, monitor in named(documents, "ServiceMonitor").items():
        assert monitor["metadata"]["labels"]["release"] == "prometheus"
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        (endpoint,) = monitor["spec"]["endpoints"]
        assert endpoint["honorLabels"] is True, "or `namespace` would be the operator's"
        picked[name] = [
            service["metadata"]["name"]
            for service in services.values()
            if wanted <= service["metadata"]["labels"].items()
            and endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]
        ]
    name = "demo-avatar-operator"
    assert picked == {n: [f"{n}-metrics"] for n in (name, f"{name}-agent", f"{name}-api")}
    (pods,) = named(documents, "PodMonitor").values()
    (engines,) = pods["spec"]["selector"]["matchExpressions"]
    assert engines["values"] == ["cosyvoice", "edgetts", "sovits", "tacotron"]


@pytest.mark.cluster
def test_a_real_engine_is_not_asked_for_metrics_it_may_not_have(render: Render) -> None:
    (pods,) = named(render(*ALL, "tts.engines.cosyvoice.image=x:1"), "PodMonitor").values()
    assert "cosyvoice" not in pods["spec"]["selector"]["matchExpressions"][0]["values"]
    assert not named(render(*ALL, "tts.enabled=false"), "PodMonitor")


@pytest.mark.cluster
def test_the_rule_and_the_dashboard_are_the_files(render: Render) -> None:
    documents = render(*ALL)
    (rule,) = named(documents, "PrometheusRule").values()
    assert rule["spec"] == ALERTS
    config: dict[str, Any] = named(documents, "ConfigMap")["demo-avatar-operator-dashboard"]
    assert json.loads(config["data"]["avatar-operator.json"]) == DASHBOARD
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"


@pytest.mark.cluster
def test_prometheus_operator_and_gateway_api_take_them(
    helm: Helm, kubectl: RunKubectl, foreign_definitions: None
) -> None:
    """Against their own definitions, as published, strictly."""
    route = ("api.httpRoute.enabled=true", "api.httpRoute.parentRefs[0].name=web", "api.httpRoute.hostnames={a.test}")
    sets = [part for setting in (*ALL, *route) for part in ("--set", setting)]
    rendered = helm("template", "demo", "charts/avatar-operator", "--namespace", "default", *sets, check=True)
    done = kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", input=rendered.stdout)
    assert done.returncode == 0, done.stderr
    for kind in ("servicemonitor", "podmonitor", "prometheusrule", "httproute"):
        assert f"{kind}." in done.stdout
