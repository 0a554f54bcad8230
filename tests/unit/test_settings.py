"""What holds for one instance, and what keeps it from running."""

from __future__ import annotations

import operator
from typing import Any

import pytest

from avatar_operator.domain.engines import normalise, runtime_flag
from avatar_operator.domain.resources import (
    AvatarData,
    Defaults,
    HostPathSource,
    InstanceIdle,
    Limits,
    PoolIdle,
    PoolTts,
    PvcSource,
    TtsChoice,
)
from avatar_operator.domain.settings import Settings, check, resolve
from tests.unit.builders import avatar, instance, pool


def settled(of_instance: dict[str, Any], of_avatar: dict[str, Any], of_pool: dict[str, Any]) -> Settings:
    """resolve() of the three with these parts of their specs."""
    return resolve(instance(**of_instance), pool(**of_pool), avatar(**of_avatar))


# Each field at the three levels that can name it, the strongest first, and its default.
LEVELS: list[Any] = [
    pytest.param(
        "model",
        {"model": "wav2lip"},
        {"model": "ultralight"},
        {"defaults": Defaults(model="wav2lip")},
        ("wav2lip", "ultralight", "wav2lip", "musetalk"),
        id="model",
    ),
    pytest.param(
        "transport",
        {"transport": "rtmp"},
        {"transport": "rtcpush"},
        {"defaults": Defaults(transport="rtmp")},
        ("rtmp", "rtcpush", "rtmp", "webrtc"),
        id="transport",
    ),
    pytest.param(
        "max_sessions",
        {"max_sessions": 3},
        {"max_sessions": 4},
        {"defaults": Defaults(max_sessions=5)},
        (3, 4, 5, 100),
        id="maxSessions",
    ),
    pytest.param(
        "tts.label",
        {"tts": TtsChoice(engine="SoVITS")},
        {"tts": TtsChoice(engine="cosyvoice2")},
        {"tts": PoolTts(engine="TacoTron2")},
        ("sovits", "cosyvoice", "tacotron", "edgetts"),
        id="tts.engine",
    ),
    pytest.param(
        "tts_voice",
        {"tts": TtsChoice(voice="a")},
        {"tts": TtsChoice(voice="b")},
        {"tts": PoolTts(voice="c")},
        ("a", "b", "c", ""),
        id="tts.voice",
    ),
    pytest.param(
        "idle_timeout",
        {"idle": InstanceIdle(timeout_seconds=10)},
        {},
        {"idle": PoolIdle(timeout_seconds=20)},
        (10, 20, 20, 1800),
        id="idle.timeoutSeconds",
    ),
    pytest.param(
        "idle_action",
        {"idle": InstanceIdle(action="Sleep")},
        {},
        {"idle": PoolIdle(action="Delete")},
        ("Sleep", "Delete", "Delete", "Delete"),
        id="idle.action",
    ),
    pytest.param(
        "startup_timeout",
        {"startup_timeout_seconds": 7},
        {},
        {"startup_timeout_seconds": 8},
        (7, 8, 8, 30),
        id="startupTimeoutSeconds",
    ),
]


@pytest.mark.parametrize(("field", "of_instance", "of_avatar", "of_pool", "expected"), LEVELS)
def test_instance_over_avatar_over_pool(
    field: str,
    of_instance: dict[str, Any],
    of_avatar: dict[str, Any],
    of_pool: dict[str, Any],
    expected: tuple[Any, ...],
) -> None:
    found = (
        settled(of_instance, of_avatar, of_pool),
        settled({}, of_avatar, of_pool),
        settled({}, {}, of_pool),
        settled({}, {}, {}),
    )
    assert tuple(operator.attrgetter(field)(s) for s in found) == expected


def test_an_idle_timeout_of_zero_is_an_answer() -> None:
    never = settled({"idle": InstanceIdle(timeout_seconds=0)}, {}, {})
    assert never.idle_timeout == 0
    assert not never.collects


def test_keep_warm_is_never_collected() -> None:
    assert settled({}, {}, {}).collects
    assert not settled({}, {"keep_warm": True}, {}).collects


def test_defaults_stay_below_the_pool_s_limit() -> None:
    assert settled({}, {}, {"limits": Limits(max_sessions=8)}).max_sessions == 8


@pytest.mark.parametrize(
    ("transport", "source", "expected"),
    [
        pytest.param("webrtc", "Runtime", True, id="webrtc"),
        pytest.param("rtmp", "Runtime", False, id="rtmp-holds-one-session-for-ever"),
        pytest.param("rtcpush", "Runtime", False, id="rtcpush-holds-one-session-for-ever"),
        pytest.param("webrtc", "Connections", False, id="the-pool-says-connections"),
    ],
)
def test_whose_count_is_used(transport: str, source: str, expected: bool) -> None:
    found = settled({"transport": transport}, {}, {"idle": PoolIdle(activity_source=source)})
    assert found.count_from_runtime is expected


def test_data_and_name_come_through_unchanged() -> None:
    data = AvatarData(pvc=PvcSource(claim_name="faces", sub_path="ada"))
    found = settled({"avatar_name": "Ада 7"}, {"avatar_name": "Ада 7", "data": data}, {})
    assert (found.avatar_name, found.data) == ("Ада 7", data)


# ---- check -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("of_instance", "of_avatar", "limits", "says"),
    [
        pytest.param({"max_sessions": 101}, {}, {}, "spec.maxSessions 101", id="sessions-over-the-default-limit"),
        pytest.param({"max_sessions": 9}, {}, {"max_sessions": 8}, "at most 8", id="sessions"),
        pytest.param({}, {"max_sessions": 9}, {"max_sessions": 8}, "axSessions 9", id="sessions-of-the-avatar"),
        pytest.param(
            {"idle": InstanceIdle(timeout_seconds=61)},
            {},
            {"idle_timeout_seconds": 60},
            "spec.idle.timeoutSeconds 61",
            id="idle-timeout",
        ),
        pytest.param(
            {"idle": InstanceIdle(timeout_seconds=0)},
            {},
            {"idle_timeout_seconds": 60},
            "spec.idle.timeoutSeconds 0",
            id="idle-never-is-more-than-any-limit",
        ),
        pytest.param(
            {"startup_timeout_seconds": 61},
            {},
            {"startup_timeout_seconds": 60},
            "spec.startupTimeoutSeconds 61",
            id="startup-timeout",
        ),
    ],
)
def test_over_a_limit(
    of_instance: dict[str, Any], of_avatar: dict[str, Any], limits: dict[str, Any], says: str
) -> None:
    problem = check(instance(**of_instance), pool(limits=Limits(**limits)), avatar(**of_avatar))
    assert problem is not None
    assert problem.reason == "LimitExceeded"
    assert says in problem.message
    assert "'default'" in problem.message


@pytest.mark.parametrize(
    ("of_instance", "limits"),
    [
        pytest.param({"max_sessions": 8}, {"max_sessions": 8}, id="sessions-at-the-limit"),
        pytest.param({}, {"max_sessions": 8}, id="sessions-not-asked-for"),
        pytest.param({"idle": InstanceIdle(timeout_seconds=60)}, {"idle_timeout_seconds": 60}, id="idle-at-the-limit"),
        pytest.param({}, {"idle_timeout_seconds": 60}, id="the-pool's-own-idle-timeout"),
        pytest.param({"idle": InstanceIdle(timeout_seconds=0)}, {}, id="idle-never-without-a-limit"),
        pytest.param({"startup_timeout_seconds": 60}, {"startup_timeout_seconds": 60}, id="startup-at-the-limit"),
    ],
)
def test_within_the_limits(of_instance: dict[str, Any], limits: dict[str, Any]) -> None:
    assert check(instance(**of_instance), pool(limits=Limits(**limits)), avatar()) is None


def test_unknown_pool_and_avatar_name_what_to_create() -> None:
    no_pool = check(instance(pool_ref="gpu"), None, avatar())
    no_avatar = check(instance(avatar_name="Eve"), pool(), None)
    assert no_pool is not None
    assert no_avatar is not None
    assert (no_pool.reason, no_avatar.reason) == ("PoolNotFound", "AvatarNotFound")
    assert "'gpu'" in no_pool.message
    assert "kubectl get avp -n live" in no_pool.message
    assert "'Eve'" in no_avatar.message
    assert "kubectl get av -n live" in no_avatar.message


@pytest.mark.parametrize("allowed", [True, False])
def test_host_path_only_where_the_pool_allows_it(allowed: bool) -> None:
    data = AvatarData(host_path=HostPathSource(path="/srv/faces"))
    problem = check(instance(), pool(limits=Limits(allow_host_path=allowed)), avatar(data=data))
    assert (problem.reason if problem else None) == (None if allowed else "HostPathNotAllowed")


# ---- engines ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spelling", "engine"),
    [
        *((s, "tacotron") for s in ("TacoTron2", "TacoTron", "tacotron2", "tacotron")),
        *((s, "edgetts") for s in ("EdgeTTS", "edgeTTS", "edge", "edgetts")),
        *((s, "cosyvoice") for s in ("CosyVoice", "cosyvoice2", "cosyvoice")),
        *((s, "sovits") for s in ("SoVITS", "GPT-SoVITS", "sovits")),
        (" EDGE ", "edgetts"),
        ("", "edgetts"),
        ("festival", "edgetts"),
    ],
)
def test_every_spelling_of_the_old_manager(spelling: str, engine: str) -> None:
    assert normalise(spelling) == engine


def test_the_runtime_s_own_names() -> None:
    flags = [runtime_flag(e) for e in ("edgetts", "tacotron", "cosyvoice", "sovits")]
    assert flags == ["edgetts", "tacotron", "cosyvoice", "gpt-sovits"]
