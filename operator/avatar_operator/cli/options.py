"""Options that all commands have."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


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


Kubeconfig = Annotated[str | None, typer.Option(help="Kubeconfig; default: the pod's ServiceAccount.")]
Format = Annotated[LogFormat, typer.Option("--log-format", help="json or text.")]
Level = Annotated[LogLevel, typer.Option("--log-level", help="debug, info, warning or error.")]
