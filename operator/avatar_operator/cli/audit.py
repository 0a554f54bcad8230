"""`avatar-operator audit`: what is inconsistent, without changing anything."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from .options import Kubeconfig

if TYPE_CHECKING:
    from avatar_operator.controller.look import Seen
    from avatar_operator.domain.findings import Finding
    from avatar_operator.kube.credentials import Credentials

INCONSISTENT, NOT_LOOKED = 1, 2
# No step on the way is waited for longer (seconds).
LONGEST_PAUSE = 120.0


class Output(StrEnum):
    """How findings are printed."""

    TABLE = "table"
    JSON = "json"


Namespaces = Annotated[
    list[str] | None, typer.Option("--namespace", "-n", help="Look only at this namespace; may be repeated.")
]
Printed = Annotated[Output, typer.Option("--output", "-o", help="table or json.")]
Again = Annotated[
    float, typer.Option(min=0, help="Look a second time after so long: what is on its way is gone by then.")
]


def audit(
    kubeconfig: Kubeconfig = None,
    namespace: Namespaces = None,
    output: Printed = Output.TABLE,
    again_seconds: Again = 3,
) -> None:
    """Say what is inconsistent, and what is done about it. Reads only; the operator need not run.

    Exit code: 0 everything is consistent, 1 something is not, 2 it could not be looked at.
    """
    from avatar_operator.kube import credentials

    _report(lambda: credentials.find(kubeconfig), namespace or (), output, again_seconds)


def kubectl_audit(
    namespace: Namespaces = None,
    output: Printed = Output.TABLE,
    again_seconds: Again = 3,
    context: Annotated[str, typer.Option("--context", metavar="NAME", help="Context of the kubeconfig.")] = "",
    kubeconfig: Annotated[str, typer.Option("--kubeconfig", metavar="FILE", help="Kubeconfig to use.")] = "",
) -> None:
    """Say what is inconsistent in all namespaces, and what is done about it. Reads only.

    Exit code: 0 everything is consistent, 1 something is not, 2 it could not be looked at.
    """
    from avatar_operator.kube import credentials

    _report(lambda: credentials.as_kubectl(kubeconfig, context).credentials, namespace or (), output, again_seconds)


def _report(find: Callable[[], Credentials], namespaces: Sequence[str], output: Output, again: float) -> NoReturn:
    import asyncio

    from avatar_operator.kube.credentials import CredentialsError
    from avatar_operator.kube.errors import ApiError

    try:
        seen, findings = asyncio.run(_look(find(), tuple(namespaces), again))
    except CredentialsError as error:
        typer.echo(f"avatar-operator: {error}", err=True)
        sys.exit(NOT_LOOKED)
    except ApiError as error:
        hint = "" if namespaces or error.status != 403 else "; with rights in one namespace only: --namespace NAME"
        typer.echo(f"avatar-operator: cannot look: {error}{hint}", err=True)
        sys.exit(NOT_LOOKED)
    for what in seen.skipped:
        typer.echo(f"avatar-operator: skipped, as you may not read it: {what}", err=True)
    typer.echo(_json(seen, findings) if output is Output.JSON else _table(seen, findings))
    sys.exit(INCONSISTENT if findings else 0)


async def _look(found: Credentials, namespaces: Sequence[str], again: float) -> tuple[Seen, list[Finding]]:
    """Two looks, if the first finds anything; what both found."""
    import asyncio

    from avatar_operator import __version__
    from avatar_operator.controller.look import take
    from avatar_operator.domain.audit import audit as look_at
    from avatar_operator.domain.audit import lasting
    from avatar_operator.domain.findings import in_order
    from avatar_operator.kube import credentials
    from avatar_operator.kube.client import KubeClient

    async with credentials.open_session(found, f"avatar-operator/{__version__}") as session:
        client = KubeClient(session, found.server)
        seen = await take(client, namespaces)
        first = [*seen.undecodable, *look_at(seen.picture)]
        if not first:
            return seen, []
        pause = min(LONGEST_PAUSE, max([again, *(f.patience for f in first)]))
        await asyncio.sleep(pause)
        seen = await take(client, namespaces)
        second = [*seen.undecodable, *look_at(seen.picture)]
        return seen, in_order(lasting(first, second, pause))


def _checked(seen: Seen) -> dict[str, int]:
    from avatar_operator.domain.groups import labelled

    picture = seen.picture
    return {
        "instances": len(picture.instances),
        "pods": len(picture.pods),
        "claims": sum(labelled(s.metadata) is not None for s in picture.services),
        "pools": len(picture.pools),
        "engines": len(picture.engines),
        "gpuNodes": len(picture.gpunodes or ()),
    }


def _json(seen: Seen, findings: list[Finding]) -> str:
    def plain(finding: Finding) -> dict[str, Any]:
        ref, rule = finding.ref, finding.rule
        return {
            "kind": finding.kind,
            "severity": rule.severity.value,
            "object": {"kind": ref.kind, "namespace": ref.namespace, "name": ref.name, "uid": ref.uid},
            "message": finding.message,
            "remedy": rule.remedy,
        }

    body = {
        "consistent": not findings,
        "checked": _checked(seen),
        "skipped": list(seen.skipped),
        "findings": [plain(f) for f in findings],
    }
    return json.dumps(body, indent=2)


def _table(seen: Seen, findings: list[Finding]) -> str:
    checked = ", ".join(_counted(number, what) for what, number in _checked(seen).items())
    if not findings:
        return f"consistent: {checked}"
    rows = [("SEVERITY", "KIND", "NAMESPACE", "OBJECT", "MESSAGE")]
    rows += [(f.rule.severity.value, f.kind, f.ref.namespace or "-", str(f.ref), f.message) for f in findings]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = []
    for number, row in enumerate(rows):
        front = "  ".join(cell.ljust(width) for cell, width in zip(row[:4], widths, strict=True))
        lines.append(f"{front}  {row[4]}")
        if number:
            lines.append(f"{' ' * len(front)}  → {findings[number - 1].rule.remedy}")
    return "\n".join([*lines, f"{_counted(len(findings), 'inconsistencies')} in {checked}"])


def _counted(number: int, what: str) -> str:
    words = {"gpuNodes": "GPU nodes"}.get(what, what)
    if number == 1:
        words = words.removesuffix("ies") + "y" if words.endswith("ies") else words.removesuffix("s")
    return f"{number} {words}"
