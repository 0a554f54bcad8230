"""From readings to reports: figures, alerts, events, and what is worth a write."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avatar_operator.agent.alerts import Thresholds
from avatar_operator.agent.events import events
from avatar_operator.agent.publish import applied
from avatar_operator.agent.reading import Process, Reading, Snapshot, Trouble, Xid
from avatar_operator.agent.report import State, missing, report, suspects, worth_writing
from avatar_operator.domain.gpunode import GpuNode, GpuNodeStatus, Memory, MigDevice, PodMemory

NOW = datetime(2026, 3, 1, 12, 0, 0, 250000, tzinfo=UTC)
FLOOR = NOW.replace(microsecond=0)
LIMITS = Thresholds(temperature_celsius=80, memory_percent=90, utilization_percent=95, utilization_seconds=60)


def memory(free: int, total: int = 24576) -> Memory:
    return Memory(total_mib=total, used_mib=total - free, free_mib=free)


def reading(index: int = 0, free: int = 20000, **over: Any) -> Reading:
    fields = {"product": "NVIDIA L4", "memory": memory(free), "processes": (), "temperature_celsius": 40, **over}
    return Reading(f"GPU-{index}", index, **fields)


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def make(*gpus: Reading, before: State | None = None, now: datetime = NOW, **snapshot: Any) -> State:
    look = Snapshot(gpus, **{"driver_version": "580.1", "cuda_version": "13.0", **snapshot})
    return report(before or State(), look, LIMITS, 30, now, "n1")


def alert_types(state: State, index: int = 0) -> list[str]:
    return [alert.type for alert in state.status.gpus[index].alerts]


def condition(state: State) -> tuple[str, str, str]:
    (found,) = state.status.conditions
    assert found.type == "Healthy"
    return found.status, found.reason, found.message


# ---- figures -----------------------------------------------------------------------------


def test_the_node_in_numbers() -> None:
    status = make(reading(1, 11000, temperature_celsius=55), reading(0, 13000), reading(2, memory=None)).status
    assert [gpu.index for gpu in status.gpus] == [0, 1, 2]
    assert (status.last_report, status.heartbeat_seconds, status.driver_version) == (FLOOR, 30, "580.1")
    assert (status.gpu_count, status.free_mib, status.hottest_celsius, status.alerts) == (3, 24000, 55, ())
    assert status.gpus[2].memory is None


def test_memory_of_pods_is_added_up() -> None:
    listed = (Process(1, 100, "b"), Process(2, 50, "a"), Process(3, 7, ""), Process(4, 11, "b"))
    (gpu,) = make(reading(processes=listed)).status.gpus
    assert gpu.processes_known
    assert gpu.pods == (PodMemory(uid="a", used_mib=50), PodMemory(uid="b", used_mib=111))


@pytest.mark.parametrize(
    "listed",
    [None, (Process(1, None, "a"),), (Process(1, 100, "a"), Process(2, 100, None))],
    ids=["not-told", "without-memory", "nobody-knows-whose"],
)
def test_processes_that_are_not_known_say_nothing(listed: tuple[Process, ...] | None) -> None:
    (gpu,) = make(reading(processes=listed)).status.gpus
    assert (gpu.processes_known, gpu.pods) == (False, ())


def test_a_gpu_that_is_cut_up_counts_as_its_parts() -> None:
    whole = reading(0, memory=None, processes=None, mig_enabled=True)
    parts = [
        Reading(f"MIG-{n}", 0, memory=memory(5000, 6144), processes=(), mig=MigDevice(parent_uuid="GPU-0"))
        for n in range(2)
    ]
    status = make(*parts, whole, reading(1, 100)).status
    assert [gpu.uuid for gpu in status.gpus] == ["GPU-0", "MIG-0", "MIG-1", "GPU-1"]
    assert (status.gpu_count, status.free_mib) == (3, 10100)


# ---- health ------------------------------------------------------------------------------


def test_a_lost_gpu_is_named_and_counts_no_memory() -> None:
    well = make(reading(0, 11000), reading(1, 12000))
    assert condition(well) == ("True", "AllHealthy", "2 of 2 GPUs can be used")
    lost = Reading("GPU-1", 1, trouble=Trouble.LOST, message="it is lost")
    state = make(reading(0, 11000), lost, before=well, now=after(10))
    bad = state.status.gpus[1]
    assert (bad.healthy, bad.reason, bad.message, bad.memory) == (False, "Lost", "it is lost", None)
    assert (bad.product, state.status.free_mib, state.status.gpu_count) == ("NVIDIA L4", 11000, 2)
    assert condition(state) == ("False", "GPULost", "1 of 2 GPUs cannot be used: GPU 1 (GPU-1): Lost, it is lost")
    assert state.status.alerts == ("Unhealthy GPU 1",)
    assert state.status.conditions[0].last_transition_time == FLOOR + timedelta(seconds=10)


def test_the_condition_keeps_its_time() -> None:
    state = make(reading(), before=make(reading()), now=after(50))
    assert state.status.conditions[0].last_transition_time == FLOOR


def test_a_gpu_that_has_vanished_is_reported_until_it_is_back() -> None:
    state = make(reading(0), reading(1))
    for seconds in (10, 20):
        state = make(reading(0), before=state, now=after(seconds))
        gone = state.status.gpus[1]
        assert (gone.uuid, gone.healthy, gone.reason, gone.product) == ("GPU-1", False, "Lost", "NVIDIA L4")
        assert "kubectl delete gpunode n1" in gone.message
    state = make(reading(0), reading(1), before=state, now=after(30))
    assert all(gpu.healthy for gpu in state.status.gpus)


def test_a_driver_that_is_gone_takes_all_gpus_along() -> None:
    state = report(make(reading(0), reading(1)), Snapshot(problem="the driver is not loaded"), LIMITS, 30, after(10))
    assert [(gpu.healthy, gpu.reason) for gpu in state.status.gpus] == [(False, "Lost")] * 2
    assert "the driver is not loaded" in state.status.gpus[0].message
    assert state.status.driver_version == "580.1"


def test_parts_go_with_their_parent_but_come_and_go_by_will() -> None:
    part = Reading("MIG-0", 0, memory=memory(1), mig=MigDevice(parent_uuid="GPU-0", profile="1g.6gb"))
    state = make(reading(0, mig_enabled=True), part)
    lost = Reading("GPU-0", 0, trouble=Trouble.RESET, message="reset it")
    sick = make(lost, before=state).status
    assert [(g.uuid, g.reason, g.message) for g in sick.gpus] == [
        ("GPU-0", "ResetRequired", "reset it"),
        ("MIG-0", "ResetRequired", "reset it"),
    ]
    assert (sick.gpus[0].mig_enabled, sick.gpu_count) == (True, 1)
    cut_anew = make(reading(0), before=state).status
    assert [g.uuid for g in cut_anew.gpus] == ["GPU-0"]


def test_one_without_a_name_is_not_missed() -> None:
    state = make(Reading("unknown-1", 1, trouble=Trouble.LOST, message="x"))
    assert missing(state.status, Snapshot((reading(1),))) == []


def test_only_new_trouble_is_looked_at_twice() -> None:
    lost = Reading("GPU-0", 0, trouble=Trouble.LOST)
    well = make(reading(0), reading(1)).status
    assert suspects(well, Snapshot((reading(0), reading(1)))) == set()
    assert suspects(well, Snapshot((lost, reading(1)))) == {"GPU-0"}
    assert suspects(well, Snapshot((reading(0),))) == {"GPU-1"}
    sick = make(lost, before=State(well)).status
    assert suspects(sick, Snapshot((lost,))) == set()


# ---- alerts ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "figures", "raised"),
    [
        ("Temperature", [79, 80, 76, 75, 74, 79], [False, True, True, True, False, False]),
        ("Memory", [89, 90, 88, 87.9, 89], [False, True, True, False, False]),
    ],
)
def test_an_alert_does_not_flap(kind: str, figures: list[float], raised: list[bool]) -> None:
    state = State()
    seen = []
    for figure in figures:
        one = (
            reading(temperature_celsius=figure)
            if kind == "Temperature"
            else reading(memory=memory(round(100000 - figure * 1000), 100000))
        )
        state = make(one, before=state)
        seen.append(kind in alert_types(state))
    assert seen == raised


def test_since_is_kept_while_it_lasts_and_the_figure_is_new() -> None:
    state = make(reading(temperature_celsius=81))
    state = make(reading(temperature_celsius=88), before=state, now=after(30))
    (alert,) = state.status.gpus[0].alerts
    assert (alert.type, alert.since) == ("Temperature", FLOOR)
    assert alert.message == "88 °C, the threshold is 80 °C"
    assert state.status.alerts == ("Temperature GPU 0",)


def test_utilization_must_last() -> None:
    state, seen = State(), []
    for seconds, percent in ((0, 99), (30, 96), (50, 90), (60, 97), (110, 97), (120, 97), (130, 86), (140, 84)):
        state = make(reading(utilization_percent=percent), before=state, now=after(seconds))
        seen.append("Utilization" in alert_types(state))
    assert seen == [False, False, False, False, False, True, True, False]
    assert state.busy_since == {}


def test_a_new_agent_carries_an_alert_on() -> None:
    state = make(reading(utilization_percent=99), now=NOW)
    state = make(reading(utilization_percent=99), before=state, now=after(60))
    started_anew = State(state.status)
    state = make(reading(utilization_percent=99), before=started_anew, now=after(70))
    (alert,) = state.status.gpus[0].alerts
    assert alert.since == FLOOR + timedelta(seconds=60)


def test_zero_turns_an_alert_off() -> None:
    off = Thresholds(0, 0, 0, 0)
    hot = reading(0, 0, temperature_celsius=110, utilization_percent=100)
    assert report(State(), Snapshot((hot,)), off, 30, NOW).status.alerts == ()


def test_errors_of_memory_and_xids() -> None:
    told = (Xid(92, 3, NOW), Xid(63, 1, NOW - timedelta(hours=2)))
    state = make(reading(ecc_uncorrected=2, xids=told))
    assert alert_types(state) == ["ECC", "XID"]
    assert "Xid 92 (3 times" in state.status.gpus[0].alerts[1].message
    assert "63" not in state.status.gpus[0].alerts[1].message
    assert alert_types(make(reading(xids=told), before=state, now=after(3601))) == []


# ---- worth a write -----------------------------------------------------------------------

BASE = reading(0, 20000, processes=(Process(1, 5000, "a"),))


@pytest.mark.parametrize(
    ("gpus", "worth"),
    [
        ([BASE], False),
        ([replace(BASE, temperature_celsius=79, utilization_percent=94, power_watts=70)], False),
        ([replace(BASE, memory=memory(20000 - 255))], False),
        ([replace(BASE, memory=memory(20000 - 256))], True),
        ([replace(BASE, memory=memory(20000 + 256))], True),
        ([replace(BASE, memory=None)], True),
        ([replace(BASE, trouble=Trouble.LOST)], True),
        ([replace(BASE, temperature_celsius=80)], True),
        ([BASE, reading(1)], True),
        ([], True),
        ([replace(BASE, mig_enabled=True)], True),
        ([replace(BASE, processes=(Process(1, 5255, "a"),))], False),
        ([replace(BASE, processes=(Process(1, 5256, "a"),))], True),
        ([replace(BASE, processes=(Process(1, 5000, "b"),))], True),
        ([replace(BASE, processes=(Process(1, 5000, "a"), Process(2, 10, "b")))], False),
        ([replace(BASE, processes=())], True),
        ([replace(BASE, processes=None)], True),
    ],
    ids=[
        "same",
        "only-what-always-moves",
        "little-memory",
        "memory-less",
        "memory-more",
        "memory-unknown",
        "health",
        "alert",
        "gpu-more",
        "gpu-vanished",
        "mig",
        "pod-little",
        "pod-more",
        "pod-other",
        "pod-small",
        "pod-gone",
        "processes-unknown",
    ],
)
def test_worth_writing(gpus: list[Reading], worth: bool) -> None:
    old = make(BASE)
    new = make(*gpus, before=old, now=after(10))
    assert worth_writing(old.status, new.status) is worth


@pytest.mark.parametrize(("moved", "worth"), [(1400, False), (1440, True)])
def test_on_a_large_gpu_one_percent_is_little(moved: int, worth: bool) -> None:
    old, new = (make(reading(memory=memory(free, 144000))) for free in (100000, 100000 - moved))
    assert worth_writing(old.status, new.status) is worth


@pytest.mark.parametrize(("seconds", "due"), [(20, False), (28, False), (29.9, True), (30, True), (400, True)])
def test_a_heartbeat(seconds: float, due: bool) -> None:
    old = make(BASE)
    assert worth_writing(old.status, make(BASE, before=old, now=after(seconds)).status) is due


def test_the_first_report_and_a_new_driver() -> None:
    old = make(BASE)
    assert worth_writing(GpuNodeStatus(), old.status)
    assert worth_writing(old.status, make(BASE, before=old, driver_version="590.1").status)


# ---- events ------------------------------------------------------------------------------


def told(old: State, new: State) -> list[tuple[str, str]]:
    return [(event.type, event.reason) for event in events(old.status, new.status, "n1")]


def test_what_people_hear() -> None:
    well = make(reading(0), reading(1))
    assert told(State(), well) == []
    lost = make(reading(0), Reading("GPU-1", 1, trouble=Trouble.LOST, message="look at dmesg"), before=well)
    (event,) = events(well.status, lost.status, "n1")
    assert (event.type, event.reason) == ("Warning", "GPULost")
    assert event.message == (
        "GPU 1 of node n1 (NVIDIA L4, GPU-1) takes no new avatars (Lost), other GPUs go on: look at dmesg"
    )
    assert told(lost, lost) == []
    assert told(lost, well) == [("Normal", "GPURecovered")]
    reset = make(reading(0), Reading("GPU-1", 1, trouble=Trouble.RESET, message="x"), before=well)
    assert told(well, reset) == [("Warning", "GPUUnhealthy")]
    hot = make(reading(0, temperature_celsius=90), reading(1), before=well)
    (event,) = events(well.status, hot.status, "n1")
    assert (event.type, event.reason) == ("Warning", "AlertRaised")
    assert event.message == "Temperature alert for GPU 0 of node n1 (NVIDIA L4, GPU-0): 90 °C, the threshold is 80 °C"
    assert told(hot, make(reading(0, temperature_celsius=91), reading(1), before=hot)) == []
    assert told(hot, well) == [("Normal", "AlertCleared")]
    newer = make(reading(0), reading(1), before=well, driver_version="590.1")
    assert told(well, newer) == [("Normal", "DriverChanged")]


def test_of_a_lost_gpu_nobody_says_that_it_is_cool() -> None:
    hot = make(reading(0, temperature_celsius=90))
    lost = make(Reading("GPU-0", 0, trouble=Trouble.LOST, message="x"), before=hot)
    assert told(hot, lost) == [("Warning", "GPULost")]


# ---- what is sent ------------------------------------------------------------------------


def test_an_apply_is_complete_and_leaves_the_operators_fields_alone() -> None:
    status = make(reading(0, 0), reading(1, memory=None)).status
    body = applied(status)
    assert {"reservations", "reservedMiB", "externalMiB"}.isdisjoint(body)
    assert body["gpus"][0]["healthy"] is True
    assert body["gpus"][0]["memory"]["freeMiB"] == 0
    assert "memory" not in body["gpus"][1]
    assert "reason" not in body["gpus"][0]
    assert set(body["conditions"][0]) >= {"type", "status", "reason", "message", "lastTransitionTime"}
    again = msgspec.convert({"metadata": {"name": "n1"}, "status": body}, GpuNode)
    assert again.status == status


READINGS = st.lists(
    st.builds(
        Reading,
        uuid=st.sampled_from([f"GPU-{n}" for n in range(4)]),
        index=st.integers(0, 3),
        trouble=st.sampled_from(["", "", "Lost", "ResetRequired"]),
        message=st.just("why"),
        memory=st.none() | st.builds(memory, st.integers(0, 24576)),
        temperature_celsius=st.none() | st.integers(20, 110),
        utilization_percent=st.none() | st.integers(0, 100),
    ),
    max_size=4,
    unique_by=lambda r: r.uuid,
)


@given(st.lists(READINGS, min_size=1, max_size=6))
def test_no_gpu_is_ever_dropped_and_a_report_is_stable(looks: list[list[Reading]]) -> None:
    state, known = State(), set[str]()
    for number, gpus in enumerate(looks):
        state = make(*gpus, before=state, now=after(10 * number))
        known |= {gpu.uuid for gpu in gpus}
        assert {gpu.uuid for gpu in state.status.gpus} == known
        assert len(set(state.status.alerts)) == len(state.status.alerts)
        again = make(*gpus, before=state, now=after(10 * number))
        assert not worth_writing(state.status, again.status)
        assert events(state.status, again.status, "n1") == []
