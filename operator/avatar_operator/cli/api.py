"""`avatar-operator api`: the REST API."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .options import Format, Kubeconfig, Level, LogFormat, LogLevel

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class AuthMode(StrEnum):
    """How callers are known."""

    JWT = "jwt"
    TOKENREVIEW = "tokenreview"
    NONE = "none"


class RoleName(StrEnum):
    """Roles; each may what those before it may."""

    VIEWER = "viewer"
    USER = "user"
    ADMIN = "admin"


def api(
    auth: Annotated[AuthMode, typer.Option(help="jwt, tokenreview, or none (only on a loopback address).")],
    kubeconfig: Kubeconfig = None,
    namespace: Annotated[
        str | None, typer.Option(help="Namespace whose avatars are served; default: the pod's own, else default.")
    ] = None,
    pool: Annotated[str, typer.Option(help="AvatarPool for starts that name none.")] = "default",
    listen: Annotated[str, typer.Option(help="Address of the API.")] = "127.0.0.1:8607",
    metrics_listen: Annotated[str, typer.Option(help="Address for /metrics, /healthz, /readyz.")] = "127.0.0.1:8080",
    patience_seconds: Annotated[
        float, typer.Option(min=0, max=300, help="How long a start waits that does not say it itself.")
    ] = 30,
    jwt_secret_file: Annotated[Path | None, typer.Option(help="HS256: file with the shared secret.")] = None,
    jwks_url: Annotated[str, typer.Option(help="RS256 and ES256: address of the key set.")] = "",
    jwt_issuer: Annotated[str, typer.Option(help="Issuer that tokens must name.")] = "",
    audience: Annotated[str, typer.Option(help="Audience that tokens must be meant for.")] = "",
    role_claim: Annotated[str, typer.Option(help="Claim with the role; dots for nested ones.")] = "role",
    role: Annotated[
        list[str] | None,
        typer.Option(help="VALUE=ROLE: what a claim's value (a group, a user name) means; may be repeated."),
    ] = None,
    default_role: Annotated[RoleName, typer.Option(help="Role of those whose token gives none.")] = RoleName.VIEWER,
    start_rate: Annotated[str, typer.Option(help="Starts of one user: COUNT/SECONDS; 0 = no limit.")] = "30/60",
    start_rate_address: Annotated[str, typer.Option(help="Starts from one address: COUNT/SECONDS.")] = "120/60",
    failure_rate: Annotated[
        str, typer.Option(help="Tokens that are not valid, from one address: COUNT/SECONDS.")
    ] = "60/60",
    redis_url: Annotated[
        str, typer.Option(envvar="AVATAR_API_REDIS_URL", help="Redis that replicas share their limits in.")
    ] = "",
    cors_origin: Annotated[
        list[str] | None, typer.Option(help="Origin whose pages may use the API; may be repeated.")
    ] = None,
    trusted_proxy: Annotated[
        list[str] | None, typer.Option(help="Address or network of a proxy whose X-Forwarded-For counts.")
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="Certificate chain (PEM); read anew when renewed.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key (PEM).")] = None,
    console: Annotated[bool, typer.Option(help="Serve the web console at /console.")] = True,
    log_format: Format = LogFormat.TEXT,
    log_level: Level = LogLevel.INFO,
) -> None:
    """Serve the REST API until SIGTERM."""
    import uvloop

    from avatar_operator.api.auth import AuthConfigError, Roles
    from avatar_operator.api.caller import Role
    from avatar_operator.api.door import Policy
    from avatar_operator.api.limits import Rate
    from avatar_operator.api.server import ApiError, Auth, Options
    from avatar_operator.api.server import run as run_api
    from avatar_operator.kube.credentials import CredentialsError
    from avatar_operator.process import logs

    logs.configure(log_format, log_level)
    try:
        # A claim may name our roles; groups of Kubernetes must be mapped.
        mapped = Role.mapping(role or (), named=auth is AuthMode.JWT)
        options = Options(
            auth=Auth(
                auth.value,
                Roles(mapped, Role[default_role.name]),
                jwt_secret_file,
                jwks_url,
                jwt_issuer,
                audience,
                role_claim,
            ),
            kubeconfig=kubeconfig,
            namespace=namespace or _own_namespace(),
            listen=listen,
            metrics_listen=metrics_listen,
            policy=Policy(
                pool,
                patience_seconds,
                Rate.parse(start_rate),
                Rate.parse(start_rate_address),
                Rate.parse(failure_rate),
            ),
            origins=cors_origin or (),
            trusted_proxies=trusted_proxy or (),
            redis_url=redis_url,
            tls_certificate=tls_certificate,
            tls_key=tls_key,
            console=console,
        )
        uvloop.run(run_api(options))
    except (CredentialsError, AuthConfigError, ValueError) as error:
        typer.echo(f"avatar-operator: {error}", err=True)
        sys.exit(2)
    except ApiError as error:
        typer.echo(f"avatar-operator: {error}", err=True)
        sys.exit(1)


def _own_namespace() -> str:
    if NAMESPACE_FILE.exists():
        return NAMESPACE_FILE.read_text(encoding="utf-8").strip()
    return os.environ.get("POD_NAMESPACE", "default")
