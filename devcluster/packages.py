"""Debian packages that the native provider needs."""

import os
import shutil
from pathlib import Path

from devcluster.errors import DevclusterError
from devcluster.process import run
from devcluster.progress import step

_APT_INSTALL = Path(__file__).resolve().parents[1] / "scripts" / "apt-install"
CNI_FOLDERS = ("/usr/lib/cni", "/opt/cni/bin")
# What must be found on the path, and the package that brings it.
_PROGRAMS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "mount": "mount",
    "sysctl": "procps",
}


def cni_dir() -> Path | None:
    """Return the folder with the CNI plugins."""
    return next((Path(path) for path in CNI_FOLDERS if (Path(path) / "ptp").exists()), None)


def missing() -> list[str]:
    """Return the packages to install."""
    packages = {package for program, package in _PROGRAMS.items() if not shutil.which(program)}
    if cni_dir() is None:
        packages.add("containernetworking-plugins")
    if not Path("/etc/ssl/certs").exists():
        packages.add("ca-certificates")
    return sorted(packages)


def ensure_packages() -> None:
    """Install what is missing, by apt."""
    packages = missing()
    if not packages:
        return
    if not shutil.which("apt-get"):
        raise DevclusterError(
            f"The native provider needs {', '.join(packages)}, and this machine has no apt-get.",
            "Install them with your own package manager, or take --provider kind or control-plane.",
        )
    with step(f"installing {', '.join(packages)} (apt-get, half a minute)"):
        # Debian's containerd package would start a containerd of its own, which nobody asked for.
        policy = Path("/usr/sbin/policy-rc.d")
        own_policy = not policy.exists() and os.access(policy.parent, os.W_OK)
        if own_policy:
            policy.write_text("#!/bin/sh\nexit 101\n")
            policy.chmod(0o755)
        try:
            run([str(_APT_INSTALL), *packages], timeout=1800)
        finally:
            if own_policy:
                policy.unlink()
    still = missing()
    if still:
        raise DevclusterError(f"apt-get installed {', '.join(still)}, but what they bring is not found.")
