"""The programs of the cluster: one Go binary built from upstream's modules, cached by what goes into it."""

import fcntl
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

from devcluster.errors import DevclusterError
from devcluster.layout import cache_root, digest, source_dir
from devcluster.process import run, tail
from devcluster.progress import say

KUBERNETES_VERSION = "v1.37.2"
PROGRAMS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
    "helm",
    "kwok",
    "coredns",
    "pki",
)
GO_MINIMUM = (1, 21)  # from 1.21 on the go command fetches the toolchain that go.mod asks for
BUILD_TIMEOUT = 60 * 60.0
_MAJOR, _MINOR, _ = KUBERNETES_VERSION.removeprefix("v").split(".")
# Without the versions kubectl and helm cannot parse their own. No DWARF: a tenth of the build's time.
FLAGS = (
    "-trimpath",
    "-gcflags=all=-dwarf=false",
    "-ldflags",
    f"-s -w -X k8s.io/component-base/version.gitVersion={KUBERNETES_VERSION}"
    f" -X k8s.io/component-base/version.gitMajor={_MAJOR}"
    f" -X k8s.io/component-base/version.gitMinor={_MINOR}"
    f" -X k8s.io/client-go/pkg/version.gitVersion={KUBERNETES_VERSION}",
)


def bin_dir() -> Path:
    """Return the folder for the programs of this source, whether they are built or not."""
    node = source_dir() / "node"
    sources = sorted([*node.glob("*.go"), node / "go.mod", node / "go.sum", *source_dir().glob("pause/*.go")])
    parts = [part for path in sources for part in (path.name.encode(), path.read_bytes())]
    return cache_root() / "bin" / digest(*parts, *(flag.encode() for flag in FLAGS))


def ensure_binaries() -> Path:
    """Return the folder with all programs, building what is not there."""
    folder = bin_dir()
    if (folder / ".complete").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    with (folder.parent / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another devcluster command is building the programs; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / ".complete").exists():
            _build_all(folder)
    return folder


def _build_all(folder: Path) -> None:
    go = _find_go()
    cores = os.cpu_count() or 1
    say(f"building Kubernetes {KUBERNETES_VERSION}, etcd, CoreDNS, kwok and helm from their Go modules into one binary")
    say(
        f"  this takes {max(2, 14 // cores)} to {max(4, 26 // cores)} minutes on {cores} cores the first time (14 to 18"
        " minutes of CPU, 250 MB of modules to download), half a minute when Go's build cache is warm"
    )
    say(f"  the result is kept in {folder}")
    _go_build(go, source_dir() / "node", (".",), folder / "avatar-node", folder / "build.log")
    _go_build(go, source_dir() / "pause", ("main.go",), folder / "pause", folder / "build.log")
    for program in PROGRAMS:
        link = folder / program
        link.unlink(missing_ok=True)
        link.symlink_to("avatar-node")
    version = run([str(folder / "kubectl"), "version", "--client"], timeout=60).stdout
    if KUBERNETES_VERSION not in version:
        raise DevclusterError(f"The built kubectl calls itself {version!r}, not {KUBERNETES_VERSION}.")
    (folder / ".complete").touch()


def _find_go() -> str:
    for candidate in (shutil.which("go"), "/usr/local/go/bin/go", "/usr/lib/go/bin/go"):
        if candidate and Path(candidate).exists():
            found = re.search(r"go(\d+)\.(\d+)", run([candidate, "version"]).stdout)
            if found and (int(found[1]), int(found[2])) >= GO_MINIMUM:
                return candidate
            raise DevclusterError(f"{candidate} is too old.", "Install Go 1.26 (https://go.dev/dl).")
    raise DevclusterError(
        "Go is needed to build the cluster's programs, and there is no `go`.",
        "Install Go 1.26 (https://go.dev/dl) or use a cluster that you have: --provider existing.",
    )


def _go_build(go: str, source: Path, packages: tuple[str, ...], target: Path, log: Path) -> None:
    partial = target.with_suffix(".partial")
    command = [go, "build", *FLAGS, "-o", str(partial), *packages]
    began = time.monotonic()
    with log.open("ab") as output:
        build = subprocess.Popen(
            command,
            cwd=source,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "CGO_ENABLED": "0"},
        )
        said = began
        while True:
            try:
                build.wait(timeout=1)
                break
            except subprocess.TimeoutExpired:
                now = time.monotonic()
                if now - began > BUILD_TIMEOUT:
                    build.kill()
                    build.wait()
                    raise DevclusterError(
                        f"The Go build took more than {BUILD_TIMEOUT / 60:.0f} minutes.\n{tail(log, 15)}",
                        "Run it again: what is compiled already is in Go's build cache.",
                    ) from None
                if now - said >= 30:
                    said = now
                    say(f"  still building {target.name}: {(now - began) / 60:.1f} min")
            except BaseException:
                build.kill()
                build.wait()
                raise
    if build.returncode:
        raise DevclusterError(
            f"The Go build of {source} failed.\n{tail(log, 20)}",
            f"The whole output is in {log}. Modules come from GOPROXY (`go env GOPROXY`): can it be reached?",
        )
    partial.rename(target)
    say(f"built {target.name} in {time.monotonic() - began:.0f} s")
