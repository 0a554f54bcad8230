"""How to reach and be let into the API server: in a pod, or by a kubeconfig.

One aiohttp session serves requests and watches alike: one TLS context, one
connection pool.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import os
import ssl
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from . import kubeconfig as files
from .errors import CredentialsError
from .login import Login, login

__all__ = ["Credentials", "CredentialsError", "Place", "as_kubectl", "find", "from_kubeconfig", "open_session"]

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# A bound token is renewed by the kubelet long before it ends; a minute is soon enough.
TOKEN_REFRESH_SECONDS = 60.0
# A login's token is not used in its last seconds: the request would come too late.
LOGIN_MARGIN_SECONDS = 30.0


@dataclass(slots=True)
class Credentials:
    """Server URL, TLS context and a bearer token, perhaps renewed in a file or by a login program.

    ``headers`` go with every request (impersonation, basic authentication);
    ``proxy`` is the HTTP proxy on the way, ``server_name`` the name that the
    server's certificate must have where it is not that of its URL; empty = none.
    """

    server: str
    tls: ssl.SSLContext | None
    token: str = ""
    token_file: Path | None = None
    _read_at: float = 0.0
    headers: tuple[tuple[str, str], ...] = ()
    proxy: str = ""
    server_name: str = ""
    renew: Callable[[], Login] | None = None
    _expires_at: float = float("inf")
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def bearer(self) -> str:
        """The current token, read again from its file once a minute; a login that has ended is made anew.

        That may take as long as its user needs: not in an event loop, if ``renew`` is set.
        """
        if self.token_file is not None and time.monotonic() - self._read_at > TOKEN_REFRESH_SECONDS:
            self.token = self.token_file.read_text().strip()
            self._read_at = time.monotonic()
        if self.renew is not None and time.time() > self._expires_at - LOGIN_MARGIN_SECONDS:
            with self._lock:
                if time.time() > self._expires_at - LOGIN_MARGIN_SECONDS:
                    self.take(self.renew())
        return self.token

    def take(self, found: Login) -> None:
        """Use what a login gave."""
        self.token = found.token
        self._expires_at = found.expires.timestamp() if found.expires is not None else float("inf")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a person's command goes: a cluster, and the namespace that is meant when none is named."""

    credentials: Credentials
    namespace: str
    context: str


def find(kubeconfig: str | None = None) -> Credentials:
    """The kubeconfig that is named, else the pod's ServiceAccount, else the usual kubeconfig."""
    if kubeconfig:
        return from_kubeconfig(Path(kubeconfig))
    if _in_a_pod():
        return _in_cluster()
    if paths := files.usual():
        return from_kubeconfig(*paths)
    looked = os.environ.get("KUBECONFIG", "~/.kube/config")
    raise CredentialsError(f"no ServiceAccount in {SERVICE_ACCOUNT} and no kubeconfig at {looked}; give --kubeconfig")


def as_kubectl(kubeconfig: str = "", context: str = "") -> Place:
    """What kubectl would use: the kubeconfig that is named or the usual one, else the pod's ServiceAccount."""
    paths = [Path(kubeconfig).expanduser()] if kubeconfig else files.usual()
    if not paths and _in_a_pod() and not context:
        inside = SERVICE_ACCOUNT / "namespace"
        return Place(_in_cluster(), inside.read_text().strip() if inside.exists() else "default", "in the cluster")
    if not paths:
        looked = os.environ.get("KUBECONFIG", "~/.kube/config")
        raise CredentialsError(f"there is no kubeconfig at {looked}; set KUBECONFIG or give --kubeconfig")
    choice = files.choose(paths, context)
    found = _credentials(choice)
    found.proxy = found.proxy or _usual_proxy(found.server)
    return Place(found, choice.namespace or "default", choice.context)


def _in_a_pod() -> bool:
    return (SERVICE_ACCOUNT / "token").exists() and bool(os.environ.get("KUBERNETES_SERVICE_HOST"))


def _in_cluster() -> Credentials:
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    host = f"[{host}]" if ":" in host else host
    tls = ssl.create_default_context(cafile=str(SERVICE_ACCOUNT / "ca.crt"))
    return Credentials(f"https://{host}:{port}", tls, token_file=SERVICE_ACCOUNT / "token", _read_at=-1e9)


def from_kubeconfig(*paths: Path, context: str = "") -> Credentials:
    """A context of a kubeconfig (the current one): token, token file, client certificate, or a login program."""
    return _credentials(files.choose(paths, context))


def _credentials(choice: files.Choice) -> Credentials:
    cluster, user = choice.cluster, choice.user
    if "auth-provider" in user:
        raise CredentialsError(
            f"kubeconfig {choice.source}: its user logs in by an auth-provider, which Kubernetes has removed; use "
            "exec, a token or a client certificate (kubectl create token)"
        )
    server = str(cluster["server"])
    program: dict[str, Any] = user.get("exec") or {}
    logged = login(program, cluster) if program else None
    try:
        tls = _tls(cluster, user, logged) if server.startswith("https") else None
    except (OSError, ValueError) as error:
        raise CredentialsError(f"kubeconfig {choice.source} is not usable: {error}") from error
    file = user.get("tokenFile")
    found = Credentials(
        server,
        tls,
        str(user.get("token", "")),
        Path(file) if file else None,
        _read_at=-1e9,
        headers=_headers(user),
        proxy=str(cluster.get("proxy-url", "")),
        server_name=str(cluster.get("tls-server-name", "")),
    )
    if logged is not None:
        found.renew = partial(login, program, cluster)
        found.take(logged)
    return found


def _headers(user: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Basic authentication and impersonation, as a kubeconfig's user may ask for them."""
    result: list[tuple[str, str]] = []
    if user.get("username"):
        pair = f"{user['username']}:{user.get('password', '')}".encode()
        result.append(("Authorization", f"Basic {base64.b64encode(pair).decode()}"))
    if user.get("as"):
        result.append(("Impersonate-User", str(user["as"])))
        result += [("Impersonate-Group", str(group)) for group in user.get("as-groups") or []]
        result += [("Impersonate-Uid", str(user["as-uid"]))] if user.get("as-uid") else []
        extra: dict[str, Sequence[str]] = user.get("as-user-extra") or {}
        result += [(f"Impersonate-Extra-{key}", str(value)) for key, values in extra.items() for value in values]
    return tuple(result)


def _usual_proxy(server: str) -> str:
    """The proxy that the environment names for this server (HTTPS_PROXY, NO_PROXY); never for the own machine."""
    parts = urlsplit(server)
    host = parts.hostname or ""
    try:
        own = ipaddress.ip_address(host).is_loopback
    except ValueError:
        own = host == "localhost"
    if own or urllib.request.proxy_bypass(parts.netloc):
        return ""
    return urllib.request.getproxies().get(parts.scheme, "")


def _tls(cluster: dict[str, Any], user: dict[str, Any], logged: Login | None) -> ssl.SSLContext:
    ca = _bytes(cluster, "certificate-authority")
    context = ssl.create_default_context(cadata=ca.decode() if ca else None)
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate, key = _bytes(user, "client-certificate"), _bytes(user, "client-key")
    if logged is not None and logged.certificate:
        certificate, key = logged.certificate, logged.key
    if certificate and key:
        # The ssl module loads a key from a file only; it is gone again at once.
        with tempfile.NamedTemporaryFile() as file:
            file.write(certificate + b"\n" + key)
            file.flush()
            context.load_cert_chain(file.name)
    return context


def _bytes(entry: dict[str, Any], name: str) -> bytes | None:
    if data := entry.get(f"{name}-data"):
        return base64.b64decode(data)
    if path := entry.get(name):
        return Path(str(path)).read_bytes()
    return None


def open_session(credentials: Credentials, user_agent: str) -> aiohttp.ClientSession:
    """A session that sends the current token with every request."""

    async def authorise(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        renewed = credentials.renew is not None
        if token := await asyncio.to_thread(credentials.bearer) if renewed else credentials.bearer():
            request.headers["Authorization"] = f"Bearer {token}"
        if credentials.server_name:
            request.server_hostname = credentials.server_name
        return await send(request)

    tls = credentials.tls if credentials.tls is not None else True
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=tls),
        headers=[("User-Agent", user_agent), *credentials.headers],
        proxy=credentials.proxy or None,
        middlewares=(authorise,),
        timeout=aiohttp.ClientTimeout(total=None, connect=5, sock_connect=5),
    )
