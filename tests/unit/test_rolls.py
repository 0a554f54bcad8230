"""The writer of sessions against a played API server: conflicts, lost answers, an instance that goes."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from avatar_operator.api.metrics import ApiMetrics
from avatar_operator.api.problems import Problem
from avatar_operator.api.rolls import WAITING_MOST, GoneError, Rolls
from avatar_operator.domain.resources import Instance
from avatar_operator.domain.sessions import Caller, Full, Join, Joined, Leave, LeaveOne, Left, Renew, Unknown
from avatar_operator.kube.errors import BusyError, ConflictError, NotFoundError
from avatar_operator.kube.reflector import Reflector

ANY = Caller(any=True)


class Server:
    """One AvatarInstance behind get and merge_patch. ``plan``: what happens to the coming patches."""

    def __init__(self) -> None:
        self.version = 10
        self.status: dict[str, Any] = {}
        self.plan: list[str] = []
        self.patches = 0
        self.there = True

    def body(self) -> bytes:
        meta = {"name": "g", "namespace": "n", "uid": "u", "resourceVersion": str(self.version)}
        return msgspec.json.encode({"metadata": meta, "spec": {"avatarName": "g"}, "status": self.status})

    async def get(self, *_: object) -> bytes:
        await asyncio.sleep(0)
        if not self.there:
            raise NotFoundError(404, "NotFound", "")
        return self.body()

    async def merge_patch(self, resource: object, namespace: str, name: str, body: Any, *_: object) -> bytes:
        await asyncio.sleep(0.001)
        self.patches += 1
        what = self.plan.pop(0) if self.plan else ""
        if not self.there:
            raise NotFoundError(404, "NotFound", "")
        if what == "interrupt":
            self.version += 1
            self.status = {**self.status, "connections": self.status.get("connections", 0) + 1}
        if what == "busy" or int(body["metadata"]["resourceVersion"]) != self.version:
            raise BusyError(0, "x", "") if what == "busy" else ConflictError(409, "Conflict", "")
        self.version += 1
        self.status = {**self.status, **msgspec.to_builtins(body["status"])}
        if what == "lost":
            raise BusyError(0, "Unreachable", "the answer was lost")
        return self.body()

    @property
    def ids(self) -> list[str]:
        return [s["id"] for s in self.status.get("sessions", [])]


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def rolls(server: Server) -> Rolls:
    client: Any = server
    reflector: Any = Reflector(client, Any, Instance)  # type: ignore[arg-type]
    return Rolls(client, reflector, ApiMetrics(), lambda: datetime.now(UTC))


async def test_those_who_wait_go_together(server: Server, rolls: Rolls) -> None:
    joins = [rolls.submit("n", "g", Join(f"s{n}", ANY), 1000) for n in range(500)]
    answers = [a for a, _ in await asyncio.gather(*joins)]
    assert sorted(a.connections for a in answers if isinstance(a, Joined)) == list(range(1, 501))
    assert len(server.ids) == server.status["connections"] == 500
    assert server.patches <= 3


async def test_each_gets_its_own_answer(server: Server, rolls: Rolls) -> None:
    asked = [Join("a", ANY), Join("b", ANY), Join("c", ANY), Leave("a", ANY), Renew("x", ANY), Join("a", ANY)]
    answers = [a for a, _ in await asyncio.gather(*(rolls.submit("n", "g", o, 2) for o in asked))]
    assert [type(a) for a in answers] == [Joined, Joined, Full, Left, Unknown, Joined]
    assert server.ids == ["b", "a"]


async def test_another_writer_wins(server: Server, rolls: Rolls) -> None:
    server.plan = ["interrupt", "", "interrupt"]
    answer, _ = await rolls.submit("n", "g", Join("a", ANY))
    assert isinstance(answer, Joined)
    assert (answer.connections, server.status["connections"]) == (2, 2)


async def test_an_answer_that_is_lost_is_not_done_twice(server: Server, rolls: Rolls) -> None:
    await asyncio.gather(*(rolls.submit("n", "g", Join(i, ANY)) for i in "abc"))
    server.plan = ["lost"]
    answer, _ = await rolls.submit("n", "g", LeaveOne(ANY))
    assert server.ids == ["b", "c"]
    assert isinstance(answer, Left)
    server.plan = ["lost"]
    answer, _ = await rolls.submit("n", "g", Join("d", ANY))
    assert server.ids == ["b", "c", "d"]
    assert isinstance(answer, Joined)
    assert answer.connections == 3


async def test_refusals_do_not_come_from_the_local_copy(server: Server, rolls: Rolls) -> None:
    await rolls.submit("n", "g", Join("a", ANY), 1)
    # Another replica let it go; this one has not heard of it.
    server.version += 1
    server.status = {"connections": 0, "sessions": []}
    answer, _ = await rolls.submit("n", "g", Join("a", ANY), 1)
    assert isinstance(answer, Joined)
    assert answer.fresh
    assert server.ids == ["a"]


async def test_an_instance_that_goes(server: Server, rolls: Rolls) -> None:
    await rolls.submit("n", "g", Join("a", ANY))
    server.there = False
    results = await asyncio.gather(
        *(rolls.submit("n", "g", Join(f"s{n}", ANY)) for n in range(5)), return_exceptions=True
    )
    assert all(isinstance(r, GoneError) for r in results)


async def test_a_server_that_never_answers(server: Server, rolls: Rolls) -> None:
    server.plan = ["busy"] * 100
    with pytest.raises(BusyError):
        await rolls.submit("n", "g", Join("a", ANY))
    server.plan = []
    answer, _ = await rolls.submit("n", "g", Join("a", ANY))
    assert isinstance(answer, Joined)


async def test_the_line_has_a_bound(server: Server, rolls: Rolls) -> None:
    waiting = [asyncio.create_task(rolls.submit("n", "g", Join(f"s{n}", ANY))) for n in range(WAITING_MOST + 10)]
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert sum(isinstance(r, Problem) and r.code == 503 for r in results) == 10


async def test_who_gives_up_is_not_counted(server: Server, rolls: Rolls) -> None:
    first = asyncio.create_task(rolls.submit("n", "g", Join("a", ANY)))
    await asyncio.sleep(0)
    second = asyncio.create_task(rolls.submit("n", "g", Join("b", ANY)))
    await asyncio.sleep(0)
    second.cancel()
    await first
    await asyncio.sleep(0.02)
    assert "b" not in server.ids
