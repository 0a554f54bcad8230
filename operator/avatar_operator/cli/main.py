"""The command `avatar-operator`."""

from __future__ import annotations

import typer

from avatar_operator import __version__

from .agent import agent
from .api import api
from .audit import audit
from .run import run

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Runs talking avatars on Kubernetes.",
)
app.command()(run)
app.command()(agent)
app.command()(api)
app.command()(audit)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


if __name__ == "__main__":
    app()
