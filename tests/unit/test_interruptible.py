"""A bench under `timeout` takes down what it started."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BENCH = """
import asyncio
import uvloop
from tests.support.cluster import interruptible

async def main():
    with interruptible():
        try:
            print("up", flush=True)
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            print("down", flush=True)

uvloop.run(main())
"""


def test_sigterm_ends_a_loop_by_its_finally() -> None:
    found = subprocess.Popen([sys.executable, "-c", BENCH], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert found.stdout is not None
    assert found.stdout.readline() == b"up\n"
    found.send_signal(signal.SIGTERM)
    said, failed = found.communicate(timeout=30)
    assert said == b"down\n"
    assert b"KeyboardInterrupt" in failed
