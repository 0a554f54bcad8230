"""The node's own network and mount namespaces, and the link to the host.

Bridge, routes and iptables rules live and die with the network namespace; kubelet's and containerd's
mounts, and the folders that kubelet insists on (/var/lib/kubelet, /var/log/pods, /run/containerd), with
the mount namespace. So teardown is complete whatever state the node was in, and nodes do not collide.
"""

import contextlib
import shutil
from pathlib import Path

from devcluster.errors import DevclusterError
from devcluster.layout import Addresses, lock, state_root
from devcluster.process import run

# Folders of the host that the node sees as its own, with what stands for each in the state folder.
PRIVATE_FOLDERS = {
    "/var/lib/kubelet": "kubelet",
    "/var/lib/cni": "cni-state",
    "/var/log/pods": "pod-logs",
    "/var/log/containers": "container-logs",
    "/run/containerd": "run-containerd",
}
_HOST_LOCK = "mount-points"


class Namespaces:
    """The namespaces of one node."""

    def __init__(self, name: str, state: Path, addresses: Addresses) -> None:
        self.netns = f"av-{name}"
        self.link = f"av-{name}"
        self.state = state
        self.addresses = addresses
        self.holder = state / "ns"

    @property
    def net_file(self) -> Path:
        """The file that names the network namespace."""
        return Path("/run/netns") / self.netns

    @property
    def mount_file(self) -> Path:
        """The file that keeps the mount namespace."""
        return self.holder / "mnt"

    def enter(self, *command: str, mounts: bool = True) -> list[str]:
        """Return ``command`` made to run in the namespaces (without ``mounts``: the host's files)."""
        inside = ["nsenter", f"--net={self.net_file}"]
        if mounts:
            # The command would start in the host's root without --wd.
            inside.append(f"--mount={self.mount_file}")
        return [*inside, "--", *command]

    def exist(self) -> bool:
        """Tell whether both namespaces are there, can be entered and hold the node's folders."""
        if not (self.net_file.exists() and self.mount_file.exists() and mounted(self.mount_file)):
            return False
        inside = run(self.enter("cat", "/proc/self/mountinfo"), check=False)
        targets = {line.split()[4] for line in inside.stdout.splitlines()}
        return inside.returncode == 0 and targets.issuperset(PRIVATE_FOLDERS)

    def create(self) -> None:
        """Make what is missing."""
        self._create_net()
        with lock(_HOST_LOCK):
            self._create_mount()

    def _create_net(self) -> None:
        ours = self.addresses
        if not self.net_file.exists():
            run(["ip", "netns", "add", self.netns])
        if not Path(f"/sys/class/net/{self.link}").exists():
            run(["ip", "link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", self.netns])
        inside = ["ip", "-n", self.netns]
        run(["ip", "addr", "replace", f"{ours.outer}/30", "dev", self.link])
        run(["ip", "link", "set", self.link, "up"])
        run([*inside, "link", "set", "lo", "up"])
        run([*inside, "addr", "replace", f"{ours.inner}/30", "dev", "eth0"])
        run([*inside, "link", "set", "eth0", "up"])
        # ClusterIPs need some route before kube-proxy's DNAT: the default leads to the host, which passes
        # nothing on (forwarding of this link is switched off even where the host forwards).
        run([*inside, "route", "replace", "default", "via", ours.outer])
        run(self.enter("sysctl", "-qw", "net.ipv4.ip_forward=1", mounts=False))
        run(["sysctl", "-qw", f"net.ipv4.conf.{self.link}.forwarding=0"], check=False)
        run(["ip", "route", "replace", ours.pods, "via", ours.inner])
        run(["ip", "route", "replace", "local", ours.fake, "dev", "lo"])

    def _create_mount(self) -> None:
        if mounted(self.mount_file):
            return
        self.holder.mkdir(parents=True, exist_ok=True)
        if not mounted(self.holder):
            run(["mount", "--bind", str(self.holder), str(self.holder)])
        # A mount namespace can only be kept by a file on a private mount.
        run(["mount", "--make-private", str(self.holder)])
        self.mount_file.touch()
        lines = ["set -e", "mount --make-rshared /"]
        for target, source in PRIVATE_FOLDERS.items():
            (self.state / source).mkdir(parents=True, exist_ok=True)
            Path(target).mkdir(parents=True, exist_ok=True)
            lines.append(f"mount --bind '{self.state / source}' '{target}'")
        lines.append("mount -t tmpfs -o mode=755 netns /run/netns")
        run(
            [
                "unshare",
                f"--mount={self.mount_file}",
                "--propagation",
                "private",
                "sh",
                "-c",
                "\n".join(lines),
            ]
        )

    def delete(self) -> None:
        """Remove what is there; the processes inside must have ended."""
        for path in (self.mount_file, self.holder):
            while mounted(path):
                run(["umount", "--lazy", str(path)])
        with contextlib.suppress(DevclusterError):
            run(["ip", "route", "del", "local", self.addresses.fake, "dev", "lo"], check=False)
        if Path(f"/sys/class/net/{self.link}").exists():
            run(["ip", "link", "del", self.link])
        if self.net_file.exists():
            run(["ip", "netns", "del", self.netns])
        with lock(_HOST_LOCK):
            # Removing a folder detaches what another mount namespace has mounted on it: the last one out does
            # it. Only what is empty goes: a kubelet or containerd of the host's own keeps its folders.
            if not any(path.exists() for path in state_root().glob("*/ns/mnt") if path != self.mount_file):
                for target in PRIVATE_FOLDERS:
                    with contextlib.suppress(OSError):
                        Path(target).rmdir()

    def leftovers(self) -> list[str]:
        """Name what is still there."""
        left = []
        if self.net_file.exists():
            left.append(f"network namespace {self.netns}")
        if Path(f"/sys/class/net/{self.link}").exists():
            left.append(f"link {self.link}")
        routes = []
        if shutil.which("ip"):
            routes = run(["ip", "route", "show", "table", "all"], check=False).stdout.splitlines()
        prefixes = (self.addresses.pods, self.addresses.fake)
        left += [f"route {line.strip()}" for line in routes if any(prefix in line for prefix in prefixes)]
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        left += [f"mount {line.split()[4]}" for line in mounts if f"{self.state}/" in line]
        return left


def mounted(path: Path) -> bool:
    """Tell whether something is mounted at ``path``."""
    with Path("/proc/self/mountinfo").open() as mounts:
        return any(line.split()[4] == str(path) for line in mounts)
