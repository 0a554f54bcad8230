"""The Roles of the chart are what the code needs: nothing missing, nothing more.

Two witnesses: the code, whose calls of the API name their resource, and a run of the operator with the chart's
ServiceAccount, behind a proxy that notes every request.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from avatar_operator.controller.watched import watched
from avatar_operator.kube.client import Resource
from tests.chart.conftest import Json, Render
from tests.conftest import ROOT, Cluster, MakeOperator, RunKubectl
from tests.support.proxy import Proxy
from tests.support.world import POOL, World

pytestmark = pytest.mark.cluster
CODE = ROOT / "operator/avatar_operator"
READ = ("get", "list", "watch")
# Verb, group, resource with its subresource.
Right = tuple[str, str, str]
# What a method of KubeClient is to the API server; an apply makes what is not there.
VERBS = {
    "get": ("get",),
    "create": ("create",),
    "merge_patch": ("patch",),
    "json_patch": ("patch",),
    "patch_status": ("patch",),
    "apply": ("patch", "create"),
    "delete": ("delete",),
    "list_pages": ("list",),
    "pages": ("list",),
    "watch": ("watch",),
}


def in_the_code(*places: str) -> set[Right]:
    """The rights that calls in these files and folders need, as far as they name a resource."""
    files = [
        file for place in places for file in ([CODE / place] if place.endswith(".py") else (CODE / place).glob("*.py"))
    ]
    return {right for file in files for right in of_file(file)}


def of_file(file: Path) -> Iterator[Right]:
    module = importlib.import_module(".".join(file.relative_to(CODE.parent).with_suffix("").parts))
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
            continue
        first = node.args[0]
        resource = getattr(module, first.id, None) if isinstance(first, ast.Name) else None
        if node.func.attr in VERBS and isinstance(resource, Resource):
            below = "/status" if has_status(node) else ""
            verbs = ("patch",) if below else VERBS[node.func.attr]
            yield from ((verb, resource.group, f"{resource.plural}{below}") for verb in verbs)


def has_status(node: ast.Call) -> bool:
    if isinstance(node.func, ast.Attribute) and node.func.attr == "patch_status":
        return True
    given = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg == "subresource")]
    return any(isinstance(one, ast.Constant) and one.value == "status" for one in given)


def reads(*resources: Resource, verbs: tuple[str, ...] = READ) -> set[Right]:
    """Reading of whole collections."""
    return {(verb, resource.group, resource.plural) for resource in resources for verb in verbs}


def granted(documents: list[Json], account: str) -> set[Right]:
    """What the Roles and ClusterRoles that are bound to an account allow."""
    roles = {(d["kind"], d["metadata"]["name"]): d["rules"] for d in documents if d["kind"] in ("Role", "ClusterRole")}
    bound = [
        roles[d["roleRef"]["kind"], d["roleRef"]["name"]]
        for d in documents
        if d["kind"] in ("RoleBinding", "ClusterRoleBinding") and d["subjects"][0]["name"] == account
    ]
    assert bound
    return {
        (verb, group, resource)
        for rules in bound
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@pytest.mark.parametrize("scope", [(), ("watchNamespaces={demo}",)], ids=["cluster", "namespace"])
def test_the_operators_rights_are_what_its_code_calls(render: Render, scope: tuple[str, ...]) -> None:
    needed = in_the_code("controller", "kube/events.py")
    assert len(needed) > 20, "the code is read no more"
    needed |= reads(*(what.resource for what in watched(nodes=True)))
    # controller/tts_worker.py makes both by one call.
    needed |= {("create", "apps", "deployments"), ("create", "", "services")}
    assert granted(render(*scope), "demo-avatar-operator") == needed


def test_the_agents_rights_are_what_its_code_calls(render: Render) -> None:
    needed = in_the_code("agent", "kube/events.py")
    assert len(needed) >= 5
    assert granted(render("agent.enabled=true"), "demo-avatar-operator-agent") == needed


def test_the_apis_rights_are_what_its_code_calls(render: Render) -> None:
    """Its local copies are lists and watches by kube/reflector.py."""
    module = importlib.import_module("avatar_operator.kube.kinds")
    copies = reads(module.INSTANCES, module.AVATARS, module.POOLS, module.GPUNODES, verbs=("list", "watch"))
    needed = in_the_code("api") | copies
    assert len(needed) > 12
    values = ("api.enabled=true", "api.auth.mode=tokenreview", "api.turnSecretNames={turn}")
    console = reads(module.ENGINES, module.EVENTS, verbs=("list", "watch"))
    assert granted(render(*values), "demo-avatar-operator-api") == needed | console
    assert granted(render(*values, "api.console.enabled=false"), "demo-avatar-operator-api") == needed


async def test_an_operator_with_nothing_but_its_account_does_its_work(
    world: World, operator_factory: MakeOperator, render: Render, kubectl: RunKubectl, cluster: Cluster, tmp_path: Path
) -> None:
    """A life of an instance with a speech engine, under the Lease: no request that the Roles do not allow."""
    name = f"rbac-{world.namespace}"
    documents = render(
        f"fullnameOverride={name}", f"watchNamespaces={{{world.namespace}}}", "rbac.aggregate=false",
        namespace=world.namespace,
    )  # fmt: skip
    kinds = ("ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
    text = yaml.safe_dump_all([d for d in documents if d["kind"] in kinds])
    kubectl("apply", "-f", "-", input=text, check=True)
    try:
        token = kubectl("create", "token", name, "-n", world.namespace, check=True).stdout.strip()
        config = yaml.safe_load(cluster.kubeconfig.read_text())
        for user in config["users"]:
            user["user"] = {"token": token}
        mine = tmp_path / "account"
        mine.write_text(yaml.safe_dump(config))
        async with Proxy(mine) as proxy:
            options = (f"--lease={world.namespace}/{name}",)
            operator = operator_factory(kubeconfig=proxy.kubeconfig(tmp_path / "proxy"), options=options)
            await world.pool()
            await world.avatar("ada", tts={"engine": "edgetts"})
            place = {key: POOL["runtime"][key] for key in ("nodeSelector", "tolerations")}
            await world.engine("edgetts", image="tts.test/engine:1", protocol="edgetts", **place)
            await operator.start()
            await world.instance("ada")
            await world.phase("ada", "Running")
            await world.instance("second")
            await world.phase("second", "Shared")
            await world.delete("ada")
            await world.phase("second", "Running")
            await world.delete("second")
            await world.nothing_left()
            operator.stop()
            seen = {(c.verb, f"{c.resource}/{c.subresource}".rstrip("/")) for c in proxy.calls if c.resource}
            refused = [str(call) for call in proxy.calls if call.code == 403]
    finally:
        kubectl("delete", "-f", "-", "--wait=false", input=text)
    assert refused == []
    assert "forbidden" not in operator.tail(2000).lower()
    allowed = {(verb, resource) for verb, _, resource in granted(documents, name)}
    assert seen <= allowed, seen - allowed
    assert {("create", "pods"), ("create", "leases"), ("watch", "avatarinstances"), ("create", "events")} <= seen
