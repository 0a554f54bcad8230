"""Errors that end the process, with their exit codes."""

EX_CONFIG = 78
"""Configuration error: a restart with the same arguments fails in the same way (sysexits.h)."""

EX_PORT_IN_USE = 98
"""The listen port is taken (the number of EADDRINUSE on Linux)."""


class ConfigError(Exception):
    """A fault that only a change of arguments or avatar data can cure. The text names the cause and the remedy."""
