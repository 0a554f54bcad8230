"""Which GPU a pod gets, and what is said when there is none."""

from __future__ import annotations

from typing import Any

import pytest

from avatar_operator.domain.gpunode import Node, Taint
from avatar_operator.domain.placement import (
    Device,
    Need,
    Placement,
    Refusal,
    device_problem,
    matches,
    node_problem,
    place,
    place_blind,
    place_claim,
    place_nodes,
    selected,
)
from avatar_operator.domain.resources import Gpu, GpuSelector, Runtime
from tests.unit.builders import NOW, later
from tests.unit.gpu_builders import A0, A1, B0, B1, device, gpu, mig, node

NEED = Need(4000, 8000)
ONE, ZERO = GpuSelector(indices=[1]), GpuSelector(indices=[0])
OLD_MANAGER = Gpu(mode="VisibleDevices", primary=ONE, backup=ZERO)


def four(a0: int = 24000, a1: int = 24000, b0: int = 24000, b1: int = 24000) -> list[Device]:
    """Two nodes with two GPUs each, so much free."""
    return [
        device(B1, 1, b1, on="b"),
        device(A0, 0, a0),
        device(B0, 0, b0, on="b"),
        device(A1, 1, a1),
    ]


def chosen(found: Placement | Refusal) -> str:
    assert isinstance(found, Placement), found
    assert found.mib == NEED.mib
    return found.uuid


def refused(found: Placement | Refusal) -> Refusal:
    assert isinstance(found, Refusal), found
    return found


# ---- policies --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "devices", "uuid"),
    [
        pytest.param(OLD_MANAGER, four(), A1, id="primary-the-same-free-by-node"),
        pytest.param(OLD_MANAGER, four(a1=9000, b1=9001), B1, id="primary-the-emptier"),
        pytest.param(OLD_MANAGER, four(a0=24000, a1=8000, b1=0), A1, id="primary-while-it-has-just-enough"),
        pytest.param(OLD_MANAGER, four(a0=9000, a1=7999, b1=0, b0=8000), A0, id="else-the-backup"),
        pytest.param(Gpu(primary=ONE, backup=ONE), four(a1=8000, b1=0), A1, id="backup-the-same"),
        pytest.param(Gpu(), four(a0=8000, a1=8001), B0, id="no-selectors"),
        pytest.param(Gpu(backup=ZERO), four(a0=1, b0=1), A1, id="backup-alone-picks-nothing-more"),
        pytest.param(Gpu(policy="MostFree", primary=ONE, backup=ZERO), four(a1=9000, b1=9000), A0, id="most-free"),
        pytest.param(Gpu(policy="BinPack", primary=ONE, backup=ZERO), four(b0=8000), B0, id="the-fullest-that-fits"),
        pytest.param(Gpu(policy="BinPack"), four(b0=7999, a0=0), A1, id="not-fuller-than-fits"),
        pytest.param(Gpu(), [device(A0, free=23000, problem="cordoned"), device(A1, 1, 9000)], A1, id="a-problem"),
    ],
)
def test_place(rules: Gpu, devices: list[Device], uuid: str) -> None:
    assert chosen(place(rules, NEED, devices, NOW)) == uuid
    assert chosen(place(rules, NEED, reversed(devices), NOW)) == uuid, "the order of hearing does not matter"


def test_a_placement_says_all() -> None:
    assert place(OLD_MANAGER, NEED, four(), NOW) == Placement(4000, "a", A1, 1)


def test_by_the_ledger_when_the_report_is_old() -> None:
    one = device(A0, free=9000)
    stale = Device("a", one.report, type(one.room)(24000, 0, 0, 9000, 7000, later(10)))
    assert chosen(place(Gpu(), NEED, [stale], later(9))) == A0
    assert (
        "1000 MiB are missing; GPU 0 of a has most: 7000 of 24000 MiB"
        in refused(place(Gpu(), NEED, [stale], later(10))).message
    )


# ---- selectors ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selector", "fits"),
    [
        pytest.param({}, True, id="empty"),
        pytest.param({"indices": [0, 1]}, True, id="index"),
        pytest.param({"indices": [0]}, False, id="another-index"),
        pytest.param({"uuids": [B0, A1]}, True, id="uuid"),
        pytest.param({"uuids": [A0]}, False, id="another-uuid"),
        pytest.param({"products": ["NVIDIA RTX A5000"]}, True, id="product"),
        pytest.param({"products": ["nvidia-rtx-a5000"]}, True, id="product-as-the-label-has-it"),
        pytest.param({"products": ["NVIDIA RTX A500"]}, False, id="part-of-a-product"),
        pytest.param({"node_selector": {"zone": "x"}}, True, id="node"),
        pytest.param({"node_selector": {"zone": "x", "rack": "1"}}, False, id="node-lacks-a-label"),
        pytest.param({"indices": [1], "products": ["other"]}, False, id="all-must-fit"),
    ],
)
def test_matches(selector: dict[str, Any], fits: bool) -> None:
    one = device(A1, 1, product="NVIDIA RTX A5000", labels={"zone": "x"})
    assert matches(GpuSelector(**selector), one) is fits


def test_a_mig_device_is_meant_by_its_parent_too() -> None:
    one = Device("a", mig("MIG-1", A0), device().room)
    assert matches(GpuSelector(uuids=[A0]), one)
    assert matches(GpuSelector(uuids=["MIG-1"]), one)
    assert one.name == "GPU 0 of a (1g.5gb MIG device)"


def test_selected_has_the_primary_ones_first() -> None:
    assert [d.report.uuid for d in selected(OLD_MANAGER, four())] == [B1, A1, A0, B0]
    assert [d.report.uuid for d in selected(Gpu(primary=GpuSelector(uuids=[B0])), four())] == [B0]


# ---- problems --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "runtime", "problem"),
    [
        pytest.param(node("a"), {}, "", id="fine"),
        pytest.param(None, {}, "node a does not exist", id="gone"),
        pytest.param(node("a", unschedulable=True), {}, "node a is cordoned", id="cordoned"),
        pytest.param(node("a", ready=False), {}, "node a is not ready", id="not-ready"),
        pytest.param(node("a", labels={"zone": "x"}), {"node_selector": {"zone": "x"}}, "", id="selected"),
        pytest.param(
            node("a"),
            {"node_selector": {"zone": "x"}},
            "node a does not match spec.runtime.nodeSelector",
            id="selector",
        ),
    ],
)
def test_node_problem(there: Node | None, runtime: dict[str, Any], problem: str) -> None:
    found = node_problem(there, "a", Runtime(image="x", **runtime))
    assert found.startswith(problem)
    assert bool(found) is bool(problem)


TAINT = Taint(key="gpu", value="yes", effect="NoSchedule")


@pytest.mark.parametrize(
    ("taints", "tolerations", "fits"),
    [
        pytest.param([TAINT], [], False, id="none"),
        pytest.param([Taint(key="gpu", effect="PreferNoSchedule")], [], True, id="a-wish"),
        pytest.param([TAINT], [{"key": "gpu", "value": "yes"}], True, id="equal-by-default"),
        pytest.param([TAINT], [{"key": "gpu", "operator": "Equal", "value": "no"}], False, id="another-value"),
        pytest.param([TAINT], [{"key": "gpu", "operator": "Exists"}], True, id="exists"),
        pytest.param([TAINT], [{"operator": "Exists"}], True, id="everything"),
        pytest.param([TAINT], [{"key": "other", "operator": "Exists"}], False, id="another-key"),
        pytest.param(
            [TAINT], [{"key": "gpu", "operator": "Exists", "effect": "NoExecute"}], False, id="another-effect"
        ),
        pytest.param([TAINT], [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}], True, id="that-effect"),
        pytest.param([Taint(key="gpu", effect="NoExecute")], [{"key": "gpu"}], True, id="no-value"),
        pytest.param(
            [TAINT, Taint(key="b", effect="NoExecute")], [{"key": "gpu", "value": "yes"}], False, id="one-of-two"
        ),
    ],
)
def test_taints(taints: list[Taint], tolerations: list[dict[str, Any]], fits: bool) -> None:
    found = node_problem(node("a", taints=tuple(taints)), "a", Runtime(image="x", tolerations=tolerations))
    assert (found == "") is fits
    assert fits or "which spec.runtime.tolerations lacks" in found


@pytest.mark.parametrize(
    ("report", "cordoned", "problem"),
    [
        pytest.param(gpu(A0), [], "", id="fine"),
        pytest.param(gpu(A0), [A1], "", id="another-is-cordoned"),
        pytest.param(gpu(A0), [A0], "cordoned (spec.cordoned of its GPUNode)", id="cordoned"),
        pytest.param(mig("MIG-1", A0), [A0], "cordoned (spec.cordoned of its GPUNode)", id="its-parent-is-cordoned"),
        pytest.param(gpu(A0, healthy=False, reason="Lost", message="fell off."), [A0], "fell off", id="lost"),
        pytest.param(gpu(A0, healthy=False, reason="XID"), [], "XID", id="only-a-reason"),
        pytest.param(gpu(A0, used=None, mig_enabled=True), [], "split into MIG devices", id="mig-parent"),
        pytest.param(gpu(A0, used=None), [], "its driver does not tell its memory", id="unknown-memory"),
    ],
)
def test_device_problem(report: Any, cordoned: list[str], problem: str) -> None:
    assert device_problem(report, cordoned) == problem


# ---- refusals ----------------------------------------------------------------------------------


def test_what_is_missing_in_numbers() -> None:
    devices = [
        device(A0, 0, 7000, reserved=12000, external=5000),
        device(A1, 1, -500, external=24500),
        device(B0, 0, 3000, on="b", reserved=21000),
        device(B1, 1, 10, on="b"),
        device("GPU-c", 0, 0, on="c", problem="cordoned"),
    ]
    found = refused(place(Gpu(), NEED, devices, NOW))
    assert found.message == (
        "needs 8000 MiB free on one GPU, 1000 MiB are missing; "
        "GPU 0 of a has most: 7000 of 24000 MiB (12000 reserved for avatars, 5000 used by others); "
        "3 other GPUs have no more; GPU 0 of c: cordoned"
    )
    assert not found.hopeless


def test_one_that_missed_everything_counts_from_zero() -> None:
    found = refused(place(Gpu(), NEED, [device(free=-500, external=24500)], NOW))
    assert "8500 MiB are missing; GPU 0 of a has most: 0 of 24000 MiB" in found.message


def test_the_other_of_two() -> None:
    found = refused(place(Gpu(), NEED, [device(free=7999), device(A1, 1, free=7999)], NOW))
    assert found.message.endswith("(0 reserved for avatars, 0 used by others); the other one has no more")


@pytest.mark.parametrize(
    ("rules", "devices", "message"),
    [
        pytest.param(
            Gpu(primary=GpuSelector(indices=[7])), four(), "no GPU matches spec.gpu.primary of the", id="primary"
        ),
        pytest.param(
            Gpu(primary=GpuSelector(indices=[7]), backup=GpuSelector(indices=[8])),
            four(),
            "no GPU matches spec.gpu.primary or spec.gpu.backup of the",
            id="both",
        ),
        pytest.param(Gpu(), [], "no GPU is reported by any GPUNode", id="none-at-all"),
        pytest.param(
            Gpu(),
            [device(total=7999, free=7999), device(A1, 1, total=6000, free=6000)],
            "needs 8000 MiB free on one GPU, and the biggest has 7999 MiB in all; "
            "lower minFreeMiB of the Avatar or of the pool, or add a bigger GPU",
            id="too-big",
        ),
        pytest.param(
            Gpu(),
            [device(total=8100, free=0, kept=200)],
            "needs 8000 MiB free on one GPU, and the biggest has 7900 MiB in all",
            id="too-big-beside-the-driver",
        ),
        pytest.param(
            Gpu(),
            [device(total=7000, free=0), device(A1, 1, total=7500, problem="cordoned")],
            "needs 8000 MiB free on one GPU, and the biggest has 7000 MiB in all",
            id="too-big-for-the-cordoned-one-too",
        ),
        pytest.param(
            Gpu(),
            [device(total=7000, free=0), device(A1, used=None, mig_enabled=True, problem="split into MIG devices")],
            "needs 8000 MiB free on one GPU, and the biggest has 7000 MiB in all",
            id="a-mig-parent-does-not-help",
        ),
        pytest.param(
            Gpu(),
            [device(used=None, problem="no memory")],
            "needs 8000 MiB free on one GPU, and none can be",
            id="mute",
        ),
    ],
)
def test_hopeless(rules: Gpu, devices: list[Device], message: str) -> None:
    found = refused(place(rules, NEED, devices, NOW))
    assert found.message.startswith(message)
    assert found.hopeless


@pytest.mark.parametrize(
    "devices",
    [
        pytest.param([device(free=0)], id="full"),
        pytest.param([device(total=8000, free=0)], id="just-big-enough"),
        pytest.param([device(problem="cordoned")], id="cordoned"),
        pytest.param([device(total=7000), device(A1, problem="node b is not ready")], id="a-big-one-comes-back"),
        pytest.param([device(total=7000), device(A1, used=None, healthy=False, problem="lost")], id="a-lost-one-may"),
    ],
)
def test_not_hopeless(devices: list[Device]) -> None:
    assert not refused(place(Gpu(), NEED, devices, NOW)).hopeless


def test_none_can_be_used() -> None:
    devices = [device(f"GPU-{n}", n, problem=f"problem {n}") for n in range(5)]
    assert refused(place(Gpu(), NEED, devices, NOW)).message == (
        "needs 8000 MiB free on one GPU, and none can be used: "
        "GPU 0 of a: problem 0; GPU 1 of a: problem 1; GPU 2 of a: problem 2; and 2 more"
    )


# ---- other modes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("devices", "full", "nodes"),
    [
        pytest.param(four(a0=9000, b0=10000, a1=0, b1=0), [], ("b", "a"), id="the-best-first"),
        pytest.param(four(), [], ("a", "b"), id="each-once"),
        pytest.param(four(a1=24000, b1=0), [], ("a", "b"), id="primary-before-backup"),
        pytest.param(four(), ["a"], ("b",), id="no-slot"),
    ],
)
def test_place_nodes(devices: list[Device], full: list[str], nodes: tuple[str, ...]) -> None:
    found = place_nodes(OLD_MANAGER, NEED, devices, lambda name: int(name not in full), NOW)
    assert found == Placement(4000, nodes=nodes)


def test_no_slot_is_no_lack_of_memory() -> None:
    found = refused(place_nodes(Gpu(), NEED, four(), lambda _: 0, NOW))
    assert found.message == ("every nvidia.com/gpu of the nodes with enough free memory is in use; waiting for one")
    assert "1 MiB are missing" in refused(place_nodes(Gpu(), NEED, [device(free=7999)], lambda _: 9, NOW)).message


@pytest.mark.parametrize(
    ("devices", "primary", "backup"),
    [
        pytest.param(four(a1=9000), (B1, A1), (A0, B0), id="both"),
        pytest.param(four(a1=0, b1=0), (A0, B0), (), id="only-backups"),
        pytest.param(four(a0=0, b0=0), (A1, B1), (), id="only-primaries"),
    ],
)
def test_place_claim(devices: list[Device], primary: tuple[str, ...], backup: tuple[str, ...]) -> None:
    assert place_claim(OLD_MANAGER, NEED, devices, NOW) == Placement(4000, primary=primary, backup=backup)


def test_place_claim_refuses() -> None:
    assert "8000 MiB are missing" in refused(place_claim(OLD_MANAGER, NEED, four(0, 0, 0, 0), NOW)).message


@pytest.mark.parametrize(
    ("rules", "held", "uuid", "index"),
    [
        pytest.param(OLD_MANAGER, {}, "1", 1, id="primary-first"),
        pytest.param(OLD_MANAGER, {"1": 1}, "0", 0, id="then-the-other"),
        pytest.param(OLD_MANAGER, {"1": 2, "0": 2}, "1", 1, id="and-again"),
        pytest.param(Gpu(primary=GpuSelector(uuids=[A0], indices=[3])), {}, A0, None, id="a-uuid-says-more"),
        pytest.param(Gpu(), {}, "all", None, id="none-named"),
    ],
)
def test_place_blind(rules: Gpu, held: dict[str, int], uuid: str, index: int | None) -> None:
    assert place_blind(rules, NEED, lambda name: held.get(name, 0)) == Placement(4000, uuid=uuid, index=index)
