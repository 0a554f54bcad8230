"""Imports point one way: the contracts stand in pyproject.toml, [tool.importlinter]."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_contracts_hold() -> None:
    """Asked in a process of its own: import-linter disables all loggers of the process it runs in."""
    program = str(Path(sys.executable).with_name("lint-imports"))
    asked = [program, "--config", str(ROOT / "pyproject.toml"), "--no-cache", "--no-logo"]
    found = subprocess.run(asked, cwd=ROOT / "operator", capture_output=True, text=True, timeout=120, check=False)
    report = found.stdout + found.stderr
    assert found.returncode == 0, report
    assert "3 kept, 0 broken" in report, report


def test_a_plan_asks_no_clock() -> None:
    """`datetime` is allowed, for arithmetic: whoever asks it for the time has a clock."""
    asking = [
        f"{path.name}:{number}"
        for path in (ROOT / "operator/avatar_operator/domain").glob("*.py")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if ".now(" in line or ".utcnow(" in line or ".today(" in line
    ]
    assert asking == []


def test_domain_is_imported_without_the_rest() -> None:
    """Tools may use the decisions without aiohttp."""
    code = (
        "import sys; import avatar_operator.domain.plan; "
        "print(*sorted(m for m in sys.modules if m.split('.')[0] in {'aiohttp', 'asyncio', 'yaml'}))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT / "operator",
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert found.stdout.strip() == ""
