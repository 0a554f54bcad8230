"""The command `avatar-operator`."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated

import typer

from avatar_operator import __version__

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Runs talking avatars on Kubernetes.",
)


class LogFormat(StrEnum):
    """How log lines look."""

    JSON = "json"
    TEXT = "text"


class LogLevel(StrEnum):
    """From which severity on log lines are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@app.callback()
def main() -> None:
    """Keep `run` a sub-command though it is the only one that needs arguments."""


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


@app.command()
def run(
    kubeconfig: Annotated[str | None, typer.Option(help="Kubeconfig; default: the pod's ServiceAccount.")] = None,
    namespace: Annotated[list[str] | None, typer.Option(help="Watch only this namespace; may be repeated.")] = None,
    listen: Annotated[str, typer.Option(help="Address for /metrics, /healthz, /readyz.")] = "0.0.0.0:8080",
    resync_seconds: Annotated[
        float, typer.Option(min=1, help="How often everything is compared with the API server.")
    ] = 60,
    log_format: Annotated[LogFormat, typer.Option(help="json or text.")] = LogFormat.TEXT,
    log_level: Annotated[LogLevel, typer.Option(help="debug, info, warning or error.")] = LogLevel.INFO,
) -> None:
    """Run the operator until SIGTERM."""
    import uvloop

    from avatar_operator.controller import logs
    from avatar_operator.controller.run import OperatorError, Options
    from avatar_operator.controller.run import run as run_operator
    from avatar_operator.kube.credentials import CredentialsError

    logs.configure(log_format, log_level)
    try:
        uvloop.run(run_operator(Options(kubeconfig, tuple(namespace or ()), listen, resync_seconds)))
    except CredentialsError as error:
        typer.echo(f"avatar-operator: {error}", err=True)
        sys.exit(2)
    except OperatorError as error:
        typer.echo(f"avatar-operator: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    app()
