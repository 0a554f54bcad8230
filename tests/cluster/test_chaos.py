"""A few runs of the chaos suite: users and faults at once, and no rule broken. `make chaos` makes as many as you like.

AVATAR_TEST_CHAOS_SEED=N plays the run of that seed instead.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from chaos.run import run
from tests.conftest import ROOT, Cluster

pytestmark = [pytest.mark.cluster]

# GPUs and runtimes that are asked; two operators with a Lease and Sleep; two pools; one operator.
SEEDS = (10, 12, 13, 17)
SECONDS = 6.0
AT_ONCE = 2


@pytest.mark.timeout(600)
async def test_no_rule_is_broken(cluster: Cluster, alone: None) -> None:
    given = os.environ.get("AVATAR_TEST_CHAOS_SEED")
    seeds = [int(given)] if given else SEEDS
    places = asyncio.Semaphore(AT_ONCE)
    out: Path = ROOT / "out" / "chaos"

    async def one(seed: int) -> list[str]:
        async with places:
            verdict = await run(seed, cluster.kubeconfig, out, seconds=None if given else SECONDS)
        print(verdict.line())
        assert verdict.actions, "nobody did anything"
        assert verdict.writes > 20, "the observer saw next to nothing"
        again = f"make chaos CHAOS_ARGS='--seed {seed} --seconds {SECONDS}'; its logs are in {out / str(seed)}"
        return [f"seed {seed}: {text} ({again})" for text in verdict.violations]

    broken = [text for found in await asyncio.gather(*(one(seed) for seed in seeds)) for text in found]
    assert not broken, "\n".join(broken)
