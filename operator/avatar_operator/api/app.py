"""The application: routes with their OpenAPI, and errors in one shape."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, request_response
from starlette.types import ASGIApp

from avatar_operator import __version__

from . import contract
from .console import Console
from .edge import INTERNAL, Edge, error_body, trail
from .problems import Problem
from .routes import Handler, Routes
from .signals import SignalRoutes

_CODES = {404: "there is no such route", 405: "this route does not take this method"}


def build(
    routes: Routes,
    signals: SignalRoutes,
    console: Console | None = None,
    *,
    origins: Collection[str] = (),
    local: bool = False,
) -> ASGIApp:
    """The whole application; ``local``: without authentication."""
    app = _application(
        {
            "health": routes.health,
            "start": routes.start,
            "disconnect": routes.disconnect,
            "heartbeat": routes.heartbeat,
            "events": routes.events,
            "stop": routes.stop,
            "stop-all": routes.stop_all,
            "restart": routes.restart,
            "list": routes.list,
            "info": routes.info,
            "status": routes.status,
            "offer": signals.offer,
            "human": signals.human,
            "interrupt-talk": signals.interrupt_talk,
            "is-speaking": signals.is_speaking,
            "humanaudio": signals.humanaudio,
            "whep": signals.whep,
            "whep-options": signals.whep_options,
            "whep-end": signals.whep_end,
        }
    )
    if console is not None:
        # No part of the API that others build on.
        app.add_route("/console", console.root, ["GET"], include_in_schema=False)
        app.add_route("/console/live", console.live, ["GET"], include_in_schema=False)
        app.add_route("/console/ice/{name}", console.ice_servers, ["GET"], include_in_schema=False)
        app.add_route("/console/{path:path}", console.file, ["GET"], include_in_schema=False)
    return Edge(app, routes.metrics, origins, local=local)


def document() -> dict[str, Any]:
    """The OpenAPI document, without a server."""

    async def nothing(request: Request) -> Response:
        raise NotImplementedError(request.url)

    return _application({route.name: nothing for route in contract.ROUTES}).openapi()


def _application(handlers: Mapping[str, Handler]) -> FastAPI:
    app = FastAPI(
        title="avatar-operator",
        version=__version__,
        description=contract.DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    for route in contract.ROUTES:
        app.add_api_route(
            route.path,
            handlers[route.name],
            methods=[route.method],
            name=route.name,
            operation_id=route.name,
            summary=route.summary,
            description=route.description,
            response_class=Response,
            responses=contract.responses(route),
            openapi_extra=contract.operation(route),
        )
        added = app.router.routes[-1]
        if isinstance(added, Route):
            # Handlers take the request as it is: solving dependencies would be a twentieth of a join, for nothing.
            added.app = request_response(handlers[route.name])
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _bug)
    assemble = app.openapi
    app.openapi = lambda: contract.complete(assemble())  # type: ignore[method-assign]
    return app


async def _problem(_: Request, problem: Exception) -> Response:
    if not isinstance(problem, Problem):
        raise problem
    return Response(error_body(problem.message), problem.code, problem.headers, "application/json")


async def _http(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    headers: dict[str, Any] = dict(error.headers or {})
    return Response(
        error_body(_CODES.get(error.status_code, str(error.detail))), error.status_code, headers, "application/json"
    )


async def _bug(request: Request, _: Exception) -> Response:
    """Its traceback is logged by the edge, to which it goes on."""
    return Response(error_body(INTERNAL.format(trail(request.scope).request_id)), 500, None, "application/json")
