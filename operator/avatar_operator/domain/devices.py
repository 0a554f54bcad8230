"""How a pod asks for its GPU in each mode, and where its reservation is written and read."""

from __future__ import annotations

import itertools
import json
import math
import re
from fractions import Fraction
from typing import Any

from . import names
from .actions import Json
from .placement import Placement
from .resources import Dra, Gpu, GpuSelector, Meta, Pool

# Modes in which the operator itself picks the GPU; in the others the scheduler or the kubelet does.
PLACED_MODES = ("VisibleDevices", "HAMi")
CHOSEN_LATER = ("DevicePlugin", "DRA")

DEVICE_REQUEST = "gpu"
HAMI_MEMORY = "nvidia.com/gpumem"
HAMI_UUID = "nvidia.com/use-gpuuuid"

# More nodes than this say nothing more, and each is a term of the affinity. Weights end at 100, too.
MAX_NODES = 100
# Limits of resource.k8s.io/v1: bytes of a CEL expression, subrequests of a request.
CEL_BYTES = 10 * 1024
MAX_SUBREQUESTS = 8

_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?", re.ASCII)
_QUANTITY = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(?:([KMGTPE]i)|([numkMGTPE])|[eE]([+-]?[0-9]+))?", re.ASCII)
_MIB = 1024 * 1024


# ---- the reservation -------------------------------------------------------------


def reservation_metadata(placement: Placement) -> tuple[dict[str, str], dict[str, str]]:
    """Labels and annotations that say what is reserved where; on the Service and on the Pod."""
    labels = {names.LABEL_GPU: placement.uuid} if _LABEL_VALUE.fullmatch(placement.uuid) else {}
    annotations = {names.ANNOTATION_GPU_MIB: str(placement.mib)}
    # Where the scheduler has the last word, the best node is the likely one until it has spoken.
    if node := placement.node or next(iter(placement.nodes), ""):
        annotations[names.ANNOTATION_GPU_NODE] = node
    if placement.index is not None:
        annotations[names.ANNOTATION_GPU_INDEX] = str(placement.index)
    return labels, annotations


def placement_of(meta: Meta) -> Placement | None:
    """The reservation of a Service or a Pod; None when it has none."""
    mib = _number(meta.annotations.get(names.ANNOTATION_GPU_MIB, ""))
    if mib is None:
        return None
    return Placement(
        mib=mib,
        node=meta.annotations.get(names.ANNOTATION_GPU_NODE, ""),
        uuid=meta.labels.get(names.LABEL_GPU, ""),
        index=_number(meta.annotations.get(names.ANNOTATION_GPU_INDEX, "")),
    )


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


# ---- the pod ---------------------------------------------------------------------


def template(gpu: Gpu) -> Json:
    """What of the pool's GPU rules is in every pod, whichever GPU it got: a change of it outdates pods."""
    match gpu.mode:
        case "DevicePlugin" | "HAMi":
            return {"mode": gpu.mode, "resourceName": gpu.resource_name}
        case "DRA":
            dra = gpu.dra
            return {"mode": gpu.mode, "dra": [dra.device_class_name, dra.driver, dra.capacity]}
        case "VisibleDevices":
            return {"mode": gpu.mode}
    return {}


def equip(body: Json, pool: Pool, placement: Placement, claim: str = "") -> None:
    """Make the Pod ``body`` ask for its GPU, in place. ``claim``: name of its ResourceClaim (mode DRA)."""
    gpu, spec = pool.spec.gpu, body["spec"]
    container = spec["containers"][0]
    match gpu.mode:
        case "VisibleDevices":
            _set_environment(container, pool, {"NVIDIA_VISIBLE_DEVICES": placement.uuid})
            _pin(spec, [placement.node] if placement.node else [])
        case "DevicePlugin":
            _limit(container, {gpu.resource_name: "1"})
            _pin(spec, list(placement.nodes))
            _prefer(spec, list(placement.nodes))
        case "DRA":
            spec["resourceClaims"] = [{"name": DEVICE_REQUEST, "resourceClaimName": claim}]
            resources = container.get("resources", {})
            container["resources"] = {**resources, "claims": [{"name": DEVICE_REQUEST}]}
        case "HAMi":
            _limit(container, {gpu.resource_name: "1", HAMI_MEMORY: str(placement.mib)})
            _pin(spec, [placement.node] if placement.node else [])
            # HAMi knows neither indices nor "all", which a placement without telemetry may say.
            if placement.node:
                body["metadata"]["annotations"][HAMI_UUID] = placement.uuid
        case _:
            return
    labels, annotations = reservation_metadata(placement)
    body["metadata"]["labels"].update(labels)
    body["metadata"]["annotations"].update(annotations)


def _set_environment(container: Json, pool: Pool, values: dict[str, str]) -> None:
    """Put variables before the pool's own, which win: a name stands there once only."""
    own = pool.spec.runtime.env
    given = {entry.get("name") for entry in own}
    ours = [
        {"name": name, "value": value}
        # With the order of the bus an index means the same to CUDA as to NVML.
        for name, value in {**values, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}.items()
        if value and name not in given
    ]
    before = len(container["env"]) - len(own)
    container["env"] = [*container["env"][:before], *ours, *own]


def _limit(container: Json, wanted: dict[str, str]) -> None:
    """Extended resources: a request is the limit, so one that the pool gave for the same name goes."""
    resources = container.get("resources", {})
    result = {**resources, "limits": {**resources.get("limits", {}), **wanted}}
    if "requests" in resources:
        result["requests"] = {name: value for name, value in resources["requests"].items() if name not in wanted}
    container["resources"] = result


def _pin(spec: Json, nodes: list[str]) -> None:
    """Require one of ``nodes`` beside all that the pool's own affinity requires; none = any node."""
    if not nodes:
        return
    # Copies: what is there is the pool's own.
    affinity = dict(spec.get("affinity") or {})
    node_affinity = dict(affinity.get("nodeAffinity") or {})
    key = "requiredDuringSchedulingIgnoredDuringExecution"
    terms = (node_affinity.get(key) or {}).get("nodeSelectorTerms") or []
    fields = [_on(node) for node in nodes[:MAX_NODES]]
    if terms:
        # Terms are alternatives, and a field takes one value only: so each with each. A term without
        # requirements selects nothing, and goes on selecting nothing.
        fields = [
            {**term, "matchFields": [*(term.get("matchFields") or []), *field["matchFields"]]}
            for field, term in itertools.product(fields, terms)
            if any(term.values())
        ] or terms
    node_affinity[key] = {"nodeSelectorTerms": fields}
    spec["affinity"] = {**affinity, "nodeAffinity": node_affinity}


def _prefer(spec: Json, nodes: list[str]) -> None:
    """Prefer nodes in their order: weight 100 for the first, falling to 1."""
    if len(nodes) < 2:
        return
    nodes = nodes[:MAX_NODES]
    affinity = spec["affinity"]
    node_affinity = affinity["nodeAffinity"]
    key = "preferredDuringSchedulingIgnoredDuringExecution"
    wishes = [
        {"weight": 100 - 99 * place // (len(nodes) - 1), "preference": _on(node)} for place, node in enumerate(nodes)
    ]
    wishes = [*(node_affinity.get(key) or []), *wishes]
    spec["affinity"] = {**affinity, "nodeAffinity": {**node_affinity, key: wishes}}


def _on(node: str) -> Json:
    """A node selector term: by name, because the hostname label may be another."""
    return {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}


# ---- DRA -------------------------------------------------------------------------


def dra_problem(gpu: Gpu, known: bool) -> str:
    """What in the pool's selectors a ResourceClaim cannot say; empty when it can say all.

    ``known``: GPUNodes tell the UUIDs, and then everything can be said by them.
    """
    if known or gpu.mode != "DRA":
        return ""
    for name, selector in (("primary", gpu.primary), ("backup", gpu.backup)):
        if selector is None:
            continue
        if selector.indices:
            return (
                f"gpu.{name}.indices cannot be asked of a DRA driver: run the node agent, which tells the UUIDs "
                f"behind them, or name gpu.{name}.uuids"
            )
        if selector.node_selector:
            return (
                f"gpu.{name}.nodeSelector cannot be asked of a DRA driver: run the node agent, which tells the GPUs "
                "of each node, or put the labels into runtime.nodeSelector"
            )
    return ""


def resource_claim(pool: Pool, pod: Meta, placement: Placement, name: str) -> Json:
    """The ResourceClaim of ``pod``: memory of a primary GPU, else of a backup one. It ends with the pod."""
    gpu = pool.spec.gpu
    if placement.primary or placement.backup:
        primary, backup = _by_uuid(gpu.dra, placement.primary), _by_uuid(gpu.dra, placement.backup)
    else:
        primary = _by_selector(gpu.dra, gpu.primary or GpuSelector())
        backup = [] if gpu.backup is None else _by_selector(gpu.dra, gpu.backup)
    # Half of the places are the backup's if it needs them; what does not fit is far down in the order.
    primary = primary[: MAX_SUBREQUESTS - min(len(backup), MAX_SUBREQUESTS // 2)]
    backup = backup[: MAX_SUBREQUESTS - len(primary)]
    choices = [
        _device_request(gpu.dra, placement.mib, kind if place == 0 else f"{kind}-{place}", selectors)
        for kind, found in (("primary", primary), ("backup", backup))
        for place, selectors in enumerate(found)
    ]
    if len(choices) == 1:
        request: Json = {"exactly": {key: value for key, value in choices[0].items() if key != "name"}}
    else:
        request = {"firstAvailable": choices}
    kept = (names.LABEL_MANAGED_BY, names.LABEL_COMPONENT, names.LABEL_POOL, names.LABEL_GROUP, names.LABEL_PORT)
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {
            "name": name,
            "namespace": pod.namespace,
            "labels": {key: pod.labels[key] for key in kept if key in pod.labels},
            "ownerReferences": [
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "name": pod.name,
                    "uid": pod.uid,
                    "controller": True,
                    "blockOwnerDeletion": False,
                }
            ],
        },
        "spec": {"devices": {"requests": [{"name": DEVICE_REQUEST, **request}]}},
    }


def _device_request(dra: Dra, mib: int, name: str, selectors: list[str]) -> Json:
    """One (sub)request; without an amount the driver's default would be taken, mostly the whole GPU."""
    request: Json = {
        "name": name,
        "deviceClassName": dra.device_class_name,
        "capacity": {"requests": {dra.capacity: f"{mib}Mi"}},
    }
    if selectors:
        request["selectors"] = [{"cel": {"expression": text}} for text in selectors]
    return request


def _by_uuid(dra: Dra, uuids: tuple[str, ...] | list[str]) -> list[list[str]]:
    """Alternatives, each a list of CEL expressions that all must hold; as few as the UUIDs fit into."""
    return [[expression] for expression in _among(dra, "uuid", "", uuids)]


def _by_selector(dra: Dra, selector: GpuSelector) -> list[list[str]]:
    """As `_by_uuid` for a pool's selector: UUIDs and products, both where both are given; any GPU where neither is."""
    # NVIDIA's node label has "-" where the driver's name has a space; a pool may say either.
    products = [product.replace(" ", "-") for product in selector.products]
    of_product = _among(dra, "productName", '.replace(" ", "-")', products)[:1]
    return [[*of_uuid, *of_product] for of_uuid in (_by_uuid(dra, selector.uuids) or [[]])]


def _among(dra: Dra, attribute: str, changed: str, values: tuple[str, ...] | list[str]) -> list[str]:
    """CEL expressions for an attribute being one of ``values``; no value, no expression.

    Not `.?name.orValue("")`: the API server then knows no bound for its length, and refuses `replace` as too complex.
    """
    domain = f"device.attributes[{_text(dra.driver)}]"
    head = f'"{attribute}" in {domain} && {domain}.{attribute}{changed} in ['
    return [f"{head}{part}]" for part in _parts(values, CEL_BYTES - len(head.encode()) - 1)]


def _parts(values: tuple[str, ...] | list[str], limit: int) -> list[str]:
    """``values`` as comma-separated CEL strings, in as few parts of ``limit`` bytes as they need."""
    parts: list[str] = []
    for value in map(_text, values):
        if parts and len(f"{parts[-1]},{value}".encode()) <= limit:
            parts[-1] += f",{value}"
        else:
            parts.append(value)
    return parts


def _text(value: str) -> str:
    """A CEL string. Its escapes are JSON's, but for halves of pairs, so characters stay as they are."""
    return json.dumps(value, ensure_ascii=False)


def allocated(claim: Json, slices: list[Json], dra: Dra | None = None) -> tuple[str, str, int | None, int] | None:
    """Node, UUID, index and MiB that a ResourceClaim got, by the driver's ResourceSlices; None before it has any.

    The UUID is empty where no slice tells the device (any more); the index is None where the driver tells none.
    """
    dra = dra or Dra()
    allocation = ((claim.get("status") or {}).get("allocation")) or {}
    results = (allocation.get("devices") or {}).get("results") or []
    result = next((r for r in results if r["request"].split("/")[0] == DEVICE_REQUEST), None)
    if result is None:
        return None
    node, device = _device(result, slices)
    attributes, capacity = _short(device.get("attributes"), dra.driver), _short(device.get("capacity"), dra.driver)
    consumed = _short(result.get("consumedCapacity"), dra.driver)
    memory = dra.capacity.removeprefix(f"{dra.driver}/")
    # A device that is not shared is had whole, and no capacity of it is said to be consumed.
    taken = consumed.get(memory) or capacity.get(memory, {}).get("value", "0")
    uuid, index = attributes.get("uuid", {}).get("string", ""), attributes.get("index", {}).get("int")
    return node or _node_of(allocation), uuid, index, math.ceil(_quantity(taken) / _MIB)


def _device(result: Json, slices: list[Json]) -> tuple[str, Json]:
    """The node and the device that an allocation means, from the newest slice of its pool."""
    newest = sorted(slices, key=lambda s: s["spec"]["pool"]["generation"], reverse=True)
    for spec in (s["spec"] for s in newest):
        if (spec["driver"], spec["pool"]["name"]) != (result["driver"], result["pool"]):
            continue
        for device in spec.get("devices") or []:
            if device["name"] == result["device"]:
                return spec.get("nodeName") or device.get("nodeName") or "", device
    return "", {}


def _node_of(allocation: Json) -> str:
    """The only node that an allocation can be used on, if there is but one."""
    terms = (allocation.get("nodeSelector") or {}).get("nodeSelectorTerms") or []
    fields = terms[0].get("matchFields") or [] if len(terms) == 1 else []
    return next((f["values"][0] for f in fields if f["key"] == "metadata.name" and f["operator"] == "In"), "")


def _short(named: dict[str, Any] | None, driver: str) -> dict[str, Any]:
    """Attributes or capacities without the driver's domain, which may be left out."""
    return {name.removeprefix(f"{driver}/"): value for name, value in (named or {}).items()}


def _quantity(text: str) -> Fraction:
    """A Kubernetes quantity; 0 for what is none."""
    found = _QUANTITY.fullmatch(text)
    if found is None:
        return Fraction(0)
    number, binary, decimal, exponent = found.groups()
    factor = Fraction(1)
    if binary:
        factor = Fraction(1024 ** ("KMGTPE".index(binary[0]) + 1))
    elif decimal:
        factor = Fraction(10) ** {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}[decimal]
    elif exponent:
        factor = Fraction(10) ** int(exponent)
    return Fraction(number) * factor
