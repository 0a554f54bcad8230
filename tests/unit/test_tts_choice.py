"""Which engine an instance speaks through: every spelling of the old README, and what its status says of it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from avatar_operator.domain.actions import CreatePod
from avatar_operator.domain.plan import plan
from avatar_operator.domain.ports import Admission
from avatar_operator.domain.resources import PoolTts, TtsChoice
from avatar_operator.domain.tts import TtsEngine
from avatar_operator.domain.tts_choice import Choice, choose, conditions, service_url
from tests.unit.builders import instance, meta, patches, pod, pool, service, view
from tests.unit.tts_builders import catalog, engine, in_phase

# avatar-manager's README, "TTS Model Name Normalization", and the plain names; with the port of each.
OLD_TABLE = [
    ("TacoTron2", "tacotron", 5005, "tacotron"),
    ("TacoTron", "tacotron", 5005, "tacotron"),
    ("tacotron2", "tacotron", 5005, "tacotron"),
    ("Tacotron2", "tacotron", 5005, "tacotron"),
    ("tacotron", "tacotron", 5005, "tacotron"),
    ("EdgeTTS", "edgetts", 5002, "edgetts"),
    ("edgeTTS", "edgetts", 5002, "edgetts"),
    ("edge", "edgetts", 5002, "edgetts"),
    ("edgetts", "edgetts", 5002, "edgetts"),
    ("CosyVoice", "cosyvoice", 5006, "cosyvoice"),
    ("cosyvoice2", "cosyvoice", 5006, "cosyvoice"),
    ("cosyvoice", "cosyvoice", 5006, "cosyvoice"),
    ("SoVITS", "sovits", 5007, "gpt-sovits"),
    ("GPT-SoVITS", "sovits", 5007, "gpt-sovits"),
    ("sovits", "sovits", 5007, "gpt-sovits"),
]


@pytest.mark.parametrize(("spelling", "name", "port", "flag"), OLD_TABLE)
@pytest.mark.parametrize("with_aliases", [True, False])
def test_every_spelling_of_the_old_readme(spelling: str, name: str, port: int, flag: str, with_aliases: bool) -> None:
    engines = catalog()
    if not with_aliases:
        engines = tuple(msgspec.structs.replace(e, spec=msgspec.structs.replace(e.spec, aliases=[])) for e in engines)
    found = choose(spelling, "", engines)
    assert (found.name, found.flag, found.unknown) == (name, flag, "")
    assert found.url == f"http://tts-{name}.live.svc:{port}"


@pytest.mark.parametrize("spelling", ["festival", "xtts", "tactron"])
def test_what_nobody_knows_is_the_default_and_said_so(spelling: str) -> None:
    found = choose(spelling, "", catalog())
    assert (found.name, found.unknown) == ("edgetts", spelling)
    ((kind, status, reason, message),) = conditions(found, None, _ready(catalog()), "")
    assert (kind, status, reason) == ("TTSReady", "True", "UnknownEngine")
    assert repr(spelling) in message
    assert "edgetts" in message


def _ready(engines: tuple[TtsEngine, ...]) -> tuple[TtsEngine, ...]:
    return tuple(engine(e.name, status=in_phase("Ready"), protocol=e.spec.protocol) for e in engines)


def test_an_engine_of_ones_own_by_name_and_alias() -> None:
    own = engine("studio", protocol="omnitts", aliases=["Studio Voice"], port=9000)
    for spelling in ("studio", "Studio", "studio voice"):
        found = choose(spelling, "", (*catalog(), own))
        assert (found.name, found.flag) == ("studio", "omnitts")


def test_a_name_goes_before_an_alias_and_the_older_before_the_younger() -> None:
    thief = engine("thief", protocol="edgetts", aliases=["cosyvoice", "GPT-SoVITS"])
    assert choose("cosyvoice", "", (thief, *catalog())).name == "cosyvoice"
    young = msgspec.structs.replace(thief, metadata=meta("thief", creation_timestamp=None))
    assert choose("GPT-SoVITS", "", (*catalog(), young)).name in ("sovits", "thief")
    assert choose("GPT-SoVITS", "", (young, *catalog())) == choose("GPT-SoVITS", "", (*catalog(), young))


def test_a_known_name_without_its_engine_is_the_default() -> None:
    engines = catalog()[:1]
    found = choose("CosyVoice", "", engines)
    assert (found.name, found.unknown) == ("edgetts", "CosyVoice")


def test_a_pool_with_a_server_of_its_own_needs_no_engine() -> None:
    for engines in ((), catalog()):
        found = choose("GPT-SoVITS", "http://speech:9880", engines)
        assert found == Choice("sovits", "gpt-sovits", "http://speech:9880")
        assert conditions(found, None, engines, "http://speech:9880") == ()


def test_without_any_engine_all_is_as_before() -> None:
    found = choose("cosyvoice", "", ())
    assert found == Choice("cosyvoice", "cosyvoice")
    assert conditions(found, None, (), "") == ()


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({}, ("False", "Starting")),
        (in_phase("Stopped"), ("False", "Starting")),
        (in_phase("Starting"), ("False", "Starting")),
        (in_phase("Pending", reason="GPUExhausted"), ("False", "Starting")),
        (in_phase("Ready"), ("True", "Ready")),
        (in_phase("Fallback", reason="StartupTimeout", fallback="edgetts"), ("False", "Fallback")),
        (in_phase("Failed", reason="CrashLoop"), ("False", "Failed")),
    ],
)
def test_the_condition_for_each_phase(status: dict[str, Any], expected: tuple[str, str]) -> None:
    one = engine("cosyvoice", status=status)
    ((_, *said),) = conditions(choose("cosyvoice", "", (one,)), None, (one,), "")
    assert tuple(said[:2]) == expected
    assert status.get("reason", "") in said[2]
    assert status.get("fallback") or "" in said[2]


def test_a_pod_keeps_the_engine_that_it_was_started_with() -> None:
    """An engine that is deleted, or another choice, changes what the next pod gets."""
    engines = _ready(catalog())
    one = instance(tts=TtsChoice(engine="CosyVoice"))
    made = pod([one])
    speaks = msgspec.structs.replace(made.metadata, annotations={"avatars.virtualtutor.io/tts-engine": "cosyvoice"})
    left = tuple(e for e in engines if e.name != "cosyvoice")
    ((_, status, reason, message),) = conditions(choose("CosyVoice", "", left), speaks, left, "")
    assert (status, reason) == ("False", "EngineDeleted")
    assert "cosyvoice" in message
    ((_, status, reason, _),) = conditions(choose("tacotron", "", engines), speaks, engines, "")
    assert (status, reason) == ("True", "Ready")


def test_a_pod_from_before_the_engine() -> None:
    one = instance()
    engines = _ready(catalog())
    ((_, status, reason, message),) = conditions(choose("edge", "", engines), pod([one]).metadata, engines, "")
    assert (status, reason) == ("False", "NoEngine")
    assert "without edgetts" in message


def test_the_pod_and_the_status_of_a_start() -> None:
    """In the patch that a start makes anyway."""
    one = instance(tts=TtsChoice(engine="CosyVoice"))
    engines = catalog()
    result = plan(view(one, claims=(service(one),), engines=engines, admission=Admission()))
    (created,) = [a for a in result.actions if isinstance(a, CreatePod)]
    arguments = created.body["spec"]["containers"][0]["args"]
    assert "--tts=cosyvoice" in arguments
    assert f"--TTS_SERVER={service_url(engines[2])}" in arguments
    assert created.body["metadata"]["annotations"]["avatars.virtualtutor.io/tts-engine"] == "cosyvoice"
    (status,) = patches(result).values()
    said = {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]}
    assert said["TTSReady"] == ("False", "Starting")


def test_followers_say_what_their_server_says() -> None:
    engines = _ready(catalog())
    one, two = instance("one", age=60), instance("two", age=30)
    made = pod([one, two])
    speaks = {**made.metadata.annotations, "avatars.virtualtutor.io/tts-engine": "edgetts"}
    made = msgspec.structs.replace(made, metadata=msgspec.structs.replace(made.metadata, annotations=speaks))
    both = view(one, two, pods=(made,), claims=(service(one),), engines=engines)
    for status in patches(plan(both)).values():
        said = {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]}
        assert said["TTSReady"] == ("True", "Ready")


def test_a_fixed_server_is_in_the_arguments_and_in_no_condition() -> None:
    one = instance()
    fixed = pool(tts=PoolTts(url="http://speech:9880"))
    result = plan(view(one, pool=fixed, claims=(service(one),), engines=catalog()))
    (created,) = [a for a in result.actions if isinstance(a, CreatePod)]
    assert "--TTS_SERVER=http://speech:9880" in created.body["spec"]["containers"][0]["args"]
    assert created.body["metadata"]["annotations"]["avatars.virtualtutor.io/tts-engine"] == ""
    (status,) = patches(result).values()
    assert "TTSReady" not in {c["type"] for c in status["conditions"]}
