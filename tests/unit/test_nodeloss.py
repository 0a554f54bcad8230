"""Pods on nodes that nobody hears of: waited for, then left behind with what they hold."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import msgspec
import pytest

from avatar_operator.controller.keys import PoolKey
from avatar_operator.domain.actions import CreateClaim, CreatePod, PatchStatus, ReleaseClaim
from avatar_operator.domain.gpunode import Node, NodeStatus
from avatar_operator.domain.nodeloss import CONDITION, STRANDED_MARGIN_SECONDS, lost, set_aside
from avatar_operator.domain.plan import needs_claim, plan
from avatar_operator.domain.resources import Condition, InstanceStatus, Pod, PodSpec
from avatar_operator.domain.view import GroupKey, GroupView, RuntimeView
from tests.unit.builders import (
    NAMESPACE,
    NOW,
    Admission,
    ago,
    avatar,
    condition,
    group_of,
    having,
    instance,
    kinds,
    later,
    meta,
    patches,
    pod,
    pool,
    service,
    stored,
    view,
)

WHY = "node node-1 is unreachable since 11:59:00 UTC"


def node(ready: str | None = "Unknown") -> Node:
    conditions = () if ready is None else (condition("Ready", ready, since=ago(60)),)
    return Node(metadata=meta("node-1", namespace=""), status=NodeStatus(conditions=conditions))


@pytest.mark.parametrize(
    ("found", "why"),
    [
        pytest.param(node("True"), "", id="ready"),
        pytest.param(node("False"), "node node-1 is not ready since 11:59:00 UTC", id="not-ready"),
        pytest.param(node("Unknown"), WHY, id="unreachable"),
        pytest.param(node(None), "", id="it-has-not-said-yet"),
        pytest.param(None, "", id="gone-is-for-kubernetes-to-clean-up"),
    ],
)
def test_lost(found: Node | None, why: str) -> None:
    assert lost(found) == why


def terminating(of: Pod, until: datetime) -> Pod:
    return msgspec.structs.replace(of, metadata=msgspec.structs.replace(of.metadata, deletion_timestamp=until))


SERVED = instance(
    status=InstanceStatus(
        phase="Running",
        reason="Serving",
        pod_name="avatar-8615",
        port=8615,
        ready_time=ago(50),
        observed_generation=1,
    )
)


def left(until: datetime, *, why: str = WHY, **fields: object) -> GroupView:
    """A group whose pod should have ended at ``until`` (its deletionTimestamp)."""
    gone = terminating(pod([SERVED]), until)
    found = view(SERVED, claims=(service(SERVED),), pods=(gone,))
    return set_aside(replace(found, **fields), {gone.metadata.uid: why} if why else {})  # type: ignore[arg-type]


def test_until_its_grace_period_is_long_over_it_is_waited_for() -> None:
    until = ago(STRANDED_MARGIN_SECONDS - 1)
    found = left(until)
    assert not needs_claim(found)
    result = plan(found)
    said = patches(result)["one"]
    assert kinds(result.actions) == ["PatchStatus"]
    assert (said["phase"], said["reason"]) == ("Pending", "NodeLost")
    assert WHY in said["message"]
    assert result.wake == later(1)


def test_a_pod_that_ends_slowly_on_a_good_node_is_waited_for() -> None:
    found = left(ago(3600), why="")
    assert not needs_claim(found)
    assert patches(plan(found))["one"]["reason"] == "Terminating"


def test_then_the_group_says_so_and_starts_anew_on_another_claim() -> None:
    found = left(ago(STRANDED_MARGIN_SECONDS))
    assert needs_claim(found)
    (said,) = plan(found).actions
    assert isinstance(said, PatchStatus)
    ((kind, status, reason),) = [
        (c["type"], c["status"], c["reason"]) for c in said.status["conditions"] if c["type"] == CONDITION
    ]
    assert (kind, status, reason) == (CONDITION, "True", "NodeLost")
    assert said.status["lastTermination"]["reason"] == "NodeLost"
    (event,) = said.events
    assert (event.type, event.reason) == ("Warning", "NodeLost")
    assert WHY in event.message

    told = msgspec.convert(said.status["conditions"], tuple[Condition, ...])
    waiting = having(SERVED, phase="Pending", ready_time=None, conditions=told)
    again = replace(left(ago(STRANDED_MARGIN_SECONDS)), members=(waiting,), admission=Admission(port=8616))
    (claim,) = plan(again).actions
    assert isinstance(claim, CreateClaim)
    assert claim.port == 8616

    second = replace(again, claims=(service(waiting, 8616),), admission=Admission())
    made = [a for a in plan(second).actions if isinstance(a, CreatePod)]
    assert [a.body["metadata"]["name"] for a in made] == ["avatar-8616"]


def test_its_claim_stays_with_it() -> None:
    old, new = terminating(pod([SERVED]), ago(99)), pod([SERVED], port=8616)
    claims = (service(SERVED), service(SERVED, 8616))
    found = set_aside(view(SERVED, claims=claims, pods=(old, new)), {old.metadata.uid: WHY})
    assert found.pods == (new,)
    assert [c.metadata.name for c in found.claims] == ["avatar-8616"]
    assert not [a for a in plan(found).actions if isinstance(a, ReleaseClaim)]


def test_nobody_left_holds_on_to_nothing_but_the_pod() -> None:
    found = replace(left(ago(99)), members=())
    assert plan(found).actions == []


def test_when_it_is_gone_its_claim_is_released_and_the_condition_goes() -> None:
    stranded = condition(CONDITION, "True", "NodeLost", "…", ago(30))
    one = having(SERVED, conditions=(stranded,), port=8616, pod_name="avatar-8616")
    both = (terminating(pod([one]), ago(99)), pod([one], port=8616))
    waiting = plan(view(one, claims=(service(one), service(one, 8616)), pods=both))
    assert not [e for a in waiting.actions if isinstance(a, PatchStatus) for e in a.events], (
        "its node is back, not gone"
    )
    group = view(one, claims=(service(one), service(one, 8616)), pods=(pod([one], port=8616),))
    (said,) = plan(group).actions
    assert isinstance(said, PatchStatus)
    assert said.status["conditions"] == []
    assert [e.reason for e in said.events] == ["StrandedPodGone"]
    after = replace(group, members=(having(one, conditions=()),))
    (released,) = [a for a in plan(after).actions if isinstance(a, ReleaseClaim)]
    assert released.service.metadata.name == "avatar-8615"


def test_an_instance_on_a_lost_node_says_why_it_is_not_ready() -> None:
    here = pod([SERVED], state="unready")
    said = patches(plan(replace(view(SERVED, claims=(service(SERVED),), pods=(here,)), lost={here.metadata.uid: WHY})))
    assert (said["one"]["phase"], said["one"]["reason"]) == ("Starting", "NodeLost")
    assert WHY in said["one"]["message"]


def test_a_start_that_timed_out_on_a_lost_node_is_not_the_avatars_failure() -> None:
    new = instance(status=InstanceStatus(phase="Starting", start_time=ago(90)))
    here = pod([new], state="starting", age=90)
    group = replace(view(new, claims=(service(new),), pods=(here,)), lost={here.metadata.uid: WHY})
    said = patches(plan(group))["one"]
    assert (said["reason"], said.get("restarts", 0)) == ("NodeLost", 0)


def test_the_view_is_the_same_where_every_node_is_well() -> None:
    found = left(ago(99), why="")
    assert found.stranded == ()
    assert [p.metadata.name for p in found.pods] == ["avatar-8615"]
    assert found.now == NOW


# ---- the store: who hears of a node ------------------------------------------------------


def _newer(item: Node, version: str) -> Node:
    return msgspec.structs.replace(item, metadata=msgspec.structs.replace(item.metadata, resource_version=version))


KEY = GroupKey(NAMESPACE, group_of(SERVED))


def test_a_node_that_goes_silent_is_news_for_those_who_have_a_pod_on_it() -> None:
    elsewhere = instance("two", "Bob")
    other = msgspec.structs.replace(pod([elsewhere], port=8616), spec=PodSpec(node_name="node-2"))
    store, changed = stored(node("True"), pool(), SERVED, elsewhere, pod([SERVED]), other)
    store.apply(_newer(node("Unknown"), "2"))
    assert KEY in changed
    assert GroupKey(NAMESPACE, group_of(elsewhere)) not in changed
    assert list(store.view(KEY, NOW, RuntimeView()).lost.values()) == [WHY]


def test_a_heartbeat_is_news_for_nobody() -> None:
    store, changed = stored(node("True"), pool(), SERVED, pod([SERVED]))
    store.apply(_newer(node("True"), "2"))
    assert KEY not in changed


def test_a_group_whose_pod_is_left_behind_queues_for_a_port_while_the_old_one_is_held() -> None:
    gone = terminating(pod([SERVED]), ago(STRANDED_MARGIN_SECONDS))
    waiting = having(SERVED, phase="Pending", ready_time=None)
    store, _ = stored(node(), pool(), avatar(), waiting, service(SERVED), gone)
    key = PoolKey(NAMESPACE, "default")
    assert store.waiting(key) == [KEY]
    assert store.held(key) == [8615]
    seen = store.view(KEY, NOW, RuntimeView())
    assert (seen.pods, seen.claims, seen.stranded) == ((), (), (gone,))
    assert seen.admission.port == 8616
    store.remove(Pod, NAMESPACE, gone.metadata.name, gone.metadata.uid)
    after = store.view(KEY, NOW, RuntimeView())
    assert [c.metadata.name for c in after.claims] == ["avatar-8615"]
    assert store.waiting(key) == []


def test_without_nodes_nobody_is_left_behind() -> None:
    """The operator that may not read them waits for the pod, as for one that ends slowly."""
    store, _ = stored(pool(), avatar(), SERVED, service(SERVED), terminating(pod([SERVED]), ago(3600)))
    seen = store.view(KEY, NOW, RuntimeView())
    assert len(seen.pods) == 1
    assert not seen.stranded
