"""The rules that hold at every version of the API's history, whatever fails.

They share nothing with the operator: objects are read as JSON, names of fields and labels are those of the CRDs. What
the run did itself is known from its deeds; all else that happens to an object is the operator's doing, or Kubernetes'
for it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from tests.support.api import Json
from tests.support.history import Event, Violation

from .deeds import Deeds
from .objects import (
    INSTANCES,
    LABEL_GROUP,
    LABEL_POOL,
    LABEL_PORT,
    LEASES,
    POOLS,
    capacity,
    counted,
    group,
    kin,
    label,
    lives,
    ready,
    seconds,
)

RESOURCES = (INSTANCES, POOLS, "avatars", "pods", "services", LEASES)
# What the operator knows of a pool's spec, of a claim or of a count may be so old (seconds) while its watch is stalled.
LAG = 12.0
# Times in status are whole seconds, and events take a moment to arrive.
ROUNDING = 1.3
PHASES = {"", "Pending", "Starting", "Running", "Draining", "Stopped", "Shared", "Failed"}


@dataclass
class Life:
    """What is remembered of an instance beyond its newest version. Times are of arrival."""

    body: Json
    # Since when nobody is counted, and since when it serves.
    unused_since: float
    serving_since: float | None = None
    # When its counts changed last.
    counted_at: float = float("-inf")
    # When somebody removed its whole status last: what was written before may be on its way as a difference to that.
    wiped_at: float = float("-inf")


@dataclass
class Rules:
    """Play events with ``check``; ``violations`` is filled. ``skew``: the wrongest clock of an operator, in seconds."""

    deeds: Deeds
    skew: float = 0.0
    violations: list[Violation] = field(default_factory=list)
    writes: int = 0
    _now: dict[str, dict[str, Json]] = field(default_factory=lambda: defaultdict(dict))
    _lives: dict[str, Life] = field(default_factory=dict)
    # Capacities and idle timeouts of each pool, with the time until which they were in force.
    _capacities: dict[str, list[tuple[float, int]]] = field(default_factory=lambda: defaultdict(list))
    _idles: dict[str, list[tuple[float, int]]] = field(default_factory=lambda: defaultdict(list))
    _gone: dict[str, float] = field(default_factory=dict)
    _lease_at: float = 0.0

    def check(self, events: Iterable[Event]) -> list[Violation]:
        """Play ``events`` in their order."""
        take = {
            INSTANCES: self._instance,
            POOLS: self._pool,
            "pods": self._pod,
            "services": self._service,
            LEASES: self._lease,
        }
        for event in events:
            broken = len(self.violations)
            before = self._now[event.resource].get(event.name)
            if event.resource in take:
                take[event.resource](event, before)
            if event.kind == "DELETED":
                self._now[event.resource].pop(event.name, None)
                self._gone[event.body["metadata"]["uid"]] = event.at
            else:
                self._now[event.resource][event.name] = event.body
            self.writes += 1
            if event.resource in ("pods", "services", INSTANCES):
                self._ports(event)
            if event.gap:
                # Known from here on, and not judged: what led to it was not seen.
                del self.violations[broken:]
        return self.violations

    def _break(self, event: Event, rule: str, text: str) -> None:
        where = f" (at {event.kind} {event.resource}/{event.name})"
        self.violations.append(Violation(event.version, rule, text + where))

    # ---- pods and claims -----------------------------------------------------------------

    def _pod(self, event: Event, before: Json | None) -> None:
        meta = event.body["metadata"]
        if LABEL_GROUP not in meta.get("labels", {}):
            return
        if event.kind == "ADDED":
            self._claimed(event)
            self._one_of_its_kind(event)
        ends = event.kind == "DELETED" or "deletionTimestamp" in meta
        ended_before = before is not None and "deletionTimestamp" in before["metadata"]
        if ends and not ended_before:
            self._pod_ends(event, before or event.body)

    def _claimed(self, event: Event) -> None:
        """The claim is there before the pod."""
        claim = self._now["services"].get(event.name)
        if claim is not None and group(claim) == group(event.body):
            return
        if claim is None and self.deeds.deleted_name(f"services/{event.name}", event.at - LAG, event.at):
            return
        self._break(event, "pod without a claim", f"pod {event.name} is created while no Service of its avatar has it")

    def _one_of_its_kind(self, event: Event) -> None:
        """One live pod per avatar of a pool (and per exclusive instance)."""
        twins = [
            name
            for name, pod in self._now["pods"].items()
            if name != event.name and group(pod) == group(event.body) and lives(pod)
        ]
        if twins:
            self._break(event, "two pods of one avatar", f"{event.name} is created while {', '.join(twins)} lives")

    def _service(self, event: Event, before: Json | None) -> None:
        if LABEL_GROUP not in event.body["metadata"].get("labels", {}):
            return
        if event.kind == "ADDED":
            self._room(event)
        if event.kind != "DELETED" or event.body["metadata"]["uid"] in self.deeds.deleted:
            return
        pod = self._now["pods"].get(event.name)
        if pod is not None and group(pod) == group(event.body):
            self._break(event, "claim released over a pod", f"Service {event.name} goes while its pod exists")

    def _room(self, event: Event) -> None:
        """Never more claims, and so pods, than the pool allows, or allowed a moment ago."""
        pool = label(event.body, LABEL_POOL)
        claims = self._now["services"].items()
        held = sorted({name for name, body in claims if label(body, LABEL_POOL) == pool} | {event.name})
        allowed = max(self._recent(self._capacities[pool], event.at), default=None)
        if allowed is not None and len(held) > allowed and not self._restored(event):
            self._break(event, "pool overfull", f"{len(held)} claims in pool {pool}, which allows {allowed}: {held}")

    def _restored(self, event: Event) -> bool:
        """A claim that was deleted by hand over a pod is made again, whatever the pool allows by now."""
        pod = self._now["pods"].get(event.name)
        return pod is not None and group(pod) == group(event.body)

    def _ports(self, event: Event) -> None:
        """One pod and one claim per port; no port in the status of two that do not share."""
        for resource in ("pods", "services"):
            ports = [label(body, LABEL_PORT) for body in self._now[resource].values() if label(body, LABEL_PORT)]
            if len(ports) != len(set(ports)):
                self._break(event, "port held twice", f"{resource} have the ports {sorted(ports)}")
        if event.resource != INSTANCES or event.kind == "DELETED":
            return
        shown = event.body.get("status", {}).get("port")
        if shown is None:
            return
        for name, other in self._now[INSTANCES].items():
            if name != event.name and other.get("status", {}).get("port") == shown and kin(other) != kin(event.body):
                self._break(event, "port shown twice", f"{event.name} and {name} both show port {shown}")

    # ---- in use --------------------------------------------------------------------------

    def _pod_ends(self, event: Event, last: Json) -> None:
        """Nobody but users, failures and the end of all owners ends a pod that is in use."""
        uid = last["metadata"]["uid"]
        owners = [ref["uid"] for ref in last["metadata"].get("ownerReferences", [])]
        living = {body["metadata"]["uid"] for body in self._now[INSTANCES].values()}
        if (
            uid in self.deeds.deleted
            or uid in self.deeds.broken
            or not ready(last)
            or not any(owner in living for owner in owners)
            or self.deeds.outage(event.at, LAG)
        ):
            return
        users = [
            f"{name} ({counted(body)} connections, {body['status'].get('phase')})"
            for name, body in self._now[INSTANCES].items()
            if body.get("status", {}).get("podName") == event.name
            and body["status"].get("phase") in ("Running", "Shared", "Draining")
            and counted(body)
        ]
        if users:
            self._break(event, "pod in use ended", f"pod {event.name} is ended under {', '.join(users)}")
        self._talking(event, uid)

    def _talking(self, event: Event, pod: str) -> None:
        """The same for those whom only the runtime knows."""
        for talk in self.deeds.talks:
            if self.deeds.blackout(talk.began, event.at):
                continue
            if talk.pod == pod and talk.began < event.at and (talk.ended is None or talk.ended > event.at):
                ago = event.at - talk.began
                self._break(event, "session cut off", f"a session of {ago:.2f} s with {event.name} is cut off")

    def _instance(self, event: Event, before: Json | None) -> None:
        meta, status = event.body["metadata"], event.body.get("status", {})
        uid = meta["uid"]
        if event.kind == "DELETED":
            self._instance_goes(event)
            self._lives.pop(uid, None)
            return
        old = self._lives.get(uid)
        self._counts(event, old.body if old else None)
        if old is not None and not status:
            old.wiped_at = event.at
        if old is None or event.at > old.wiped_at + LAG:
            self._consistent(event, status)
        if old is not None and status.get("phase") == "Stopped" != old.body.get("status", {}).get("phase"):
            self._sleeps(event, old)
        life = old or Life(event.body, event.at)
        if counted(event.body) or (old is not None and counted(old.body)):
            life.unused_since = event.at
        if status.get("phase") not in ("Running", "Draining", "Shared"):
            life.serving_since = None
        elif life.serving_since is None:
            life.serving_since = event.at
        if counted(event.body) != counted(life.body):
            life.counted_at = event.at
        life.body = event.body
        self._lives[uid] = life

    def _instance_goes(self, event: Event) -> None:
        """An instance is deleted by a user, or because nobody has used it for its timeout."""
        uid = event.body["metadata"]["uid"]
        life = self._lives.get(uid)
        if uid in self.deeds.deleted or life is None:
            return
        if counted(event.body):
            self._break(event, "instance in use deleted", f"{event.name} has {counted(event.body)} connections")
            return
        self._idle_long_enough(event, life)
        pod = self._now["pods"].get(str(life.body.get("status", {}).get("podName")))
        if pod is not None and life.body.get("status", {}).get("phase") != "Shared":
            self._talking(event, pod["metadata"]["uid"])

    def _sleeps(self, event: Event, life: Life) -> None:
        if counted(event.body):
            self._break(event, "put to sleep in use", f"{event.name} has {counted(event.body)} connections")
        elif event.body["status"].get("reason") in ("Idle", "Unclaimed"):
            self._idle_long_enough(event, life)

    def _idle_long_enough(self, event: Event, life: Life) -> None:
        """No collection before the timeout is over, counted from the last use or the first Ready."""
        since = max(life.unused_since, life.serving_since or 0)
        if self.deeds.blackout(since, event.at):
            return
        own = event.body["spec"].get("idle", {}).get("timeoutSeconds")
        timeouts = [t for t in self._timeouts(event, own) if t > 0]
        if not timeouts:
            self._break(event, "collected though it never should be", f"{event.name} has no idle timeout")
        elif event.at - since < min(timeouts) - ROUNDING - self.skew:
            waited = event.at - since
            self._break(event, "collected too early", f"{event.name} after {waited:.2f} s, timeouts are {timeouts}")

    def _timeouts(self, event: Event, own: int | None) -> Iterator[int]:
        """All that may have been in force: its own now and before, its sharers', the pool's."""
        pool = event.body["spec"].get("poolRef", "default")
        yield from self._recent(self._idles[pool], event.at)
        for life in self._lives.values():
            if kin(life.body) != kin(event.body):
                continue
            value = life.body["spec"].get("idle", {}).get("timeoutSeconds")
            if value is not None:
                yield value
        if own is not None:
            yield own

    # ---- counts --------------------------------------------------------------------------

    def _counts(self, event: Event, old: Json | None) -> None:
        """Counts belong to backends: the operator changes them by its two documented corrections alone."""
        status = event.body.get("status", {})
        now, sessions = status.get("connections", 0), status.get("sessions", [])
        if now < 0:
            self._break(event, "negative count", f"{now} connections")
        if old is None:
            return
        was = old.get("status", {})
        if (was.get("connections", 0), was.get("sessions", [])) == (now, sessions):
            return
        uid = event.body["metadata"]["uid"]
        if (uid, event.version) in self.deeds.counted or {(uid, now), (uid, -1)} & self.deeds.perhaps:
            return
        if self._lapsed(event, was) or self._corrected(event):
            return
        self._break(
            event,
            "count changed by the operator",
            f"from {was.get('connections', 0)} with {len(was.get('sessions', []))} sessions to {now} with "
            f"{len(sessions)}",
        )

    def _lapsed(self, event: Event, was: Json) -> bool:
        """Sessions whose lease is over are dropped, and as many connections."""
        status = event.body["status"]
        kept = {s["id"] for s in status.get("sessions", [])}
        dropped = [s for s in was.get("sessions", []) if s["id"] not in kept]
        over = all("expires" in s and seconds(s["expires"]) <= event.wall + ROUNDING + self.skew for s in dropped)
        left = counted({"status": was}) - len(dropped)
        return bool(dropped) and over and status.get("connections", 0) == left

    def _corrected(self, event: Event) -> bool:
        """A count that stands for connectionLeakSeconds while the runtime contradicts it is set to 0."""
        status = event.body["status"]
        if status.get("connections", 0) or status.get("sessions"):
            return False
        pool = self._now[POOLS].get(event.body["spec"].get("poolRef", "default"))
        idle = (pool or {}).get("spec", {}).get("idle", {})
        life = self._lives[event.body["metadata"]["uid"]]
        if idle.get("activitySource") != "Runtime" or life.serving_since is None:
            return False
        patience = float(idle.get("connectionLeakSeconds", 300)) - ROUNDING - self.skew
        return event.at - max(life.serving_since, life.counted_at) >= patience

    # ---- the rest ------------------------------------------------------------------------

    def _consistent(self, event: Event, status: Json) -> None:
        """One version of a status does not contradict itself."""
        if status.get("phase", "") not in PHASES:
            self._break(event, "unknown phase", str(status.get("phase")))
        port, pod = status.get("port"), status.get("podName")
        if port is not None and pod is not None and pod != f"avatar-{port}":
            self._break(event, "port of another pod", f"port {port} and podName {pod}")
        if status.get("phase") in ("Running", "Draining", "Shared") and (port is None or not status.get("webrtcUrl")):
            self._break(event, "serves without a port", f"phase {status['phase']}, port {port}")
        if status.get("phase") == "Shared" and not status.get("sharedWith"):
            self._break(event, "shares with nobody", "phase Shared without sharedWith")

    def _pool(self, event: Event, before: Json | None) -> None:
        spec = event.body["spec"]
        if before is not None:
            # The old one was in force until now.
            for kept, value in (
                (self._capacities, capacity(before["spec"])),
                (self._idles, before["spec"].get("idle", {}).get("timeoutSeconds", 0)),
            ):
                kept[event.name][-1] = (event.at, value)
        self._capacities[event.name].append((float("inf"), capacity(spec)))
        self._idles[event.name].append((float("inf"), spec.get("idle", {}).get("timeoutSeconds", 0)))

    @staticmethod
    def _recent(values: Sequence[tuple[float, int]], at: float) -> list[int]:
        """The values in force at ``at`` or up to LAG before."""
        return [value for until, value in values if until >= at - LAG]

    def _lease(self, event: Event, before: Json | None) -> None:
        """Nobody takes a lease that its holder has renewed a moment ago."""
        spec = event.body.get("spec", {})
        if before is not None and event.kind == "MODIFIED":
            old = before.get("spec", {})
            holder, duration = old.get("holderIdentity"), float(old.get("leaseDurationSeconds", 0))
            stolen = holder and spec.get("holderIdentity") not in (holder, "", None)
            told_late = self.deeds.blackout(self._lease_at, event.at)
            if stolen and event.at - self._lease_at < duration - 0.5 and not told_late:
                self._break(
                    event,
                    "lease taken early",
                    f"from {holder} {event.at - self._lease_at:.2f} s after it was renewed for {duration} s",
                )
        self._lease_at = event.at
