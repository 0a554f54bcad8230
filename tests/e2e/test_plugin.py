"""`kubectl avatar` with real pods: a start with its image, a conversation that is heard, the log, a stop."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest

from avatar_client.session import AvatarSession
from tests.conftest import Cluster
from tests.e2e.conftest import pool_spec
from tests.support.plugin import Plugin, Said, install
from tests.support.world import World

SENTENCE = "Good morning. This is what I look like from a terminal."
CONVERSATIONS = 3


@pytest.fixture
def plugin(cluster: Cluster, real: World) -> Plugin:
    return Plugin(cluster.kubeconfig, real.namespace)


async def test_start_talk_logs_stop(real: World, plugin: Plugin, tmp_path: Path) -> None:
    started = await plugin("start", "ada")
    status = next(iter((await real.statuses()).values()))
    assert started.out.strip() == status["webrtcUrl"]
    assert "pod avatar-" in started.err

    talked = await heard(plugin, "ada", "--save", str(tmp_path / "clip.mp4"))
    assert "first frame" in talked.out
    assert "loudness" in talked.out
    assert f"clip         {tmp_path / 'clip.mp4'}" in talked.out
    with av.open(str(tmp_path / "clip.mp4")) as clip:
        # A busy machine drops frames by design; the sound is whole.
        assert clip.streams.video[0].frames >= 5
    assert 1 < spoken(tmp_path / "clip.mp4") < 9

    async with AvatarSession.connect(status["webrtcUrl"]):
        # Nobody counted this client; the runtime knows it.
        refused = await plugin("stop", "ada", code=1)
        assert "1 person connected to ada" in refused.err

    log = await plugin("logs", "ada", "--tail", "5")
    assert 0 < len(log.out.splitlines()) <= 5
    gone = await plugin("logs", "ada", "--previous", code=1)
    assert "previous terminated container" in gone.err

    stopped = await plugin("stop", "ada")
    assert "1 port free again" in stopped.err
    assert await real.left() == []


async def test_signalling_through_the_api_server(real: World, plugin: Plugin, ports: int, tmp_path: Path) -> None:
    """The Service's name means nothing outside the cluster; media reach the pod's own address."""
    spec = pool_spec(ports + 3, network={"mode": "Pod"})
    await real.api.create(
        "avatarpools",
        real.namespace,
        {
            "apiVersion": "avatars.virtualtutor.io/v1alpha1",
            "kind": "AvatarPool",
            "metadata": {"name": "inner"},
            "spec": spec,
        },
    )
    talked = await heard(plugin, "ada", "--start", "--pool", "inner", "--save", str(tmp_path / "voice.wav"))
    assert "signalling goes through the API server" in talked.err
    assert 1 < spoken(tmp_path / "voice.wav") < 9
    wrong = await plugin("talk", "ada", "Hello.", "--save", str(tmp_path / "clip.gif"), code=2)
    assert "ends with one of .mp4" in wrong.err


async def test_a_log_that_is_followed(real: World, cluster: Cluster, tmp_path: Path) -> None:
    """Through kubectl; it goes on until somebody ends it."""
    await real.instance("ada")
    await real.phase("ada", "Running", timeout=60)
    env = {**cluster.env(), "PATH": f"{install(tmp_path)}:{cluster.env()['PATH']}"}
    command = ("kubectl-avatar", "logs", "ada", "-f", "-n", real.namespace)
    follow = await asyncio.create_subprocess_exec(*command, env=env, stdout=subprocess.PIPE)
    assert follow.stdout is not None
    try:
        assert await asyncio.wait_for(follow.stdout.readline(), 40)
        assert follow.returncode is None
    finally:
        follow.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(follow.wait(), 20) == 130


async def heard(plugin: Plugin, *words: str) -> Said:
    """The sentence, said again where a machine that is busy with something else lost it: that is no fault of ours."""
    said = Said(1, "", "")
    for _ in range(CONVERSATIONS):
        said = await plugin("talk", *words[:1], SENTENCE, *words[1:], "--timeout", "40", code=None)
        if said.code == 0:
            break
    assert said.code == 0, said
    return said


def spoken(path: Path) -> float:
    """Seconds of a clip in which something is to be heard."""
    with av.open(str(path)) as clip:
        rate = clip.streams.audio[0].rate
        blocks = [frame.to_ndarray().astype(np.float64).reshape(-1) for frame in clip.decode(audio=0)]
    samples = np.concatenate(blocks)
    loudness = np.abs(samples) / (32768 if np.abs(samples).max() > 1.5 else 1)
    step = rate // 50
    frames = loudness[: len(loudness) // step * step].reshape(-1, step).max(axis=1)
    return float((frames > 0.02).sum()) / 50
