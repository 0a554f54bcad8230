"""The way to the API server of one command, and how a command ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Any, NoReturn

import aiohttp
import msgspec
import typer

from avatar_operator import __version__
from avatar_operator.domain.resources import Avatar, Instance
from avatar_operator.kube import credentials
from avatar_operator.kube.client import KubeClient
from avatar_operator.kube.credentials import CredentialsError
from avatar_operator.kube.errors import ApiError, BusyError, NotFoundError
from avatar_operator.kube.kinds import AVATARS, INSTANCES


class Stop(Exception):
    """The command ends with this message and exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Target:
    """What the options say about where to go; an empty namespace is the context's."""

    namespace: str = ""
    context: str = ""
    kubeconfig: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """An open way. ``session`` sends the credentials with every request to ``server``."""

    client: KubeClient
    session: aiohttp.ClientSession
    server: str
    namespace: str
    context: str

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, target: Target) -> AsyncIterator[Link]:
        """By the options and the kubeconfig; CredentialsError when there is no way."""
        place = await asyncio.to_thread(credentials.as_kubectl, target.kubeconfig, target.context)
        found = place.credentials
        async with credentials.open_session(found, f"kubectl-avatar/{__version__}") as session:
            client = KubeClient(session, found.server)
            yield cls(client, session, found.server, target.namespace or place.namespace, place.context)

    async def instances(self, namespace: str | None = None) -> list[Instance]:
        """All of the namespace; an empty one means all namespaces."""
        where = self.namespace if namespace is None else namespace
        items, _ = await self.client.list_pages(INSTANCES, where)
        return msgspec.convert(items, list[Instance])

    async def avatars(self) -> list[Avatar]:
        """All of the namespace."""
        items, _ = await self.client.list_pages(AVATARS, self.namespace)
        return msgspec.convert(items, list[Avatar])


def perform(work: Coroutine[Any, Any, int | None]) -> NoReturn:
    """Run a command to its end and leave with its exit code; what is wrong goes to stderr in one sentence.

    Raises typer.Exit always.
    """
    # Watches that are tried again tell so on the screen, if at all.
    logging.getLogger("avatar_operator").addHandler(logging.NullHandler())
    try:
        code = asyncio.run(work) or 0
    except Stop as stop:
        say_error(str(stop))
        code = stop.code
    except CredentialsError as error:
        say_error(str(error))
        code = 2
    except ApiError as error:
        say_error(explain(error))
        code = 1
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        sys.stderr.close()
        code = 141
    raise typer.Exit(code)


def say_error(text: str) -> None:
    """One message on stderr."""
    typer.echo(f"error: {text}", err=True)


def explain(error: ApiError) -> str:
    """What an answer of the API server means to a person, with what to do."""
    if isinstance(error, NotFoundError) and "the server could not find the requested resource" in error.message:
        return (
            "this cluster does not know avatars: their definitions are not installed (kubectl apply -f crds/, or the "
            "helm chart), or this is the wrong context (--context)"
        )
    if isinstance(error, BusyError) and error.status == 0:
        return f"the API server does not answer: {error.message}"
    if error.status == 401:
        return "the API server does not accept these credentials: log in again, or choose another --context"
    if error.status == 403:
        return f"{error.message}; ask an administrator for this right"
    return error.message or error.reason
