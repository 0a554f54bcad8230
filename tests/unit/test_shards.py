"""Which operator acts where."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avatar_operator.domain.shards import ALL, Shard, parse


@given(st.text(max_size=63), st.integers(1, 12))
def test_each_namespace_is_for_exactly_one(namespace: str, count: int) -> None:
    assert sum(Shard(index, count).has(namespace) for index in range(count)) == 1
    assert ALL.has(namespace)


def test_what_is_in_no_namespace_is_for_the_first() -> None:
    assert [Shard(index, 3).has("") for index in range(3)] == [True, False, False]


def test_many_namespaces_spread() -> None:
    shares = [sum(Shard(index, 4).has(f"team-{n}") for n in range(400)) for index in range(4)]
    assert min(shares) > 70, shares


def test_as_text() -> None:
    assert parse("1/3") == Shard(1, 3)
    assert str(parse("1/3")) == "1/3"


@pytest.mark.parametrize("text", ["", "1", "2/2", "-1/2", "a/b", "1/", "0/0", "1/2/3"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="INDEX/COUNT"):
        parse(text)
