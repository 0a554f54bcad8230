"""Fixtures of the end-to-end tests: a cluster of their own with the operator installed by helm.

The images must have been built (`images/build`, which `make test` does); without them the tests are skipped, in CI
they fail.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Cluster, RunKubectl, kubectl_of, no_cluster
from tests.support.api import Api, Json, until
from tests.support.world import World, merged

# Checkouts that are tested side by side on one machine need clusters and images of their own.
NAME = os.environ.get("AVATAR_TEST_E2E_CLUSTER", "e2e")
TAG = os.environ.get("AVATAR_TEST_TAG", "dev")
SYSTEM = "avatar-system"
RELEASE = "avatars"
RUNTIME_IMAGE = f"localhost/avatar-operator/runtime:{TAG}"
TTS_IMAGE = f"localhost/avatar-operator/tts:{TAG}"
# An engine that the chart keeps running, for tests that are not about engines.
TTS_URL = f"http://tts-edgetts.{SYSTEM}:5002"
TURN_SECRET = "turn"
TAGS = (
    "--set",
    f"image.tag={TAG},runtime.image.tag={TAG},tts.image.tag={TAG},tts.engines.edgetts.minReplicas=1",
    "--set",
    f"turn.enabled=true,turn.image.tag={TAG},turn.hostNetwork=false,turn.secretName={TURN_SECRET},turn.peers={{198.18.0.0/15}}",
)


def devcluster(*args: str, timeout: float = 280) -> str:
    """Output of a devcluster command for the end-to-end cluster."""
    done = subprocess.run(
        [sys.executable, "-m", "devcluster", "--name", NAME, *args],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode:
        no_cluster(f"`devcluster {args[0]}`: {done.stderr.strip()[-600:]}")
    return done.stdout


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """A cluster with a real kubelet, the images, and the chart. It is left up."""
    on_kind = os.environ.get("DEVCLUSTER_PROVIDER") == "kind"
    if os.environ.get("AVATAR_TEST_PROVIDER") == "control-plane" or (os.geteuid() != 0 and not on_kind):
        no_cluster("containers need root, or kind (DEVCLUSTER_PROVIDER=kind)")
    devcluster("up")
    built = subprocess.run(
        [ROOT / "images/build", "--tag", TAG, "operator", "runtime", "tts", "turn"],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    if built.returncode:
        no_cluster(f"images/build: {built.stderr.strip()[-600:]}")
    devcluster("load-image", *built.stdout.split())
    kubeconfig = Path(devcluster("kubeconfig").strip())
    facts = json.loads((kubeconfig.parent / "cluster.json").read_text())
    found = Cluster(kubeconfig, Path(devcluster("binaries").strip()), str(facts.get("address", "")))
    install(found)
    return found


@pytest.fixture(scope="session")
def kubectl(cluster: Cluster) -> RunKubectl:
    """kubectl with this cluster's kubeconfig: the one that other tests have made is for theirs."""
    return kubectl_of(cluster)


def install(cluster: Cluster) -> None:
    """The chart, with development images, watching all namespaces."""
    command = ["helm", "upgrade", "--install", RELEASE, str(ROOT / "charts/avatar-operator"), *TAGS]
    place = ["--namespace", SYSTEM, "--create-namespace", "--wait", "--timeout", "90s"]
    run(cluster, "kubectl", "apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
    secret = ("kubectl", "-n", SYSTEM, "create", "secret", "generic", TURN_SECRET)
    run(cluster, "kubectl", "create", "namespace", SYSTEM, check=False)
    run(cluster, *secret, f"--from-literal=secret={secrets.token_hex(16)}", check=False)
    run(cluster, *command, *place)
    # The tag of a development image stays when its content changes.
    run(cluster, "kubectl", "-n", SYSTEM, "rollout", "restart", "deployment")
    run(cluster, "kubectl", "-n", SYSTEM, "rollout", "status", "deployment", "--timeout=90s")
    ready = ("--for=jsonpath={.status.phase}=Ready", "--timeout=60s")
    run(cluster, "kubectl", "-n", SYSTEM, "wait", "ttsengine/edgetts", *ready)


def run(cluster: Cluster, *command: str, check: bool = True, timeout: float = 120) -> str:
    """Output of kubectl or helm."""
    done = subprocess.run(
        command, env=cluster.env(), capture_output=True, text=True, timeout=timeout, check=False, cwd=ROOT
    )
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def pool_spec(base_port: int, **over: Json | int) -> Json:
    """A pool of real pods; every test has ports of its own, because they share one node."""
    plain: Json = {
        "ports": {"base": base_port, "count": 3},
        "runtime": {"image": RUNTIME_IMAGE},
        "tts": {"url": TTS_URL},
        "termination": {"drainSeconds": 2},
    }
    return merged(plain, dict(over))


@pytest.fixture
def ports(request: pytest.FixtureRequest) -> int:
    """The first port of a range that no other test uses at the same time."""
    taken = request.config.stash.setdefault(_NEXT, [8700])
    taken[0] += 15
    return taken[0]


_NEXT = pytest.StashKey[list[int]]()


@pytest.fixture
async def real(world: World, ports: int) -> World:
    """The test's namespace with a pool `default` of real pods and the avatar ada."""
    await world.api.create(
        "avatarpools",
        world.namespace,
        {
            "apiVersion": "avatars.virtualtutor.io/v1alpha1",
            "kind": "AvatarPool",
            "metadata": {"name": "default"},
            "spec": pool_spec(ports),
        },
    )
    await world.avatar("ada")
    return world


async def leading_pod(api: Api, other_than: str = "") -> str:
    """Name of the operator's pod that acts, once all are ready; ``other_than`` was killed."""

    async def look() -> tuple[str, list[Json]]:
        name = f"{RELEASE}-avatar-operator"
        lease = await api.get("coordination.k8s.io/v1/leases", SYSTEM, name)
        holder = str((lease or {}).get("spec", {}).get("holderIdentity") or "")
        return holder, await api.list("pods", SYSTEM, "?labelSelector=app.kubernetes.io/component%3Doperator")

    def leads(seen: tuple[str, list[Json]]) -> str:
        holder, pods = seen
        names = [p["metadata"]["name"] for p in pods if pod_ready(p)]
        found = next((n for n in names if holder.startswith(f"{n}_") and n != other_than), "")
        return found if len(names) == len(pods) else ""

    return leads(await until("an operator leading", look, leads, timeout=60))


def pod_ready(pod: Json) -> bool:
    """Whether its condition Ready is True."""
    conditions = pod["status"].get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


async def pause(seconds: float) -> None:
    """Let time pass where passing time is the test."""
    await asyncio.sleep(seconds)
