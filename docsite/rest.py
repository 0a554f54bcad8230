"""The reference of the REST API, from its OpenAPI document."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from avatar_operator.api.app import document

from .tables import cell, code, table

Node = dict[str, Any]
HEAD = """# REST API

Made from the OpenAPI document, which a running server has at `/openapi.json` and this site as
[openapi.json](openapi.json). How sessions, leases and roles work: [the REST API in practice](../api.md).
"""


def openapi() -> str:
    """The document as JSON."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


def page() -> str:
    """The page: operations, then the objects that they take and give."""
    whole = document()
    parts = [HEAD, whole["info"]["description"].replace("<", "&lt;")]
    for path, operations in whole["paths"].items():
        for method, operation in operations.items():
            parts += operation_of(method.upper(), path, operation)
    parts.append("## Objects")
    for name, schema in whole["components"]["schemas"].items():
        parts += object_of(name, schema)
    return "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"


def operation_of(method: str, path: str, operation: Node) -> Iterator[str]:
    """One route."""
    yield f"## {method} {path}"
    yield f"**{operation['summary']}.** {operation.get('description', '')}".replace("<", "&lt;")
    yield table(
        ("parameter", "in", ""),
        (
            (code(each["name"]), each["in"], cell(each.get("description", "")))
            for each in operation.get("parameters", ())
        ),
    )
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    if "schema" in body:
        yield f"Body: {type_of(body['schema'])}"
        if "example" in body:
            yield example(body["example"])
    yield table(
        ("answer", "", "body"),
        (
            (
                status,
                cell(answer["description"]),
                ", ".join(type_of(content["schema"]) for content in answer.get("content", {}).values()),
            )
            for status, answer in operation["responses"].items()
        ),
    )
    success = operation["responses"].get("200", {}).get("content", {}).get("application/json", {})
    if "example" in success:
        yield example(success["example"])


def example(value: Any) -> str:
    """A value as a block of JSON."""
    return f"```json\n{json.dumps(value, indent=2, ensure_ascii=False)}\n```"


def object_of(name: str, schema: Node) -> Iterator[str]:
    """One object with its fields."""
    yield f"### {name}"
    yield schema.get("description", "").replace("<", "&lt;")
    required = set(schema.get("required", ()))
    yield table(
        ("field", "type", ""),
        (
            (f"`{field}`" + (" *" if field in required else ""), type_of(node), cell(node.get("description", "")))
            for field, node in schema.get("properties", {}).items()
        ),
    )


def type_of(node: Node) -> str:
    """A type in words, objects as links to what is said of them."""
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for several in ("anyOf", "oneOf"):
        if several in node:
            return " or ".join(dict.fromkeys(type_of(each) for each in node[several]))
    if node.get("type") == "array":
        return f"list of {type_of(node.get('items', {}))}"
    if "enum" in node:
        return ", ".join(code(str(value)) for value in node["enum"])
    found = node.get("type", "any")
    return " or ".join(found) if isinstance(found, list) else str(found)
