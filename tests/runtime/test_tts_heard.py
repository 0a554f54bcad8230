"""Every contract as a viewer hears it: the real speech server, the real runtime, real WebRTC."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from avatar_client import AvatarSession, SpeechError
from avatar_client.analysis import analyse
from avatar_runtime.config import DEFAULT_VOICE
from tests.runtime.conftest import MakeRuntime
from tests.runtime.launch import Running
from tests.runtime.test_runtime_media import spoken

SENTENCE = "Good morning, everybody. Today we talk about the weather."
FLAGS = ["edgetts", "tacotron", "cosyvoice", "gpt-sovits", "omnitts"]


@pytest.mark.parametrize("flag", FLAGS)
async def test_length_and_loudness_fit_the_text(tts: Running, make_runtime: MakeRuntime, flag: str) -> None:
    seconds, loudness = await spoken(tts, SENTENCE, DEFAULT_VOICE)
    runtime = make_runtime("--tts", flag, "--REF_FILE", DEFAULT_VOICE)
    async with AvatarSession.connect(runtime.url) as session:
        await session.say(SENTENCE)
        await session.wait_speech_end(40)
    report = analyse(session.recording)
    assert report.speech == pytest.approx(seconds, abs=0.4), report
    assert report.peak == pytest.approx(loudness, rel=0.35), report
    subtitles = [e["text"] for e in session.events if e["event"] == "subtitle"]
    assert " ".join(subtitles) == SENTENCE


@dataclass
class Engine:
    """A CosyVoice that can be told how to behave. ``asked``: requests; ``left``: those whose caller went away."""

    url: str = ""
    asked: int = 0
    left: asyncio.Event = field(default_factory=asyncio.Event)
    behave: Callable[[web.StreamResponse, web.Request], Awaitable[None]] | None = None


SECOND = bytes(range(256)) * 188  # 24 064 samples of noise: a second


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    found = Engine()

    async def zero_shot(request: web.Request) -> web.StreamResponse:
        found.asked += 1
        await request.read()
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            assert found.behave is not None
            await found.behave(response, request)
        except ConnectionResetError:
            found.left.set()
            raise
        return response

    app = web.Application()
    app.add_routes([web.get("/inference_zero_shot", zero_shot)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield found
    await runner.cleanup()


async def for_ever(response: web.StreamResponse, _: web.Request) -> None:
    while True:
        await response.write(SECOND)
        await asyncio.sleep(0.2)


async def test_an_interruption_ends_the_engines_work(engine: Engine, make_runtime: MakeRuntime) -> None:
    engine.behave = for_ever
    runtime = make_runtime("--tts", "cosyvoice", tts=engine.url)
    async with AvatarSession.connect(runtime.url) as session:
        await session.say("This would never end.")
        await session.wait_event("speaking", 20)
        await session.interrupt()
        await asyncio.wait_for(engine.left.wait(), 10)
        await session.wait_event("silent", 10)


async def test_who_leaves_ends_the_engines_work(engine: Engine, make_runtime: MakeRuntime) -> None:
    engine.behave = for_ever
    runtime = make_runtime("--tts", "cosyvoice", tts=engine.url)
    async with AvatarSession.connect(runtime.url) as session:
        await session.say("This would never end.")
        await session.wait_event("speaking", 20)
    await asyncio.wait_for(engine.left.wait(), 20)


async def test_an_engine_that_dies_in_a_sentence(engine: Engine, make_runtime: MakeRuntime) -> None:
    """What was said is said, the client is told, and the next sentence is tried anew."""

    async def die(response: web.StreamResponse, request: web.Request) -> None:
        await response.write(SECOND)
        await asyncio.sleep(0.1)
        assert request.transport is not None
        request.transport.abort()
        await asyncio.sleep(0.1)

    async def live(response: web.StreamResponse, _: web.Request) -> None:
        await response.write(SECOND)

    engine.behave = die
    runtime = make_runtime("--tts", "cosyvoice", tts=engine.url)
    async with AvatarSession.connect(runtime.url) as session:
        await session.say("It dies in this one.")
        with pytest.raises(SpeechError, match="inference_zero_shot"):
            await session.wait_speech_end(20)
        await session.wait_event("silent", 10)
        engine.behave = live
        await session.say("But not in this.")
        with contextlib.suppress(SpeechError):
            await session.wait_speech_end(20)
        texts = [e["text"] for e in session.events if e["event"] == "subtitle"]
    assert texts == ["It dies in this one.", "But not in this."]
    assert engine.asked == 2
