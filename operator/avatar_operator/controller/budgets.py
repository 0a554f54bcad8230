"""Keeps each pool's PodDisruptionBudget: made, put right when somebody changed it, remade when deleted.

It is not watched: one is read a minute for each pool, and that is often enough
for something that people hardly touch.
"""

from __future__ import annotations

import logging
import time

import msgspec

from avatar_operator.domain.actions import Event
from avatar_operator.domain.eviction import budget
from avatar_operator.domain.names import LABEL_MANAGED_BY, MANAGER
from avatar_operator.domain.resources import Pool
from avatar_operator.kube.client import KubeClient
from avatar_operator.kube.errors import AlreadyExistsError, ApiError, ConflictError, NotFoundError
from avatar_operator.kube.events import Recorder
from avatar_operator.kube.kinds import BUDGETS

from .keys import PoolKey

log = logging.getLogger(__name__)

# How often a pool's budget is looked at (seconds).
PERIOD_SECONDS = 60.0


class Budgets:
    """One budget for each pool. What goes wrong here never stops the pool's own reconcile."""

    def __init__(self, client: KubeClient, recorder: Recorder) -> None:
        self._client = client
        self._recorder = recorder
        self._looked: dict[PoolKey, tuple[str, float]] = {}
        self._problem: dict[PoolKey, str] = {}

    async def keep(self, key: PoolKey, pool: Pool) -> float:
        """Make or repair the budget if it is time to look; seconds until the next look."""
        uid, at = self._looked.get(key, ("", 0.0))
        left = at + PERIOD_SECONDS - time.monotonic()
        if uid == pool.metadata.uid and left > 0:
            return left
        self._looked[key] = pool.metadata.uid, time.monotonic()
        problem = ""
        try:
            problem = await self._ensure(pool)
        except ApiError as error:
            if "being terminated" not in error.message:
                problem = f"{error}; the operator's Role needs get, create and patch of poddisruptionbudgets (policy)"
        if problem and problem != self._problem.get(key):
            text = f"evictions of pods in use are not blocked: {problem}"
            log.warning(text, extra={"namespace": key.namespace, "pool": key.name})
            self._recorder.record("AvatarPool", pool.metadata, Event("Warning", "EvictionsNotBlocked", text))
        self._problem[key] = problem
        return PERIOD_SECONDS

    def forget(self, key: PoolKey) -> None:
        """The pool is gone, and its budget goes with it."""
        self._looked.pop(key, None)
        self._problem.pop(key, None)

    async def _ensure(self, pool: Pool) -> str:
        """Why there is no budget; empty = there is."""
        wanted, namespace = budget(pool), pool.metadata.namespace
        name = wanted["metadata"]["name"]
        try:
            found = msgspec.json.decode(await self._client.get(BUDGETS, namespace, name))
        except NotFoundError:
            try:
                await self._client.create(BUDGETS, namespace, wanted)
            except AlreadyExistsError:
                # Another operator's, made a moment ago, or a stranger's: the next look tells.
                return ""
            log.info("made a disruption budget", extra={"namespace": namespace, "budget": name})
            return ""
        meta = found["metadata"]
        if meta.get("labels", {}).get(LABEL_MANAGED_BY) != MANAGER:
            return f"PodDisruptionBudget {name} exists and is not the operator's; rename or delete it"
        same_spec = {key: found.get("spec", {}).get(key) for key in wanted["spec"]} == wanted["spec"]
        if same_spec and any(ref["uid"] == pool.metadata.uid for ref in meta.get("ownerReferences", ())):
            return ""
        # A selector of more labels than ours would let pods out: what a merge patch does not name stays, null removes.
        labels = found.get("spec", {}).get("selector", {}).get("matchLabels") or {}
        spec = dict(wanted["spec"])
        spec["maxUnavailable"] = None
        spec["selector"] = {
            "matchLabels": {**dict.fromkeys(labels), **spec["selector"]["matchLabels"]},
            "matchExpressions": None,
        }
        owners = wanted["metadata"]["ownerReferences"]
        body = {"metadata": {"uid": meta["uid"], "ownerReferences": owners}, "spec": spec}
        try:
            await self._client.merge_patch(BUDGETS, namespace, name, body)
        except (NotFoundError, ConflictError):
            return ""
        log.info("repaired a disruption budget", extra={"namespace": namespace, "budget": name})
        return ""
