"""A claim, or an engine's Service, that somebody changed: the smallest patch that leads it back, and no other."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from avatar_operator.domain import names, tts_plan
from avatar_operator.domain.actions import MendClaim
from avatar_operator.domain.placement import Placement
from avatar_operator.domain.plan import plan
from avatar_operator.domain.resources import Pod, Service, ServicePort
from avatar_operator.domain.tts_view import PatchTtsService
from avatar_operator.domain.view import GpuView
from tests.unit import tts_builders
from tests.unit.builders import instance, pod, service, view
from tests.unit.gpu_builders import A0, A1, DRA, VISIBLE, gpu_pod
from tests.unit.model import merge

ONE = instance()
ON_A0, ON_A1 = Placement(4000, "a", A0, 0), Placement(4000, "a", A1, 1)
SELECTOR = service(ONE).spec.selector


def changed(item: Service, *, labels: Any = None, annotations: Any = None, **spec: Any) -> Service:
    """The Service after somebody's hand; None takes a label away."""
    meta = item.metadata
    meta = msgspec.structs.replace(
        meta,
        labels=merge(meta.labels, labels or {}),
        annotations=merge(meta.annotations, annotations or {}),
    )
    return Service(metadata=meta, spec=msgspec.structs.replace(item.spec, **spec))


def mend(claim: Service, made: Pod | None = None, **fields: Any) -> dict[str, Any] | None:
    """The change that the plan asks for; None = none."""
    result = plan(view(ONE, claims=(claim,), pods=(made or pod([ONE]),), **fields))
    found = [a for a in result.actions if isinstance(a, MendClaim)]
    assert len(found) <= 1
    return found[0].change if found else None


def after(claim: Service, change: dict[str, Any]) -> Service:
    """The claim with the change applied, as the API server does it."""
    return msgspec.convert(merge(msgspec.to_builtins(claim), change), Service)


HANDS = {
    "another selector": changed(service(ONE), selector={"a": "b"}),
    "one more in the selector": changed(service(ONE), selector={**SELECTOR, "a": "b"}),
    "no selector": changed(service(ONE), selector={}),
    "another port": changed(service(ONE), ports=(ServicePort(name="signalling", port=80, target_port=8615),)),
    "one more port": changed(service(ONE), ports=(*service(ONE).spec.ports, ServicePort(name="b", port=1))),
    "only ready pods": changed(service(ONE), publish_not_ready_addresses=False),
    "another pool": changed(service(ONE), labels={names.LABEL_POOL: "other"}),
    "another manager": changed(service(ONE), labels={names.LABEL_MANAGED_BY: "other"}),
    "no port": changed(service(ONE), labels={names.LABEL_PORT: None}),
    "another avatar": changed(service(ONE), annotations={names.ANNOTATION_AVATAR: "Zoe"}),
    "a GPU": changed(service(ONE), labels={names.LABEL_GPU: A0}, annotations={names.ANNOTATION_GPU_MIB: "4000"}),
}


@pytest.mark.parametrize("hand", HANDS)
def test_what_the_operator_decides_is_written_again(hand: str) -> None:
    claim = HANDS[hand]
    change = mend(claim)
    assert change is not None
    whole = after(claim, change)
    assert whole == service(ONE)
    assert mend(whole) is None


def test_what_others_add_stays() -> None:
    more = changed(service(ONE), labels={"team": "a"}, annotations={"note": "b"})
    assert mend(more) is None
    both = changed(more, selector={"a": "b"})
    change = mend(both)
    assert change is not None
    assert after(both, change) == more


def test_a_claim_names_the_gpu_that_its_pod_has() -> None:
    gpu = GpuView(reserved=ON_A1)
    made = gpu_pod(ONE, ON_A0, on="a")
    change = mend(service(ONE, 8615, ON_A1), made, pool=VISIBLE, gpu=gpu)
    assert change is not None
    assert after(service(ONE, 8615, ON_A1), change) == service(ONE, 8615, ON_A0)
    assert mend(service(ONE, 8615, ON_A0), made, pool=VISIBLE, gpu=gpu) is None


def test_where_others_choose_the_gpu_claim_and_pod_may_differ() -> None:
    """Between the claim and the pod another node may have become the likelier one."""
    claimed, got = Placement(4000, nodes=("a",)), Placement(4200, nodes=("b",))
    made = gpu_pod(ONE, got, on="b", mode="DRA")
    assert mend(service(ONE, 8615, claimed), made, pool=DRA, gpu=GpuView(reserved=claimed)) is None


def test_an_engines_service_is_led_back() -> None:
    cosy = tts_builders.engine("cosyvoice")
    whole = tts_builders.service(cosy)

    def patched(item: Service) -> dict[str, Any] | None:
        seen = tts_builders.running(cosy, tts_builders.pod(cosy), service=item, users=1)
        found = [a for a in tts_plan.plan(seen).actions if isinstance(a, PatchTtsService)]
        return found[0].body if found else None

    assert patched(whole) is None
    strange = changed(whole, selector={"a": "b"})
    change = patched(strange)
    assert change is not None
    assert after(strange, change).spec == whole.spec
