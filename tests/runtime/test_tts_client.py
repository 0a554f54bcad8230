"""What the runtime makes of a speech server's answers, good and bad, by each contract."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import quote

import aiohttp
import numpy as np
import pytest
from aiohttp import web

from avatar_runtime import tts_client
from avatar_runtime.config import _ENGINES
from avatar_runtime.speech import Utterance
from avatar_runtime.tts_client import TtsClient, TtsError, parse_phonemes
from avatar_runtime.tts_contracts import CONTRACTS
from avatar_tts.codec import encode
from tests.runtime.test_sdp_and_sound import sine, wav_file

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[..., Awaitable[TtsClient]]

SOUND = sine(24000, seconds=1.0)
WAV = wav_file(SOUND.tobytes(), 24000)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tts_client, "PATIENCE", 0.3)


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    async with contextlib.AsyncExitStack() as stack:

        async def start(handler: Handler, engine: str = "edgetts", voice: str = "Brian") -> TtsClient:
            app = web.Application()
            app.add_routes([web.route("*", "/{path:.*}", handler)])
            runner = web.AppRunner(app, shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            client = TtsClient(f"http://127.0.0.1:{runner.addresses[0][1]}", voice, engine)
            return await stack.enter_async_context(client)

        yield start


async def said(client: TtsClient, text: str = "hello") -> list[Utterance]:
    return [piece async for piece in client.speak(text)]


async def one(client: TtsClient, text: str = "hello") -> Utterance:
    (piece,) = await said(client, text)
    return piece


def seconds(pieces: list[Utterance]) -> float:
    return sum(p.duration for p in pieces)


# ---- what is asked -----------------------------------------------------------------------


def test_there_is_a_contract_for_every_engine() -> None:
    assert set(CONTRACTS) == set(_ENGINES.values())


@pytest.mark.parametrize(("engine", "prompt"), [("edgetts", ""), ("tacotron", "45")])
async def test_the_old_servers(serve: Serve, engine: str, prompt: str) -> None:
    """A multipart form with a file, WAV back, whatever else was asked for."""
    fields: dict[str, object] = {}

    async def generate(request: web.Request) -> web.Response:
        fields.update(await request.post(), method=request.method, path=request.path)
        return web.Response(body=WAV, content_type="audio/wav")

    utterances = await said(await serve(generate, engine))
    assert seconds(utterances) == pytest.approx(1.0, abs=0.01)
    assert utterances[0].curve[25, 0] > 0.5
    assert (fields["method"], fields["path"]) == ("POST", "/generate")
    assert (fields["tts_text"], fields["voice"], fields["prompt_text"]) == ("hello", "Brian", prompt)
    assert isinstance(fields["prompt_wav"], web.FileField)


async def test_cosyvoice(serve: Serve, tmp_path: Path) -> None:
    """GET with a form in the body, as LiveTalking asks; the reference recording is REF_FILE."""
    seen: dict[str, object] = {}
    recording = tmp_path / "Emma.wav"
    recording.write_bytes(WAV)

    async def zero_shot(request: web.Request) -> web.StreamResponse:
        reader = await request.multipart()
        async for part in reader:
            seen[part.name] = part.filename or (await part.read()).decode()  # type: ignore[union-attr, index]
        seen["method"], seen["path"] = request.method, request.path
        response = web.StreamResponse()
        await response.prepare(request)
        raw = SOUND.tobytes()
        for start in range(0, len(raw), 4801):
            await response.write(raw[start : start + 4801])
        return response

    utterances = await said(await serve(zero_shot, "cosyvoice", str(recording)))
    assert seconds(utterances) == pytest.approx(1.0, abs=0.01)
    assert (seen["method"], seen["path"]) == ("GET", "/inference_zero_shot")
    assert (seen["tts_text"], seen["prompt_wav"]) == ("hello", "Emma.wav")


async def test_sovits(serve: Serve) -> None:
    """JSON in; each chunk that comes is an ogg file of its own."""
    seen: dict[str, object] = {}

    async def tts(request: web.Request) -> web.StreamResponse:
        seen.update(await request.json(), method=request.method, path=request.path)
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(3):
            await response.write(encode(_array(SOUND), 24000, "ogg"))
        return response

    utterances = await said(await serve(tts, "sovits"))
    assert seconds(utterances) == pytest.approx(3.0, abs=0.1)
    assert (seen["method"], seen["path"], seen["text"]) == ("POST", "/tts", "hello")
    assert (seen["media_type"], seen["streaming_mode"], seen["ref_audio_path"]) == ("ogg", True, "Brian")


async def test_openai(serve: Serve) -> None:
    """A WAV whose length nobody knows yet, as it comes."""
    seen: dict[str, object] = {}
    endless = bytearray(WAV)
    endless[4:8] = endless[40:44] = b"\xff\xff\xff\xff"

    async def speech(request: web.Request) -> web.StreamResponse:
        seen.update(await request.json(), path=request.path)
        response = web.StreamResponse()
        await response.prepare(request)
        for start in range(0, len(endless), 1000):
            await response.write(bytes(endless[start : start + 1000]))
        return response

    utterances = await said(await serve(speech, "omnitts"))
    assert seconds(utterances) == pytest.approx(1.0, abs=0.01)
    assert (seen["path"], seen["input"], seen["voice"]) == ("/v1/audio/speech", "hello", "Brian")
    assert seen["response_format"] == "wav"


def _array(samples: np.ndarray[tuple[int, ...], np.dtype[np.int16]]) -> object:
    from array import array

    return array("h", samples.tobytes())


# ---- while it comes -----------------------------------------------------------------------


async def test_the_first_words_are_there_before_the_last_are_made(serve: Serve) -> None:
    gate = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(SOUND.tobytes())
        await gate.wait()
        await response.write(SOUND.tobytes())
        return response

    client = await serve(slow, "cosyvoice")
    async with contextlib.aclosing(client.speak("hello")) as pieces:
        first = await asyncio.wait_for(anext(pieces), 5)
        assert (first.text, first.continues) == ("hello", False)
        gate.set()
        rest = [p async for p in pieces]
    assert all((p.text, p.continues) == ("", True) for p in rest)
    assert seconds([first, *rest]) == pytest.approx(2.0, abs=0.01)


async def test_no_seam_is_heard_between_pieces(serve: Serve) -> None:
    """A tone stays the tone that it is across the pieces in which it came."""
    tone = sine(24000, seconds=3.0)

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        raw = tone.tobytes()
        for start in range(0, len(raw), 7001):
            await response.write(raw[start : start + 7001])
            await asyncio.sleep(0)
        return response

    pieces = await said(await serve(stream, "cosyvoice"))
    assert len(pieces) > 1
    heard = np.concatenate([p.samples for p in pieces]).astype(float)
    assert len(heard) == 48000
    level = int(np.abs(tone.astype(int)).max())
    # A jump at a seam would be steeper than the tone's own steepest place.
    assert np.abs(np.diff(heard[200:-200])).max() < 1.1 * np.abs(np.diff(heard[200:2000])).max()
    assert np.abs(heard).max() < 1.1 * level


async def test_who_stops_listening_ends_the_request(serve: Serve) -> None:
    gone = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(SOUND.tobytes())
                await asyncio.sleep(0.02)
        except ConnectionResetError:
            gone.set()
            raise

    client = await serve(endless, "cosyvoice")
    async with contextlib.aclosing(client.speak("hello")) as pieces:
        await anext(pieces)
    await asyncio.wait_for(gone.wait(), 5)


async def test_an_engine_that_dies_in_a_sentence_and_speaks_the_next(serve: Serve) -> None:
    calls: list[int] = []

    async def dying(request: web.Request) -> web.StreamResponse:
        calls.append(1)
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(SOUND.tobytes())
        if len(calls) == 1:
            assert request.transport is not None
            request.transport.abort()
            await asyncio.sleep(0.1)
        return response

    client = await serve(dying, "cosyvoice")
    with pytest.raises(TtsError, match="inference_zero_shot"):
        await said(client)
    assert seconds(await said(client)) == pytest.approx(1.0, abs=0.01)


async def test_a_conversation_keeps_its_connection(serve: Serve) -> None:
    """Who answers it stays the same, though the address may lead others elsewhere by now."""
    peers: set[object] = set()

    async def generate(request: web.Request) -> web.Response:
        assert request.transport is not None
        peers.add(request.transport.get_extra_info("peername"))
        return web.Response(body=WAV, content_type="audio/wav")

    client = await serve(generate)
    for _ in range(3):
        await said(client)
    assert len(peers) == 1


async def test_an_engine_that_is_still_starting_is_waited_for(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    monkeypatch.setattr(tts_client, "PATIENCE", 5.0)

    async def generate(_: web.Request) -> web.Response:
        return web.Response(body=WAV, content_type="audio/wav")

    async with TtsClient(f"http://127.0.0.1:{unused_tcp_port}", "Brian") as client:
        asking = asyncio.create_task(said(client))
        await asyncio.sleep(0.5)
        app = web.Application()
        app.add_routes([web.post("/generate", generate)])
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", unused_tcp_port).start()
        assert seconds(await asyncio.wait_for(asking, 10)) == pytest.approx(1.0, abs=0.01)
        await runner.cleanup()


@pytest.fixture
def unused_tcp_port() -> int:
    from tests.runtime.launch import free_port

    return free_port()


# ---- phonemes -------------------------------------------------------------------------------


async def test_an_engine_that_tells_its_phonemes(serve: Serve) -> None:
    async def generate(request: web.Request) -> web.Response:
        assert request.headers["X-Phonemes"]
        told = f"0:m,500:{quote('ˈɑː')}"
        return web.Response(body=WAV, content_type="audio/wav", headers={"X-Phonemes": told})

    utterance = await one(await serve(generate), "ma")
    assert utterance.curve[25, 0] < 0.05
    assert utterance.curve[75, 0] > 0.8
    assert utterance.stresses == (0.5,)


@pytest.mark.parametrize("line", ["", "x", "1", ":", "nan:a,5:b", "-5:b,99999999999:c", "1:%FF%,,,2:a"])
async def test_a_timeline_of_nonsense_does_not_break_the_sound(serve: Serve, line: str) -> None:
    async def generate(_: web.Request) -> web.Response:
        return web.Response(body=WAV, content_type="audio/wav", headers={"X-Phonemes": line})

    utterance = await one(await serve(generate))
    assert utterance.duration == pytest.approx(1.0, abs=0.01)
    assert np.isfinite(utterance.curve).all()


def test_phonemes_of_a_header() -> None:
    assert parse_phonemes("0:h,55:%CA%8C,1200:") == [(0.0, "h"), (0.055, "ʌ"), (1.2, "")]


# ---- trouble -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine", "status", "kind", "body"),
    [
        ("edgetts", 500, "application/json", b'{"message": "no voice"}'),
        ("edgetts", 200, "application/json", b"{}"),
        ("edgetts", 200, "audio/wav", b""),
        ("edgetts", 200, "audio/wav", WAV[:30]),
        ("edgetts", 200, "audio/wav", struct.pack("<4sI4s4sI", b"RIFF", 4, b"WAVE", b"fmt ", 1 << 31) + bytes(40)),
        ("edgetts", 200, "audio/mpeg", b"ID3" + bytes(500)),
        ("edgetts", 200, "text/html", b"<html>" + bytes(100)),
        ("cosyvoice", 405, "application/json", b'{"detail": "Method Not Allowed"}'),
        ("sovits", 200, "audio/ogg", b"OggS" + bytes(200)),
        ("sovits", 400, "application/json", b'{"message": "ref_audio_path is required"}'),
        ("omnitts", 429, "application/json", b'{"error": {"message": "slow down"}}'),
    ],
)
async def test_nonsense_is_an_error_that_says_what_it_was(
    serve: Serve, engine: str, status: int, kind: str, body: bytes
) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, body=body, content_type=kind)

    with pytest.raises(TtsError, match=rf"{CONTRACTS[engine].path}.*(HTTP {status}|audio)"):
        await said(await serve(answer, engine))


async def test_a_slow_engine_is_given_up(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tts_client, "TIMEOUT", aiohttp.ClientTimeout(total=0.3))

    async def generate(_: web.Request) -> web.Response:
        await asyncio.sleep(3)
        return web.Response()

    with pytest.raises(TtsError, match="Timeout"):
        await said(await serve(generate))


async def test_an_engine_that_never_ends_is_ended(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tts_client, "LIMIT", 200_000)

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionResetError):
            while True:
                await response.write(bytes(48000))
        return response

    with pytest.raises(TtsError, match="200000 bytes"):
        await said(await serve(endless, "cosyvoice"))


async def test_no_server_at_all() -> None:
    async with TtsClient("", "Brian") as nowhere:
        with pytest.raises(TtsError, match="TTS_SERVER"):
            await said(nowhere)
    async with TtsClient("http://127.0.0.1:1", "Brian") as closed:
        with pytest.raises(TtsError, match=r"127\.0\.0\.1:1"):
            await said(closed)
