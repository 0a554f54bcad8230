"""Small factories for what plans look at. Every time is relative to NOW; every object lives in namespace "live"."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from avatar_operator.controller.keys import Key
from avatar_operator.controller.store import Store
from avatar_operator.domain import media, names, objects
from avatar_operator.domain.actions import Action, PatchStatus, Plan
from avatar_operator.domain.eviction import marks
from avatar_operator.domain.placement import Placement
from avatar_operator.domain.ports import Admission
from avatar_operator.domain.resources import (
    Avatar,
    AvatarSpec,
    Condition,
    ContainerState,
    ContainerStatus,
    Gpu,
    Instance,
    InstanceMeta,
    InstanceSpec,
    InstanceStatus,
    Limits,
    MediaStatus,
    Meta,
    Network,
    OwnerReference,
    Pod,
    PodSpec,
    PodStatus,
    Pool,
    PoolIdle,
    PoolSpec,
    PoolTts,
    Ports,
    Running,
    Runtime,
    Service,
    ServiceSpec,
    Terminated,
    Waiting,
)
from avatar_operator.domain.settings import resolve
from avatar_operator.domain.view import Activity, GroupKey, GroupView, RuntimeView
from avatar_operator.kube.kinds import AnyObject

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
NAMESPACE = "live"
PORT = 8615
IMAGE = "registry.example/runtime:1"


def ago(seconds: float) -> datetime:
    """NOW minus so many seconds."""
    return NOW - timedelta(seconds=seconds)


def later(seconds: float) -> datetime:
    """NOW plus so many seconds."""
    return NOW + timedelta(seconds=seconds)


def meta(name: str, **fields: Any) -> Meta:
    """Metadata; the UID follows from the name unless it is given."""
    return Meta(**_meta(name, **fields))


def _meta(name: str, **fields: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "namespace": NAMESPACE,
        "uid": f"uid-{name}",
        "resource_version": "1",
        "generation": 1,
        "creation_timestamp": ago(3600),
    }
    return {"name": name, **given, **fields}


def pool(name: str = "default", *, image: str = IMAGE, runtime: dict[str, Any] | None = None, **spec: Any) -> Pool:
    """An AvatarPool of five ports for CPUs; ``runtime`` and ``spec`` override."""
    return Pool(metadata=meta(name), spec=PoolSpec(runtime=Runtime(image=image, **(runtime or {})), **spec))


def avatar(avatar_name: str = "Ada", *, name: str = "", created: datetime | None = None, **spec: Any) -> Avatar:
    """An Avatar whose data the image holds."""
    made = meta(name or "av-" + avatar_name.lower().replace(" ", "-"), creation_timestamp=created or ago(7200))
    return Avatar(metadata=made, spec=AvatarSpec(avatar_name=avatar_name, **spec))


def instance(
    name: str = "one",
    avatar_name: str = "Ada",
    *,
    age: float = 600,
    status: InstanceStatus | None = None,
    metadata: dict[str, Any] | None = None,
    **spec: Any,
) -> Instance:
    """An AvatarInstance created ``age`` seconds before NOW."""
    return Instance(
        metadata=InstanceMeta(**_meta(name, **{"creation_timestamp": ago(age), **(metadata or {})})),
        spec=InstanceSpec(avatar_name=avatar_name, **spec),
        status=status or InstanceStatus(),
    )


def having(item: Instance, **status: Any) -> Instance:
    """``item`` with some fields of its status changed."""
    return msgspec.structs.replace(item, status=msgspec.structs.replace(item.status, **status))


def newer(item: Any, version: int = 2) -> Any:
    """``item`` in a later state."""
    return msgspec.structs.replace(item, metadata=msgspec.structs.replace(item.metadata, resource_version=str(version)))


def group_of(item: Instance) -> str:
    """The group id of an instance."""
    return names.group_id(item.spec.pool_ref, item.spec.avatar_name, item.metadata.uid if item.spec.exclusive else "")


def service(server: Instance, port: int = PORT, placement: Placement | None = None, **fields: Any) -> Service:
    """The claim of ``port``, and of a part of a GPU, for the group of ``server``; ``fields``: of its metadata."""
    body = objects.service(server, group_of(server), port, placement)
    made = {"labels": body["metadata"]["labels"], "annotations": body["metadata"]["annotations"], **fields}
    return Service(metadata=meta(names.claim_name(port), **made), spec=msgspec.convert(body["spec"], ServiceSpec))


def running(*, since: datetime | None = None, ready: bool = False, restarts: int = 0) -> ContainerStatus:
    """A runtime container that runs."""
    state = ContainerState(running=Running(started_at=since or ago(10)))
    return ContainerStatus(name="runtime", ready=ready, restart_count=restarts, state=state)


def waiting(reason: str, message: str = "", *, restarts: int = 0, last: Terminated | None = None) -> ContainerStatus:
    """A runtime container that does not run yet, or not again."""
    return ContainerStatus(
        name="runtime",
        restart_count=restarts,
        state=ContainerState(waiting=Waiting(reason=reason, message=message)),
        last_state=ContainerState(terminated=last),
    )


def terminated(exit_code: int, reason: str = "Error", message: str = "", *, restarts: int = 0) -> ContainerStatus:
    """A runtime container that has just ended."""
    end = Terminated(exit_code=exit_code, reason=reason, message=message)
    return ContainerStatus(name="runtime", restart_count=restarts, state=ContainerState(terminated=end))


def condition(kind: str, status: str, reason: str = "", message: str = "", since: datetime | None = None) -> Condition:
    """A condition of a pod or of an instance."""
    return Condition(type=kind, status=status, reason=reason, message=message, last_transition_time=since)


def bare_pod(*, container: ContainerStatus | None = None, age: float = 60, **status: Any) -> Pod:
    """A pod of which only the state matters, created ``age`` seconds before NOW."""
    return Pod(
        metadata=meta(names.claim_name(PORT), creation_timestamp=ago(age)),
        status=PodStatus(container_statuses=(container,) if container else (), **status),
    )


def pod(
    members: list[Instance],
    *,
    in_pool: Pool | None = None,
    of: Avatar | None = None,
    port: int = PORT,
    state: str = "ready",
    age: float = 60,
    new: bool = False,
    metadata: dict[str, Any] | None = None,
    **status: Any,
) -> Pod:
    """The pod as the operator would make it for ``members``; ``state``: pending, starting, ready or unready.

    ``new``: as it is made; else marked as one that somebody has come to.
    """
    server, in_pool = members[0], in_pool or pool()
    settings = resolve(server, in_pool, of or avatar(server.spec.avatar_name))
    body = objects.pod(in_pool, members, settings, group_of(server), port)
    made = body["metadata"]
    if not new:
        made["labels"] |= marks(in_use=True)[0]
    containers: tuple[ContainerStatus, ...] = ()
    if state != "pending":
        restarts = 1 if state == "unready" else 0
        containers = (running(since=ago(age - 1), ready=state == "ready", restarts=restarts),)
    ready = condition("Ready", "True" if state == "ready" else "False")
    return Pod(
        metadata=meta(
            made["name"],
            **{
                "creation_timestamp": ago(age),
                "labels": made["labels"],
                "annotations": made["annotations"],
                "owner_references": tuple(msgspec.convert(o, OwnerReference) for o in made["ownerReferences"]),
                **(metadata or {}),
            },
        ),
        spec=PodSpec(node_name="node-1"),
        status=PodStatus(
            **{
                "phase": "Pending" if state == "pending" else "Running",
                "conditions": (ready,),
                "container_statuses": containers,
                "host_ip": "192.0.2.7",
                "pod_ip": "192.0.2.7",
                "start_time": ago(age),
                **status,
            }
        ),
    )


def ending(item: Pod) -> Pod:
    """``item`` with its deletion asked for."""
    return msgspec.structs.replace(item, metadata=msgspec.structs.replace(item.metadata, deletion_timestamp=ago(1)))


def view(*members: Instance, now: datetime = NOW, **fields: Any) -> GroupView:
    """A group's view: the default pool and the members' avatar unless something else is given."""
    known: dict[str, Any] = {
        "members": tuple(sorted(members, key=lambda m: m.age_key)),
        "pool": pool(),
        "avatar": avatar(members[0].spec.avatar_name) if members else None,
    }
    key = GroupKey(NAMESPACE, group_of(members[0]) if members else "0" * 16)
    whole = GroupView(key, now, **{**known, **fields})
    if whole.runtime.media is None:
        # Probes of media go beside all else: test_media.py is about them.
        whole = replace(whole, runtime=replace(whole.runtime, media=NOT_PROBED))
    return whole


NOT_PROBED = media.MediaReport(NOW, supported=False)
"""What stock LiveTalking answers."""


def media_told() -> tuple[MediaStatus, Condition]:
    """What status says of the media of such a runtime in the default pool."""
    in_pool, made = pool(), pod([instance()])
    told = media.condition(in_pool, made, NOT_PROBED)
    return media.status(in_pool, made, PORT, NOT_PROBED), condition(*told, ago(50))


def seen(sessions: int | None, *, at: datetime = NOW, **fields: Any) -> Activity:
    """What the runtime said at ``at``."""
    return Activity(at, sessions, **fields)


def patches(result: Plan) -> dict[str, dict[str, Any]]:
    """The planned status patches by instance; two for one instance are an error."""
    found = [a for a in result.actions if isinstance(a, PatchStatus)]
    named = {a.instance.metadata.name: a.status for a in found}
    assert len(named) == len(found), f"two patches for one instance in one plan: {found}"
    return named


def kinds(actions: list[Action]) -> list[str]:
    """The names of the actions' types, sorted."""
    return sorted(type(a).__name__ for a in actions)


__all__ = [
    "IMAGE",
    "NAMESPACE",
    "NOW",
    "PORT",
    "Activity",
    "Admission",
    "Gpu",
    "Limits",
    "Network",
    "PoolIdle",
    "PoolTts",
    "Ports",
    "RuntimeView",
    "ago",
    "avatar",
    "bare_pod",
    "condition",
    "ending",
    "group_of",
    "having",
    "instance",
    "kinds",
    "later",
    "meta",
    "patches",
    "pod",
    "pool",
    "replace",
    "running",
    "seen",
    "service",
    "terminated",
    "view",
    "waiting",
]


def stored(*items: AnyObject) -> tuple[Store, list[Key]]:
    """A store of these objects, and what it has reported since."""
    changed: list[Key] = []
    store = Store(changed.append, lambda: NOW)
    for item in items:
        store.apply(item)
    changed.clear()
    return store, changed
