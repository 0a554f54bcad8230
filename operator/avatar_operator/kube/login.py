"""Login by a program that a kubeconfig names: client.authentication.k8s.io, v1 and v1beta1.

The program's words go to the terminal, and it may ask there: some open a
browser and wait for their user.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .errors import CredentialsError

# A person may have to type a password, or to find a second factor.
TIMEOUT_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Login:
    """What the program gave: a token, or a client certificate with its key (PEM). ``expires`` None = not said."""

    token: str = ""
    certificate: bytes = b""
    key: bytes = b""
    expires: datetime | None = None


def login(program: dict[str, Any], cluster: dict[str, Any]) -> Login:
    """Run the ``exec`` of a kubeconfig's user; CredentialsError with its hint when it cannot be."""
    version = str(program.get("apiVersion") or "client.authentication.k8s.io/v1")
    mode = str(program.get("interactiveMode") or "IfAvailable")
    asks = mode != "Never" and sys.stdin is not None and sys.stdin.isatty()
    command = [str(program.get("command", "")), *(str(a) for a in program.get("args") or [])]
    if mode == "Always" and not asks:
        raise CredentialsError(f"the login program {command[0]!r} of the kubeconfig needs a terminal")
    info: dict[str, Any] = {"apiVersion": version, "kind": "ExecCredential", "spec": {"interactive": asks}}
    if program.get("provideClusterInfo"):
        info["spec"]["cluster"] = {
            "server": cluster["server"],
            "certificate-authority-data": cluster.get("certificate-authority-data", ""),
            "insecure-skip-tls-verify": bool(cluster.get("insecure-skip-tls-verify")),
            "tls-server-name": cluster.get("tls-server-name", ""),
        }
    given = {str(e["name"]): str(e["value"]) for e in program.get("env") or []}
    env = {**os.environ, **given, "KUBERNETES_EXEC_INFO": json.dumps(info)}
    try:
        done = subprocess.run(
            command,
            env=env,
            stdin=None if asks else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CredentialsError(f"the login program {command[0]!r} took longer than {TIMEOUT_SECONDS} s") from error
    except OSError as error:
        hint = str(program.get("installHint") or "").strip()
        text = f"the login program {command[0]!r} of the kubeconfig cannot be run: {error.strerror}"
        raise CredentialsError(f"{text}\n{hint}" if hint else text) from error
    if done.returncode:
        raise CredentialsError(f"the login program {command[0]!r} failed with exit code {done.returncode}")
    return _read(command[0], done.stdout)


def _read(command: str, output: bytes) -> Login:
    try:
        status = json.loads(output)["status"]
        expires = status.get("expirationTimestamp")
        found = Login(
            str(status.get("token") or ""),
            str(status.get("clientCertificateData") or "").encode(),
            str(status.get("clientKeyData") or "").encode(),
            datetime.fromisoformat(expires) if expires else None,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CredentialsError(f"the login program {command!r} printed no ExecCredential with a status") from error
    if not found.token and not (found.certificate and found.key):
        raise CredentialsError(f"the login program {command!r} gave neither a token nor a certificate with its key")
    return found
