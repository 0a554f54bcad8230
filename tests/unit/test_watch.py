"""What kopf tells goes into the store, and is not kept beside it."""

from __future__ import annotations

import gc
import weakref
from datetime import UTC, datetime
from typing import Any

from kopf._cogs.structs.bodies import Body

from avatar_operator.controller.metrics import Metrics
from avatar_operator.controller.resync import Resync
from avatar_operator.controller.store import Store
from avatar_operator.controller.watch import handler, settings
from avatar_operator.controller.watched import watched
from avatar_operator.domain.resources import Avatar
from avatar_operator.kube.kinds import AVATARS


class Event(dict[str, Any]):
    """One that can be looked after."""


def told(version: str) -> dict[str, Any]:
    """An Avatar, as the API server tells of it."""
    meta = {"name": "ada", "namespace": "default", "uid": "u", "resourceVersion": version}
    return {"metadata": meta, "spec": Event(avatarName="Ada", files={"pvc": "ada"})}


async def test_an_event_is_taken_in_and_let_go() -> None:
    metrics, what = Metrics(), watched(nodes=False)
    store = Store(lambda key: None, lambda: datetime.now(UTC))
    # It lists nothing here, so it needs no client.
    resync = Resync(None, store, metrics, what, ())  # type: ignore[arg-type]
    on_event = handler(AVATARS, Avatar, store, resync, metrics, settings(what))
    gc.disable()
    try:
        item = told("1")
        held = weakref.ref(item["spec"])
        body = Body(item)
        await on_event(event={"type": "ADDED", "object": item}, body=body)
        assert store.count(Avatar) == 1
        # Without the garbage collector, and while kopf's worker still has the event and its Body.
        assert held() is None

        await on_event(event={"type": "DELETED", "object": told("2")})
        assert store.count(Avatar) == 0
    finally:
        gc.enable()
