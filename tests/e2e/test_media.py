"""What a viewer sees and hears of an avatar in a pod."""

from __future__ import annotations

from avatar_client.analysis import Report, analyse
from avatar_client.session import AvatarSession
from tests.support.world import World

SENTENCE = "Good morning, everybody. Today we talk about the weather, and about what to wear when it rains."
# What espeak-ng takes for the sentence, give or take its pauses between sentences.
SPEECH_SECONDS = (3.5, 9.0)
# A machine that is busy with something else for a second drops frames by design: that is no fault of the avatar.
CONVERSATIONS = 3


async def converse(url: str) -> Report:
    """Say the sentence in a session of its own; what was received of it."""
    async with AvatarSession.connect(url) as session:
        await session.say(SENTENCE)
        await session.wait_speech_end(60)
    assert not [e for e in session.events if e["event"] == "error"]
    assert next(e["event"] for e in session.events) == "speaking"
    return analyse(session.recording)


def in_sync(report: Report) -> bool:
    """What no viewer would notice (ITU-R BT.1359 for the offset)."""
    return report.correlation >= 0.6 and -60 <= report.offset_ms <= 40 and 24 <= report.fps <= 26


async def test_a_viewer_gets_a_speaking_avatar_in_sync(real: World) -> None:
    """The voice comes from the TTS Service by its name, though the pod is on the node's network."""
    await real.instance("ada")
    status = await real.phase("ada", "Running", timeout=60)
    reports: list[Report] = []
    while len(reports) < CONVERSATIONS and not any(map(in_sync, reports)):
        reports.append(await converse(status["webrtcUrl"]))
        assert SPEECH_SECONDS[0] <= reports[-1].speech <= SPEECH_SECONDS[1], reports
        assert reports[-1].peak > 0.05, reports
    assert any(map(in_sync, reports)), reports
