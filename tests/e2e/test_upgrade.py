"""A release of an older state of this repository is upgraded under somebody who is connected.

The older chart, definitions and operator are taken out of git's history. It comes last in its folder, as it takes the
tests' release away.
"""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from avatar_client.session import AvatarSession
from tests.conftest import ROOT, Cluster
from tests.e2e.conftest import RELEASE, SYSTEM, TAG, devcluster, install, leading_pod
from tests.e2e.conftest import run as command
from tests.support.api import Api, until
from tests.support.world import World

# The state before GPUs, speech engines, the REST API and a second operator: the oldest whose objects are still these.
BEFORE = "b18fbd3"
OLD_TAG = f"{TAG}-before"
PLACE = ("--namespace", SYSTEM, "--create-namespace", "--wait", "--timeout", "100s")
WITHOUT_SPEECH = ("--set", f"runtime.image.tag={TAG},tts.enabled=false")


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree of then."""
    folder = tmp_path_factory.mktemp("before")
    archive = folder / "tree.tar"
    done = subprocess.run(
        ["git", "archive", "--output", str(archive), BEFORE],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"git has no {BEFORE} here (a clone without history?): {done.stderr.strip()[-200:]}")
    with tarfile.open(archive) as tree:
        tree.extractall(folder / "tree", filter="data")
    return folder / "tree"


@pytest.fixture
async def older(cluster: Cluster, alone: None, before: Path) -> AsyncIterator[Path]:
    """The release of then, instead of the tests' own."""
    built = subprocess.run(
        [before / "images/build", "--tag", OLD_TAG, "operator"],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert built.returncode == 0, built.stderr[-2000:]
    devcluster("load-image", *built.stdout.split())
    command(cluster, "helm", "uninstall", RELEASE, "--namespace", SYSTEM, "--wait", "--timeout", "60s")
    command(cluster, "kubectl", "apply", "--server-side", "--force-conflicts", "-f", str(before / "crds"))
    try:
        chart = str(before / "charts/avatar-operator")
        command(cluster, "helm", "install", RELEASE, chart, *PLACE, "--set", f"image.tag={OLD_TAG}", *WITHOUT_SPEECH)
        yield before
    finally:
        command(cluster, "helm", "uninstall", RELEASE, "--namespace", SYSTEM, "--wait", "--timeout", "60s")
        install(cluster)


@pytest.mark.timeout(600)
async def test_an_upgrade_under_somebody_who_is_connected(older: Path, cluster: Cluster, real: World) -> None:
    await real.api.patch("avatarpools", real.namespace, "default", {"spec": {"tts": None}})
    await real.instance("ada")
    status = await real.phase("ada", "Running", timeout=90)
    (pod,) = await real.pods()
    async with AvatarSession.connect(status["webrtcUrl"], timeout=40, limit=20) as session:
        await real.connections("ada", 1)
        refused = command(cluster, "helm", "upgrade", RELEASE, "charts/avatar-operator", *PLACE, check=False)
        assert "is not that of this chart" in refused
        shown = subprocess.run(
            ["helm", "show", "crds", "charts/avatar-operator"],
            cwd=ROOT,
            env=cluster.env(),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        definitions = older.parent / "crds.yaml"
        definitions.write_text(shown.stdout, encoding="utf-8")
        command(cluster, "kubectl", "apply", "--server-side", "--force-conflicts", "-f", str(definitions))
        new = ("--reset-then-reuse-values", "--set", f"image.tag={TAG}")
        command(cluster, "helm", "upgrade", RELEASE, "charts/avatar-operator", *PLACE, *new)
        now = {f"localhost/avatar-operator/operator:{TAG}"}
        await until("the old operator being gone", _images(real.api), lambda images: images == now, timeout=60)
        await leading_pod(real.api)

        # The new operator is at work on the instance: it follows the spec of somebody who changes it.
        await real.api.patch("avatarinstances", real.namespace, "ada", {"spec": {"idle": {"timeoutSeconds": 3}}})
        after = await real.until(
            "ada", "being seen by the new operator", lambda s: s.get("observedGeneration", 0) >= 2, timeout=60
        )
        assert (after["phase"], after["connections"]) == ("Running", 1)
        assert (after["port"], after["webrtcUrl"]) == (status["port"], status["webrtcUrl"])
        assert [p["metadata"]["uid"] for p in await real.pods()] == [pod["metadata"]["uid"]]
        # What came before is forgotten; pictures still come.
        session.recording.pictures.clear()
        await until("more of the picture", _pictures(session), bool, timeout=30)
        assert session.alive
    await real.connections("ada", 0)
    await real.gone("ada", timeout=90)
    await real.nothing_left(timeout=60)
    assert json.loads(command(cluster, "helm", "list", "--namespace", SYSTEM, "-o", "json"))[0]["status"] == "deployed"


def _images(api: Api) -> Callable[[], Awaitable[set[str]]]:
    """Of the operators that there are."""

    async def look() -> set[str]:
        pods = await api.list("pods", SYSTEM, "?labelSelector=app.kubernetes.io/component%3Doperator")
        return {pod["spec"]["containers"][0]["image"] for pod in pods}

    return look


def _pictures(session: AvatarSession) -> Callable[[], Awaitable[int]]:
    async def look() -> int:
        return len(session.recording.pictures)

    return look
