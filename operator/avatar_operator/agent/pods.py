"""Whose process is it: from a PID to the UID of its pod, by the names of cgroups.

Needs to see the node's processes: hostPID, or the node's /proc mounted.
"""

from __future__ import annotations

import re
from pathlib import Path

# …/pod<UID>/… by the driver cgroupfs, …-pod<UID with underscores>.slice/… by systemd; a static pod's UID is a bare
# hash. In a cgroup namespace of our own the path begins with /../.., which does not matter.
_POD = re.compile(
    r"[/-]pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12}|[0-9a-f]{32})(?:\.slice)?(?:[/:]|$)"
)


def pod_of(cgroups: str) -> str:
    """The pod UID in the text of a /proc/PID/cgroup (v1: a line for each controller; v2: one line); "" = no pod."""
    for line in cgroups.splitlines():
        found = _POD.search(line)
        if found:
            return found.group(1).replace("_", "-")
    return ""


class Processes:
    """The processes of the node, as ``proc`` shows them."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc

    def owner(self, pid: int) -> str | None:
        """The pod UID of a process, "" = it is of no pod, None = there is no such process to be seen."""
        try:
            return pod_of((self._proc / str(pid) / "cgroup").read_text(errors="replace"))
        except OSError:
            return None
