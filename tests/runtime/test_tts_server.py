"""The reference speech server's contracts, as their own clients use them."""

from __future__ import annotations

import io
import struct
import wave
from array import array
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from avatar_tts import codec, contracts
from avatar_tts.audio import RATE, wav_header
from avatar_tts.backends import EdgeBackend, SpeechError, neural
from avatar_tts.server import PHONEMES, build, phoneme_header
from avatar_tts.speech import Phoneme
from avatar_tts.voices import default_for, resolve, timbre_of
from tests.runtime.launch import Running

TEXT = "Good morning, everybody."
# What espeak-ng takes for it with any voice.
SECONDS = (0.8, 3.5)


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def pcm(raw: bytes) -> np.ndarray[Any, Any]:
    return np.frombuffer(raw, "<i2")


def assert_speech(samples: np.ndarray[Any, Any], rate: int) -> None:
    assert SECONDS[0] < len(samples) / rate < SECONDS[1]
    assert np.abs(samples.astype(int)).max() > 5000


def form(voice: str = "", **fields: str) -> aiohttp.FormData:
    made = aiohttp.FormData()
    for name, value in fields.items():
        made.add_field(name, value)
    made.add_field("prompt_wav", b"RIFF....", filename=voice or "prompt.wav", content_type="audio/wav")
    return made


# ---- each contract ---------------------------------------------------------------------


async def test_health_says_what_it_is(tts: Running, http: aiohttp.ClientSession) -> None:
    async with http.get(f"{tts.url}/health") as answer:
        said = await answer.json()
    assert said["status"] == "running"
    assert said["stand_in"] is True


async def test_generate(tts: Running, http: aiohttp.ClientSession) -> None:
    async with http.post(f"{tts.url}/generate", data=form(tts_text=TEXT, prompt_text="")) as answer:
        assert (answer.status, answer.content_type) == (200, "audio/wav")
        assert PHONEMES not in answer.headers
        with wave.open(io.BytesIO(await answer.read())) as file:
            assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (24000, 1, 2)
            assert_speech(pcm(file.readframes(file.getnframes())), 24000)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_cosyvoice_by_both_verbs(tts: Running, http: aiohttp.ClientSession, method: str) -> None:
    """The old server had the route as GET only, the old client asked by POST."""
    data = form(tts_text=TEXT, prompt_text="Hello.")
    async with http.request(method, f"{tts.url}/inference_zero_shot", data=data) as answer:
        assert answer.status == 200
        assert answer.headers.get("Transfer-Encoding") == "chunked"
        assert_speech(pcm(await answer.read()), 24000)


@pytest.mark.parametrize(("media_type", "rate"), [("wav", 24000), ("raw", 32000), ("ogg", 24000)])
@pytest.mark.parametrize("streaming", [True, False])
async def test_sovits(tts: Running, http: aiohttp.ClientSession, media_type: str, rate: int, streaming: bool) -> None:
    body = {"text": TEXT, "text_lang": "en", "ref_audio_path": "Brian", "media_type": media_type}
    async with http.post(f"{tts.url}/tts", json=body | {"streaming_mode": streaming}) as answer:
        assert answer.status == 200
        raw = await answer.read()
    match media_type:
        case "raw":
            samples = pcm(raw)
        case "wav":
            samples = pcm(raw[44:])
        case _:
            decoded, rate = codec.decode(raw)
            samples = np.array(decoded)
    assert_speech(samples, rate)


async def test_each_ogg_of_a_stream_is_a_file(tts: Running, http: aiohttp.ClientSession) -> None:
    """LiveTalking decodes each chunk by itself."""
    body = {"text": "One sentence. And a second one.", "media_type": "ogg", "streaming_mode": True}
    async with http.post(f"{tts.url}/tts", json=body) as answer:
        chunks, current = [], b""
        async for data, whole in answer.content.iter_chunks():
            current += data
            if whole:
                chunks.append(current)
                current = b""
    lengths = [len(codec.decode(chunk)[0]) for chunk in chunks if chunk]
    assert len(lengths) == 2
    assert all(length > 0.5 * RATE for length in lengths)


@pytest.mark.parametrize("name", ["mp3", "opus", "flac", "wav", "pcm"])
async def test_openai(tts: Running, http: aiohttp.ClientSession, name: str) -> None:
    body = {"model": "tts-1", "input": TEXT, "voice": "alloy", "response_format": name}
    async with http.post(f"{tts.url}/v1/audio/speech", json=body) as answer:
        assert answer.status == 200
        raw = await answer.read()
    if name == "pcm":
        assert_speech(pcm(raw), 24000)
    elif name == "wav":
        assert struct.unpack_from("<I", raw, 24) == (24000,)
        assert_speech(pcm(raw[44:]), 24000)
    else:
        samples, rate = codec.decode(raw)
        assert_speech(np.array(samples), rate)


async def test_phonemes_for_who_asks(tts: Running, http: aiohttp.ClientSession) -> None:
    asks = {PHONEMES: "1"}
    for text, told in (("Hello.", True), ("Hello. And good bye.", False)):
        body = {"input": text, "response_format": "pcm"}
        async with http.post(f"{tts.url}/v1/audio/speech", json=body, headers=asks) as answer:
            assert (PHONEMES in answer.headers) is told
            await answer.read()


# ---- voices ------------------------------------------------------------------------------


def test_a_voice_is_found_however_a_contract_names_it() -> None:
    wanted = "Jenny"
    assert contracts.generate({"tts_text": TEXT, "voice": wanted}, "").timbre == wanted
    assert contracts.generate({"tts_text": TEXT, "prompt_wav": "Jenny.wav"}, "").timbre == wanted
    assert contracts.cosyvoice({"tts_text": TEXT, "prompt_wav": "Jenny.wav"}, "").timbre == wanted
    assert contracts.sovits({"text": TEXT, "ref_audio_path": "/data/voices/Jenny.wav"}, "").timbre == wanted
    assert contracts.openai({"input": TEXT, "voice": wanted}, "").timbre == wanted
    assert resolve(wanted) != resolve("Brian")


def test_the_four_stand_ins_are_told_apart() -> None:
    assert len({default_for(model) for model in ("edgetts", "tacotron", "cosyvoice", "sovits")}) == 4
    assert resolve("nobody", default_for("tacotron")) == default_for("tacotron")
    assert resolve("Brian", default_for("tacotron")) == resolve("Brian")


def test_tacotrons_prompt_is_its_pitch() -> None:
    fields = {"tts_text": "Hello", "prompt_text": "90"}
    assert contracts.generate(fields, "tacotron").pitch == 90
    assert contracts.generate(fields, "edgetts").pitch is None
    assert contracts.generate(fields | {"prompt_text": "Say it like this"}, "tacotron").pitch is None
    assert resolve("Brian").at_pitch(45) == resolve("Brian")
    assert resolve("Brian").at_pitch(100).pitch > resolve("Brian").pitch


@pytest.mark.parametrize(
    ("reference", "name"),
    [("Brian", "Brian"), ("/a/b/Brian.wav", "Brian"), ("en-US-AvaNeural", "en-US-AvaNeural"), ("", ""), ("x.y", "x.y")],
)
def test_a_recording_stands_for_a_voice(reference: str, name: str) -> None:
    assert timbre_of(reference) == name


# ---- mistakes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/generate", {"tts_text": ""}, "tts_text"),
        ("/generate", {"tts_text": "x" * 5001}, "5000"),
        ("/inference_zero_shot", {}, "tts_text"),
        ("/tts", {"text": "hi", "media_type": "aac"}, "wav, raw or ogg"),
        ("/tts", [1], "object"),
        ("/v1/audio/speech", {"input": "hi", "response_format": "aac"}, "mp3"),
        ("/v1/audio/speech", {"voice": "x"}, "input"),
    ],
)
async def test_a_mistake_is_named(tts: Running, http: aiohttp.ClientSession, path: str, body: Any, words: str) -> None:
    async with http.post(f"{tts.url}{path}", json=body) as answer:
        assert answer.status == 400
        said = await answer.json()
    assert words in (said["error"]["message"] if path.startswith("/v1") else said["message"])


async def test_what_is_nothing_to_say_is_silence(tts: Running, http: aiohttp.ClientSession) -> None:
    for text in ("🙂🙂", "…", "( )"):
        async with http.post(f"{tts.url}/v1/audio/speech", json={"input": text, "response_format": "pcm"}) as answer:
            assert answer.status == 200


async def test_requests_are_counted(tts: Running, http: aiohttp.ClientSession) -> None:
    async with http.post(f"{tts.url}/generate", data=form(tts_text="")):
        pass
    async with http.get(f"{tts.url}/metrics") as answer:
        page = await answer.text()
    assert 'avatar_tts_requests_total{contract="generate",code="400"}' in page
    assert 'avatar_tts_request_seconds_bucket{contract="generate",le="+Inf"}' in page
    assert "avatar_tts_speech_seconds_total" in page


@given(st.text(max_size=600))
def test_nothing_of_a_text_is_lost_in_its_pieces(text: str) -> None:
    answer = contracts.Answer(text, "", "audio/pcm", bytes, streams=True)
    joined = "".join("".join(contracts.pieces(answer)).split())
    spoken = [c for c in "".join(text.split()) if c.isalnum()]
    assert [c for c in joined if c.isalnum()] == spoken


def test_phonemes_are_a_header() -> None:
    line = phoneme_header(
        type("S", (), {"phonemes": (Phoneme(0.0, "h"), Phoneme(0.0554, "ˈʌ"), Phoneme(1.2, ""))})()  # type: ignore[arg-type]
    )
    assert line == "0:h,55:%CB%88%CA%8C,1200:"
    assert line.isascii()


def test_a_wav_of_unknown_length() -> None:
    head = wav_header(24000)
    assert len(head) == 44
    assert head[40:44] == b"\xff\xff\xff\xff"


# ---- Microsoft's voices, without the internet ------------------------------------------------


class FakeService:
    """What edge_tts.Communicate is: text, voice and pitch in, MP3 in parts out."""

    asked: tuple[str, str, str] = ("", "", "")
    sound = codec.encode(array("h", [i % 2000 * 8 for i in range(24000)]), 24000, "mp3")

    def __init__(self, text: str, voice: str, *, pitch: str = "+0Hz") -> None:
        type(self).asked = (text, voice, pitch)

    async def stream(self) -> AsyncIterator[dict[str, Any]]:
        yield {"type": "audio", "data": self.sound[:500]}
        yield {"type": "WordBoundary", "text": "hello", "offset": 0}
        yield {"type": "audio", "data": self.sound[500:]}


async def test_edge_voices_speak_every_contract(http: aiohttp.ClientSession) -> None:
    runner = web.AppRunner(build(EdgeBackend(FakeService), "edgetts"), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with http.post(f"{url}/tts", json={"text": "Hello", "ref_audio_path": "Emma"}) as answer:
            assert answer.status == 200
            assert len(await answer.read()) == pytest.approx(48044, abs=4000)
        assert FakeService.asked == ("Hello", "en-US-EmmaNeural", "+0Hz")
        async with http.get(f"{url}/health") as answer:
            assert (await answer.json())["stand_in"] is False
    finally:
        await runner.cleanup()


async def test_without_internet_the_caller_is_told() -> None:
    class Cut(FakeService):
        async def stream(self) -> AsyncIterator[dict[str, Any]]:
            raise OSError("no route to host")
            yield {}

    class Mute(FakeService):
        sound = b""

    with pytest.raises(SpeechError, match="no route"):
        await EdgeBackend(Cut).speak("Hello", "", None)
    with pytest.raises(SpeechError, match="no sound"):
        await EdgeBackend(Mute).speak("Hello", "", None)


def test_the_package_takes_what_we_give_it() -> None:
    """The real class, as far as it goes without the internet."""
    from edge_tts import Communicate

    assert hasattr(Communicate("Hello", neural("Emma"), pitch="+0Hz"), "stream")
    assert neural("de-DE-KatjaNeural") == "de-DE-KatjaNeural"
    assert neural("ryan") == "en-GB-RyanNeural"
    assert neural("nobody") == neural("") == "en-US-BrianNeural"
