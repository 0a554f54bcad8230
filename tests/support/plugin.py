"""`kubectl avatar` for tests: in this process, and as kubectl finds it."""

from __future__ import annotations

import asyncio
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from avatar_operator.plugin.app import app, ordered

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Said:
    """How a command ended and what it wrote."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Plugin:
    """``await plugin("list", …)``: the command in ``namespace``, by a thread; one at a time."""

    kubeconfig: Path
    namespace: str

    async def __call__(self, *words: str, code: int | None = 0, input: str | None = None) -> Said:
        """``code``: the exit code that it must have; None = any."""
        return await asyncio.to_thread(self._run, words, code, input)

    def _run(self, words: tuple[str, ...], code: int | None, given: str | None) -> Said:
        arguments = ordered(["--namespace", self.namespace, *words])
        env = {"KUBECONFIG": str(self.kubeconfig)}
        done = CliRunner().invoke(app, arguments, input=given, env=env)
        said = Said(done.exit_code, done.stdout, done.stderr)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert code in (None, said.code), said
        return said


def install(folder: Path) -> Path:
    """The programs that an installation puts on the PATH, in ``folder``."""
    path = f"{ROOT / 'operator'}:{ROOT / 'runtime'}"
    for program, function in (("kubectl-avatar", "main"), ("kubectl_complete-avatar", "complete")):
        code = f"from avatar_operator.cli.plugin import {function}; {function}()"
        file = folder / program
        file.write_text(f'#!/bin/sh\nPYTHONPATH={path} exec {sys.executable} -c {shlex.quote(code)} "$@"\n')
        file.chmod(0o755)
    return folder
