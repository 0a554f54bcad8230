"""How much an avatar is reckoned with, and what changes that."""

from __future__ import annotations

import msgspec
import pytest

from avatar_operator.domain.estimate import STEP, learn, need, raise_after
from avatar_operator.domain.placement import Need
from avatar_operator.domain.resources import AvatarStatus, Gpu, VramStatus
from tests.unit.builders import avatar


@pytest.mark.parametrize(
    ("estimates", "vram", "learned", "mib"),
    [
        pytest.param("AtLeast", None, None, 4096, id="the-pools"),
        pytest.param("AtLeast", 6000, None, 6000, id="the-avatars-wins"),
        pytest.param("AtLeast", 6000, 7040, 7040, id="learned-raises"),
        pytest.param("AtLeast", 6000, 2048, 6000, id="learned-does-not-lower"),
        pytest.param("Learned", 6000, 2048, 2048, id="learned-may-lower"),
        pytest.param("Learned", 6000, 7040, 7040, id="learned-may-raise"),
        pytest.param("Learned", 6000, None, 6000, id="nothing-learned-yet"),
        pytest.param("Learned", None, 0, 4096, id="nothing-is-not-zero"),
        pytest.param("Fixed", 6000, 7040, 6000, id="fixed"),
        pytest.param("Fixed", None, 7040, 4096, id="fixed-by-the-pool"),
    ],
)
def test_need(estimates: str, vram: int | None, learned: int | None, mib: int) -> None:
    known = None if learned is None else VramStatus(observed_mib=1, estimate_mib=learned)
    one = msgspec.structs.replace(avatar(vram_mib=vram), status=AvatarStatus(vram=known))
    admin = vram if vram is not None else 4096
    assert need(Gpu(estimates=estimates), one) == Need(mib, 11000, learned=mib > admin)


@pytest.mark.parametrize(
    ("mib", "min_free", "free"),
    [(None, None, 11000), (None, 0, 4096), (None, 5000, 5000), (12000, None, 12000), (12000, 0, 12000)],
)
def test_what_must_be_free(mib: int | None, min_free: int | None, free: int) -> None:
    assert need(Gpu(), avatar(vram_mib=mib, min_free_mib=min_free)).free == free


@pytest.mark.parametrize(
    ("known", "observed", "after"),
    [
        pytest.param(None, 0, None, id="nothing"),
        pytest.param(None, 63, None, id="less-than-a-step"),
        pytest.param(None, 64, (64, 128), id="the-first"),
        pytest.param(None, 4000, (4000, 4416), id="a-tenth-more-in-steps"),
        pytest.param((4000, 4416), 3000, None, id="less"),
        pytest.param((4000, 4416), 4063, None, id="no-news"),
        pytest.param((4000, 4416), 4064, (4064, 4480), id="more"),
        pytest.param((4000, 9024), 5000, (5000, 9024), id="never-below-what-is-known"),
    ],
)
def test_learn(known: tuple[int, int] | None, observed: int, after: tuple[int, int] | None) -> None:
    before = VramStatus(observed_mib=known[0], estimate_mib=known[1]) if known else None
    found = learn(before, observed)
    assert (found and (found.observed_mib, found.estimate_mib)) == after
    if found is not None:
        assert found.estimate_mib % STEP == 0
        assert learn(found, observed) is None, "said once"


@pytest.mark.parametrize(
    ("known", "reserved", "after"),
    [
        pytest.param(None, 4096, (0, 5120), id="a-quarter-more"),
        pytest.param((4000, 4416), 4416, (4000, 5568), id="more-than-learned"),
        pytest.param((4000, 5120), 4096, None, id="known-already"),
        pytest.param((4000, 5119), 4096, (4000, 5120), id="a-little-more"),
    ],
)
def test_raise_after(known: tuple[int, int] | None, reserved: int, after: tuple[int, int] | None) -> None:
    before = VramStatus(observed_mib=known[0], estimate_mib=known[1]) if known else None
    found = raise_after(before, reserved)
    assert (found and (found.observed_mib, found.estimate_mib)) == after
