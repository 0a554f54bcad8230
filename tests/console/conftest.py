"""Fixtures: the built console, Debian's Chromium, and avatars that a page can talk to."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.conftest import MakeServer, servers  # noqa: F401 - a fixture
from tests.conftest import ROOT, no_cluster
from tests.runtime.launch import Running, start_runtime, start_tts
from tests.support import browser as chromium
from tests.support.browser import Browser, Page
from tests.support.rest import RestServer
from tests.support.runtime import own_address, pods_at
from tests.support.tokens import SECRET
from tests.support.world import World

PICTURES = ROOT / "out/console"


@pytest.fixture(scope="session")
def bundle() -> Path:
    """The console as the API serves it."""
    done = subprocess.run([ROOT / "scripts/console"], capture_output=True, text=True, timeout=290, check=False)
    if done.returncode:
        no_cluster(f"scripts/console: {done.stderr.strip()[-600:]}")
    return ROOT / "operator/avatar_operator/api/bundle"


@pytest.fixture(scope="session")
def installed() -> None:
    """Chromium, from Debian where it is missing."""
    if chromium.program() is None and os.geteuid() == 0:
        command = [ROOT / "scripts/apt-install", "chromium"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=290, check=False)
        sys.stderr.write(done.stderr[-400:])
    if chromium.program() is None:
        no_cluster("there is no chromium; scripts/apt-install chromium")


@pytest.fixture
async def browser(installed: None) -> AsyncIterator[Browser]:
    """One browser."""
    async with Browser.started() as one:
        yield one


@pytest.fixture
async def page(browser: Browser) -> Page:
    """One page, as large as a laptop's."""
    return await browser.page()


@pytest.fixture
async def server(servers: MakeServer, bundle: Path, tmp_path: Path) -> RestServer:  # noqa: F811
    """One replica that knows tokens by the tests' secret."""
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    return await servers("--auth=jwt", f"--jwt-secret-file={secret}")


@pytest.fixture(scope="module")
def tts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A TTS server."""
    one = start_tts(tmp_path_factory.mktemp("tts"))
    yield one
    one.stop()


MakePod = Callable[..., Awaitable[Running]]


@pytest.fixture
def make_pod(world: World, tmp_path: Path, tts: Running) -> Iterator[MakePod]:
    """``await make_pod(ports={…})``: a pool whose pods on port 8615 are a real runtime, and the avatar ada."""
    made: list[Running] = []

    async def make(**pool: Any) -> Running:
        host = own_address()
        one = await asyncio.to_thread(start_runtime, tmp_path, tts=tts.url, host=host, port=8615)
        made.append(one)
        runtime = {**pods_at(host), **pool.pop("runtime", {})}
        await world.pool(runtime=runtime, **pool)
        await world.avatar("ada", tts={"engine": "edgetts", "voice": "en-US-AriaNeural"})
        return one

    yield make
    for one in made:
        one.stop()
