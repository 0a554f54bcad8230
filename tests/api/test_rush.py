"""Many at once: first starts through two replicas while the operator dies, joins on one instance, repetitions."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from tests.api.conftest import MakeServer
from tests.conftest import MakeOperator
from tests.support.api import until
from tests.support.operator import Operator, leader_of
from tests.support.rest import Answer, Rest
from tests.support.world import Invariants, World

pytestmark = pytest.mark.cluster
NAMES = [f"avatar {n}" for n in range(7)]


async def test_first_starts_through_two_replicas_while_the_leader_dies(
    world: World, servers: MakeServer, operator_factory: MakeOperator, namespace: str
) -> None:
    """200 users, 7 avatars: one pod for each, no port twice, and every answer is true."""
    await world.pool(ports={"base": 8615, "count": 7}, runtime={"podAnnotations": {"avatars.test/ready-after": "1s"}})
    await world.avatar(*NAMES)
    options = (f"--lease={namespace}/operator",)
    operators = operator_factory(options=options), operator_factory(options=options)
    *_, one, two = await asyncio.gather(*(o.start() for o in operators), servers(), servers())
    leader = await leader_of(*operators)
    ways = Rest(one.url, timeout=150), Rest(two.url, timeout=150)
    async with ways[0], ways[1], Invariants.watching(world, capacity=7) as seen:

        async def start(n: int) -> Answer:
            name = NAMES[n % 7]
            # Two takeovers, five seconds each on an idle machine.
            return await ways[n % 2].start(f"{name}_user_{n}", name, wait_seconds=120)

        starts = [asyncio.create_task(start(n)) for n in range(200)]
        # In the middle of it: there are pods, none serves. And whoever takes over dies at once.
        await until("the first pod", world.pods, len, interval=0.01)
        leader.kill()
        assert not any(s.done() for s in starts)
        leader.launch()
        second_leader = await leader_of(*operators)
        second_leader.kill()
        second_leader.launch()
        answers = await asyncio.gather(*starts)
        assert Counter(a.code for a in answers) == {200: 200}, Counter(str(a)[:120] for a in answers if a.code != 200)
        assert len(await world.pods()) == 7
        instances = await world.api.list("avatarinstances", world.namespace)
    assert not seen.broken, seen.broken
    assert len(instances) == 7
    ports = {i["spec"]["avatarName"]: i["status"]["port"] for i in instances}
    assert sorted(ports.values()) == list(range(8615, 8622))
    for n, answer in enumerate(answers):
        assert answer.data["port"] == ports[NAMES[n % 7]]
        assert answer.data["avatar_id"] == f"{NAMES[n % 7]}_user_{n}"
    sessions = {s["id"] for i in instances for s in i["status"]["sessions"]}
    assert sessions == {f"{NAMES[n % 7]}_user_{n}" for n in range(200)}
    assert sum(i["status"]["connections"] for i in instances) == 200
    assert sum(a.data["is_new"] for a in answers) == 7


async def test_a_thousand_joins_on_one_instance(world: World, servers: MakeServer, operator: Operator) -> None:
    """Through two replicas: nobody is refused falsely, everybody is counted once."""
    await world.pool(limits={"maxSessions": 1000}, defaults={"maxSessions": 1000})
    await world.avatar("g")
    one, two = await asyncio.gather(servers(), servers())
    async with Rest(one.url) as first, Rest(two.url) as second:
        assert (await first.start("first", "g")).code == 200
        answers = await asyncio.gather(*((first, second)[n % 2].start(f"g_user_{n}", "g") for n in range(999)))
        assert Counter(a.code for a in answers) == {200: 999}, [a for a in answers if a.code != 200][:3]
        # Each was told its own place: no two the same.
        assert sorted(a.data["connections"] for a in answers) == list(range(2, 1001))
        [status] = (await world.statuses()).values()
        assert (status["connections"], len(status["sessions"])) == (1000, 1000)
        refused = await first.start("one too many", "g")
        assert refused.code == 409
        assert "1000 sessions" in refused.body["message"]
        assert refused.headers["Retry-After"]
        gone = await asyncio.gather(
            *((first, second)[n % 2].disconnect(avatar_id=f"g_user_{n}", avatar_name="g") for n in range(999))
        )
        assert Counter((a.code, a.data["disconnected"]) for a in gone) == {(200, True): 999}
        [status] = (await world.statuses()).values()
        assert (status["connections"], [s["id"] for s in status["sessions"]]) == (1, ["first"])


async def test_one_start_repeated_a_thousand_times(world: World, servers: MakeServer, operator: Operator) -> None:
    """The same key, through two replicas: one instance, one session."""
    await world.pool()
    await world.avatar("g")
    one, two = await asyncio.gather(servers(), servers())
    async with Rest(one.url) as first, Rest(two.url) as second:
        body = {"avatar_name": "g"}
        ask = [r.post("/avatar/start", body, headers={"Idempotency-Key": "k1"}) for r in (first, second) * 500]
        answers = await asyncio.gather(*ask)
    assert Counter(a.code for a in answers) == {200: 1000}, [a for a in answers if a.code != 200][:3]
    assert len({a.data["avatar_id"] for a in answers}) == 1
    assert {a.data["connections"] for a in answers} == {1}
    [status] = (await world.statuses()).values()
    assert (status["connections"], len(status["sessions"])) == (1, 1)


async def test_a_replica_is_killed_in_the_middle_of_a_start(
    world: World, servers: MakeServer, operator_factory: MakeOperator
) -> None:
    """The client's repetition, through the other one, gets the same session."""
    await world.pool(runtime={"podAnnotations": {"avatars.test/ready-after": "1500ms"}})
    await world.avatar("g")
    await operator_factory().start()
    one, two = await asyncio.gather(servers(), servers())
    async with Rest(one.url) as first, Rest(two.url) as second:
        lost = asyncio.create_task(first.start("g_user_1", "g"))
        await _counted(world)
        one.kill()
        with pytest.raises(Exception, match=r"(?i)disconnected|reset|connect"):
            await lost
        again = await second.start("g_user_1", "g")
        assert again.data["connections"] == 1
        assert again.data["running"] is True
    [status] = (await world.statuses()).values()
    assert [s["id"] for s in status["sessions"]] == ["g_user_1"]


async def test_a_replica_that_ends_sends_its_waiters_on(world: World, servers: MakeServer) -> None:
    """SIGTERM: who waits is told to come again, and the session is kept for that."""
    await world.pool(runtime={"podAnnotations": {"avatars.test/ready-after": "60s"}})
    await world.avatar("g")
    one = await servers()
    async with Rest(one.url) as rest:
        waiting = asyncio.create_task(rest.start("g_user_1", "g"))
        await _counted(world)
        code = await asyncio.to_thread(one.stop)
        answer = await waiting
    assert (answer.code, answer.headers["Retry-After"]) == (503, "1")
    assert code == 0, one.tail()
    [status] = (await world.statuses()).values()
    assert [s["id"] for s in status["sessions"]] == ["g_user_1"]


async def _counted(world: World) -> None:
    await until("a session being counted", world.statuses, lambda a: any(s.get("sessions") for s in a.values()))
