"""The site's pages in one folder, as mkdocs wants them: those of docs/, those made from the code, and a few of the
tree. Links are made to fit; one that leads nowhere is an error."""

from __future__ import annotations

import functools
import re
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import yaml

from . import commands, resources, rest

ROOT = Path(__file__).resolve().parents[1]
# Files of the tree that are pages of the site, too.
ELSEWHERE = {
    "charts/avatar-operator/README.md": "reference/chart.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
    "tests/FAILURES.md": "project/failures.md",
    "devcluster/README.md": "project/devcluster.md",
    "runtime/README.md": "project/runtime.md",
}
MADE = "reference/"
LINK = re.compile(r"(!?\[[^\]\n]*\])\(([^()\s]+)\)")
FENCE = re.compile(r"^(```|~~~)")


class BrokenLink(Exception):
    """A link that leads nowhere; the message has the page and the link."""


def assemble(target: Path) -> None:
    """Write all pages into ``target``, which is emptied before. BrokenLink names a link without an end."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(ROOT / "docs", target)
    for source, place in ELSEWHERE.items():
        write(target / place, (ROOT / source).read_text(encoding="utf-8"))
    for place, text in made().items():
        write(target / place, text)
    for source, place in {**{page: page.removeprefix("docs/") for page in own()}, **ELSEWHERE}.items():
        page = target / place
        page.write_text(relinked(source, place, page.read_text(encoding="utf-8"), target), encoding="utf-8")
    shutil.copy(ROOT / "docsite/site.css", target / "site.css")


def own() -> list[str]:
    """The pages of docs/, as paths of the tree."""
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))


@functools.cache
def made() -> dict[str, str]:
    """What is made from the code: text by path in the site."""
    found = {
        f"{MADE}commands.md": commands.page(),
        f"{MADE}rest.md": rest.page(),
        f"{MADE}openapi.json": rest.openapi(),
    }
    for path in sorted((ROOT / "crds").glob("*.yaml")):
        definition = yaml.safe_load(path.read_text(encoding="utf-8"))
        found[f"{MADE}{definition['spec']['names']['singular']}.md"] = resources.page(definition)
    return found


def write(path: Path, text: str) -> None:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def links(text: str) -> Iterator[str]:
    """The relative links of a page, blocks of code left out."""
    for line in prose(text):
        for _, link in LINK.findall(line):
            if not link.startswith(("http:", "https:", "mailto:", "#")):
                yield link


def prose(text: str) -> Iterator[str]:
    """The lines outside of blocks of code."""
    fenced = False
    for line in text.splitlines():
        if FENCE.match(line.strip()):
            fenced = not fenced
        elif not fenced:
            yield line


def relinked(source: str, place: str, text: str, target: Path) -> str:
    """The page's text with links that hold in the site: ``source`` is its path in the tree, ``place`` that in the site.

    A link to a file that is no page brings the file along, below files/.
    """

    def change(match: re.Match[str]) -> str:
        shown, link = match.groups()
        if link.startswith(("http:", "https:", "mailto:", "#")):
            return match[0]
        path, mark, anchor = link.partition("#")
        return f"{shown}({end(path)}{mark}{anchor})"

    def end(path: str) -> str:
        wanted = normal(PurePosixPath(source).parent / path)
        there = to_site(wanted)
        if there is None and wanted.startswith("docs/reference/"):
            there = wanted.removeprefix("docs/")
        if there is None:
            if not (ROOT / wanted).is_file():
                raise BrokenLink(f"{source}: ({path}) leads to {wanted}, which is no file")
            there = f"files/{wanted}"
            (target / there).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / wanted, target / there)
        elif not (target / there).exists():
            raise BrokenLink(f"{source}: ({path}) leads to {there}, which is no page")
        up = len(PurePosixPath(place).parents) - 1
        return "../" * up + there

    lines, fenced = [], False
    for line in text.split("\n"):
        if FENCE.match(line.strip()):
            fenced = not fenced
        lines.append(line if fenced else LINK.sub(change, line))
    return "\n".join(lines)


def normal(path: PurePosixPath) -> str:
    """The path without `..`."""
    parts: list[str] = []
    for part in path.parts:
        if part == "..":
            if not parts:
                raise BrokenLink(f"{path} leads out of the tree")
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


def to_site(path: str) -> str | None:
    """Where a file of the tree is in the site, None for one that is not part of it."""
    if path in ELSEWHERE:
        return ELSEWHERE[path]
    if path.startswith("docs/") and (ROOT / path).exists():
        return path.removeprefix("docs/")
    return None
