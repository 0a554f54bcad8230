"""JSON schemas of Kubernetes' kinds, strict: from an API server's OpenAPI document, and from resource definitions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Json = dict[str, Any]
PREFIX = "#/definitions/"
KEPT = ("enum", "required", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems")
QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"


def strict(node: Json) -> Json:
    """A node of an OpenAPI document or of a resource definition as JSON schema: what it does not name is refused."""
    if "$ref" in node:
        return {"$ref": node["$ref"]}
    if node.get("x-kubernetes-int-or-string") or node.get("format") == "int-or-string":
        return {"type": ["integer", "string"]}
    found: Json = {key: node[key] for key in ("type", *KEPT) if key in node}
    if "properties" in node:
        found["properties"] = {name: strict(child) for name, child in node["properties"].items()}
        if not node.get("x-kubernetes-preserve-unknown-fields"):
            found["additionalProperties"] = False
    if isinstance(node.get("additionalProperties"), dict):
        found["additionalProperties"] = strict(node["additionalProperties"])
    if "items" in node:
        found["items"] = strict(node["items"])
    return found


def kind_of(node: Json) -> list[tuple[str, str, str]]:
    """The kinds that a definition is: group, version, kind."""
    return [(k["group"], k["version"], k["kind"]) for k in node.get("x-kubernetes-group-version-kind", ())]


def reduced(document: Json, wanted: Iterable[tuple[str, str, str]]) -> Json:
    """Of an OpenAPI document (v2) what the wanted kinds are made of: ``kinds`` by name, and ``definitions``."""
    whole: Json = document["definitions"]
    names = {kind: name for name, node in whole.items() for kind in kind_of(node)}
    kinds, definitions = {}, {}
    for kind in sorted(set(wanted)):
        if kind not in names:
            continue
        kinds["/".join(kind)] = names[kind]
        left = [names[kind]]
        while left:
            name = left.pop()
            if name not in definitions:
                # Kubernetes takes numbers for quantities, too.
                node = {"type": ["string", "number"]} if name == QUANTITY else strict(whole[name])
                definitions[name] = node
                left += [ref.removeprefix(PREFIX) for ref in references(node)]
    return {"kinds": kinds, "definitions": dict(sorted(definitions.items()))}


def references(node: Any) -> Iterable[str]:
    """Every reference in a schema."""
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for child in node.values():
            yield from references(child)
    elif isinstance(node, list):
        for child in node:
            yield from references(child)


def of_definition(crd: Json) -> dict[tuple[str, str, str], Json]:
    """The schemas of a CustomResourceDefinition, by kind."""
    spec = crd["spec"]
    found = {}
    for version in spec["versions"]:
        schema = strict(version["schema"]["openAPIV3Schema"])
        schema["properties"] |= {"apiVersion": {"type": "string"}, "kind": {"type": "string"}}
        schema["properties"]["metadata"] = {"type": "object"}
        found[spec["group"], version["name"], spec["names"]["kind"]] = schema
    return found


def write(folder: Path, reduction: Json, others: dict[tuple[str, str, str], Json]) -> str:
    """Write a file for each kind; the template of their paths for `kubeconform -schema-location`."""
    folder.mkdir(parents=True, exist_ok=True)
    schemas = {
        tuple(kind.split("/")): {"$ref": PREFIX + name, "definitions": reduction["definitions"]}
        for kind, name in reduction["kinds"].items()
    }
    for (group, version, kind), schema in {**schemas, **others}.items():
        # kubeconform's names: the first word of the group, and the version.
        suffix = "-".join(re.sub(r"\..*", "", part) for part in (group, version) if part)
        (folder / f"{kind.lower()}-{suffix}.json").write_text(json.dumps(schema), encoding="utf-8")
    return f"{folder}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
