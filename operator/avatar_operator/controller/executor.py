"""Carries out the actions of a plan and takes what the API server answers into the store."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import msgspec

from avatar_operator.domain.actions import (
    Action,
    ConfirmPlacement,
    CreateClaim,
    CreateDeviceClaim,
    CreatePod,
    DeleteInstance,
    DeletePod,
    Event,
    Json,
    MarkInUse,
    MendClaim,
    PatchStatus,
    ProbeActivity,
    ProbeMedia,
    ProbeReady,
    RaiseEstimate,
    ReadAllocation,
    ReleaseClaim,
    SetDraining,
    SetOwners,
)
from avatar_operator.domain.coldstart import FIRST_FRAME, first_frame, phases
from avatar_operator.domain.devices import allocated, placement_of
from avatar_operator.domain.eviction import marks
from avatar_operator.domain.flow import STALLED, mark
from avatar_operator.domain.names import (
    LABEL_GROUP,
    LABEL_MANAGED_BY,
    LABEL_POOL,
    LABEL_PORT,
    MANAGER,
    claim_name,
)
from avatar_operator.domain.objects import mended
from avatar_operator.domain.placement import Placement
from avatar_operator.domain.plan import wants_to_run
from avatar_operator.domain.resources import Instance, Pod, Service
from avatar_operator.domain.status import full
from avatar_operator.domain.view import Activity, GpuHints, GroupKey, GroupView, RuntimeView
from avatar_operator.kube.client import KubeClient
from avatar_operator.kube.errors import AlreadyExistsError, ConflictError, NotFoundError, RejectedError
from avatar_operator.kube.events import Recorder
from avatar_operator.kube.kinds import AVATARS, INSTANCES, PODS, RESOURCE_CLAIMS, RESOURCE_SLICES, SERVICES
from avatar_operator.runtimes.http import host_of

from .confirm import CONFLICT_PAUSE_SECONDS, free_for, pause
from .gate import Gate
from .keys import PoolKey, group_of
from .metrics import Metrics
from .patched import read_again, take_in
from .probe import RuntimeProbe
from .store import FOR_GOOD, Store

log = logging.getLogger(__name__)

# How long a port stays out of use that something else was found on.
QUARANTINE_SECONDS = 60.0


@dataclass(slots=True)
class Memory:
    """What this process remembers of a group's runtime: hints that a restart may lose."""

    pod_uid: str = ""
    runtime: RuntimeView = field(default_factory=RuntimeView)
    gpu: GpuHints = field(default_factory=GpuHints)
    rejection: tuple[str, str] | None = None
    shown: bool = False
    # Since when the first word of a status waits.
    put_off: datetime | None = None

    def about(self, pod: Pod) -> None:
        """Forget what was remembered of another pod."""
        if self.pod_uid != pod.metadata.uid:
            self.pod_uid, self.runtime, self.shown = pod.metadata.uid, RuntimeView(), False
            self.gpu = GpuHints(wrote=self.gpu.wrote, confirmed=self.gpu.confirmed)

    def note(self, view: GroupView) -> GroupView:
        """``view``, with what can be told only by one who has looked all the time: who was there, and left."""
        used = view.now if any(m.counted_connections for m in view.members) else view.runtime.used_at
        self.runtime = replace(self.runtime, known_since=self.runtime.known_since or view.now, used_at=used)
        return replace(view, runtime=self.runtime)


class Executor:
    """One method for each action. Raises kube.errors.ApiError when the action should be retried.

    Later when there was no room to ask a runtime: the plan is to be made again then.
    """

    def __init__(
        self,
        client: KubeClient,
        store: Store,
        recorder: Recorder,
        probe: RuntimeProbe,
        metrics: Metrics,
        later: Callable[[PoolKey, str, int, float], None],
        namespaces: Sequence[str] = (),
    ) -> None:
        self._client = client
        self._store = store
        self._recorder = recorder
        self._probe = probe
        self._gate = Gate(metrics.probes_deferred.inc)
        self._metrics = metrics
        self._quarantine_later = later
        self._namespaces = tuple(namespaces) or ("",)
        self._began = datetime.now(UTC)

    def prepare(self, key: GroupKey, pool: PoolKey, action: Action) -> None:
        """What must be known before anything else is planned: the port of a claim or a pod on its way."""
        if isinstance(action, CreateClaim):
            self._store.reserve(key, pool, action.port, action.placement)
        elif isinstance(action, CreatePod):
            self._store.expect_pod(key, pool, _port(action))

    async def run(self, key: GroupKey, pool: PoolKey, memory: Memory, action: Action) -> None:
        """Carry out ``action``; the store knows its result when this returns."""
        match action:
            case CreateClaim():
                await self._create_claim(key, pool, memory, action)
            case MendClaim():
                await self._mend_claim(key, action)
            case ReleaseClaim(service):
                await self._release_claim(key, service)
            case ConfirmPlacement():
                await self._confirm(key, memory, action)
            case CreateDeviceClaim(pod, body):
                memory.about(pod)
                with contextlib.suppress(AlreadyExistsError):
                    await self._client.create(RESOURCE_CLAIMS, key.namespace, body)
                memory.gpu = replace(memory.gpu, claim_made=True)
            case ReadAllocation():
                await self._read_allocation(key, memory, action)
            case RaiseEstimate():
                await self._raise_estimate(action)
            case CreatePod():
                await self._create_pod(key, pool, memory, action)
            case DeletePod():
                await self._delete_pod(key, action)
            case SetOwners():
                await self._set_owners(action)
            case MarkInUse(pod, in_use):
                labels, annotations = marks(in_use)
                # The UID keeps it off a namesake made meanwhile; two operators may mark at once and both be right.
                metadata = {"uid": pod.metadata.uid, "labels": labels, "annotations": annotations}
                await self._patch_pod(pod, {"metadata": metadata})
                log.debug("marked", extra={**_about(pod), "in_use": in_use})
            case PatchStatus():
                await self._patch_status(key, action, memory)
            case DeleteInstance():
                await self._delete_instance(key, action)
            case ProbeActivity(pod) | ProbeMedia(pod) | ProbeReady(pod) | SetDraining(pod):
                memory.about(pod)
                with self._gate.enter(pod.spec.node_name):
                    await self._ask(memory, action)

    async def _ask(self, memory: Memory, action: ProbeActivity | ProbeMedia | ProbeReady | SetDraining) -> None:
        """What the runtime answers goes into ``memory``."""
        host, port = host_of(action.pod), action.port
        if isinstance(action, ProbeReady):
            serves = await self._probe.serves(host, port, action.path)
            now = datetime.now(UTC)
            memory.runtime = replace(memory.runtime, asked_at=now, answered_at=now if serves else None)
        elif isinstance(action, ProbeActivity):
            seen = await self._probe.activity(host, port)
            memory.runtime = replace(memory.runtime, activity=seen, frames=mark(memory.runtime.frames, seen))
            self._measure_first_frame(action.pod, seen, memory)
            log.debug("probed", extra={**_about(action.pod), "sessions": seen.sessions, "error": seen.error})
        elif isinstance(action, ProbeMedia):
            report = await self._probe.media(host, port)
            memory.runtime = replace(memory.runtime, media=report)
            log.debug("probed media", extra={**_about(action.pod), "told": report.told, "answered": report.answered})
        else:
            error = await self._probe.set_draining(host, port, draining=action.draining)
            now = datetime.now(UTC)
            # One that was not reached may take offers still: who uses it is unknown.
            unknown = Activity(now, None, error=error) if error else None
            memory.runtime = replace(memory.runtime, activity=unknown, draining=action.draining, told_at=now)
            log.info("told the runtime", extra={**_about(action.pod), "draining": action.draining, "error": error})

    # ---- claims ------------------------------------------------------------------------

    async def _create_claim(self, key: GroupKey, pool: PoolKey, memory: Memory, action: CreateClaim) -> None:
        try:
            raw = await self._client.create(SERVICES, key.namespace, action.body)
            made = msgspec.json.decode(raw, type=Service)
            memory.gpu = replace(memory.gpu, wrote=made.metadata.uid)
            self._store.apply(made)
            log.info("claimed", extra={"namespace": key.namespace, "port": action.port, "group": key.id})
        except AlreadyExistsError:
            await self._who_holds(key, pool, action)
        finally:
            self._store.unreserve(key, pool)

    async def _who_holds(self, key: GroupKey, pool: PoolKey, action: CreateClaim) -> None:
        """A claim was there first: ours (a lost reply), another group's, or a stranger's."""
        port = action.port
        try:
            raw = await self._client.get(SERVICES, key.namespace, claim_name(port))
        except NotFoundError:
            return
        found = msgspec.json.decode(raw, type=Service)
        labels, name = found.metadata.labels, found.metadata.name
        if labels.get(LABEL_MANAGED_BY) == MANAGER and LABEL_GROUP in labels:
            self._store.apply(found)
            if found.metadata.labels[LABEL_GROUP] != key.id:
                self._metrics.port_conflicts.labels(pool.namespace, pool.name).inc()
            return
        if labels.get(LABEL_GROUP) == key.id:
            # Ours, and no longer among those that are watched: to the store it is gone until it is whole again.
            await self._mend_claim(key, MendClaim(found, mended(found, action.body)))
            return
        self._set_aside(key, pool, port, f"Service {name} is not the operator's")
        if await self._has_pod(key, key.namespace, name):
            # It cannot go to another port, and asking at once again would be in vain.
            text = f"Service {name} is not the operator's, and pod {name} serves on its port; delete or rename it"
            raise ConflictError(409, "NameTaken", text)

    def _set_aside(self, key: GroupKey, pool: PoolKey, port: int, why: str) -> None:
        log.warning("port quarantined: %s", why, extra={"namespace": key.namespace, "port": port})
        self._metrics.port_conflicts.labels(pool.namespace, pool.name).inc()
        self._store.quarantine(key.namespace, port)
        self._quarantine_later(pool, key.namespace, port, QUARANTINE_SECONDS)

    async def _mend_claim(self, key: GroupKey, action: MendClaim) -> None:
        meta = action.service.metadata
        seen = {**action.change.get("metadata", {}), "resourceVersion": meta.resource_version}
        patch = self._client.merge_patch(SERVICES, meta.namespace, meta.name, {**action.change, "metadata": seen})
        if await take_in(self._client, self._store, SERVICES, action.service, patch):
            log.info("mended", extra={"namespace": meta.namespace, "claim": meta.name, "group": key.id})

    async def _release_claim(self, key: GroupKey, service: Service) -> None:
        meta = service.metadata
        if await self._has_pod(key, meta.namespace, meta.name):
            # Another operator's, made a moment ago: a port and a GPU in use are never given away.
            return
        # Gone, or another of the same name: either way this one is no more.
        with contextlib.suppress(NotFoundError, ConflictError):
            await self._client.delete(SERVICES, meta.namespace, meta.name, uid=meta.uid)
        self._store.remove(Service, meta.namespace, meta.name, meta.uid, meta.resource_version)
        log.info("released", extra={"namespace": meta.namespace, "claim": meta.name, "group": key.id})

    async def _has_pod(self, key: GroupKey, namespace: str, name: str) -> bool:
        try:
            pod = msgspec.json.decode(await self._client.get(PODS, namespace, name), type=Pod)
        except NotFoundError:
            return False
        self._store.apply(pod)
        return pod.metadata.labels.get(LABEL_GROUP) == key.id

    # ---- GPUs --------------------------------------------------------------------------

    async def _confirm(self, key: GroupKey, memory: Memory, action: ConfirmPlacement) -> None:
        """Everything that is written by now fits on the GPU, or the claim is taken back."""
        meta, placement = action.service.metadata, placement_of(action.service.metadata)
        free = await free_for(self._client, self._store, self._namespaces, action.service)
        if free is None:
            return
        if free >= action.need.free:
            memory.gpu = replace(memory.gpu, confirmed=meta.uid)
            return
        self._metrics.placement_conflicts.inc()
        log.info(
            "took a claim back: others were faster on the GPU",
            extra={
                "namespace": meta.namespace,
                "claim": meta.name,
                "gpu": placement.uuid if placement else "",
                "free_mib": free,
            },
        )
        await self._release_claim(key, action.service)
        await pause(CONFLICT_PAUSE_SECONDS)

    async def _read_allocation(self, key: GroupKey, memory: Memory, action: ReadAllocation) -> None:
        memory.about(action.pod)
        found = None
        try:
            claim = msgspec.json.decode(await self._client.get(RESOURCE_CLAIMS, key.namespace, action.claim))
            slices, _ = await self._client.list_pages(RESOURCE_SLICES, "")
            found = allocated(claim, slices, action.dra)
        except (NotFoundError, RejectedError) as error:
            # Status lacks the GPU then; the instance serves all the same.
            log.warning("allocation not read: %s", error, extra=_about(action.pod))
        node, uuid, index, mib = found or (action.pod.spec.node_name, "", None, _reserved(action.pod))
        memory.gpu = replace(memory.gpu, allocated=Placement(mib, node, uuid, index))

    async def _raise_estimate(self, action: RaiseEstimate) -> None:
        meta = action.avatar.metadata
        patch = self._client.patch_status(AVATARS, action.avatar, {"vram": full(action.vram)}, exact=True)
        if await take_in(self._client, self._store, AVATARS, action.avatar, patch):
            text = f"a pod ran out of GPU memory; the next one reserves {action.vram.estimate_mib} MiB"
            self._recorder.record("Avatar", meta, Event("Warning", "EstimateRaised", text))

    # ---- pods --------------------------------------------------------------------------

    async def _create_pod(self, key: GroupKey, pool: PoolKey, memory: Memory, action: CreatePod) -> None:
        name = action.body["metadata"]["name"]
        try:
            raw = await self._client.create(PODS, key.namespace, action.body)
            self._store.apply(msgspec.json.decode(raw, type=Pod))
        except AlreadyExistsError:
            pod = msgspec.json.decode(await self._client.get(PODS, key.namespace, name), type=Pod)
            self._store.apply(pod)
            if pod.metadata.labels.get(LABEL_GROUP) != key.id:
                await self._give_up_port(key, pool, _port(action))
        except RejectedError as error:
            if "being terminated" in error.message:
                # The namespace is being deleted: there is nothing to start, and nothing to say it in.
                log.info("namespace is terminating", extra={"namespace": key.namespace})
                raise
            memory.rejection = ("PodRejected", f"the API server refuses the pod: {error.message}")
            log.warning("pod refused: %s", error, extra={"namespace": key.namespace, "pod": name})
        finally:
            self._store.pod_came(key, pool, _port(action))

    async def _give_up_port(self, key: GroupKey, pool: PoolKey, port: int) -> None:
        """The pod's name is another's: the claim is of no use, the next plan takes another port."""
        self._set_aside(key, pool, port, f"a pod {claim_name(port)} exists that is not of this avatar")
        raw = await self._client.get(SERVICES, key.namespace, claim_name(port))
        claim = msgspec.json.decode(raw, type=Service)
        if claim.metadata.labels.get(LABEL_GROUP) == key.id:
            await self._release_claim(key, claim)

    async def _delete_pod(self, key: GroupKey, action: DeletePod) -> None:
        meta = action.pod.metadata
        if action.reason == "NotWanted" and await self._wanted_after_all(key, action.pod):
            return
        try:
            raw = await self._client.delete(PODS, meta.namespace, meta.name, uid=meta.uid, grace=action.grace)
        except (NotFoundError, ConflictError):
            self._forget_pod(action.pod)
            return
        if action.reason not in ("NotWanted", "Outdated", "Duplicate"):
            self._metrics.pod_failures.labels(action.reason).inc()
        log.info("deleted pod", extra={**_about(action.pod), "reason": action.reason, "group": key.id})
        answer = msgspec.json.decode(raw)
        if ends_later(answer):
            self._store.apply(msgspec.convert(answer, Pod))
        else:
            self._forget_pod(action.pod)

    def _forget_pod(self, pod: Pod) -> None:
        """It is gone: what was written right before its end must not bring it back, to be planned with once more."""
        meta = pod.metadata
        self._store.remove(Pod, meta.namespace, meta.name, meta.uid, FOR_GOOD)

    async def _wanted_after_all(self, key: GroupKey, pod: Pod) -> bool:
        """Ask the API server whether an owner wants the pod: that the plan knew of none is no proof.

        A watch may be behind, and one that has stalled says nothing at all. What the store did not know is in it
        then, and planned with.
        """
        wanted = False
        for owner in pod.metadata.owner_references:
            if owner.kind != "AvatarInstance":
                continue
            try:
                raw = await self._client.get(INSTANCES, pod.metadata.namespace, owner.name)
            except NotFoundError:
                continue
            found = msgspec.json.decode(raw, type=Instance)
            self._store.apply(found)
            wanted |= wants_to_run(found) and group_of(found)[0] == key
        return wanted

    async def _set_owners(self, action: SetOwners) -> None:
        version = action.pod.metadata.resource_version
        await self._patch_pod(action.pod, {"metadata": {"resourceVersion": version, "ownerReferences": action.owners}})

    async def _patch_pod(self, pod: Pod, body: Json) -> None:
        meta = pod.metadata
        patch = self._client.merge_patch(PODS, meta.namespace, meta.name, body)
        await take_in(self._client, self._store, PODS, pod, patch)

    # ---- instances ---------------------------------------------------------------------

    async def _patch_status(self, key: GroupKey, action: PatchStatus, memory: Memory) -> None:
        patch = self._client.patch_status(INSTANCES, action.instance, action.status, exact=action.exact)
        if await take_in(self._client, self._store, INSTANCES, action.instance, patch):
            self.tell(action)
            self._measure(action, memory)
        elif action.status.get("phase") == "Draining":
            self._contested(key, action.instance)

    def tell(self, action: PatchStatus) -> None:
        """The events of a status."""
        meta = action.instance.metadata
        for event in action.events:
            self._recorder.record("AvatarInstance", meta, event)
            if event.reason == STALLED and "phase" not in action.status:
                # Not the pod's end by it, which pod_failures counts.
                self._metrics.media_stalled.labels(meta.namespace, action.instance.spec.pool_ref).inc()
            log.info(
                "%s: %s",
                event.reason,
                event.message,
                extra={
                    "namespace": meta.namespace,
                    "instance": meta.name,
                    "avatar": action.instance.spec.avatar_name,
                    "phase": action.status.get("phase", action.instance.status.phase),
                    "port": action.status.get("port", action.instance.status.port),
                    "gpu": action.instance.status.gpu.uuid if action.instance.status.gpu else None,
                },
            )

    def _measure(self, action: PatchStatus, memory: Memory) -> None:
        old, new, meta = action.instance.status, action.status, action.instance.metadata
        pool = action.instance.spec.pool_ref
        first_ready = new.get("phase") == "Running" and old.ready_time is None
        now = datetime.now(UTC)
        started = old.start_time or msgspec.convert(new.get("startTime"), datetime | None)
        if first_ready and started is not None:
            seconds = (now - started).total_seconds()
            self._metrics.start_seconds.labels(meta.namespace, pool).observe(seconds)
        pod = self._store.pod(meta.namespace, str(new.get("podName") or old.pod_name or ""))
        if first_ready and pod is not None:
            answered = memory.runtime.answered_at if memory.pod_uid == pod.metadata.uid else None
            for phase, seconds in phases(action.instance, pod, answered, now).items():
                self._metrics.start_phase_seconds.labels(meta.namespace, pool, phase).observe(seconds)
        if new.get("phase") == "Stopped":
            self._metrics.collected.labels(meta.namespace, pool, "Sleep", str(new.get("reason", old.reason))).inc()

    def _measure_first_frame(self, pod: Pod, seen: Activity, memory: Memory) -> None:
        seconds = first_frame(pod, seen, self._began)
        if seconds is not None and not memory.shown:
            memory.shown = True
            meta = pod.metadata
            labels = (meta.namespace, meta.labels.get(LABEL_POOL, ""), FIRST_FRAME)
            self._metrics.start_phase_seconds.labels(*labels).observe(seconds)

    def _contested(self, key: GroupKey, planned: Instance) -> None:
        """A write of the collection was refused. Whoever caused it may have come and gone: that is a sign of life.

        Not so where an operator's part of the status has changed: another one is at the same work.
        """
        found = self._store.instance(planned.metadata.namespace, planned.metadata.name)
        if found is None or found.metadata.uid != planned.metadata.uid:
            return
        old = planned.status
        if msgspec.structs.replace(found.status, connections=old.connections, sessions=old.sessions) == old:
            self._store.note_use(key)

    async def _delete_instance(self, key: GroupKey, action: DeleteInstance) -> None:
        instance = action.instance
        meta = instance.metadata
        try:
            await self._client.delete(
                INSTANCES, meta.namespace, meta.name, uid=meta.uid, resource_version=meta.resource_version
            )
        except NotFoundError:
            pass
        except ConflictError:
            # Somebody changed it since the plan looked: perhaps a client came. Plan again.
            await read_again(self._client, self._store, INSTANCES, instance)
            self._contested(key, instance)
            return
        else:
            if instance.counted_connections:
                self._metrics.culled_active.inc()
            self._metrics.collected.labels(meta.namespace, instance.spec.pool_ref, "Delete", action.reason).inc()
            self._recorder.record("AvatarInstance", meta, action.event)
            log.info(
                "%s: %s",
                action.event.reason,
                action.event.message,
                extra={"namespace": meta.namespace, "instance": meta.name, "port": instance.status.port},
            )
        self._store.remove(Instance, meta.namespace, meta.name, meta.uid, meta.resource_version)


def _port(action: CreatePod) -> int:
    return int(action.body["metadata"]["labels"][LABEL_PORT])


def ends_later(answer: Json) -> bool:
    """Whether what the API server answers to a pod's deletion says that the pod ends later.

    Of one that is gone at once (it had failed, or was on no node) it shows the last state, a deletionTimestamp in it
    all the same, and sometimes no resourceVersion.
    """
    meta = answer.get("metadata", {})
    if answer.get("kind") != "Pod" or not meta.get("deletionTimestamp"):
        return False
    return bool(meta.get("deletionGracePeriodSeconds") or meta.get("finalizers"))


def _reserved(pod: Pod) -> int:
    reservation = placement_of(pod.metadata)
    return reservation.mib if reservation is not None else 0


def _about(pod: Pod) -> dict[str, str]:
    return {"namespace": pod.metadata.namespace, "pod": pod.metadata.name, "node": pod.spec.node_name}
