"""tests/FAILURES.md names a test for each reported failure: the tests exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROWS = [
    line
    for line in (ROOT / "tests/FAILURES.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| reported")
]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def _defined(path: Path) -> set[str]:
    """Names of the functions of a module, and of its classes and variables, as a state machine's test is one."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
def test_its_tests_exist(row: str) -> None:
    named = NAMED.findall(row)
    assert named, f"no test: {row}"
    for module, name in named:
        path = ROOT / module
        assert path.exists(), f"{module} does not exist"
        assert name in _defined(path), f"{module} has no {name}"


def test_the_table_is_read() -> None:
    assert len(ROWS) > 40
    assert "no_such_test" not in _defined(Path(__file__))
