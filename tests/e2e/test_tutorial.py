"""docs/tutorial.md and README.md, typed as they stand: each block of commands runs, and prints what the page says.

With AVATAR_TEST_RECORD=1 what was printed is written into the tutorial instead.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from docsite.blocks import Block, Differs, Shell, blocks, play, recorded
from tests.conftest import ROOT, Cluster
from tests.e2e.conftest import RELEASE, SYSTEM, TAG, install
from tests.e2e.conftest import run as command
from tests.support.plugin import install as plugin

TUTORIAL = ROOT / "docs/tutorial.md"
RECORD = os.environ.get("AVATAR_TEST_RECORD") == "1"
TAGS = f"--set image.tag={TAG},runtime.image.tag={TAG},tts.image.tag={TAG}"
BLOCK_SECONDS = 200
CONVERSATIONS = 3


@pytest.fixture
async def shell(cluster: Cluster, alone: None, tmp_path: Path) -> AsyncIterator[Shell]:
    """A user's shell in the repository, with a kubeconfig to change, on a cluster without the other tests' release."""
    kubeconfig = tmp_path / "kubeconfig"
    shutil.copy(cluster.kubeconfig, kubeconfig)
    environment = cluster.env()
    environment |= {"KUBECONFIG": str(kubeconfig), "PATH": f"{plugin(tmp_path)}:{environment['PATH']}"}
    command(cluster, "helm", "uninstall", RELEASE, "--namespace", SYSTEM, "--wait", "--timeout", "60s")
    try:
        async with Shell(ROOT, environment) as found:
            yield found
    finally:
        command(cluster, "helm", "uninstall", "avatar-operator", "--namespace", "avatars", "--ignore-not-found")
        command(cluster, "kubectl", "delete", "namespace", "avatars", "--ignore-not-found", "--timeout=100s")
        install(cluster)


async def typed(shell: Shell, block: Block) -> str:
    """A block's output. A conversation that a busy machine lost is held again: that is no fault of the page."""
    for left in reversed(range(CONVERSATIONS if "avatar talk" in block.script else 1)):
        try:
            return await (shell.run(block.script, BLOCK_SECONDS) if RECORD else play(shell, block, BLOCK_SECONDS))
        except Differs:
            if not left:
                raise
    raise AssertionError("unreachable")


@pytest.mark.timeout(600)
async def test_the_first_hour(shell: Shell) -> None:
    page = TUTORIAL.read_text(encoding="utf-8")
    # Images that were built by another name than the chart's are told to helm.
    tagged = page.replace("charts/avatar-operator --namespace", f"charts/avatar-operator {TAGS} --namespace")
    outputs: dict[int, str] = {}
    try:
        for block in blocks(tagged):
            if not block.reason:
                outputs[block.line] = await typed(shell, block)
    finally:
        if RECORD:
            TUTORIAL.write_text(recorded(page, outputs), encoding="utf-8")
