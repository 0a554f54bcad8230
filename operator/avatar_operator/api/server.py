"""`avatar-operator api`: puts the parts together, serves, and ends in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import ssl
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import uvicorn

from avatar_operator import __version__
from avatar_operator.kube import credentials
from avatar_operator.kube.client import KubeClient
from avatar_operator.process import heap, http

from . import app, runtimes
from .auth import AuthConfigError, Authenticator, Bearer, Open, Roles, is_loopback
from .console import Bundle, Console
from .door import Door, Policy
from .ends import Ends
from .feed import Feed
from .ice import Ice
from .limits import Limiter, LocalLimiter, RedisLimiter
from .metrics import ApiMetrics
from .offers import Offers
from .peers import Peers
from .pods import Pods
from .protocol import BoundedProtocol
from .reviews import TokenReviews
from .rolls import Rolls
from .routes import Routes
from .signals import SignalRoutes
from .starts import Starts
from .tokens import Claims, KeySet, SharedSecret
from .world import SILENCE_SECONDS, World

log = logging.getLogger(__name__)

# Requests to the Kubernetes API at one time.
KUBE_AT_ONCE = 128
TLS_LOOK_SECONDS = 10.0
STOP_SECONDS = 10
SYNC_SECONDS = 60.0


class ApiError(Exception):
    """The server cannot go on; the message is for people."""


@dataclass(frozen=True, slots=True)
class Auth:
    """How callers are known. ``mode``: jwt, tokenreview or none."""

    mode: str
    roles: Roles = field(default_factory=Roles)
    secret_file: Path | None = None
    jwks_url: str = ""
    issuer: str = ""
    audience: str = ""
    role_claim: str = "role"


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    auth: Auth
    kubeconfig: str | None = None
    namespace: str = "default"
    listen: str = "127.0.0.1:8607"
    metrics_listen: str = "127.0.0.1:8080"
    policy: Policy = field(default_factory=Policy)
    origins: Sequence[str] = ()
    trusted_proxies: Sequence[str] = ()
    redis_url: str = ""
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    console: bool = True


def check(options: Options) -> None:
    """AuthConfigError where options are unsafe or do not fit together."""
    auth, (host, _) = options.auth, address(options.listen)
    if auth.mode == "none" and not is_loopback(host):
        raise AuthConfigError(
            f"--auth none lets everybody do everything, and --listen {options.listen} is reachable from other "
            "machines; use --auth jwt or --auth tokenreview, or listen on 127.0.0.1"
        )
    if auth.mode == "jwt" and bool(auth.secret_file) == bool(auth.jwks_url):
        raise AuthConfigError("--auth jwt needs one of --jwt-secret-file and --jwks-url")
    if auth.mode != "jwt" and (auth.secret_file or auth.jwks_url or auth.issuer):
        raise AuthConfigError("--jwt-secret-file, --jwks-url and --jwt-issuer go with --auth jwt only")
    if bool(options.tls_certificate) != bool(options.tls_key):
        raise AuthConfigError("--tls-certificate and --tls-key are needed both, or neither")


def address(listen: str) -> tuple[str, int]:
    """Host and port of ``host:port``; without a host all addresses."""
    host, _, port = listen.rpartition(":")
    if not port.isdigit():
        raise AuthConfigError(f"{listen!r} is no address to listen on: give HOST:PORT")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - what an empty host means


async def run(options: Options) -> None:
    """Serve until SIGTERM or SIGINT."""
    check(options)
    # It speaks only when something is wrong.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    found = credentials.find(options.kubeconfig)
    metrics = ApiMetrics()
    async with (
        credentials.open_session(found, f"avatar-operator-api/{__version__}") as session,
        aiohttp.ClientSession() as outside,
        runtimes.session() as inside,
    ):
        client = KubeClient(session, found.server, concurrency=KUBE_AT_ONCE, observe=metrics.observe_kube)
        limiter: Limiter = RedisLimiter(options.redis_url, metrics) if options.redis_url else LocalLimiter()
        parts = _Parts(options, client, inside, _authenticator(options.auth, client, outside), limiter, metrics)
        try:
            await parts.run()
        finally:
            if isinstance(limiter, RedisLimiter):
                await limiter.close()


def _authenticator(auth: Auth, client: KubeClient, session: aiohttp.ClientSession) -> Authenticator:
    if auth.mode == "none":
        log.warning("authentication is off: whoever can open a connection from this machine may do everything")
        return Open()
    if auth.mode == "tokenreview":
        return Bearer(TokenReviews(client, auth.roles, auth.audience))
    claims = Claims(auth.roles, auth.role_claim, auth.issuer, auth.audience)
    if auth.secret_file is not None:
        return Bearer(SharedSecret(auth.secret_file, claims))
    return Bearer(KeySet(auth.jwks_url, claims, session))


def _now() -> datetime:
    return datetime.now(UTC)


class _Parts:
    """Everything that runs."""

    def __init__(
        self,
        options: Options,
        client: KubeClient,
        inside: aiohttp.ClientSession,
        authenticator: Authenticator,
        limiter: Limiter,
        metrics: ApiMetrics,
    ) -> None:
        self.options = options
        self.metrics = metrics
        self.world = World(client, options.namespace, console=options.console)
        rolls = Rolls(client, self.world.instances, metrics, _now)
        self.starts = Starts(client, self.world, rolls, metrics, _now)
        pods = Pods(client, options.namespace)
        self.ends = Ends(client, self.world, rolls, self.starts, pods, metrics, _now)
        ice = Ice(client, options.namespace)
        runtimes_ = runtimes.Runtimes(inside, pods, metrics)
        self.peers = Peers(self.world, rolls, runtimes_, metrics, _now)
        offers = Offers(client, self.world, rolls, runtimes_, ice, metrics, _now)
        door = Door(authenticator, limiter, metrics, options.policy)
        routes = Routes(self.world, self.starts, self.ends, ice, door, metrics, options.policy, _now)
        signals = SignalRoutes(offers, runtimes_, door)
        self.feed = Feed(self.world)
        alone = options.auth.mode == "none"
        console = None
        if options.console:
            pool = options.policy.pool
            console = Console(self.feed, door, ice, self.starts.closing, metrics, _now, pool, alone, Bundle.read())
        self.app = app.build(routes, signals, console, origins=options.origins, local=alone)
        self.tasks: list[asyncio.Task[None]] = []

    # ---- health ----------------------------------------------------------------------

    def dead(self) -> str:
        """As process.http.Health."""
        return next((f"{t.get_name()} has ended" for t in self.tasks if t.done()), "")

    def unready(self) -> str:
        """As process.http.Health."""
        if self.starts.closing.is_set():
            return "stopping"
        missing = [name for name, r in self.world.reflectors.items() if not r.synced.is_set()]
        if missing:
            return f"not read yet: {', '.join(missing)}"
        silent = self.world.silent_for(time.monotonic())
        return f"the API server was not heard of for {silent:.0f} s" if silent > SILENCE_SECONDS else ""

    # ---- running ---------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until told to stop."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        for name, reflector in self.world.reflectors.items():
            self.tasks.append(asyncio.create_task(reflector.run(), name=f"watch-{name}"))
        try:
            inside = await http.serve(self.options.metrics_listen, self.metrics.registry, self)
        except OSError as error:
            raise ApiError(f"cannot listen on {self.options.metrics_listen} (--metrics-listen): {error}") from error
        try:
            await self._serve(stop)
        finally:
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)
            await inside.cleanup()
            log.info("stopped")

    async def _serve(self, stop: asyncio.Event) -> None:
        # Before it knows the cluster it would say that nothing is there.
        waiting = [asyncio.create_task(self.world.synced()), asyncio.create_task(stop.wait())]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            return
        heap.keep()
        server = _Server(self._config())
        self.tasks.append(asyncio.create_task(self.ends.sweep(), name="sweep"))
        self.tasks.append(asyncio.create_task(self.feed.run(), name="console"))
        self.tasks.append(asyncio.create_task(self.peers.sweep(), name="peers"))
        if self.options.tls_certificate is not None:
            self.tasks.append(asyncio.create_task(self._follow_tls(server), name="tls"))
        serving = asyncio.create_task(server.serve(), name="server")
        extra = {"version": __version__, "listen": self.options.listen, "pid": os.getpid()}
        log.info("running", extra=extra)
        await asyncio.wait([serving, waiting[1], *self.tasks], return_when=asyncio.FIRST_COMPLETED)
        failed = "" if stop.is_set() else self.dead()
        # Those who wait hear at once that another replica must take over.
        self.starts.closing.set()
        self.feed.wake()
        server.should_exit = True
        await serving
        if failed or not stop.is_set():
            raise ApiError(failed or f"cannot listen on {self.options.listen} (--listen); its error is above")

    def _config(self) -> uvicorn.Config:
        host, port = address(self.options.listen)
        proxies = list(self.options.trusted_proxies)
        config = uvicorn.Config(
            self.app,
            host=host,
            port=port,
            http=BoundedProtocol,
            ws="none",
            lifespan="off",
            loop="none",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=bool(proxies),
            forwarded_allow_ips=proxies or None,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=STOP_SECONDS,
            backlog=4096,
            ssl_certfile=self.options.tls_certificate,
            ssl_keyfile=self.options.tls_key,
        )
        try:
            config.load()
        except (OSError, ssl.SSLError) as error:
            raise ApiError(f"--tls-certificate {self.options.tls_certificate}: {error}") from error
        return config

    async def _follow_tls(self, server: uvicorn.Server) -> None:
        """Take a renewed certificate for new connections; one that cannot be read leaves the old in use."""
        certificate, key = self.options.tls_certificate, self.options.tls_key
        if certificate is None or key is None:
            return
        stamp = _stamp(certificate, key)
        while True:
            await asyncio.sleep(TLS_LOOK_SECONDS)
            found = _stamp(certificate, key)
            if found == stamp or found is None or server.config.ssl is None:
                continue
            try:
                # Tried on a context of its own first: half a pair must not get into the one in use.
                ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
                server.config.ssl.load_cert_chain(certificate, key)
            except (OSError, ssl.SSLError) as error:
                log.error("--tls-certificate %s: %s; the one before stays in use", certificate, error)
            else:
                log.info("took the renewed certificate")
            stamp = found


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are taken by ``_Parts``."""
        yield


def _stamp(*files: Path) -> tuple[tuple[float, int], ...] | None:
    try:
        return tuple((f.stat().st_mtime, f.stat().st_ino) for f in files)
    except OSError:
        return None
