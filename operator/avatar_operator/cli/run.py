"""`avatar-operator run`: the operator."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from .options import Format, Kubeconfig, Level, LogFormat, LogLevel


def run(
    kubeconfig: Kubeconfig = None,
    namespace: Annotated[list[str] | None, typer.Option(help="Watch only this namespace; may be repeated.")] = None,
    listen: Annotated[str, typer.Option(help="Address for /metrics, /healthz, /readyz.")] = "0.0.0.0:8080",
    resync_seconds: Annotated[
        float, typer.Option(min=1, help="How often everything is compared with the API server.")
    ] = 60,
    nodes: Annotated[
        bool, typer.Option(help="Read Nodes and GPUNodes (cluster-scoped), by which pods are placed on GPUs.")
    ] = True,
    lease: Annotated[
        str, typer.Option(help="NAMESPACE/NAME of the Lease by which one of several operators acts; default: act.")
    ] = "",
    shard: Annotated[
        str, typer.Option(help="INDEX/COUNT: act in the namespaces of this shard only, of so many; see docs/scale.md.")
    ] = "0/1",
    log_format: Format = LogFormat.TEXT,
    log_level: Level = LogLevel.INFO,
) -> None:
    """Run the operator until SIGTERM."""
    import uvloop

    from avatar_operator.controller.run import OperatorError, Options
    from avatar_operator.controller.run import run as run_operator
    from avatar_operator.domain.shards import parse
    from avatar_operator.kube.credentials import CredentialsError
    from avatar_operator.process import logs

    logs.configure(log_format, log_level)
    try:
        part = parse(shard)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--shard") from error
    options = Options(kubeconfig, tuple(namespace or ()), listen, resync_seconds, nodes, lease, part)
    try:
        uvloop.run(run_operator(options))
    except CredentialsError as error:
        typer.echo(f"avatar-operator: {error}", err=True)
        sys.exit(2)
    except OperatorError as error:
        typer.echo(f"avatar-operator: {error}", err=True)
        sys.exit(1)
