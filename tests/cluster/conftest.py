"""Fixtures of tests on kwok nodes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.api import Api
from tests.support.gpus import Gpus


@pytest.fixture
async def gpus(api: Api, namespace: str) -> AsyncIterator[Gpus]:
    """GPU nodes of this test's own, none yet. Name it before operators: they must be gone before the nodes go."""
    async with Gpus.playing(api, namespace) as found:
        yield found
