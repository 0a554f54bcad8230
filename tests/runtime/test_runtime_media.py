"""What a viewer sees and hears: real processes, real WebRTC over loopback."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import av
import numpy as np
import pytest

from avatar_client import AvatarSession, Refused, SpeechError
from avatar_client.analysis import analyse, envelope, speech_span
from avatar_client.talk import talk
from avatar_runtime.pcm import RATE
from avatar_runtime.speech import Timeline, split_sentences
from avatar_runtime.tts_client import TtsClient
from tests.runtime.conftest import MakeRuntime
from tests.runtime.launch import Running, free_port, start_tts

SENTENCE = "Hello! I am Ada, a talking avatar, and I am glad that you came."
LONG = "This sentence is quite long, because somebody is going to interrupt it well before the end of it is reached."
TRIES = 3
"""A machine that stalls for a moment shifts and drops pictures: one undisturbed conversation of three is enough."""


async def spoken(tts: Running, text: str, voice: str) -> tuple[float, float]:
    """Seconds and loudness (RMS of the loud parts) of what the TTS server makes of a text."""
    timeline = Timeline()
    async with TtsClient(tts.url, voice) as client:
        for sentence in split_sentences(text):
            async for piece in client.speak(sentence):
                timeline.append(piece, 0.0)
    loud = envelope(timeline.audio(0, int((timeline.end() + 0.2) * RATE)), RATE)
    start, end = speech_span(loud)
    return end - start, float(np.percentile(loud, 99))


async def test_a_viewer_gets_the_whole_speech_in_sync(tts: Running, shared_runtime: Running) -> None:
    seconds, loudness = await spoken(tts, SENTENCE, "en-US-AvaNeural")
    seen = []
    for _ in range(TRIES):
        async with AvatarSession.connect(shared_runtime.url) as session:
            await session.say(SENTENCE)
            await session.wait_speech_end(60)
        report = analyse(session.recording)
        seen.append(report)
        assert report.speech == pytest.approx(seconds, abs=0.3), report
        assert report.peak == pytest.approx(loudness, rel=0.3), report
        names = [e["event"] for e in session.events]
        assert names[:2] == ["speaking", "subtitle"]
        assert names[-1] == "silent"
        if report.correlation >= 0.6 and -60 <= report.offset_ms <= 40 and 24 <= report.fps <= 26:
            return
    pytest.fail(f"mouth and voice do not belong together, or pictures are missing: {seen}")


async def test_a_clip_and_a_still_are_saved(shared_runtime: Running, tmp_path: Path) -> None:
    done = await talk(f"{shared_runtime.url}/offer", "Hello, hello.", tmp_path / "some" / "where")
    with av.open(str(done.clip)) as clip:
        kinds = {s.type for s in clip.streams}
        pictures = sum(1 for _ in clip.decode(video=0))
    assert kinds == {"audio", "video"}
    assert pictures >= 25 * done.report.speech
    assert done.still.read_bytes().startswith(b"\x89PNG")
    assert any("fps" in line for line in done.lines())


async def test_an_interruption_cuts_the_speech(tts: Running, shared_runtime: Running) -> None:
    seconds, _ = await spoken(tts, LONG, "en-US-AvaNeural")
    async with AvatarSession.connect(shared_runtime.url) as session:
        await session.say(LONG)
        await session.wait_event("speaking", 20)
        await asyncio.sleep(1.5)
        asked = time.monotonic()
        await session.interrupt()
        await session.wait_event("silent", 10)
        await asyncio.sleep(0.8)
        samples, rate, zero = session.recording.audio_track()
        _, end = speech_span(envelope(samples, rate))
        assert 1.2 < analyse(session.recording).speech < seconds - 1
        assert zero + end - asked < 0.3
        assert float(envelope(samples, rate)[-20:].max()) < 0.003


async def test_a_new_text_can_take_the_place_of_the_old_one(shared_runtime: Running) -> None:
    async with AvatarSession.connect(shared_runtime.url) as session:
        await session.say(LONG)
        await session.wait_event("speaking", 20)
        await session.say("Something else.", interrupt=True)
        await session.wait_speech_end(20)
    subtitles = [e["text"] for e in session.events if e["event"] == "subtitle"]
    assert subtitles == [LONG, "Something else."]


async def test_each_session_hears_its_own_text(shared_runtime: Running) -> None:
    async with (
        AvatarSession.connect(shared_runtime.url) as one,
        AvatarSession.connect(shared_runtime.url) as other,
    ):
        await one.say("Only for the first.")
        await one.wait_speech_end(20)
        assert not other.events
        samples, rate, _ = other.recording.audio_track()
        assert float(envelope(samples, rate).max()) < 0.003


async def test_without_tts_the_client_is_told_and_later_speech_works(make_runtime: MakeRuntime, tmp_path: Path) -> None:
    port = free_port()
    runtime = make_runtime(tts=f"http://127.0.0.1:{port}")
    async with AvatarSession.connect(runtime.url) as session:
        await session.say("Nobody can say this.")
        with pytest.raises(SpeechError, match=str(port)):
            await session.wait_speech_end(20)
        server = start_tts(tmp_path, port)
        try:
            await session.say("But this.")
            await session.wait_speech_end(20)
        finally:
            server.stop()
        assert [e["text"] for e in session.events if e["event"] == "subtitle"] == ["But this."]


async def test_text_that_no_engine_can_take_does_not_mute_the_session(shared_runtime: Running) -> None:
    async with AvatarSession.connect(shared_runtime.url) as session:
        for odd in ("\ud800", "🙂🙂", "… !", "\x00\x07"):
            await session.say(odd)
        await session.say("Still here.")
        await session.wait_event("subtitle", 20)
        await session.wait_speech_end(20)
        assert any("Still here" in e.get("text", "") for e in session.events)


async def test_a_closed_session_is_unknown(shared_runtime: Running) -> None:
    async with AvatarSession.connect(shared_runtime.url) as session:
        old = session.sessionid
    async with AvatarSession.connect(shared_runtime.url) as session:
        session.sessionid = old
        with pytest.raises(Refused, match="no session"):
            await session.say("Hello?")
