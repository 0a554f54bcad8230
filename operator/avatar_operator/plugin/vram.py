"""The memory of GPUs as bars of text. Pure; MiB."""

from __future__ import annotations

from rich.text import Text

from avatar_operator.domain.vram import Vram

from . import words

# Mark and style of each part, in the order of the bar.
USED, RESERVED, EXTERNAL, FREE = ("█", "green"), ("▒", "green"), ("▓", "magenta"), ("░", "bright_black")


def bar(room: Vram, width: int) -> Text:
    """``width`` cells; whatever is there shows at least one."""
    parts = [(room.used, USED), (room.reserved, RESERVED), (room.external, EXTERNAL)]
    result, left = Text(), width
    for mib, (mark, style) in parts:
        cells = min(left, max(1, round(width * mib / room.total))) if mib > 0 and room.total else 0
        result.append(mark * cells, style)
        left -= cells
    result.append(FREE[0] * left, FREE[1])
    return result


def legend() -> Text:
    """What the marks of a bar mean."""
    return words.legend((("avatars", USED), ("reserved for them", RESERVED), ("others", EXTERNAL), ("free", FREE)))
