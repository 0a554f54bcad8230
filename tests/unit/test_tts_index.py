"""Who speaks through an engine, by the real store."""

from __future__ import annotations

from typing import Any

import msgspec

from avatar_operator.controller.store import Key, Store
from avatar_operator.domain.resources import Instance, Pod, Service, TtsChoice
from avatar_operator.domain.tts import TtsEngine
from avatar_operator.domain.tts_view import TtsHints, TtsKey
from tests.unit.builders import NAMESPACE, NOW, avatar, having, instance, meta, pod, pool, service
from tests.unit.tts_builders import catalog, in_phase
from tests.unit.tts_builders import pod as engine_pod
from tests.unit.tts_builders import service as engine_service

COSY = TtsKey(NAMESPACE, "cosyvoice")


class Told:
    """A store and the keys that it named since last asked."""

    def __init__(self) -> None:
        self.keys: set[Key] = set()
        self.store = Store(self.keys.add, lambda: NOW)
        self._version = 1
        for item in (pool(), avatar("Ada"), *catalog()):
            self.take(item)

    def take(self, item: Any) -> None:
        self._version += 1
        fresh = msgspec.structs.replace(item.metadata, resource_version=str(self._version))
        self.store.apply(msgspec.structs.replace(item, metadata=fresh))

    def drop(self, item: Any) -> None:
        self.store.remove(type(item), NAMESPACE, item.metadata.name)

    def users(self, key: TtsKey = COSY) -> int:
        return self.store.engine_view(key, NOW, TtsHints()).users

    def named(self) -> set[Key]:
        found = set(self.keys)
        self.keys.clear()
        return found


def speaker(name: str = "one", **fields: Any) -> Instance:
    return instance(name, tts=TtsChoice(engine="CosyVoice"), **fields)


def made_for(engine: str, *members: Instance) -> Pod:
    made = pod(list(members))
    notes = {**made.metadata.annotations, "avatars.virtualtutor.io/tts-engine": engine}
    return msgspec.structs.replace(made, metadata=msgspec.structs.replace(made.metadata, annotations=notes))


def test_from_the_claim_to_the_end_of_the_pod() -> None:
    told, one = Told(), speaker()
    told.take(one)
    assert told.users() == 0
    told.named()
    told.take(service(one))
    assert told.users() == 1
    assert COSY in told.named()
    told.take(made_for("cosyvoice", one))
    told.take(having(one, phase="Running"))
    assert told.users() == 1
    # The pod may be speaking still.
    told.drop(one)
    told.drop(service(one))
    assert told.users() == 1
    told.drop(made_for("cosyvoice", one))
    assert told.users() == 0
    assert COSY in told.named()


def test_sharers_count_and_sleepers_do_not() -> None:
    told = Told()
    one, two, three = speaker("one"), speaker("two"), speaker("three")
    for item, phase in ((one, "Running"), (two, "Shared"), (three, "Pending")):
        told.take(having(item, phase=phase))
    told.take(service(one))
    told.take(made_for("cosyvoice", one))
    assert told.users() == 2


def test_a_pod_keeps_the_engine_that_it_has() -> None:
    told, one = Told(), speaker()
    told.take(having(one, phase="Running"))
    told.take(service(one))
    told.take(made_for("edgetts", one))
    assert (told.users(), told.users(TtsKey(NAMESPACE, "edgetts"))) == (0, 1)


def test_an_engine_that_comes_later_is_used_by_those_who_wait_for_it() -> None:
    told, one = Told(), speaker()
    cosy = next(e for e in catalog() if e.name == "cosyvoice")
    told.drop(cosy)
    told.take(one)
    told.take(service(one))
    assert told.users(TtsKey(NAMESPACE, "edgetts")) == 1
    told.take(cosy)
    assert (told.users(), told.users(TtsKey(NAMESPACE, "edgetts"))) == (1, 0)


def test_only_news_of_an_engine_is_news_for_instances() -> None:
    told, one = Told(), speaker()
    told.take(one)
    told.take(service(one))
    cosy = next(e for e in catalog() if e.name == "cosyvoice")
    told.named()
    told.take(with_status(cosy, in_phase("Starting")))
    assert {k.kind for k in told.named()} == {"tts", "group"}
    told.take(with_status(cosy, in_phase("Starting", users=7)))
    assert {k.kind for k in told.named()} == {"tts"}


def with_status(item: TtsEngine, status: dict[str, Any]) -> TtsEngine:
    return msgspec.structs.replace(item, status=msgspec.structs.replace(item.status, **status))


def test_objects_of_an_older_engine_of_that_name_are_not_its_own() -> None:
    told = Told()
    cosy = next(e for e in catalog() if e.name == "cosyvoice")
    told.take(engine_service(cosy))
    told.take(engine_pod(cosy))
    view = told.store.engine_view(COSY, NOW, TtsHints())
    assert view.service is not None
    assert len(view.pods) == 1
    other = msgspec.structs.replace(cosy, metadata=meta("cosyvoice", uid="another"))
    told.take(other)
    assert told.store.engine_view(COSY, NOW, TtsHints()).service is None
    told.drop(engine_service(cosy))
    told.drop(engine_pod(cosy))
    assert told.store.engine_view(COSY, NOW, TtsHints()).pods == ()


def test_those_who_stand_in_count_those_they_stand_in_for() -> None:
    told, one = Told(), speaker()
    cosy = next(e for e in catalog() if e.name == "cosyvoice")
    told.take(one)
    told.take(service(one))
    told.named()
    told.take(with_status(cosy, in_phase("Fallback", fallback="edgetts")))
    edge = TtsKey(NAMESPACE, "edgetts")
    assert edge in told.named()
    assert told.store.engine_view(edge, NOW, TtsHints()).covers == 1


def test_a_foreign_service_is_nothing() -> None:
    told = Told()
    told.take(Service(metadata=meta("something")))
    assert told.store.engine_view(COSY, NOW, TtsHints()).service is None
