"""crds/*.yaml against the structs of domain/resources.py and domain/gpunode.py: one must say what the other does."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from avatar_operator.domain import gpunode, resources, tts
from avatar_operator.domain.gpunode import GpuNode
from avatar_operator.domain.names import GROUP, VERSION
from avatar_operator.domain.resources import Avatar, Instance, Model, Pool
from avatar_operator.domain.tts import TtsEngine
from avatar_operator.domain.tts_view import PHASES

CRDS = Path(__file__).resolve().parents[2] / "crds"
KINDS: dict[str, type[Model]] = {
    "avatarpools": Pool,
    "avatars": Avatar,
    "avatarinstances": Instance,
    "gpunodes": GpuNode,
    "ttsengines": TtsEngine,
}
# The structs live in three modules; annotations are looked up in all of them.
NAMES = {**vars(resources), **vars(gpunode), **vars(tts)}


@functools.cache
def definition(plural: str) -> dict[str, Any]:
    with (CRDS / f"{plural}.yaml").open(encoding="utf-8") as file:
        found: dict[str, Any] = yaml.safe_load(file)
    return found


def schema(plural: str) -> dict[str, Any]:
    """The schema of the one version."""
    (version,) = definition(plural)["spec"]["versions"]
    assert version["name"] == VERSION
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return found


def at(plural: str, path: str) -> dict[str, Any]:
    """The schema of a property: "spec.ports.base"."""
    found = schema(plural)
    for name in path.split("."):
        found = found["properties"][name]
    return found


# ---- the walk ----------------------------------------------------------------------


def strip_none(kind: Any) -> tuple[Any, bool]:
    """The type without ``| None``, and whether it had that."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        left = [a for a in typing.get_args(kind) if a is not type(None)]
        if len(left) == 1:
            return left[0], True
    return kind, False


def is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def drifts(struct: type[msgspec.Struct], node: dict[str, Any], path: str) -> Iterator[str]:
    """What differs between a struct and an object's schema, as sentences."""
    hints = typing.get_type_hints(struct, NAMES)
    properties = dict(node.get("properties", {}))
    required = set(node.get("required", []))
    for field in msgspec.structs.fields(struct):
        here = f"{path}.{field.encode_name}"
        found = properties.pop(field.encode_name, None)
        if found is None:
            yield f"{here}: not in the CRD"
            continue
        kind, optional = strip_none(hints[field.name])
        if field.required and field.encode_name not in required:
            yield f"{here}: required by {struct.__name__}, optional in the CRD"
        yield from type_drifts(kind, found, here)
        if field.encode_name in required or field.required:
            continue
        default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
        yield from default_drifts(kind, optional, default, found, here)
    yield from (f"{path}.{name}: not in {struct.__name__}" for name in properties)


def type_drifts(kind: Any, node: dict[str, Any], path: str) -> Iterator[str]:
    """Whether a value that the schema allows fits the struct's type."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    scalars = {str: "string", int: "integer", bool: "boolean", float: "number", datetime: "string"}
    if is_struct(kind):
        if node.get("type") != "object":
            yield f"{path}: {kind.__name__} for a {node.get('type')}"
        yield from drifts(kind, node, path)
    elif origin in (list, tuple):
        if node.get("type") != "array":
            yield f"{path}: a list for a {node.get('type')}"
            return
        yield from type_drifts(args[0], node["items"], f"{path}[]")
    elif origin is dict:
        if node.get("type") != "object" or args[0] is not str:
            yield f"{path}: a dict for a {node.get('type')}"
        elif args[1] is Any:
            if not node.get("x-kubernetes-preserve-unknown-fields") and "properties" not in node:
                yield f"{path}: any fields here, none in the CRD"
        elif "additionalProperties" not in node:
            yield f"{path}: a map here, no additionalProperties in the CRD"
        else:
            yield from type_drifts(args[1], node["additionalProperties"], f"{path}.*")
    elif kind not in scalars or node.get("type") != scalars[kind]:
        yield f"{path}: {kind} for a {node.get('type')}"
    elif (node.get("format") == "date-time") != (kind is datetime):
        yield f"{path}: {kind} for the format {node.get('format')}"


def default_drifts(kind: Any, optional: bool, default: Any, node: dict[str, Any], path: str) -> Iterator[str]:
    """Whether a field that is left out means the same on both sides."""
    if "default" in node:
        wanted = msgspec.convert(node["default"], kind)
        if default != wanted:
            yield f"{path}: default {default!r} here, {wanted!r} in the CRD"
    elif is_struct(kind) and default is not None:
        # Its own fields say what is empty.
        if default != kind():
            yield f"{path}: default {default!r} here, none in the CRD"
    elif default not in (None, "", 0, False, [], {}, ()):
        yield f"{path}: default {default!r} here, none in the CRD"
    elif optional != (default is None):
        yield f"{path}: default {default!r} for a field that {'may' if optional else 'may not'} be None"


@pytest.mark.parametrize("plural", KINDS)
@pytest.mark.parametrize("part", ["spec", "status"])
def test_no_drift(plural: str, part: str) -> None:
    hints = typing.get_type_hints(KINDS[plural], NAMES)
    found = list(drifts(hints[part], at(plural, part), part))
    assert not found, "\n".join(["crds and structs differ:", *found])


@pytest.mark.parametrize("plural", KINDS)
def test_an_object_with_what_is_required_alone_decodes_to_the_defaults(plural: str) -> None:
    """What the API server fills in and what the structs fill in are the same."""
    bare = {
        "avatarpools": {"runtime": {"image": "x"}},
        "avatars": {"avatarName": "x"},
        "avatarinstances": {"avatarName": "x"},
        "gpunodes": {},
        "ttsengines": {"image": "x", "protocol": "edgetts"},
    }
    meta = {"name": "x"}
    ours = msgspec.convert({"metadata": meta, "spec": bare[plural]}, KINDS[plural])
    theirs = msgspec.convert({"metadata": meta, "spec": filled(bare[plural], at(plural, "spec"))}, KINDS[plural])
    assert ours == theirs


def filled(value: Any, node: dict[str, Any]) -> Any:
    """A value with the schema's defaults, as the API server fills them in."""
    if not isinstance(value, dict):
        return value
    whole = dict(value)
    for name, child in node.get("properties", {}).items():
        if name not in whole and "default" in child:
            whole[name] = child["default"]
        if name in whole:
            whole[name] = filled(whole[name], child)
    return whole


@pytest.mark.parametrize("plural", KINDS)
def test_group_and_kind(plural: str) -> None:
    spec = definition(plural)["spec"]
    assert spec["group"] == GROUP
    kinds = {
        "avatarpools": "AvatarPool",
        "avatars": "Avatar",
        "avatarinstances": "AvatarInstance",
        "gpunodes": "GPUNode",
        "ttsengines": "TTSEngine",
    }
    assert spec["names"]["kind"] == kinds[plural]


# ---- what the code relies on ---------------------------------------------------------


@pytest.mark.parametrize(
    ("plural", "path", "values"),
    [
        (
            "avatarinstances",
            "status.phase",
            {"Pending", "Starting", "Running", "Draining", "Stopped", "Shared", "Failed"},
        ),
        ("avatarinstances", "spec.idle.action", {"Delete", "Sleep"}),
        ("avatarpools", "spec.idle.action", {"Delete", "Sleep"}),
        ("avatarpools", "spec.idle.activitySource", {"Runtime", "Connections"}),
        ("avatarpools", "spec.network.mode", {"HostNetwork", "Pod", "HostPort", "Relay"}),
        ("avatarpools", "spec.gpu.mode", {"None", "VisibleDevices", "DevicePlugin", "DRA", "HAMi"}),
        ("avatarpools", "spec.gpu.policy", {"PrimaryFirst", "MostFree", "BinPack"}),
        ("avatarpools", "spec.gpu.estimates", {"AtLeast", "Learned", "Fixed"}),
        ("avatarpools", "spec.runtime.argsStyle", {"LiveTalking", "None"}),
        ("avatarpools", "spec.runtime.imagePullPolicy", {"Always", "IfNotPresent", "Never"}),
    ],
)
def test_enums(plural: str, path: str, values: set[str]) -> None:
    assert set(at(plural, path)["enum"]) == values


TRANSPORTS = [("avatarpools", "spec.defaults"), ("avatars", "spec"), ("avatarinstances", "spec")]


@pytest.mark.parametrize(("plural", "path"), TRANSPORTS)
def test_models_and_transports_are_the_same_everywhere(plural: str, path: str) -> None:
    assert set(at(plural, f"{path}.model")["enum"]) == {"musetalk", "wav2lip", "ultralight"}
    assert set(at(plural, f"{path}.transport")["enum"]) == {"webrtc", "rtmp", "rtcpush"}


@pytest.mark.parametrize("plural", ["avatars", "avatarinstances"])
def test_a_name_of_an_engine_is_good_everywhere_or_nowhere(plural: str) -> None:
    own, pools = at(plural, "spec.tts.engine"), dict(at("avatarpools", "spec.tts.engine"))
    assert pools.pop("default") == "edgetts"
    assert own == pools


def test_an_engine_reads_gpu_rules_as_a_pool_does() -> None:
    own, pools = at("ttsengines", "spec.gpu"), at("avatarpools", "spec.gpu")
    for name in ("resourceName", "primary", "backup", "policy", "runtimeClassName"):
        assert own["properties"][name] == pools["properties"][name]
    assert set(own["properties"]["mode"]["enum"]) < set(pools["properties"]["mode"]["enum"])


def test_phases_of_an_engine() -> None:
    assert at("ttsengines", "status.phase")["enum"] == list(PHASES)


def test_phases_are_what_the_pool_counts() -> None:
    phases = at("avatarinstances", "status.phase")["enum"]
    assert {p.lower() for p in phases} == set(at("avatarpools", "status.instances")["properties"])


def test_the_walk_finds_drift() -> None:
    """A walk that finds nothing must be one that could."""
    node = at("avatarpools", "spec.ports")
    other = {**node, "properties": {"base": {"type": "integer", "default": 1}, "step": {"type": "integer"}}}
    assert list(drifts(resources.Ports, other, "spec.ports")) == [
        "spec.ports.base: default 8615 here, 1 in the CRD",
        "spec.ports.count: not in the CRD",
        "spec.ports.step: not in Ports",
    ]
