"""Running commands, and daemons that outlive the command that started them."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from devcluster.errors import DevclusterError

# Every process of a cluster carries its state folder under this name, so `down` knows its own.
MARK = "AVATAR_DEVCLUSTER"


def run(
    command: Sequence[str],
    *,
    timeout: float = 60,
    check: bool = True,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run ``command`` to its end; with ``check`` a failure is an error that shows its output."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            input=stdin,
            env={**os.environ, **env} if env else None,
        )
    except FileNotFoundError as error:
        raise DevclusterError(f"The program {command[0]!r} is not installed.") from error
    except subprocess.TimeoutExpired as error:
        raise DevclusterError(f"`{' '.join(command)}` did not end within {timeout:.0f} s.") from error
    if check and done.returncode:
        output = (done.stderr or done.stdout).strip()
        raise DevclusterError(f"`{' '.join(command)}` ended with {done.returncode}: {output}")
    return done


def environ_of(pid: int) -> dict[str, str]:
    """Return a process's initial environment, empty when it is gone or not ours to read."""
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    pairs = (item.partition("=")[::2] for item in raw.decode(errors="replace").split("\0") if "=" in item)
    return dict(pairs)


def alive(pid: int) -> bool:
    """Tell whether a process runs (a zombie does not)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return False
    return fields[0] not in "ZX"


def all_pids() -> Iterator[int]:
    """Yield the pids of the machine."""
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            yield int(entry.name)


def marked(state: Path) -> list[int]:
    """Return the processes that belong to the cluster in ``state``, this command's own excepted."""
    own = {os.getpid(), os.getppid()}
    return [pid for pid in all_pids() if pid not in own and alive(pid) and environ_of(pid).get(MARK) == str(state)]


def end(pids: Sequence[int], *, grace: float) -> list[int]:
    """Send TERM, after ``grace`` seconds KILL; return those that would not go even then."""
    left = [pid for pid in pids if alive(pid)]
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        if number == signal.SIGTERM and grace <= 0:
            continue
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        deadline = time.monotonic() + seconds
        while left and time.monotonic() < deadline:
            time.sleep(0.02)
            left = [pid for pid in left if alive(pid)]
        if not left:
            break
    return left


@dataclass(frozen=True)
class Daemon:
    """A component that runs on its own: command, log and pid file."""

    name: str
    command: Sequence[str]
    state: Path
    env: Mapping[str, str] | None = None

    @property
    def log(self) -> Path:
        """Return the component's log file."""
        return self.state / "logs" / f"{self.name}.log"

    @property
    def pid_file(self) -> Path:
        """Return the file with the component's pid."""
        return self.state / "pids" / f"{self.name}.pid"

    def pid(self) -> int | None:
        """Return the pid if the component runs (a reused pid is told apart by its environment)."""
        try:
            pid = int(self.pid_file.read_text())
        except (OSError, ValueError):
            return None
        for _ in range(500):
            # While a process replaces its program (nsenter does), its environment reads as empty: on a busy machine
            # for seconds.
            if not alive(pid) or environ_of(pid):
                break
            time.sleep(0.01)
        return pid if alive(pid) and environ_of(pid).get(MARK) == str(self.state) else None

    def start(self) -> bool:
        """Start the component unless it runs; return whether it was started."""
        if self.pid() is not None:
            return False
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.pid_file.parent.mkdir(parents=True, exist_ok=True)
        # Few variables: the user's proxies and Go settings are none of the cluster's business.
        env = {
            "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            "HOME": str(self.state),
            MARK: str(self.state),
            **(self.env or {}),
        }
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=env,
                cwd=self.state,
                start_new_session=True,
            )
        self.pid_file.write_text(f"{process.pid}\n")
        return True

    def stop(self, grace: float) -> None:
        """End the component and forget its pid."""
        pid = self.pid()
        if pid is not None and end([pid], grace=grace):
            raise DevclusterError(f"{self.name} (pid {pid}) would not end.")
        self.pid_file.unlink(missing_ok=True)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the component, which must run."""
        pid = self.pid()
        if pid is None:
            raise DevclusterError(f"{self.name} does not run.", f"Start it: component start {self.name}")
        os.kill(pid, number)

    def tail(self, lines: int = 15) -> str:
        """Return the last lines of the log, with its path."""
        return f"The last lines of {self.log}:\n{tail(self.log, lines)}"

    def check_alive(self) -> None:
        """Raise with the log's tail when the component has ended."""
        if self.pid() is None:
            raise DevclusterError(f"{self.name} has ended by itself.\n{self.tail()}")


def tail(path: Path, lines: int) -> str:
    """Return the last ``lines`` lines of a file, indented."""
    try:
        with path.open("rb") as handle:
            handle.seek(0, os.SEEK_END)
            handle.seek(max(0, handle.tell() - 400 * lines))
            text = handle.read().decode(errors="replace")
    except OSError as error:
        return f"    ({error})"
    return "\n".join(f"    {line}" for line in text.splitlines()[-lines:])
