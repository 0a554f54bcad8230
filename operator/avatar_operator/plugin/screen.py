"""Where output goes: tables to stdout, progress and hints to stderr."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import typer
import yaml
from rich.console import Console
from rich.text import Text

from .options import Output

# As kubectl does, a line longer than the terminal is left to the terminal.
_WIDE = 10_000


def out() -> Console:
    """Standard output; colours only on a terminal."""
    return Console(highlight=False, width=_WIDE)


def err() -> Console:
    """Standard error; as wide as the terminal, so that a spinner stays on its line."""
    console = Console(stderr=True, highlight=False)
    return console if console.is_terminal else Console(stderr=True, highlight=False, width=_WIDE)


def show(lines: Iterable[Text]) -> None:
    """Write lines to stdout."""
    console = out()
    for each in lines:
        console.print(each)


def dump(items: Sequence[dict[str, Any]], form: Output, kind: str) -> None:
    """Objects as json, yaml, or names; ``kind`` is that of names: ``avatarinstance.avatars.virtualtutor.io``."""
    if form is Output.NAME:
        for item in items:
            typer.echo(f"{kind}/{item['metadata']['name']}")
        return
    body = {"apiVersion": "v1", "kind": "List", "items": list(items)}
    typer.echo(json.dumps(body, indent=2) if form is Output.JSON else yaml.safe_dump(body, sort_keys=False).rstrip())
