"""manifests/: a real API server takes each overlay; the single GPU box is the old manager's, setting for setting."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml

from tests.chart.conftest import Json, named
from tests.conftest import ROOT, MakeOperator, RunKubectl
from tests.support.gpus import Gpus
from tests.support.observer import Observer
from tests.support.placing import NAMES, placed
from tests.support.world import World, merged

pytestmark = pytest.mark.cluster
MANIFESTS = ROOT / "manifests"
OVERLAYS = sorted(path.parent.name for path in MANIFESTS.glob("overlays/*/kustomization.yaml"))
FOLDERS = ["base", "agent", "api", *(f"overlays/{name}" for name in OVERLAYS)]


def built(kubectl: RunKubectl, folder: str) -> list[Json]:
    """What kustomize makes of a folder."""
    done = kubectl("kustomize", str(MANIFESTS / folder))
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


@pytest.fixture(scope="module")
def place(kubectl: RunKubectl) -> Iterator[str]:
    """The namespace that the manifests name; other tests make and remove it, too."""
    name = "avatar-operator"
    phase = ("get", "namespace", name, "-o", "jsonpath={.status.phase}")
    if kubectl(*phase).stdout == "Terminating":
        kubectl("wait", "--for=delete", f"namespace/{name}", "--timeout=50s", check=True)
    had_it = kubectl(*phase).returncode == 0
    kubectl("apply", "-f", str(MANIFESTS / "base/namespace.yaml"), check=True)
    yield name
    if not had_it:
        kubectl("delete", "namespace", name, "--timeout=50s")


def test_the_overlays_are_there() -> None:
    assert OVERLAYS == ["cpu-demo", "gpu-fleet", "single-gpu-box"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_server_takes_it_strictly(kubectl: RunKubectl, place: str, folder: str) -> None:
    done = kubectl("apply", "--dry-run=server", "--validate=strict", "-k", str(MANIFESTS / folder))
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_brings_all_that_it_names(kubectl: RunKubectl, name: str) -> None:
    documents = built(kubectl, f"overlays/{name}")
    pools = named(documents, "AvatarPool")
    assert "default" in pools, "the pool of instances that name none"
    ranges = [(p["spec"]["ports"]["base"], p["spec"]["ports"]["count"]) for p in pools.values()]
    assert all(a + count <= b for (a, count), (b, _) in zip(sorted(ranges), sorted(ranges)[1:], strict=False))
    claims = {
        v["persistentVolumeClaim"]["claimName"] for p in pools.values() for v in p["spec"]["runtime"].get("volumes", ())
    }
    claims |= {
        a["spec"]["data"]["pvc"]["claimName"] for a in named(documents, "Avatar").values() if "data" in a["spec"]
    }
    assert claims == set(named(documents, "PersistentVolumeClaim"))
    blind = {p["spec"]["gpu"]["mode"] for p in pools.values()} & {"VisibleDevices", "HAMi"}
    assert bool(named(documents, "DaemonSet")) == bool(blind), "the agent, where placement needs it"
    for namespaced in documents:
        if "namespace" in namespaced["metadata"]:
            assert namespaced["metadata"]["namespace"] == "avatar-operator"


def test_the_fleets_api_may_read_the_relays_secret_alone(kubectl: RunKubectl) -> None:
    documents = built(kubectl, "overlays/gpu-fleet")
    roles = [*named(documents, "Role").values(), *named(documents, "ClusterRole").values()]
    secrets = [
        (role["metadata"]["name"], rule) for role in roles for rule in role["rules"] if "secrets" in rule["resources"]
    ]
    ((name, rule),) = secrets
    assert (name, rule["verbs"], rule["resourceNames"]) == ("avatar-operator-api", ["get"], ["turn"])
    refs = {pool["spec"]["network"]["turnSecretRef"]["name"] for pool in named(documents, "AvatarPool").values()}
    assert refs == {"turn"}


# ---- the old box ----------------------------------------------------------------------


def test_the_box_has_the_old_managers_settings(kubectl: RunKubectl) -> None:
    """config.py and the README of the old manager, one by one."""
    documents = built(kubectl, "overlays/single-gpu-box")
    spec = named(documents, "AvatarPool")["default"]["spec"]
    assert spec["ports"] == {"base": 8615, "count": 5}
    assert spec["maxInstances"] == 5
    assert spec["idle"] == {"timeoutSeconds": 1800, "action": "Delete"}
    assert (spec["gpu"]["primary"], spec["gpu"]["backup"]) == ({"indices": [1]}, {"indices": [0]})
    assert (spec["gpu"]["minFreeMiB"], spec["gpu"]["policy"]) == (11000, "PrimaryFirst")
    assert spec["network"] == {"mode": "HostNetwork"}
    assert spec["tts"] == {"engine": "edgetts"}
    engines = {name: engine["spec"]["port"] for name, engine in named(documents, "TTSEngine").items()}
    assert engines == {"edgetts": 5002, "tacotron": 5005, "cosyvoice": 5006, "sovits": 5007}
    (container,) = named(documents, "Deployment")["avatar-operator-api"]["spec"]["template"]["spec"]["containers"]
    assert {"name": "api", "containerPort": 8607, "hostPort": 8607} in container["ports"]
    assert named(documents, "DaemonSet"), "it reads what is free"
    sample = yaml.safe_load((MANIFESTS / "samples/avatarpool-gpu-box.yaml").read_text(encoding="utf-8"))
    assert spec == sample["spec"], "the sample is the same pool"


@pytest.fixture
async def gpus(world: World) -> object:
    """GPU nodes of this test's own."""
    async with Gpus.playing(world.api, world.namespace) as found:
        yield found


async def test_the_box_places_as_the_old_manager_said_it_would(
    world: World, gpus: Gpus, operator_factory: MakeOperator, kubectl: RunKubectl
) -> None:
    """Two GPUs of 24 GiB: GPU 1 takes four avatars, then has less than 11000 MiB free; GPU 0 takes the fifth."""
    node = await gpus.node()
    spec = named(built(kubectl, "overlays/single-gpu-box"), "AvatarPool")["default"]["spec"]
    # Where the pods run is the test's; what decides is the overlay's. Fake nodes have no volumes and one network.
    mine = gpus.pool()
    spec["gpu"] = merged(mine["gpu"], spec["gpu"])
    spec["gpu"].pop("runtimeClassName")
    spec["runtime"] = mine.get("runtime", {})
    spec["network"] = {"mode": "Pod"}
    spec["idle"]["activitySource"] = "Connections"
    await world.pool(**spec)
    await world.avatar(*NAMES[:7])
    await operator_factory().start()
    async with Observer.watching(world.api, world.namespace, gpus.world, min_free=11000) as seen:
        places = [await placed(world, name) for name in NAMES[:5]]
        assert [place["index"] for place in places] == [1, 1, 1, 1, 0]
        assert {place["node"] for place in places} == {node.name}
        ports = sorted([(await world.status(name))["port"] for name in NAMES[:5]])
        assert ports == [8615, 8616, 8617, 8618, 8619]
        await world.instance(NAMES[5], NAMES[5])
        await world.phase(NAMES[5], "Pending", reason="PoolFull")
        await world.delete(NAMES[0])
        status = await world.phase(NAMES[5], "Running")
        assert status["port"] in ports
    seen.assert_kept()
