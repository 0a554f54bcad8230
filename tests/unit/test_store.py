"""The store: whatever arrives in whatever order, its indexes are what a recomputation gives."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avatar_operator.controller.keys import AvatarKey, Key, PoolKey
from avatar_operator.controller.store import FOR_GOOD, WAKE, Store
from avatar_operator.domain import names
from avatar_operator.domain.plan import needs_claim
from avatar_operator.domain.resources import (
    Avatar,
    AvatarStatus,
    Instance,
    InstanceStatus,
    Pod,
    Pool,
    PoolStatus,
    Ports,
    Service,
    VramStatus,
)
from avatar_operator.domain.view import GroupKey, GroupView, RuntimeView
from avatar_operator.kube.kinds import AnyObject
from tests.unit.builders import (
    NAMESPACE,
    NOW,
    ago,
    avatar,
    group_of,
    having,
    instance,
    later,
    meta,
    newer,
    pool,
    service,
    stored,
)

DEFAULT = PoolKey(NAMESPACE, "default")
NOTHING = RuntimeView()


def key(item: Instance) -> GroupKey:
    return GroupKey(item.metadata.namespace, group_of(item))


def view(store: Store, item: Instance) -> GroupView:
    return store.view(key(item), NOW, NOTHING)


def plain_pod(server: Instance, port: int) -> Pod:
    return Pod(metadata=service(server, port).metadata)


def waiting_instances(count: int) -> list[Instance]:
    return [instance(f"i{n}", f"A{n}", age=100 - n) for n in range(count)]


def waiting_store(count: int, **spec: Any) -> tuple[Store, list[Key], list[Instance]]:
    """A pool with so many instances of different avatars that want a port, the oldest first."""
    members = waiting_instances(count)
    store, changed = stored(pool(**spec), *(avatar(m.spec.avatar_name) for m in members), *members)
    return store, changed, members


# ---- whose plan may differ -------------------------------------------------------------


def test_a_pool_that_says_something_else_is_no_news_to_its_groups() -> None:
    """Its status is written every two seconds while instances start: thousands of plans, each time, for nothing."""
    member = instance()
    store, changed = stored(pool(), avatar(), member)
    assert store.apply(newer(msgspec.structs.replace(pool(), status=PoolStatus(queue_length=7)), 2))
    assert changed == [DEFAULT]
    assert store.pool(DEFAULT).status.queue_length == 7  # type: ignore[union-attr]
    assert store.apply(newer(pool(image="other"), 3))
    assert key(member) in changed


def test_an_avatar_s_groups_are_told_what_they_go_by() -> None:
    member, known = instance(), avatar()
    store, changed = stored(pool(), known, member)
    said = msgspec.structs.replace(known, status=AvatarStatus(observed_generation=1))
    assert store.apply(newer(said, 2))
    assert key(member) not in changed
    learned = msgspec.structs.replace(known, status=AvatarStatus(vram=VramStatus(estimate_mib=900)))
    assert store.apply(newer(learned, 3))
    assert key(member) in changed
    changed.clear()
    assert store.apply(newer(msgspec.structs.replace(learned, spec=avatar(vram_mib=1).spec), 4))
    assert key(member) in changed


# ---- versions ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "taken"),
    [("11", True), ("10", False), ("9", False), ("100", True)],
    ids=["newer", "same", "older", "as-numbers"],
)
def test_an_older_state_never_replaces_a_newer_one(version: str, taken: bool) -> None:
    known = having(instance(metadata={"resource_version": "10"}), connections=1)
    store, changed = stored(pool(), avatar(), known)
    assert store.apply(having(instance(metadata={"resource_version": version}), connections=2)) is taken
    assert view(store, known).members[0].status.connections == (2 if taken else 1)
    assert (key(known) in changed) is taken


def test_a_namesake_with_another_uid_takes_over_whatever_its_version() -> None:
    old = instance(metadata={"resource_version": "10"})
    store, changed = stored(pool(), avatar(), avatar("Bob"), old)
    new = instance("one", "Bob", metadata={"uid": "uid-new", "resource_version": "3"})
    assert store.apply(new)
    assert key(old) not in store.groups()
    assert [m.metadata.uid for m in view(store, new).members] == ["uid-new"]
    assert {key(old), key(new)} <= set(changed)


def test_the_deletion_of_a_namesake_from_before_changes_nothing() -> None:
    store, changed = stored(pool(), instance(metadata={"uid": "uid-new"}))
    assert not store.remove(Instance, NAMESPACE, "one", "uid-one")
    assert changed == []
    assert store.instance(NAMESPACE, "one") is not None
    assert store.remove(Instance, NAMESPACE, "one", "uid-new")
    assert store.instance(NAMESPACE, "one") is None


def test_what_was_believed_gone_by_mistake_is_taken_in_once_it_is_known_to_live() -> None:
    world, _ = stored()
    claim = service(instance("one"))
    world.apply(claim)
    world.remove(Service, NAMESPACE, claim.metadata.name, claim.metadata.uid, claim.metadata.resource_version)
    assert not world.apply(claim)
    world.unbury(claim.metadata.uid)
    assert world.apply(claim)


def test_what_is_gone_for_good_no_later_state_brings_back() -> None:
    store, _ = stored()
    store.remove(Instance, NAMESPACE, "one", "uid-one", FOR_GOOD)
    assert not store.apply(newer(instance()))
    assert store.apply(msgspec.structs.replace(instance(), metadata=meta("one", uid="another"))), "a namesake"


def test_removing_what_is_unknown_is_nothing() -> None:
    store, changed = stored()
    assert not store.remove(Pod, NAMESPACE, "avatar-8615")
    assert changed == []


# ---- views ---------------------------------------------------------------------------


def test_a_view_holds_what_belongs_together() -> None:
    first, second = instance("old", age=50), instance("new", age=10)
    other, alone = instance("other", "Bob"), instance("alone", exclusive=True)
    store, _ = stored(
        pool(), avatar(), second, other, alone, first, service(first), service(other, 8616), plain_pod(first, 8615)
    )
    found = view(store, first)
    assert [m.metadata.name for m in found.members] == ["old", "new"]
    assert [c.metadata.name for c in found.claims] == ["avatar-8615"]
    assert [p.metadata.name for p in found.pods] == ["avatar-8615"]
    assert found.pool is not None
    assert found.avatar is not None
    assert [m.metadata.name for m in view(store, alone).members] == ["alone"]
    assert view(store, other).avatar is None


def test_a_deleting_member_is_not_seen() -> None:
    leaving = instance("leaving", age=50, metadata={"deletion_timestamp": NOW})
    staying = instance("staying", age=10)
    store, _ = stored(pool(), avatar(), leaving, staying)
    assert [m.metadata.name for m in view(store, staying).members] == ["staying"]


def test_of_two_avatars_of_one_name_the_older_counts() -> None:
    one = instance()
    young, old = avatar("Ada", name="a", created=ago(5)), avatar("Ada", name="b", created=ago(50))
    store, changed = stored(pool(), young, old, one)
    assert view(store, one).avatar == old
    assert store.avatars(AvatarKey(NAMESPACE, "Ada")) == [old, young]
    store.remove(Avatar, NAMESPACE, "b")
    assert view(store, one).avatar == young
    assert {key(one), AvatarKey(NAMESPACE, "Ada")} <= set(changed)


def test_a_renamed_avatar_moves() -> None:
    one, two = instance(), instance("two", "Bob")
    store, changed = stored(pool(), avatar("Ada", name="a"), one, two)
    renamed = msgspec.structs.replace(
        avatar("Bob", name="a"),
        metadata=msgspec.structs.replace(avatar("Bob", name="a").metadata, resource_version="2"),
    )
    store.apply(renamed)
    assert view(store, one).avatar is None
    assert view(store, two).avatar == renamed
    assert {key(one), key(two)} <= set(changed)


def test_a_relabelled_claim_moves() -> None:
    one, two = instance(), instance("two", "Bob")
    store, _ = stored(pool(), one, two, service(one))
    stolen = service(two, resource_version="2", uid="uid-avatar-8615")
    store.apply(stolen)
    assert view(store, one).claims == ()
    assert view(store, two).claims == (stolen,)


@pytest.mark.parametrize("labels", [{}, {names.LABEL_GROUP: "x"}, {names.LABEL_GROUP: "x", names.LABEL_PORT: "eight"}])
def test_what_is_not_labelled_is_left_alone(labels: dict[str, str]) -> None:
    store, changed = stored()
    strange = Service(metadata=msgspec.structs.replace(service(instance()).metadata, labels=labels))
    store.apply(strange)
    assert (store.groups(), changed) == ([], [])
    assert store.remove(Service, NAMESPACE, "avatar-8615")


def test_an_empty_group_is_forgotten() -> None:
    one = instance()
    store, changed = stored(pool(), one, service(one))
    store.remove(Instance, NAMESPACE, "one")
    assert store.groups() == [key(one)]
    store.remove(Service, NAMESPACE, "avatar-8615")
    assert store.groups() == []
    assert store.pool_of(key(one)) is None
    assert store.view(key(one), NOW, NOTHING) == GroupView(key(one), NOW)
    assert changed.count(key(one)) >= 2


# ---- who is told ------------------------------------------------------------------------


def test_a_pool_and_an_avatar_concern_their_groups() -> None:
    one, two = instance(), instance("two", "Bob", pool_ref="other")
    store, changed = stored(one, two)
    store.apply(pool())
    assert set(changed) == {key(one), DEFAULT}
    changed.clear()
    store.apply(avatar("Bob"))
    assert {k for k in changed if isinstance(k, GroupKey)} == {key(two)}
    changed.clear()
    store.remove(Pool, NAMESPACE, "default")
    assert set(changed) == {key(one), DEFAULT}


# ---- the queue -------------------------------------------------------------------------


def test_waiting_is_by_age() -> None:
    store, _, members = waiting_store(8)
    assert store.waiting(DEFAULT) == [key(m) for m in members]
    admissions = [view(store, m).admission for m in members]
    assert [a.port for a in admissions] == [8615] * 5 + [None] * 3
    assert [a.position for a in admissions[5:]] == [1, 2, 3]


def test_equal_ages_wait_by_name() -> None:
    members = [instance(n, f"avatar of {n}", age=10) for n in ("b", "a", "c")]
    store, _ = stored(pool(), *(avatar(m.spec.avatar_name) for m in members), *members)
    assert store.waiting(DEFAULT) == [key(m) for m in sorted(members, key=lambda m: m.metadata.name)]


@pytest.mark.parametrize(
    ("item", "waits"),
    [
        pytest.param(instance(), True, id="new"),
        pytest.param(instance(avatar_name="Nobody"), False, id="no-avatar"),
        pytest.param(instance(pool_ref="none"), False, id="no-pool"),
        pytest.param(instance(max_sessions=999), False, id="over-a-limit"),
        pytest.param(instance(metadata={"deletion_timestamp": NOW}), False, id="deleting"),
        pytest.param(instance(status=InstanceStatus(phase="Stopped")), False, id="asleep"),
        pytest.param(instance(status=InstanceStatus(phase="Stopped", connections=1)), True, id="woken"),
        pytest.param(instance(status=InstanceStatus(phase="Failed", retry_time=later(1))), False, id="backing-off"),
        pytest.param(instance(status=InstanceStatus(phase="Failed", retry_time=NOW)), True, id="backed-off"),
    ],
)
def test_who_waits(item: Instance, waits: bool) -> None:
    store, _ = stored(pool(), avatar(), item)
    assert bool(store.waiting(PoolKey(NAMESPACE, item.spec.pool_ref))) is waits


def test_a_follower_does_not_hold_a_place_while_its_server_backs_off() -> None:
    failed = instance("old", age=100, status=InstanceStatus(phase="Failed", retry_time=later(60)))
    follower, other = instance("new", age=50), instance("other", "Bob", age=10)
    store, _ = stored(pool(max_instances=1), avatar(), avatar("Bob"), failed, follower, other)
    assert store.waiting(DEFAULT) == [key(other)]
    assert view(store, other).admission.port == 8615


def test_a_backoff_that_ended_is_seen_on_refresh() -> None:
    one = instance(status=InstanceStatus(phase="Failed", retry_time=later(5)))
    store, _ = stored(pool(), avatar(), one)
    store.refresh(key(one), later(4.9))
    assert store.waiting(DEFAULT) == []
    store.refresh(key(one), later(5))
    assert store.waiting(DEFAULT) == [key(one)]
    assert store.view(key(one), later(5), NOTHING).admission.port == 8615


def test_who_has_a_claim_or_a_pod_does_not_wait() -> None:
    one, two, three = waiting_instances(3)
    store, _ = stored(pool(), *(avatar(f"A{n}") for n in range(3)), one, two, three, service(one), plain_pod(two, 8616))
    assert store.waiting(DEFAULT) == [key(three)]
    assert view(store, three).admission.port == 8617
    assert store.held(DEFAULT) == [8615, 8616]


def test_a_release_wakes_the_next_alone() -> None:
    store, changed, members = waiting_store(4, max_instances=1)
    first, second, *_ = members
    store.apply(service(first))
    changed.clear()
    store.remove(Instance, NAMESPACE, first.metadata.name)
    assert key(second) not in changed
    changed.clear()
    store.remove(Service, NAMESPACE, "avatar-8615")
    assert key(second) in changed
    assert DEFAULT in changed, "positions have changed"
    assert not {key(m) for m in members[2:]} & set(changed)
    assert view(store, second).admission.port == 8615


def test_room_made_by_somebody_who_gives_up_wakes_the_next() -> None:
    store, changed, members = waiting_store(3, max_instances=1)
    assert view(store, members[1]).admission.position == 1
    store.remove(Instance, NAMESPACE, members[0].metadata.name)
    assert key(members[1]) in changed
    assert view(store, members[1]).admission.port == 8615


def test_of_many_that_there_is_room_for_those_are_told_that_it_may_be_news_for() -> None:
    store, changed, members = waiting_store(3 * WAKE, max_instances=2 * WAKE + 10, ports=Ports(8615, 3 * WAKE))
    changed.clear()
    store.reserve(key(members[0]), DEFAULT, 8615)
    left = [key(m) for m in members[1:]]
    room = 2 * WAKE + 9
    assert [k for k in changed if isinstance(k, GroupKey)] == [*left[:WAKE], *left[room - WAKE : room]]


def test_a_larger_pool_wakes_everybody() -> None:
    store, changed, members = waiting_store(4, max_instances=1)
    store.apply(newer(pool(max_instances=3)))
    assert {key(m) for m in members} <= set(changed)
    assert [view(store, m).admission.port for m in members] == [8615, 8615, 8615, None]


# ---- reservations ------------------------------------------------------------------------


def test_a_reserved_port_goes_to_nobody_else() -> None:
    store, changed, (one, two, three) = waiting_store(3, max_instances=2)
    store.reserve(key(one), DEFAULT, 8615)
    assert store.waiting(DEFAULT) == [key(two), key(three)]
    assert view(store, two).admission.port == 8616
    assert view(store, three).admission.position == 1
    store.apply(service(one))
    store.unreserve(key(one), DEFAULT)
    assert store.held(DEFAULT) == [8615]
    changed.clear()
    store.remove(Service, NAMESPACE, "avatar-8615")
    assert store.held(DEFAULT) == []


def test_a_reservation_that_came_to_nothing_is_given_back() -> None:
    store, changed, (one, two) = waiting_store(2, max_instances=1)
    store.reserve(key(one), DEFAULT, 8615)
    changed.clear()
    store.unreserve(key(one), DEFAULT)
    assert store.held(DEFAULT) == []
    assert store.waiting(DEFAULT) == [key(one), key(two)]
    assert view(store, one).admission.port == 8615
    assert DEFAULT in changed


def test_a_reservation_of_an_instance_that_went_is_given_back() -> None:
    store, _, (one, two) = waiting_store(2, max_instances=1)
    store.reserve(key(one), DEFAULT, 8615)
    store.remove(Instance, NAMESPACE, one.metadata.name)
    assert view(store, two).admission.position == 1, "its request may still arrive"
    store.unreserve(key(one), DEFAULT)
    assert store.held(DEFAULT) == []
    assert view(store, two).admission.port == 8615


def test_the_port_of_a_pod_on_its_way_goes_to_nobody_else() -> None:
    """Though its claim is deleted by hand meanwhile."""
    store, changed, (one, two) = waiting_store(2, max_instances=1)
    store.apply(service(one))
    store.expect_pod(key(one), DEFAULT, 8615)
    store.remove(Service, NAMESPACE, "avatar-8615")
    assert store.held(DEFAULT) == [8615]
    assert view(store, two).admission.port is None
    changed.clear()
    store.pod_came(key(one), DEFAULT, 8615)
    assert store.held(DEFAULT) == []
    assert key(one) in changed, "the next in the queue is told"


def test_a_claim_that_another_pool_got_first_does_not_count_here() -> None:
    rival = instance("rival", "R", pool_ref="other")
    store, _, (one,) = waiting_store(1)
    store.reserve(key(one), DEFAULT, 8615)
    store.apply(service(rival, 8615))
    store.unreserve(key(one), DEFAULT)
    assert store.held(DEFAULT) == []
    assert store.held(PoolKey(NAMESPACE, "other")) == [8615]
    assert view(store, one).admission.port == 8616


def test_a_pod_without_its_claim_keeps_the_port() -> None:
    one, two = instance(), instance("two", "Bob")
    store, _ = stored(pool(), avatar(), avatar("Bob"), one, two, service(one), plain_pod(one, 8615))
    store.remove(Service, NAMESPACE, "avatar-8615")
    assert view(store, two).admission.port == 8616
    assert store.held(DEFAULT) == [8615]
    store.remove(Pod, NAMESPACE, "avatar-8615")
    assert view(store, two).admission.port == 8615


def test_a_port_that_a_status_shows_goes_to_nobody_else() -> None:
    """Its claim was deleted by hand before it had a pod: clients go by the status until it says otherwise."""
    showing = InstanceStatus(phase="Starting", port=8615)
    one, two = instance(status=showing), instance("two", "Bob")
    store, changed = stored(pool(max_instances=2), avatar(), avatar("Bob"), one, two, service(one))
    store.remove(Service, NAMESPACE, "avatar-8615")
    assert store.held(DEFAULT) == [], "it takes no place in the pool"
    assert [view(store, m).admission.port for m in (one, two)] == [8615, 8616], "it may have it again itself"
    changed.clear()
    store.apply(newer(having(one, phase="Failed", port=None, retry_time=later(9))))
    assert view(store, two).admission.port == 8615
    assert key(two) in changed


def test_a_port_that_only_one_that_is_being_deleted_shows_is_free() -> None:
    showing = InstanceStatus(phase="Running", port=8615)
    one = instance(status=showing, metadata={"deletion_timestamp": NOW})
    store, _ = stored(pool(), avatar(), avatar("Bob"), one, two := instance("two", "Bob"))
    assert view(store, two).admission.port == 8615


def test_somebody_who_came_and_went_between_two_looks_is_known() -> None:
    one = instance(status=InstanceStatus(phase="Running"))
    store, _ = stored(pool(), avatar(), one)
    assert view(store, one).runtime.used_at is None
    came = newer(having(one, connections=1))
    store.apply(came)
    store.apply(newer(one, 3))
    assert view(store, one).runtime.used_at is not None
    assert store.view(key(one), NOW, RuntimeView(used_at=later(9))).runtime.used_at == later(9)


# ---- quarantine -----------------------------------------------------------------------------


def test_a_quarantined_port_is_passed_over_until_it_is_released() -> None:
    store, _, (one,) = waiting_store(1)
    store.quarantine(NAMESPACE, 8615)
    assert view(store, one).admission.port == 8616
    store.release_quarantine(NAMESPACE, 8615)
    assert view(store, one).admission.port == 8615


def test_a_quarantine_outlives_the_reservation_that_found_the_stranger() -> None:
    store, _, (one,) = waiting_store(1)
    store.reserve(key(one), DEFAULT, 8615)
    store.quarantine(NAMESPACE, 8615)
    store.unreserve(key(one), DEFAULT)
    assert view(store, one).admission.port == 8616


def test_a_released_quarantine_does_not_free_a_claim() -> None:
    store, _, (one, two) = waiting_store(2)
    store.quarantine(NAMESPACE, 8615)
    store.apply(service(one))
    store.release_quarantine(NAMESPACE, 8615)
    assert view(store, two).admission.port == 8616


def test_everything_quarantined() -> None:
    store, _, (one, two) = waiting_store(2, ports=Ports(base=8615, count=2))
    for port in (8615, 8616):
        store.quarantine(NAMESPACE, port)
    found = [view(store, m).admission for m in (one, two)]
    assert [(a.position, a.reason) for a in found] == [(1, "PortsExhausted"), (2, "PortsExhausted")]


# ---- against a recomputation --------------------------------------------------------------------

AVATARS = ["Ada", "Bob", "Cy"]
POOLS = ["default", "other"]


@st.composite
def things(draw: st.DrawFn) -> AnyObject:
    """Any object in any state, under one of few names."""
    version = str(draw(st.integers(1, 40)))
    uid = draw(st.sampled_from(["u1", "u1", "u2"]))
    kind = draw(st.sampled_from([Pool, Avatar, Instance, Instance, Instance, Pod, Service, Service]))
    fields: dict[str, Any] = {"resource_version": version, "uid": uid}
    server = instance(avatar_name=draw(st.sampled_from(AVATARS)), pool_ref=draw(st.sampled_from(POOLS)))
    if kind is Pool:
        item: AnyObject = pool(draw(st.sampled_from(POOLS)), max_instances=draw(st.integers(1, 3)))
    elif kind is Avatar:
        item = avatar(
            draw(st.sampled_from(AVATARS)), name=draw(st.sampled_from(["a", "b"])), created=ago(draw(st.integers(1, 3)))
        )
    elif kind is Instance:
        name = draw(st.sampled_from(["i0", "i1", "i2", "i3"]))
        # What is immutable follows from the name and the UID.
        which = int(name[1]) + (uid == "u2")
        status = InstanceStatus(
            phase=draw(st.sampled_from(["", "Stopped", "Failed"])),
            connections=draw(st.integers(0, 1)),
            retry_time=draw(st.sampled_from([None, ago(1), later(1)])),
            port=draw(st.sampled_from([None, 8615, 8616])),
        )
        item = instance(
            name,
            AVATARS[which % 3],
            age=draw(st.integers(1, 3)),
            status=status,
            pool_ref=POOLS[which % 2],
            exclusive=which == 3,
        )
    else:
        claim = service(server, draw(st.integers(8615, 8618)))
        item = claim if kind is Service else Pod(metadata=claim.metadata)
    return msgspec.structs.replace(item, metadata=msgspec.structs.replace(item.metadata, **fields))


OPERATIONS = st.lists(
    st.one_of(
        things().map(lambda item: ("apply", item)),
        things().map(lambda item: ("remove", item)),
        st.sampled_from(range(8615, 8619)).map(lambda port: ("reserve", port)),
        st.just(("unreserve", None)),
        st.sampled_from(range(8615, 8619)).map(lambda port: ("quarantine", port)),
        st.sampled_from(range(8615, 8619)).map(lambda port: ("release", port)),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(OPERATIONS)
def test_indexes_are_what_a_recomputation_gives(operations: list[tuple[str, Any]]) -> None:
    store, _ = stored()
    truth: dict[tuple[type[AnyObject], str], AnyObject] = {}
    reserved: dict[GroupKey, tuple[PoolKey, int]] = {}
    quarantined: set[int] = set()
    for what, item in operations:
        match what:
            case "apply":
                at = (type(item), item.metadata.name)
                known = truth.get(at)
                newer = (
                    known is None
                    or known.metadata.uid != item.metadata.uid
                    or int(known.metadata.resource_version) < int(item.metadata.resource_version)
                )
                assert store.apply(item) is newer
                if newer:
                    truth[at] = item
            case "remove":
                at = (type(item), item.metadata.name)
                fits = at in truth and truth[at].metadata.uid == item.metadata.uid
                assert store.remove(type(item), NAMESPACE, item.metadata.name, item.metadata.uid) is fits
                if fits:
                    del truth[at]
            case "reserve":
                for group in store.groups():
                    pool_key = store.pool_of(group)
                    if group not in reserved and pool_key is not None:
                        reserved[group] = (pool_key, item)
                        store.reserve(group, pool_key, item)
                        break
            case "unreserve":
                if reserved:
                    group, (pool_key, _) = reserved.popitem()
                    store.unreserve(group, pool_key)
            case "quarantine":
                quarantined.add(item)
                store.quarantine(NAMESPACE, item)
            case "release":
                quarantined.discard(item)
                store.release_quarantine(NAMESPACE, item)
    compare(store, list(truth.values()), reserved, quarantined)


def compare(
    store: Store, items: list[AnyObject], reserved: dict[GroupKey, tuple[PoolKey, int]], quarantined: set[int]
) -> None:
    """Hold the store against a fresh one and against sets made by hand."""
    fresh, _ = stored(*items)
    for group, (pool_key, port) in reserved.items():
        fresh.reserve(group, pool_key, port)
    for port in quarantined:
        fresh.quarantine(NAMESPACE, port)
    assert set(store.groups()) == set(fresh.groups())
    held: dict[PoolKey, set[int]] = {PoolKey(NAMESPACE, p): set() for p in POOLS}
    for item in items:
        if isinstance(item, (Pod, Service)):
            labels = item.metadata.labels
            held[PoolKey(NAMESPACE, labels[names.LABEL_POOL])].add(int(labels[names.LABEL_PORT]))
    for pool_key, port in reserved.values():
        held[pool_key].add(port)
    for pool_key, ports in held.items():
        assert store.held(pool_key) == sorted(ports)
        turns = []
        for group in store.groups():
            found = store.view(group, NOW, NOTHING)
            if store.pool_of(group) == pool_key and group not in reserved and needs_claim(found):
                turns.append((*found.members[0].age_key, group))
        assert store.waiting(pool_key) == [t[2] for t in sorted(turns)]
        assert {m.metadata.name for m in store.members_of(pool_key)} == {
            i.metadata.name for i in items if isinstance(i, Instance) and i.spec.pool_ref == pool_key.name
        }
    for group in store.groups():
        one, other = store.view(group, NOW, NOTHING), fresh.view(group, NOW, NOTHING)
        assert (one.members, one.pool, one.avatar, one.admission) == (
            other.members,
            other.pool,
            other.avatar,
            other.admission,
        )
        assert {c.metadata.name for c in one.claims} == {c.metadata.name for c in other.claims}
        assert {p.metadata.name for p in one.pods} == {p.metadata.name for p in other.pods}
    for kind in (Pool, Avatar, Instance, Pod, Service):
        assert store.count(kind) == len([i for i in items if type(i) is kind])
        assert set(store.metas(kind)) == {(NAMESPACE, i.metadata.name) for i in items if type(i) is kind}


def test_age_needs_a_creation_time() -> None:
    with pytest.raises(ValueError, match="one has no creationTimestamp"):
        _ = instance(metadata={"creation_timestamp": None}).age_key
