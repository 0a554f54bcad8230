"""The Kubernetes objects of one instance, as plain dictionaries: Service and Pod."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import msgspec

from . import devices, eviction, names
from .actions import Json
from .network import environment, secret_volume, udp_window
from .placement import Placement
from .resources import Instance, Pod, Pool, Probes, Runtime, Service, ServiceSpec
from .settings import Settings

# The kubelet waits this much longer than the runtime drains before it kills.
KILL_MARGIN_SECONDS = 5

# restricted Pod Security, but for hostNetwork where the pool asks for it.
POD_SECURITY: Json = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "runAsGroup": 65532,
    "fsGroup": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_SECURITY: Json = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}

# A rule that counts no pods. For a pod without rules the scheduler makes some, by a look at each Service of the
# namespace, to spread what belongs to one of them; to ours belongs one pod. With 2,700 that was two thirds of its work.
NO_SPREADING: Json = {
    "maxSkew": 1,
    "topologyKey": "kubernetes.io/hostname",
    "whenUnsatisfiable": "ScheduleAnyway",
}


def labels(pool: str, group: str, port: int) -> dict[str, str]:
    """Labels of the Service and the Pod that serve ``group`` on ``port``."""
    return {
        names.LABEL_MANAGED_BY: names.MANAGER,
        names.LABEL_COMPONENT: names.COMPONENT,
        names.LABEL_POOL: pool,
        names.LABEL_GROUP: group,
        names.LABEL_PORT: str(port),
    }


def owner(instance: Instance, *, controller: bool) -> Json:
    """An ownerReference to ``instance``; it never blocks the instance's deletion."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": "AvatarInstance",
        "name": instance.metadata.name,
        "uid": instance.metadata.uid,
        "controller": controller,
        "blockOwnerDeletion": False,
    }


def service(instance: Instance, group: str, port: int, placement: Placement | None = None) -> Json:
    """The Service that claims ``port`` and, by ``placement``, a part of a GPU.

    No ownerReference: it outlives the pod (design §4).
    """
    gpu_labels, gpu_annotations = devices.reservation_metadata(placement) if placement else ({}, {})
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": names.claim_name(port),
            "namespace": instance.metadata.namespace,
            "labels": {**labels(instance.spec.pool_ref, group, port), **gpu_labels},
            "annotations": {names.ANNOTATION_AVATAR: instance.spec.avatar_name, **gpu_annotations},
        },
        "spec": {
            "selector": {names.LABEL_GROUP: group, names.LABEL_PORT: str(port)},
            "ports": [{"name": "signalling", "port": port, "targetPort": port, "protocol": "TCP"}],
            # One pod at most is behind it: there is no other to prefer while this one is not ready, and the
            # operator finds out that it answers before the kubelet does.
            "publishNotReadyAddresses": True,
            # A name that leads to the pod is enough, as the Service's port is the pod's. An address costs the API
            # server more than the Service itself, the more it has given away, and clusters have few.
            "clusterIP": "None",
        },
    }


# What the operator says in a claim's metadata; anything else there is somebody else's and stays.
_CLAIM_LABELS = (
    names.LABEL_MANAGED_BY,
    names.LABEL_COMPONENT,
    names.LABEL_POOL,
    names.LABEL_GROUP,
    names.LABEL_PORT,
    names.LABEL_GPU,
)
_CLAIM_ANNOTATIONS = (
    names.ANNOTATION_AVATAR,
    names.ANNOTATION_GPU_MIB,
    names.ANNOTATION_GPU_NODE,
    names.ANNOTATION_GPU_INDEX,
)


def mended(claim: Service, wanted: Json) -> Json:
    """The merge patch that makes ``claim`` say what ``wanted``, the body of ``service()``, says; empty = it does."""
    meta = wanted["metadata"]
    change: Json = {}
    for part, keys, have in (
        ("labels", _CLAIM_LABELS, claim.metadata.labels),
        ("annotations", _CLAIM_ANNOTATIONS, claim.metadata.annotations),
    ):
        wrong = {key: meta[part].get(key) for key in keys if have.get(key) != meta[part].get(key)}
        if wrong:
            change.setdefault("metadata", {})[part] = wrong
    if spec := led_back(claim.spec, wanted["spec"]):
        change["spec"] = spec
    return change


def led_back(spec: ServiceSpec, wanted: Json) -> Json:
    """The merge patch of a Service's spec that leads it where ``wanted`` does; empty = it does.

    Whether it has an address of its own stays as it is: the API server lets nobody change that.
    """
    if spec == msgspec.convert(wanted, ServiceSpec):
        return {}
    strange = dict.fromkeys(spec.selector.keys() - wanted["selector"].keys())
    led = {name: value for name, value in wanted.items() if name != "clusterIP"}
    return {**led, "selector": {**wanted["selector"], **strange}}


def claim_of(server: Instance, group: str, claim: Service | None, pod: Pod) -> Json:
    """The claim that belongs to ``pod``, as it should be; ``claim`` is what there is of it.

    The pod is where it is: a claim that names another GPU is wrong. Where others choose the GPU, what the
    claim knows of it is as good as what the pod knows.
    """
    placement, held = devices.placement_of(pod.metadata), devices.placement_of(claim.metadata) if claim else None
    if placement is not None and held is not None and not placement.uuid and not held.uuid:
        placement = held
    return service(server, group, int(pod.metadata.labels[names.LABEL_PORT]), placement)


def pod(
    pool: Pool,
    members: list[Instance],
    settings: Settings,
    group: str,
    port: int,
    placement: Placement | None = None,
    claim: str = "",
) -> Json:
    """The runtime Pod for ``members`` (the server first) on ``port``.

    ``placement`` says which GPU it asks for (None: none); ``claim`` names its ResourceClaim (mode DRA).
    """
    server, runtime = members[0], pool.spec.runtime
    spec = _pod_spec(pool, settings, port)
    # Not from the equipped spec: a pod is not outdated because another GPU would be chosen now.
    made_from = [spec, devices.template(pool.spec.gpu)]
    template = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:16]
    marks, notes = eviction.first_marks(any(m.counted_connections for m in members))
    body: Json = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": names.claim_name(port),
            "namespace": server.metadata.namespace,
            # The pool's labels come first: they cannot replace what selects the pod.
            "labels": {**runtime.pod_labels, **labels(server.spec.pool_ref, group, port), **marks},
            "annotations": {
                **runtime.pod_annotations,
                **notes,
                names.ANNOTATION_AVATAR: settings.avatar_name,
                names.ANNOTATION_TEMPLATE: template,
                names.ANNOTATION_TTS: settings.tts.name,
            },
            "ownerReferences": [owner(m, controller=m is server) for m in members],
        },
        "spec": {**spec, "topologySpreadConstraints": [NO_SPREADING]},
    }
    if placement is not None:
        devices.equip(body, pool, placement, claim)
    return body


def template_hash(body: Json) -> str:
    """What a pod was made from; differs when the pool or the avatar changed since."""
    return str(body["metadata"]["annotations"][names.ANNOTATION_TEMPLATE])


def _pod_spec(pool: Pool, settings: Settings, port: int) -> Json:
    runtime, network = pool.spec.runtime, pool.spec.network
    volumes, mounts = (a + b for a, b in zip(_avatar_volume(settings, runtime), secret_volume(pool), strict=True))
    host = network.mode == "HostNetwork"
    spec: Json = {
        "containers": [_container(pool, settings, port, [*runtime.volume_mounts, *mounts])],
        "volumes": [*runtime.volumes, *volumes],
        "securityContext": _pod_security(pool, port),
        "terminationGracePeriodSeconds": pool.spec.termination.drain_seconds + KILL_MARGIN_SECONDS,
        "automountServiceAccountToken": bool(runtime.service_account_name),
        "enableServiceLinks": False,
        "hostNetwork": host,
        "dnsPolicy": "ClusterFirstWithHostNet" if host else "ClusterFirst",
        "nodeSelector": runtime.node_selector,
        "tolerations": runtime.tolerations,
        "affinity": runtime.affinity,
        "imagePullSecrets": runtime.image_pull_secrets,
        "priorityClassName": runtime.priority_class_name,
        "schedulerName": runtime.scheduler_name,
        "serviceAccountName": runtime.service_account_name,
        "runtimeClassName": pool.spec.gpu.runtime_class_name if pool.spec.gpu.mode != "None" else "",
    }
    return {key: value for key, value in spec.items() if value not in ("", [], {}, None)}


def _container(pool: Pool, settings: Settings, port: int, mounts: list[Json]) -> Json:
    runtime, network = pool.spec.runtime, pool.spec.network
    signalling: Json = {"name": "signalling", "containerPort": port, "protocol": "TCP"}
    ports = [signalling]
    if network.mode in ("HostNetwork", "HostPort"):
        # Declared so that kube-scheduler, too, keeps the port unique on a node.
        signalling["hostPort"] = port
    if network.mode == "HostPort":
        ports += [{"containerPort": udp, "hostPort": udp, "protocol": "UDP"} for udp in udp_window(pool, port)]
    args = [*(_arguments(pool, settings, port) if runtime.args_style == "LiveTalking" else [])]
    container: Json = {
        "name": names.RUNTIME_CONTAINER,
        "image": runtime.image,
        "imagePullPolicy": runtime.image_pull_policy,
        "command": runtime.command,
        "args": [*args, *runtime.extra_args],
        "env": [
            {"name": "AVATAR_NAME", "value": settings.avatar_name},
            {"name": "AVATAR_PORT", "value": str(port)},
            # Not a flag: LiveTalking refuses flags that it does not know.
            {"name": "AVATAR_DRAIN_SECONDS", "value": str(pool.spec.termination.drain_seconds)},
            *environment(pool),
            *runtime.env,
        ],
        "ports": ports,
        "resources": runtime.resources,
        "volumeMounts": mounts,
        "securityContext": runtime.security_context or CONTAINER_SECURITY,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "readinessProbe": _probe(runtime.probes, port, runtime.probes.period_seconds, runtime.probes.failure_threshold),
        "livenessProbe": {
            **_probe(
                runtime.probes,
                port,
                runtime.probes.liveness_period_seconds,
                runtime.probes.liveness_failure_threshold,
            ),
            # A model that loads for long must not be killed for it.
            "initialDelaySeconds": settings.startup_timeout,
        },
    }
    return {key: value for key, value in container.items() if value not in ([], {}, None)}


def _arguments(pool: Pool, settings: Settings, port: int) -> list[str]:
    """LiveTalking's flags. A list, never a shell string: names hold spaces (design §2.6)."""
    flags = {
        "--avatar_id": settings.avatar_name,
        "--transport": settings.transport,
        "--model": settings.model,
        "--max_session": str(settings.max_sessions),
        "--tts": settings.tts.flag,
        "--TTS_SERVER": settings.tts.url,
        "--REF_FILE": settings.tts_voice,
        "--listenport": str(port),
    }
    # "--flag=value" so that a value which begins with a dash stays a value.
    return [f"{flag}={value}" for flag, value in flags.items() if value]


def _probe(probes: Probes, port: int, period: int, failures: int) -> Json:
    handler: Json = {"httpGet": {"path": probes.path, "port": port}} if probes.path else {"tcpSocket": {"port": port}}
    return {
        **handler,
        "periodSeconds": period,
        "timeoutSeconds": probes.timeout_seconds,
        "failureThreshold": failures,
    }


def _pod_security(pool: Pool, port: int) -> Json:
    given = pool.spec.runtime.pod_security_context
    context: Json = dict(POD_SECURITY if given is None else given)
    if pool.spec.network.mode == "HostPort":
        # The safe sysctl keeps the media sockets of aiortc, which have no port
        # range of their own, inside the window that hostPorts open.
        window = udp_window(pool, port)
        value = f"{window.start} {window.stop - 1}"
        sysctl = {"name": "net.ipv4.ip_local_port_range", "value": value}
        context["sysctls"] = [*context.get("sysctls", []), sysctl]
    return context


def _avatar_volume(settings: Settings, runtime: Runtime) -> tuple[list[Json], list[Json]]:
    """The volume with the avatar's files, mounted read-only: pickles in it are trusted."""
    data = settings.data
    source: dict[str, Any]
    sub_path = ""
    if data.pvc is not None:
        source = {"persistentVolumeClaim": {"claimName": data.pvc.claim_name, "readOnly": True}}
        sub_path = data.pvc.sub_path
    elif data.image is not None:
        source = {"image": {"reference": data.image.reference, "pullPolicy": data.image.pull_policy}}
    elif data.host_path is not None:
        source = {"hostPath": {"path": data.host_path.path, "type": "Directory"}}
    else:
        return [], []
    mount: Json = {
        "name": "avatar-data",
        "mountPath": f"{runtime.avatar_data_path.rstrip('/')}/{settings.avatar_name}",
        "readOnly": True,
    }
    if sub_path:
        mount["subPath"] = sub_path
    return [{"name": "avatar-data", **source}], [mount]
