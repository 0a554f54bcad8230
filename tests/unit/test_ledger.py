"""The account of one GPU: what is measured, what is reserved, what is others'."""

from __future__ import annotations

import pytest

from avatar_operator.domain.gpunode import GpuReport
from avatar_operator.domain.ledger import Reservation, Room, account
from tests.unit.builders import NOW, ago, later
from tests.unit.gpu_builders import TOTAL, gpu, reservation

STALE = later(90)


def pod(uid: str, mib: int = 4000, ready: float | None = 60) -> Reservation:
    """A reservation with its pod, ready for so many seconds."""
    return reservation(f"avatar-{uid}", mib, pod_uid=uid, ready=None if ready is None else ago(ready))


CLAIM = reservation("avatar-1", 4000)


@pytest.mark.parametrize(
    ("report", "held", "departed", "free", "external", "ledger"),
    [
        pytest.param(gpu("g"), [], [], 24000, 0, 24000, id="empty"),
        pytest.param(gpu("g", used=5000), [], [], 19000, 5000, 19000, id="others-alone"),
        pytest.param(gpu("g"), [CLAIM], [], 20000, 0, 20000, id="claimed-and-not-loaded"),
        pytest.param(gpu("g"), [pod("u", ready=None)], [], 20000, 0, 20000, id="a-pod-that-has-not-begun-to-load"),
        pytest.param(
            gpu("g", used=1000, pods={"u": 1000}), [pod("u", ready=None)], [], 20000, 0, 20000, id="half-loaded"
        ),
        pytest.param(gpu("g", used=4000, pods={"u": 4000}), [pod("u")], [], 20000, 0, 20000, id="loaded"),
        pytest.param(
            gpu("g", used=3000, pods={"u": 3000}), [pod("u")], [], 20000, 0, 20000, id="uses-less-than-it-has"
        ),
        pytest.param(
            gpu("g", used=6000, pods={"u": 6000}), [pod("u")], [], 18000, 0, 18000, id="uses-more-than-it-has"
        ),
        pytest.param(
            gpu("g", used=6000, pods={"u": 6000}), [pod("u"), CLAIM], [], 14000, 0, 14000, id="more-hides-no-other"
        ),
        pytest.param(
            gpu("g", used=9000, pods={"u": 4000}), [pod("u"), CLAIM], [], 11000, 5000, 11000, id="everything-at-once"
        ),
        pytest.param(gpu("g", used=4000, pods={"x": 4000}), [], [], 20000, 4000, 20000, id="a-pod-of-somebody-else"),
        pytest.param(
            gpu("g", used=4000, pods={"u": 4000}), [], [pod("u")], 20000, 0, 24000, id="gone-since-the-report"
        ),
        pytest.param(
            gpu("g", used=4000, pods={"u": 4000}), [CLAIM], [pod("u")], 16000, 0, 20000, id="gone-and-claimed-anew"
        ),
        pytest.param(gpu("g", used=22000), [CLAIM], [], -2000, 22000, -2000, id="others-took-what-was-reserved"),
        pytest.param(gpu("g", kept=500), [CLAIM], [], 19500, 0, 19500, id="what-the-driver-keeps-is-not-free"),
        # Nobody can tell processes apart.
        pytest.param(gpu("g", used=9000, known=False), [pod("u")], [], 15000, 5000, 15000, id="loaded-as-reserved"),
        pytest.param(gpu("g", used=3000, known=False), [pod("u")], [], 20000, 0, 20000, id="loaded-with-less"),
        pytest.param(
            gpu("g", used=3000, known=False),
            [pod("u", ready=None)],
            [],
            17000,
            3000,
            17000,
            id="loading-counts-in-full",
        ),
        pytest.param(
            gpu("g", used=3000, known=False), [pod("u", ready=0.5)], [], 17000, 3000, 17000, id="ready-after-the-report"
        ),
        pytest.param(gpu("g", used=4000, known=False), [CLAIM], [pod("u")], 16000, 0, 20000, id="gone-as-reserved"),
    ],
)
def test_account(
    report: GpuReport, held: list[Reservation], departed: list[Reservation], free: int, external: int, ledger: int
) -> None:
    room = account(report, held, departed, NOW, STALE)
    assert (room.free, room.external, room.ledger) == (free, external, ledger)
    assert (room.total, room.reserved) == (TOTAL, sum(r.mib for r in held))
    assert room.free_at(NOW) == free


def test_a_stale_report_leaves_the_ledger() -> None:
    room = account(gpu("g", used=9000, pods={"u": 3000}), [pod("u"), CLAIM], [], NOW, STALE)
    assert (room.external, room.free, room.ledger) == (6000, 10000, 10000)
    gone = account(gpu("g", used=9000, pods={"u": 3000}), [CLAIM], [pod("u")], NOW, STALE)
    assert [gone.free_at(when) for when in (NOW, later(89), STALE, later(900))] == [11000, 11000, 14000, 14000]
    assert [gone.stale(when) for when in (later(89), STALE)] == [False, True]


def test_a_report_without_a_time_is_stale() -> None:
    room = account(gpu("g", used=1000, known=False), [pod("u")], [], None, None)
    assert room.stale(NOW)
    assert room.free_at(NOW) == 24000 - 1000 - 4000, "whether the pod had loaded is not known: the use is others'"


def test_unknown_memory_is_no_room() -> None:
    room = account(gpu("g", used=None), [CLAIM], [], NOW, STALE)
    assert room == Room(reserved=4000, stale_at=STALE)
    assert room.free_at(NOW) == room.free_at(later(900)) == 0
