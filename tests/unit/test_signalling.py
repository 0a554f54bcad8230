"""What runtimes' answers mean, when a peer is gone, and offers as an ICE agent without trickle needs them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avatar_operator.domain.resources import Session
from avatar_operator.domain.sdp import completed
from avatar_operator.domain.signalling import Doubt, ended, refusal, runtime_session

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NO_ANSWER: Any = None

# HTTP status, JSON object, and what the client is told: code, part of the message, Retry-After.
ANSWERS: list[tuple[int, Any, int, str, int | None]] = [
    # LiveTalking v2.0.4 and the reference runtime; LiveTalking v1.1; the old manager's fork.
    (200, {"code": -1, "msg": "Maximum session limit reached (3/3)"}, 409, "limit reached (3/3)", 10),
    (200, {"code": -1, "msg": "reach max session"}, 409, "full", 10),
    (200, {"code": -1, "msg": "draining: this avatar takes no new sessions"}, 503, "draining", 2),
    (200, {"code": -1, "msg": "no session 'x': it has ended, or never was"}, 404, "has ended", None),
    (200, {"code": -1, "msg": "session not found"}, 404, "session not found", None),
    (404, {"error": "Session 17 not found"}, 404, "Session 17", None),
    (503, {"msg": "session is still initializing"}, 503, "initializing", 2),
    (200, {"code": -1, "msg": "too many sentences wait to be said; interrupt or wait"}, 503, "too many", 2),
    (200, {"code": -1, "msg": "the offer's SDP cannot be used"}, 400, "cannot be used", None),
    (200, {"code": -1}, 400, "does not say why", None),
    (200, {"code": -1, "msg": "a\nb" + "c" * 999}, 400, "a bc", None),
    (200, {"code": -1, "msg": "internal error: KeyError"}, 502, "KeyError", None),
    (500, {"msg": "division by zero"}, 502, "division", None),
    (404, NO_ANSWER, 501, "no such route", None),
    (405, {"code": -1, "msg": "POST /hangup: Method Not Allowed"}, 501, "cannot do it", None),
    (200, NO_ANSWER, 502, "HTTP 200", None),
    (500, NO_ANSWER, 502, "HTTP 500", None),
]


@pytest.mark.parametrize(("status", "answer", "code", "words", "again"), ANSWERS)
def test_refusals(status: int, answer: Any, code: int, words: str, again: int | None) -> None:
    found = refusal(status, answer)
    assert found is not None
    assert (found.code, found.retry_after) == (code, again)
    assert words in found.message
    assert found.message.isprintable()
    assert len(found.message) < 400


@pytest.mark.parametrize("answer", [{"code": 0, "msg": "ok"}, {"sdp": "v=0", "type": "answer", "sessionid": 7}, {}])
def test_successes(answer: dict[str, Any]) -> None:
    assert refusal(200, answer) is None


def test_ids_of_runtimes() -> None:
    assert [runtime_session(v) for v in (123456, "a-b", "", None, True, 1.5, "x" * 129, "a\nb", {"a": 1})] == [
        "123456",
        "a-b",
        *[None] * 7,
    ]


# ---- peers ---------------------------------------------------------------------------


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def session(name: str, runtime: str = "") -> Session:
    return Session(id=name, runtime_session_id=runtime)


def look(
    sessions: list[Session], doubts: dict[str, Doubt], listed: list[dict[str, Any]], seconds: float
) -> tuple[list[str], dict[str, Doubt]]:
    over, kept = ended(sessions, doubts, listed, at(seconds), apart=2, connect=60)
    return [s.id for s in over], kept


def test_a_session_ends_when_two_looks_miss_it() -> None:
    both = [session("a", "1"), session("b", "2"), session("by start")]
    over, doubts = look(both, {}, [{"sessionid": 2}], 0)
    assert (over, list(doubts)) == ([], ["1"])
    # Too soon for a second look; then it was there after all; then it is missed twice.
    over, doubts = look(both, doubts, [{"sessionid": 2}], 1.9)
    assert (over, list(doubts)) == ([], ["1"])
    over, doubts = look(both, doubts, [{"sessionid": 1}, {"sessionid": 2}], 3)
    assert (over, doubts) == ([], {})
    over, doubts = look(both, doubts, [{"sessionid": 2}], 4)
    over, doubts = look(both, doubts, [{"sessionid": 2}], 6)
    assert (over, doubts) == (["a"], {})


def test_a_session_whose_peer_never_comes_ends() -> None:
    mine = [session("a", "1")]
    over, doubts = look(mine, {}, [{"sessionid": "1", "state": "connecting"}], 0)
    over, doubts = look(mine, doubts, [{"sessionid": "1", "state": "connecting"}], 59)
    assert over == []
    # Waiting does not count for being missed.
    over, gone = look(mine, doubts, [], 60)
    assert over == []
    assert look(mine, doubts, [{"sessionid": "1", "state": "connecting"}], 60)[0] == ["a"]
    assert look(mine, doubts, [{"sessionid": "1", "state": "connected"}], 60) == ([], {})
    assert look(mine, gone, [], 62)[0] == ["a"]


@given(st.lists(st.tuples(st.floats(0.1, 5), st.booleans()), max_size=12))
def test_nobody_ends_who_was_seen_in_one_of_two_looks(looks: list[tuple[float, bool]]) -> None:
    mine, doubts, now = [session("a", "1")], dict[str, Doubt](), 0.0
    missed_since: float | None = None
    for pause, there in looks:
        now += pause
        over, doubts = look(mine, doubts, [{"sessionid": "1", "state": "connected"}] if there else [], now)
        if there:
            missed_since = None
        elif missed_since is None:
            missed_since = now
            assert over == []
        elif over:
            assert now - missed_since >= 1.99
            return


# ---- offers --------------------------------------------------------------------------

HOST = "a=candidate:1 1 udp 2130706431 192.0.2.7 40000 typ host"
HIDDEN = "a=candidate:2 1 udp 2130706431 0b4c-11.local 40001 typ host"
END = "a=end-of-candidates"


def sdp(*media: list[str], head: tuple[str, ...] = ()) -> str:
    lines = ["v=0", "s=-", *head]
    for section in media:
        lines += ["m=audio 9 UDP/TLS/RTP/SAVPF 111", *section, "a=mid:0"]
    return "\r\n".join([*lines, ""])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (sdp([HOST]), sdp([HOST, END])),
        (sdp([HOST], [HOST, HOST]), sdp([HOST, END], [HOST, HOST, END])),
        (sdp([HOST, END]), sdp([HOST, END])),
        (sdp([HOST], head=(END,)), sdp([HOST], head=(END,))),
        (sdp([]), sdp([])),
        # Firefox and Safari hide addresses; the peer's own checks reveal them, so the list is not at its end.
        (sdp([HIDDEN, END]), sdp([])),
        (sdp([HOST, HIDDEN, END]), sdp([HOST])),
        (sdp([HOST]).replace("\r\n", "\n"), sdp([HOST, END])),
        ("", ""),
    ],
)
def test_offers_are_completed_where_they_are(before: str, after: str) -> None:
    assert completed(before) == after
    assert completed(after) == completed(completed(after))


@given(st.text())
def test_whatever_comes_is_text_again(text: str) -> None:
    assert isinstance(completed(text), str)
