"""A limit to the CPU of a process that runs already, by a cgroup of its own.

Needs root, and the controller `cpu` of cgroup v1 or v2, mounted where groups may be made.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
# v2 alone or beside v1; v1 by either of its names.
PLACES = (MOUNT, MOUNT / "unified", MOUNT / "cpu", MOUNT / "cpu,cpuacct")
# Short: who has used up a share waits for the rest of its period, which is a tenth of a second by itself.
PERIOD_US = 20_000
# The kernel takes no less than a millisecond for a period.
LEAST_CORES = 1000 / PERIOD_US
# A group whose last process ended or left just now can be busy for a moment.
REMOVE_TRIES, REMOVE_PAUSE_SECONDS = 50, 0.02


class CannotCap(Exception):
    """Why there is no limit to be had here, for people."""


def hierarchy() -> Path:
    """The folder in which groups are made. Raises CannotCap."""
    found = next((place for place in PLACES if _has_cpu(place)), None)
    if found is None:
        raise CannotCap(f"a limit of CPU needs cgroups: no controller `cpu`, neither of v1 nor of v2, below {MOUNT}")
    if not os.access(found, os.W_OK):
        raise CannotCap(f"{found} is not to be written to: be root, in a container whose cgroups are not read-only")
    return found


@contextlib.contextmanager
def capped(pid: int, cores: float) -> Iterator[None]:
    """Until the block ends, process ``pid`` has ``cores`` at most for all of its threads. Raises CannotCap."""
    if cores < LEAST_CORES:
        raise CannotCap(f"{cores} of a core: the least is {LEAST_CORES}")
    root = hierarchy()
    group = root / f"avatar-bench-{pid}"
    with contextlib.ExitStack() as stack:
        try:
            if _is_v2(root):
                stack.enter_context(_passed_on(root))
            stack.callback(_remove, group)
            group.mkdir(exist_ok=True)
            _limit(group, round(cores * PERIOD_US))
            stack.callback(_back, pid, _group_of(pid, root))
            _put(pid, group)
        except OSError as error:
            raise CannotCap(f"no limit of CPU for process {pid} by {group}: {error}") from error
        yield


def _is_v2(folder: Path) -> bool:
    return (folder / "cgroup.controllers").exists()


def _has_cpu(folder: Path) -> bool:
    if _is_v2(folder):
        return "cpu" in (folder / "cgroup.controllers").read_text().split()
    return (folder / "cpu.cfs_quota_us").exists()


def _group_of(pid: int, root: Path) -> Path:
    """Where it is now: v2 may take no process into the root. The root, where a container does not see its own group."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if _is_v2(root) if not controllers else "cpu" in controllers.split(","):
            found = root / path.lstrip("/")
            return found if (found / "cgroup.procs").exists() else root
    return root


@contextlib.contextmanager
def _passed_on(root: Path) -> Iterator[None]:
    """v2: the groups in ``root`` have the controller; afterwards as before, where others had no use for it."""
    control = root / "cgroup.subtree_control"
    before = control.read_text().split()
    control.write_text("+cpu")
    yield
    if "cpu" not in before:
        with contextlib.suppress(OSError):
            control.write_text("-cpu")


def _limit(group: Path, quota_us: int) -> None:
    if not _is_v2(group):
        (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (group / "cpu.cfs_quota_us").write_text(str(quota_us))
        return
    # Where the root has processes of its own, as a container's has, v2 takes some into a group only if it is threaded.
    kind = group / "cgroup.type"
    if kind.read_text().strip() == "domain invalid":
        kind.write_text("threaded")
    (group / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")


def _put(pid: int, group: Path) -> None:
    """All of its threads."""
    (group / "cgroup.procs").write_text(str(pid))


def _back(pid: int, home: Path) -> None:
    # It may have ended, and is in no group then.
    with contextlib.suppress(OSError):
        _put(pid, home)


def _remove(group: Path) -> None:
    for _ in range(REMOVE_TRIES):
        with contextlib.suppress(OSError):
            group.rmdir()
        if not group.exists():
            return
        time.sleep(REMOVE_PAUSE_SECONDS)
    print(f"{group} is left: somebody is in it; remove it with rmdir", file=sys.stderr, flush=True)
