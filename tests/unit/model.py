"""A model of what plan() works on: objects in dictionaries, pods that live and die, runtimes with sessions.

No API server: it has names that are taken, resourceVersions, UIDs as preconditions and merge patches, because plans
rely on these, and nothing else. The operator's side (store, memory, queue, timers) is the real Store and a few lines
that do what controller/reconciler.py and controller/executor.py do.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

import msgspec

from avatar_operator.controller.executor import Memory
from avatar_operator.controller.keys import AvatarKey, Key, PoolKey
from avatar_operator.controller.store import Store
from avatar_operator.domain.actions import (
    Action,
    CreateClaim,
    CreatePod,
    DeleteInstance,
    DeletePod,
    MarkInUse,
    MendClaim,
    PatchStatus,
    Plan,
    ProbeActivity,
    ProbeMedia,
    ProbeReady,
    ReleaseClaim,
    SetDraining,
    SetOwners,
)
from avatar_operator.domain.audit import audit
from avatar_operator.domain.eviction import marks
from avatar_operator.domain.findings import Picture
from avatar_operator.domain.media import MediaReport
from avatar_operator.domain.names import LABEL_GROUP, LABEL_IN_USE, LABEL_PORT, claim_name, group_id
from avatar_operator.domain.plan import BELIEVE_SECONDS, plan, wants_to_run
from avatar_operator.domain.resources import (
    Avatar,
    Condition,
    ContainerState,
    ContainerStatus,
    Instance,
    InstanceMeta,
    InstanceStatus,
    Meta,
    OwnerReference,
    Pod,
    PodSpec,
    PodStatus,
    Pool,
    Running,
    Service,
    ServiceSpec,
    Terminated,
    Waiting,
)
from avatar_operator.domain.settings import check
from avatar_operator.domain.view import Activity, GroupKey
from avatar_operator.kube.kinds import AnyObject
from tests.unit.builders import NAMESPACE, NOW

MAX_PASSES = 12
A = TypeVar("A", Pool, Avatar, Instance, Pod, Service)


@dataclass
class Runtime:
    """The process in one pod; it forgets everything when its container restarts."""

    sessions: dict[str, int] = field(default_factory=dict)
    draining: bool = False
    reachable: bool = True
    idle_since: datetime = NOW


class Model:
    """The world, and one operator in it."""

    def __init__(self, pool: Pool, avatars: list[Avatar], *, says_idle_seconds: bool = True) -> None:
        self.now = NOW
        self.says_idle_seconds = says_idle_seconds
        self.count = 0
        self.objects: dict[type[AnyObject], dict[str, AnyObject]] = {
            Pool: {},
            Avatar: {},
            Instance: {},
            Pod: {},
            Service: {},
        }
        self.runtimes: dict[str, Runtime] = {}
        # By pod: the moment (a count) at which its runtime last said yes to a drain.
        self.drained: dict[str, int] = {}
        self.unseen: list[tuple[type[AnyObject], str]] = []
        self.lagging = False
        # Called before each action: what others do in that very moment.
        self.meddle: Callable[[Action], None] = lambda action: None
        self.patience = MAX_PASSES
        self.writes: list[str] = []
        self.restart()
        self._put(pool)
        for avatar in avatars:
            self._put(avatar)

    # ---- objects -----------------------------------------------------------------

    @property
    def pool(self) -> Pool:
        """The one AvatarPool."""
        (found,) = self.objects[Pool].values()
        assert isinstance(found, Pool)
        return found

    def all(self, kind: type[A]) -> list[A]:
        """All objects of a kind, by name."""
        return [item for _, item in sorted(self.objects[kind].items()) if isinstance(item, kind)]

    def avatars(self) -> list[Avatar]:
        """All Avatars."""
        return self.all(Avatar)

    def get(self, kind: type[A], name: str) -> A | None:
        """An object, if it is there."""
        found = self.objects[kind].get(name)
        return found if isinstance(found, kind) else None

    def _next(self) -> int:
        self.count += 1
        return self.count

    def _put(self, item: A, *, tell: bool = True) -> A:
        """Write an object; the store learns it now or, when watches lag, later."""
        versioned = msgspec.structs.replace(
            item, metadata=msgspec.structs.replace(item.metadata, resource_version=str(self._next()))
        )
        self.objects[type(item)][item.metadata.name] = versioned
        if tell:
            self._tell(type(item), item.metadata.name)
        return versioned

    def _drop(self, kind: type[AnyObject], name: str, *, tell: bool = True) -> None:
        self.objects[kind].pop(name, None)
        if tell:
            self._tell(kind, name)

    def _tell(self, kind: type[AnyObject], name: str) -> None:
        if self.lagging:
            self.unseen.append((kind, name))
        else:
            self._deliver(kind, name)

    def _deliver(self, kind: type[AnyObject], name: str) -> None:
        item = self.objects[kind].get(name)
        if item is not None:
            self.store.apply(item)
        else:
            self.store.remove(kind, NAMESPACE, name)

    def deliver(self, limit: int | None = None) -> None:
        """Let the watch catch up, by so many events or wholly."""
        some, self.unseen = self.unseen[:limit], self.unseen[len(self.unseen[:limit]) :]
        for kind, name in some:
            self._deliver(kind, name)

    def _meta(self, name: str, **fields: Any) -> Meta:
        return Meta(
            name=name,
            namespace=NAMESPACE,
            uid=f"{name}-{self._next()}",
            creation_timestamp=self.now.replace(microsecond=0),
            generation=1,
            **fields,
        )

    # ---- what users and nodes do ---------------------------------------------------

    def create(self, name: str, spec: Any) -> Instance:
        """A user applies an AvatarInstance."""
        metadata = InstanceMeta(**msgspec.structs.asdict(self._meta(name)))
        return self._put(Instance(metadata=metadata, spec=spec))

    def delete(self, name: str) -> None:
        """A user deletes an AvatarInstance."""
        self._drop(Instance, name)

    def change_pool(self, **spec: Any) -> None:
        """An administrator changes the pool."""
        self._put(msgspec.structs.replace(self.pool, spec=msgspec.structs.replace(self.pool.spec, **spec)), tell=False)
        self._deliver(Pool, self.pool.metadata.name)

    def add_avatar(self, avatar: Avatar) -> None:
        """An administrator adds an Avatar."""
        self._put(avatar)

    def count_connections(self, name: str, number: int) -> None:
        """A backend patches status.connections."""
        item = self.get(Instance, name)
        assert item is not None
        self._put(msgspec.structs.replace(item, status=msgspec.structs.replace(item.status, connections=number)))

    def _pod_status(self, pod: Pod, **status: Any) -> Pod:
        return self._put(msgspec.structs.replace(pod, status=msgspec.structs.replace(pod.status, **status)))

    def progress(self, pod: Pod) -> bool:
        """One step of a pod towards being ready, or gone; False when there is none."""
        if pod.metadata.deletion_timestamp is not None:
            self.runtimes.pop(pod.metadata.uid, None)
            self._drop(Pod, pod.metadata.name)
            return True
        if pod.status.phase in ("Failed", "Succeeded") or is_ready(pod):
            return False
        container = pod.status.container_statuses[0] if pod.status.container_statuses else None
        restarts = container.restart_count if container else 0
        if container is not None and container.state.waiting and "Pull" in container.state.waiting.reason:
            return False
        if container is None or container.state.running is None:
            status = ContainerStatus(
                name="runtime",
                restart_count=restarts + (1 if container and container.state.terminated else 0),
                state=ContainerState(running=Running(started_at=self.now.replace(microsecond=0))),
            )
            start = pod.status.start_time or self.now.replace(microsecond=0)
            addresses = {"host_ip": "192.0.2.7", "pod_ip": "192.0.2.7"}
            self._pod_status(pod, phase="Running", container_statuses=(status,), start_time=start, **addresses)
            return True
        if pod.metadata.uid not in self.runtimes:
            # It serves; the kubelet will know by its next probe.
            self.runtimes[pod.metadata.uid] = Runtime(idle_since=self.now)
            return True
        ready = msgspec.structs.replace(container, ready=True)
        self._pod_status(pod, container_statuses=(ready,), conditions=(Condition(type="Ready", status="True"),))
        return True

    def fail_pod(self, pod: Pod, how: str) -> None:
        """A pod fails: evicted, exit78, crashloop, completed or pull."""
        unready = (Condition(type="Ready", status="False"),)
        self.runtimes.pop(pod.metadata.uid, None)
        if how == "evicted":
            self._pod_status(pod, phase="Failed", reason="Evicted", message="low on memory", conditions=unready)
        elif how == "completed":
            self._pod_status(pod, phase="Succeeded", conditions=unready)
        else:
            states = {
                "exit78": ContainerState(terminated=Terminated(exit_code=78, message="no such avatar")),
                "crashloop": ContainerState(waiting=Waiting(reason="CrashLoopBackOff")),
                "pull": ContainerState(waiting=Waiting(reason="ImagePullBackOff")),
            }
            status = ContainerStatus(
                name="runtime",
                restart_count=3 if how == "crashloop" else 0,
                state=states[how],
                last_state=ContainerState(terminated=Terminated(exit_code=1) if how == "crashloop" else None),
            )
            self._pod_status(pod, container_statuses=(status,), conditions=unready)

    def restart_container(self, pod: Pod) -> None:
        """The runtime crashes once; its sessions are gone and it does not know of a drain."""
        self.runtimes.pop(pod.metadata.uid, None)
        count = pod.status.container_statuses[0].restart_count if pod.status.container_statuses else 0
        status = ContainerStatus(
            name="runtime", restart_count=count, state=ContainerState(terminated=Terminated(exit_code=139))
        )
        self._pod_status(pod, container_statuses=(status,), conditions=(Condition(type="Ready", status="False"),))

    def end_pod(self, pod: Pod) -> None:
        """Somebody deletes a pod: it terminates."""
        if pod.metadata.deletion_timestamp is None:
            self._put(
                msgspec.structs.replace(
                    pod, metadata=msgspec.structs.replace(pod.metadata, deletion_timestamp=self.now)
                )
            )

    def lose_pod(self, pod: Pod) -> None:
        """A pod vanishes at once (deleted by force)."""
        self.runtimes.pop(pod.metadata.uid, None)
        self._drop(Pod, pod.metadata.name)

    def lose_claim(self, name: str) -> None:
        """Somebody deletes a Service."""
        self._drop(Service, name)

    def collect_garbage(self) -> bool:
        """Kubernetes ends pods whose owners are all gone."""
        uids = {i.metadata.uid for i in self.all(Instance)}
        orphans = [
            p
            for p in self.all(Pod)
            if p.metadata.deletion_timestamp is None and not uids & {o.uid for o in p.metadata.owner_references}
        ]
        for pod in orphans:
            self.end_pod(pod)
        return bool(orphans)

    def open_session(self, pod: Pod, name: str) -> bool:
        """A client in a page connects; False when the runtime refuses."""
        runtime = self.runtimes.get(pod.metadata.uid)
        if runtime is None or runtime.draining:
            return False
        runtime.sessions[name] = self._next()
        return True

    def close_session(self, pod: Pod, name: str) -> None:
        """It leaves."""
        runtime = self.runtimes[pod.metadata.uid]
        del runtime.sessions[name]
        if not runtime.sessions:
            runtime.idle_since = self.now

    # ---- the operator -----------------------------------------------------------------

    def restart(self) -> None:
        """A new process: everything is listed, nothing is remembered."""
        self.memory: dict[GroupKey, Memory] = {}
        self.queue: dict[Key, None] = {}
        self.timers: dict[Key, datetime] = {}
        self.unseen = []
        self.store = Store(self._changed, lambda: self.now)
        for kind in (Pool, Avatar, Service, Pod, Instance):
            for item in self.objects[kind].values():
                self.store.apply(item)

    def _changed(self, key: Key) -> None:
        self.queue[key] = None

    def observe(self, key: GroupKey) -> Plan | None:
        """One plan for a group, as the reconciler makes it; None when the group is gone."""
        memory = self.memory.setdefault(key, Memory())
        self.store.refresh(key, self.now)
        if self.store.pool_of(key) is None:
            del self.memory[key]
            return None
        view = self.store.view(key, self.now, memory.runtime, memory.rejection)
        live = [p for p in view.pods if p.metadata.deletion_timestamp is None]
        if live:
            memory.about(next((p for p in live if p.metadata.uid == memory.pod_uid), live[0]))
            view = self.store.view(key, self.now, memory.runtime, memory.rejection)
        result = plan(memory.note(view))
        check_plan(result)
        return result

    def reconcile(self, key: Key) -> None:
        """Plan and act until there is nothing to do."""
        self.queue.pop(key, None)
        if isinstance(key, PoolKey):
            for group in self.store.waiting(key):
                self.queue.setdefault(group, None)
            return
        if isinstance(key, AvatarKey):
            return
        history = []
        for _ in range(self.patience):
            result = self.observe(key)
            if result is None or not result.actions:
                if result is not None and result.wake is not None:
                    self.timers[key] = min(result.wake, self.timers.get(key, result.wake))
                return
            history.append(result.actions)
            self.act(key, result.actions)
        raise AssertionError(f"no fixpoint in {self.patience} passes: {history}")

    def act(self, key: GroupKey, actions: list[Action], order: random.Random | None = None) -> None:
        """Carry out the actions of one plan, in any order."""
        pool = self.prepare(key, actions)
        for action in order.sample(actions, len(actions)) if order else actions:
            self.meddle(action)
            self.perform(key, pool, action)

    def prepare(self, key: GroupKey, actions: list[Action]) -> PoolKey:
        """What happens between a plan and its first request."""
        pool = self.store.pool_of(key)
        assert pool is not None
        for action in actions:
            if isinstance(action, CreateClaim):
                self.store.reserve(key, pool, action.port)
            elif isinstance(action, CreatePod):
                self.store.expect_pod(key, pool, int(action.body["metadata"]["labels"][LABEL_PORT]))
        self.memory.setdefault(key, Memory()).rejection = None
        return pool

    def perform(self, key: GroupKey, pool: PoolKey, action: Action) -> None:
        """Carry out one action, as controller.executor does."""
        memory = self.memory.setdefault(key, Memory())
        match action:
            case CreateClaim(port, body):
                self._create_claim(port, body)
                self.store.unreserve(key, pool)
            case MendClaim():
                self._mend_claim(action)
            case ReleaseClaim(service):
                self._release_claim(service)
            case CreatePod(body):
                self._create_pod(key, memory, body)
                self.store.pod_came(key, pool, int(body["metadata"]["labels"][LABEL_PORT]))
            case DeletePod(pod, reason):
                if reason != "NotWanted" or not self._wanted_after_all(key, pod):
                    self._delete_pod(pod, reason)
            case SetOwners(pod, owners):
                self._set_owners(pod, owners)
            case MarkInUse(pod, in_use):
                self._mark(pod, in_use)
            case PatchStatus():
                self._patch_status(action)
            case DeleteInstance():
                self._delete_instance(action)
            case ProbeActivity(pod):
                memory.about(pod)
                memory.runtime = replace(memory.runtime, activity=self._ask(pod))
            case ProbeMedia(pod):
                memory.about(pod)
                memory.runtime = replace(memory.runtime, media=MediaReport(self.now, supported=False))
            case ProbeReady(pod):
                memory.about(pod)
                runtime = self.runtimes.get(pod.metadata.uid)
                answered = self.now if runtime is not None and runtime.reachable else None
                memory.runtime = replace(memory.runtime, asked_at=self.now, answered_at=answered)
            case SetDraining(pod, _, draining):
                memory.about(pod)
                error = self._tell_draining(pod, draining)
                memory.runtime = replace(memory.runtime, activity=error, draining=draining, told_at=self.now)

    def _wrote(self, verb: str, kind: type[AnyObject], name: str) -> None:
        self.writes.append(f"{verb} {kind.__name__} {name}")

    def _create_claim(self, port: int, body: dict[str, Any]) -> None:
        name = claim_name(port)
        self._wrote("POST", Service, name)
        if name not in self.objects[Service]:
            pod = self.get(Pod, name)
            group = body["metadata"]["labels"][LABEL_GROUP]
            if pod is None:
                held = set(self.objects[Service]) | set(self.objects[Pod])
                assert len(held) < self.pool.spec.capacity, f"{name}: {sorted(held)} are all that the pool may have"
            else:
                assert pod.metadata.labels[LABEL_GROUP] == group, f"{name} belongs to the pod of another group"
            made = body["metadata"]
            metadata = self._meta(name, labels=made["labels"], annotations=made["annotations"])
            self._put(Service(metadata=metadata, spec=msgspec.convert(body["spec"], ServiceSpec)), tell=False)
        self._deliver(Service, name)

    def _mend_claim(self, action: MendClaim) -> None:
        meta = action.service.metadata
        self._wrote("PATCH", Service, meta.name)
        known = self.get(Service, meta.name)
        if known is not None and known.metadata.resource_version == meta.resource_version:
            merged = merge(msgspec.to_builtins(known), action.change)
            self._put(msgspec.convert(merged, Service), tell=False)
        self._deliver(Service, meta.name)

    def _release_claim(self, service: Service) -> None:
        name = service.metadata.name
        self._wrote("DELETE", Service, name)
        known = self.get(Service, name)
        if known is not None and known.metadata.uid == service.metadata.uid:
            assert name not in self.objects[Pod], f"the claim {name} is released while its pod is there"
            self._drop(Service, name, tell=False)
        self.store.remove(Service, NAMESPACE, name, service.metadata.uid)

    def _create_pod(self, key: GroupKey, memory: Memory, body: dict[str, Any]) -> None:
        made = body["metadata"]
        name = made["name"]
        self._wrote("POST", Pod, name)
        taken = self.get(Pod, name)
        if taken is None:
            claim = self.get(Service, name)
            if claim is not None:
                assert claim.metadata.labels[LABEL_GROUP] == key.id, f"{name} is claimed by another group"
            owners = tuple(msgspec.convert(o, OwnerReference) for o in made["ownerReferences"])
            pod = Pod(
                metadata=self._meta(
                    name, labels=made["labels"], annotations=made["annotations"], owner_references=owners
                ),
                spec=PodSpec(node_name="node-1"),
                status=PodStatus(),
            )
            self._put(pod, tell=False)
        elif taken.metadata.labels[LABEL_GROUP] != key.id:
            memory.rejection = ("PodNameTaken", f"a pod named {name} exists")
        self._deliver(Pod, name)

    def _wanted_after_all(self, key: GroupKey, pod: Pod) -> bool:
        owners = [o for ref in pod.metadata.owner_references if (o := self.get(Instance, ref.name)) is not None]
        for owner in owners:
            self.store.apply(owner)
        return any(wants_to_run(owner) and group(owner) == key.id for owner in owners)

    def _delete_pod(self, pod: Pod, reason: str) -> None:
        name = pod.metadata.name
        self._wrote("DELETE", Pod, name)
        known = self.get(Pod, name)
        if known is None or known.metadata.uid != pod.metadata.uid:
            self.store.remove(Pod, NAMESPACE, name, pod.metadata.uid)
            return
        if known.metadata.deletion_timestamp is None:
            if reason in ("NotWanted", "Outdated", "MaxAge"):
                self.nobody_is_served(known)
            gone = msgspec.structs.replace(known.metadata, deletion_timestamp=self.now)
            self._put(msgspec.structs.replace(known, metadata=gone), tell=False)
        self._deliver(Pod, name)

    def _set_owners(self, pod: Pod, owners: list[dict[str, Any]]) -> None:
        name = pod.metadata.name
        self._wrote("PATCH", Pod, name)
        known = self.get(Pod, name)
        if known is not None and known.metadata.resource_version == pod.metadata.resource_version:
            refs = tuple(msgspec.convert(o, OwnerReference) for o in owners)
            owned = msgspec.structs.replace(known.metadata, owner_references=refs)
            self._put(msgspec.structs.replace(known, metadata=owned), tell=False)
        self._deliver(Pod, name)

    def _mark(self, pod: Pod, in_use: bool) -> None:
        name = pod.metadata.name
        self._wrote("PATCH", Pod, name)
        known = self.get(Pod, name)
        if known is not None and known.metadata.uid == pod.metadata.uid:
            labels, annotations = marks(in_use)
            marked = msgspec.structs.replace(
                known.metadata,
                labels={**known.metadata.labels, **labels},
                annotations={**known.metadata.annotations, **annotations},
            )
            self._put(msgspec.structs.replace(known, metadata=marked), tell=False)
        self._deliver(Pod, name)

    def _patch_status(self, action: PatchStatus) -> None:
        meta = action.instance.metadata
        self._wrote("PATCH", Instance, meta.name)
        known = self.get(Instance, meta.name)
        if known is None:
            self.store.remove(Instance, NAMESPACE, meta.name, meta.uid)
            return
        current = known.metadata
        fits = not action.exact or current.resource_version == meta.resource_version
        if current.uid == meta.uid and fits:
            if action.status.get("phase") == "Stopped":
                self.nobody_uses(known)
            merged = merge(msgspec.to_builtins(known.status), action.status)
            status = msgspec.convert(merged, InstanceStatus)
            self._put(msgspec.structs.replace(known, status=status), tell=False)
        self._deliver(Instance, meta.name)

    def _delete_instance(self, action: DeleteInstance) -> None:
        meta = action.instance.metadata
        self._wrote("DELETE", Instance, meta.name)
        known = self.get(Instance, meta.name)
        if known is not None and (known.metadata.uid, known.metadata.resource_version) != (
            meta.uid,
            meta.resource_version,
        ):
            self._deliver(Instance, meta.name)
            return
        if known is not None:
            self.nobody_uses(known)
            self._drop(Instance, meta.name, tell=False)
        self.store.remove(Instance, NAMESPACE, meta.name, meta.uid)

    def _ask(self, pod: Pod) -> Activity:
        runtime = self.runtimes.get(pod.metadata.uid)
        if runtime is None or not runtime.reachable:
            return Activity(self.now, None, error="no answer")
        idle = None
        if self.says_idle_seconds:
            idle = 0.0 if runtime.sessions else (self.now - runtime.idle_since).total_seconds()
        return Activity(self.now, len(runtime.sessions), idle, draining=runtime.draining)

    def _tell_draining(self, pod: Pod, draining: bool) -> Activity | None:
        runtime = self.runtimes.get(pod.metadata.uid)
        if runtime is None or not runtime.reachable:
            return Activity(self.now, None, error="no answer")
        runtime.draining = draining
        if draining:
            self.drained[pod.metadata.uid] = self._next()
        return None

    def nobody_is_served(self, pod: Pod) -> None:
        """A pod is ended only when no instance that it serves says both that it runs and that somebody is there."""
        for owner in pod.metadata.owner_references:
            item = self.get(Instance, owner.name)
            if item is not None and item.metadata.uid == owner.uid and item.status.phase in ("Running", "Draining"):
                assert item.counted_connections == 0, f"{pod.metadata.name} is deleted under {owner.name}"

    def nobody_uses(self, instance: Instance) -> None:
        """The rule above all: what somebody uses is not collected."""
        assert instance.counted_connections == 0, f"{instance.metadata.name} is collected with a counted connection"
        for pod in self.all(Pod):
            runtime = self.runtimes.get(pod.metadata.uid)
            if runtime is None or pod.metadata.labels[LABEL_GROUP] != group(instance):
                continue
            # What a runtime took that restarted after it had acknowledged the drain is nobody's mistake.
            limit = self.drained.get(pod.metadata.uid, self.count + 1)
            old = [s for s, began in runtime.sessions.items() if began < limit]
            assert not old, f"{instance.metadata.name} is collected under the sessions {old}"

    # ---- time ---------------------------------------------------------------------------

    def work(self, limit: int = 200) -> None:
        """Reconcile until the queue is empty."""
        for _ in range(limit):
            if not self.queue:
                return
            self.reconcile(next(iter(self.queue)))
        raise AssertionError(f"still busy after {limit} reconciles: {list(self.queue)}")

    def fire(self) -> None:
        """Queue what is due."""
        for key, due in list(self.timers.items()):
            if due <= self.now:
                del self.timers[key]
                self.queue[key] = None

    def pass_time(self, seconds: float) -> None:
        """Time passes; timers that fall due queue their groups."""
        self.now += timedelta(seconds=seconds)
        self.fire()

    def step(self) -> bool:
        """Nodes and the garbage collector do all that they can; False when there is nothing."""
        moved = [self.progress(pod) for pod in self.all(Pod)]
        return any([self.collect_garbage(), *moved])

    def settle(self, horizon: float = BELIEVE_SECONDS) -> None:
        """Work and nodes' work until all is quiet and ``horizon`` seconds have passed."""
        self.lagging = False
        self.deliver()
        end = self.now + timedelta(seconds=horizon)
        # A warm pod that is too old after 90 s is made anew 45 times within the longest horizon, and looked at 13 times
        # each; there may be one on each of three ports.
        for _ in range(3000):
            self.fire()
            self.work()
            if self.step():
                continue
            due = min(self.timers.values(), default=None)
            if due is None or due > end:
                self.now = max(self.now, end)
                return
            self.now = max(self.now, due)
        raise AssertionError(f"never quiet; timers {self.timers}")


# ---- small parts ----------------------------------------------------------------------------


def merge(target: Any, change: dict[str, Any]) -> dict[str, Any]:
    """RFC 7386."""
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in change.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value) if isinstance(value, dict) else value
    return merged


def group(instance: Instance) -> str:
    """The group id of an instance."""
    spec = instance.spec
    return group_id(spec.pool_ref, spec.avatar_name, instance.metadata.uid if spec.exclusive else "")


def is_ready(pod: Pod) -> bool:
    """Whether the pod has the condition Ready."""
    ready = pod.condition("Ready")
    return ready is not None and ready.status == "True"


def check_plan(result: Plan) -> None:
    """What holds for every plan: its actions do not get into each other's way."""
    written = [a.instance.metadata.uid for a in result.actions if isinstance(a, (PatchStatus, DeleteInstance))]
    assert len(written) == len(set(written)), f"two writes to one instance in one plan: {result.actions}"
    pods = [a.pod.metadata.uid for a in result.actions if isinstance(a, DeletePod)]
    assert len(pods) == len(set(pods)), f"a pod is deleted twice: {result.actions}"
    claimed = [a.port for a in result.actions if isinstance(a, CreateClaim)]
    assert len(claimed) <= 1, f"two claims in one plan: {result.actions}"
    released = {a.service.metadata.name for a in result.actions if isinstance(a, ReleaseClaim)}
    assert not released & {a.body["metadata"]["name"] for a in result.actions if isinstance(a, CreatePod)}


def picture_of(model: Model) -> Picture:
    """The whole model, for the audit."""
    kinds = (model.all(Instance), [model.pool], model.avatars(), model.all(Pod), model.all(Service))
    return Picture(model.now, *(tuple(items) for items in kinds))  # type: ignore[arg-type]


def assert_consistent(model: Model) -> None:
    """What must hold once all is quiet."""
    assert audit(picture_of(model)) == []
    instances, pods = model.all(Instance), {p.metadata.name: p for p in model.all(Pod)}
    avatars = {a.spec.avatar_name: a for a in model.all(Avatar)}
    groups: dict[str, list[Instance]] = {}
    for one in sorted(instances, key=lambda i: i.age_key):
        groups.setdefault(group(one), []).append(one)
        if wants_to_run(one) and check(one, model.pool, avatars.get(one.spec.avatar_name)) is not None:
            # What it refers to may still be on its way.
            young = model.now < one.age_key[0] + timedelta(seconds=BELIEVE_SECONDS)
            assert one.status.phase == "Failed" or (young and not one.status.phase), one
    for service in model.all(Service):
        name = service.metadata.name
        assert name in pods, f"{name} is a claim that leaked"
        assert service.metadata.labels[LABEL_GROUP] == pods[name].metadata.labels[LABEL_GROUP]
    positions: list[tuple[int, Any]] = []
    for gid, members in groups.items():
        own = [p for p in pods.values() if p.metadata.labels[LABEL_GROUP] == gid]
        valid = [
            m for m in members if wants_to_run(m) and check(m, model.pool, avatars.get(m.spec.avatar_name)) is None
        ]
        assert len(own) <= 1, f"two pods for one avatar: {own}"
        assert own or not any(m.status.port or m.status.pod_name or m.status.ready_time for m in members)
        if not valid:
            continue
        server, *followers = valid
        # An old pod drains for as long as somebody is there, or nobody knows.
        patient = (server.status.phase, server.status.reason) == ("Draining", "MaxAge")
        assert patient or server.status.phase in ("Running", "Pending", "Failed"), server
        if patient or server.status.phase == "Running":
            _assert_served(server, followers, own)
        else:
            assert not own, server
            assert {f.status.phase for f in followers} <= {server.status.phase}
        if server.status.phase == "Failed":
            # Quiet means that no retry is due.
            assert server.status.retry_time is not None, server
            assert server.status.retry_time > model.now, server
        if server.status.phase == "Pending":
            assert server.status.queue_position, server
            assert {f.status.queue_position for f in followers} <= {server.status.queue_position}
            oldest = min(m.age_key for m in members)
            positions.append((server.status.queue_position, oldest))
    assert {p.metadata.labels[LABEL_GROUP] for p in pods.values()} <= set(groups), "a pod leaked"
    positions.sort()
    assert [p for p, _ in positions] == list(range(1, len(positions) + 1)), positions
    assert [age for _, age in positions] == sorted(age for _, age in positions), positions
    if positions:
        assert len(pods) >= model.pool.spec.capacity, "somebody waits though there is room"


def _assert_served(server: Instance, followers: list[Instance], own: list[Pod]) -> None:
    (pod,) = own
    assert is_ready(pod)
    assert pod.metadata.deletion_timestamp is None
    if any(m.counted_connections for m in (server, *followers)):
        assert pod.metadata.labels[LABEL_IN_USE] == "true", "a pod in use may be evicted"
    assert pod.metadata.labels[LABEL_PORT] == str(server.status.port)
    assert server.status.pod_name == pod.metadata.name
    assert server.status.ready_time is not None
    assert not server.status.queue_position
    assert not server.status.shared_with
    for follower in followers:
        assert follower.status.phase == "Shared", follower
        assert follower.status.shared_with == server.metadata.name
        assert (follower.status.port, follower.status.webrtc_url) == (server.status.port, server.status.webrtc_url)
    owners = {o.uid for o in pod.metadata.owner_references}
    assert {m.metadata.uid for m in (server, *followers)} <= owners
