"""Flags, avatar data, exit status and last words."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avatar_runtime import avatar, cli
from avatar_runtime.config import parse
from avatar_runtime.errors import EX_CONFIG, ConfigError
from tests.runtime.launch import AVATARS, RUNTIME

LIVETALKING = [
    "--avatar_id", "ada", "--transport", "webrtc", "--model", "musetalk", "--max_session", "100", "--tts", "edgetts",
    "--TTS_SERVER", "http://avatar-tts:5002", "--REF_FILE", "en-US-BrianNeural", "--listenport", "8615",
    "--batch_size", "16", "--fps", "25", "-l", "10", "-m", "8", "-r", "10", "--modelres", "192", "--modelfile", "",
    "-c", "config.yaml", "--customvideo_config", "", "--push_url", "", "--REF_TEXT", "x", "--audio_output_device", "0",
]  # fmt: skip


def test_all_of_livetalkings_flags_are_understood() -> None:
    config = parse(LIVETALKING, {})
    assert (config.avatar_id, config.port, config.max_session) == ("ada", 8615, 100)
    assert (config.tts_server, config.voice) == ("http://avatar-tts:5002", "en-US-BrianNeural")
    assert (config.tts_engine, config.model) == ("edgetts", "musetalk")


def test_the_data_directory_comes_from_the_environment() -> None:
    assert parse(["--avatar_id", "a"], {"AVATAR_DATA_DIR": "/data"}).data_dir == Path("/data")
    assert parse(["--avatar_id", "a", "--data_dir", "x"], {"AVATAR_DATA_DIR": "/data"}).data_dir == Path("x")


@pytest.mark.parametrize("name", ["TacoTron2", "TacoTron", "EdgeTTS", "edge", "CosyVoice", "cosyvoice2", "GPT-SoVITS"])
def test_engines_by_all_their_names(name: str) -> None:
    assert parse(["--avatar_id", "a", "--tts", name], {}).tts_engine in ("edgetts", "tacotron", "cosyvoice", "sovits")


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        ([], "avatar_id"),
        (["--avatar_id", ""], "avatar_id"),
        (["--avatar_id", "../x"], "avatar_id"),
        (["--avatar_id", ".."], "avatar_id"),
        (["--avatar_id", "a\nb"], "avatar_id"),
        (["--avatar_id", "x" * 129], "avatar_id"),
        (["--avatar_id", "a", "--transport", "rtmp"], "webrtc"),
        (["--avatar_id", "a", "--model", "x"], "musetalk"),
        (["--avatar_id", "a", "--max_session", "0"], "max_session"),
        (["--avatar_id", "a", "--max_session", "many"], "max_session"),
        (["--avatar_id", "a", "--listenport", "70000"], "listenport"),
        (["--avatar_id", "a", "--fps", "50"], "25"),
        (["--avatar_id", "a", "--tts", "siri"], "edgetts"),
        (["--avatar_id", "a", "--TTS_SERVER", "avatar-tts:5002"], "TTS_SERVER"),
        (["--avatar_id", "a", "--TTS_SERVER", "http://x:port"], "TTS_SERVER"),
        (["--avatar_id", "a", "--connect_timeout", "nan"], "connect_timeout"),
        (["--avatar_id", "a", "--drain_seconds", "-1"], "drain_seconds"),
        (["--avatar_id", "a", "--nonsense", "1"], "nonsense"),
    ],
)
def test_a_wrong_flag_is_named_with_its_remedy(flags: list[str], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        parse(flags, {})


@given(st.text(max_size=140))
def test_a_name_never_leaves_the_data_directory(name: str) -> None:
    try:
        found = avatar.load(AVATARS, name)
    except ConfigError:
        return
    assert found.name in ("ada", "bruno")


def describe(folder: Path, drawing: object = None, config: object = None) -> Path:
    target = folder / "test   4"
    target.mkdir()
    (target / "avatar.json").write_text(json.dumps({} if drawing is None else drawing))
    if config is not None:
        (target / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return folder


def test_an_avatar_with_the_old_systems_config(tmp_path: Path) -> None:
    old = {"tts_model": "TacoTron2", "timbre": "en-US-AvaNeural", "avatar_model": "wav2lip", "max_session": 7, "x": 1}
    found = avatar.load(describe(tmp_path, {"hair": "#112233"}, old), "test   4")
    assert (found.tts_engine, found.voice, found.model, found.max_session) == (
        "tacotron",
        "en-US-AvaNeural",
        "wav2lip",
        7,
    )
    assert found.face.hair == "#112233"
    assert found.extra == {"x": 1}


@pytest.mark.parametrize(
    ("drawing", "config", "word"),
    [
        ({"hair": "brown"}, None, "hair"),
        ({"hair": 5}, None, "hair"),
        ({"mouth_y": 7}, None, "mouth_y"),
        ({"mouth_y": True}, None, "mouth_y"),
        ({"glasses": "yes"}, None, "glasses"),
        ({"hair_style": "mohawk"}, None, "hair_style"),
        ({"size": 100}, None, "size"),
        ({"nose": 1}, None, "nose"),
        ([], None, "object"),
        (None, "{", "JSON"),
        (None, {"max_session": 0}, "max_session"),
        (None, {"tts_model": "siri"}, "tts_model"),
        (None, {"timbre": 3}, "timbre"),
    ],
)
def test_broken_avatar_data_names_file_and_fault(tmp_path: Path, drawing: object, config: object, word: str) -> None:
    with pytest.raises(ConfigError, match=word) as raised:
        avatar.load(describe(tmp_path, drawing, config), "test   4")
    assert ".json" in str(raised.value)


def test_missing_data_says_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        avatar.load(tmp_path / "none", "ada")
    with pytest.raises(ConfigError, match=r"unknown avatar 'x'.*test   4"):
        avatar.load(describe(tmp_path), "x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"avatar\.json is missing"):
        avatar.load(tmp_path, "empty")


def test_a_link_out_of_the_data_directory_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    describe(outside)
    data = tmp_path / "data"
    data.mkdir()
    (data / "way out").symlink_to(outside / "test   4")
    with pytest.raises(ConfigError, match="unknown avatar"):
        avatar.load(data, "way out")


def test_the_last_words_go_to_the_kubelet_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "termination-log"
    monkeypatch.setattr(cli, "TERMINATION_LOG", log)
    flags = ["--avatar_id", "nobody", "--data_dir", str(AVATARS)]
    assert cli.main(flags) == EX_CONFIG
    assert not log.exists(), "the file is the kubelet's; it is not made"
    log.touch()
    assert cli.main(flags) == EX_CONFIG
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last == log.read_text()
    assert "ada, bruno" in last


def test_a_wrong_flag_fails_fast_without_loading_webrtc() -> None:
    code = (
        "import sys; from avatar_runtime.cli import main; status = main(['--avatar_id', 'x', '--fps', '50']); "
        "assert status == 78, status; assert 'aiortc' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=RUNTIME, check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
