"""What need not be said at once in a crowd of starts."""

from __future__ import annotations

from avatar_operator.domain.actions import Action, CreatePod, Event, PatchStatus
from avatar_operator.domain.crowd import FIRST_WORD_SECONDS, in_turn
from tests.unit.builders import NOW, having, instance, later

STARTING = PatchStatus(
    instance("i", "A"), {"phase": "Starting", "port": 8615}, events=(Event("Normal", "Starting", "made a pod"),)
)
SERVES = PatchStatus(instance("i", "A"), {"phase": "Running", "port": 8615})
POD = CreatePod({"metadata": {"name": "avatar-8615"}})


def test_on_a_quiet_day_everything_is_said_at_once() -> None:
    actions: list[Action] = [POD, STARTING]
    turn = in_turn(actions, None, NOW, busy=False)
    assert (list(turn.actions), turn.told, turn.since, turn.again) == (actions, (), None, None)


def test_in_a_crowd_the_first_word_waits_and_its_event_does_not() -> None:
    turn = in_turn([POD, STARTING], None, NOW, busy=True)
    assert list(turn.actions) == [POD]
    assert list(turn.told) == [STARTING]
    assert turn.since == NOW
    assert turn.again == later(FIRST_WORD_SECONDS)


def test_its_event_is_told_once() -> None:
    turn = in_turn([STARTING], NOW, later(0.5), busy=True)
    assert (list(turn.actions), list(turn.told), turn.since) == ([], [], NOW)
    assert turn.again == later(FIRST_WORD_SECONDS)


def test_it_waits_no_longer_than_that() -> None:
    turn = in_turn([STARTING], NOW, later(FIRST_WORD_SECONDS), busy=True)
    assert list(turn.actions) == [STARTING]
    # Should the write be refused, the next one does not wait anew.
    assert in_turn([STARTING], turn.since, later(FIRST_WORD_SECONDS + 0.1), busy=True).again is None


def test_that_it_serves_never_waits() -> None:
    turn = in_turn([SERVES], NOW, later(0.5), busy=True)
    assert list(turn.actions) == [SERVES]
    assert turn.since is None


def test_what_says_more_than_that_never_waits() -> None:
    queued = PatchStatus(having(instance("i", "A"), phase="Pending", queue_position=3), {"phase": "Starting"})
    woken = PatchStatus(having(instance("i", "A"), phase="Stopped"), {"phase": "Starting"})
    failed = PatchStatus(instance("i", "A"), {"phase": "Failed"})
    for action in (queued, woken, failed):
        assert list(in_turn([action], None, NOW, busy=True).actions) == [action]
