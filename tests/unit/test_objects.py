"""The Service and the Pod of an instance, compared whole."""

from __future__ import annotations

from typing import Any

import pytest

from avatar_operator.domain import names, objects
from avatar_operator.domain.network import udp_window
from avatar_operator.domain.resources import (
    Avatar,
    AvatarData,
    Gpu,
    HostPathSource,
    IceServer,
    ImageSource,
    Limits,
    Network,
    Pool,
    PoolTts,
    Probes,
    PvcSource,
    SecretKey,
    Termination,
    TtsChoice,
)
from avatar_operator.domain.settings import resolve
from tests.unit.builders import IMAGE, PORT, avatar, group_of, instance, pool

LABELS = {
    "app.kubernetes.io/managed-by": "avatar-operator",
    "app.kubernetes.io/component": "avatar-runtime",
    "avatars.virtualtutor.io/pool": "default",
    "avatars.virtualtutor.io/port": "8615",
}

ENV = [
    {"name": "AVATAR_NAME", "value": "Ada"},
    {"name": "AVATAR_PORT", "value": "8615"},
    {"name": "AVATAR_DRAIN_SECONDS", "value": "30"},
]
HOST_IPS = {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.hostIPs"}}


def made(in_pool: Pool, of: Avatar | None = None, port: int = PORT, **spec: Any) -> dict[str, Any]:
    """The pod for one instance of Ada."""
    one = instance(**spec)
    settings = resolve(one, in_pool, of or avatar(one.spec.avatar_name))
    return objects.pod(in_pool, [one], settings, group_of(one), port)


def container(body: dict[str, Any]) -> dict[str, Any]:
    (found,) = body["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def expected(**changes: Any) -> dict[str, Any]:
    """The pod of a CPU pool in HostNetwork mode; ``changes`` to its spec and, by ``container``, its container."""
    inside = changes.pop("container", {})
    probe = {"httpGet": {"path": "/health", "port": 8615}, "timeoutSeconds": 3}
    runtime = {
        "name": "runtime",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "args": [
            "--avatar_id=Ada",
            "--transport=webrtc",
            "--model=musetalk",
            "--max_session=100",
            "--tts=edgetts",
            "--listenport=8615",
        ],
        "env": ENV,
        "ports": [{"name": "signalling", "containerPort": 8615, "hostPort": 8615, "protocol": "TCP"}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "readinessProbe": {**probe, "periodSeconds": 1, "failureThreshold": 3},
        "livenessProbe": {**probe, "periodSeconds": 10, "failureThreshold": 6, "initialDelaySeconds": 30},
        **inside,
    }
    spec = {
        "containers": [{k: v for k, v in runtime.items() if v is not None}],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": 35,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "hostNetwork": True,
        "dnsPolicy": "ClusterFirstWithHostNet",
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
        ],
        **changes,
    }
    one = instance()
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "avatar-8615",
            "namespace": "live",
            "labels": {
                **LABELS,
                "avatars.virtualtutor.io/group": group_of(one),
                "avatars.virtualtutor.io/in-use": "new",
            },
            "annotations": {
                "avatars.virtualtutor.io/avatar-name": "Ada",
                "avatars.virtualtutor.io/tts-engine": "",
                "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
            },
            "ownerReferences": [
                {
                    "apiVersion": "avatars.virtualtutor.io/v1alpha1",
                    "kind": "AvatarInstance",
                    "name": "one",
                    "uid": "uid-one",
                    "controller": True,
                    "blockOwnerDeletion": False,
                }
            ],
        },
        "spec": {k: v for k, v in spec.items() if v is not None},
    }


CLUSTER_NETWORK = {"hostNetwork": False, "dnsPolicy": "ClusterFirst"}
SIGNALLING = {"name": "signalling", "containerPort": 8615, "protocol": "TCP"}
SECURITY = expected()["spec"]["securityContext"]


def with_data(source: dict[str, Any], sub_path: str = "") -> dict[str, Any]:
    """The pod with the avatar's files from a volume."""
    mount = {"name": "avatar-data", "mountPath": "/app/data/avatars/Ada", "readOnly": True}
    mount |= {"subPath": sub_path} if sub_path else {}
    return expected(volumes=[{"name": "avatar-data", **source}], container={"volumeMounts": [mount]})


@pytest.mark.parametrize(
    ("in_pool", "of", "whole"),
    [
        pytest.param(pool(), avatar(), expected(), id="cpu-HostNetwork"),
        pytest.param(
            pool(network=Network(mode="Pod")),
            avatar(),
            expected(**CLUSTER_NETWORK, container={"ports": [SIGNALLING]}),
            id="Pod",
        ),
        pytest.param(
            pool(network=Network(mode="HostPort", udp_port_base=50000, udp_ports_per_instance=3)),
            avatar(),
            expected(
                **CLUSTER_NETWORK,
                securityContext={
                    **SECURITY,
                    "sysctls": [{"name": "net.ipv4.ip_local_port_range", "value": "50000 50002"}],
                },
                container={
                    "ports": [
                        {**SIGNALLING, "hostPort": 8615},
                        {"containerPort": 50000, "hostPort": 50000, "protocol": "UDP"},
                        {"containerPort": 50001, "hostPort": 50001, "protocol": "UDP"},
                        {"containerPort": 50002, "hostPort": 50002, "protocol": "UDP"},
                    ],
                    "env": [*ENV, {"name": "AVATAR_MEDIA_HOST", "valueFrom": HOST_IPS}],
                },
            ),
            id="HostPort",
        ),
        pytest.param(
            pool(network=Network(mode="HostPort", external_host="203.0.113.5", udp_ports_per_instance=1)),
            avatar(),
            expected(
                **CLUSTER_NETWORK,
                securityContext={
                    **SECURITY,
                    "sysctls": [{"name": "net.ipv4.ip_local_port_range", "value": "50000 50000"}],
                },
                container={
                    "ports": [
                        {**SIGNALLING, "hostPort": 8615},
                        {"containerPort": 50000, "hostPort": 50000, "protocol": "UDP"},
                    ],
                    "env": [*ENV, {"name": "AVATAR_MEDIA_HOST", "value": "203.0.113.5"}],
                },
            ),
            id="HostPort-externalHost",
        ),
        pytest.param(
            pool(
                network=Network(
                    mode="Relay",
                    external_host="signalling.example.org",
                    ice_servers=[
                        IceServer(urls=["turn:turn.example.org"]),
                        IceServer(urls=["turn:other.example.org"], username="u", credential="a$(b)"),
                    ],
                    turn_secret_ref=SecretKey(name="turn"),
                )
            ),
            avatar(),
            expected(
                **CLUSTER_NETWORK,
                volumes=[
                    {
                        "name": "turn-secret",
                        "secret": {
                            "secretName": "turn",
                            "items": [{"key": "secret", "path": "secret"}],
                            "defaultMode": 0o444,
                            "optional": True,
                        },
                    }
                ],
                container={
                    "ports": [SIGNALLING],
                    "volumeMounts": [{"name": "turn-secret", "mountPath": "/run/avatar-turn", "readOnly": True}],
                    "env": [
                        *ENV,
                        {
                            "name": "AVATAR_ICE_SERVERS",
                            "value": '[{"urls":["turn:turn.example.org"]},'
                            '{"urls":["turn:other.example.org"],"username":"u","credential":"a$$(b)"}]',
                        },
                        {"name": "AVATAR_ICE_USE", "value": "probe"},
                        {"name": "AVATAR_TURN_SECRET_FILE", "value": "/run/avatar-turn/secret"},
                    ],
                },
            ),
            id="Relay",
        ),
        pytest.param(
            pool(
                gpu=Gpu(mode="DevicePlugin", resource_name="nvidia.com/gpu.shared", runtime_class_name="nvidia"),
                runtime={"resources": {"requests": {"cpu": "2"}, "limits": {"memory": "8Gi"}}},
            ),
            avatar(),
            expected(
                runtimeClassName="nvidia",
                container={"resources": {"requests": {"cpu": "2"}, "limits": {"memory": "8Gi"}}},
            ),
            id="gpu-before-its-placement",
        ),
        pytest.param(
            pool(),
            avatar(data=AvatarData(pvc=PvcSource(claim_name="faces", sub_path="team/ada"))),
            with_data({"persistentVolumeClaim": {"claimName": "faces", "readOnly": True}}, "team/ada"),
            id="pvc",
        ),
        pytest.param(
            pool(),
            avatar(data=AvatarData(pvc=PvcSource(claim_name="ada"))),
            with_data({"persistentVolumeClaim": {"claimName": "ada", "readOnly": True}}),
            id="pvc-root",
        ),
        pytest.param(
            pool(),
            avatar(data=AvatarData(image=ImageSource(reference="registry.example/ada:1", pull_policy="Always"))),
            with_data({"image": {"reference": "registry.example/ada:1", "pullPolicy": "Always"}}),
            id="image",
        ),
        pytest.param(
            pool(limits=Limits(allow_host_path=True)),
            avatar(data=AvatarData(host_path=HostPathSource(path="/srv/faces/ada"))),
            with_data({"hostPath": {"path": "/srv/faces/ada", "type": "Directory"}}),
            id="hostPath",
        ),
        pytest.param(
            pool(
                runtime={
                    "image_pull_policy": "Always",
                    "image_pull_secrets": [{"name": "registry"}],
                    "command": ["python", "app.py"],
                    "args_style": "None",
                    "extra_args": ["--fps", "25"],
                    "env": [{"name": "TZ", "value": "UTC"}],
                    "volumes": [{"name": "models", "persistentVolumeClaim": {"claimName": "models"}}],
                    "volume_mounts": [{"name": "models", "mountPath": "/models"}],
                    "node_selector": {"gpu": "yes"},
                    "tolerations": [{"operator": "Exists"}],
                    "affinity": {"nodeAffinity": {}},
                    "priority_class_name": "high",
                    "scheduler_name": "mine",
                    "service_account_name": "runtime",
                    "pod_security_context": {"runAsUser": 0},
                    "security_context": {"privileged": True},
                    "probes": Probes(
                        path="",
                        period_seconds=2,
                        timeout_seconds=4,
                        failure_threshold=5,
                        liveness_period_seconds=6,
                        liveness_failure_threshold=7,
                    ),
                },
                termination=Termination(drain_seconds=0),
                startup_timeout_seconds=99,
            ),
            avatar(),
            expected(
                imagePullSecrets=[{"name": "registry"}],
                volumes=[{"name": "models", "persistentVolumeClaim": {"claimName": "models"}}],
                nodeSelector={"gpu": "yes"},
                tolerations=[{"operator": "Exists"}],
                affinity={"nodeAffinity": {}},
                priorityClassName="high",
                schedulerName="mine",
                serviceAccountName="runtime",
                automountServiceAccountToken=True,
                securityContext={"runAsUser": 0},
                terminationGracePeriodSeconds=5,
                container={
                    "imagePullPolicy": "Always",
                    "command": ["python", "app.py"],
                    "args": ["--fps", "25"],
                    "env": [
                        {"name": "AVATAR_NAME", "value": "Ada"},
                        {"name": "AVATAR_PORT", "value": "8615"},
                        {"name": "AVATAR_DRAIN_SECONDS", "value": "0"},
                        {"name": "TZ", "value": "UTC"},
                    ],
                    "volumeMounts": [{"name": "models", "mountPath": "/models"}],
                    "securityContext": {"privileged": True},
                    "readinessProbe": {
                        "tcpSocket": {"port": 8615},
                        "periodSeconds": 2,
                        "timeoutSeconds": 4,
                        "failureThreshold": 5,
                    },
                    "livenessProbe": {
                        "tcpSocket": {"port": 8615},
                        "periodSeconds": 6,
                        "timeoutSeconds": 4,
                        "failureThreshold": 7,
                        "initialDelaySeconds": 99,
                    },
                },
            ),
            id="everything-that-a-pool-can-say",
        ),
    ],
)
def test_pod(in_pool: Pool, of: Avatar, whole: dict[str, Any]) -> None:
    body = made(in_pool, of)
    template = body["metadata"]["annotations"].pop(names.ANNOTATION_TEMPLATE)
    assert len(template) == 16
    assert body == whole


def test_service() -> None:
    one = instance()
    group = group_of(one)
    assert objects.service(one, group, 8615) == {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "avatar-8615",
            "namespace": "live",
            "labels": {**LABELS, "avatars.virtualtutor.io/group": group},
            "annotations": {"avatars.virtualtutor.io/avatar-name": "Ada"},
        },
        "spec": {
            "selector": {"avatars.virtualtutor.io/group": group, "avatars.virtualtutor.io/port": "8615"},
            "ports": [{"name": "signalling", "port": 8615, "targetPort": 8615, "protocol": "TCP"}],
            "publishNotReadyAddresses": True,
            "clusterIP": "None",
        },
    }


def test_the_service_selects_the_pod() -> None:
    one = instance()
    selector = objects.service(one, group_of(one), 8615)["spec"]["selector"]
    assert selector.items() <= made(pool())["metadata"]["labels"].items()


# ---- arguments ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "Ada Lovelace",
        "42",
        "-rf",
        "--help",
        "Ада Лавлейс",
        "$(reboot)",
        "a;b|c&d",
        "'\"`",
        "--avatar_id=other",
        "名 前",
    ],
)
def test_any_name_is_one_argument(name: str) -> None:
    body = made(pool(), avatar(name), avatar_name=name)
    args = container(body)["args"]
    assert isinstance(args, list)
    assert all(isinstance(a, str) for a in args)
    assert args[0] == f"--avatar_id={name}"
    assert len(args) == 6
    assert "command" not in container(body), "no shell stands between"
    assert container(body)["env"][0] == {"name": "AVATAR_NAME", "value": name}
    assert body["metadata"]["annotations"][names.ANNOTATION_AVATAR] == name
    assert name not in body["metadata"]["labels"].values()


def test_all_flags() -> None:
    tts = PoolTts(engine="GPT-SoVITS", voice="-odd voice", url="http://avatar-tts:5002")
    body = made(
        pool(tts=tts, runtime={"extra_args": ["--fps", "25"]}), model="wav2lip", transport="rtmp", max_sessions=3
    )
    assert container(body)["args"] == [
        "--avatar_id=Ada",
        "--transport=rtmp",
        "--model=wav2lip",
        "--max_session=3",
        "--tts=gpt-sovits",
        "--TTS_SERVER=http://avatar-tts:5002",
        "--REF_FILE=-odd voice",
        "--listenport=8615",
        "--fps",
        "25",
    ]


# ---- labels and owners ----------------------------------------------------------------


def test_pod_labels_cannot_replace_what_selects_the_pod() -> None:
    evil = dict.fromkeys([*LABELS, "avatars.virtualtutor.io/group"], "evil") | {"team": "lips"}
    notes = {names.ANNOTATION_AVATAR: "evil", names.ANNOTATION_TEMPLATE: "evil", "note": "x"}
    body = made(pool(runtime={"pod_labels": evil, "pod_annotations": notes}))
    assert body["metadata"]["labels"] == {**expected()["metadata"]["labels"], "team": "lips"}
    assert body["metadata"]["annotations"] == {
        "note": "x",
        names.ANNOTATION_AVATAR: "Ada",
        names.ANNOTATION_TEMPLATE: objects.template_hash(made(pool())),
        names.ANNOTATION_TTS: "",
        names.ANNOTATION_SAFE_TO_EVICT: "false",
    }


def test_every_sharer_owns_the_pod_and_one_controls_it() -> None:
    members = [instance("one"), instance("two"), instance("three")]
    body = objects.pod(pool(), members, resolve(members[0], pool(), avatar()), group_of(members[0]), PORT)
    owners = body["metadata"]["ownerReferences"]
    assert [(o["name"], o["controller"]) for o in owners] == [("one", True), ("two", False), ("three", False)]
    assert not any(o["blockOwnerDeletion"] for o in owners)


def test_what_a_pool_gave_is_not_changed() -> None:
    context: dict[str, Any] = {"sysctls": [{"name": "net.core.somaxconn", "value": "1024"}]}
    resources: dict[str, Any] = {"limits": {"memory": "8Gi"}}
    shared = pool(
        network=Network(mode="HostPort"),
        gpu=Gpu(mode="DevicePlugin"),
        runtime={"pod_security_context": context, "resources": resources},
    )
    first, second = made(shared), made(shared, port=8616)
    for body, value in ((first, "50000 50019"), (second, "50020 50039")):
        sysctls = body["spec"]["securityContext"]["sysctls"]
        assert [s["name"] for s in sysctls] == ["net.core.somaxconn", "net.ipv4.ip_local_port_range"]
        assert sysctls[1]["value"] == value
    assert context == {"sysctls": [{"name": "net.core.somaxconn", "value": "1024"}]}
    assert resources == {"limits": {"memory": "8Gi"}}


# ---- windows and templates --------------------------------------------------------------


def test_udp_windows_do_not_meet() -> None:
    in_pool = pool(network=Network(mode="HostPort", udp_port_base=40000, udp_ports_per_instance=7))
    windows = [udp_window(in_pool, port) for port in range(8615, 8620)]
    assert windows[0] == range(40000, 40007)
    assert [port for window in windows for port in window] == list(range(40000, 40035))


@pytest.mark.parametrize(
    ("in_pool", "spec", "same"),
    [
        pytest.param(pool(), {}, True, id="nothing"),
        pytest.param(pool(max_instances=2), {}, True, id="what-the-pod-does-not-hold"),
        pytest.param(pool(image="registry.example/runtime:2"), {}, False, id="image"),
        pytest.param(pool(runtime={"pod_labels": {"team": "lips"}}), {}, True, id="labels-roll-nothing"),
        pytest.param(pool(), {"max_sessions": 7}, False, id="an-override"),
        pytest.param(pool(), {"tts": TtsChoice(voice="x")}, False, id="voice"),
        pytest.param(pool(), {"name": "two"}, True, id="another-owner"),
    ],
)
def test_template_hash_differs_when_the_pod_would(in_pool: Pool, spec: dict[str, Any], same: bool) -> None:
    changed = objects.template_hash(made(in_pool, **spec))
    assert (changed == objects.template_hash(made(pool()))) is same
