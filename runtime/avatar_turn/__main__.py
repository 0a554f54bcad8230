"""``python -m avatar_turn``: writes coturn's configuration and becomes coturn."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

from avatar_turn.config import ConfigError, configuration

EX_CONFIG = 78


def main() -> int:
    """Return only when something is wrong, with the exit status."""
    program = shutil.which("turnserver")
    try:
        secret = Path(os.environ.get("TURN_SECRET_FILE", "/run/turn/secret")).read_text(encoding="utf-8").strip()
        text = configuration(os.environ, secret)
    except (OSError, ConfigError) as error:
        print(f"avatar_turn: {error}", file=sys.stderr, flush=True)  # noqa: T201 - the last words
        return EX_CONFIG
    if program is None:
        print("avatar_turn: coturn is not installed (turnserver)", file=sys.stderr, flush=True)  # noqa: T201
        return EX_CONFIG
    # In a file, and not among the arguments that everybody on the node can list.
    handle, path = tempfile.mkstemp(prefix="turnserver-", suffix=".conf")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    os.execv(program, [program, "-c", path])  # noqa: S606 - no shell: that is the point


if __name__ == "__main__":
    sys.exit(main())
