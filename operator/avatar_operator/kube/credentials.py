"""How to reach and be let into the API server: in a pod, or by a kubeconfig.

One aiohttp session serves our client and kopf's watches alike: one TLS
context, one connection pool.
"""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# A bound token is renewed by the kubelet long before it ends; a minute is soon enough.
TOKEN_REFRESH_SECONDS = 60.0


class CredentialsError(Exception):
    """No usable way to the API server; the message says what was looked for."""


@dataclass(slots=True)
class Credentials:
    """Server URL, TLS context and a bearer token, perhaps renewed in a file."""

    server: str
    tls: ssl.SSLContext | None
    token: str = ""
    token_file: Path | None = None
    _read_at: float = 0.0

    def bearer(self) -> str:
        """The current token, read again from its file once a minute."""
        if self.token_file is not None and time.monotonic() - self._read_at > TOKEN_REFRESH_SECONDS:
            self.token = self.token_file.read_text().strip()
            self._read_at = time.monotonic()
        return self.token


def find(kubeconfig: str | None = None) -> Credentials:
    """The kubeconfig that is named, else the pod's ServiceAccount, else the usual kubeconfig."""
    if kubeconfig:
        return from_kubeconfig(Path(kubeconfig))
    if (SERVICE_ACCOUNT / "token").exists() and os.environ.get("KUBERNETES_SERVICE_HOST"):
        return _in_cluster()
    path = Path(os.environ.get("KUBECONFIG", "~/.kube/config").split(":")[0]).expanduser()
    if path.exists():
        return from_kubeconfig(path)
    raise CredentialsError(f"no ServiceAccount in {SERVICE_ACCOUNT} and no kubeconfig at {path}; give --kubeconfig")


def _in_cluster() -> Credentials:
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    host = f"[{host}]" if ":" in host else host
    tls = ssl.create_default_context(cafile=str(SERVICE_ACCOUNT / "ca.crt"))
    return Credentials(f"https://{host}:{port}", tls, token_file=SERVICE_ACCOUNT / "token", _read_at=-1e9)


def from_kubeconfig(path: Path) -> Credentials:
    """The current context of a kubeconfig: token, token file or client certificate."""
    try:
        config = yaml.safe_load(path.read_text())
        context = _named(config["contexts"], config["current-context"])["context"]
        cluster = _named(config["clusters"], context["cluster"])["cluster"]
        user = _named(config["users"], context["user"])["user"]
        server = str(cluster["server"])
    except (OSError, KeyError, TypeError, StopIteration, yaml.YAMLError) as error:
        raise CredentialsError(f"kubeconfig {path} is not usable: {type(error).__name__}: {error}") from error
    if "exec" in user or "auth-provider" in user:
        raise CredentialsError(
            f"kubeconfig {path}: user {context['user']!r} logs in by a plugin, which is not supported; "
            "use a token or a client certificate (kubectl create token)"
        )
    tls = _tls(cluster, user, path.parent) if server.startswith("https") else None
    file = user.get("tokenFile")
    return Credentials(server, tls, str(user.get("token", "")), path.parent / file if file else None, _read_at=-1e9)


def _named(entries: list[Any], name: str) -> Any:
    return next(entry for entry in entries if entry["name"] == name)


def _tls(cluster: dict[str, Any], user: dict[str, Any], base: Path) -> ssl.SSLContext:
    ca = _bytes(cluster, "certificate-authority", base)
    context = ssl.create_default_context(cadata=ca.decode() if ca else None)
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate, key = _bytes(user, "client-certificate", base), _bytes(user, "client-key", base)
    if certificate and key:
        # The ssl module loads a key from a file only; it is gone again at once.
        with tempfile.NamedTemporaryFile() as file:
            file.write(certificate + b"\n" + key)
            file.flush()
            context.load_cert_chain(file.name)
    return context


def _bytes(entry: dict[str, Any], field: str, base: Path) -> bytes | None:
    if data := entry.get(f"{field}-data"):
        return base64.b64decode(data)
    if name := entry.get(field):
        return (base / str(name)).read_bytes()
    return None


def open_session(
    credentials: Credentials,
    user_agent: str,
    shared: aiohttp.ClientSession | None = None,
    trace: aiohttp.TraceConfig | None = None,
) -> aiohttp.ClientSession:
    """A session that sends the current token with every request.

    With ``shared`` it uses that session's connections, and closing it leaves
    them open. ``trace`` hears of each answer.
    """

    async def authorise(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        if token := credentials.bearer():
            request.headers["Authorization"] = f"Bearer {token}"
        return await send(request)

    tls = credentials.tls if credentials.tls is not None else True
    return aiohttp.ClientSession(
        connector=shared.connector if shared is not None else aiohttp.TCPConnector(limit=0, ssl=tls),
        connector_owner=shared is None,
        headers={"User-Agent": user_agent},
        middlewares=(authorise,),
        trace_configs=[trace] if trace is not None else None,
        timeout=aiohttp.ClientTimeout(total=None, connect=5, sock_connect=5),
    )
