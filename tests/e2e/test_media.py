"""What a viewer sees and hears of an avatar in a pod."""

from __future__ import annotations

from avatar_client.analysis import analyse
from avatar_client.session import AvatarSession
from tests.support.world import World

SENTENCE = "Good morning, everybody. Today we talk about the weather, and about what to wear when it rains."
# What espeak-ng takes for the sentence, give or take its pauses between sentences.
SPEECH_SECONDS = (3.5, 9.0)


async def test_a_viewer_gets_a_speaking_avatar_in_sync(real: World) -> None:
    await real.instance("ada")
    status = await real.phase("ada", "Running", timeout=60)
    async with AvatarSession.connect(status["webrtcUrl"]) as session:
        await session.say(SENTENCE)
        await session.wait_speech_end(60)
    report = analyse(session.recording)
    assert SPEECH_SECONDS[0] <= report.speech <= SPEECH_SECONDS[1], report
    assert report.correlation >= 0.6, report
    assert -60 <= report.offset_ms <= 40, report
    assert 24 <= report.fps <= 26, report
    assert report.peak > 0.05, report


async def test_the_voice_comes_from_the_tts_service_by_its_name(real: World) -> None:
    """The pod is on the node's network and finds a Service by DNS all the same."""
    await real.instance("ada")
    status = await real.phase("ada", "Running", timeout=60)
    async with AvatarSession.connect(status["webrtcUrl"]) as session:
        await session.say("Hello.")
        await session.wait_speech_end(30)
    assert not [e for e in session.events if e["event"] == "error"]
    assert next(e["event"] for e in session.events) == "speaking"
