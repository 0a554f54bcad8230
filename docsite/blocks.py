"""The command blocks of a page, run in order in one shell and held against what the page says they print.

A block of ``sh`` is run as it stands; a block of ``text`` right after it is what it prints. A comment
``<!-- not run: REASON -->`` right before a block keeps it from being run. In what is printed, ages, times, addresses
and made-up parts of names may differ; a line ``…`` stands for any lines, ``…`` in a line for any words.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^```([a-z]*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
REASON = re.compile(r"<!-- not run: (.+?) -->\s*\Z", re.DOTALL)
REST = "…"
# What differs from run to run, in the order in which it is looked for.
DIFFERS = (
    (re.compile(r"\x1b\[[0-9;]*[A-Za-z]"), ""),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z"), "<time>"),
    (re.compile(r"\b\d\d:\d\d:\d\d\b"), "<clock>"),
    (re.compile(r"\b\d+\.\d+\.\d+\.\d+\b"), "<address>"),
    (re.compile(r"-[0-9a-f]{7,10}-[0-9a-z]{5}\b"), "-<pod>"),
    (re.compile(r"-[0-9a-f]{10}\b"), "-<hash>"),
    (re.compile(r"\b(?:[a-z][a-z0-9]*-node|node-1)\b"), "<node>"),
    (re.compile(r"(?:\b\d+[dhms]){2,}(?![\w-])"), "<age>"),
    (re.compile(r"(?<!\w)[+-]?\d+(?:\.\d+)? ?(?:ms|s|m|h|d)(?![\w-])"), "<age>"),
    (re.compile(r"(?<!\w)[+-]?\d+\.\d+\b"), "<number>"),
    (re.compile(r"[ \t]+"), " "),
)


@dataclass(frozen=True)
class Block:
    """A block of commands. ``printed``: what the page says, None for nothing; ``reason``: why it is not run."""

    line: int
    script: str
    printed: str | None
    reason: str | None


class Differs(AssertionError):
    """A block failed, or printed something else than its page says."""


def blocks(page: str) -> list[Block]:
    """The command blocks of a page, in order. A block without a language is an error: nobody knows what it is."""
    found: list[Block] = []
    fences = list(FENCE.finditer(page))
    for index, fence in enumerate(fences):
        line = page.count("\n", 0, fence.start()) + 1
        if not fence[1]:
            raise ValueError(f"line {line}: a block without a language: sh is run, text is what it prints")
        if fence[1] != "sh":
            continue
        reason = REASON.search(page, 0, fence.start())
        after = fences[index + 1] if index + 1 < len(fences) else None
        follows = after is not None and after[1] == "text" and not page[fence.end() : after.start()].strip()
        printed = after[2] if after is not None and follows else None
        found.append(Block(line, fence[2], printed, " ".join(reason[1].split()) if reason else None))
    return found


def plain(text: str) -> list[str]:
    """The lines of an output without what differs from run to run; empty lines are left out."""
    for pattern, instead in DIFFERS:
        text = pattern.sub(instead, text)
    return [line.strip() for line in text.splitlines() if line.strip()]


def fits(said: str, printed: str) -> bool:
    """Whether ``printed`` is what the page ``said``."""
    wanted = "".join(
        "(?:.*\n)*?" if line == REST else ".*".join(re.escape(part) for part in line.split(REST)) + "\n"
        for line in plain(said)
    )
    return re.fullmatch(wanted, "".join(f"{line}\n" for line in plain(printed))) is not None


class Shell:
    """A bash in which blocks are run one after another: ``async with Shell(folder, environment) as shell``.

    A command that fails ends it; the next block gets a new one, without the variables of the old.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = {**os.environ, **environment, "PS1": "", "TERM": "dumb", "NO_COLOR": "1", "COLUMNS": "200"}
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Shell:
        return self

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is not None and self._process.returncode is None:
            return self._process
        # `-e`: a command that fails ends the shell, and so the block.
        self._process = await asyncio.create_subprocess_exec(
            *("bash", "--noprofile", "--norc", "-e", "-o", "pipefail"),
            cwd=self._folder,
            env=self._environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=1 << 20,
            start_new_session=True,
        )
        return self._process

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        """The shell and everything that it started: the pipe is open for as long as one of them lives."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None:
            await self._end(self._process)

    async def run(self, script: str, timeout: float) -> str:
        """What a script prints, stderr too. Differs when it fails or takes longer than ``timeout`` seconds."""
        process = await self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        end = f"end-{secrets.token_hex(8)}"
        # The block's commands read nothing: what they might read is the next block.
        whole = "{\n" + script + "\n} < /dev/null\necho " + end + "\n"
        process.stdin.write(whole.encode())
        await process.stdin.drain()
        printed = ""
        try:
            async with asyncio.timeout(timeout):
                while line := (await process.stdout.readline()).decode(errors="replace"):
                    if line.rstrip("\n").endswith(end):
                        return printed + line.rstrip("\n").removesuffix(end)
                    printed += line
        except TimeoutError:
            await self._end(process)
            raise Differs(f"did not end in {timeout:.0f} s:\n{script}\nprinted so far:\n{printed}") from None
        await process.wait()
        raise Differs(f"failed:\n{script}\nprinted:\n{printed}")


async def play(shell: Shell, block: Block, timeout: float = 120) -> str:
    """Run a block; what it printed. Differs when that is not what its page says."""
    printed = await shell.run(block.script, timeout)
    if block.printed is not None and not fits(block.printed, printed):
        said, seen = "\n".join(plain(block.printed)), "\n".join(plain(printed))
        raise Differs(f"line {block.line}: printed something else\n--- the page says\n{said}\n--- printed\n{seen}")
    return printed


def recorded(page: str, outputs: Mapping[int, str]) -> str:
    """The page with what was printed in place of what it said; ``outputs`` by the lines of blocks."""
    lines = page.split("\n")
    for block in reversed(blocks(page)):
        if block.line in outputs and block.printed is not None:
            first = lines.index("```text", block.line) + 1
            last = lines.index("```", first)
            lines[first:last] = [line.rstrip() for line in outputs[block.line].rstrip("\n").split("\n")]
    return "\n".join(lines)
