"""The API server away, frozen, without etcd, on a cluster of its own; `python -m chaos.outage` does it for minutes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos import outage
from tests.support.cluster import OwnCluster

pytestmark = pytest.mark.cluster

# Long enough that an operator must say that it hears nothing.
SECONDS = 31
# Of a busy machine; the 15 s that are asked for are judged by the experiment, on a quiet one.
BOUND = 90


@pytest.fixture(scope="module")
def own() -> Iterator[OwnCluster]:
    """Nobody else may be on it."""
    with OwnCluster("outage").up() as found:
        yield found


@pytest.mark.parametrize("fault", ["stopped", "frozen", "etcd"])
async def test_everything_is_as_it_was_soon_after(own: OwnCluster, tmp_path: Path, fault: str) -> None:
    result = await outage.away(own, tmp_path, fault, SECONDS, count=8, bound=BOUND)
    print(outage.table([result]))
    assert not result.problems, outage.table([result])
