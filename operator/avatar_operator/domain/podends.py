"""Every way a pod can end, in one table: what it means, whose doing it is, what helps.

``docs/pod-ends.md`` shows the same table (a test compares them). A reason is
one CamelCase word that stays the same whatever Kubernetes calls it: the
kubelet says ``OutOfnvidia.com/gpu``, which no condition may have as its reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Blame(Enum):
    """Whose doing an end is: what the next try waits for."""

    AVATAR = "avatar"  # what runs, or how it is set up: each one makes the next wait longer
    CLUSTER = "cluster"  # what it runs on: not counted, made good at once where the pod had served


# What the operator does about it, by whose doing it is; ``docs/pod-ends.md`` says it in these words.
ANSWERS = {
    Blame.AVATAR: "counts it in `status.restarts` and tries again after 5 s, 10 s, 20 s … 5 min; at once after the "
    "first one of an instance that had served",
    Blame.CLUSTER: "counts nothing; a new pod at once where this one had served, else after a pause that doubles "
    "from 5 s to 5 min",
}


@dataclass(frozen=True, slots=True)
class PodEnd:
    """One row. ``remedy`` has ``{where}`` for the resource that sets the pod up; ``also``: what Kubernetes calls it."""

    reason: str
    meaning: str
    remedy: str
    blame: Blame
    also: tuple[str, ...] = ()


_OWN = (
    PodEnd(
        "Completed",
        "the {noun} ended by itself with exit code 0; it should serve for ever",
        "check the command and its arguments ({where}): it must stay in the foreground",
        Blame.AVATAR,
        ("phase Succeeded",),
    ),
    PodEnd(
        "CrashLoop",
        "the {noun} ended again and again",
        "its last words are in the message; `kubectl logs --previous` has more",
        Blame.AVATAR,
        ("CrashLoopBackOff",),
    ),
    PodEnd(
        "OOMKilled",
        "the {noun} used more memory than its limit",
        "raise resources.limits.memory ({where}), or find the leak",
        Blame.AVATAR,
    ),
    PodEnd(
        "GPUOutOfMemory",
        "the {noun} ran out of GPU memory; the next pod reserves more",
        "raise vramMiB (spec of the Avatar) or minFreeMiB (spec.gpu of the AvatarPool)",
        Blame.AVATAR,
    ),
    PodEnd(
        "RuntimeConfigError",
        "the runtime refuses its configuration (exit code 78)",
        "correct what the message names: the Avatar, or spec.runtime of the AvatarPool",
        Blame.AVATAR,
    ),
    PodEnd(
        "StartupTimeout",
        "not ready in startupTimeoutSeconds, counted from the start of the container",
        "raise startupTimeoutSeconds, or see in its log what it waits for",
        Blame.AVATAR,
    ),
    PodEnd(
        "ImagePullFailed",
        "the image cannot be pulled",
        "check {image}",
        Blame.AVATAR,
        ("ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError", "RegistryUnavailable"),
    ),
    PodEnd(
        "PullTimeout",
        "the container did not start in 15 min (or startupTimeoutSeconds, if that is longer)",
        "check {image} and the volumes: `kubectl describe pod` tells what it waits for",
        Blame.AVATAR,
        ("ContainerCreating",),
    ),
    PodEnd(
        "CreateContainerConfigError",
        "a Secret or ConfigMap that the container refers to is missing",
        "create what the message names, or correct env and volumes ({where})",
        Blame.AVATAR,
    ),
    PodEnd(
        "CreateContainerError",
        "the container runtime cannot make the container",
        "correct what the message names: volumes, security context or runtime class ({where})",
        Blame.AVATAR,
    ),
    PodEnd(
        "RunContainerError",
        "the container runtime cannot start the container",
        "correct the command ({where}): the message names the file",
        Blame.AVATAR,
    ),
    PodEnd(
        "MediaStalled",
        "viewers got no video for health.failures looks, and the pod was not ready or did not answer",
        "see its log and the GPU: a renderer or an encoder hangs",
        Blame.AVATAR,
    ),
    PodEnd(
        "PodRejected",
        "the API server refuses the pod: a quota, Pod Security or an invalid field",
        "correct what the message names: the namespace's quota and labels, or {where}",
        Blame.AVATAR,
    ),
    PodEnd(
        "PodFailed",
        "the pod failed for a reason that this table does not have; the message quotes it",
        "see `kubectl describe pod` and the node's events",
        Blame.AVATAR,
    ),
)

_NODE = (
    PodEnd(
        "Evicted",
        "evicted: its node ran short of memory, disk or PIDs, or somebody used the Eviction API (drain, autoscaler)",
        "if it was pressure: raise resources.requests ({where}), or give the node room",
        Blame.CLUSTER,
        ("Evicted", "EvictionByEvictionAPI"),
    ),
    PodEnd(
        "Preempting",
        "a pod of higher priority took its place",
        "raise priorityClassName ({where}), or add nodes",
        Blame.CLUSTER,
        ("Preempting", "PreemptionByScheduler"),
    ),
    PodEnd(
        "NodeShutdown",
        "its node shuts down",
        "another node, or this one when it is back, gets the next pod",
        Blame.CLUSTER,
        ("NodeShutdown", "Shutdown", "Terminated"),
    ),
    PodEnd(
        "NodeLost",
        "its node is not ready, unreachable or gone",
        "bring the node back, delete the Node, or taint it node.kubernetes.io/out-of-service: until then the pod's "
        "port and GPU stay taken",
        Blame.CLUSTER,
        ("NodeLost", "DeletionByPodGC"),
    ),
    PodEnd(
        "NodeTainted",
        "its node got a NoExecute taint that the pod does not tolerate",
        "add the taint to tolerations ({where}) if the pod should stay",
        Blame.CLUSTER,
        ("DeletionByTaintManager",),
    ),
    PodEnd(
        "OutOfcpu",
        "its node has too little CPU left: something that the scheduler did not know of came first",
        "ask for less CPU (resources of {where}), or add nodes",
        Blame.CLUSTER,
    ),
    PodEnd(
        "OutOfmemory",
        "its node has too little memory left: something that the scheduler did not know of came first",
        "ask for less memory (resources of {where}), or add nodes",
        Blame.CLUSTER,
    ),
    PodEnd(
        "OutOfpods",
        "its node holds as many pods as it may",
        "raise maxPods of the kubelet, or add nodes",
        Blame.CLUSTER,
    ),
    PodEnd(
        "OutOfResource",
        "its node has too little left of another resource: disk, GPUs of a device plugin; the message names it",
        "ask for less of it (resources of {where}), or add nodes",
        Blame.CLUSTER,
        ("OutOf…",),
    ),
    PodEnd(
        "UnexpectedAdmissionError",
        "a plugin of its node refused the pod, most often a device plugin without a healthy device",
        "see the device plugin's log on that node",
        Blame.CLUSTER,
    ),
    PodEnd(
        "NodeAffinity",
        "the labels of its node changed and fit the pod no more",
        "check the node's labels against nodeSelector and affinity ({where})",
        Blame.CLUSTER,
    ),
    PodEnd(
        "NodePorts",
        "another pod on its node has the host port",
        "move the pool's spec.ports.base or spec.network.udpPortBase away from it",
        Blame.CLUSTER,
    ),
    PodEnd(
        "SysctlForbidden",
        "its kubelet does not allow a sysctl of the pod",
        "allow it (--allowed-unsafe-sysctls), or take it out of podSecurityContext ({where})",
        Blame.CLUSTER,
    ),
    PodEnd(
        "TopologyAffinityError",
        "its node cannot give CPUs and devices of one NUMA node",
        "relax the kubelet's topology manager policy, or ask for less (resources of {where})",
        Blame.CLUSTER,
    ),
    PodEnd(
        "Unschedulable",
        "no node took the pod in startupTimeoutSeconds",
        "add nodes, or ask for less: resources, nodeSelector, tolerations ({where})",
        Blame.CLUSTER,
    ),
    PodEnd(
        "GPULost",
        "the GPU under the pod is lost",
        "see the GPUNode of that node",
        Blame.CLUSTER,
    ),
    PodEnd(
        "PodDeleted",
        "somebody deleted the pod",
        "to end an avatar, delete its AvatarInstance instead",
        Blame.CLUSTER,
    ),
    PodEnd(
        "PodLost",
        "the pod disappeared without a word: deleted by force, or its node with it",
        "should it happen again: the API server's audit log tells who deletes it",
        Blame.CLUSTER,
    ),
)

POD_ENDS = _OWN + _NODE
_BY_REASON = {end.reason: end for end in POD_ENDS}
_BY_NAME = {name: end for end in POD_ENDS for name in (*end.also, end.reason)}


def end_of(said: str) -> PodEnd:
    """The row for a reason: ours, of a pod's status, or of its condition DisruptionTarget. PodFailed if none has it."""
    if found := _BY_NAME.get(said):
        return found
    return _BY_REASON["OutOfResource" if said.startswith("OutOf") else "PodFailed"]


def innocent(reason: str) -> bool:
    """Whether an end of that reason is not the avatar's doing."""
    return reason in _BY_REASON and _BY_REASON[reason].blame is Blame.CLUSTER


def is_end(reason: str) -> bool:
    """Whether ``reason`` says how a pod ended: not that it was idle, or was replaced."""
    return reason in _BY_REASON
