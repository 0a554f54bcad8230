"""Brings one speech engine to its desired state: plan, carry out, plan again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import msgspec

from avatar_operator.domain.devices import placement_of
from avatar_operator.domain.names import ANNOTATION_GPU_INDEX, ANNOTATION_GPU_MIB, ANNOTATION_GPU_NODE, LABEL_GPU
from avatar_operator.domain.resources import Service
from avatar_operator.domain.tts import Deployment
from avatar_operator.domain.tts_plan import plan
from avatar_operator.domain.tts_view import (
    ConfirmEngine,
    CreateDeployment,
    CreateTtsService,
    PatchDeployment,
    PatchTtsService,
    SayEngine,
    TtsAction,
    TtsHints,
    TtsKey,
)
from avatar_operator.kube.client import KubeClient, Resource
from avatar_operator.kube.errors import AlreadyExistsError, RejectedError
from avatar_operator.kube.events import Recorder
from avatar_operator.kube.kinds import DEPLOYMENTS, ENGINES, SERVICES

from .confirm import CONFLICT_PAUSE_SECONDS, free_for, pause
from .metrics import Metrics
from .patched import take_in
from .store import Store

log = logging.getLogger(__name__)

MAX_PASSES = 12
# What is in the way, or was refused, is looked at again after this (seconds).
AGAIN_SECONDS = 5.0


class TtsWorker:
    """One method for each action. Raises kube.errors.ApiError when the engine should be tried again."""

    def __init__(
        self,
        client: KubeClient,
        store: Store,
        recorder: Recorder,
        metrics: Metrics,
        namespaces: Sequence[str] = (),
    ) -> None:
        self._client = client
        self._store = store
        self._recorder = recorder
        self._metrics = metrics
        self._namespaces = tuple(namespaces) or ("",)
        self._hints: dict[TtsKey, TtsHints] = {}

    async def reconcile(self, key: TtsKey) -> float | None:
        """Do what the engine's plan asks for until it asks for nothing; seconds until it wants to be asked again."""
        for _ in range(MAX_PASSES):
            hints = self._hints.setdefault(key, TtsHints())
            view = self._store.engine_view(key, datetime.now(UTC), hints)
            if view.engine is None:
                del self._hints[key]
                return None
            result = plan(view)
            if not result.actions:
                wait = (result.wake - datetime.now(UTC)).total_seconds() if result.wake is not None else None
                if hints.taken or hints.rejection:
                    self._hints[key] = replace(hints, taken="", rejection="")
                    wait = min(wait or AGAIN_SECONDS, AGAIN_SECONDS)
                return wait
            if hints.taken or hints.rejection:
                # Said by now; what is in the way is tried again after a while, not at once.
                said = [a for a in result.actions if isinstance(a, SayEngine)]
                if not said:
                    self._hints[key] = replace(hints, taken="", rejection="")
                    return AGAIN_SECONDS
                result.actions[:] = said
            self._prepare(key, result.actions)
            outcomes = await asyncio.gather(*(self._run(key, a) for a in result.actions), return_exceptions=True)
            for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    raise outcome
        log.warning("plan did not settle", extra={"namespace": key.namespace, "engine": key.name})
        return 1.0

    def _prepare(self, key: TtsKey, actions: Sequence[TtsAction]) -> None:
        """A GPU that is about to be reserved is nobody else's from this moment on."""
        for action in actions:
            if isinstance(action, (CreateTtsService, PatchTtsService)) and action.placement is not None:
                self._store.reserve_for_engine(key, _service_name(action), action.placement)

    async def _run(self, key: TtsKey, action: TtsAction) -> None:
        match action:
            case CreateTtsService(body):
                try:
                    await self._create(key, SERVICES, Service, body)
                finally:
                    if action.placement is not None:
                        self._store.unreserve_for_engine(key, _service_name(action))
            case PatchTtsService(service, body):
                try:
                    await self._patch_service(service, body)
                finally:
                    if action.placement is not None:
                        self._store.unreserve_for_engine(key, _service_name(action))
            case CreateDeployment(body):
                await self._create(key, DEPLOYMENTS, Deployment, body)
            case PatchDeployment(deployment, operations):
                await self._patch_deployment(deployment, operations)
            case SayEngine():
                await self._say(key, action)
            case ConfirmEngine():
                await self._confirm(key, action)

    # ---- objects -------------------------------------------------------------------

    async def _create(
        self, key: TtsKey, resource: Resource, kind: type[Service] | type[Deployment], body: dict[str, object]
    ) -> None:
        try:
            raw = await self._client.create(resource, key.namespace, body)
        except RejectedError as error:
            if "being terminated" in error.message:
                raise
            self._hints[key] = replace(self._hints[key], rejection=f"the API server refuses it: {error.message}")
            return
        except AlreadyExistsError:
            raw = await self._client.get(resource, key.namespace, f"tts-{key.name}")
            found = msgspec.json.decode(raw, type=kind)
            engine = self._store.tts.engine(key)
            if engine is None or all(ref.uid != engine.metadata.uid for ref in found.metadata.owner_references):
                what = f"{'Service' if kind is Service else 'Deployment'} {found.metadata.name}"
                text = f"{what} is there and not this engine's; delete it, or give the engine another name"
                self._hints[key] = replace(self._hints[key], taken=text)
                return
        self._store.apply(msgspec.json.decode(raw, type=kind))

    async def _patch_service(self, service: Service, body: dict[str, object]) -> None:
        meta = service.metadata
        given = body.get("metadata")
        patch = {**body, "metadata": {**(given if isinstance(given, dict) else {})}}
        patch["metadata"] |= {"uid": meta.uid, "resourceVersion": meta.resource_version}  # type: ignore[operator]
        patching = self._client.merge_patch(SERVICES, meta.namespace, meta.name, patch)
        await take_in(self._client, self._store, SERVICES, service, patching)

    async def _patch_deployment(self, deployment: Deployment, operations: list[dict[str, object]]) -> None:
        meta = deployment.metadata
        seen = {"op": "replace", "path": "/metadata/resourceVersion", "value": meta.resource_version}
        patch = self._client.json_patch(DEPLOYMENTS, meta.namespace, meta.name, [seen, *operations])
        await take_in(self._client, self._store, DEPLOYMENTS, deployment, patch)

    async def _confirm(self, key: TtsKey, action: ConfirmEngine) -> None:
        """Everything that is written by now fits on the GPU, or the reservation is taken back."""
        meta = action.service.metadata
        free = await free_for(self._client, self._store, self._namespaces, action.service)
        if free is None:
            return
        if free >= action.need.free:
            self._hints[key] = replace(self._hints[key], confirmed=meta.uid)
            return
        self._metrics.placement_conflicts.inc()
        reserved = placement_of(meta)
        log.info(
            "took a reservation back: others were faster on the GPU",
            extra={"namespace": key.namespace, "engine": key.name, "gpu": reserved.uuid if reserved else ""},
        )
        gone = dict.fromkeys((ANNOTATION_GPU_MIB, ANNOTATION_GPU_NODE, ANNOTATION_GPU_INDEX))
        await self._patch_service(action.service, {"metadata": {"labels": {LABEL_GPU: None}, "annotations": gone}})
        await pause(CONFLICT_PAUSE_SECONDS)

    # ---- status --------------------------------------------------------------------

    async def _say(self, key: TtsKey, action: SayEngine) -> None:
        meta = action.engine.metadata
        patch = self._client.patch_status(ENGINES, action.engine, action.status, exact=True)
        if not await take_in(self._client, self._store, ENGINES, action.engine, patch):
            return
        now = datetime.now(UTC)
        hints = self._hints[key]
        if action.status.get("phase") == "Stopped":
            hints = replace(hints, confirmed="")
        self._hints[key] = replace(hints, said_at=now)
        self._metrics.tts.observe(action.engine, action.status, now)
        for event in action.events:
            self._recorder.record("TTSEngine", meta, event)
            log.info(
                "%s: %s",
                event.reason,
                event.message,
                extra={
                    "namespace": meta.namespace,
                    "engine": meta.name,
                    "phase": action.status.get("phase", action.engine.status.phase),
                    "users": action.status.get("users", action.engine.status.users),
                },
            )


def _service_name(action: CreateTtsService | PatchTtsService) -> str:
    if isinstance(action, PatchTtsService):
        return action.service.metadata.name
    return str(action.body["metadata"]["name"])
