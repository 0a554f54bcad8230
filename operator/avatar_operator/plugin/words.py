"""Times, sizes and tables as people read them. Pure: the time is passed in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from rich.cells import cell_len
from rich.text import Text

Cell = str | Text
GAP = 3

STYLES = {
    "Running": "green",
    "Shared": "green",
    "Ready": "green",
    "Starting": "yellow",
    "Pending": "yellow",
    "Draining": "yellow",
    "Fallback": "yellow",
    "Stopped": "dim",
    "Failed": "bold red",
}


def span(time: timedelta) -> str:
    """A duration as kubectl shows ages: 95s, 12m, 5h, 3d; never negative."""
    seconds = max(0, int(time.total_seconds()))
    for unit, length, most in (("s", 1, 120), ("m", 60, 120 * 60), ("h", 3600, 48 * 3600)):
        if seconds < most:
            return f"{seconds // length}{unit}"
    return f"{seconds // 86400}d"


def ago(then: datetime | None, now: datetime) -> str:
    """How long since ``then``; empty when it is not known."""
    return span(now - then) if then is not None else ""


def gib(mib: float) -> str:
    """Memory in GiB with one decimal; ``mib`` in MiB."""
    return f"{mib / 1024:.1f}"


def counted(number: int, noun: str) -> str:
    """`1 person`, `2 people`; ``noun`` in the singular, with its plural after a slash where that is no -s."""
    one, _, many = noun.partition("/")
    return f"{number} {one if number == 1 else many or one + 's'}"


def phase(name: str) -> Text:
    """A phase in its colour."""
    return Text(name, STYLES.get(name.partition(" ")[0], ""))


def widths(rows: Iterable[Sequence[Cell]]) -> list[int]:
    """The width of each column in terminal cells."""
    result: list[int] = []
    for row in rows:
        for index, cell in enumerate(row):
            size = cell_len(cell if isinstance(cell, str) else cell.plain)
            if index == len(result):
                result.append(size)
            result[index] = max(result[index], size)
    return result


def line(row: Sequence[Cell], sizes: Sequence[int], style: str = "") -> Text:
    """One row; nothing is left after its last cell with text."""
    result = Text(style=style)
    for cell, size in zip(row, sizes, strict=False):
        text = cell if isinstance(cell, Text) else Text(cell)
        result.append_text(text)
        result.append(" " * (size - cell_len(text.plain) + GAP))
    result.rstrip()
    return result


def table(headers: Sequence[str], rows: Sequence[Sequence[Cell]]) -> list[Text]:
    """A heading and the rows below each other, as kubectl writes tables."""
    sizes = widths([headers, *rows])
    return [line(headers, sizes, "bold"), *(line(row, sizes) for row in rows)]


def legend(marks: Iterable[tuple[str, tuple[str, str]]]) -> Text:
    """Names of marks, each of which is (mark, style)."""
    result = Text()
    for name, (mark, style) in marks:
        result.append(f"{mark} ", style)
        result.append(f"{name}   ", "dim")
    result.rstrip()
    return result
