"""Network namespaces with wires between them, on private addresses alone: who can reach whom is what the test says.

They are of one test process, and gone with it: `Wires.close` ends what runs in
them, and the next test process removes what a killed one has left.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

PREFIX = "avt"
TIMEOUT = 20


def missing() -> str:
    """What this machine lacks for it; empty = nothing."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    gone = [p for p in ("ip", "iptables", "sysctl") if not shutil.which(p)]
    return f"not installed: {', '.join(gone)}" if gone else ""


def run(*command: str) -> str:
    """Output of a command that has to work."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr or done.stdout}"
    return done.stdout


class Wires:
    """A set of namespaces, by short names that the test chooses."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._serial = itertools.count()

    def add(self, name: str, *, forwards: bool = False) -> None:
        """A namespace; with ``forwards`` it is a router."""
        full = f"{PREFIX}-{os.getpid()}-{name}"
        run("ip", "netns", "add", full)
        self._names[name] = full
        self.run(name, "ip", "link", "set", "lo", "up")
        # A tentative IPv6 address cannot be bound for seconds.
        self.run(name, "sysctl", "-qw", "net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0")
        if forwards:
            self.run(name, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")

    def full(self, name: str) -> str:
        """What `ip netns` calls it."""
        return self._names[name]

    def run(self, name: str, *command: str) -> str:
        """Output of a command in it."""
        return run("ip", "netns", "exec", self._names[name], *command)

    def wire(self, one: str, address: str, other: str, far: str) -> None:
        """A wire between two namespaces; addresses with their prefix: "10.213.1.2/24"."""
        number = next(self._serial)
        near, distant = f"w{number}a", f"w{number}b"
        run("ip", "link", "add", near, "netns", self._names[one], "type", "veth", "peer", "name", distant,
            "netns", self._names[other])  # fmt: skip
        for name, device, own in ((one, near, address), (other, distant, far)):
            nodad = ["nodad"] if ":" in own else []
            self.run(name, "ip", "addr", "add", own, "dev", device, *nodad)
            self.run(name, "ip", "link", "set", device, "up")

    def route(self, name: str, to: str, via: str) -> None:
        """A route in a namespace; ``to`` may be "default"."""
        self.run(name, "ip", "route", "add", to, "via", via)

    def nat(self, name: str, *rule: str) -> None:
        """A rule of the NAT table: ``nat("router", "-A", "POSTROUTING", …)``."""
        self.run(name, "iptables", "-w", "-t", "nat", *rule)

    def close(self) -> None:
        """End what runs in them, and remove them."""
        for full in self._names.values():
            _remove(full)
        self._names.clear()


@contextlib.contextmanager
def wires() -> Iterator[Wires]:
    """Namespaces that are gone afterwards, whatever happens."""
    _sweep()
    made = Wires()
    try:
        yield made
    finally:
        made.close()


def _sweep() -> None:
    """Remove namespaces of processes that are no more."""
    folder = Path("/run/netns")
    for path in folder.iterdir() if folder.is_dir() else ():
        found = re.fullmatch(rf"{PREFIX}-(\d+)-\w+", path.name)
        if found and not Path("/proc", found[1]).exists():
            _remove(path.name)


def _remove(full: str) -> None:
    done = subprocess.run(["ip", "netns", "pids", full], capture_output=True, text=True, timeout=TIMEOUT, check=False)
    for pid in done.stdout.split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    subprocess.run(["ip", "netns", "del", full], capture_output=True, timeout=TIMEOUT, check=False)
