"""What a process keeps is not looked through again, and is freed all the same."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import msgspec
import pytest

from avatar_operator.domain.resources import Instance, Pod
from avatar_operator.process import heap


class Thing:
    """Something that the garbage collector sees."""


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


def full_looks(objects: int) -> int:
    """At everything, while so many objects come and stay."""
    looks = []

    def count(phase: str, info: dict[str, int]) -> None:
        if phase == "start" and info["generation"] == 2:
            looks.append(phase)

    gc.callbacks.append(count)
    kept = [Thing() for _ in range(objects)]
    gc.callbacks.remove(count)
    assert len(kept) == objects
    return len(looks)


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


def test_what_comes_and_stays_is_looked_through_seldom_but_is() -> None:
    heap.keep()
    assert 1 <= full_looks(1_000_000) <= 4


def test_the_objects_of_the_cluster_are_not_looked_at() -> None:
    labels = {"app.kubernetes.io/name": "avatar"}
    assert not any(gc.is_tracked(item) for kind in (Instance, Pod) for item in _parts(kind, labels))


def _parts(kind: type[Instance | Pod], labels: dict[str, str]) -> list[object]:
    found = msgspec.convert({"metadata": {"name": "a", "labels": labels}, "spec": {"avatarName": "Ada"}}, kind)
    return [found, found.metadata, found.metadata.labels, found.spec, found.status]
