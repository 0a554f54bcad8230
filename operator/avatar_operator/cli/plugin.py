"""The programs `kubectl-avatar` and `kubectl_complete-avatar`."""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer


def main() -> None:
    """Run `kubectl avatar …`."""
    try:
        from avatar_operator.plugin.app import PROGRAM, ordered

        commands()(ordered(sys.argv[1:]), prog_name=PROGRAM)
    except ImportError as error:
        sys.exit(f"kubectl avatar needs more packages ({error}): pip install 'avatar-operator[plugin]'")
    except KeyboardInterrupt:
        sys.exit(130)


def complete() -> None:
    """Print candidates for the last word, as kubectl asks for them."""
    from avatar_operator.plugin import completion

    found, directive = completion.complete(commands(), sys.argv[1:], completion.look)
    lines = [f"{each.word}\t{each.about}" if each.about else each.word for each in found]
    sys.stdout.write("\n".join([*lines, f":{directive}"]) + "\n")


@cache
def commands() -> typer.Typer:
    """The plugin's commands."""
    from avatar_operator.plugin.app import app

    from .audit import kubectl_audit

    app.command("audit")(kubectl_audit)
    return app


if __name__ == "__main__":
    main()
