"""Everything the operator knows of the cluster, indexed by group, pool and port.

Fed by the watch, by our own writes (their answers) and by resyncs; an older
resourceVersion never replaces a newer one, so that the order of arrival does
not matter. Holds no truth of its own: all of it can be listed again.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from avatar_operator.domain.devices import placement_of
from avatar_operator.domain.estimate import learn, need
from avatar_operator.domain.findings import Picture
from avatar_operator.domain.gpunode import GpuNode, Node
from avatar_operator.domain.ledger import Reservation
from avatar_operator.domain.names import (
    ANNOTATION_AVATAR,
    claim_name,
    tts_name,
)
from avatar_operator.domain.nodeloss import lost, set_aside
from avatar_operator.domain.placement import Placement, Refusal
from avatar_operator.domain.plan import needs_claim
from avatar_operator.domain.ports import Admission, admit
from avatar_operator.domain.resources import Avatar, Instance, Meta, Pod, Pool, Service
from avatar_operator.domain.summaries import PoolGpus
from avatar_operator.domain.tts import Deployment, TtsEngine
from avatar_operator.domain.tts_view import EngineView, TtsHints, TtsKey
from avatar_operator.domain.view import GpuHints, GroupKey, GroupView, RuntimeView
from avatar_operator.kube.kinds import AnyObject, K

from .gpu_view import gpu_view
from .gpus import GpuIndex
from .keys import AvatarKey, GpuNodeKey, Key, ObjectId, PoolKey, group_of, labelled, object_id, version_of
from .tts_index import TtsIndex, engine_of

_QUARANTINE = "quarantine"
NO_HINTS = GpuHints()
# A pod that has been ready for so long (seconds) has its model in memory: what it uses says something.
LEARN_SECONDS = 10
# The version of the end of what the API server, asked for it by name and UID, did not have any more.
FOR_GOOD = str(2**63 - 1)
# So many deletions are remembered: an answer that was on its way when its object went must not bring it back.
TOMBSTONES = 8192
# So many at either end of those in the queue that there is room for are planned when there is more.
WAKE = 32
Turn = tuple[datetime, str, GroupKey]


@dataclass(slots=True)
class Group:
    """The objects of one group, by name."""

    pool: PoolKey
    members: dict[str, Instance] = field(default_factory=dict)
    pods: dict[str, Pod] = field(default_factory=dict)
    claims: dict[str, Service] = field(default_factory=dict)
    # The last pod as it was when it was gone, if somebody had deleted it: it says who, and may have been told at once.
    ended: Pod | None = None
    turn: Turn | None = None
    used_at: datetime | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing is left of the group."""
        return not (self.members or self.pods or self.claims)


class _Holders:
    """Ports and who holds each: one is free again when the last of its holders has let go."""

    def __init__(self) -> None:
        self._by_port: dict[int, set[str]] = {}
        # Ascending: the first gap is found without a look at each.
        self.ports: list[int] = []

    def __len__(self) -> int:
        return len(self.ports)

    def besides(self, holders: set[str]) -> list[int]:
        """The ports that others than ``holders`` hold, ascending."""
        return [port for port in self.ports if not self._by_port[port] <= holders]

    def add(self, port: int, holder: str) -> None:
        if port not in self._by_port:
            insort(self.ports, port)
        self._by_port.setdefault(port, set()).add(holder)

    def discard(self, port: int, holder: str) -> None:
        holders = self._by_port.get(port)
        if holders is None:
            return
        holders.discard(holder)
        if not holders:
            del self._by_port[port]
            del self.ports[bisect_left(self.ports, port)]


class Store:
    """``changed`` is called with each key whose plan may differ after a change.

    ``woken`` instead, where it is given, with those for which nothing has changed but that others have made room.
    """

    def __init__(
        self,
        changed: Callable[[Key], None],
        clock: Callable[[], datetime],
        gpus: GpuIndex | None = None,
        woken: Callable[[Key], None] | None = None,
    ) -> None:
        self._changed = changed
        self._woken = woken or changed
        self._clock = clock
        self.gpus = gpus or GpuIndex()
        self.tts = TtsIndex(changed, self.gpus)
        self._objects: dict[type[AnyObject], dict[ObjectId, AnyObject]] = {
            kind: {} for kind in (Pool, Avatar, Instance, Pod, Service, GpuNode, Node, TtsEngine, Deployment)
        }
        self._gone: dict[str, int] = {}
        self._groups: dict[GroupKey, Group] = {}
        self._pool_groups: dict[PoolKey, set[GroupKey]] = defaultdict(set)
        self._avatars: dict[ObjectId, dict[str, Avatar]] = defaultdict(dict)
        self._avatar_groups: dict[ObjectId, set[GroupKey]] = defaultdict(set)
        self._waiting: dict[PoolKey, list[Turn]] = defaultdict(list)
        # Ports held by a pool's claims and pods, and by anything at all in a namespace.
        self._held: dict[PoolKey, _Holders] = defaultdict(_Holders)
        self._taken: dict[str, _Holders] = defaultdict(_Holders)
        self._reserved: dict[GroupKey, int] = {}
        # The port that an instance's status shows: clients go by it, so nobody else gets it until it is taken back.
        self._shown: dict[ObjectId, int] = {}
        self._pod_avatars: dict[str, tuple[AvatarKey, datetime | None]] = {}

    # ---- feeding -------------------------------------------------------------------

    def apply(self, item: AnyObject) -> bool:
        """Take in a state of an object; False when a newer one, or its deletion, is known already."""
        if version_of(item.metadata) <= self._gone.get(item.metadata.uid, -1):
            return False
        objects, key = self._objects[type(item)], object_id(item.metadata)
        known = objects.get(key)
        if known is not None:
            if known.metadata.uid == item.metadata.uid and version_of(item.metadata) <= version_of(known.metadata):
                return False
            if known.metadata.uid != item.metadata.uid or _moved(known, item):
                self._unlink(known)
                known = None
        objects[key] = item
        self._link(item, known)
        return True

    def remove(self, kind: type[AnyObject], namespace: str, name: str, uid: str = "", version: str = "") -> bool:
        """Forget an object; with ``uid`` only that one, not a namesake made since.

        ``version``: the resourceVersion of its deletion, or of the last state
        known before it. No state up to that is taken in again; with FOR_GOOD
        none at all, however late the watch tells of it.
        """
        self._bury(uid, int(version or 0))
        known = self._objects[kind].get((namespace, name))
        if known is not None and uid not in ("", known.metadata.uid):
            known = None
        if known is not None:
            del self._objects[kind][namespace, name]
            self._unlink(known)
        if kind is Pod:
            engine = engine_of(known.metadata) if known is not None else ""
            ended = known.metadata.uid if known is not None else uid
            self.gpus.pod_ended(namespace, tts_name(engine) if engine else name, ended, int(version or FOR_GOOD))
        return known is not None

    def unbury(self, uid: str) -> None:
        """Take an object in again: the API server, asked for it alone, has it; what told of its end was wrong."""
        self._gone.pop(uid, None)

    def _bury(self, uid: str, version: int) -> None:
        if uid and version > self._gone.get(uid, 0):
            self._gone.pop(uid, None)
            self._gone[uid] = version
            if len(self._gone) > TOMBSTONES:
                del self._gone[next(iter(self._gone))]

    def known(self, kind: type[AnyObject], key: ObjectId) -> Meta | None:
        """Metadata of an object; None = it is not known."""
        found = self._objects[kind].get(key)
        return None if found is None else found.metadata

    def metas(self, kind: type[AnyObject]) -> dict[ObjectId, Meta]:
        """Metadata of everything known of a kind, for comparison with a LIST."""
        return {key: item.metadata for key, item in self._objects[kind].items()}

    def picture(self, now: datetime) -> Picture:
        """Everything as it is known at ``now``, for the audit."""
        return Picture(
            now,
            self._all(Instance),
            self._all(Pool),
            self._all(Avatar),
            self._all(Pod),
            self._all(Service),
            self._all(TtsEngine),
            self._all(Deployment),
            None if self.gpus.blind else self._all(GpuNode),
        )

    def _all(self, kind: type[K]) -> tuple[K, ...]:
        return tuple(item for item in self._objects[kind].values() if isinstance(item, kind))

    # ---- ports -----------------------------------------------------------------------

    def reserve(self, group: GroupKey, pool: PoolKey, port: int, placement: Placement | None = None) -> None:
        """Hold ``port``, and its part of a GPU, while its claim is on the way to the API server."""
        self._reserved[group] = port
        if placement is not None:
            self._reserve_gpu("write", group.namespace, claim_name(port), placement)
        self._hold(pool, port, f"reserved by {group.id}")
        self._place(group)

    def unreserve(self, group: GroupKey, pool: PoolKey) -> None:
        """The claim has arrived (and is a Service now) or was refused."""
        port = self._reserved.pop(group, None)
        if port is not None:
            self._release_gpu("write", group.namespace, claim_name(port))
            self._let_go(pool, port, f"reserved by {group.id}")
        self._place(group)

    def expect_pod(self, group: GroupKey, pool: PoolKey, port: int) -> None:
        """Hold ``port`` while its pod is on the way to the API server: the claim may be deleted by hand meanwhile."""
        self._hold(pool, port, f"pod of {group.id}")

    def pod_came(self, group: GroupKey, pool: PoolKey, port: int) -> None:
        """The pod has arrived (and holds its port itself now) or was refused."""
        self._let_go(pool, port, f"pod of {group.id}")

    def note_use(self, key: GroupKey) -> None:
        """Somebody uses the group at this moment, or may have a moment ago."""
        if (group := self._groups.get(key)) is not None:
            group.used_at = self._clock()

    def quarantine(self, namespace: str, port: int) -> None:
        """Keep a port out of use: something that is not ours sits on it."""
        self._taken[namespace].add(port, _QUARANTINE)

    def release_quarantine(self, namespace: str, port: int) -> None:
        """Try the port again."""
        self._taken[namespace].discard(port, _QUARANTINE)

    # ---- reading ---------------------------------------------------------------------

    def view(
        self,
        key: GroupKey,
        now: datetime,
        runtime: RuntimeView,
        rejection: tuple[str, str] | None = None,
        hints: GpuHints = NO_HINTS,
    ) -> GroupView:
        """The group as a plan sees it; ``hints`` is what the process remembers of its GPU."""
        group = self._groups.get(key)
        if group is None:
            return GroupView(key, now)
        bare = self._bare_view(key, group, now)
        if group.used_at is not None and (runtime.used_at is None or runtime.used_at < group.used_at):
            runtime = replace(runtime, used_at=group.used_at)
        return GroupView(
            key,
            now,
            bare.members,
            bare.pool,
            bare.avatar,
            bare.claims,
            bare.pods,
            group.ended,
            self._admission(key, group, now),
            runtime,
            rejection,
            gpu_view(self.gpus, bare, hints),
            self.tts.engines(key.namespace),
            bare.lost,
            bare.stranded,
        )

    def engine_view(self, key: TtsKey, now: datetime, hints: TtsHints) -> EngineView:
        """The speech engine as its plan sees it."""
        return self.tts.view(key, now, hints)

    def reserve_for_engine(self, key: TtsKey, name: str, placement: Placement) -> None:
        """Hold the engine's part of a GPU while its Service is on the way to the API server."""
        self._reserve_gpu("write", key.namespace, name, placement)

    def unreserve_for_engine(self, key: TtsKey, name: str) -> None:
        """The Service has arrived, or was refused."""
        self._release_gpu("write", key.namespace, name)

    def refresh(self, key: GroupKey, now: datetime) -> None:
        """Put the group into its pool's queue or take it out, as of ``now`` (a backoff may have ended)."""
        self._place(key, now)

    def pool(self, key: PoolKey) -> Pool | None:
        """The AvatarPool, if it exists."""
        found = self._objects[Pool].get((key.namespace, key.name))
        return found if isinstance(found, Pool) else None

    def pools(self, namespace: str = "") -> list[Pool]:
        """All pools, or those of a namespace."""
        return [
            p for p in self._objects[Pool].values() if isinstance(p, Pool) and namespace in ("", p.metadata.namespace)
        ]

    def avatars(self, key: AvatarKey) -> list[Avatar]:
        """The Avatars of that avatarName, the oldest (the one that counts) first."""
        named = self._avatars.get((key.namespace, key.avatar_name), {})
        return sorted(named.values(), key=lambda a: (str(a.metadata.creation_timestamp), a.metadata.name))

    def pool_of(self, key: GroupKey) -> PoolKey | None:
        """The pool that a group belongs to."""
        group = self._groups.get(key)
        return group.pool if group else None

    def groups(self) -> list[GroupKey]:
        """All groups."""
        return list(self._groups)

    def members_of(self, pool: PoolKey) -> Iterator[Instance]:
        """The instances of a pool."""
        for key in self._pool_groups.get(pool, ()):
            yield from self._groups[key].members.values()

    def waiting(self, pool: PoolKey) -> list[GroupKey]:
        """The groups that wait for a port, the next one first."""
        return [turn[2] for turn in self._waiting.get(pool, ())]

    def held(self, pool: PoolKey) -> list[int]:
        """The ports that the pool's claims and pods hold, those on the way included; ascending."""
        return list(self._held[pool].ports) if pool in self._held else []

    def gpu_pool(self, pool: Pool) -> PoolGpus:
        """What the pool's status says of its GPUs."""
        if pool.spec.gpu.mode == "None":
            return PoolGpus()
        devices = self.gpus.eligible(pool) if self.gpus.telemetry else []
        return PoolGpus(self.gpus.telemetry, tuple(devices), self._clock())

    def instance(self, namespace: str, name: str) -> Instance | None:
        """The AvatarInstance, if it is known."""
        found = self._objects[Instance].get((namespace, name))
        return found if isinstance(found, Instance) else None

    def pod(self, namespace: str, name: str) -> Pod | None:
        """The Pod, if it is known."""
        found = self._objects[Pod].get((namespace, name))
        return found if isinstance(found, Pod) else None

    def count(self, kind: type[AnyObject]) -> int:
        """How many objects of a kind are known."""
        return len(self._objects[kind])

    # ---- inside ------------------------------------------------------------------------

    def _admission(self, key: GroupKey, group: Group, now: datetime) -> Admission:
        pool = self.pool(group.pool)
        if pool is None or group.turn is None:
            return Admission()
        line = self._waiting[group.pool]
        rank = bisect_left(line, group.turn)
        held = len(self._held.get(group.pool, ()))
        taken = self._taken[key.namespace].ports
        if own := {_shown_by(m) for m in group.members.values() if m.status.port is not None}:
            # Its claim was deleted by hand: it may have its port again.
            taken = self._taken[key.namespace].besides(own)
        admission = admit(pool.spec.ports, pool.spec.capacity, held, rank, taken)
        if pool.spec.gpu.mode == "None":
            return admission
        # Those ahead whom no GPU will ever do for get no port either.
        first = admit(pool.spec.ports, pool.spec.capacity, held, 0, taken)
        if first.port is None:
            return admission
        # One at a time, in the order of the queue: who is admitted takes its part of a GPU before the next is asked.
        verdict = self._find_gpu(pool, key, now)
        if isinstance(verdict, Refusal):
            return Admission(position=rank + 1, reason="GPUExhausted", message=verdict.message)
        for turn in line[:rank]:
            ahead = self._find_gpu(pool, turn[2], now)
            if not isinstance(ahead, Refusal):
                return Admission(position=rank + 1) if admission.port else replace(admission, position=rank + 1)
            if not ahead.hopeless:
                message = f"waiting for a GPU behind {rank} others of the pool; the first of them {ahead.message}"
                return Admission(position=rank + 1, reason="GPUExhausted", message=message)
        return replace(first, placement=verdict)

    def _find_gpu(self, pool: Pool, key: GroupKey, now: datetime) -> Placement | Refusal:
        """A place for the group's pod by now."""
        avatar = self._avatar_of(key)
        if avatar is None:
            return Refusal("its Avatar is gone", hopeless=True)
        return self.gpus.find(pool, need(pool.spec.gpu, avatar), now)

    def _avatar_of(self, key: GroupKey) -> Avatar | None:
        group = self._groups.get(key)
        first = min(group.members.values(), key=lambda m: m.age_key, default=None) if group else None
        if first is None:
            return None
        return next(iter(self.avatars(AvatarKey(key.namespace, first.spec.avatar_name))), None)

    def _bare_view(self, key: GroupKey, group: Group, now: datetime) -> GroupView:
        members = sorted(group.members.values(), key=lambda m: m.age_key)
        avatar = None
        if members:
            avatar = next(iter(self.avatars(AvatarKey(key.namespace, members[0].spec.avatar_name))), None)
        view = GroupView(
            key,
            now,
            tuple(m for m in members if m.metadata.deletion_timestamp is None),
            self.pool(group.pool),
            avatar,
            tuple(group.claims.values()),
            tuple(group.pods.values()),
        )
        lost_pods = {p.metadata.uid: why for p in view.pods if (why := self._lost_node(p))}
        return set_aside(view, lost_pods) if lost_pods else view

    def _lost_node(self, pod: Pod) -> str:
        """Why the pod's node counts as lost; empty = it does not, or nobody may read nodes."""
        node = self._objects[Node].get(("", pod.spec.node_name))
        return lost(node) if isinstance(node, Node) else ""

    def _place(self, key: GroupKey, now: datetime | None = None) -> None:
        """Keep the queue in step with whether the group waits for a port."""
        group = self._groups.get(key)
        if group is None:
            return
        turn: Turn | None = None
        if key not in self._reserved:
            view = self._bare_view(key, group, now or self._clock())
            if needs_claim(view):
                turn = (*view.members[0].age_key, key)
        if turn != group.turn:
            self._dequeue(group)
            if turn is not None:
                insort(self._waiting[group.pool], turn)
                group.turn = turn
            else:
                self._wake_next(group.pool)
            self._changed(group.pool)

    def _wake_next(self, pool: PoolKey) -> None:
        """Plan for those at the head of the queue that a free port is there for."""
        found = self.pool(pool)
        free = found.spec.capacity - len(self._held[pool]) if found else 0
        if found is None or free <= 0:
            return
        if found.spec.gpu.mode == "None":
            # Who was admitted before was told then, and the first may have been refused a port. To tell thousands that
            # are on their way whenever one of them has got its own would be most of the work.
            line = self._waiting[pool]
            for turn in (*line[: min(free, WAKE)], *line[max(WAKE, free - WAKE) : free]):
                self._woken(turn[2])
            return
        for turn in self._waiting[pool]:
            self._woken(turn[2])
            if not self._hopeless(found, turn[2]):
                # The next one is asked when this one has taken its part.
                break

    def _hopeless(self, pool: Pool, key: GroupKey) -> bool:
        verdict = self._find_gpu(pool, key, self._clock())
        return isinstance(verdict, Refusal) and verdict.hopeless

    def _wake_for_gpus(self) -> None:
        """There may be room on a GPU now: plan for those that wait for one."""
        for pool in [key for key, line in self._waiting.items() if line]:
            self._wake_next(pool)
        for engine in self.tts.waiting():
            self._woken(engine)

    def _dequeue(self, group: Group) -> None:
        if group.turn is not None:
            line = self._waiting[group.pool]
            at = bisect_left(line, group.turn)
            if at < len(line) and line[at] == group.turn:
                del line[at]
            group.turn = None

    def _note_shown(self, pool: PoolKey, item: Instance, port: int | None) -> None:
        key, holder = object_id(item.metadata), _shown_by(item)
        before = self._shown.pop(key, None)
        if port is not None:
            self._shown[key] = port
            self._taken[pool.namespace].add(port, holder)
        if before is not None and before != port:
            self._taken[pool.namespace].discard(before, holder)
            self._wake_next(pool)

    def _hold(self, pool: PoolKey, port: int, holder: str) -> None:
        self._held[pool].add(port, holder)
        self._taken[pool.namespace].add(port, holder)

    def _let_go(self, pool: PoolKey, port: int, holder: str) -> None:
        self._held[pool].discard(port, holder)
        self._taken[pool.namespace].discard(port, holder)
        self._wake_next(pool)

    def _link(self, item: AnyObject, known: AnyObject | None) -> None:
        """``known``: the state that it takes the place of, in the same places of the indexes."""
        match item:
            case Pool():
                pool = PoolKey(item.metadata.namespace, item.metadata.name)
                if isinstance(known, Pool) and known.spec == item.spec:
                    # Its status is written every two seconds while instances start, and no plan reads it.
                    self._changed(pool)
                else:
                    self._touch_pool(pool)
            case Avatar():
                name = (item.metadata.namespace, item.spec.avatar_name)
                self._avatars[name][item.metadata.name] = item
                self._changed(AvatarKey(*name))
                if not isinstance(known, Avatar) or _as_planned(known) != _as_planned(item):
                    self._touch_all(self._avatar_groups.get(name, set()))
            case Instance():
                self._link_instance(item)
            case Pod():
                if (found := labelled(item.metadata)) is not None:
                    key, pool, port = found
                    group = self._group(key, pool)
                    group.pods[item.metadata.name], group.ended = item, None
                    if (reserved := placement_of(item.metadata)) is not None:
                        self._reserve_gpu("Pod", key.namespace, item.metadata.name, reserved, item)
                        spoken = item.metadata.annotations.get(ANNOTATION_AVATAR, "")
                        self._pod_avatars[item.metadata.uid] = AvatarKey(key.namespace, spoken), item.ready_since
                    # A pod whose claim somebody has deleted still sits on its port.
                    self._hold(pool, port, f"Pod {item.metadata.name}")
                    self._touch(key)
                else:
                    self._link_speech(item)
            case Service():
                if (found := labelled(item.metadata)) is not None:
                    key, pool, port = found
                    self._group(key, pool).claims[item.metadata.name] = item
                    if (reserved := placement_of(item.metadata)) is not None:
                        self._reserve_gpu("Service", key.namespace, item.metadata.name, reserved)
                    self._hold(pool, port, f"Service {item.metadata.name}")
                    self._touch(key)
                else:
                    self._link_speech(item)
            case Deployment():
                self._link_speech(item)
            case TtsEngine():
                self._touch_all(self.tts.take_engine(item, self._in_namespace(item.metadata.namespace)))
            case GpuNode():
                self._moved_gpus(item.metadata.name, self.gpus.take_report(item))
                for gpu in item.status.gpus:
                    for pod in gpu.pods:
                        self._used(pod.uid)
            case Node():
                self._take_node(item)

    def _link_instance(self, item: Instance) -> None:
        key, pool = group_of(item)
        self._group(key, pool).members[item.metadata.name] = item
        if item.counted_connections:
            # The next state may come before anybody has looked at this one.
            self.note_use(key)
        self._avatar_groups[key.namespace, item.spec.avatar_name].add(key)
        self._note_shown(pool, item, None if item.metadata.deletion_timestamp else item.status.port)
        shown, pod_name = item.status.gpu, item.status.pod_name
        if shown is not None and pod_name and self.gpus.locate(key.namespace, pod_name, shown.uuid):
            # The others need not keep off every GPU that it could have got.
            self._wake_for_gpus()
        self._touch(key)
        # The pool's status counts its instances by phase.
        self._changed(pool)

    def _unlink(self, item: AnyObject) -> None:
        match item:
            case Pool():
                self._touch_pool(PoolKey(item.metadata.namespace, item.metadata.name))
            case Avatar():
                name = (item.metadata.namespace, item.spec.avatar_name)
                self._avatars[name].pop(item.metadata.name, None)
                self._changed(AvatarKey(*name))
                self._touch_all(self._avatar_groups.get(name, set()))
            case Instance():
                key, pool = group_of(item)
                if group := self._groups.get(key):
                    group.members.pop(item.metadata.name, None)
                    if not group.members:
                        self._avatar_groups[key.namespace, item.spec.avatar_name].discard(key)
                self._note_shown(pool, item, None)
                self._touch(key)
                self._changed(pool)
            case Pod():
                if (found := labelled(item.metadata)) is not None:
                    key, pool, port = found
                    if group := self._groups.get(key):
                        group.pods.pop(item.metadata.name, None)
                        group.ended = item if item.metadata.deletion_timestamp is not None else None
                    self._release_gpu("Pod", key.namespace, item.metadata.name)
                    self._pod_avatars.pop(item.metadata.uid, None)
                    self._let_go(pool, port, f"Pod {item.metadata.name}")
                    self._touch(key)
                else:
                    self._unlink_speech(item)
            case Service():
                if (found := labelled(item.metadata)) is not None:
                    key, pool, port = found
                    if group := self._groups.get(key):
                        group.claims.pop(item.metadata.name, None)
                    self._release_gpu("Service", key.namespace, item.metadata.name)
                    self._let_go(pool, port, f"Service {item.metadata.name}")
                    self._touch(key)
                    self._changed(pool)
                else:
                    self._unlink_speech(item)
            case Deployment():
                self._unlink_speech(item)
            case TtsEngine():
                self._touch_all(self.tts.drop_engine(item, self._in_namespace(item.metadata.namespace)))
            case GpuNode():
                self._moved_gpus(item.metadata.name, self.gpus.drop_report(item.metadata.name))
            case Node():
                self.gpus.drop_node(item.metadata.name)

    def _take_node(self, node: Node) -> None:
        """Where it came or changed, which is rare, those that wait and those that have a pod on it are planned."""
        if not self.gpus.take_node(node):
            return
        self._wake_for_gpus()
        name = node.metadata.name
        pods = (p for p in self._objects[Pod].values() if isinstance(p, Pod) and p.spec.node_name == name)
        self._touch_all({found[0] for p in pods if (found := labelled(p.metadata)) is not None})

    def _reserve_gpu(
        self, source: str, namespace: str, name: str, placement: Placement, pod: Pod | None = None
    ) -> None:
        reservation = Reservation(
            namespace,
            name,
            placement.uuid,
            (pod.spec.node_name if pod else "") or placement.node,
            placement.mib,
            pod.metadata.uid if pod else "",
            pod.ready_since if pod is not None else None,
        )
        self.gpus.hold(source, reservation, self._clock())
        if reservation.node:
            self._changed(GpuNodeKey("", reservation.node))

    def _release_gpu(self, source: str, namespace: str, name: str) -> None:
        node = self.gpus.let_go(source, namespace, name, self._clock())
        if node is not None:
            if node:
                self._changed(GpuNodeKey("", node))
            self._wake_for_gpus()

    def _moved_gpus(self, node: str, uuids: set[str]) -> None:
        """A report has come or gone: those on GPUs whose health changed, and those that wait, are planned."""
        self._changed(GpuNodeKey("", node))
        for pool in self.pools():
            if pool.spec.gpu.mode != "None":
                self._changed(PoolKey(pool.metadata.namespace, pool.metadata.name))
        for namespace, name in self.gpus.held_by(uuids):
            for kind in (Service, Pod):
                found = self._objects[kind].get((namespace, name))
                if found is not None and (belongs := labelled(found.metadata)) is not None:
                    self._changed(belongs[0])
                elif found is not None and (engine := engine_of(found.metadata)):
                    self._changed(TtsKey(namespace, engine))
        self._wake_for_gpus()

    def _used(self, pod_uid: str) -> None:
        """A pod was seen to use GPU memory: its avatar's figures may have news."""
        key, _ = self._pod_avatars.get(pod_uid, (None, None))
        avatar = next(iter(self.avatars(key)), None) if key is not None else None
        if key is not None and avatar is not None and learn(avatar.status.vram, self.observed_vram(key)) is not None:
            self._changed(key)

    def observed_vram(self, key: AvatarKey) -> int:
        """The most that a loaded pod of the avatar uses by now; MiB."""
        now = self._clock()
        loaded = (
            uid
            for uid, (avatar, ready) in self._pod_avatars.items()
            if avatar == key and ready is not None and now >= ready + timedelta(seconds=LEARN_SECONDS)
        )
        return max((self.gpus.usage(uid) for uid in loaded), default=0)

    def _group(self, key: GroupKey, pool: PoolKey) -> Group:
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(pool)
            self._pool_groups[pool].add(key)
        return group

    def _touch(self, key: GroupKey) -> None:
        group = self._groups.get(key)
        if group is None:
            return
        self._place(key)
        self._note_speech(key, group)
        if group.empty:
            self._dequeue(group)
            del self._groups[key]
            self._pool_groups[group.pool].discard(key)
        self._changed(key)

    def _link_speech(self, item: Pod | Service | Deployment) -> None:
        """Something that a speech engine runs in, or nothing of ours."""
        engine = engine_of(item.metadata)
        if engine is None:
            return
        reserved = placement_of(item.metadata)
        if reserved is not None and not isinstance(item, Deployment):
            # Both under the Service's name: one reservation, not two.
            kind, pod = ("Pod", item) if isinstance(item, Pod) else ("Service", None)
            self._reserve_gpu(kind, item.metadata.namespace, tts_name(engine), reserved, pod)
        self.tts.take(item)

    def _unlink_speech(self, item: Pod | Service | Deployment) -> None:
        engine = engine_of(item.metadata)
        if engine is None:
            return
        namespace = item.metadata.namespace
        self.tts.drop(item)
        if isinstance(item, Service):
            self._release_gpu("Service", namespace, tts_name(engine))
        elif isinstance(item, Pod) and not self.tts.pods(namespace, engine):
            self._release_gpu("Pod", namespace, tts_name(engine))

    def _note_speech(self, key: GroupKey, group: Group) -> None:
        """Tell the engines who speaks through them."""
        if self.tts.engines(key.namespace) and (group.claims or group.pods):
            members, pods = group.members.values(), group.pods.values()
            self.tts.note(key, members, pods, self.pool(group.pool), self._avatar_of(key))
        else:
            self.tts.forget(key)

    def _in_namespace(self, namespace: str) -> set[GroupKey]:
        return {key for key in self._groups if key.namespace == namespace}

    def _touch_pool(self, pool: PoolKey) -> None:
        self._touch_all(self._pool_groups.get(pool, set()))
        self._changed(pool)

    def _touch_all(self, keys: set[GroupKey]) -> None:
        for key in list(keys):
            self._touch(key)


def _as_planned(avatar: Avatar) -> tuple[object, ...]:
    """What plans read of it."""
    return avatar.spec, avatar.status.vram


def _shown_by(item: Instance) -> str:
    """The instance as a holder of the port that its status shows."""
    return f"AvatarInstance {item.metadata.name}"


def _moved(known: AnyObject, item: AnyObject) -> bool:
    """Whether an update puts the object into another place of the indexes."""
    if isinstance(known, Avatar) and isinstance(item, Avatar):
        return known.spec.avatar_name != item.spec.avatar_name
    if isinstance(item, (Pod, Service)):
        return _place_of(known.metadata) != _place_of(item.metadata)
    return False


def _place_of(meta: Meta) -> tuple[object, ...]:
    """Where the indexes have a pod or a claim; labels that say nothing of that, as its use, may change."""
    return labelled(meta), engine_of(meta), placement_of(meta)
