"""From a PID to its pod: the cgroup paths that kubelets and runtimes make."""

from __future__ import annotations

from pathlib import Path

import pytest

from avatar_operator.agent.pods import Processes, pod_of

UID = "8a4d2f1c-3b5e-4c6d-9e7f-0123456789ab"
SLICE = UID.replace("-", "_")
CONTAINER = "d" * 64


@pytest.mark.parametrize(
    "path",
    [
        f"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{SLICE}.slice/cri-containerd-{CONTAINER}.scope",
        f"0::/kubepods.slice/kubepods-pod{SLICE}.slice/crio-{CONTAINER}.scope",
        f"0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{SLICE}.slice/cri-containerd-{CONTAINER}.scope/inner",
        f"0::/kubepods/burstable/pod{UID}/{CONTAINER}",
        f"0::/kubepods/pod{UID}/{CONTAINER}",
        f"0::/../../kubepods-besteffort.slice/kubepods-besteffort-pod{SLICE}.slice/cri-containerd-{CONTAINER}.scope",
        f"0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{SLICE}.slice/cri-containerd-{CONTAINER}.scope",
        f"0::/k8s.io/kubepods/besteffort/pod{UID}",
        f"12:pids:/kubepods/burstable/pod{UID}/{CONTAINER}\n1:name=systemd:/kubepods/burstable/pod{UID}/{CONTAINER}\n0::/",
        f"12:devices:/\n11:cpu,cpuacct:/kubepods.slice/kubepods-pod{SLICE}.slice/docker-{CONTAINER}.scope\n0::/",
        f"4:memory:/system.slice/containerd.service/kubepods-burstable-pod{SLICE}.slice:cri-containerd:{CONTAINER}",
    ],
    ids=[
        "v2-systemd",
        "v2-crio-guaranteed",
        "v2-cgroup-inside",
        "v2-cgroupfs",
        "v2-cgroupfs-guaranteed",
        "v2-own-cgroup-namespace",
        "v2-kind",
        "v2-no-container",
        "v1-cgroupfs",
        "v1-systemd-docker",
        "v1-containerd-in-its-service",
    ],
)
def test_a_process_of_a_pod(path: str) -> None:
    assert pod_of(path) == UID


def test_a_static_pod_has_a_hash_for_a_uid() -> None:
    uid = "0123456789abcdef0123456789abcdef"
    assert pod_of(f"0::/kubepods/burstable/pod{uid}/{CONTAINER}") == uid
    assert pod_of(f"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid}.slice/x.scope") == uid


@pytest.mark.parametrize(
    "path",
    [
        "0::/",
        "0::/user.slice/user-1000.slice/session-2.scope",
        "0::/system.slice/ollama.service",
        f"0::/system.slice/docker-{CONTAINER}.scope",
        "0::/machine.slice/libpod-conmon.scope",
        "0::/system.slice/podman.service",
        "4:memory:/user/my-pod-of-peas\n0::/",
        "",
    ],
)
def test_a_process_of_no_pod(path: str) -> None:
    assert pod_of(path) == ""


def test_what_is_not_to_be_seen_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "42").mkdir()
    (tmp_path / "42" / "cgroup").write_text(f"0::/kubepods/pod{UID}/{CONTAINER}\n")
    (tmp_path / "43").mkdir()
    (tmp_path / "43" / "cgroup").write_text("0::/system.slice/ollama.service\n")
    processes = Processes(tmp_path)
    assert [processes.owner(pid) for pid in (42, 43, 44, 0)] == [UID, "", None, None]
