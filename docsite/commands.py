"""The reference of the command lines, from the programs themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import typer.main

from avatar_operator.cli.main import app as operator
from avatar_operator.plugin.app import app as plugin

from .tables import cell, code, table

HEAD = """# Command lines

What `--help` of the programs says.
"""


def page() -> str:
    """The page of both programs."""
    parts = [HEAD]
    for name, app in (("avatar-operator", operator), ("kubectl avatar", plugin)):
        parts += described(name, typer.main.get_command(app), 2)
    return "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"


def described(name: str, command: Any, depth: int) -> Iterator[str]:
    """A command, its arguments and options, then the commands in it. Commands are click's, by whatever name it has."""
    yield f"{'#' * depth} {name}"
    yield inspect.cleandoc(command.help or "").replace("\f", "").replace("<", "&lt;")
    shown = [each for each in command.params if not getattr(each, "hidden", False)]
    arguments = [each for each in shown if each.param_type_name == "argument"]
    yield table(
        ("argument", ""),
        ((code(each.metavar or each.name.upper()), cell(each.help or "")) for each in arguments),
    )
    yield table(
        ("option", "default", ""),
        (
            (
                ", ".join(code(word) for word in [*each.opts, *each.secondary_opts]),
                usual(each),
                cell(each.help or ""),
            )
            for each in shown
            if each.param_type_name == "option" and each.name != "help"
        ),
    )
    for child_name, child in getattr(command, "commands", {}).items():
        if not child.hidden:
            yield from described(f"{name} {child_name}", child, depth + 1)


def usual(option: Any) -> str:
    """What an option is when it is not given."""
    value = option.default
    if option.required:
        return "required"
    if value is None or value is False or value in ("", (), []) or callable(value):
        return ""
    return code("on" if value is True else str(value))
