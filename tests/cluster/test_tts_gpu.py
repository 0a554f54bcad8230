"""Speech engines and avatars on the same GPUs: one book for both.

GPUs of 24576 MiB; an engine reserves 16000, an avatar 5000 (6000 must be free): one fits beside it.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import MakeOperator
from tests.support.api import Json, until
from tests.support.gpus import LABEL_WORLD, Gpus
from tests.support.world import POOL, World, condition

pytestmark = pytest.mark.cluster


def engine(gpus: Gpus, **spec: Any) -> Json:
    return {
        "image": "tts.test/engine:1",
        "protocol": "cosyvoice",
        "nodeSelector": {LABEL_WORLD: gpus.world},
        "tolerations": POOL["runtime"]["tolerations"],
        "startupTimeoutSeconds": 5,
        "idleTimeoutSeconds": 2,
        **spec,
        "gpu": {"mode": "VisibleDevices", "vramMiB": 16000, **spec.get("gpu", {})},
    }


def quiet_engine(**spec: Any) -> Json:
    place = {key: POOL["runtime"][key] for key in ("nodeSelector", "tolerations")}
    return {"image": "tts.test/engine:1", "protocol": "edgetts", "speaks": ["cosyvoice"], **place, **spec}


async def reservations(gpus: Gpus) -> dict[str, int]:
    """MiB by pod, as the GPUNodes tell."""
    return {r["pod"]: r["memoryMiB"] for node in gpus.nodes for r in (await gpus.status(node)).get("reservations", [])}


async def test_an_engine_reserves_and_an_avatar_waits(world: World, gpus: Gpus, operator_factory: MakeOperator) -> None:
    node = await gpus.node(24576)
    await world.pool(**gpus.pool())
    await world.avatar("ada", "bea", "cleo")
    gpus.shares = {"": 14000}
    await world.engine("cosyvoice", **engine(gpus))
    await operator_factory().start()
    await world.instance("one", "ada", tts={"engine": "cosyvoice"})
    await world.phase("one", "Running")
    status = await world.engine_phase("cosyvoice", "Ready")
    assert status["gpu"] == {"node": node.name, "index": 0, "uuid": node.gpus[0].uuid, "reservedMiB": 16000}
    (pod,) = await world.engine_pods("cosyvoice")
    assert pod["spec"]["nodeName"] == node.name
    environment = {e["name"]: e.get("value") for e in pod["spec"]["containers"][0]["env"]}
    assert environment["NVIDIA_VISIBLE_DEVICES"] == node.gpus[0].uuid
    held = await until("both in the books", lambda: reservations(gpus), lambda r: len(r) == 2)
    assert held == {"avatar-8615": 5000, "tts-cosyvoice": 16000}

    # 24576 − 16000 − 5000 is less than the 6000 that must be free for another avatar.
    await world.instance("two", "bea", tts={"engine": "edgetts"})
    waiting = await world.phase("two", "Pending", reason="GPUExhausted")
    assert "21000 reserved" in waiting["message"]
    # The engine's user leaves, then the engine: its memory is the avatar's.
    await world.delete("one")
    await world.engine_phase("cosyvoice", "Stopped", timeout=30)
    await world.phase("two", "Running", timeout=30)
    await until("the engine's reservation ending", lambda: reservations(gpus), lambda r: "tts-cosyvoice" not in r)


async def test_avatars_reserve_and_an_engine_waits(world: World, gpus: Gpus, operator_factory: MakeOperator) -> None:
    """It says what is missing, another speaks meanwhile, and it takes over when there is room."""
    await gpus.node(24576)
    await world.pool(**gpus.pool())
    names = ["ada", "bea", "cleo"]
    await world.avatar(*names)
    await world.engine("cosyvoice", **engine(gpus, fallback="edgetts", idleTimeoutSeconds=60))
    await world.engine("edgetts", **quiet_engine(idleTimeoutSeconds=2))
    await operator_factory().start()
    for name in names[:2]:
        await world.instance(name, name)
        await world.phase(name, "Running")
    await world.instance("cleo", "cleo", tts={"engine": "cosyvoice"})
    pending = await world.engine_phase("cosyvoice", "Pending")
    assert pending["reason"] == "GPUExhausted"
    assert "16000" in pending["message"]
    assert "gpu" not in pending
    assert not await world.engine_pods("cosyvoice")
    fallback = await world.engine_phase("cosyvoice", "Fallback")
    assert fallback["fallback"] == "edgetts"
    await world.until("cleo", "fallback", lambda s: condition(s, "TTSReady").get("reason") == "Fallback")
    await world.engine_phase("edgetts", "Ready")
    await world.delete("ada", "bea")
    status = await world.engine_phase("cosyvoice", "Ready", timeout=30)
    assert status["gpu"]["reservedMiB"] == 16000
    await world.until("cleo", "its own engine", lambda s: condition(s, "TTSReady").get("reason") == "Ready")


async def test_a_lost_gpu_moves_the_engine(world: World, gpus: Gpus, operator_factory: MakeOperator) -> None:
    node = await gpus.node(24576, 24576)
    await world.pool()
    await world.avatar("ada")
    await world.engine("cosyvoice", **engine(gpus, startupTimeoutSeconds=30))
    await operator_factory().start()
    await world.instance("one", "ada", tts={"engine": "cosyvoice"})
    first = (await world.engine_phase("cosyvoice", "Ready"))["gpu"]["uuid"]
    gpus.of(first).healthy = False
    await gpus.reported()
    other = next(g.uuid for g in node.gpus if g.uuid != first)
    await until(
        "the engine on the other GPU",
        lambda: world.engine_status("cosyvoice"),
        lambda s: s.get("phase") == "Ready" and s.get("gpu", {}).get("uuid") == other,
        timeout=30,
    )


async def test_a_restart_keeps_what_an_engine_has(world: World, gpus: Gpus, operator_factory: MakeOperator) -> None:
    await gpus.node(24576)
    await world.pool(**gpus.pool())
    await world.avatar("ada", "bea")
    await world.engine("cosyvoice", **engine(gpus, idleTimeoutSeconds=60))
    operator = await operator_factory().start()
    await world.instance("one", "ada", tts={"engine": "cosyvoice"})
    await world.engine_phase("cosyvoice", "Ready")
    (before,) = await world.engine_pods("cosyvoice")
    operator.kill()
    operator.launch()
    await operator.until_ready()
    await world.instance("two", "bea")
    await world.phase("two", "Pending", reason="GPUExhausted")
    (after,) = await world.engine_pods("cosyvoice")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
