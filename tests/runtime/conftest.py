"""Fixtures: one TTS server for all tests, runtimes as tests want them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.runtime.launch import AVATARS, Running, start_runtime, start_tts


class MakeRuntime(Protocol):
    """Starts a runtime that ends with the test."""

    def __call__(self, *args: str, avatar: str = "ada", tts: str | None = None, data: Path = AVATARS) -> Running: ...


@pytest.fixture(scope="session")
def tts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A TTS server."""
    one = start_tts(tmp_path_factory.mktemp("tts"))
    yield one
    one.stop()


@pytest.fixture
def make_runtime(tts: Running, tmp_path: Path) -> Iterator[MakeRuntime]:
    """``make_runtime("--max_session", "3")``: a runtime of this test's own."""
    made: list[Running] = []

    def make(*args: str, avatar: str = "ada", tts: str | None = None, data: Path = AVATARS) -> Running:
        one = start_runtime(tmp_path, *args, avatar=avatar, tts=server if tts is None else tts, data=data)
        made.append(one)
        return one

    server = tts.url
    yield make
    for one in made:
        one.stop()


@pytest.fixture(scope="session")
def shared_runtime(tts: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A runtime for tests that leave no trace in it."""
    one = start_runtime(tmp_path_factory.mktemp("runtime"), tts=tts.url)
    yield one
    one.stop()
