"""The screen of `kubectl avatar top`: what it says, that it fits, and that its bars are the operator's own account."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from avatar_operator.domain.gpunode import Alert, Reserved
from avatar_operator.domain.resources import GpuStatus, Instance, PoolPortStatus, PoolStatus, Ports
from avatar_operator.domain.resources import InstanceStatus as Status
from avatar_operator.domain.tts import TtsEngine, TtsSpec, TtsStatus
from avatar_operator.domain.vram import Vram, vram
from avatar_operator.plugin.frame import Scene, lines
from avatar_operator.plugin.vram import bar
from tests.unit.builders import NAMESPACE, NOW, ago, bare_pod, condition, instance, later, meta, pool
from tests.unit.gpu_builders import A0, A1, gpu, gpunode

GIB = 1024


def text(scene: Scene, width: int = 200, height: int | None = None) -> str:
    return "\n".join(each.plain for each in lines(scene, width, height))


def busy(number: int, **status: object) -> Instance:
    fields = {"phase": "Running", "port": 8615 + number, "node": "box", **status}
    return instance(f"i{number:03}", f"avatar {number:03}", status=Status(**fields))  # type: ignore[arg-type]


# ---- the account of a GPU ----------------------------------------------------------------


def test_a_loaded_and_a_loading_avatar_and_somebody_else() -> None:
    """Reserved 4 and 4 GiB, of which one uses 3; others use 2."""
    ready = bare_pod(age=600)
    ready = msgspec.structs.replace(
        ready, status=msgspec.structs.replace(ready.status, conditions=(condition("Ready", "True", since=ago(500)),))
    )
    loading = msgspec.structs.replace(ready, metadata=meta("avatar-8616"))
    report = gpu(A0, used=5 * GIB, total=24 * GIB, pods={ready.metadata.uid: 3 * GIB})
    node = gpunode(
        "box", report, reservations=tuple(Reserved(A0, NAMESPACE, f"avatar-{p}", 4 * GIB) for p in (8615, 8616))
    )
    pods = {(NAMESPACE, "avatar-8615"): ready, (NAMESPACE, "avatar-8616"): loading}
    assert vram(node, report, pods) == Vram(24 * GIB, 3 * GIB, 5 * GIB, 2 * GIB)


def test_pods_that_may_not_be_read_count_as_loaded() -> None:
    report = gpu(A0, used=5 * GIB, total=24 * GIB, pods={"somebody": 3 * GIB})
    node = gpunode("box", report, reservations=(Reserved(A0, "other", "avatar-8615", 4 * GIB),))
    room = vram(node, report, {})
    assert room is not None
    assert (room.used, room.reserved, room.external, room.free) == (4 * GIB, 0, GIB, 19 * GIB)


def test_what_nvml_cannot_tell_is_no_bar() -> None:
    report = gpu(A0, used=None)
    assert vram(gpunode("box", report), report, {}) is None


@pytest.mark.parametrize(
    ("room", "marks"),
    [
        (Vram(24, 6, 6, 6), "██▒▒▓▓░░"),
        (Vram(24, 0, 0, 0), "░░░░░░░░"),
        (Vram(24000, 1, 1, 1), "█▒▓░░░░░"),
        (Vram(24, 24, 8, 8), "████████"),
        (Vram(0, 0, 0, 0), "░░░░░░░░"),
    ],
)
def test_bars_are_as_long_as_asked_and_show_the_least_part(room: Vram, marks: str) -> None:
    assert bar(room, 8).plain == marks


# ---- the screen ------------------------------------------------------------------------


def whole() -> Scene:
    rules = pool(ports=Ports(base=8615, count=5))
    status = PoolStatus(
        ports=PoolPortStatus(used=4, free=1, in_use=[8615, 8616, 8617, 8618]),
        queue_length=1,
        conditions=(condition("Ready", "True", "Accepted"),),
    )
    hot = gpu(
        A1,
        1,
        used=20 * GIB,
        total=24 * GIB,
        product="NVIDIA L4",
        temperature_celsius=88,
        utilization_percent=97,
        alerts=(Alert("Temperature"), Alert("Memory")),
    )
    engine = TtsEngine(
        metadata=meta("edgetts"),
        spec=TtsSpec(image="tts:1", protocol="edgetts"),
        status=TtsStatus(phase="Ready", users=2, replicas=1, ready_replicas=1),
    )
    queued = Status(phase="Pending", reason="PoolFull", message="full", queue_position=1)
    return Scene(
        now=NOW,
        context="here",
        namespace=NAMESPACE,
        instances=[
            busy(0, connections=2, gpu=GpuStatus(node="box", index=1, uuid=A1)),
            busy(1, idle_deadline=later(600)),
            busy(2, phase="Starting", reason="Starting"),
            busy(9, phase="Failed", port=None, node=None, reason="CrashLoop", message="it ended 3 times"),
            instance("q", "Bob", age=75, status=queued),
        ],
        pools=[msgspec.structs.replace(rules, status=status)],
        nodes=[gpunode("box", gpu(A0, 0, used=2 * GIB, total=24 * GIB), hot)],
        engines=[engine],
    )


def test_everything_is_on_the_screen() -> None:
    seen = text(whole())
    assert "2 running  1 starting  1 pending  1 failed  2 connections" in seen
    assert "default   8615–8619   ●○◐◌·   4      1      1       yes" in seen
    assert "box/1   L4" in seen
    assert "24.0 GiB   88 °C   97 %   Temperature, Memory" in seen
    assert "edgetts   Ready   2       1/1" in seen
    assert "1       Bob      default   75s      full" in seen
    assert "avatar 009   Failed (CrashLoop)                0                10m   it ended 3 times" in seen
    assert "out of date" not in seen


def test_who_needs_attention_comes_first() -> None:
    seen = text(whole())
    assert seen.index("avatar 009") < seen.index("avatar 002") < seen.index("avatar 000") < seen.index("avatar 001")


def test_an_outage_is_told_with_its_age() -> None:
    scene = replace(whole(), trouble="the API server does not answer; still trying", trouble_since=ago(12))
    assert "! out of date: what you see is from 11:59:48 (12s ago): the API server does not answer" in text(scene)


def test_a_silent_agent_is_told() -> None:
    scene = replace(whole(), nodes=[gpunode("box", gpu(A0), at=ago(300)), gpunode("new", gpu(A1), at=None)])
    assert "no report for 5m" in text(scene)
    assert "never reported" in text(scene)


def test_namespaces_have_a_column_where_there_are_several() -> None:
    scene = replace(whole(), namespace="")
    assert "all namespaces" in text(scene)
    assert f"\n{NAMESPACE}   default   8615–8619" in text(scene)


def test_nothing_at_all() -> None:
    assert text(Scene(now=NOW, context="here", namespace="x")).endswith("no instances  0 connections")


@pytest.mark.parametrize("height", [12, 24, 40, 60])
@pytest.mark.parametrize("width", [40, 80, 200])
def test_three_hundred_instances_fit(width: int, height: int) -> None:
    scene = whole()
    many = [busy(n, connections=n % 3) for n in range(300)]
    waiting = [instance(f"w{n}", status=Status(phase="Pending", queue_position=n)) for n in range(1, 40)]
    gpus = [gpunode(f"n{n:02}", gpu(f"GPU-{n}", used=GIB)) for n in range(40)]
    seen = lines(replace(scene, instances=[*many, *waiting], nodes=gpus), width, height)
    assert len(seen) <= height
    assert all(each.cell_len <= width for each in seen)
    shown = "\n".join(each.plain for each in seen)
    if height >= 24:
        assert counted_and_hidden(shown, "avatar ") == 300
        assert counted_and_hidden(shown, "n", section="GPU ") == 40


def counted_and_hidden(shown: str, begin: str, section: str = "AVATAR") -> int:
    """Rows that begin so in the section of that heading, and those that its last line says are missing."""
    part = next(p for p in shown.split("\n\n") if p.startswith(section))
    rows = part.split("\n")[1:]
    hidden = [int(r.split()[2]) for r in rows if r.startswith("… and")]
    return sum(1 for r in rows if r.startswith(begin)) + sum(hidden)
