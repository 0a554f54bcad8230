"""An observer of GPU reservations that shares no line with the operator: it reads the API server's history.

History (history.py) is recorded and, when the test is over, played back; the rules are checked at each event. Memory in
MiB, times in seconds.

What is reserved: a *holder* is the Service of a port and the Pod of the same name, counted once per name and GPU.
It is *confirmed* once its pod has been seen. Two operators may write two Services at one moment for the same memory
and find out before they create a pod; so with ``operators > 1`` the rules are for confirmed holders, and a Service
that fits no more must be gone, or fit, a few seconds later. With one operator they are for all holders.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

from .api import GROUP, Api, Json
from .gpus import AVATAR_NAME, GPU_MIB, GPUNODES, LABEL_GPU, visible
from .history import Event, History, Stream, Violation

# The operator decides with what it has read: a report may be this old on its way through agent, API server and watch.
# So the external use held against a decision is the smallest that any report of this span tells.
REPORT_SPAN = 2.0
# How long a Service of two operators that fits no more may stand without a pod.
TENTATIVE_SPAN = 6.0
# Ages are taken from times of arrival, of two streams.
CLOCK_SLACK = 0.25
LABEL_PORT = f"{GROUP}/port"


@dataclass
class Report:
    """One GPU as one version of a GPUNode tells it."""

    at: float
    total: int
    free: int
    used: int
    pods: dict[str, int] | None
    healthy: bool

    @property
    def external(self) -> int:
        """What is used by none of the pods that the report names; 0 where it names none: nothing is known."""
        return 0 if self.pods is None else max(0, self.used - sum(self.pods.values()))


@dataclass
class Holder:
    """What one name holds on one GPU."""

    name: str
    gpu: str
    mib: int
    service: bool = False
    pod_uid: str = ""
    uids: set[str] = field(default_factory=set)
    pod_gone_at: float | None = None
    confirmed: bool = False
    overfull_since: float | None = None


@dataclass
class Observer:
    """Use as ``async with Observer.watching(api, namespace, world, …) as seen``, then ``seen.assert_kept()``.

    ``min_free`` and ``release_seconds`` are the pool's settings. ``violations`` is filled when the block ends.
    """

    operators: int = 1
    min_free: int = 6000
    release_seconds: float = 3
    ledger_only: bool = False
    violations: list[Violation] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    # The avatars' names in the order in which their Services got a GPU.
    placed: list[str] = field(default_factory=list)
    # The most that was ever reserved per GPU, and how many holders there were.
    most: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    decisions: int = 0
    withdrawn: int = 0
    _holders: dict[tuple[str, str], Holder] = field(default_factory=dict)
    _reports: dict[str, list[Report]] = field(default_factory=lambda: defaultdict(list))
    _instances: dict[str, Json] = field(default_factory=dict)

    @classmethod
    @contextlib.asynccontextmanager
    async def watching(cls, api: Api, namespace: str, world: str, **options: Any) -> AsyncIterator[Observer]:
        """Record until the block ends, then check."""
        found = cls(**options)
        streams = [Stream(api, resource, namespace) for resource in ("services", "pods", "avatarinstances")]
        async with History.recording(*streams, Stream(api, GPUNODES, ""), restless=frozenset({GPUNODES})) as history:
            yield found
        found.check(history.events, world)

    def assert_kept(self) -> None:
        """Fail with the first violations."""
        assert not self.violations, "\n".join(str(v) for v in self.violations[:8])

    # ---- playing back ----------------------------------------------------------------------

    def check(self, events: list[Event], world: str) -> None:
        """Play ``events`` back; ``world`` is in the names of the GPU nodes that count."""
        self.events = events
        take = {"services": self._service, "pods": self._pod, GPUNODES: self._node, "avatarinstances": self._instance}
        for event in self.events:
            if event.resource != GPUNODES or world in event.name:
                take[event.resource](event)
            self._sums(event)

    def _break(self, event: Event, rule: str, text: str) -> None:
        self.violations.append(
            Violation(event.version, rule, f"{text} (at {event.kind} {event.resource}/{event.name})")
        )

    def _node(self, event: Event) -> None:
        for gpu in event.body.get("status", {}).get("gpus", []):
            memory = gpu.get("memory")
            if memory is None:
                memory = {"totalMiB": 0, "usedMiB": 0, "freeMiB": 0}
            pods = {p["uid"]: p.get("usedMiB", 0) for p in gpu.get("pods", [])} if gpu.get("processesKnown") else None
            found = Report(
                event.at, memory["totalMiB"], memory["freeMiB"], memory["usedMiB"], pods, gpu.get("healthy", True)
            )
            self._reports[gpu["uuid"]].append(found)

    def _service(self, event: Event) -> None:
        gpu, mib = _reserved(event.body)
        for (name, uuid), holder in list(self._holders.items()):
            if name == event.name and holder.service and (event.kind == "DELETED" or uuid != gpu):
                self._released(event, holder)
                holder.service = False
                self._drop_if_empty(holder)
        if event.kind != "DELETED" and gpu:
            if (event.name, gpu) not in self._holders:
                self.placed.append(event.body["metadata"].get("annotations", {}).get(AVATAR_NAME, ""))
            self._hold(event, gpu, mib).service = True

    def _pod(self, event: Event) -> None:
        if LABEL_PORT not in event.body["metadata"].get("labels", {}):
            return
        uid = event.body["metadata"]["uid"]
        gpu, mib = _reserved(event.body)
        if event.kind == "DELETED":
            for holder in list(self._holders.values()):
                if holder.pod_uid == uid:
                    holder.pod_uid, holder.pod_gone_at = "", event.at
                    self._drop_if_empty(holder)
            return
        if event.kind == "ADDED":
            self._reserved_pod(event, gpu, mib)
        if gpu:
            holder = self._hold(event, gpu, mib)
            holder.pod_uid = uid
            holder.uids.add(uid)
            if not holder.confirmed:
                holder.confirmed = True
                if self.operators > 1:
                    self._decided(event, holder)

    def _hold(self, event: Event, gpu: str, mib: int) -> Holder:
        holder = self._holders.get((event.name, gpu))
        if holder is None:
            holder = self._holders[event.name, gpu] = Holder(event.name, gpu, mib)
            if self.operators == 1:
                self._decided(event, holder)
        holder.mib = max(mib, holder.mib)
        return holder

    def _drop_if_empty(self, holder: Holder) -> None:
        if not holder.service and not holder.pod_uid:
            if not holder.confirmed:
                self.withdrawn += 1
            self._holders.pop((holder.name, holder.gpu), None)

    # ---- the rules -------------------------------------------------------------------------

    def _reserved_pod(self, event: Event, gpu: str, mib: int) -> None:
        """No pod without a reservation, and the pod computes where it is reserved."""
        if not gpu or not mib:
            self._break(event, "unreserved", f"pod has GPU {gpu!r} and {mib} MiB")
            return
        claim = self._holders.get((event.name, gpu))
        if claim is None or not claim.service:
            self._break(event, "unreserved", f"no Service {event.name} with GPU {gpu} stands when the pod is created")
        elif claim.mib < mib:
            self._break(event, "unreserved", f"the Service reserves {claim.mib} MiB, the pod {mib} MiB")
        if visible(event.body) != gpu:
            self._break(event, "other GPU", f"reserved on {gpu}, NVIDIA_VISIBLE_DEVICES={visible(event.body)}")

    def _decided(self, event: Event, new: Holder) -> None:
        """A new holder needs room, by what anybody could have known at that moment."""
        self.decisions += 1
        recent = list(self._recent(new.gpu, event.at))
        if not recent:
            if not self.ledger_only:
                self._break(event, "unknown GPU", f"nothing was ever reported of {new.gpu}")
            return
        if not any(r.healthy for r in recent):
            self._break(event, "lost GPU", f"{new.gpu} was reported as not healthy for {REPORT_SPAN} s and longer")
            return
        recent = [r for r in recent if r.healthy and r.total]
        if not recent:
            self._break(event, "unknown memory", f"the memory of {new.gpu} is not known")
            return
        others = [h for h in self._counted(new.gpu) if h is not new]
        total = max(r.total for r in recent)
        external = min(r.external for r in recent)
        taken = sum(h.mib for h in others)
        need = max(self.min_free, new.mib)
        if total - external - taken < need:
            self._break(
                event,
                "over-reserved",
                f"{new.name} takes {new.mib} MiB of {new.gpu}: total {total}, external {external}, "
                f"reserved {taken} leave {total - external - taken} MiB, {need} MiB are needed",
            )
        if self.ledger_only:
            return
        # The same from the other side: what NVML calls free, less what others reserved and do not use yet.
        free = max(r.free - sum(max(0, h.mib - _uses(r, h)) for h in others) for r in recent)
        if free < need:
            self._break(
                event,
                "no free memory",
                f"{new.name} takes {new.mib} MiB of {new.gpu}: {free} MiB are free and nobody's, {need} are needed",
            )

    def _recent(self, uuid: str, at: float) -> Iterator[Report]:
        """The reports of the last seconds, and the one that held when they began."""
        reports = self._reports[uuid]
        older = [r for r in reports if r.at <= at - REPORT_SPAN]
        yield from older[-1:]
        yield from (r for r in reports if at - REPORT_SPAN < r.at <= at + 0.001)

    def _counted(self, gpu: str) -> list[Holder]:
        return [h for h in self._holders.values() if h.gpu == gpu and (h.confirmed or self.operators == 1)]

    def _sums(self, event: Event) -> None:
        """At every event: what is reserved on a GPU fits into it."""
        for gpu, reports in self._reports.items():
            total = max((r.total for r in reports), default=0)
            taken = sum(h.mib for h in self._counted(gpu))
            self.most[gpu] = max(self.most[gpu], taken)
            if taken > total > 0:
                self._break(event, "over total", f"{taken} MiB are reserved on {gpu}, which has {total} MiB")
            self._tentative(event, gpu, total)
        shown: dict[str, dict[str, int]] = defaultdict(dict)
        for instance in self._instances.values():
            status = instance.get("status", {})
            if gpu := status.get("gpu", {}).get("uuid"):
                shown[gpu][status.get("podName") or f"port {status.get('port')}"] = status["gpu"].get("reservedMiB", 0)
        for gpu, pods in shown.items():
            total = max((r.total for r in self._reports[gpu]), default=0)
            if sum(pods.values()) > total > 0:
                self._break(event, "status over total", f"instances show {pods} MiB on {gpu}, which has {total} MiB")

    def _tentative(self, event: Event, gpu: str, total: int) -> None:
        """A Service that fits no more does not stand for long."""
        holders = [h for h in self._holders.values() if h.gpu == gpu]
        overfull = total and sum(h.mib for h in holders) > total
        for holder in holders:
            if not overfull or holder.confirmed:
                holder.overfull_since = None
                continue
            holder.overfull_since = holder.overfull_since or event.at
            if event.at - holder.overfull_since > TENTATIVE_SPAN:
                self._break(event, "leaked claim", f"{holder.name} has stood on {gpu} for {TENTATIVE_SPAN} s, overfull")
                holder.overfull_since = event.at

    def _released(self, event: Event, holder: Holder) -> None:
        """A reservation stands until the pod is gone and its memory had time to come back, or was seen to."""
        if not holder.confirmed:
            return
        if holder.pod_uid:
            self._break(event, "released early", f"{holder.name} gives {holder.gpu} back while its pod still exists")
            return
        newest = self._reports[holder.gpu][-1:]
        if newest and not newest[0].healthy:
            # Nobody gets memory of a lost GPU, and its processes are gone with it.
            return
        gone = holder.pod_gone_at or event.at
        waited = event.at - gone
        if waited >= self.release_seconds - CLOCK_SLACK or self._seen_leaving(holder, event.at):
            return
        self._break(
            event,
            "released early",
            f"{holder.name} gives {holder.gpu} back {waited:.2f} s after its pod is gone, "
            f"{self.release_seconds} s are asked for, and no report shows its processes leaving",
        )

    def _seen_leaving(self, holder: Holder, at: float) -> bool:
        """Whether a report that came after the pod's end names none of its processes."""
        gone = holder.pod_gone_at or at
        return any(
            gone < r.at <= at and r.pods is not None and not holder.uids & r.pods.keys()
            for r in self._reports[holder.gpu]
        )

    def _instance(self, event: Event) -> None:
        if event.kind == "DELETED":
            self._instances.pop(event.name, None)
            return
        self._instances[event.name] = event.body


def _reserved(body: Json) -> tuple[str, int]:
    meta = body["metadata"]
    return meta.get("labels", {}).get(LABEL_GPU, ""), int(meta.get("annotations", {}).get(GPU_MIB) or 0)


def _uses(report: Report, holder: Holder) -> int:
    """What a report measured of a holder's pods; all that is reserved where it cannot tell, so that none is missed."""
    return holder.mib if report.pods is None else sum(report.pods.get(uid, 0) for uid in holder.uids)
