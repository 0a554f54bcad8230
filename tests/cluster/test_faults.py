"""The API server refuses, stutters, hangs up or goes silent: the operator gets there all the same, and says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.conftest import Cluster, MakeOperator
from tests.support.api import GROUP, Json, until
from tests.support.operator import Operator
from tests.support.proxy import Call, Proxy, Rule, matching
from tests.support.world import World

pytestmark = pytest.mark.cluster


@pytest.fixture
async def proxy(cluster: Cluster) -> AsyncIterator[Proxy]:
    async with Proxy(cluster.kubeconfig) as found:
        yield found


@pytest.fixture
async def operator(proxy: Proxy, operator_factory: MakeOperator, tmp_path: Path) -> Operator:
    """An operator behind the proxy that compares with the API server every two seconds."""
    options = ("--resync-seconds=2",)
    return await operator_factory(proxy.kubeconfig(tmp_path / "kubeconfig"), options).start()


async def _running(world: World) -> None:
    await world.pool()
    await world.avatar("ada")
    await world.instance("one")
    await world.phase("one", "Running")


@pytest.mark.parametrize("resource", ["services", "pods", "avatarinstances"])
async def test_too_many_requests_is_obeyed(world: World, proxy: Proxy, operator: Operator, resource: str) -> None:
    """429 with Retry-After: not again before that time, and then with success."""
    await world.pool()
    await world.avatar("ada")
    times: list[float] = []

    async def note(_: Call) -> None:
        times.append(asyncio.get_running_loop().time())

    verb = "patch" if resource == "avatarinstances" else "create"
    proxy.before(matching(verb, resource), note, times=-1)
    rule = proxy.refuse(matching(verb, resource), 429, retry_after=2)
    await world.instance("one")
    await world.phase("one", "Running")
    assert rule.hits == 1
    assert times[1] - times[0] >= 1.9
    assert (await world.status("one")).get("restarts", 0) == 0


@pytest.mark.parametrize("status", [500, 503, 504])
async def test_a_burst_of_server_errors_is_outlived(
    world: World, proxy: Proxy, operator: Operator, status: int
) -> None:
    await world.pool()
    await world.avatar("ada", "bob")
    rule = proxy.refuse(lambda call: call.writes and call.resource != "events", status, times=12)
    await world.instance("one", "ada")
    await world.instance("two", "bob")
    ports = [(await world.phase(name, "Running", timeout=40))["port"] for name in ("one", "two")]
    assert sorted(ports) == [8615, 8616]
    assert rule.hits >= 12
    assert await world.left() == [f"{kind}/avatar-{port}" for kind in ("pod", "svc") for port in (8615, 8616)]


async def test_those_who_wait_do_not_wake_each_other_while_nothing_can_be_claimed(
    world: World, proxy: Proxy, operator: Operator
) -> None:
    """Each that fails gives its port back, which is room for the others: all of them at once, without end."""
    names = [f"one-{number}" for number in range(40)]
    await world.pool(ports={"base": 9000, "count": len(names)}, queue={"timeoutSeconds": 0})
    await world.avatar(*names)
    rule = proxy.refuse(matching("create", "services"), 500, times=-1)
    for name in names:
        await world.instance(name, name)
    await asyncio.sleep(8)
    # By the backoff eight tries take more than six seconds, jitter and the queue's low turns on top.
    assert len(names) <= rule.hits <= len(names) * 15
    rule.times = 0
    for name in names:
        await world.phase(name, "Running", timeout=90)


async def test_one_failure_counts_once_while_deletions_are_refused(
    world: World, proxy: Proxy, operator: Operator
) -> None:
    """Told once per try to delete the pod, it would wait for minutes as if it had failed again and again."""
    await _running(world)
    rule = proxy.refuse(matching("delete", "pods"), 503, times=4)
    before = await world.pod_uids()
    await world.patch_pod("avatar-8615", labels={"avatars.test/fail": "true"})
    status = await world.until(
        "one", "running again", lambda s: s.get("phase") == "Running" and s.get("restarts"), timeout=40
    )
    assert status["restarts"] == 1
    assert status["lastTermination"]["podUid"] == before["avatar-8615"]
    assert await world.pod_uids() != before
    assert rule.hits == 4


@pytest.mark.parametrize("resource", ["services", "pods"])
async def test_an_answer_lost_after_a_creation_doubles_nothing(
    world: World, proxy: Proxy, operator: Operator, resource: str
) -> None:
    """The write was done, the answer says 500: the retry finds its own object."""
    await world.pool()
    await world.avatar("ada")

    async def write_and_lose(call: Call) -> None:
        await world.api.create(resource, world.namespace, call.body)

    proxy.before(matching("create", resource), write_and_lose)
    proxy.refuse(matching("create", resource), 500)
    await world.instance("one")
    status = await world.phase("one", "Running")
    assert status["port"] == 8615
    assert await world.left() == ["pod/avatar-8615", "svc/avatar-8615"]


async def test_what_was_decided_for_another_of_the_name_is_not_written(
    world: World, proxy: Proxy, operator: Operator
) -> None:
    """Deleted and made anew in the moment in which the operator writes that it is Running."""
    await world.pool()
    await world.avatar("ada", "bob")
    made: list[Json] = []

    async def replace(call: Call) -> None:
        await world.delete("one")
        made.append(await world.instance("one", "bob"))

    proxy.before(matching("patch", "avatarinstances", "Running"), replace)
    await world.instance("one", "ada")
    status = await world.phase("one", "Running", timeout=40)
    late = next(call for call in proxy.writes("avatarinstances") if call.phase == "Running")
    assert late.code == 422, "the late one is refused"
    [pod] = [p for p in await world.pods() if "deletionTimestamp" not in p["metadata"]]
    assert pod["metadata"]["name"] == status["podName"]
    assert pod["metadata"]["creationTimestamp"] >= made[0]["metadata"]["creationTimestamp"]


async def test_a_port_is_held_while_its_pod_is_on_the_way(world: World, proxy: Proxy, operator: Operator) -> None:
    """The claim is deleted by hand just before its pod is made: nobody else may take the port."""
    await world.pool(maxInstances=1)
    await world.avatar("ada", "bob")

    async def unclaim(call: Call) -> None:
        await world.api.delete("services", world.namespace, "avatar-8615")
        await world.instance("two", "bob")
        await world.phase("two", "Pending", reason="PoolFull")

    proxy.before(matching("create", "pods"), unclaim)
    await world.instance("one", "ada")
    await world.phase("one", "Running", timeout=40)
    await until("the claim", world.left, lambda names: names == ["pod/avatar-8615", "svc/avatar-8615"])
    assert {c.body["metadata"]["labels"][f"{GROUP}/group"] for c in proxy.writes("services") if c.verb == "create"} == {
        (await world.pods())[0]["metadata"]["labels"][f"{GROUP}/group"]
    }


async def test_conflicts_of_status_are_planned_anew(world: World, proxy: Proxy, operator: Operator) -> None:
    await world.pool()
    await world.avatar("ada")
    rule = proxy.refuse(matching("patch", "avatarinstances"), 409, times=3, reason="Conflict")
    await world.instance("one")
    await world.phase("one", "Running")
    assert rule.hits == 3


async def test_a_client_counted_between_look_and_collection_wins(
    world: World, proxy: Proxy, operator: Operator
) -> None:
    """The backend's patch gets in right before each of the writes that collect: the preconditions refuse them."""
    await world.pool(idle={"timeoutSeconds": 1})
    await world.avatar("ada")

    async def a_client_comes(_: Call) -> None:
        await world.connections("one", 1)

    rule = proxy.before(matching("patch", "avatarinstances", "Draining"), a_client_comes)
    await world.instance("one")
    await until("a try to drain", _hits(rule), lambda hits: hits)
    await world.stays("a used instance", lambda: world.is_in("one", "Running"), 2)

    rule = proxy.before(matching("delete", "avatarinstances"), a_client_comes)
    await world.connections("one", 0)
    await until("a try to delete", _hits(rule), lambda hits: hits)
    await world.phase("one", "Running")
    await world.stays("a used instance", lambda: world.is_in("one", "Running"), 2)
    await world.connections("one", 0)
    await world.gone("one")
    assert await operator.metric("avatar_operator_culled_active_total") == 0


async def test_a_client_counted_right_before_sleep_wins(world: World, proxy: Proxy, operator: Operator) -> None:
    await world.pool(idle={"timeoutSeconds": 1, "action": "Sleep"})
    await world.avatar("ada")

    async def a_client_comes(_: Call) -> None:
        await world.connections("one", 1)

    rule = proxy.before(matching("patch", "avatarinstances", "Stopped"), a_client_comes)
    await world.instance("one")
    await until("a try to stop", _hits(rule), lambda hits: hits)
    await world.phase("one", "Running")
    await world.stays("a used instance", lambda: world.is_in("one", "Running"), 2)
    assert not [c for c in proxy.writes("pods") if c.verb == "delete"]


async def test_a_slow_api_server_makes_nothing_double(world: World, proxy: Proxy, operator: Operator) -> None:
    await world.pool()
    await world.avatar("ada", "bob")
    proxy.delay(lambda call: call.writes, 0.4)
    await world.instance("one", "ada")
    await world.instance("two", "bob")
    await world.phase("one", "Running")
    await world.phase("two", "Running")
    await world.delete("one", "two")
    await world.nothing_left()
    assert len([c for c in proxy.writes("pods") if c.verb == "create"]) == 2


async def test_answers_that_come_after_their_events_bring_nothing_back(
    world: World, proxy: Proxy, operator_factory: MakeOperator, tmp_path: Path
) -> None:
    """An object whose deletion the watch has told already must not live on in the answer of a write."""
    await operator_factory(proxy.kubeconfig(tmp_path / "kubeconfig")).start()
    proxy.delay_answers(lambda call: call.writes, 0.4)
    await _running(world)
    await world.patch_pod("avatar-8615", {"phase": "Succeeded"})
    await world.until("one", "having lost its pod", lambda s: s.get("restarts") == 1)
    await world.phase("one", "Running", timeout=10)
    await world.delete("one")
    await world.nothing_left(timeout=10)


async def test_watches_that_are_cut_come_back(world: World, proxy: Proxy, operator: Operator) -> None:
    await _running(world)
    assert proxy.cut_watches() >= 5
    await world.instance("two")
    await world.phase("two", "Shared")
    proxy.cut_watches()
    await world.delete("one", "two")
    await world.nothing_left()


async def test_a_deletion_between_two_watches_is_not_missed(world: World, proxy: Proxy, operator: Operator) -> None:
    """The watch is cut and its version too old (410) when it comes back: no event ever tells of the deletion."""
    await _running(world)
    pause = proxy.refuse(lambda call: call.verb == "watch", 503, times=-1)
    proxy.cut_watches()
    await world.delete("one")
    pause.times = 0
    proxy.expire_watches(5)
    await world.nothing_left(timeout=30)
    await until("the operator being ready again", operator.readiness, lambda said: said == "ok", timeout=30)


async def test_a_watch_beyond_repair_is_told_and_made_up_for_by_lists(
    world: World, proxy: Proxy, operator: Operator
) -> None:
    """Each watch of pods is refused as too old (410): what happens to them is learnt from one list after another."""
    await _running(world)
    rule = proxy.refuse(lambda call: call.verb == "watch" and call.resource == "pods", 410, times=-1)
    proxy.cut_watches()
    await world.delete("one")
    await world.nothing_left(timeout=40)
    await world.instance("two")
    await world.phase("two", "Running", timeout=40)
    said = await until("the operator saying so", operator.readiness, lambda said: said != "ok", timeout=40)
    assert "no watch of pods" in said
    assert (await operator.page("/healthz")).strip() == "ok", "a restart would not help"
    rule.times = 0
    await until("the operator being ready again", operator.readiness, lambda said: said == "ok", timeout=30)
    assert await operator.metric("avatar_operator_resync_corrections_total") == 0


async def test_a_silent_watch_is_noticed_and_what_it_missed_put_right(
    world: World, proxy: Proxy, operator: Operator
) -> None:
    """Half-open: connected, and nothing comes. The comparison with a LIST finds it; readiness tells the truth."""
    await _running(world)
    proxy.stall_watches()
    await world.delete("one")
    await world.nothing_left(timeout=30)
    await world.instance("two")
    await until("the operator saying it is not ready", operator.readiness, lambda said: "missed" in said, timeout=30)
    await world.phase("two", "Running", timeout=30)
    assert await operator.metric("avatar_operator_resync_corrections_total") >= 1
    proxy.unstall()
    await until("the operator being ready again", operator.readiness, lambda said: said == "ok", timeout=40)


@pytest.mark.parametrize("resource", ["pods", "avatarinstances"])
async def test_a_watch_that_is_forbidden_is_told_and_taken_up_when_it_is_not(
    world: World, proxy: Proxy, operator: Operator, resource: str
) -> None:
    """HTTP 403: readiness names the resource, the log the rule."""
    await _running(world)
    rule = proxy.refuse(lambda call: call.verb == "watch" and call.resource == resource, 403, times=-1)
    proxy.cut_watches(resource)
    said = await until("the operator saying so", operator.readiness, lambda said: "403" in said, timeout=30)
    assert f"watch {resource}" in said
    assert f"resources: [{resource}], verbs: [get, list, watch]" in operator.tail(400)
    assert (await operator.page("/healthz")).strip() == "ok", "a restart would not help"
    rule.times = 0
    await until("the operator being ready again", operator.readiness, lambda said: said == "ok", timeout=60)
    await world.instance("two")
    await world.phase("two", "Shared")
    await world.delete("one", "two")
    await world.nothing_left()


async def test_a_list_that_is_forbidden_at_the_start_is_told(
    world: World, proxy: Proxy, operator_factory: MakeOperator, tmp_path: Path
) -> None:
    rule = proxy.refuse(matching("list", "services"), 403, times=-1)
    operator = operator_factory(proxy.kubeconfig(tmp_path / "kubeconfig"))
    operator.launch()
    said = await until("the operator saying so", operator.readiness, lambda said: "403" in said, timeout=30)
    assert "not synced" in said
    rule.times = 0
    await operator.until_ready()
    await _running(world)


async def test_an_api_server_that_is_away_is_waited_for(
    world: World, proxy: Proxy, operator_factory: MakeOperator, tmp_path: Path
) -> None:
    """At the start: not ready, alive, and no crash."""
    rule = proxy.refuse(lambda call: True, 503, times=-1)
    operator = operator_factory(proxy.kubeconfig(tmp_path / "kubeconfig"))
    operator.launch()
    await until("the operator trying", _hits(rule), lambda hits: hits >= 2, timeout=30)
    assert "not synced" in await operator.readiness()
    assert (await operator.page("/healthz")).strip() == "ok"
    rule.times = 0
    await operator.until_ready()
    await _running(world)


def _hits(rule: Rule) -> Callable[[], Awaitable[int]]:
    async def look() -> int:
        return rule.hits

    return look
