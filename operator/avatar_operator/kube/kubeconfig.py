"""A kubeconfig as kubectl reads it: several files as one, a context of choice, the login of its user.

Of two files that say the same thing the first counts; paths in a file are
relative to it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .errors import CredentialsError

Entry = dict[str, Any]

# Fields whose value is a path.
_PATHS = ("certificate-authority", "client-certificate", "client-key", "tokenFile")


@dataclass(frozen=True, slots=True)
class Choice:
    """One context of a kubeconfig. ``cluster`` and ``user`` as they stand there, with absolute paths."""

    source: str
    context: str
    namespace: str
    cluster: Entry
    user: Entry


def usual() -> list[Path]:
    """The files that kubectl reads when none is named: KUBECONFIG, which may name several, or ~/.kube/config."""
    named = [Path(part).expanduser() for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    return [path for path in named or [Path("~/.kube/config").expanduser()] if path.exists()]


def contexts(paths: Sequence[Path]) -> list[str]:
    """Names of all contexts, in their order."""
    return [str(entry["name"]) for entry in _merged(paths)["contexts"]]


def choose(paths: Sequence[Path], context: str = "") -> Choice:
    """The context of that name, or the current one; CredentialsError names what is missing."""
    source = os.pathsep.join(map(str, paths))
    config = _merged(paths)
    name = context or config["current-context"]
    if not name:
        raise CredentialsError(f"kubeconfig {source} is not usable: it has no current-context; give --context")
    found = _named(config["contexts"], name, "context", source)
    here = _inside(found, "context", name, source)
    cluster = _named(config["clusters"], str(here.get("cluster", "")), "cluster", source)
    user = _named(config["users"], str(here["user"]), "user", source) if here.get("user") else {"name": "", "user": {}}
    inner = _inside(cluster, "cluster", str(cluster["name"]), source)
    if not inner.get("server"):
        raise CredentialsError(f"kubeconfig {source} is not usable: cluster {cluster['name']!r} has no server")
    return Choice(source, name, str(here.get("namespace", "")), inner, _inside(user, "user", str(user["name"]), source))


def _merged(paths: Sequence[Path]) -> Entry:
    result: Entry = {"clusters": [], "users": [], "contexts": [], "current-context": ""}
    for path in paths:
        try:
            config = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise CredentialsError(f"kubeconfig {path} is not usable: {type(error).__name__}: {error}") from error
        if not isinstance(config, dict):
            raise CredentialsError(f"kubeconfig {path} is not usable: it is no mapping")
        result["current-context"] = result["current-context"] or str(config.get("current-context") or "")
        for kind in ("clusters", "users", "contexts"):
            known = {entry["name"] for entry in result[kind]}
            for entry in config.get(kind) or []:
                if isinstance(entry, dict) and "name" in entry and entry["name"] not in known:
                    result[kind].append(_absolute(entry, kind[:-1], path.absolute().parent))
    return result


def _absolute(entry: Entry, kind: str, base: Path) -> Entry:
    inner = entry.get(kind)
    if not isinstance(inner, dict):
        return entry
    inner = {**inner, **{key: str(base / str(inner[key])) for key in _PATHS if inner.get(key)}}
    program = inner.get("exec")
    if isinstance(program, dict) and os.sep in str(program.get("command", "")):
        inner["exec"] = {**program, "command": str(base / str(program["command"]))}
    return {**entry, kind: inner}


def _named(entries: list[Entry], name: str, kind: str, source: str) -> Entry:
    for entry in entries:
        if entry["name"] == name:
            return entry
    known = ", ".join(str(entry["name"]) for entry in entries) or "none"
    raise CredentialsError(f"kubeconfig {source} has no {kind} {name!r}; it has: {known}")


def _inside(entry: Entry, kind: str, name: str, source: str) -> Entry:
    inner = entry.get(kind)
    if not isinstance(inner, dict):
        raise CredentialsError(f"kubeconfig {source} is not usable: {kind} {name!r} is empty")
    return inner
