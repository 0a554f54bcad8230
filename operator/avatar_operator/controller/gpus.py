"""The GPUs of all nodes and what is reserved on them: fed by the store, asked for a place.

Like the store it holds no truth: reservations are read from claims and pods,
telemetry from GPUNodes. What only this process knows are hints that err on
the safe side after a restart (since when a claim has had no pod).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple

from avatar_operator.domain.devices import dra_problem
from avatar_operator.domain.gpunode import GpuNode, GpuReport, Node, Reserved, lost
from avatar_operator.domain.ledger import Reservation, Room, account
from avatar_operator.domain.placement import (
    Device,
    Need,
    Placement,
    Refusal,
    device_problem,
    node_problem,
    place,
    place_blind,
    place_claim,
    place_nodes,
    selected,
)
from avatar_operator.domain.resources import Pool

from .keys import version_of

# So many pods that left a GPU since its last report are remembered.
MOST_DEPARTED = 64
# A claim that another process wrote, and put no pod behind for so long (seconds), has been left.
FOREIGN_SECONDS = 5
# So many pods of a claim are looked for in reports, the last ones.
LAST_PODS = 8


# Namespace and name of a claim.
Mine = tuple[str, str]


class Holder(NamedTuple):
    """A claim or pod by namespace and name, and the GPU that it holds ("" = not known which)."""

    namespace: str
    name: str
    uuid: str


@dataclass(frozen=True, slots=True)
class _Departed:
    reservation: Reservation
    at: datetime


class GpuIndex:
    """Reservations and reports, by GPU. ``blind``: the operator may not read nodes, so there is no telemetry."""

    def __init__(self, *, blind: bool = False) -> None:
        self.blind = blind
        self._nodes: dict[str, Node] = {}
        self._reports: dict[str, GpuNode] = {}
        self._gpus: dict[str, tuple[str, GpuReport]] = {}
        # Which of claim, pod and writes on their way hold a reservation: it ends with the last of them.
        self._sources: dict[Holder, dict[str, Reservation]] = {}
        self._on: dict[str, set[Holder]] = defaultdict(set)
        self._named: dict[tuple[str, str], set[Holder]] = defaultdict(set)
        self._departed: dict[str, list[_Departed]] = defaultdict(list)
        self._podless: dict[tuple[str, str], datetime] = {}
        # What was the newest report of each node concerned (lastReport) at that moment.
        self._heard: dict[tuple[str, str], dict[str, datetime]] = {}
        # The resourceVersion of the last pod's end, as far as it is known.
        self._ended: dict[tuple[str, str], int] = {}
        # Claims that were there when this process began are nobody's any more; others may be in the making.
        self.loading = True
        self._appeared: dict[tuple[str, str], datetime] = {}
        # The last pods behind each claim by UID; none = the claim was there before this process, and perhaps a pod.
        self._last_pods: dict[tuple[str, str], tuple[str, ...]] = {}
        # Where a pod is whose GPU somebody else chose: the device plugin, the scheduler.
        self._located: dict[str, str] = {}
        self._rooms: dict[str, Room] = {}
        self._verdicts: dict[tuple[str, str, Need, Mine | None], Placement | Refusal] = {}
        self._verdicts_of = 0

    # ---- nodes and reports ------------------------------------------------------------

    def take_node(self, node: Node) -> bool:
        """Take in a Node; whether anything changed that placement reads."""
        self._verdicts.clear()
        before = self._nodes.get(node.metadata.name)
        self._nodes[node.metadata.name] = node
        return before is None or _facts(before) != _facts(node)

    def drop_node(self, name: str) -> None:
        """The Node is gone."""
        self._nodes.pop(name, None)
        self._verdicts.clear()

    def take_report(self, item: GpuNode) -> set[str]:
        """Take in a GPUNode; the UUIDs that came, went, or changed their health."""
        name = item.metadata.name
        before = self._reports.get(name)
        old = {g.uuid: g.healthy for g in before.status.gpus} if before else {}
        new = {g.uuid: g.healthy for g in item.status.gpus}
        self._reports[name] = item
        for uuid in old.keys() - new.keys():
            self._unreport(uuid, name)
        for gpu in item.status.gpus:
            self._gpus[gpu.uuid] = name, gpu
        self._locate(before, item)
        self._hear_late(item)
        reported = item.status.last_report
        for uuid in old.keys() | new.keys():
            self._forget(uuid)
            if reported is not None and uuid in self._departed:
                # A younger report shows what is left of them.
                if left := [d for d in self._departed[uuid] if d.at >= reported]:
                    self._departed[uuid] = left
                else:
                    del self._departed[uuid]
        return {uuid for uuid in old.keys() | new.keys() if old.get(uuid) != new.get(uuid)}

    def drop_report(self, name: str) -> set[str]:
        """The GPUNode is gone; the UUIDs that it had."""
        item = self._reports.pop(name, None)
        self._locate(item, None)
        gone = {g.uuid for g in item.status.gpus} if item else set()
        for uuid in gone:
            self._unreport(uuid, name)
            self._forget(uuid)
        return gone

    # ---- reservations -----------------------------------------------------------------

    def hold(self, source: str, reservation: Reservation, now: datetime) -> None:
        """``source`` ("Service", "Pod" or "write") holds a reservation; it is counted once for each name and GPU."""
        name = (reservation.namespace, reservation.name)
        uuid = reservation.uuid or self._located.get(reservation.pod_uid, "")
        if not uuid:
            # Its pod has been found on a GPU before the claim was heard of again.
            uuid = next((h.uuid for h in self._named[name] if h.uuid), "")
        holder = Holder(*name, uuid)
        for other in [h for h in self._named[name] if h != holder]:
            self._release(other, source, now)
            if not other.uuid and other in self._sources:
                # Its claim waited to know where it is.
                self._move(other, holder, self._sources.pop(other))
        if (
            source == "Service"
            and not self.loading
            and not any("Service" in self._sources[h] for h in self._named[name])
        ):
            self._appeared[name] = now
        elif source == "Service" and self.loading:
            self._last_pods.setdefault(name, ())
        self._sources.setdefault(holder, {})[source] = reservation
        self._named[name].add(holder)
        self._on[uuid].add(holder)
        self._forget(uuid)
        if source == "Pod":
            for of_its_end in (self._podless, self._heard, self._ended):
                of_its_end.pop(name, None)
            self._last_pods[name] = _with(self._last_pods.get(name, ()), reservation.pod_uid)
        elif not any("Pod" in self._sources.get(h, ()) for h in self._named[name]):
            self._without_pod(name, now)

    def let_go(self, source: str, namespace: str, name: str, now: datetime) -> str | None:
        """``source`` holds nothing any more; the node whose reservation ended with it ("" = unknown), or None."""
        key = (namespace, name)
        holders = list(self._named.get(key, ()))
        ended = [node for holder in holders if (node := self._release(holder, source, now)) is not None]
        if left := list(self._named.get(key, ())):
            if source == "Pod":
                self._podless.pop(key, None)
                self._without_pod(key, now)
                for holder in left:
                    if holder.uuid and not any(r.uuid for r in self._sources[holder].values()):
                        # The next pod of the claim may get another GPU.
                        self._move(holder, holder._replace(uuid=""), self._sources.pop(holder))
        else:
            self._named.pop(key, None)
            for known in (self._podless, self._heard, self._ended, self._last_pods, self._appeared):
                known.pop(key, None)
        return ended[0] if ended else None

    def pod_ended(self, namespace: str, name: str, pod_uid: str, version: int) -> None:
        """The end of the pod behind a claim was written as ``version``; too high a number where that is not known.

        To be told after let_go, and again when more is known.
        """
        key = (namespace, name)
        if key in self._podless and self._last_pods.get(key, ())[-1:] == (pod_uid,):
            self._ended[key] = min(version, self._ended.get(key, version))

    def _hear_late(self, item: GpuNode) -> None:
        """A report that was written before a pod's end, and is heard of after it, tells nothing of what the pod left.

        Kubernetes promises an order of resourceVersions within one resource only. Where nodes and pods have counters
        of their own, every report counts as too early, or as before none does.
        """
        reported, version = item.status.last_report, version_of(item.metadata)
        if reported is None or not self._ended:
            return
        for gpu in item.status.gpus:
            for key in {(h.namespace, h.name) for h in self._on.get(gpu.uuid, ())} & self._ended.keys():
                if version <= self._ended[key]:
                    self._heard[key][item.metadata.name] = reported

    def locate(self, namespace: str, name: str, uuid: str) -> bool:
        """The GPU of a pod is told: the one that was allocated to its ResourceClaim; whether that is news."""
        floating = Holder(namespace, name, "")
        if not uuid or floating not in self._sources:
            return False
        self._move(floating, floating._replace(uuid=uuid), self._sources.pop(floating))
        return True

    def _without_pod(self, key: tuple[str, str], now: datetime) -> None:
        """No pod is behind the claim, from now on if not for longer; the newest reports by now tell nothing of that."""
        if key not in self._podless:
            self._podless[key] = now
            nodes = {self._gpus[h.uuid][0] for h in self._named[key] if h.uuid in self._gpus}
            self._heard[key] = {n: at for n in nodes if (at := self._reports[n].status.last_report) is not None}

    def podless_since(self, namespace: str, name: str) -> datetime | None:
        """Since when no pod is behind the claim, as far as this process has seen; None = there is one."""
        return self._podless.get((namespace, name))

    def had_pod(self, namespace: str, name: str) -> bool:
        """Whether a pod was behind the claim, or may have been: before this process began."""
        return (namespace, name) in self._last_pods

    def foreign_until(self, namespace: str, name: str) -> datetime | None:
        """Until when a claim that another process wrote is left to it; None = nobody is behind it."""
        appeared = self._appeared.get((namespace, name))
        return appeared + timedelta(seconds=FOREIGN_SECONDS) if appeared is not None else None

    def processes_gone(self, namespace: str, name: str) -> bool:
        """Whether the agent has reported since the pod went, and no process is left of it or of those before it."""
        since, last_pods = self._podless.get((namespace, name)), self._last_pods.get((namespace, name))
        if since is None or last_pods == ():
            # Whose processes to look for is not known.
            return False
        for holder in self._named.get((namespace, name), ()):
            found = self._gpus.get(holder.uuid)
            if found is None:
                return False
            node, gpu = found
            reported = self._reports[node].status.last_report
            # By the agent's own clock, as ours may differ; by ours where nothing was known then.
            before = self._heard[namespace, name].get(node, since)
            if not gpu.processes_known or reported is None or reported <= before:
                return False
            if not {pod.uid for pod in gpu.pods}.isdisjoint(last_pods or ()):
                return False
        return True

    # ---- asking -----------------------------------------------------------------------

    @property
    def telemetry(self) -> bool:
        """Whether any node reports its GPUs."""
        return not self.blind and any(item.status.last_report for item in self._reports.values())

    def find(self, pool: Pool, need: Need, now: datetime, mine: Mine | None = None) -> Placement | Refusal:
        """A place for a new pod of ``pool``, by the rules of its mode; ``mine``: its claim, which is not in its way."""
        # A long queue asks the same again and again; what changes is a reservation, a report, or its age in seconds.
        second = int(now.timestamp())
        if self._verdicts_of != second:
            self._verdicts_of = second
            self._verdicts.clear()
        key = (pool.metadata.uid, pool.metadata.resource_version, need, mine)
        if key not in self._verdicts:
            self._verdicts[key] = self._find(pool, need, now, mine)
        return self._verdicts[key]

    def _find(self, pool: Pool, need: Need, now: datetime, mine: Mine | None) -> Placement | Refusal:
        gpu = pool.spec.gpu
        if not self.telemetry:
            return self._find_blind(pool, need)
        devices = list(self.devices(pool, mine))
        match gpu.mode:
            case "DevicePlugin":
                # A plugin that shares GPUs may put any of those that it has not told yet on any GPU of the node.
                shared = {name for name in self._reports if self._shares(name, gpu.resource_name)}
                devices = self._beside_floating(devices, mine, shared)
                return place_nodes(gpu, need, devices, lambda node: self._slots(node, gpu.resource_name, mine), now)
            case "DRA":
                return place_claim(gpu, need, self._beside_floating(devices, mine), now)
            case _:
                return place(gpu, need, devices, now)

    def devices(self, pool: Pool, mine: Mine | None = None) -> Iterator[Device]:
        """All GPUs as the pool sees them; what the claim ``mine`` holds counts as free."""
        for name, item in self._reports.items():
            node = self._nodes.get(name)
            labels = node.metadata.labels if node else {}
            unfit = node_problem(node, name, pool.spec.runtime)
            for gpu in item.status.gpus:
                problem = unfit or device_problem(gpu, item.spec.cordoned)
                yield Device(name, gpu, self._room_beside(gpu.uuid, mine), problem, labels)

    def eligible(self, pool: Pool) -> list[Device]:
        """The GPUs that the pool's selectors pick, those with a problem included."""
        return selected(pool.spec.gpu, self.devices(pool))

    def room(self, uuid: str) -> Room:
        """The account of one GPU."""
        room = self._rooms.get(uuid)
        if room is None:
            room = self._rooms[uuid] = self._account(uuid, [self._merged(h) for h in self._on.get(uuid, ())])
        return room

    def free_beside(self, uuid: str, others: list[Reservation], mine: tuple[str, str], now: datetime) -> int:
        """What is free for ``mine`` beside everything known here and ``others``, which the API server has."""
        known = [self._merged(h) for h in self._on.get(uuid, ())]
        held = {(r.namespace, r.name): r for r in (*others, *known) if (r.namespace, r.name) != mine}
        return self._account(uuid, list(held.values())).free_at(now)

    def lost(self, uuid: str, node: str, now: datetime) -> str:
        """Why a pod on the GPU cannot go on there; empty = it can, as far as anybody knows."""
        where, report = self._gpus.get(uuid, (node, None))
        return lost(uuid, where, report, self._reports.get(node), now)

    def unfit(self, uuid: str, pool: Pool) -> str:
        """Why no new pod of ``pool`` may go to the GPU, whatever its memory; empty = it may, or nobody reports it."""
        found = self._gpus.get(uuid)
        if found is None:
            return ""
        node, gpu = found
        problem = device_problem(gpu, self._reports[node].spec.cordoned)
        return node_problem(self._nodes.get(node), node, pool.spec.runtime) or problem

    def report_of(self, pod_uid: str, uuid: str = "") -> tuple[str, GpuReport, datetime | None] | None:
        """Node and report of the GPU ``uuid``, or of that on which the pod's processes are; and its time."""
        found = self._gpus.get(uuid or self._located.get(pod_uid, ""))
        return (*found, self._reports[found[0]].status.last_report) if found else None

    def stale(self, uuid: str, now: datetime) -> bool:
        """Whether what is known of the GPU is too old to say what is free on it."""
        return uuid in self._gpus and self.room(uuid).stale(now)

    def reports(self) -> list[GpuNode]:
        """The newest report of every node."""
        return list(self._reports.values())

    def node_of(self, name: str) -> GpuNode | None:
        """The GPUNode of that name."""
        return self._reports.get(name)

    def reserved_on(self, name: str) -> list[Reserved]:
        """Everything reserved on the GPUs of a node, in a steady order."""
        item = self._reports.get(name)
        uuids = [g.uuid for g in item.status.gpus] if item else []
        return sorted(
            (
                Reserved(uuid=uuid, namespace=h.namespace, pod=h.name, mib=self._merged(h).mib)
                for uuid in uuids
                for h in self._on.get(uuid, ())
            ),
            key=lambda r: (r.uuid, r.namespace, r.pod),
        )

    def held_by(self, uuids: set[str]) -> set[tuple[str, str]]:
        """Namespace and name of everything that holds one of these GPUs."""
        return {(h.namespace, h.name) for uuid in uuids for h in self._on.get(uuid, ())}

    def usage(self, pod_uid: str) -> int:
        """What the pod's processes use on all GPUs, by the newest reports; MiB."""
        return sum(
            p.used_mib for item in self._reports.values() for g in item.status.gpus for p in g.pods if p.uid == pod_uid
        )

    # ---- inside -----------------------------------------------------------------------

    def _find_blind(self, pool: Pool, need: Need) -> Placement | Refusal:
        gpu = pool.spec.gpu
        if problem := dra_problem(gpu, known=False):
            return Refusal(problem, hopeless=True)
        if gpu.mode != "VisibleDevices":
            return Placement(need.mib)
        return place_blind(gpu, need, lambda uuid: len(self._on.get(uuid, ())))

    def _room_beside(self, uuid: str, mine: Mine | None) -> Room:
        holders = self._on.get(uuid, ())
        if mine is None or not any((h.namespace, h.name) == mine for h in holders):
            return self.room(uuid)
        return self._account(uuid, [self._merged(h) for h in holders if (h.namespace, h.name) != mine])

    def _beside_floating(self, devices: list[Device], mine: Mine | None, nodes: set[str] | None = None) -> list[Device]:
        """The devices without what is reserved and not allocated yet: each of them may be where it will be.

        ``nodes``: where that is so; None = everywhere.
        """
        floating = [self._merged(h) for h in self._on.get("", ()) if (h.namespace, h.name) != mine]
        result = []
        for device in devices:
            counts = nodes is None or device.node in nodes
            mib, room = sum(r.mib for r in floating if counts and r.node in ("", device.node)), device.room
            room = replace(room, reserved=room.reserved + mib, free=room.free - mib, ledger=room.ledger - mib)
            result.append(replace(device, room=room) if mib else device)
        return result

    def _shares(self, name: str, resource: str) -> bool:
        """Whether the node's device plugin gives a GPU to more than one pod (time slicing)."""
        node, gpus = self._nodes.get(name), self._reports[name].status.gpus
        allocatable = node.status.allocatable.get(resource, "0") if node else "0"
        return allocatable.isdigit() and int(allocatable) > sum(not gpu.mig_enabled for gpu in gpus)

    def _slots(self, name: str, resource: str, mine: Mine | None) -> int:
        """How many more pods the node's device plugin takes, as far as ours are concerned."""
        node = self._nodes.get(name)
        allocatable = node.status.allocatable.get(resource, "0") if node else "0"
        taken = {(h.namespace, h.name) for h in self._sources if self._merged(h).node == name} - {mine}
        return int(allocatable) - len(taken) if allocatable.isdigit() else 0

    def _merged(self, holder: Holder) -> Reservation:
        """A reservation as its sources together have it: the pod knows most."""
        sources = self._sources[holder]
        best = sources.get("Pod") or sources.get("Service") or next(iter(sources.values()))
        return replace(best, uuid=holder.uuid, mib=max(r.mib for r in sources.values()))

    def _account(self, uuid: str, held: list[Reservation]) -> Room:
        found = self._gpus.get(uuid)
        if found is None:
            return Room(reserved=sum(r.mib for r in held))
        node, report = found
        item = self._reports[node]
        present = {r.pod_uid for r in held}
        departed = [r for d in self._departed.get(uuid, ()) if (r := d.reservation).pod_uid not in present]
        return account(report, held, departed, item.status.last_report, item.stale_at)

    def _release(self, holder: Holder, source: str, now: datetime) -> str | None:
        sources = self._sources.get(holder)
        if sources is None or source not in sources:
            return None
        merged = self._merged(holder)
        released = sources.pop(source)
        self._forget(holder.uuid)
        if released.pod_uid and holder.uuid in self._gpus:
            # What the pod used in the last report was not external use.
            departed = self._departed[holder.uuid]
            departed.append(_Departed(merged, now))
            # Without a younger report nothing else would ever shorten it.
            del departed[:-MOST_DEPARTED]
        if sources:
            return None
        del self._sources[holder]
        self._on[holder.uuid].discard(holder)
        self._named[holder.namespace, holder.name].discard(holder)
        return merged.node

    def _forget(self, uuid: str) -> None:
        """What was computed of a GPU, and all that rests on it."""
        self._rooms.pop(uuid, None)
        self._verdicts.clear()

    def _locate(self, before: GpuNode | None, item: GpuNode | None) -> None:
        """Keep in mind on which GPU each pod's processes are, and move reservations that waited to know."""
        for gpu in before.status.gpus if before else ():
            for pod in gpu.pods:
                self._located.pop(pod.uid, None)
        for gpu in item.status.gpus if item else ():
            self._located.update({pod.uid: gpu.uuid for pod in gpu.pods})
        for holder in [h for h in self._on.get("", ()) if self._merged(h).pod_uid in self._located]:
            sources = self._sources.pop(holder)
            uuid = self._located[next(r.pod_uid for r in sources.values() if r.pod_uid)]
            self._move(holder, holder._replace(uuid=uuid), sources)

    def _move(self, old: Holder, new: Holder, sources: dict[str, Reservation]) -> None:
        self._on[old.uuid].discard(old)
        self._on[new.uuid].add(new)
        self._named[old.namespace, old.name].discard(old)
        self._named[new.namespace, new.name].add(new)
        self._sources[new] = {**sources, **self._sources.get(new, {})}
        self._forget(old.uuid)
        self._forget(new.uuid)

    def _unreport(self, uuid: str, node: str) -> None:
        """A GPU is reported no more by ``node``; by another one it may be."""
        if uuid in self._gpus and self._gpus[uuid][0] == node:
            del self._gpus[uuid]
            self._departed.pop(uuid, None)


def _with(uids: tuple[str, ...], uid: str) -> tuple[str, ...]:
    """One pod may follow the other faster than a GPU gives its memory back; of a claim that lives long, few matter."""
    return (*(known for known in uids if known != uid), uid)[-LAST_PODS:]


def _facts(node: Node) -> tuple[object, ...]:
    ready = next((c.status for c in node.status.conditions if c.type == "Ready"), "")
    return node.metadata.labels, node.spec, node.status.allocatable, ready
