"""Nothing needs the operator in order to end. These tests come last in their folder: they take the release away."""

from __future__ import annotations

import pytest

from tests.conftest import Cluster
from tests.e2e.conftest import RELEASE, SYSTEM, install
from tests.e2e.conftest import run as command
from tests.support.api import until
from tests.support.world import World


@pytest.mark.parametrize("up", [True, False], ids=["operator-up", "operator-down"])
async def test_the_release_goes_under_live_instances(real: World, cluster: Cluster, up: bool) -> None:
    """The release first, then the instances, then their namespace; the pods follow their instances."""
    await real.instance("ada")
    await real.instance("bea")
    await real.phase("ada", "Running", timeout=60)
    if not up:
        await _scale_down(real, cluster)
    try:
        command(cluster, "helm", "uninstall", RELEASE, "--namespace", SYSTEM, "--wait", "--timeout", "60s")
        assert (await real.status("ada"))["phase"] == "Running"
        await real.delete("ada", "bea")
        await real.gone("ada", timeout=10)
        await until("the pod being collected", real.pods, lambda pods: not pods, timeout=60)
        command(cluster, "kubectl", "delete", "namespace", real.namespace, "--timeout=60s")
    finally:
        install(cluster)


async def _scale_down(real: World, cluster: Cluster) -> None:
    command(cluster, "kubectl", "-n", SYSTEM, "scale", "deployment", f"{RELEASE}-avatar-operator", "--replicas=0")
    await until(
        "the operator being down",
        lambda: real.api.list("pods", SYSTEM, "?labelSelector=app.kubernetes.io/component%3Doperator"),
        lambda pods: not pods,
        timeout=60,
    )


def test_a_typo_in_the_values_is_an_error_that_names_it(cluster: Cluster) -> None:
    with pytest.raises(AssertionError, match="replicaCoun"):
        command(
            *(cluster, "helm", "install", "typo", "charts/avatar-operator", "--namespace", "typo"),
            *("--dry-run=client", "--set", "replicaCoun=2"),
        )
