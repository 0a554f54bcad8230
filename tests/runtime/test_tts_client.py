"""What the runtime makes of a TTS server's answers, good and bad."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import numpy as np
import pytest
from aiohttp import web

from avatar_runtime import tts_client
from avatar_runtime.tts_client import TtsClient, TtsError
from tests.runtime.test_sdp_and_sound import sine, wav_file

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[Handler], Awaitable[TtsClient]]

WAV = wav_file(sine(24000, seconds=1.0).tobytes(), 24000)


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    runners: list[web.AppRunner] = []
    clients: list[TtsClient] = []

    async def start(handler: Handler) -> TtsClient:
        app = web.Application()
        app.add_routes([web.post("/generate", handler)])
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        client = TtsClient(f"http://127.0.0.1:{port}", "Brian")
        clients.append(await client.__aenter__())
        return client

    yield start
    for client in clients:
        await client.__aexit__()
    for runner in runners:
        await runner.cleanup()


async def test_an_engine_that_knows_wav_only(serve: Serve) -> None:
    """The old engines: a multipart form with a file, WAV back, whatever else was asked for."""
    fields: dict[str, object] = {}

    async def generate(request: web.Request) -> web.Response:
        fields.update(await request.post())
        return web.Response(body=WAV, content_type="audio/wav")

    utterance = await (await serve(generate)).speak("hello")
    assert utterance.duration == pytest.approx(1.0, abs=0.01)
    assert utterance.curve[50, 0] > 0.5
    assert fields["tts_text"] == "hello"
    assert fields["voice"] == "Brian"
    assert isinstance(fields["prompt_wav"], web.FileField)


async def test_an_engine_with_a_phoneme_timeline(serve: Serve) -> None:
    async def generate(_: web.Request) -> web.Response:
        phonemes = [{"t": 0.0, "ipa": "m"}, {"t": 0.5, "ipa": "ˈɑː"}]
        return web.json_response(
            {"sample_rate": 24000, "audio": base64.b64encode(WAV).decode(), "phonemes": phonemes, "duration": 1.0}
        )

    utterance = await (await serve(generate)).speak("ma")
    assert utterance.curve[25, 0] < 0.05
    assert utterance.curve[75, 0] > 0.8
    assert utterance.stresses == (0.5,)


@pytest.mark.parametrize(
    ("status", "kind", "body"),
    [
        (500, "application/json", b'{"message": "no voice"}'),
        (200, "application/json", b"{"),
        (200, "application/json", b"[]"),
        (200, "application/json", b'{"audio": "%%%"}'),
        (200, "application/json", b'{"audio": "AAAA"}'),
        (200, "application/json", b'{"audio": "AAAA", "phonemes": [{"t": "soon", "ipa": "a"}]}'),
        (200, "audio/wav", b""),
        (200, "audio/mpeg", b"ID3" + bytes(500)),
        (200, "text/html", b"<html>" + bytes(100)),
    ],
)
async def test_nonsense_is_an_error_that_says_what_it_was(serve: Serve, status: int, kind: str, body: bytes) -> None:
    async def generate(_: web.Request) -> web.Response:
        return web.Response(status=status, body=body, content_type=kind)

    with pytest.raises(TtsError):
        await (await serve(generate)).speak("hello")


async def test_a_timeline_of_nonsense_does_not_break_the_sound(serve: Serve) -> None:
    async def generate(_: web.Request) -> web.Response:
        phonemes = '[{"t": NaN, "ipa": "a"}, {"t": -5, "ipa": "b"}, {"t": 1e300, "ipa": "c"}]'
        text = f'{{"audio": "{base64.b64encode(WAV).decode()}", "phonemes": {phonemes}}}'
        return web.Response(text=text, content_type="application/json")

    utterance = await (await serve(generate)).speak("hello")
    assert utterance.duration == pytest.approx(1.0, abs=0.01)
    assert np.isfinite(utterance.curve).all()


async def test_a_slow_engine_is_given_up(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tts_client, "TIMEOUT", aiohttp.ClientTimeout(total=0.3))

    async def generate(_: web.Request) -> web.Response:
        await asyncio.sleep(3)
        return web.Response()

    with pytest.raises(TtsError, match="Timeout"):
        await (await serve(generate)).speak("hello")


async def test_no_server_at_all() -> None:
    async with TtsClient("", "Brian") as nowhere:
        with pytest.raises(TtsError, match="TTS_SERVER"):
            await nowhere.speak("hello")
    async with TtsClient("http://127.0.0.1:1", "Brian") as closed:
        with pytest.raises(TtsError, match=r"127\.0\.0\.1:1"):
            await closed.speak("hello")
