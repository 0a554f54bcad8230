"""Clients that come in the moment of collection, some hundred of them; `python -m chaos.collect_race` plays 10,000."""

from __future__ import annotations

import pytest

from chaos.collect_race import Race, culled
from tests.support.api import Api, Json
from tests.support.history import Event
from tests.support.operator import Operator

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize("source", ["Connections", "Runtime"])
async def test_nobody_is_collected_who_has_come(api: Api, namespace: str, operator: Operator, source: str) -> None:
    before = await operator.metric("avatar_operator_culled_active_total")
    race = Race(api, namespace, count=150, seats=40, source=source, seed=7)
    await race.run()
    assert race.culled == []
    assert race.done >= 150
    assert race.ended["counted while draining"] + race.ended["session while draining"] > 0, "none came at the mark"
    assert await operator.metric("avatar_operator_culled_active_total") == before


def _version(number: int, kind: str, phase: str, connections: int) -> Event:
    body: Json = {"metadata": {"name": "one", "uid": "u"}, "status": {"phase": phase, "connections": connections}}
    return Event(number, 0.0, "avatarinstances", kind, body)


@pytest.mark.parametrize(
    "story",
    [
        pytest.param([("ADDED", "Running", 1), ("DELETED", "Draining", 1)], id="deleted"),
        pytest.param([("ADDED", "Running", 1), ("MODIFIED", "Stopped", 1)], id="put-to-sleep"),
        pytest.param([("ADDED", "Running", 1), ("MODIFIED", "Running", 0)], id="forgotten"),
    ],
)
def test_the_judge_sees_it(story: list[tuple[str, str, int]]) -> None:
    """The rules are able to fail."""
    events = [_version(number, *step) for number, step in enumerate(story)]
    assert len(culled(events, [], set())) == 1
    assert culled([*events[:1], _version(5, "MODIFIED", "Running", 0)], [], {5}) == []
