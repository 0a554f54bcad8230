"""Fixtures of all tests that need a cluster.

`devcluster` brings one up by itself; AVATAR_TEST_KUBECONFIG names another. Where none can be had these tests are
skipped, in CI (CI=true) they fail: nothing is skipped there that the machine can have.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

import pytest
from _pytest.nodeid import coerce_node_id
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.support.api import Api
from tests.support.cluster import define
from tests.support.operator import Operator
from tests.support.world import World

ROOT = Path(__file__).resolve().parents[1]
# Each worker of `pytest -n` has a cluster of its own: a module's operator serves all namespaces.
_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
NAME = "test" if _WORKER == "0" else f"test{_WORKER}"
FAKE_NODES = 2
LOCK_SECONDS = 270


# Its tests share one cluster, whichever worker runs them.
ONE_CLUSTER = "e2e"
RERUNS = ROOT / "out/reruns.txt"


class _ByCluster(LoadScopeScheduling):
    """With `pytest -n`, a module's tests stay together, and those that share one cluster do."""

    def _split_scope(self, nodeid: str) -> str:
        return ONE_CLUSTER if nodeid.startswith(f"tests/{ONE_CLUSTER}/") else nodeid.partition("::")[0]


def pytest_configure() -> None:
    """Be interruptible, and with us what tests start: a shell starts what it runs in the background deaf to SIGINT."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _ByCluster:
    """Once, by the process that hears of all workers."""
    RERUNS.unlink(missing_ok=True)
    return _ByCluster(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With `pytest -n`, the longest group goes first, and what fails under the load of two runs once more.

    Several clusters on few cores delay each other. The closing line counts a test run again as rerun, and
    out/reruns.txt keeps why it failed: a rerun is a fault to look at.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    for item in items:
        if not item.nodeid.endswith(item.name):
            # schemathesis gives all its tests one id, and of tests of one id xdist runs the first alone.
            item._id = coerce_node_id(f"{item.nodeid.rpartition('::')[0]}::{item.name}")
        if not item.path.is_relative_to(ROOT / "tests/unit"):
            item.add_marker(pytest.mark.flaky(reruns=1, reruns_delay=2))
    items.sort(key=lambda item: not item.path.is_relative_to(ROOT / "tests" / ONE_CLUSTER))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep why a test is run once more; by the one process that hears of all workers."""
    if report.outcome == "rerun" and "PYTEST_XDIST_WORKER" not in os.environ:  # type: ignore[comparison-overlap]
        RERUNS.parent.mkdir(exist_ok=True)
        with RERUNS.open("a") as file:
            file.write(f"==== {report.nodeid}\n{report.longreprtext}\n")
            file.writelines(f"---- {title}\n{text}\n" for title, text in report.sections)


@dataclass(frozen=True)
class Cluster:
    """A cluster for tests. ``programs`` holds kubectl and helm (None: those of the path); the rest if it is known."""

    kubeconfig: Path
    programs: Path | None = None
    address: str = ""
    audit: Path | None = None

    def env(self) -> dict[str, str]:
        """The environment for kubectl and helm."""
        path = os.environ.get("PATH", "")
        front = f"{self.programs}{os.pathsep}" if self.programs else ""
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig), "PATH": front + path}

    def writes_of(self, agent: str, namespace: str) -> list[dict[str, Any]] | None:
        """The audit log's writes by a user agent in a namespace, but events; None without an audit log."""
        if self.audit is None or not self.audit.exists():
            return None
        entries = (json.loads(line) for line in self.audit.read_text().splitlines() if namespace in line)
        return [
            e
            for e in entries
            if e["userAgent"].startswith(agent)
            and e["objectRef"].get("namespace") == namespace
            and e["objectRef"]["resource"] != "events"
        ]


class RunKubectl(Protocol):
    """kubectl with the test cluster's kubeconfig."""

    def __call__(
        self, *args: str, input: str | None = None, check: bool = False, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]: ...


def no_cluster(reason: str) -> NoReturn:
    """Skip what needs a cluster; in CI that is a failure."""
    if os.environ.get("CI", "").lower() in ("true", "1"):
        pytest.fail(f"no cluster to test on: {reason}", pytrace=False)
    pytest.skip(f"no cluster to test on: {reason}")


def devcluster(*args: str, timeout: float = 280) -> str:
    """Output of a devcluster command for the tests' cluster; no cluster when it fails."""
    command = [sys.executable, "-m", "devcluster", "--name", NAME, *args]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        no_cluster(f"`devcluster {args[0]}` takes longer than {timeout:.0f} s; the first build does: `make cluster`")
    if done.returncode:
        no_cluster(f"`devcluster {args[0]}`: {done.stderr.strip()[-600:]}")
    return done.stdout


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """A running cluster with the definitions applied and fake nodes. It is left up: starting takes seconds."""
    if given := os.environ.get("AVATAR_TEST_KUBECONFIG"):
        if not Path(given).exists():
            no_cluster(f"AVATAR_TEST_KUBECONFIG: there is no file {given}")
        found = Cluster(Path(given))
    else:
        devcluster("up")
        devcluster("fake-nodes", str(FAKE_NODES))
        kubeconfig = Path(devcluster("kubeconfig").strip())
        audit = kubeconfig.parent / "audit.log"
        facts = json.loads((kubeconfig.parent / "cluster.json").read_text())
        found = Cluster(
            kubeconfig,
            Path(devcluster("binaries").strip()),
            str(facts.get("address", "")),
            audit if audit.exists() else None,
        )
    if shutil.which("kubectl", path=found.env()["PATH"]) is None:
        no_cluster("there is no kubectl")
    run = kubectl_of(found)
    define(lambda *arguments: run(*arguments, check=True, timeout=90))
    return found


@pytest.fixture(scope="session")
def kubectl(cluster: Cluster) -> RunKubectl:
    """``kubectl(*args, input=None, check=False)``: the finished process with its output as text."""
    return kubectl_of(cluster)


def kubectl_of(cluster: Cluster) -> RunKubectl:
    """kubectl for that cluster."""

    def run(
        *args: str, input: str | None = None, check: bool = False, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["kubectl", *args],
            input=input,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env=cluster.env(),
        )
        if check and done.returncode:
            raise AssertionError(f"kubectl {' '.join(args)}: {done.stderr.strip()}")
        return done

    return run


@pytest.fixture
async def api(cluster: Cluster) -> AsyncIterator[Api]:
    """The API server, as an administrator."""
    async with Api(cluster.kubeconfig) as client:
        yield client


@pytest.fixture(scope="session")
def alone(cluster: Cluster) -> Iterator[None]:
    """Hold the cluster against another run of these tests: its operators would serve our namespaces, too."""
    with cluster.kubeconfig.with_suffix(".tests-lock").open("w") as lock:
        for _ in range(LOCK_SECONDS):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(1)
        else:
            pytest.fail(f"another test run has held the cluster for {LOCK_SECONDS} s ({lock.name})", pytrace=False)
        yield


@pytest.fixture
async def namespace(api: Api, alone: None) -> AsyncIterator[str]:
    """The name of a namespace of this test's own; its deletion is not waited for."""
    name = f"t-{secrets.token_hex(4)}"
    await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    yield name
    await api.delete("namespaces", "", name)


@pytest.fixture
async def world(api: Api, namespace: str) -> World:
    """The namespace with the verbs that tests need."""
    return World(api, namespace)


MakeOperator = Callable[..., Operator]


@pytest.fixture
def operator_factory(
    cluster: Cluster, namespace: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[MakeOperator]:
    """``operator_factory(kubeconfig=…, options=(…))``: an operator of this test's namespace, not started yet."""
    made: list[Operator] = []

    def make(kubeconfig: Path | None = None, options: tuple[str, ...] = ()) -> Operator:
        log = tmp_path / f"operator-{len(made)}.log"
        found = Operator(kubeconfig or cluster.kubeconfig, log, (namespace,), options)
        made.append(found)
        _logs_of(request.node).append(log)
        return found

    try:
        yield make
    finally:
        for one in made:
            one.kill()


@pytest.fixture(scope="module")
def shared_operator(cluster: Cluster, alone: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """One operator of all namespaces for a whole module; tests take the fixture `operator`."""
    log = tmp_path_factory.mktemp("operator") / "operator.log"
    one = Operator(cluster.kubeconfig, log)
    one.launch()
    try:
        yield one
    finally:
        one.stop()


@pytest.fixture
async def operator(shared_operator: Operator, request: pytest.FixtureRequest) -> Operator:
    """The module's operator, ready."""
    _logs_of(request.node).append(shared_operator.log)
    await shared_operator.until_ready()
    return shared_operator


_LOGS = pytest.StashKey[list[Path]]()


def _logs_of(item: pytest.Item) -> list[Path]:
    return item.stash.setdefault(_LOGS, [])


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """A failed test shows what its operators said."""
    outcome: Any = yield
    report = outcome.get_result()
    if report.failed:
        for log in _logs_of(item):
            if log.exists():
                lines = log.read_text(errors="replace").splitlines()[-80:]
                report.sections.append((f"end of {log.name}", "\n".join(lines)))
