"""Puts the pages of the site together in out/docs, where mkdocs finds them: `scripts/docs`."""

from __future__ import annotations

import sys

from .pages import ROOT, BrokenLink, assemble


def main() -> int:
    """Write the pages; 1 when a link leads nowhere."""
    try:
        assemble(ROOT / "out/docs")
    except BrokenLink as error:
        print(f"docs: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
