"""A reference page for each custom resource, from its definition in crds/."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .tables import cell, code, table

Node = dict[str, Any]
# Words of a definition that say what a value may be.
BOUNDS = (
    ("minimum", "≥ {}"),
    ("maximum", "≤ {}"),
    ("minLength", "at least {} characters"),
    ("maxLength", "at most {} characters"),
    ("minItems", "at least {} entries"),
    ("maxItems", "at most {} entries"),
    ("format", "{}"),
)


def page(definition: Node) -> str:
    """The page of one CustomResourceDefinition."""
    spec = definition["spec"]
    names, version = spec["names"], spec["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    short = ", ".join(code(name) for name in [*names["shortNames"], names["plural"]])
    parts = [
        f"# {names['kind']}",
        schema["description"],
        f"`apiVersion: {spec['group']}/{version['name']}` · {spec['scope'].lower()} · {short}",
        "## What `kubectl get` shows",
        table(
            ("column", "from", ""),
            (
                (
                    column["name"] + (" (`-o wide`)" if column.get("priority") else ""),
                    code(column["jsonPath"]),
                    cell(column.get("description", "")),
                )
                for column in version["additionalPrinterColumns"]
            ),
        ),
    ]
    for part in ("spec", "status"):
        if part in schema["properties"]:
            parts += sections(part, schema["properties"][part], 2)
    return "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"


def sections(path: str, node: Node, depth: int) -> Iterator[str]:
    """A heading, words and a table for an object, then the same for the objects in it."""
    yield f"{'#' * min(depth, 5)} {path}"
    yield node.get("description", "").replace("<", "&lt;")
    rules = [rule["message"] for rule in node.get("x-kubernetes-validations", ()) if "message" in rule]
    if rules:
        yield "Rules: " + "; ".join(cell(rule) for rule in rules) + "."
    required = set(node.get("required", ()))
    fields = node["properties"]
    yield table(
        ("field", "type", "default", ""),
        (
            (f"`{name}`" + (" *" if name in required else ""), kind(field), default(field), words(field))
            for name, field in fields.items()
        ),
    )
    if required:
        yield "\\* required"
    for name, field in fields.items():
        inner, mark = inside(field)
        if inner:
            yield from sections(f"{path}.{name}{mark}", inner, depth + 1)


def inside(field: Node) -> tuple[Node | None, str]:
    """The object with fields of its own in a field, and how a path shows that it is one of several."""
    if "properties" in field:
        return field, ""
    if "properties" in field.get("items", {}):
        return field["items"], "[]"
    return None, ""


def kind(field: Node) -> str:
    """The type in words."""
    if field.get("x-kubernetes-int-or-string"):
        return "integer or string"
    found: str = field.get("type", "any")
    if found == "array":
        return f"list of {field['items'].get('type', 'any')}s"
    if found == "object" and "additionalProperties" in field:
        return "map"
    return found


def default(field: Node) -> str:
    """The default as JSON, "" where there is none."""
    return code(json.dumps(field["default"], ensure_ascii=False)) if "default" in field else ""


def words(field: Node) -> str:
    """What a field is for, and what it may be."""
    own = field.get("items", {}) if field.get("type") == "array" and "enum" in field.get("items", {}) else field
    bounds = [text.format(field[key]) for key, text in BOUNDS if key in field]
    if "enum" in own:
        bounds.insert(0, "one of " + ", ".join(code(str(value)) for value in own["enum"]))
    if "pattern" in field:
        bounds.append("matches " + code(field["pattern"]))
    said = cell(field.get("description", ""))
    rules = [
        cell(rule["message"])
        for rule in (() if "properties" in field else field.get("x-kubernetes-validations", ()))
        if "message" in rule
    ]
    limits = "; ".join([*bounds, *rules])
    return f"{said} *({limits})*" if limits else said
