"""The gauges that are counted from the store when Prometheus asks."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry

from avatar_operator.controller.metrics import StoreCollector
from avatar_operator.controller.store import Store
from avatar_operator.domain.placement import Placement
from avatar_operator.kube.kinds import AnyObject
from tests.unit.builders import NAMESPACE, NOW, avatar, having, instance, later, pool, service
from tests.unit.gpu_builders import A0, VISIBLE, gpu, gpunode, node

LABELS = {"namespace": NAMESPACE, "pool": "default"}


def registry_of(*items: AnyObject) -> CollectorRegistry:
    """What a store that knows these objects tells."""
    store = Store(lambda _: None, lambda: NOW)
    for item in items:
        store.apply(item)
    registry = CollectorRegistry()
    registry.register(StoreCollector(store))
    return registry


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    """A sample's value."""
    return registry.get_sample_value(f"avatar_operator_{name}", {**LABELS, **labels})


def made(name: str, avatar_name: str, **status: Any) -> AnyObject:
    """An instance with that status."""
    return having(instance(name, avatar_name), **status)


def test_the_old_managers_figures() -> None:
    """Running of max, connections, avatars that several use; what waits, and for what."""
    found = registry_of(
        pool(max_instances=4),
        avatar("Ada"),
        made("a", "Ada", phase="Running", connections=2),
        made("b", "Ada", phase="Shared", connections=1),
        made("c", "Bruno", phase="Running", connections=1),
        made("d", "Cleo", phase="Shared", connections=1),
        made("e", "Cleo", phase="Running", connections=1),
        made("f", "Dan", phase="Pending", reason="PortsExhausted"),
        made("g", "Eve", phase="Pending", reason="GPUExhausted"),
        made("h", "Fay", phase="Pending", reason="GPUExhausted"),
        made("i", "Gil", phase="Pending", reason="Terminating"),
    )
    assert value(found, "instances", phase="Running") == 3
    assert value(found, "instance_limit") == 4
    assert value(found, "connections") == 6
    assert value(found, "shared_avatars") == 2, "Ada and Cleo; one connection of Bruno's is not shared"
    waiting = {r: value(found, "waiting_instances", reason=r) for r in ("GPUExhausted", "PoolFull", "PortsExhausted")}
    assert waiting == {"GPUExhausted": 2, "PoolFull": 0, "PortsExhausted": 1}


def test_gpus_with_what_is_kept_on_them_and_until_when_a_report_counts() -> None:
    server = instance("a", "Ada")
    report = gpunode("a", gpu(A0, 0), at=NOW)
    found = registry_of(VISIBLE, node("a"), report, server, service(server, placement=Placement(4000, "a", A0, 0)))
    kept = found.get_sample_value("avatar_operator_gpu_pods_reserved_bytes", {"node": "a", "UUID": A0})
    assert kept == 4000 << 20
    stale = found.get_sample_value("avatar_operator_gpu_report_stale_timestamp_seconds", {"node": "a"})
    assert stale == later(90).timestamp(), "three heartbeats of 30 s"
