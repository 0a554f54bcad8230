"""What a process keeps is not looked through again, and is freed all the same."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from avatar_operator.process import heap


class Thing:
    """Something that the garbage collector sees."""


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_what_exists_is_left_out_and_what_comes_is_not() -> None:
    before = Thing()
    heap.keep()
    after = Thing()
    seen = {id(item) for item in gc.get_objects()}
    assert id(before) not in seen
    assert id(after) in seen


def test_what_is_dropped_is_freed() -> None:
    thing = Thing()
    gone = weakref.ref(thing)
    heap.keep()
    del thing
    assert gone() is None
