"""The resource definitions: what they say about themselves, and what a real API server makes of them.

The cluster half sends each good and bad object through `kubectl apply --dry-run=server --validate=strict`, so
that what is checked is the sentence a person sees, not the schema's text.
"""

import json
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml

CRDS = Path(__file__).resolve().parents[2] / "crds"
GROUP = "avatars.virtualtutor.io"
FILES = sorted(CRDS.glob("*.yaml"))
Kubectl = Callable[..., CompletedProcess[str]]


def load(path: Path) -> dict[str, Any]:
    with path.open(encoding="utf-8") as file:
        document: dict[str, Any] = yaml.safe_load(file)
    return document


def schema_of(crd: dict[str, Any]) -> dict[str, Any]:
    (version,) = crd["spec"]["versions"]
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return schema


def walk(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema node below `schema`, with its path, itself included."""
    yield path or ".", schema
    for name, child in schema.get("properties", {}).items():
        yield from walk(child, f"{path}.{name}")
    if "items" in schema:
        yield from walk(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from walk(schema["additionalProperties"], f"{path}.*")


EACH_FILE = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def nodes(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema node of a definition but metadata, where the API server allows nothing but a type."""
    return ((path, node) for path, node in walk(schema_of(load(file))) if path != ".metadata")


def test_the_resources_are_there() -> None:
    assert [file.stem for file in FILES] == ["avatarinstances", "avatarpools", "avatars", "gpunodes", "ttsengines"]


@EACH_FILE
def test_names_categories_and_status(file: Path) -> None:
    crd = load(file)
    spec = crd["spec"]
    assert crd["metadata"]["name"] == f"{file.stem}.{GROUP}"
    scope = "Cluster" if file.stem == "gpunodes" else "Namespaced"
    assert (spec["group"], spec["scope"], spec["names"]["plural"]) == (GROUP, scope, file.stem)
    short_names = {
        "avatarinstances": ["avi"],
        "avatars": ["av"],
        "avatarpools": ["avp"],
        "gpunodes": ["gpun"],
        "ttsengines": ["tts"],
    }
    assert spec["names"]["shortNames"] == short_names[file.stem]
    assert spec["names"]["categories"] == ["avatar-operator"]
    (version,) = spec["versions"]
    assert version["name"] == "v1alpha1"
    assert version["subresources"] == {"status": {}}


def test_instance_columns_in_the_order_people_read_them() -> None:
    (version,) = load(CRDS / "avatarinstances.yaml")["spec"]["versions"]
    columns = [(column["name"], column.get("priority", 0)) for column in version["additionalPrinterColumns"]]
    assert [name for name, priority in columns if priority == 0] == [
        "Avatar", "Phase", "Port", "GPU", "Connections", "Idle-Until", "Age",
    ]  # fmt: skip
    assert [name for name, priority in columns if priority == 1] == ["Node", "Pod", "URL", "Reason"]


def test_every_list_of_a_report_has_its_keys() -> None:
    """Two writers share status: what has no keys would be replaced as a whole."""
    keys = {
        path: tuple(node.get("x-kubernetes-list-map-keys", ()))
        for path, node in nodes(CRDS / "gpunodes.yaml")
        if node["type"] == "array" and node["items"]["type"] == "object"
    }
    assert keys == {
        ".status.gpus": ("uuid",),
        ".status.gpus[].pods": ("uid",),
        ".status.gpus[].alerts": ("type",),
        ".status.conditions": ("type",),
        ".status.reservations": ("uuid", "namespace", "pod"),
    }


@EACH_FILE
def test_every_field_is_described_and_typed(file: Path) -> None:
    for path, node in nodes(file):
        description = node.get("description", "")
        assert len(description) >= 10, f"{path} has no description that says something"
        assert description[0].isupper(), f"{path}: {description!r}"
        assert description.endswith("."), f"{path}: {description!r}"
        assert node["type"] in {"object", "array", "string", "integer", "boolean"}, path


@EACH_FILE
def test_every_field_has_bounds(file: Path) -> None:
    """Bounds keep one object from filling the store, and CEL's estimated cost within its budget."""
    for path, node in nodes(file):
        if node["type"] == "integer":
            assert "format" in node, f"{path} has no format"
            assert "minimum" in node or path.endswith(".exitCode"), f"{path} has no minimum"
        elif node["type"] == "array":
            assert "maxItems" in node, f"{path} has no maxItems"
        elif node["type"] == "string" and path not in {".apiVersion", ".kind"}:
            assert {"enum", "maxLength", "format"} & set(node), f"{path} has no enum, maxLength or format"
        elif "additionalProperties" in node:
            assert "maxProperties" in node, f"{path} has no maxProperties"


@EACH_FILE
def test_defaults_fit_their_own_field(file: Path) -> None:
    types = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
    for path, node in nodes(file):
        if "default" not in node:
            continue
        default = node["default"]
        assert isinstance(default, types[node["type"]]), f"{path}: {default!r}"
        assert "enum" not in node or default in node["enum"], path
        if node["type"] == "integer":
            assert node["minimum"] <= default <= node["maximum"], path


@EACH_FILE
def test_every_rule_names_its_field_and_a_remedy(file: Path) -> None:
    for path, node in nodes(file):
        for rule in node.get("x-kubernetes-validations", []):
            message = rule["message"]
            assert re.match(r"(spec|metadata)\.[a-zA-Z.\[\]]+", message), f"{path}: {message}"
            assert re.search(r": .+| must | may not ", message), f"{path} gives no remedy: {message}"


def test_transports_and_models_agree_everywhere() -> None:
    """The same word must be good in every resource, as one overrides the other."""
    found: dict[str, set[tuple[str, ...]]] = {}
    for file in FILES:
        for path, node in walk(schema_of(load(file))):
            leaf = path.rsplit(".", 1)[-1]
            if leaf in {"model", "transport"} and path.startswith(".spec"):
                found.setdefault(leaf, set()).add(tuple(node["enum"]))
    assert {leaf: len(spellings) for leaf, spellings in found.items()} == {
        "model": 1, "transport": 1,
    }  # fmt: skip


def test_avatar_name_is_the_same_in_avatar_and_instance() -> None:
    names = [schema_of(load(CRDS / f"{plural}.yaml")) for plural in ("avatars", "avatarinstances")]
    avatar, instance = (schema["properties"]["spec"]["properties"]["avatarName"] for schema in names)
    rules = [{rule["rule"] for rule in field["x-kubernetes-validations"]} for field in (avatar, instance)]
    assert rules[0] <= rules[1]
    assert (avatar["minLength"], avatar["maxLength"]) == (instance["minLength"], instance["maxLength"]) == (1, 128)


# ---------------------------------------------------------------------------------------- a real API server


POOL = {"runtime": {"image": "example.org/runtime:1"}}
INSTANCE = {"avatarName": "ada"}
AVATAR = {"avatarName": "ada"}
ENGINE = {"image": "example.org/tts:1", "protocol": "edgetts"}


def manifest(kind: str, spec: Any, name: str = "sample") -> str:
    """One object as JSON, which kubectl takes like YAML, control characters and all."""
    api_version = f"{GROUP}/v1alpha1"
    return json.dumps({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, "spec": spec})


GOOD = [
    ("AvatarInstance", INSTANCE),
    ("AvatarInstance", {"avatarName": "7"}),
    ("AvatarInstance", {"avatarName": "Professor Ünal Öz 2"}),
    ("AvatarInstance", {"avatarName": "数学老师"}),
    ("AvatarInstance", {"avatarName": "a" * 128, "avatarId": "user 1/αβγ"}),
    ("AvatarInstance", INSTANCE | {"idle": {"timeoutSeconds": 0, "action": "Sleep"}}),
    ("AvatarInstance", INSTANCE | {"tts": {"engine": "GPT-SoVITS", "voice": "en-US-BrianNeural"}}),
    (
        "AvatarInstance",
        INSTANCE | {"maxSessions": 1000, "model": "wav2lip", "transport": "rtmp", "startupTimeoutSeconds": 1},
    ),
    ("Avatar", AVATAR),
    ("Avatar", AVATAR | {"data": {"pvc": {"claimName": "avatars", "subPath": "people/ada"}}}),
    ("Avatar", AVATAR | {"data": {"image": {"reference": "example.org/ada:1"}}, "keepWarm": True}),
    ("Avatar", AVATAR | {"data": {"hostPath": {"path": "/srv/avatars/ada"}}, "vramMiB": 6000}),
    ("Avatar", AVATAR | {"vramMiB": 6000, "minFreeMiB": 0}),
    ("AvatarPool", POOL),
    ("AvatarPool", POOL | {"ports": {"base": 65531}, "maxInstances": 5}),
    ("AvatarPool", POOL | {"ports": {"base": 1, "count": 65535}}),
    (
        "AvatarPool",
        POOL | {"network": {"mode": "Pod", "iceServers": [{"urls": ["turns:turn.example.org:443"]}]}},
    ),
    ("AvatarPool", POOL | {"network": {"externalHost": "fd00::7"}}),
    (
        "AvatarPool",
        POOL
        | {
            "gpu": {
                "mode": "VisibleDevices",
                "primary": {"indices": [1]},
                "backup": {"indices": [0]},
                "runtimeClassName": "nvidia",
            }
        },
    ),
    ("AvatarPool", POOL | {"gpu": {"primary": {"products": ["NVIDIA L4"]}, "backup": {}, "estimates": "Fixed"}}),
    ("AvatarPool", POOL | {"gpu": {"primary": {}}}),
    (
        "AvatarPool",
        POOL
        | {
            "gpu": {
                "mode": "DRA",
                "primary": {"uuids": ["GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"]},
                "estimates": "Learned",
                "dra": {"deviceClassName": "shared-gpus", "driver": "gpu.example.org", "capacity": "memory"},
            }
        },
    ),
    ("AvatarInstance", INSTANCE | {"tts": {"engine": "what nobody knows"}}),
    ("TTSEngine", ENGINE),
    (
        "TTSEngine",
        {
            "image": "example.org/cosyvoice:1",
            "protocol": "cosyvoice",
            "aliases": ["CosyVoice", "cosyvoice2"],
            "speaks": ["cosyvoice", "omnitts"],
            "port": 50000,
            "healthPath": "",
            "fallback": "edgetts",
            "command": ["python3", "server.py"],
            "resources": {"limits": {"memory": "8Gi"}},
            "gpu": {"mode": "VisibleDevices", "primary": {"indices": [0]}, "vramMiB": 6000},
        },
    ),
    ("TTSEngine", ENGINE | {"minReplicas": 1, "maxReplicas": 3, "usersPerReplica": 4, "idleTimeoutSeconds": 0}),
    ("GPUNode", {}),
    ("GPUNode", {"cordoned": ["GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", "MIG-GPU-8932f937/1/0"]}),
    (
        "AvatarPool",
        {
            "runtime": {
                "image": "example.org/livetalking:1",
                "command": ["python", "app.py"],
                "extraArgs": ["--fps", "25"],
                "env": [
                    {"name": "A", "value": "b"},
                    {"name": "K", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                ],
                "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}},
                "volumes": [{"name": "models", "persistentVolumeClaim": {"claimName": "models"}}],
                "volumeMounts": [{"name": "models", "mountPath": "/app/models", "readOnly": True}],
                "tolerations": [{"key": "gpu", "operator": "Exists"}],
                "affinity": {"nodeAffinity": {}},
                "nodeSelector": {"gpu": "yes"},
                "podSecurityContext": {"fsGroup": 1000},
                "securityContext": {"runAsUser": 0},
            }
        },
    ),
]

# kind, spec, what the message must say: the field first, then words of the remedy or the limit.
BAD: list[tuple[str, Any, list[str]]] = [
    ("AvatarInstance", {}, ["spec.avatarName", "Required"]),
    ("AvatarInstance", {"avatarName": ""}, ["spec.avatarName", "at least 1 char"]),
    ("AvatarInstance", {"avatarName": "   "}, ["spec.avatarName", "white space: remove it"]),
    ("AvatarInstance", {"avatarName": "ada "}, ["spec.avatarName", "white space: remove it"]),
    ("AvatarInstance", {"avatarName": "\u3000ada"}, ["spec.avatarName", "white space: remove it"]),
    ("AvatarInstance", {"avatarName": "a\x00b"}, ["spec.avatarName", "control character", "remove it"]),
    ("AvatarInstance", {"avatarName": "a\nb"}, ["spec.avatarName", "control character", "remove it"]),
    ("AvatarInstance", {"avatarName": "a\x7fb"}, ["spec.avatarName", "control character", "remove it"]),
    ("AvatarInstance", {"avatarName": "a\x9bb"}, ["spec.avatarName", "control character", "remove it"]),
    ("AvatarInstance", {"avatarName": "a\u2028b"}, ["spec.avatarName", "control character", "remove it"]),
    ("AvatarInstance", {"avatarName": "../etc"}, ["spec.avatarName", "may not", "name of an Avatar"]),
    ("AvatarInstance", {"avatarName": "a\\b"}, ["spec.avatarName", "may not", "name of an Avatar"]),
    ("AvatarInstance", {"avatarName": ".."}, ["spec.avatarName", "may not", "name of an Avatar"]),
    ("AvatarInstance", {"avatarName": "--help"}, ["spec.avatarName", "may not begin with '-'"]),
    ("AvatarInstance", {"avatarName": "a" * 129}, ["spec.avatarName", "128"]),
    ("AvatarInstance", {"avatarName": 7}, ["spec.avatarName", "must be of type string"]),
    ("AvatarInstance", INSTANCE | {"avatarId": ""}, ["spec.avatarId", "at least 1 char"]),
    ("AvatarInstance", INSTANCE | {"avatarId": "a\tb"}, ["spec.avatarId", "control character"]),
    ("AvatarInstance", INSTANCE | {"poolRef": "Gpu Pool"}, ["spec.poolRef", "lower-case", "kubectl get"]),
    ("AvatarInstance", INSTANCE | {"maxSessions": 0}, ["spec.maxSessions", "greater than or equal to 1"]),
    ("AvatarInstance", INSTANCE | {"maxSessions": -5}, ["spec.maxSessions", "greater than or equal to 1"]),
    ("AvatarInstance", INSTANCE | {"maxSessions": 1001}, ["spec.maxSessions", "1000"]),
    ("AvatarInstance", INSTANCE | {"maxSessions": 1.5}, ["spec.maxSessions", "must be of type integer"]),
    (
        "AvatarInstance",
        INSTANCE | {"idle": {"timeoutSeconds": -1}},
        ["spec.idle.timeoutSeconds", "greater than or equal to 0"],
    ),
    ("AvatarInstance", INSTANCE | {"idle": {"action": "Explode"}}, ["spec.idle.action", '"Delete", "Sleep"']),
    ("AvatarInstance", INSTANCE | {"startupTimeoutSeconds": 0}, ["spec.startupTimeoutSeconds", "equal to 1"]),
    (
        "AvatarInstance",
        INSTANCE | {"startupTimeoutSeconds": -1},
        ["spec.startupTimeoutSeconds", "equal to 1"],
    ),
    (
        "AvatarInstance",
        INSTANCE | {"transport": "carrier-pigeon"},
        ["spec.transport", '"webrtc"', '"rtcpush"'],
    ),
    ("AvatarInstance", INSTANCE | {"model": "gpt"}, ["spec.model", '"musetalk"', '"ultralight"']),
    ("AvatarInstance", INSTANCE | {"tts": {"engine": "-x"}}, ["spec.tts.engine", "begins with '-'"]),
    ("AvatarInstance", INSTANCE | {"tts": {"engine": "a" * 65}}, ["spec.tts.engine", "64"]),
    ("TTSEngine", {}, ["spec.image", "Required"]),
    ("TTSEngine", {"image": "x"}, ["spec.protocol", "Required"]),
    ("TTSEngine", ENGINE | {"protocol": "telepathy"}, ["spec.protocol", '"cosyvoice"']),
    ("TTSEngine", ENGINE | {"minReplicas": 2}, ["spec.minReplicas", "raise maxReplicas"]),
    ("TTSEngine", ENGINE | {"healthPath": "health"}, ["spec.healthPath", "begin with '/'"]),
    (
        "TTSEngine",
        ENGINE | {"gpu": {"mode": "VisibleDevices"}, "maxReplicas": 2},
        ["spec.maxReplicas", "must be 1", "second engine"],
    ),
    ("TTSEngine", ENGINE | {"gpu": {"mode": "DRA"}}, ["spec.gpu.mode", '"HAMi"']),
    ("TTSEngine", ENGINE | {"gpu": {"backup": {"indices": [0]}}}, ["spec.gpu.backup", "remove backup"]),
    ("AvatarInstance", INSTANCE | {"tts": {"voice": "--x"}}, ["spec.tts.voice", "begins with '-'"]),
    ("AvatarInstance", INSTANCE | {"maxsessions": 3}, ['unknown field "spec.maxsessions"']),
    ("AvatarInstance", INSTANCE | {"image": "evil:1"}, ['unknown field "spec.image"']),
    ("Avatar", {"avatarName": ""}, ["spec.avatarName", "at least 1 char"]),
    ("Avatar", {"avatarName": "a\nb"}, ["spec.avatarName", "control character", "remove it"]),
    ("Avatar", {"avatarName": "a/b"}, ["spec.avatarName", "may not"]),
    ("Avatar", AVATAR | {"data": {}}, ["spec.data", "exactly one of builtIn, pvc, image and hostPath"]),
    (
        "Avatar",
        AVATAR | {"data": {"builtIn": True, "pvc": {"claimName": "a"}}},
        ["spec.data", "exactly one", "remove the others"],
    ),
    ("Avatar", AVATAR | {"data": {"builtIn": False}}, ["spec.data.builtIn", "name another source"]),
    ("Avatar", AVATAR | {"data": {"pvc": {}}}, ["spec.data.pvc.claimName", "Required"]),
    ("Avatar", AVATAR | {"data": {"pvc": {"claimName": "A b"}}}, ["spec.data.pvc.claimName", "lower-case"]),
    (
        "Avatar",
        AVATAR | {"data": {"pvc": {"claimName": "a", "subPath": "../b"}}},
        ["spec.data.pvc.subPath", "may not hold '..'"],
    ),
    ("Avatar", AVATAR | {"data": {"hostPath": {"path": "srv"}}}, ["spec.data.hostPath.path", "absolute"]),
    ("Avatar", AVATAR | {"data": {"hostPath": {"path": "/a/../b"}}}, ["spec.data.hostPath.path", "'..'"]),
    ("Avatar", AVATAR | {"maxSessions": 0}, ["spec.maxSessions", "greater than or equal to 1"]),
    ("Avatar", AVATAR | {"vramMiB": -1}, ["spec.vramMiB", "greater than or equal to 1"]),
    ("AvatarPool", {}, ["spec.runtime", "Required"]),
    ("AvatarPool", {"runtime": {}}, ["spec.runtime.image", "Required"]),
    ("AvatarPool", {"runtime": {"image": "a b"}}, ["spec.runtime.image", "remove it"]),
    ("AvatarPool", POOL | {"ports": {"base": 0}}, ["spec.ports.base", "greater than or equal to 1"]),
    ("AvatarPool", POOL | {"ports": {"base": 65536}}, ["spec.ports.base", "65535"]),
    ("AvatarPool", POOL | {"ports": {"count": 0}}, ["spec.ports.count", "greater than or equal to 1"]),
    ("AvatarPool", POOL | {"ports": {"base": 65532}}, ["spec.ports", "65535", "lower base or count"]),
    ("AvatarPool", POOL | {"maxInstances": 6}, ["spec.maxInstances", "lower it or raise ports.count"]),
    ("AvatarPool", POOL | {"maxInstances": 0}, ["spec.maxInstances", "greater than or equal to 1"]),
    ("AvatarPool", POOL | {"limits": {"maxSessions": 9}}, ["spec.defaults.maxSessions", "set both"]),
    ("AvatarPool", POOL | {"defaults": {"maxSessions": 0}}, ["spec.defaults.maxSessions", "equal to 1"]),
    ("AvatarPool", POOL | {"defaults": {"transport": "x"}}, ["spec.defaults.transport", '"webrtc"']),
    ("AvatarPool", POOL | {"defaults": {"model": "x"}}, ["spec.defaults.model", '"musetalk"']),
    ("AvatarPool", POOL | {"tts": {"engine": ""}}, ["spec.tts.engine", "at least 1 char"]),
    ("AvatarPool", POOL | {"tts": {"url": "avatar-tts:5002"}}, ["spec.tts.url", "http://"]),
    ("AvatarPool", POOL | {"idle": {"timeoutSeconds": -1}}, ["spec.idle.timeoutSeconds", "equal to 0"]),
    (
        "AvatarPool",
        POOL | {"idle": {"connectionLeakSeconds": -1}},
        ["spec.idle.connectionLeakSeconds", "equal to"],
    ),
    ("AvatarPool", POOL | {"startupTimeoutSeconds": -1}, ["spec.startupTimeoutSeconds", "equal to 1"]),
    (
        "AvatarPool",
        POOL | {"termination": {"drainSeconds": -1}},
        ["spec.termination.drainSeconds", "equal to 0"],
    ),
    ("AvatarPool", POOL | {"queue": {"timeoutSeconds": -1}}, ["spec.queue.timeoutSeconds", "equal to 0"]),
    ("AvatarPool", POOL | {"network": {"mode": "Bridge"}}, ["spec.network.mode", '"HostNetwork"']),
    (
        "AvatarPool",
        POOL | {"network": {"mode": "HostPort", "udpPortBase": 65500}},
        ["spec.network.udpPortBase", "lower one of them"],
    ),
    (
        "AvatarPool",
        POOL | {"network": {"mode": "Relay", "iceServers": [{"urls": ["stun:192.0.2.1"]}]}},
        ["spec.network.iceServers", "needs a TURN server"],
    ),
    (
        "AvatarPool",
        POOL | {"network": {"externalHost": "http://box:8615"}},
        ["spec.network.externalHost", "leave out scheme, port and path"],
    ),
    (
        "AvatarPool",
        POOL | {"network": {"iceServers": [{"urls": ["http://x"]}]}},
        ["spec.network.iceServers[0].urls[0]", "must begin with stun:"],
    ),
    ("AvatarPool", POOL | {"gpu": {"mode": "CUDA"}}, ["spec.gpu.mode", '"VisibleDevices"']),
    (
        "AvatarPool",
        POOL | {"gpu": {"primary": {"indices": [-1]}}},
        ["spec.gpu.primary.indices[0]", "equal to 0"],
    ),
    (
        "AvatarPool",
        POOL | {"gpu": {"primary": {"indices": [1, 1]}}},
        ["spec.gpu.primary.indices[1]", "Duplicate"],
    ),
    ("AvatarPool", POOL | {"port": {"base": 1}}, ['unknown field "spec.port"']),
    (
        "AvatarPool",
        POOL | {"gpu": {"backup": {"indices": [0]}}},
        ["spec.gpu.backup", "every GPU is a primary one", "name the primary ones, or remove backup"],
    ),
    (
        "AvatarPool",
        POOL | {"gpu": {"primary": {}, "backup": {"indices": [0]}}},
        ["spec.gpu.backup", "every GPU is a primary one", "name the primary ones, or remove backup"],
    ),
    (
        "AvatarPool",
        POOL | {"gpu": {"primary": {"uuids": ["1"]}}},
        ["spec.gpu.primary.uuids[0]", "must begin with GPU- or MIG-"],
    ),
    ("AvatarPool", POOL | {"gpu": {"estimates": "Guess"}}, ["spec.gpu.estimates", '"AtLeast"']),
    ("AvatarPool", POOL | {"gpu": {"dra": {"driver": "a'] || true"}}}, ["spec.gpu.dra.driver", "ResourceSlice"]),
    (
        "AvatarPool",
        POOL | {"gpu": {"dra": {"deviceClassName": "My GPUs"}}},
        ["spec.gpu.dra.deviceClassName", "kubectl get deviceclasses"],
    ),
    (
        "AvatarPool",
        POOL | {"gpu": {"dra": {"capacity": "gpu.nvidia.com/memory"}}},
        ["spec.gpu.dra.capacity", "without the driver's"],
    ),
    ("AvatarPool", POOL | {"gpu": {"minFreeMiB": -1}}, ["spec.gpu.minFreeMiB", "equal to 0"]),
    ("Avatar", AVATAR | {"minFreeMiB": -1}, ["spec.minFreeMiB", "equal to 0"]),
    ("GPUNode", {"cordoned": ["1"]}, ["spec.cordoned[0]", "GPU- or MIG-", "kubectl get gpunode"]),
    ("GPUNode", {"cordoned": ["GPU-1", "GPU-1"]}, ["spec.cordoned[1]", "Duplicate"]),
    ("GPUNode", {"cordoned": "GPU-1"}, ["spec.cordoned", "must be of type array"]),
    ("GPUNode", {"drained": ["GPU-1"]}, ['unknown field "spec.drained"']),
]

# status of an AvatarInstance as a hand or a backend may patch it, and what the refusal must say.
BAD_STATUS: list[tuple[Any, list[str]]] = [
    ({"connections": -3}, ["status.connections", "greater than or equal to 0"]),
    ({"connections": "x"}, ["status.connections", "must be of type integer"]),
    ({"connections": 1.5}, ["status.connections", "must be of type integer"]),
    ({"connections": 99_999_999_999}, ["status.connections"]),
    ({"observedSessions": -1}, ["status.observedSessions", "greater than or equal to 0"]),
    ({"port": 0}, ["status.port", "greater than or equal to 1"]),
    ({"port": 65536}, ["status.port", "65535"]),
    ({"phase": "Napping"}, ["status.phase", '"Running"']),
    ({"idleDeadline": "tomorrow"}, ["status.idleDeadline", "date-time"]),
    ({"sessions": [{"user": "nobody"}]}, ["status.sessions[0].id", "Required"]),
    ({"sessions": [{"id": "a", "expires": "0000-01-01T00:00:00Z"}]}, ["status.sessions[0].expires", "should match"]),
    ({"sessions": [{"id": "a", "since": "2030-01-01T00:00:00,5Z"}]}, ["status.sessions[0].since", "should match"]),
    ({"restarts": -1}, ["status.restarts"]),
    ({"gpu": {"index": -1}}, ["status.gpu.index"]),
    ({"conditions": [{"type": "Ready", "status": "maybe"}]}, ["status.conditions[0].status"]),
]
GOOD_STATUS: list[Any] = [
    {"connections": 0},
    {"connections": 12, "sessions": [{"id": "a", "user": "u"}, {"id": "b", "since": "2030-01-01T00:00:00Z"}]},
    {"sessions": [{"id": "a", "since": "2030-01-01T00:00:00.123456+02:00", "expires": "2030-01-01T00:00:01Z"}]},
    {
        "phase": "Running",
        "port": 8615,
        "gpu": {"node": "n", "index": 1, "uuid": "GPU-1", "reservedMiB": 4096},
    },
    {"connections": None},
    {"lastTermination": {"exitCode": -1, "reason": "IdleTimeout", "time": "2030-01-01T00:00:00.123456Z"}},
]


@pytest.fixture(scope="module")
def server(kubectl: Kubectl) -> Iterator[Kubectl]:
    """Kubectl in a namespace of its own, with the definitions applied and one good object of each kind."""
    applied = kubectl("apply", "--server-side", "--force-conflicts", "--validate=strict", "-f", str(CRDS))
    assert applied.returncode == 0, applied.stderr
    names = [f"crd/{file.stem}.{GROUP}" for file in FILES]
    waited = kubectl("wait", "--for=condition=Established", "--timeout=30s", *names)
    assert waited.returncode == 0, waited.stderr
    namespace = f"crds-{secrets.token_hex(4)}"
    made = kubectl("create", "namespace", namespace)
    assert made.returncode == 0, made.stderr

    def run(*args: str, input: str | None = None) -> CompletedProcess[str]:
        return kubectl("--namespace", namespace, *args, input=input)

    try:
        for kind, spec in (("AvatarPool", POOL), ("Avatar", AVATAR), ("AvatarInstance", INSTANCE)):
            created = run("create", "--validate=strict", "-f", "-", input=manifest(kind, spec, "fixed"))
            assert created.returncode == 0, created.stderr
        yield run
    finally:
        kubectl("delete", "namespace", namespace, "--wait=false")


@pytest.fixture(scope="module")
def kubectl_apply(server: Kubectl) -> Callable[[str, Any], CompletedProcess[str]]:
    def apply(kind: str, spec: Any) -> CompletedProcess[str]:
        args = ("apply", "--dry-run=server", "--validate=strict", "-f", "-")
        return server(*args, input=manifest(kind, spec))

    return apply


@pytest.mark.cluster
@pytest.mark.parametrize(("kind", "spec"), GOOD, ids=[f"{kind}-{index}" for index, (kind, _) in enumerate(GOOD)])
def test_good_objects_are_taken(
    kubectl_apply: Callable[[str, Any], CompletedProcess[str]], kind: str, spec: Any
) -> None:
    answer = kubectl_apply(kind, spec)
    assert answer.returncode == 0, answer.stderr
    assert "Warning" not in answer.stderr


@pytest.mark.cluster
@pytest.mark.parametrize(("kind", "spec", "words"), BAD, ids=[f"{k}-{w[0]}-{w[-1][:24]}" for k, _, w in BAD])
def test_bad_objects_are_refused_by_name(
    kubectl_apply: Callable[[str, Any], CompletedProcess[str]], kind: str, spec: Any, words: list[str]
) -> None:
    answer = kubectl_apply(kind, spec)
    assert answer.returncode != 0, f"{spec} was taken"
    for word in words:
        assert word in answer.stderr, answer.stderr


@pytest.mark.cluster
@pytest.mark.parametrize("status", GOOD_STATUS, ids="+".join)
def test_good_status_is_taken(server: Kubectl, status: Any) -> None:
    patch = json.dumps({"status": status})
    args = ("patch", "avi", "fixed", "--subresource=status", "--type=merge", "--dry-run=server", "-p", patch)
    answer = server(*args)
    assert answer.returncode == 0, answer.stderr


@pytest.mark.cluster
@pytest.mark.parametrize(("status", "words"), BAD_STATUS, ids=[json.dumps(s) for s, _ in BAD_STATUS])
def test_nonsense_status_is_refused(server: Kubectl, status: Any, words: list[str]) -> None:
    patch = json.dumps({"status": status})
    args = ("patch", "avi", "fixed", "--subresource=status", "--type=merge", "--dry-run=server", "-p", patch)
    answer = server(*args)
    assert answer.returncode != 0, f"{status} was taken"
    for word in words:
        assert word in answer.stderr, answer.stderr


@pytest.mark.cluster
@pytest.mark.parametrize(("field", "value"), [("avatarName", "bruno"), ("poolRef", "other"), ("exclusive", True)])
def test_what_an_instance_is_cannot_change(server: Kubectl, field: str, value: Any) -> None:
    patch = json.dumps({"spec": {field: value}})
    answer = server("patch", "avi", "fixed", "--type=merge", "--dry-run=server", "-p", patch)
    assert answer.returncode != 0
    assert f"spec.{field} is immutable" in answer.stderr, answer.stderr


@pytest.mark.cluster
def test_the_rest_of_an_instance_may_change(server: Kubectl) -> None:
    patch = json.dumps({"spec": {"maxSessions": 7, "idle": {"timeoutSeconds": 5}}})
    answer = server("patch", "avi", "fixed", "--type=merge", "--dry-run=server", "-p", patch)
    assert answer.returncode == 0, answer.stderr


@pytest.mark.cluster
def test_spec_writes_cannot_touch_status(server: Kubectl) -> None:
    patch = json.dumps({"status": {"connections": 3}})
    answer = server("patch", "avi", "fixed", "--type=merge", "--dry-run=server", "-p", patch, "-o", "json")
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout).get("status", {}).get("connections") != 3


@pytest.mark.cluster
def test_an_avatar_moves_from_its_default_data_source(server: Kubectl) -> None:
    """The refusal tells how to take the default out; doing so works."""
    data: dict[str, Any] = {"pvc": {"claimName": "avatars"}}
    args = ("patch", "avatar.avatars.virtualtutor.io", "fixed", "--type=merge", "--dry-run=server", "-p")
    refused = server(*args, json.dumps({"spec": {"data": data}}))
    assert refused.returncode != 0
    assert "`builtIn: null`" in refused.stderr
    taken = server(*args, json.dumps({"spec": {"data": data | {"builtIn": None}}}))
    assert taken.returncode == 0, taken.stderr


@pytest.mark.cluster
def test_pool_name_must_do_as_a_label(server: Kubectl) -> None:
    text = manifest("AvatarPool", POOL, name="p" * 64)
    answer = server("apply", "--dry-run=server", "--validate=strict", "-f", "-", input=text)
    assert answer.returncode != 0
    assert "metadata.name of an AvatarPool is used as a label" in answer.stderr


@pytest.mark.cluster
def test_defaults_are_those_of_the_old_box(server: Kubectl) -> None:
    answer = server("get", "avatarpool", "fixed", "-o", "json")
    spec = json.loads(answer.stdout)["spec"]
    assert spec["ports"] == {"base": 8615, "count": 5}
    assert "maxInstances" not in spec
    assert spec["idle"]["timeoutSeconds"] == 1800
    assert spec["startupTimeoutSeconds"] == 30
    assert (spec["gpu"]["minFreeMiB"], spec["gpu"]["perInstanceMiB"]) == (11000, 4096)
    instance = json.loads(server("get", "avi", "fixed", "-o", "json").stdout)["spec"]
    assert instance == {"avatarName": "ada", "poolRef": "default", "exclusive": False}


@pytest.mark.cluster
def test_table_reads_well(server: Kubectl) -> None:
    """The idle deadline lies in the future, which kubectl would show as <invalid> in a date column."""
    status = {"phase": "Running", "connections": 2, "idleDeadline": "2199-01-01T00:00:00Z"}
    patch = json.dumps({"status": status})
    args = ("patch", "avi", "fixed", "--subresource=status", "--type=merge", "--dry-run=server", "-p", patch)
    answer = server(*args, "--output=name")
    assert answer.returncode == 0, answer.stderr
    head = server("get", "avi", "fixed").stdout.splitlines()[0].split()
    assert head == ["NAME", "AVATAR", "PHASE", "PORT", "GPU", "CONNECTIONS", "IDLE-UNTIL", "AGE"]
    wide = server("get", "avi", "fixed", "-o", "wide").stdout.splitlines()[0].split()
    assert wide[-4:] == ["NODE", "POD", "URL", "REASON"]


# ---------------------------------------------------------------------------------------- GPUNode

# One GPU as an agent reports it, and one of which nothing is known.
REPORT: dict[str, Any] = {
    "lastReport": "2030-01-01T00:00:00.123456Z",
    "heartbeatSeconds": 30,
    "driverVersion": "580.95.05",
    "cudaVersion": "13.0",
    "gpuCount": 2,
    "freeMiB": 18000,
    "hottestCelsius": 91,
    "alerts": ["Temperature GPU 1"],
    "gpus": [
        {"uuid": "GPU-0", "index": 0, "healthy": False, "reason": "Lost", "message": "fell off the bus"},
        {
            "uuid": "GPU-1",
            "index": 1,
            "product": "NVIDIA L4",
            "pciBusID": "00000000:65:00.0",
            "memory": {"totalMiB": 24576, "usedMiB": 6000, "freeMiB": 18000, "reservedMiB": 576},
            "utilizationPercent": 97,
            "temperatureCelsius": 91,
            "powerWatts": 70,
            "powerLimitWatts": 72,
            "throttleReasons": ["SoftwareThermal"],
            "processesKnown": True,
            "pods": [{"uid": "5a4c6c1e-0c59-4a64-8a55-6d7a7bb28fd1", "usedMiB": 4100}],
            "alerts": [{"type": "Temperature", "message": "91 °C, at most 85", "since": "2030-01-01T00:00:00Z"}],
        },
        {"uuid": "MIG-1", "index": 1, "mig": {"parentUUID": "GPU-2", "profile": "1g.10gb", "gpuInstance": 1}},
    ],
    "conditions": [
        {
            "type": "Healthy",
            "status": "False",
            "reason": "GPULost",
            "message": "GPU 0",
            "lastTransitionTime": "2030-01-01T00:00:00Z",
        }
    ],
}
RESERVATION = {"uuid": "GPU-1", "namespace": "demo", "pod": "avatar-8615", "memoryMiB": 4096}
BAD_REPORT: list[tuple[Any, list[str]]] = [
    ({"lastReport": "now"}, ["status.lastReport", "date-time"]),
    ({"heartbeatSeconds": 0}, ["status.heartbeatSeconds", "equal to 1"]),
    ({"gpus": [{"index": 0}]}, ["status.gpus[0].uuid", "Required"]),
    ({"gpus": [{"uuid": "GPU-0"}, {"uuid": "GPU-0"}]}, ["status.gpus[1]", "Duplicate"]),
    ({"gpus": [{"uuid": "GPU-0", "memory": {"totalMiB": 1}}]}, ["status.gpus[0].memory.usedMiB", "Required"]),
    ({"gpus": [{"uuid": "GPU-0", "pods": [{"uid": "a"}, {"uid": "a"}]}]}, ["status.gpus[0].pods[1]", "Duplicate"]),
    ({"gpus": [{"uuid": "GPU-0", "utilizationPercent": 101}]}, ["status.gpus[0].utilizationPercent", "100"]),
    ({"gpus": [{"uuid": "GPU-0", "mig": {}}]}, ["status.gpus[0].mig.parentUUID", "Required"]),
    ({"reservations": [RESERVATION, RESERVATION]}, ["status.reservations[1]", "Duplicate"]),
    ({"reservations": [{"uuid": "GPU-0"}]}, ["status.reservations[0].memoryMiB", "Required"]),
    ({"freeMiB": -1}, ["status.freeMiB", "equal to 0"]),
]


@pytest.fixture
def gpu_node(server: Kubectl) -> Iterator[str]:
    """The name of a GPUNode that only this test has."""
    name = f"crds-{secrets.token_hex(4)}"
    created = server("create", "--validate=strict", "-f", "-", input=manifest("GPUNode", {}, name))
    assert created.returncode == 0, created.stderr
    yield name
    server("delete", "gpunode", name, "--wait=false")


def report(server: Kubectl, name: str, status: Any) -> CompletedProcess[str]:
    """Status as the agent writes it: by server-side apply, under its own name."""
    body = {"apiVersion": f"{GROUP}/v1alpha1", "kind": "GPUNode", "metadata": {"name": name}, "status": status}
    args = ("apply", "--server-side", "--subresource=status", "--field-manager=avatar-operator-agent", "-f", "-")
    return server(*args, "--validate=strict", input=json.dumps(body))


def reserve(server: Kubectl, name: str, status: Any) -> CompletedProcess[str]:
    """Status as the operator writes it: a merge patch of its own fields."""
    args = ("patch", "gpunode", name, "--subresource=status", "--type=merge", "--field-manager=avatar-operator")
    return server(*args, "-p", json.dumps({"status": status}))


@pytest.mark.cluster
def test_agent_and_operator_do_not_touch_each_others_fields(server: Kubectl, gpu_node: str) -> None:
    first = report(server, gpu_node, REPORT)
    assert first.returncode == 0, first.stderr
    reserved = {"reservations": [RESERVATION], "reservedMiB": 4096, "externalMiB": 1900}
    patched = reserve(server, gpu_node, reserved)
    assert patched.returncode == 0, patched.stderr
    later = {key: value for key, value in REPORT.items() if key != "alerts"} | {"gpus": REPORT["gpus"][1:]}
    again = report(server, gpu_node, later)
    assert again.returncode == 0, again.stderr
    status = json.loads(server("get", "gpunode", gpu_node, "-o", "json").stdout)["status"]
    assert {key: status[key] for key in reserved} == reserved
    assert [gpu["uuid"] for gpu in status["gpus"]] == ["GPU-1", "MIG-1"]
    assert "alerts" not in status


@pytest.mark.cluster
def test_the_table_of_gpu_nodes_reads_well(server: Kubectl, gpu_node: str) -> None:
    assert report(server, gpu_node, REPORT | {"lastReport": "2020-01-01T00:00:00Z"}).returncode == 0
    assert reserve(server, gpu_node, {"reservedMiB": 4096, "externalMiB": 1900}).returncode == 0
    head, row = server("get", "gpun", gpu_node).stdout.splitlines()
    assert head.split() == [
        "NAME", "GPUS", "FREE-MIB", "AVATARS-MIB", "EXTERNAL-MIB", "HOTTEST-C", "ALERTS", "REPORTED",
    ]  # fmt: skip
    assert re.fullmatch(rf'{gpu_node} +2 +18000 +4096 +1900 +91 +\["Temperature GPU 1"\] +\d+y\w*', row.strip()), row
    wide = server("get", "gpun", gpu_node, "-o", "wide").stdout.splitlines()[0].split()
    assert wide[-2:] == ["DRIVER", "CORDONED"]


@pytest.mark.cluster
def test_a_gpu_is_cordoned_by_one_patch(server: Kubectl, gpu_node: str) -> None:
    patch = json.dumps({"spec": {"cordoned": ["GPU-1"]}})
    answer = server("patch", "gpun", gpu_node, "--type=merge", "-p", patch)
    assert answer.returncode == 0, answer.stderr
    assert report(server, gpu_node, REPORT).returncode == 0
    assert json.loads(server("get", "gpun", gpu_node, "-o", "json").stdout)["spec"] == {"cordoned": ["GPU-1"]}


@pytest.mark.cluster
@pytest.mark.parametrize(("status", "words"), BAD_REPORT, ids=[json.dumps(s)[:60] for s, _ in BAD_REPORT])
def test_a_report_of_nonsense_is_refused(server: Kubectl, gpu_node: str, status: Any, words: list[str]) -> None:
    answer = reserve(server, gpu_node, status)
    assert answer.returncode != 0, f"{status} was taken"
    for word in words:
        assert word in answer.stderr, answer.stderr


@pytest.mark.cluster
def test_what_was_learned_goes_into_an_avatars_status(server: Kubectl) -> None:
    args = ("patch", "avatar.avatars.virtualtutor.io", "fixed", "--subresource=status", "--type=merge", "-p")
    taken = server(*args, json.dumps({"status": {"vram": {"observedMiB": 5100, "estimateMiB": 5400}}}))
    assert taken.returncode == 0, taken.stderr
    head, row = server("get", "avatar.avatars.virtualtutor.io", "fixed", "-o", "wide").stdout.splitlines()
    column = head.index("VRAM-ESTIMATE")
    assert row[column:].split()[0] == "5400"
    refused = server(*args, json.dumps({"status": {"vram": {"observedMiB": -1}}}), "--dry-run=server")
    assert "status.vram.observedMiB" in refused.stderr, refused.stderr


@pytest.mark.cluster
@pytest.mark.parametrize("path", ["gpunode.status.gpus", "gpunode.spec", "avatarpool.spec.gpu.dra", "avatar.status"])
def test_explain_tells_of_every_field(server: Kubectl, path: str) -> None:
    answer = server("explain", path)
    assert answer.returncode == 0, answer.stderr
    assert "<no description>" not in answer.stdout
