"""Reservations and reports by GPU: whatever is heard in whatever order, each reservation counts once."""

from __future__ import annotations

from datetime import datetime
from itertools import permutations

import pytest

from avatar_operator.controller.gpus import FOREIGN_SECONDS, LAST_PODS, MOST_DEPARTED, GpuIndex
from avatar_operator.domain.gpunode import GpuNode, Node, Reserved
from avatar_operator.domain.ledger import Reservation
from avatar_operator.domain.placement import Need, Placement, Refusal
from avatar_operator.domain.resources import Gpu, GpuSelector
from tests.unit.builders import NAMESPACE, NOW, ago, later, pool
from tests.unit.gpu_builders import A0, A1, B0, DRA, PLUGIN, TOTAL, VISIBLE, gpu, gpunode, node, reservation

NEED = Need(4000, 8000)
NAME = "avatar-8615"
CLAIM = reservation(NAME)
POD = reservation(NAME, pod_uid="u", ready=ago(60))


def make(*items: Node | GpuNode) -> GpuIndex:
    index = GpuIndex()
    for item in items:
        if isinstance(item, Node):
            index.take_node(item)
        else:
            index.take_report(item)
    return index


def one_gpu(used: int = 0, at: datetime = NOW, **pods: int) -> GpuNode:
    """Node a with one GPU; memory of ``pods`` is in use besides ``used``."""
    return gpunode("a", gpu(A0, used=used + sum(pods.values()), pods=pods), at=at)


def floating(name: str = NAME, pod_uid: str = "") -> Reservation:
    """A reservation of a mode in which somebody else picks the GPU."""
    return reservation(name, uuid="", pod_uid=pod_uid)


def books(index: GpuIndex) -> tuple[int, ...]:
    """How much the index has in mind, by kind: what must not grow."""
    return tuple(
        len(found)
        for found in (index._sources, index._named, index._podless, index._located, index._departed, index._gpus)
    )


# ---- sources -----------------------------------------------------------------------------


def test_a_reservation_counts_once_and_ends_with_its_last_source() -> None:
    index = make(one_gpu())
    index.hold("write", CLAIM, NOW)
    index.hold("Service", CLAIM, NOW)
    assert index.let_go("write", NAMESPACE, NAME, NOW) is None
    index.hold("Pod", POD, NOW)
    assert index.room(A0).reserved == 4000
    assert index.reserved_on("a") == [Reserved(uuid=A0, namespace=NAMESPACE, pod=NAME, mib=4000)]
    assert index.let_go("Pod", NAMESPACE, NAME, NOW) is None
    assert index.room(A0).reserved == 4000
    assert index.let_go("Service", NAMESPACE, NAME, NOW) == "a"
    assert index.room(A0).reserved == 0
    assert index.let_go("Service", NAMESPACE, NAME, NOW) is None


@pytest.mark.parametrize("order", list(permutations(["Service", "Pod", "report"])))
def test_the_order_of_hearing_does_not_matter(order: tuple[str, ...]) -> None:
    index = make()
    for what in order:
        match what:
            case "report":
                index.take_report(one_gpu(1000, u=3000))
            case "Pod":
                index.hold("Pod", POD, NOW)
            case _:
                index.hold("Service", CLAIM, NOW)
    room = index.room(A0)
    assert (room.reserved, room.external, room.free) == (4000, 1000, TOTAL - 1000 - 4000)
    assert index.podless_since(NAMESPACE, NAME) is None


def test_of_two_figures_the_greater_counts() -> None:
    index = make(one_gpu())
    index.hold("Service", CLAIM, NOW)
    index.hold("Pod", reservation(NAME, 6000, pod_uid="u"), NOW)
    assert index.room(A0).reserved == 6000


def test_two_gpus_are_two_reservations() -> None:
    """The pod of an earlier claim ends on another GPU."""
    index = make(gpunode("a", gpu(A0), gpu(A1, 1)))
    index.hold("Pod", POD, NOW)
    index.hold("Service", reservation(NAME, uuid=A1), NOW)
    assert (index.room(A0).reserved, index.room(A1).reserved) == (4000, 4000)
    index.hold("Service", CLAIM, NOW)
    assert (index.room(A0).reserved, index.room(A1).reserved) == (4000, 0)


# ---- between two pods ----------------------------------------------------------------------


def test_since_when_a_claim_has_no_pod() -> None:
    index = make(one_gpu())
    assert index.podless_since(NAMESPACE, NAME) is None
    index.hold("write", CLAIM, NOW)
    index.hold("Service", CLAIM, later(1))
    index.let_go("write", NAMESPACE, NAME, later(1))
    assert index.podless_since(NAMESPACE, NAME) == NOW
    index.hold("Pod", POD, later(2))
    index.hold("Service", CLAIM, later(3))
    assert index.podless_since(NAMESPACE, NAME) is None
    index.let_go("Pod", NAMESPACE, NAME, later(4))
    index.hold("Service", CLAIM, later(5))
    assert index.podless_since(NAMESPACE, NAME) == later(4)
    index.let_go("Service", NAMESPACE, NAME, later(6))
    assert index.podless_since(NAMESPACE, NAME) is None


@pytest.mark.parametrize(
    ("report", "gone"),
    [
        pytest.param(None, False, id="no-report-since"),
        pytest.param(gpunode("a", gpu(A0), at=NOW), False, id="known-when-the-pod-went"),
        pytest.param(gpunode("a", gpu(A0), at=later(11)), True, id="made-after"),
        pytest.param(gpunode("a", gpu(A0), at=later(5)), True, id="made-after-by-a-clock-that-is-behind"),
        pytest.param(gpunode("a", gpu(A0, known=False), at=later(11)), False, id="sees-no-processes"),
        pytest.param(gpunode("a", at=later(11)), False, id="without-the-gpu"),
    ],
)
def test_processes_gone(report: GpuNode | None, gone: bool) -> None:
    index = make(one_gpu(u=4000))
    index.hold("Service", CLAIM, NOW)
    index.hold("Pod", POD, NOW)
    assert not index.processes_gone(NAMESPACE, NAME)
    index.let_go("Pod", NAMESPACE, NAME, later(10))
    if report is not None:
        index.take_report(report)
    assert index.processes_gone(NAMESPACE, NAME) is gone
    assert not index.processes_gone(NAMESPACE, "avatar-9999")


def test_a_report_from_before_is_not_taken_for_one_from_after() -> None:
    """Our clock is behind the agent's: what it told before the pod went is later than that moment by ours."""
    index = make(gpunode("a", gpu(A0), at=later(12)))
    index.hold("Service", CLAIM, NOW)
    index.hold("Pod", POD, NOW)
    index.let_go("Pod", NAMESPACE, NAME, later(10))
    assert not index.processes_gone(NAMESPACE, NAME)
    index.take_report(gpunode("a", gpu(A0), at=later(13)))
    assert index.processes_gone(NAMESPACE, NAME)


def test_the_pod_before_the_last_may_hold_memory_still() -> None:
    """One that ended, and the next one, which was deleted at once."""
    index = make(one_gpu())
    index.hold("Service", CLAIM, NOW)
    for moment, uid in enumerate(("first", "second")):
        index.hold("Pod", reservation(NAME, pod_uid=uid), later(moment))
        index.let_go("Pod", NAMESPACE, NAME, later(moment + 0.1))
    index.take_report(one_gpu(first=4000, at=later(2)))
    assert not index.processes_gone(NAMESPACE, NAME)
    index.take_report(one_gpu(at=later(3)))
    assert index.processes_gone(NAMESPACE, NAME)


def test_of_a_claim_with_many_pods_the_last_are_looked_for() -> None:
    index = make(one_gpu())
    index.hold("Service", CLAIM, NOW)
    for number in range(LAST_PODS + 1):
        index.hold("Pod", reservation(NAME, pod_uid=f"pod-{number}"), later(number))
        index.let_go("Pod", NAMESPACE, NAME, later(number + 0.1))
    index.take_report(one_gpu(at=later(20), **{"pod-0": 100}))
    assert index.processes_gone(NAMESPACE, NAME)
    index.take_report(one_gpu(at=later(21), **{"pod-1": 100}))
    assert not index.processes_gone(NAMESPACE, NAME)


# ---- departed pods ---------------------------------------------------------------------------


def test_what_a_departed_pod_used_is_not_external() -> None:
    index = make(one_gpu(1000, u=4000))
    index.hold("Service", CLAIM, NOW)
    index.hold("Pod", POD, NOW)
    index.let_go("Pod", NAMESPACE, NAME, later(10))
    assert (index.room(A0).external, index.room(A0).free) == (1000, 24000 - 5000 - 4000)
    index.let_go("Service", NAMESPACE, NAME, later(13))
    assert (index.room(A0).external, index.room(A0).free, index.room(A0).ledger) == (1000, 19000, 23000)
    index.take_report(one_gpu(1000, at=later(30)))
    assert (index.room(A0).external, index.room(A0).free) == (1000, 23000)


def test_a_report_from_before_still_shows_it() -> None:
    index = make(one_gpu(1000))
    index.hold("Pod", POD, NOW)
    index.let_go("Pod", NAMESPACE, NAME, later(10))
    index.take_report(one_gpu(1000, at=later(9), u=4000))
    assert index.room(A0).external == 1000
    index.take_report(one_gpu(1000, at=later(11), u=4000))
    assert index.room(A0).external == 5000, "still there: nobody knows whose it is"


def test_who_has_lost_its_claim_is_not_counted_twice() -> None:
    """Somebody deletes the Service under a running pod, and the operator makes it again."""
    index = make(one_gpu(5000, u=4000))
    index.hold("Service", CLAIM, NOW)
    index.hold("Pod", POD, NOW)
    assert index.room(A0).external == 5000
    index.let_go("Service", NAMESPACE, NAME, later(1))
    assert index.room(A0).external == 5000
    index.hold("write", CLAIM, later(2))
    index.hold("Service", CLAIM, later(2))
    index.let_go("write", NAMESPACE, NAME, later(2))
    assert index.room(A0).external == 5000
    # A label of the pod changes: out of the books and in again.
    index.let_go("Pod", NAMESPACE, NAME, later(3))
    index.hold("Pod", POD, later(3))
    assert (index.room(A0).external, index.room(A0).reserved) == (5000, 4000)


# ---- GPUs that somebody else picks --------------------------------------------------------------


@pytest.mark.parametrize("order", list(permutations(["Service", "Pod", "report"])))
def test_a_pod_is_found_by_its_processes(order: tuple[str, ...]) -> None:
    index = make(gpunode("a", gpu(A0), gpu(A1, 1)))
    for what in order:
        match what:
            case "report":
                index.take_report(gpunode("a", gpu(A0), gpu(A1, 1, used=3000, pods={"u": 3000}), at=later(10)))
            case "Pod":
                index.hold("Pod", floating(pod_uid="u"), NOW)
            case _:
                index.hold("Service", floating(), NOW)
    assert (index.room(A0).reserved, index.room(A1).reserved) == (0, 4000)
    assert (index.room(A1).external, index.room(A1).free) == (0, 20000)
    found = index.report_of("u")
    assert found is not None
    assert (found[0], found[1].uuid, found[2]) == ("a", A1, later(10))
    assert index.usage("u") == 3000
    # Heard of again, both stay there; and the next pod of the claim may get another one.
    index.hold("Pod", floating(pod_uid="u"), NOW)
    index.hold("Service", floating(), NOW)
    assert index.room(A1).reserved == 4000
    assert len(index._sources) == 1
    assert index.let_go("Pod", NAMESPACE, NAME, later(20)) is None
    assert index.room(A1).reserved == 0
    assert index.let_go("Service", NAMESPACE, NAME, later(23)) == "a"


@pytest.mark.parametrize("order", list(permutations(["Service", "Pod", "report", "allocation"])))
def test_an_allocation_says_it_too(order: tuple[str, ...]) -> None:
    index = make(gpunode("a", gpu(A0)))
    for what in order:
        match what:
            case "report":
                index.take_report(one_gpu(1000, at=later(10), u=4000))
            case "allocation":
                index.locate(NAMESPACE, NAME, A0)
            case "Pod":
                index.hold("Pod", floating(pod_uid="u"), NOW)
            case _:
                index.hold("Service", floating(), NOW)
    room = index.room(A0)
    assert (room.reserved, room.external, room.free) == (4000, 1000, 19000)
    index.let_go("Pod", NAMESPACE, NAME, later(20))
    assert index.podless_since(NAMESPACE, NAME) == later(20)


def test_a_placed_reservation_does_not_move() -> None:
    index = make(gpunode("a", gpu(A0), gpu(A1, 1, used=4000, pods={"u": 4000})))
    index.hold("Pod", POD, NOW)
    index.locate(NAMESPACE, NAME, A1)
    assert (index.room(A0).reserved, index.room(A1).reserved) == (4000, 0)


# ---- reports and nodes --------------------------------------------------------------------------


def test_which_gpus_changed() -> None:
    index = make()
    assert index.take_report(gpunode("a", gpu(A0), gpu(A1, 1))) == {A0, A1}
    assert index.take_report(gpunode("a", gpu(A0, used=9), gpu(A1, 1), cordoned=(A1,))) == set()
    assert index.take_report(gpunode("a", gpu(A0, healthy=False), gpu(A1, 1))) == {A0}
    index.hold("Pod", POD, NOW)
    assert index.held_by({A0, A1}) == {(NAMESPACE, NAME)}
    assert index.take_report(gpunode("a", gpu(A1, 1))) == {A0}
    assert index.drop_report("a") == {A1}
    assert index.drop_report("a") == set()
    assert index.room(A0).reserved == 4000, "what is reserved is in the claims"


@pytest.mark.parametrize(
    ("report", "now", "lost"),
    [
        pytest.param(gpunode("a", gpu(A0)), NOW, "", id="well"),
        pytest.param(gpunode("a", gpu(A0)), later(900), "", id="an-old-report"),
        pytest.param(gpunode("a", gpu(A0), cordoned=(A0,)), NOW, "", id="cordoned"),
        pytest.param(
            gpunode("a", gpu(A0, 3, healthy=False, message="fell off the bus")),
            NOW,
            "GPU 3 of a: fell off the bus",
            id="lost",
        ),
        pytest.param(gpunode("a", gpu(A0, healthy=False)), later(900), "GPU 0 of a: unhealthy", id="lost-for-long"),
        pytest.param(gpunode("a"), later(89), f"{A0} is no longer among the GPUs of a", id="not-listed"),
        pytest.param(gpunode("a"), later(90), "", id="not-listed-in-an-old-report"),
        pytest.param(gpunode("a", at=None), NOW, "", id="never-reported"),
        pytest.param(gpunode("b"), NOW, "", id="another-node"),
    ],
)
def test_lost(report: GpuNode, now: datetime, lost: str) -> None:
    assert make(report).lost(A0, "a", now) == lost


@pytest.mark.parametrize("uuid", ["1", "all", ""])
def test_what_is_no_uuid_is_not_lost(uuid: str) -> None:
    assert make(gpunode("a")).lost(uuid, "a", NOW) == ""


@pytest.mark.parametrize(
    ("items", "problem"),
    [
        pytest.param((node("a"), gpunode("a", gpu(A0))), "", id="fine"),
        pytest.param((node("a"), gpunode("a", gpu(A0), cordoned=(A0,))), "cordoned", id="cordoned"),
        pytest.param((node("a", ready=False), gpunode("a", gpu(A0))), "node a is not ready", id="node"),
        pytest.param((node("a"), gpunode("a", gpu(A1))), "", id="unknown"),
    ],
)
def test_unfit(items: tuple[Node | GpuNode, ...], problem: str) -> None:
    assert make(*items).unfit(A0, VISIBLE).startswith(problem or "")
    assert bool(make(*items).unfit(A0, VISIBLE)) is bool(problem)


def test_stale() -> None:
    index = make(one_gpu())
    assert [index.stale(A0, when) for when in (NOW, later(89), later(90))] == [False, False, True]
    assert not index.stale("1", later(900)), "nothing is known of it"


def test_a_gpu_that_moved_to_another_node_stays_known() -> None:
    """A node was renamed, and the GPUNode of its old name goes last."""
    index = make(gpunode("old", gpu(A0)), gpunode("a", gpu(A0, used=1000)))
    index.drop_report("old")
    assert index.room(A0).external == 1000
    index = make(gpunode("old", gpu(A0)), gpunode("a", gpu(A0, used=1000)))
    index.take_report(gpunode("old"))
    assert index.room(A0).external == 1000


def test_what_of_a_node_matters() -> None:
    index = make()
    assert index.take_node(node("a"))
    assert not index.take_node(node("a", version=2))
    assert index.take_node(node("a", ready=False))
    assert index.take_node(node("a", labels={"x": "y"}))
    assert index.take_node(node("a", unschedulable=True))
    index.drop_node("a")
    assert index.take_node(node("a", unschedulable=True))


# ---- finding a place ------------------------------------------------------------------------------


def uuids(index: GpuIndex, times: int, now: datetime = NOW) -> list[str]:
    """The GPUs of so many claims, one after the other."""
    found = []
    for n in range(times):
        place = index.find(VISIBLE, NEED, now)
        found.append(place.uuid if isinstance(place, Placement) else "")
        if isinstance(place, Placement):
            index.hold("write", reservation(f"avatar-{n}", place.mib, place.uuid), now)
    return found


def test_one_after_the_other_until_nothing_fits() -> None:
    index = make(node("a"), gpunode("a", gpu(A0, used=13000), gpu(A1, 1, used=8000)))
    assert uuids(index, 5) == [A1, A1, A0, A1, ""]
    index.let_go("write", NAMESPACE, "avatar-2", NOW)
    assert uuids(index, 1) == [A0]


def test_what_is_heard_counts_at_once() -> None:
    index = make(node("a"), gpunode("a", gpu(A0)))
    assert isinstance(index.find(VISIBLE, NEED, NOW), Placement)
    index.take_report(gpunode("a", gpu(A0, used=17000)))
    assert isinstance(index.find(VISIBLE, NEED, NOW), Refusal)
    index.take_report(gpunode("a", gpu(A0), cordoned=(A0,)))
    assert isinstance(index.find(VISIBLE, NEED, NOW), Refusal)
    index.take_report(gpunode("a", gpu(A0)))
    assert isinstance(index.find(VISIBLE, NEED, NOW), Placement)
    index.take_node(node("a", ready=False))
    assert isinstance(index.find(VISIBLE, NEED, NOW), Refusal)
    index.drop_node("a")
    found = index.find(VISIBLE, NEED, NOW)
    assert isinstance(found, Refusal)
    assert "node a does not exist" in found.message


def test_a_need_of_its_own() -> None:
    index = make(node("a"), gpunode("a", gpu(A0, used=20000)))
    assert isinstance(index.find(VISIBLE, NEED, NOW), Refusal)
    assert isinstance(index.find(VISIBLE, Need(4000, 0), NOW), Placement)


def test_an_old_report_leaves_reservations() -> None:
    index = make(node("a"), one_gpu(6000, u=1000))
    index.hold("Pod", POD, NOW)
    assert uuids(index, 4, later(900)) == [A0, A0, "", ""]


BLIND = pool("blind", gpu=Gpu(mode="VisibleDevices", primary=GpuSelector(indices=[1]), backup=GpuSelector(indices=[0])))


def test_without_telemetry_in_turn() -> None:
    for index in (make(), make(node("a"), gpunode("a", at=None)), GpuIndex(blind=True)):
        found = []
        for n in range(3):
            place = index.find(BLIND, NEED, NOW)
            assert isinstance(place, Placement)
            index.hold("Service", reservation(f"avatar-{n}", uuid=place.uuid), NOW)
            found.append(place.uuid)
        assert found == ["1", "0", "1"]
    assert make().find(PLUGIN, NEED, NOW) == make().find(DRA, NEED, NOW) == Placement(4000)


def test_a_claim_by_index_without_telemetry_is_refused_where_nobody_can_say_it() -> None:
    one = pool("dra-blind", gpu=Gpu(mode="DRA", primary=GpuSelector(indices=[1])))
    found = make().find(one, NEED, NOW)
    assert isinstance(found, Refusal)
    assert found.hopeless
    assert "gpu.primary.indices" in found.message


def test_slots_of_the_device_plugin() -> None:
    one = {"nvidia.com/gpu": "1"}
    index = make(node("a", allocatable=one), node("b", allocatable=one), gpunode("a", gpu(A0)), gpunode("b", gpu(B0)))
    assert index.find(PLUGIN, NEED, NOW) == Placement(4000, nodes=("a", "b"))
    index.hold("Service", floating(), NOW)
    assert index.find(PLUGIN, NEED, NOW) == Placement(4000, nodes=("b",))
    # The likely node was not the one: the scheduler chose the other.
    index.hold("Pod", Reservation(NAMESPACE, NAME, "", "b", 4000, "u"), NOW)
    assert index.find(PLUGIN, NEED, NOW) == Placement(4000, nodes=("a",))
    index.hold("Service", floating("avatar-8616"), NOW)
    found = index.find(PLUGIN, NEED, NOW)
    assert isinstance(found, Refusal)
    assert found.message.startswith("every nvidia.com/gpu of the nodes with enough free memory is in use")


def test_a_claim_is_not_in_its_own_way() -> None:
    one = {"nvidia.com/gpu": "1"}
    index = make(node("a", allocatable=one), gpunode("a", gpu(A0, used=14000)))
    for kind in (PLUGIN, DRA):
        index.hold("Service", floating(), NOW)
        assert isinstance(index.find(kind, NEED, NOW), Refusal)
        assert isinstance(index.find(kind, NEED, NOW, (NAMESPACE, NAME)), Placement)
        index.let_go("Service", NAMESPACE, NAME, NOW)
    index.hold("Service", CLAIM, NOW)
    assert isinstance(index.find(VISIBLE, NEED, NOW), Refusal)
    assert index.find(VISIBLE, NEED, NOW, (NAMESPACE, NAME)) == Placement(4000, "a", A0, 0)


def test_a_claim_that_is_not_allocated_yet_may_be_on_any_gpu() -> None:
    index = make(node("a"), node("b"), gpunode("a", gpu(A0, used=14000), gpu(A1, 1)), gpunode("b", gpu(B0)))
    assert index.find(DRA, NEED, NOW) == Placement(4000, primary=(A1, B0, A0))
    index.hold("Service", Reservation(NAMESPACE, NAME, "", "", 4000), NOW)
    assert index.find(DRA, NEED, NOW) == Placement(4000, primary=(A1, B0))
    index.locate(NAMESPACE, NAME, B0)
    assert index.find(DRA, NEED, NOW) == Placement(4000, primary=(A1, B0, A0))
    assert index.locate(NAMESPACE, NAME, B0) is False, "no news"


def test_a_confirmation_counts_what_the_server_has() -> None:
    index = make(node("a"), one_gpu())
    index.hold("Service", CLAIM, NOW)
    index.hold("Service", reservation("avatar-8616"), NOW)
    others = [Reservation(NAMESPACE, name, "", "", 4000) for name in ("avatar-8616", "avatar-8617")]
    mine = (NAMESPACE, NAME)
    assert index.free_beside(A0, [], mine, NOW) == 20000
    assert index.free_beside(A0, others, mine, NOW) == 16000, "known twice, counted once"
    assert index.free_beside("GPU-gone", [], mine, NOW) == 0
    elsewhere = [Reservation("other", NAME, "", "", 4000)]
    assert index.free_beside(A0, elsewhere, mine, NOW) == 16000


# ---- memory -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("uuid", [A0, ""])
@pytest.mark.parametrize("known", [True, False])
def test_nothing_is_left_of_what_went(uuid: str, known: bool) -> None:
    index = make(node("a"), gpunode("a", gpu(A0)))
    empty = books(index)
    for n in range(20):
        name, when = f"avatar-{n}", later(n)
        index.hold("write", reservation(name, uuid=uuid), when)
        index.hold("Service", reservation(name, uuid=uuid), when)
        index.let_go("write", NAMESPACE, name, when)
        index.hold("Pod", reservation(name, uuid=uuid, pod_uid=f"u{n}", ready=when), when)
        index.take_report(gpunode("a", gpu(A0, used=n, known=known, pods={f"u{n}": n} if known else {}), at=when))
        index.let_go("Pod", NAMESPACE, name, when)
        index.let_go("Service", NAMESPACE, name, when)
    index.take_report(gpunode("a", gpu(A0), at=later(100)))
    assert books(index) == empty
    index.drop_report("a")
    assert books(index) == (0,) * len(empty)


def test_pods_that_leave_without_reports_are_forgotten_in_the_end() -> None:
    index = make(one_gpu())
    for n in range(10 * MOST_DEPARTED):
        index.hold("Pod", reservation(f"avatar-{n}", pod_uid=f"u{n}"), NOW)
        index.let_go("Pod", NAMESPACE, f"avatar-{n}", NOW)
    assert len(index._departed[A0]) == MOST_DEPARTED
    index.drop_report("a")
    assert books(index) == (0,) * 6


# ---- claims of other processes -----------------------------------------------------------


def test_a_claim_that_appears_is_left_to_its_writer_for_a_while() -> None:
    index = make(one_gpu())
    index.hold("Service", CLAIM, NOW)
    # It was there when this process began: whoever wrote it is no more.
    assert index.foreign_until(NAMESPACE, NAME) is None
    index.loading = False
    index.hold("Service", CLAIM, later(1))
    assert index.foreign_until(NAMESPACE, NAME) is None
    index.hold("Service", reservation("avatar-8616"), later(1))
    index.hold("Service", reservation("avatar-8616"), later(3))
    assert index.foreign_until(NAMESPACE, "avatar-8616") == later(1 + FOREIGN_SECONDS)
    index.let_go("Service", NAMESPACE, "avatar-8616", later(4))
    assert index.foreign_until(NAMESPACE, "avatar-8616") is None


def test_a_claim_from_before_this_process_may_have_had_a_pod() -> None:
    """It went while nobody looked: what it used is given back when its time is over, whatever reports say."""
    index = make(one_gpu())
    index.hold("Service", CLAIM, NOW)
    index.loading = False
    index.hold("Service", reservation("avatar-8616"), NOW)
    assert [index.had_pod(NAMESPACE, name) for name in (NAME, "avatar-8616")] == [True, False]
    index.take_report(one_gpu(at=later(2)))
    assert index.processes_gone(NAMESPACE, NAME) is False, "whose?"
    index.hold("Pod", reservation(NAME, pod_uid="seen"), later(3))
    index.let_go("Pod", NAMESPACE, NAME, later(4))
    index.take_report(one_gpu(at=later(5)))
    assert index.processes_gone(NAMESPACE, NAME) is True
