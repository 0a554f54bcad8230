"""What the streams tell goes into the store, once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import msgspec
import pytest

from avatar_operator.controller.intake import Intake
from avatar_operator.controller.keys import Key
from avatar_operator.controller.metrics import Metrics
from avatar_operator.controller.store import Store
from avatar_operator.controller.watch import Feed
from avatar_operator.controller.watched import Watched
from avatar_operator.domain.resources import Avatar, Pod
from avatar_operator.domain.view import GroupKey, RuntimeView
from avatar_operator.kube.client import Page
from avatar_operator.kube.glance import glance
from avatar_operator.kube.kinds import AVATARS, PODS
from tests.unit.builders import NAMESPACE, group_of, instance, service


def avatar(name: str, version: int, namespace: str = "default", **spec: object) -> msgspec.Raw:
    """An Avatar, as the API server tells of it."""
    meta = {"name": name, "namespace": namespace, "uid": f"u-{name}", "resourceVersion": str(version)}
    spec = {"avatarName": name, "files": {"pvc": name}, **spec}
    return msgspec.Raw(msgspec.json.encode({"metadata": meta, "spec": spec}))


NAMED = Watched(AVATARS, Avatar)


class Fed:
    """A feed, of Avatars unless told otherwise; it asks nobody, so it needs no client."""

    def __init__(self, namespace: str = "", what: Watched = NAMED) -> None:
        self.changed: list[Key] = []
        self.metrics = Metrics()
        self.store = Store(self.changed.append, lambda: datetime.now(UTC))
        intake = Intake(self.store, self.metrics)
        self.feed = Feed(None, self.store, intake, self.metrics, what, namespace)  # type: ignore[arg-type]

    def told(self, kind: str, item: msgspec.Raw) -> None:
        self.feed.take_event(kind, glance(item).metadata, item)

    async def listed(self, version: int, *items: msgspec.Raw) -> int:
        async def pages() -> AsyncIterator[Page]:
            for item in items or (None,):
                yield msgspec.convert(
                    {"metadata": {"resourceVersion": str(version)}, "items": [item] if item else None}, Page
                )

        return await self.feed.take_list(pages())

    @property
    def known(self) -> dict[str, str]:
        return {name: meta.resource_version for (_, name), meta in self.store.metas(Avatar).items()}


def test_it_follows() -> None:
    one = Fed()
    one.told("ADDED", avatar("ada", 3))
    one.told("MODIFIED", avatar("ada", 5))
    one.told("ADDED", avatar("bob", 6))
    assert one.known == {"ada": "5", "bob": "6"}
    one.told("DELETED", avatar("ada", 7))
    assert one.known == {"bob": "6"}
    one.told("MODIFIED", avatar("ada", 5))
    assert one.known == {"bob": "6"}, "what was on its way when its object went brings nothing back"


@pytest.mark.parametrize("version", [5, 4])
def test_what_is_known_is_not_decoded_again(version: int) -> None:
    """Our own writes come back by the watch: their answers have told it all."""
    one = Fed()
    one.told("ADDED", avatar("ada", 5))
    one.changed.clear()
    one.told("MODIFIED", avatar("ada", version, avatarName=7))
    assert one.changed == []
    assert one.metrics.bad_objects.labels("avatars")._value.get() == 0


def test_one_that_does_not_fit_is_skipped_by_name(caplog: pytest.LogCaptureFixture) -> None:
    one = Fed()
    one.told("ADDED", avatar("ada", 5, avatarName=7))
    one.told("ADDED", avatar("bob", 6))
    assert one.known == {"bob": "6"}
    assert "avatars ada does not fit its schema" in caplog.text
    assert one.metrics.bad_objects.labels("avatars")._value.get() == 1


def pod(version: int, **meta: object) -> msgspec.Raw:
    """A runtime pod of an instance in default."""
    labels = dict(service(instance()).metadata.labels)
    known = {"name": "avatar-8615", "namespace": NAMESPACE, "uid": "u", "labels": labels}
    return msgspec.Raw(msgspec.json.encode({"metadata": {**known, "resourceVersion": str(version), **meta}}))


@pytest.mark.parametrize(("at", "said"), [("2026-11-30T12:00:00Z", True), (None, False)], ids=["deleted", "by-force"])
def test_what_a_pod_was_at_its_end_is_kept_until_there_is_another(at: str | None, said: bool) -> None:
    """Both may come at once, that it is deleted and that it is gone: who deleted it is in the last state alone."""
    one = Fed(what=Watched(PODS, Pod))
    member = instance()
    one.store.apply(member)

    def ended() -> Pod | None:
        return one.store.view(GroupKey(NAMESPACE, group_of(member)), datetime.now(UTC), RuntimeView()).ended

    one.told("ADDED", pod(5))
    assert ended() is None
    one.told("DELETED", pod(7, deletionTimestamp=at))
    last = ended()
    assert (last is not None and last.metadata.resource_version == "7") is said
    one.told("ADDED", pod(9, uid="u2"))
    assert ended() is None
    one.told("DELETED", pod(7, deletionTimestamp="2026-11-30T12:00:00Z"))
    assert one.store.count(Pod) == 1, "a namesake's end says nothing of it"
    assert ended() is None


async def test_a_list_forgets_what_is_not_there() -> None:
    one = Fed()
    for name in ("ada", "bob", "cyd"):
        one.told("ADDED", avatar(name, 5))
    # The answer to a write of our own, which is newer than the list.
    one.told("ADDED", avatar("dan", 12))
    assert await one.listed(10, avatar("ada", 5), avatar("bob", 9)) == 10
    assert one.known == {"ada": "5", "bob": "9", "dan": "12"}
    one.told("MODIFIED", avatar("cyd", 8))
    assert "cyd" not in one.known, "a late answer brings nothing back"


async def test_a_list_says_nothing_of_other_namespaces() -> None:
    one = Fed("default")
    one.told("ADDED", avatar("eve", 5, "elsewhere"))
    one.told("ADDED", avatar("ada", 5))
    await one.listed(10)
    assert one.known == {"eve": "5"}
