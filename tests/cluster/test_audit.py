"""`avatar-operator audit` names what somebody broke; an operator makes it whole and says so; then it is consistent."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT, Cluster, MakeOperator
from tests.support.api import Api, Json, until
from tests.support.operator import Operator, command
from tests.support.world import World

pytestmark = pytest.mark.cluster

AVATARS = [f"a{n}" for n in range(8)]
FIRST = 8615
RESYNC = ("--resync-seconds=1",)
GROUP_LABEL = "avatars.virtualtutor.io/group"
PORT_LABEL = "avatars.virtualtutor.io/port"


class Audit:
    """The command on one namespace."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self.kubeconfig = kubeconfig
        self.namespace = namespace

    async def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        """With these options besides the usual."""
        return await command("audit", f"--kubeconfig={self.kubeconfig}", f"--namespace={self.namespace}", *args)

    async def findings(self) -> dict[tuple[str, str], Json]:
        """By kind and object; the exit code says whether there are any."""
        done = await self.run("--output=json")
        assert done.returncode in (0, 1), done.stderr
        body = json.loads(done.stdout)
        assert body["consistent"] is (done.returncode == 0) is not body["findings"]
        return {(f["kind"], f"{f['object']['kind']}/{f['object']['name']}"): f for f in body["findings"]}


@pytest.fixture
def audit(cluster: Cluster, namespace: str) -> Audit:
    return Audit(cluster.kubeconfig, namespace)


@pytest.fixture
async def settled(world: World, operator_factory: MakeOperator, audit: Audit) -> World:
    """Eight avatars that run, the first of them shared; their operator has ended."""
    one = operator_factory()
    await one.start()
    await world.pool(ports={"base": FIRST, "count": 14})
    await world.avatar(*AVATARS)
    for name in AVATARS:
        await world.instance(name, name)
        await world.phase(name, "Running")
    await world.instance("sharer", AVATARS[0])
    await world.phase("sharer", "Shared")
    assert one.stop() == 0
    done = await audit.run()
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith("consistent: 9 instances, 8 pods, 8 claims, 1 pool, 0 engines")
    return world


async def _claim(world: World, name: str, **spec: Any) -> None:
    await world.api.patch("services", world.namespace, name, {"spec": spec})


async def _copy_of(world: World, name: str, port: int, group: str = "") -> None:
    """A pod like another one, on another port, perhaps of nobody."""
    found = await world.api.get("pods", world.namespace, name)
    assert found is not None
    labels = {**found["metadata"]["labels"], PORT_LABEL: str(port)}
    meta = {"name": f"avatar-{port}", "labels": {**labels, **({GROUP_LABEL: group} if group else {})}}
    if not group:
        meta["ownerReferences"] = found["metadata"]["ownerReferences"]
    spec = {key: value for key, value in found["spec"].items() if key not in ("nodeName", "serviceAccount")}
    await world.api.create("pods", world.namespace, {"metadata": meta, "spec": spec})


async def _service(world: World, port: int, group: str) -> None:
    labels = {
        "app.kubernetes.io/managed-by": "avatar-operator",
        "app.kubernetes.io/component": "avatar-runtime",
        "avatars.virtualtutor.io/pool": "default",
        GROUP_LABEL: group,
        PORT_LABEL: str(port),
    }
    body = {"metadata": {"name": f"avatar-{port}", "labels": labels}, "spec": {"ports": [{"port": port}]}}
    await world.api.create("services", world.namespace, body)


def _pod(number: int) -> str:
    return f"avatar-{FIRST + number}"


async def _break_everything(world: World) -> set[tuple[str, str]]:
    """Each avatar in another way; what the audit should say."""
    api, namespace = world.api, world.namespace
    long_ago = (datetime.now(UTC) - timedelta(minutes=5)).strftime("%Y-%m-%dT%H:%M:%SZ")
    nobody = "0123456789abcdef"
    await api.delete("services", namespace, _pod(0))
    await world.set_status("sharer", {"sharedWith": "nobody"})
    await _claim(world, _pod(1), selector={"stolen": "yes"})
    await world.set_status(AVATARS[2], {"port": FIRST + 9})
    await world.set_status(AVATARS[3], {"podName": "avatar-8699"})
    await world.set_status(AVATARS[4], {"podName": _pod(5), "port": FIRST + 5})
    session = {"id": "s1", "since": long_ago, "expires": long_ago, "ttlSeconds": 30}
    await world.set_status(AVATARS[5], {"connections": 1, "sessions": [session]})
    await api.delete("pods", namespace, _pod(6), {"gracePeriodSeconds": 0})
    await api.patch("pods", namespace, _pod(7), {"metadata": {"ownerReferences": None}})
    await _service(world, FIRST + 10, nobody)
    # A second pod for one avatar, and one for nobody, both with their claims.
    await _copy_of(world, _pod(1), FIRST + 11)
    twin = await api.get("pods", namespace, _pod(1))
    assert twin is not None
    await _service(world, FIRST + 11, twin["metadata"]["labels"][GROUP_LABEL])
    await _copy_of(world, _pod(1), FIRST + 12, nobody[::-1])
    await _service(world, FIRST + 12, nobody[::-1])
    return {
        ("PodWithoutClaim", f"Pod/{_pod(0)}"),
        ("SharedWithNobody", "AvatarInstance/sharer"),
        ("ServiceDiffers", f"Service/{_pod(1)}"),
        ("StatusPortWrong", f"AvatarInstance/{AVATARS[2]}"),
        ("StatusPodMissing", f"AvatarInstance/{AVATARS[3]}"),
        ("StatusPodForeign", f"AvatarInstance/{AVATARS[4]}"),
        ("LeaseOverdue", f"AvatarInstance/{AVATARS[5]}"),
        ("RunningWithoutPod", f"AvatarInstance/{AVATARS[6]}"),
        ("PodNotOwned", f"Pod/{_pod(7)}"),
        ("ClaimWithoutInstance", f"Service/{_pod(10)}"),
        ("TwoPodsForAvatar", f"Pod/{_pod(11)}"),
        # Its Service was made by hand, and lacks the selector.
        ("ServiceDiffers", f"Service/{_pod(11)}"),
        ("PodWithoutInstance", f"Pod/{_pod(12)}"),
    }


async def _metric(operator: Operator, name: str) -> dict[str, float]:
    """The samples of a metric by kind, without those that are 0."""
    found = {}
    for line in (await operator.page("/metrics")).splitlines():
        if line.startswith(f"{name}{{"):
            kind, value = line.split('kind="')[1].split('"')[0], float(line.rpartition(" ")[2])
            found |= {kind: value} if value else {}
    return found


async def test_everything_broken_is_named_then_repaired_and_said(
    settled: World, operator_factory: MakeOperator, audit: Audit
) -> None:
    world = settled
    pods = {p["metadata"]["name"]: p["metadata"]["uid"] for p in await world.pods()}
    expected = await _break_everything(world)
    found = await until("the objects being older than the grace", audit.findings, lambda f: len(f) >= len(expected), 30)
    assert found.keys() == expected
    table = await audit.run()
    assert table.returncode == 1
    for kind, about in expected:
        (line,) = [x for x in table.stdout.splitlines() if f" {kind} " in x and f" {about} " in x]
        assert line.split()[0] in ("Error", "Warning")
    assert f"{len(expected)} inconsistencies in 9 instances, 9 pods, 10 claims, 1 pool" in table.stdout

    one = operator_factory(options=RESYNC)
    await one.start()
    repaired = await until(
        "all of it being repaired",
        lambda: _metric(one, "avatar_operator_repairs_total"),
        lambda kinds: sum(kinds.values()) >= len(expected),
        30,
    )
    kinds = [kind for kind, _ in expected]
    assert repaired == {kind: kinds.count(kind) for kind in set(kinds)}
    assert await _metric(one, "avatar_operator_inconsistencies") == {}

    # One event for all, and one when they are gone; about the pool, as nothing else concerns all of them.
    (said,) = await until("the event", lambda: world.events("Inconsistent"), lambda events: events)
    assert said["type"] == "Warning"
    assert (said["involvedObject"]["kind"], said["involvedObject"]["name"]) == ("AvatarPool", "default")
    assert said["message"].startswith(f"{len(expected)} inconsistencies: ")
    (well,) = await until("the other event", lambda: world.events("Repaired"), lambda events: events)
    assert well["type"] == "Normal"
    assert "2 ServiceDiffers" in well["message"]

    await until("only what is needed being left", world.left, lambda names: len(names) == 16)
    assert one.stop() == 0
    assert await audit.findings() == {}
    # Nobody was thrown out for it: the pods that were whole are the same.
    after = {p["metadata"]["name"]: p["metadata"]["uid"] for p in await world.pods()}
    assert {n: uid for n, uid in pods.items() if n != _pod(6)}.items() <= after.items()


async def test_what_is_broken_under_an_operator_is_repaired(
    settled: World, operator_factory: MakeOperator, audit: Audit
) -> None:
    world, one = settled, operator_factory(options=RESYNC)
    await one.start()
    await _claim(world, _pod(0), selector={"stolen": "yes"}, ports=[{"port": 1}])

    async def service() -> Json:
        return await world.api.get("services", world.namespace, _pod(0)) or {}

    mended = await until("the Service leading to its pod", service, lambda s: "stolen" not in s["spec"]["selector"])
    assert mended["spec"]["selector"][PORT_LABEL] == str(FIRST)
    assert [p["port"] for p in mended["spec"]["ports"]] == [FIRST]
    assert await audit.findings() == {}


async def test_a_claim_with_an_address_is_led_back_and_keeps_it(settled: World, operator_factory: MakeOperator) -> None:
    """Older operators gave each claim a cluster IP; a Service that has one has it for good."""
    world, one = settled, operator_factory(options=RESYNC)

    async def service() -> Json:
        return await world.api.get("services", world.namespace, _pod(0)) or {}

    claim = await service()
    assert claim["spec"]["clusterIP"] == "None"
    await world.api.delete("services", world.namespace, _pod(0))
    meta = {key: claim["metadata"][key] for key in ("name", "labels", "annotations")}
    made = {"metadata": meta, "spec": {"selector": {"stolen": "yes"}, "ports": claim["spec"]["ports"]}}
    older = await world.api.create("services", world.namespace, made)
    assert older["spec"]["clusterIP"] != "None"
    await one.start()
    mended = await until("the Service leading to its pod", service, lambda s: "stolen" not in s["spec"]["selector"])
    assert mended["spec"]["selector"] == claim["spec"]["selector"]
    assert mended["spec"]["clusterIP"] == older["spec"]["clusterIP"]
    assert mended["metadata"]["uid"] == older["metadata"]["uid"]


async def test_a_claim_that_lost_the_label_by_which_it_is_watched(world: World, operator_factory: MakeOperator) -> None:
    one = operator_factory(options=RESYNC)
    await one.start()
    await world.pool()
    await world.avatar("ada")
    await world.instance("one")
    await world.phase("one", "Running")
    [before] = await world.services()
    taken = {"app.kubernetes.io/managed-by": "somebody"}
    await world.api.patch("services", world.namespace, _pod(0), {"metadata": {"labels": taken}})

    async def label() -> Json:
        found = await world.api.get("services", world.namespace, _pod(0))
        return (found or {}).get("metadata", {})

    after = await until("the label", label, lambda m: m["labels"]["app.kubernetes.io/managed-by"] == "avatar-operator")
    assert after["uid"] == before["metadata"]["uid"]


async def test_a_stranger_in_place_of_a_claim_is_waited_for(
    world: World, operator_factory: MakeOperator, audit: Audit
) -> None:
    one = operator_factory(options=RESYNC)
    await one.start()
    await world.pool()
    await world.avatar("ada")
    await world.instance("one")
    await world.phase("one", "Running")
    nothing = dict.fromkeys((await world.services())[0]["metadata"]["labels"])
    await world.api.patch("services", world.namespace, _pod(0), {"metadata": {"labels": nothing}})
    about = ("PodWithoutClaim", f"Pod/{_pod(0)}")
    await until("the finding", audit.findings, lambda found: about in found, 30)
    assert await one.metric("avatar_operator_reconcile_errors_total") < 20, "tried again and again without a pause"
    assert (await world.status("one"))["phase"] == "Running"
    await world.api.delete("services", world.namespace, _pod(0))
    await until("its own Service", world.services, lambda found: len(found) == 1, 60)
    assert await audit.findings() == {}


async def test_what_only_a_person_can_repair_is_said_once(
    world: World, operator_factory: MakeOperator, audit: Audit
) -> None:
    await world.pool()
    await world.pool("other", ports={"base": FIRST + 1})
    one = operator_factory(options=RESYNC)
    await one.start()
    about = ("PortRangesOverlap", "AvatarPool/other")
    await until("its event", lambda: world.events("Inconsistent"), lambda events: events)
    assert (await audit.findings()).keys() == {about}
    counted = await until(
        "the gauge", lambda: _metric(one, "avatar_operator_inconsistencies"), lambda kinds: kinds, timeout=5
    )
    assert counted == {"PortRangesOverlap": 1}

    async def once() -> bool:
        return len(await world.events("Inconsistent")) == 1 and not await world.events("Repaired")

    # Several periods.
    await world.stays("one event", once, 4)
    await world.api.patch("avatarpools", world.namespace, "other", {"spec": {"ports": {"base": FIRST + 100}}})
    await until("it being said to be repaired", lambda: world.events("Repaired"), lambda events: events)
    assert await audit.findings() == {}


async def test_an_instance_that_nobody_takes_notice_of(world: World, audit: Audit) -> None:
    await world.pool()
    await world.avatar("ada")
    await world.instance("one")
    # Not at once: whoever plans it may be about to.
    assert await audit.findings() == {}


async def test_an_object_that_nobody_can_read_is_named(world: World, audit: Audit) -> None:
    await world.pool()
    await world.instance("one")
    # The API server takes a year that Python does not have.
    await world.set_status("one", {"phase": "Failed", "startTime": "0000-01-01T00:00:00Z"})
    found = await audit.findings()
    assert found.keys() == {("Undecodable", "AvatarInstance/one")}
    assert "startTime" in found["Undecodable", "AvatarInstance/one"]["message"]


# ---- who may look -------------------------------------------------------------------------

Reader = Callable[[list[Json]], Awaitable[Path]]


@pytest.fixture
def reader(api: Api, namespace: str, cluster: Cluster, tmp_path: Path) -> Reader:
    """A kubeconfig of a ServiceAccount of the namespace that has these rules there."""

    async def make(rules: list[Json]) -> Path:
        rbac = "rbac.authorization.k8s.io/v1"
        await api.create("serviceaccounts", namespace, {"metadata": {"name": "reader"}})
        await api.create(f"{rbac}/roles", namespace, {"metadata": {"name": "reader"}, "rules": rules})
        binding = {
            "metadata": {"name": "reader"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
            "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": namespace}],
        }
        await api.create(f"{rbac}/rolebindings", namespace, binding)
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/reader/token"
        token = (await api.call("POST", path, {"spec": {}}))["status"]["token"]
        config = yaml.safe_load(cluster.kubeconfig.read_text(encoding="utf-8"))
        for user in config["users"]:
            user["user"] = {"token": token}
        made = tmp_path / "reader.kubeconfig"
        made.write_text(yaml.safe_dump(config), encoding="utf-8")
        return made

    return make


async def _view(api: Api, cluster: Cluster) -> list[Json]:
    """What somebody with the ClusterRole `view` may read where the chart is installed."""
    done = subprocess.run(
        ["helm", "template", "demo", str(ROOT / "charts" / "avatar-operator")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=cluster.env(),
    )
    ours = [d for d in yaml.safe_load_all(done.stdout) if d and d["metadata"]["name"].endswith("-view")]
    assert [d["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"] for d in ours] == ["true"]
    view = await api.call("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles/view")
    return [*view["rules"], *ours[0]["rules"]]


async def test_the_rights_of_view_suffice(
    world: World, api: Api, cluster: Cluster, reader: Reader, namespace: str
) -> None:
    await world.pool()
    by = Audit(await reader(await _view(api, cluster)), namespace)
    done = await by.run()
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("consistent: 0 instances, 0 pods, 0 claims, 1 pool")
    # A Role gives nothing that is cluster-scoped: said, and gone on without.
    assert "skipped, as you may not read it: gpunodes" in done.stderr
    everywhere = await command("audit", f"--kubeconfig={by.kubeconfig}")
    assert everywhere.returncode == 2
    assert "--namespace NAME" in everywhere.stderr


async def test_without_rights_it_says_what_is_missing(reader: Reader, namespace: str) -> None:
    done = await Audit(await reader([]), namespace).run()
    assert done.returncode == 2
    assert "cannot look: 403 Forbidden" in done.stderr
    assert "avatarpools" in done.stderr
    assert not done.stdout
