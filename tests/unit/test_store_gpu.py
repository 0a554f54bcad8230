"""The store where a pool has GPUs: who is next, who is told, and what a plan is shown."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
import pytest

from avatar_operator.controller.keys import AvatarKey, GpuNodeKey, Key, PoolKey
from avatar_operator.controller.store import FOR_GOOD, Store
from avatar_operator.domain.gpunode import GpuNode, Node
from avatar_operator.domain.placement import Placement
from avatar_operator.domain.resources import (
    AvatarStatus,
    GpuStatus,
    Instance,
    Pod,
    Pool,
    Ports,
    Service,
    VramStatus,
)
from avatar_operator.domain.view import GpuHints, GpuView, GroupKey, RuntimeView
from avatar_operator.kube.kinds import AnyObject
from tests.unit.builders import (
    NAMESPACE,
    NOW,
    Admission,
    avatar,
    group_of,
    having,
    instance,
    later,
    newer,
    replace,
    service,
)
from tests.unit.gpu_builders import A0, A1, B0, DRA, PLUGIN, TOTAL, VISIBLE, gpu, gpu_pod, gpunode, node

ON_A0 = Placement(4000, "a", A0, 0)
BARE = Placement(4000)


class World:
    """A store with a clock that stands, a pool and nodes; what it reported is in ``changed``."""

    def __init__(self, kind: Pool, *items: AnyObject) -> None:
        self.changed: list[Key] = []
        self.now = NOW
        self.store = Store(self.changed.append, lambda: self.now)
        self.pool = PoolKey(NAMESPACE, kind.metadata.name)
        for item in (kind, *items):
            self.store.apply(item)
        self.changed.clear()

    def wants(self, count: int, **vram: int) -> list[Instance]:
        """So many instances of different avatars, the oldest first; ``vram``: MiB of those that are not alike."""
        members = [instance(f"i{n}", f"A{n}", age=100 - n, pool_ref=self.pool.name) for n in range(count)]
        for member in members:
            self.store.apply(avatar(member.spec.avatar_name, vram_mib=vram.get(member.metadata.name)))
            self.store.apply(member)
        self.changed.clear()
        return members

    def admission(self, item: Instance, now: datetime | None = None) -> Admission:
        return self.store.view(key(item), now or self.now, RuntimeView()).admission

    def gpu(self, item: Instance, hints: GpuHints | None = None, now: datetime | None = None) -> GpuView:
        return self.store.view(key(item), now or self.now, RuntimeView(), None, hints or GpuHints()).gpu

    def claim(self, item: Instance) -> Service:
        """What the reconciler does with an admission."""
        found = self.admission(item)
        assert found.port is not None
        self.store.reserve(key(item), self.pool, found.port, found.placement)
        made = service(item, found.port, found.placement, uid=f"uid-{item.metadata.name}")
        self.store.apply(made)
        self.store.unreserve(key(item), self.pool)
        return made

    def end(self, claim: Service) -> None:
        self.store.remove(Service, NAMESPACE, claim.metadata.name)

    def told(self) -> set[str]:
        """The groups that were planned since, by the first letters of their ids; clears."""
        found = {k.id for k in self.changed if isinstance(k, GroupKey)}
        self.changed.clear()
        return found


def key(item: Instance) -> GroupKey:
    return GroupKey(item.metadata.namespace, group_of(item))


def ids(*items: Instance) -> set[str]:
    return {group_of(item) for item in items}


def with_pool(kind: Pool, **spec: Any) -> Pool:
    return msgspec.structs.replace(kind, spec=msgspec.structs.replace(kind.spec, **spec))


def one_gpu(used: int = 0, version: int = 1, **more: Any) -> GpuNode:
    return gpunode("a", gpu(A0, used=used, **more), version=version)


# ---- the queue ------------------------------------------------------------------------------


def test_one_at_a_time_and_in_order() -> None:
    world = World(VISIBLE, node("a"), one_gpu())
    one, two, three = world.wants(3)
    assert world.admission(one) == Admission(port=8615, placement=ON_A0)
    assert [world.admission(m) for m in (two, three)] == [Admission(position=2), Admission(position=3)]
    world.claim(one)
    assert ids(two) <= world.told()
    assert world.admission(two) == Admission(port=8616, placement=ON_A0)
    assert world.admission(three) == Admission(position=2)


def test_until_nothing_fits() -> None:
    """Each needs 8000 MiB free and takes 4000."""
    world = World(VISIBLE, node("a"), one_gpu(10000))
    members = world.wants(4)
    claims = [world.claim(m) for m in members[:2]]
    third, fourth = (world.admission(m) for m in members[2:])
    assert [(a.position, a.reason) for a in (third, fourth)] == [(1, "GPUExhausted"), (2, "GPUExhausted")]
    assert third.message == (
        "needs 8000 MiB free on one GPU, 2000 MiB are missing; "
        "GPU 0 of a has most: 6000 of 24000 MiB (8000 reserved for avatars, 10000 used by others)"
    )
    world.store.remove(Instance, NAMESPACE, members[0].metadata.name)
    world.told()
    world.end(claims[0])
    assert ids(members[2]) <= world.told()
    assert world.admission(members[2]).placement == ON_A0
    assert world.admission(members[3]) == Admission(position=2)


def test_who_needs_less_does_not_overtake() -> None:
    world = World(VISIBLE, node("a"), one_gpu(12000))
    big, small = world.wants(2, i0=13000)
    assert world.admission(big).reason == "GPUExhausted"
    found = world.admission(small)
    assert (found.port, found.position, found.reason) == (None, 2, "GPUExhausted")
    assert found.message.startswith("waiting for a GPU behind 1 others of the pool; the first of them needs 13000 MiB")


@pytest.mark.parametrize("hopeless", [1, 3])
def test_nobody_waits_behind_one_that_no_gpu_will_ever_do_for(hopeless: int) -> None:
    """Not even where those ahead are as many as there are ports."""
    world = World(with_pool(VISIBLE, ports=Ports(base=8615, count=3)), node("a"), one_gpu())
    *big, small = world.wants(hopeless + 1, **{f"i{n}": 30000 for n in range(hopeless)})
    assert [world.admission(m).reason for m in big] == ["GPUExhausted"] * hopeless
    assert [world.admission(m).position for m in big] == list(range(1, hopeless + 1))
    assert world.admission(small) == Admission(port=8615, placement=ON_A0)
    world.store.apply(one_gpu(100, version=2))
    assert ids(small) <= world.told(), "it is woken, too"


def test_a_full_pool_is_full_whatever_gpus_say() -> None:
    world = World(with_pool(VISIBLE, max_instances=1), node("a"), one_gpu())
    one, two, three = world.wants(3)
    assert [world.admission(m).position for m in (one, two, three)] == [0, 2, 3]
    assert world.admission(two).reason == "PoolFull", "there will be no port for it in a moment"
    world.claim(one)
    assert [(a.position, a.reason) for a in map(world.admission, (two, three))] == [(1, "PoolFull"), (2, "PoolFull")]


def test_two_pools_share_a_gpu() -> None:
    other = msgspec.structs.replace(
        with_pool(VISIBLE, ports=Ports(base=9000, count=5)),
        metadata=msgspec.structs.replace(VISIBLE.metadata, name="other", uid="uid-other"),
    )
    world = World(VISIBLE, other, node("a"), one_gpu(14000))
    (one,) = world.wants(1)
    rival = instance("rival", "R", pool_ref="other")
    world.store.apply(avatar("R"))
    world.store.apply(rival)
    claim = world.claim(one)
    assert world.admission(rival).reason == "GPUExhausted"
    world.told()
    world.end(claim)
    assert ids(rival) <= world.told()
    assert world.admission(rival).placement == ON_A0


def test_without_telemetry_nobody_waits_for_memory() -> None:
    world = World(VISIBLE)
    members = world.wants(3)
    assert [world.claim(m).metadata.name for m in members] == ["avatar-8615", "avatar-8616", "avatar-8617"]


@pytest.mark.parametrize("age", [89, 90])
def test_an_old_report_is_gone_by_with_reservations(age: int) -> None:
    """Of what the report shows, a pod uses less than it reserves: its reservation stands, whatever the report's age."""
    world = World(VISIBLE, node("a"), one_gpu(11000, pods={"uid-avatar-8619": 1000}))
    old = instance("old", "Old", pool_ref="visible")
    world.store.apply(service(old, 8619, ON_A0))
    world.store.apply(gpu_pod(old, ON_A0, port=8619, on="a"))
    (one,) = world.wants(1)
    assert world.admission(one, later(age)).placement == ON_A0
    assert world.gpu(old, now=later(age)).stale is (age == 90)


# ---- who is told ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "news",
    [
        pytest.param(one_gpu(1000, version=2), id="memory-became-free"),
        pytest.param(gpunode("b", gpu(B0)), id="another-node-reports"),
        pytest.param(node("a", labels={"x": "y"}, version=2), id="a-node-changed"),
        pytest.param(node("b"), id="a-new-node"),
    ],
)
def test_news_of_gpus_wakes_the_first_that_waits(news: Node | GpuNode) -> None:
    world = World(VISIBLE, node("a"), one_gpu(20000))
    one, two = world.wants(2)
    world.store.apply(news)
    assert world.told() == ids(one)
    assert two.metadata.name == "i1"


def test_a_heartbeat_of_a_node_wakes_nobody() -> None:
    world = World(VISIBLE, node("a"), one_gpu(20000))
    world.wants(1)
    world.store.apply(node("a", version=2))
    assert world.changed == []


def test_a_report_concerns_its_node_and_pools_with_gpus() -> None:
    world = World(VISIBLE, node("a"))
    world.store.apply(one_gpu())
    assert set(world.changed) == {GpuNodeKey("", "a"), world.pool}
    world.changed.clear()
    world.store.remove(GpuNode, "", "a")
    assert set(world.changed) == {GpuNodeKey("", "a"), world.pool}


def test_who_is_on_a_gpu_is_told_of_its_loss() -> None:
    world = World(VISIBLE, node("a"), gpunode("a", gpu(A0), gpu(A1, 1)))
    one, two = world.wants(2)
    on_a0, on_a1 = (world.claim(m) for m in (one, two))
    assert [c.metadata.labels["avatars.virtualtutor.io/gpu"] for c in (on_a0, on_a1)] == [A0, A1]
    world.told()
    world.store.apply(gpunode("a", gpu(A0, 0, healthy=False, message="fell off"), gpu(A1, 1), version=2))
    assert world.told() == ids(one)
    assert world.gpu(one).lost == "GPU 0 of a: fell off"
    assert world.gpu(two).lost == ""


def test_a_reservation_concerns_its_gpunode() -> None:
    world = World(VISIBLE, node("a"), one_gpu())
    (one,) = world.wants(1)
    claim = world.claim(one)
    assert GpuNodeKey("", "a") in world.changed
    world.changed.clear()
    world.end(claim)
    assert GpuNodeKey("", "a") in world.changed


def test_a_claim_that_failed_gives_its_part_back() -> None:
    world = World(VISIBLE, node("a"), one_gpu(14000))
    one, two = world.wants(2)
    found = world.admission(one)
    assert found.port is not None
    world.store.reserve(key(one), world.pool, found.port, found.placement)
    assert world.admission(two).reason == "GPUExhausted"
    world.store.remove(Instance, NAMESPACE, one.metadata.name)
    world.told()
    world.store.unreserve(key(one), world.pool)
    assert ids(two) <= world.told()
    assert world.admission(two).placement == ON_A0


# ---- what a plan is shown -------------------------------------------------------------------------


def running(world: World, kind: Pool = VISIBLE, reserved: Placement = ON_A0, **status: Any) -> Instance:
    """An instance with its claim and its pod, on node a."""
    one = having(instance(pool_ref=kind.metadata.name), **{"pod_name": "avatar-8615", **status})
    mode = kind.spec.gpu.mode
    for item in (avatar(), one, service(one, placement=reserved), gpu_pod(one, reserved, on="a", mode=mode)):
        world.store.apply(item)
    world.changed.clear()
    return one


def test_a_claim_and_its_report() -> None:
    world = World(VISIBLE, node("a"), one_gpu(500))
    one = running(world)
    found = world.gpu(one)
    assert (found.reserved, found.place, found.node, found.reported, found.stale) == (ON_A0, None, "a", NOW, False)
    assert found.report is not None
    assert found.report.uuid == A0
    assert world.gpu(one, now=later(90)).stale


@pytest.mark.parametrize(("hint", "confirmed"), [("uid-avatar-8615", True), ("uid-another", False), ("", False)])
def test_a_confirmation_is_of_one_claim(hint: str, confirmed: bool) -> None:
    world = World(VISIBLE, node("a"), one_gpu())
    assert world.gpu(running(world), GpuHints(confirmed=hint)).confirmed is confirmed


def test_of_two_claims_the_one_that_is_kept_is_shown() -> None:
    world = World(VISIBLE, node("a"), gpunode("a", gpu(A0), gpu(A1, 1)))
    (one,) = world.wants(1)
    world.store.apply(service(one, 8616, Placement(4000, "a", A1, 1)))
    world.store.apply(service(one, 8615, ON_A0))
    assert world.gpu(one).reserved == ON_A0


def test_a_claim_without_a_pod_does_not_go_to_a_gpu_that_takes_no_new_ones() -> None:
    cordoned = gpunode("a", gpu(A0), cordoned=(A0,), version=2)
    world = World(VISIBLE, node("a"), one_gpu())
    one = running(world)
    world.store.apply(cordoned)
    assert world.gpu(one).lost == "", "its pod may go on"
    world.store.remove(Pod, NAMESPACE, "avatar-8615")
    assert world.gpu(one).lost == "cordoned (spec.cordoned of its GPUNode)"
    world.store.apply(gpunode("a", gpu(A0), version=3))
    assert world.gpu(one).lost == ""
    world.store.apply(node("a", ready=False, version=2))
    assert world.gpu(one).lost == "node a is not ready"


def test_since_when_there_is_no_pod() -> None:
    world = World(VISIBLE, node("a"), one_gpu(4000, pods={"uid-avatar-8615": 4000}))
    one = running(world)
    assert world.gpu(one).podless_since is None
    world.now = later(20)
    world.store.remove(Pod, NAMESPACE, "avatar-8615", "uid-avatar-8615", "5")
    found = world.gpu(one)
    assert (found.podless_since, found.processes_gone) == (later(20), False)
    world.store.apply(gpunode("a", gpu(A0), at=later(25), version=6))
    assert world.gpu(one).processes_gone


def test_a_report_from_before_the_pods_end_may_be_heard_of_after_it() -> None:
    """It was written when the pod loaded nothing yet; by then it did. Our clock, behind the agent's, cannot tell."""
    world = World(VISIBLE, node("a"), one_gpu())
    one = running(world)
    world.store.remove(Pod, NAMESPACE, "avatar-8615", "uid-avatar-8615", "5")
    world.store.apply(gpunode("a", gpu(A0), at=later(10), version=4))
    assert not world.gpu(one).processes_gone
    # The operator's own word in the status, with the same report.
    world.store.apply(gpunode("a", gpu(A0), at=later(10), version=7))
    assert not world.gpu(one).processes_gone
    world.store.apply(gpunode("a", gpu(A0, pods={"uid-avatar-8615": 1200}), at=later(11), version=8))
    assert not world.gpu(one).processes_gone
    world.store.apply(gpunode("a", gpu(A0), at=later(12), version=9))
    assert world.gpu(one).processes_gone


def test_when_a_pod_ended_may_be_told_later() -> None:
    """The answer to its deletion does not say it, the watch does."""
    world = World(VISIBLE, node("a"), one_gpu())
    one = running(world)
    world.store.remove(Pod, NAMESPACE, "avatar-8615", "uid-avatar-8615", FOR_GOOD)
    world.store.apply(gpunode("a", gpu(A0), at=later(10), version=6))
    assert not world.gpu(one).processes_gone
    assert not world.store.remove(Pod, NAMESPACE, "avatar-8615", "another", "4")
    assert not world.store.remove(Pod, NAMESPACE, "avatar-8615", "uid-avatar-8615", "5")
    world.store.apply(gpunode("a", gpu(A0), at=later(11), version=7))
    assert world.gpu(one).processes_gone
    # Of the next pod's end nothing is known yet.
    world.store.apply(newer(gpu_pod(one, ON_A0, on="a", uid="next"), 8))
    world.store.remove(Pod, NAMESPACE, "avatar-8615", "next", FOR_GOOD)
    world.store.apply(gpunode("a", gpu(A0), at=later(12), version=9))
    assert not world.gpu(one).processes_gone


ALLOCATED = Placement(4096, "a", A1, 1)


def test_what_was_allocated_is_known_by_memory_or_by_status() -> None:
    world = World(DRA, node("a"), gpunode("a", gpu(A0), gpu(A1, 1)))
    shown = GpuStatus(node="a", index=1, uuid=A1, reserved_mib=4096)
    one = running(world, DRA, BARE)
    assert world.gpu(one).allocated is None
    assert world.gpu(one, GpuHints(allocated=ALLOCATED)).allocated == ALLOCATED
    world.store.apply(newer(having(one, gpu=shown)))
    found = world.gpu(one)
    assert (found.allocated, found.report and found.report.uuid) == (ALLOCATED, A1)
    assert world.store.gpus.room(A1).reserved == 4000


def test_what_the_last_pod_was_allocated_is_not_the_next_ones() -> None:
    """Else a lost GPU would be that of every claim to come, and a new pod's would never be asked for."""
    world = World(DRA, node("a"), gpunode("a", gpu(A0), gpu(A1, 1)))
    one = running(world, DRA, BARE)
    world.store.remove(Pod, NAMESPACE, "avatar-8615")
    world.store.apply(gpunode("a", gpu(A0), gpu(A1, 1, healthy=False), version=2))
    found = world.gpu(one, GpuHints(allocated=ALLOCATED))
    assert (found.allocated, found.lost, found.report) == (None, "", None)
    assert found.place == Placement(4000, primary=(A0,))


def test_a_gpu_whose_report_went_is_not_sought_on_the_likely_node() -> None:
    """The claim names the node that seemed best; the pod is where the scheduler put it."""
    world = World(PLUGIN, node("a"), node("likely"), gpunode("a", gpu(A1, 1)), gpunode("likely", gpu(B0)))
    shown = GpuStatus(node="a", index=1, uuid=A1, reserved_mib=4000)
    one = running(world, PLUGIN, Placement(4000, nodes=("likely",)), gpu=shown)
    world.store.remove(GpuNode, "", "a")
    assert world.gpu(one).lost == ""
    world.store.apply(gpunode("a", gpu(A0), version=3))
    assert world.gpu(one).lost == f"{A1} is no longer among the GPUs of a"


@pytest.mark.parametrize("late", ["report", "pod", "claim"])
def test_a_restarted_operator_finds_what_was_allocated(late: str) -> None:
    """Nodes are listed first, instances last; then any order will do."""
    one = having(
        instance(pool_ref="dra"),
        pod_name="avatar-8615",
        gpu=GpuStatus(node="a", index=0, uuid=A0, reserved_mib=4000),
    )
    parts: dict[str, AnyObject] = {
        "report": one_gpu(5000, pods={"uid-avatar-8615": 4000}),
        "claim": service(one, placement=BARE),
        "pod": gpu_pod(one, BARE, on="a", mode="DRA"),
    }
    order = [parts[name] for name in parts if name != late] + [parts[late]]
    world = World(DRA, node("a"), avatar(), *order, one)
    room = world.store.gpus.room(A0)
    assert (room.reserved, room.external, room.free) == (4000, 1000, TOTAL - 5000)
    world.store.remove(Pod, NAMESPACE, "avatar-8615")
    assert world.gpu(one).podless_since == NOW


def test_a_cpu_pools_group_has_no_gpu() -> None:
    world = World(VISIBLE, node("a"), one_gpu())
    one = instance()
    world.store.apply(service(one))
    assert world.gpu(one) == GpuView()


# ---- what is learned ----------------------------------------------------------------------------


def test_a_pods_use_is_news_of_its_avatar() -> None:
    world = World(VISIBLE, node("a"), one_gpu())
    running(world)
    ada = AvatarKey(NAMESPACE, "Ada")
    world.store.apply(one_gpu(3000, pods={"uid-avatar-8615": 3000, "stranger": 9000}, version=2))
    assert ada in world.changed
    assert world.store.observed_vram(ada) == 3000
    assert world.store.observed_vram(AvatarKey(NAMESPACE, "Bob")) == 0
    known = newer(msgspec.structs.replace(avatar(), status=AvatarStatus(vram=VramStatus(3000, 3328))))
    world.store.apply(known)
    world.changed.clear()
    world.store.apply(one_gpu(3010, pods={"uid-avatar-8615": 3010}, version=3))
    assert ada not in world.changed, "no news"
    world.store.remove(Pod, NAMESPACE, "avatar-8615")
    assert world.store.observed_vram(ada) == 0


def test_what_was_learned_is_what_the_next_one_needs() -> None:
    world = World(VISIBLE, node("a"), one_gpu())
    (one,) = world.wants(1)
    learned = msgspec.structs.replace(
        avatar("A0"), status=AvatarStatus(vram=VramStatus(observed_mib=9000, estimate_mib=9920))
    )
    world.store.apply(newer(learned))
    assert world.admission(one).placement == replace(ON_A0, mib=9920)


def test_pools_say_which_gpus_they_have() -> None:
    world = World(VISIBLE, node("a"), one_gpu())
    found = world.store.gpu_pool(VISIBLE)
    assert (found.telemetry, [d.report.uuid for d in found.devices], found.now) == (True, [A0], NOW)
