"""What the API server forbids the watch streams: kopf asks again for ever, and says nothing.

A Role without the verb watch, or one that was narrowed later, leaves an
operator that looks alive and hears nothing. The HTTP answers are seen here as
they come, so that readiness names the resource and the log the missing rule.
"""

from __future__ import annotations

import logging
from typing import Any

import aiohttp
from yarl import URL

log = logging.getLogger(__name__)


class Forbidden:
    """Listens to the answers of one HTTP session; ``problem`` says what is refused by now."""

    def __init__(self) -> None:
        # By path and verb: a LIST that is allowed says nothing of the watch.
        self._refused: dict[tuple[str, str], str] = {}

    def trace(self) -> aiohttp.TraceConfig:
        """For the session of the streams."""
        config = aiohttp.TraceConfig()

        async def on_answer(_: aiohttp.ClientSession, __: Any, answer: aiohttp.TraceRequestEndParams) -> None:
            self.heard(answer.method, answer.url, answer.response.status)

        config.on_request_end.append(on_answer)
        return config

    def heard(self, method: str, url: URL, status: int) -> None:
        """An answer came."""
        if method != "GET":
            return
        verb = "watch" if url.query.get("watch") in ("true", "1") else "list"
        key = (url.path, verb)
        if status != 403:
            if status < 400 and self._refused.pop(key, None) is not None:
                log.info("may %s again", verb, extra={"path": url.path})
            return
        group, plural, namespace = _resource(url.path)
        where = f" in namespace {namespace}" if namespace else ""
        if key not in self._refused:
            log.error(
                "the API server refuses to let the operator %s %s%s (HTTP 403): nothing is heard of them until its "
                'Role has the rule {apiGroups: ["%s"], resources: [%s], verbs: [get, list, watch]}',
                verb,
                plural,
                where,
                group,
                plural,
            )
        self._refused[key] = f"{verb} {plural}{where}"

    def problem(self) -> str:
        """What the operator may not see; empty = nothing that it wants to."""
        if not self._refused:
            return ""
        what = ", ".join(sorted(set(self._refused.values())))
        return f"the API server forbids (HTTP 403) to {what}: see the log for the RBAC rule that is missing"


def _resource(path: str) -> tuple[str, str, str]:
    """API group, plural and namespace ("" = all) of a collection's path."""
    parts = path.strip("/").split("/")
    group, rest = ("", parts[2:]) if parts[0] == "api" else (parts[1] if len(parts) > 1 else "", parts[3:])
    namespace = rest[1] if len(rest) > 2 and rest[0] == "namespaces" else ""
    return group, rest[-1] if rest else path, namespace
