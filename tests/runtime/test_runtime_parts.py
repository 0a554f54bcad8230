"""The session registry, SDP repair, flags and the avatar's folder: pure, on any machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from avatar_runtime import avatar as avatars
from avatar_runtime.config import parse
from avatar_runtime.errors import ConfigError
from avatar_runtime.sdp import has_media, repair_offer
from avatar_runtime.sessions import Refused, Registry, State
from tests.runtime.launch import AVATARS

LIMIT = 3
DEADLINE = 30.0


class RegistryMachine(RuleBasedStateMachine):
    """Offers, connections and ends in any order, against a plain model of them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.registry = Registry(LIMIT, self.now)
        self.open: dict[str, float] = {}
        self.over: list[str] = []
        self.freed = 0
        self.idle_since = 0.0

    @rule(seconds=st.floats(0, 20))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def offer(self) -> None:
        name = f"s{len(self.open) + len(self.over)}"
        try:
            self.registry.open(name, self.now)
        except Refused:
            assert len(self.open) == LIMIT or self.registry.draining
        else:
            assert len(self.open) < LIMIT
            assert not self.registry.draining
            self.open[name] = self.now

    @precondition(lambda self: self.open)
    @rule(pick=st.randoms(use_true_random=False))
    def connect(self, pick: object) -> None:
        name = pick.choice(sorted(self.open))  # type: ignore[attr-defined]
        fresh = self.registry.entries[name].state is State.CONNECTING
        assert self.registry.connect(name, self.now) is fresh
        assert self.registry.connect(name, self.now) is False

    @precondition(lambda self: self.open)
    @rule(pick=st.randoms(use_true_random=False), twice=st.booleans())
    def end(self, pick: object, twice: bool) -> None:
        name = pick.choice(sorted(self.open))  # type: ignore[attr-defined]
        assert self.registry.closing(name)
        assert not self.registry.closing(name)
        assert self.registry.close(name, self.now)
        if twice:
            assert not self.registry.close(name, self.now)
        del self.open[name]
        self.over.append(name)
        if not self.open:
            self.idle_since = self.now

    @precondition(lambda self: self.over)
    @rule(pick=st.randoms(use_true_random=False))
    def late_news_of_the_dead(self, pick: object) -> None:
        name = pick.choice(self.over)  # type: ignore[attr-defined]
        assert not self.registry.connect(name, self.now)
        assert not self.registry.closing(name)
        assert not self.registry.close(name, self.now)

    @rule(draining=st.booleans())
    def drain(self, draining: bool) -> None:
        self.registry.draining = draining

    @invariant()
    def counts_agree(self) -> None:
        assert len(self.registry) == len(self.open) <= LIMIT
        assert set(self.registry.entries) == set(self.open)
        expected = 0.0 if self.open else self.now - self.idle_since
        assert self.registry.idle_seconds(self.now) == pytest.approx(expected)

    @invariant()
    def the_overdue_are_those_that_never_connected(self) -> None:
        assert set(self.registry.overdue(self.now, DEADLINE)) == {
            name
            for name, since in self.open.items()
            if self.registry.entries[name].state is State.CONNECTING and self.now - since >= DEADLINE
        }


TestRegistry = RegistryMachine.TestCase


# ---- SDP

HOST = "a=candidate:1 1 udp 2130706431 192.0.2.7 50000 typ host"
MDNS = "a=candidate:2 1 udp 2113937151 4d1a1b2c-0000-4a4a-8888-0123456789ab.local 50001 typ host"
END = "a=end-of-candidates"


def sdp(*media: str) -> str:
    return "\r\n".join(["v=0", "s=-", "m=audio 9 UDP/TLS/RTP/SAVPF 111", *media]) + "\r\n"


@pytest.mark.parametrize(
    ("given_lines", "expected"),
    [
        ((HOST,), (HOST, END)),
        ((HOST, END), (HOST, END)),
        ((HOST, MDNS, END), (HOST,)),
        ((MDNS, END), ()),
        ((MDNS,), ()),
        ((), ()),
    ],
)
def test_offers_are_repaired(given_lines: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert repair_offer(sdp(*given_lines)) == sdp(*expected)


def test_repair_keeps_lines_and_sections_and_is_idempotent() -> None:
    text = sdp(HOST, "a=mid:0") + "m=video 9 UDP/TLS/RTP/SAVPF 96\na=mid:1\n"
    once = repair_offer(text)
    assert repair_offer(once) == once
    assert once.splitlines()[-2:] == ["m=video 9 UDP/TLS/RTP/SAVPF 96", "a=mid:1"]
    assert has_media(once)
    assert not has_media("v=0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n")


# ---- flags

OPERATOR_LINE = (
    "--avatar_id ada --transport webrtc --model musetalk --max_session 100 --tts edgetts "
    "--TTS_SERVER http://avatar-tts:5002 --REF_FILE en-US-BrianNeural --listenport 8615"
)


def test_the_operators_command_line() -> None:
    config = parse(OPERATOR_LINE.split(), {})
    assert (config.avatar_id, config.port, config.max_session) == ("ada", 8615, 100)
    assert (config.tts_engine, config.tts_server, config.voice) == (
        "edgetts",
        "http://avatar-tts:5002",
        "en-US-BrianNeural",
    )
    assert (config.connect_timeout, config.drain_seconds, config.stun) == (30, 30, "")


def test_flags_of_livetalking_are_accepted_and_the_environment_names_the_data() -> None:
    line = (
        "--avatar_id 2 -l 10 -m 8 -r 10 --batch_size 16 --modelres 192 --modelfile x --fps 25 -c c.yaml "
        "--customvideo_config x --push_url http://x --REF_TEXT hi --audio_output_device 0"
    )
    config = parse(line.split(), {"AVATAR_DATA_DIR": "/data"})
    assert (config.avatar_id, config.data_dir) == ("2", Path("/data"))


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ("", "avatar_id"),
        ("--avatar_id=", "avatar_id"),
        ("--avatar_id ../ada", "folder"),
        ("--avatar_id ..", "folder"),
        ("--avatar_id a\x01b", "control"),
        (f"--avatar_id {'x' * 129}", "128"),
        ("--avatar_id ada --transport rtmp", "rtmp"),
        ("--avatar_id ada --model gpt", "gpt"),
        ("--avatar_id ada --max_session 0", "max_session"),
        ("--avatar_id ada --max_session many", "max_session"),
        ("--avatar_id ada --tts siri", "siri"),
        ("--avatar_id ada --listenport 70000", "70000"),
        ("--avatar_id ada --fps 50", "fps"),
        ("--avatar_id ada --connect_timeout 0", "connect_timeout"),
        ("--avatar_id ada --drain_seconds -1", "drain_seconds"),
        ("--avatar_id ada --TTS_SERVER avatar-tts:5002", "TTS_SERVER"),
        ("--avatar_id ada --TTS_SERVER http://", "TTS_SERVER"),
        ("--avatar_id ada --TTS_SERVER http://a:b", "TTS_SERVER"),
        ("--avatar_id ada --unheard of", "unheard"),
    ],
)
def test_wrong_flags_name_the_flag(flags: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        parse(flags.split(" ") if flags else [], {})


@pytest.mark.parametrize(
    "spelling", ["TacoTron2", "EdgeTTS", "edge", "CosyVoice", "cosyvoice2", "GPT-SoVITS", "SoVITS"]
)
def test_spellings_of_engines(spelling: str) -> None:
    assert parse(["--avatar_id", "ada", "--tts", spelling], {}).tts_engine in {
        "edgetts",
        "tacotron",
        "cosyvoice",
        "sovits",
    }


# ---- the avatar's folder


def folder(tmp_path: Path, drawing: object = None, config: object = None) -> Path:
    """A data directory with one avatar, "eve"."""
    (tmp_path / "eve").mkdir()
    for name, content in (("avatar.json", drawing), ("config.json", config)):
        if content is not None:
            text = content if isinstance(content, str) else json.dumps(content)
            (tmp_path / "eve" / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("name", ["ada", "bruno"])
def test_the_shipped_avatars_load(name: str) -> None:
    found = avatars.load(AVATARS, name)
    assert (found.name, found.tts_engine, found.model) == (name, "edgetts", "musetalk")


def test_an_old_config_json_sets_what_it_knows(tmp_path: Path) -> None:
    config = {"tts_model": "TacoTron2", "timbre": "45", "max_session": 7, "avatar_model": "wav2lip", "new": 1}
    found = avatars.load(folder(tmp_path, {}, config), "eve")
    assert (found.tts_engine, found.voice, found.max_session, found.model) == ("tacotron", "45", 7, "wav2lip")


@pytest.mark.parametrize(
    ("drawing", "config", "named"),
    [
        (None, {}, "avatar.json is missing"),
        ("{", None, "not valid JSON"),
        ([], None, "JSON object"),
        ({"size": 353}, None, "size"),
        ({"skin": "red"}, None, "skin"),
        ({"jaw": 7}, None, "jaw"),
        ({"ears": 2}, None, "ears"),
        ({"hair_style": "mohawk"}, None, "hair_style"),
        ({}, {"max_session": 0}, "max_session"),
        ({}, {"tts_model": "siri"}, "tts_model"),
        ({}, {"timbre": 5}, "timbre"),
    ],
)
def test_broken_data_names_file_and_fault(tmp_path: Path, drawing: object, config: object, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        avatars.load(folder(tmp_path, drawing, config), "eve")


def test_unknown_avatars_and_directories(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has eve"):
        avatars.load(folder(tmp_path, {}), "adam")
    with pytest.raises(ConfigError, match="does not exist"):
        avatars.load(tmp_path / "nowhere", "eve")


def test_a_link_out_of_the_directory_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "eve").symlink_to(AVATARS / "ada")
    with pytest.raises(ConfigError, match="unknown avatar"):
        avatars.load(data, "eve")
