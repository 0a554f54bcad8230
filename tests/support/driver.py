"""A driver for tests to play with: writes the script of tests/support/nvml (its fields are described there)."""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from .api import Json

FOLDER = Path(__file__).parent / "nvml"


def gpu(number: int, **over: Any) -> Json:
    """An L4 of 24 GiB; ``over`` as in the script."""
    return {"uuid": f"GPU-{number:08x}-0000-4000-8000-000000000000", "totalMiB": 24576, "processes": [], **over}


class FakeDriver:
    """One script file. Each change is written at once, and whole: nobody reads half of it."""

    def __init__(self, path: Path, *gpus: Json, **over: Any) -> None:
        self.path = path
        self.script: Json = {"gpus": list(gpus), "xids": [], **over}
        self.write()

    def write(self) -> None:
        """Put the script into place."""
        handle, name = tempfile.mkstemp(dir=self.path.parent)
        with os.fdopen(handle, "w") as file:
            json.dump(self.script, file)
        os.replace(name, self.path)

    def set(self, **fields: Any) -> None:
        """Change fields of the driver."""
        self.script.update(fields)
        self.write()

    def change(self, index: int, **fields: Any) -> None:
        """Change fields of a GPU."""
        self.script["gpus"][index].update(fields)
        self.write()

    def grow(self, index: int, mib_per_second: float, to_mib: float = 1 << 20) -> None:
        """From now on somebody outside takes more and more memory of a GPU."""
        self.change(index, grow={"miBPerSecond": mib_per_second, "since": time.time(), "toMiB": to_mib})

    def xid(self, index: int, code: int) -> None:
        """The driver tells of an XID."""
        self.script["xids"].append({"uuid": self.script["gpus"][index]["uuid"], "xid": code})
        self.write()

    def env(self) -> dict[str, str]:
        """What a python process needs in its environment, beside PYTHONPATH (FOLDER in front of it)."""
        return {"AVATAR_FAKE_NVML": str(self.path)}
