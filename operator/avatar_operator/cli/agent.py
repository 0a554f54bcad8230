"""`avatar-operator agent`: the node agent."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from .options import Format, Kubeconfig, Level, LogFormat, LogLevel


def agent(
    node: Annotated[str, typer.Option(envvar="NODE_NAME", help="Name of the Node that this is.")],
    kubeconfig: Kubeconfig = None,
    listen: Annotated[
        str, typer.Option(envvar="AVATAR_AGENT_LISTEN", help="Address for /metrics, /healthz, /readyz.")
    ] = "0.0.0.0:8081",
    period_seconds: Annotated[
        float, typer.Option(min=1, envvar="AVATAR_AGENT_PERIOD_SECONDS", help="How often the GPUs are read.")
    ] = 10,
    heartbeat_seconds: Annotated[
        int,
        typer.Option(min=5, envvar="AVATAR_AGENT_HEARTBEAT_SECONDS", help="How often to report when nothing changes."),
    ] = 30,
    temperature_celsius: Annotated[
        int, typer.Option(min=0, envvar="AVATAR_AGENT_TEMPERATURE_CELSIUS", help="Alert from here on; 0 = never.")
    ] = 85,
    memory_percent: Annotated[
        int, typer.Option(min=0, max=100, envvar="AVATAR_AGENT_MEMORY_PERCENT", help="Memory taken; 0 = never.")
    ] = 95,
    utilization_percent: Annotated[
        int, typer.Option(min=0, max=100, envvar="AVATAR_AGENT_UTILIZATION_PERCENT", help="Busy; 0 = never.")
    ] = 98,
    utilization_seconds: Annotated[
        int, typer.Option(min=0, envvar="AVATAR_AGENT_UTILIZATION_SECONDS", help="… for so long.")
    ] = 300,
    proc: Annotated[
        Path, typer.Option(envvar="AVATAR_AGENT_PROC", help="The node's /proc, where the pod has no hostPID.")
    ] = Path("/proc"),
    log_format: Format = LogFormat.TEXT,
    log_level: Level = LogLevel.INFO,
) -> None:
    """Report this node's GPUs as a GPUNode and as metrics, until SIGTERM."""
    import asyncio

    from avatar_operator.agent.alerts import Thresholds
    from avatar_operator.agent.loop import Pace
    from avatar_operator.agent.run import AgentError, Options, run
    from avatar_operator.kube.credentials import CredentialsError
    from avatar_operator.process import logs

    logs.configure(log_format, log_level)
    thresholds = Thresholds(temperature_celsius, memory_percent, utilization_percent, utilization_seconds)
    options = Options(node, kubeconfig, listen, Pace(period_seconds, heartbeat_seconds), thresholds, proc)
    try:
        asyncio.run(run(options))
    except CredentialsError as error:
        typer.echo(f"avatar-operator: {error}", err=True)
        sys.exit(2)
    except AgentError as error:
        typer.echo(f"avatar-operator: {error}", err=True)
        sys.exit(1)
