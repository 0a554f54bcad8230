"""A viewer's own recording said by the avatar, subtitles by the word, and hanging up: real processes, real WebRTC."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import aiohttp
import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avatar_client import AvatarSession
from avatar_client.analysis import analyse
from avatar_runtime.pcm import RATE
from avatar_runtime.sounds import decode_file
from avatar_runtime.tts_client import TtsClient, parse_words
from tests.runtime.conftest import MakeRuntime
from tests.runtime.launch import Running, call, sessions, tone, until


async def send(runtime: Running, sessionid: Any, data: bytes, name: str = "voice.wav") -> dict[str, Any]:
    """POST /humanaudio as a browser's form does."""
    form = aiohttp.FormData({"sessionid": str(sessionid)})
    form.add_field("file", data, filename=name)
    async with aiohttp.ClientSession() as http, http.post(f"{runtime.url}/humanaudio", data=form) as answer:
        assert answer.status == 200
        return dict(await answer.json())


def mp3(wav: bytes) -> bytes:
    """The same, compressed."""
    target = io.BytesIO()
    with av.open(io.BytesIO(wav)) as source, av.open(target, "w", format="mp3") as sink:
        stream = sink.add_stream("libmp3lame", rate=44100)
        resampler = av.AudioResampler(format="s16p", layout="mono", rate=44100)
        for frame in source.decode(audio=0):
            for piece in resampler.resample(frame):
                sink.mux(stream.encode(piece))
        sink.mux(stream.encode(None))
    return target.getvalue()


@pytest.mark.parametrize("pack", [bytes, mp3])
async def test_a_recording_is_said(shared_runtime: Running, pack: Any) -> None:
    """All of it is heard, and the mouth moves."""
    async with AvatarSession.connect(shared_runtime.url) as session:
        assert await send(shared_runtime, session.sessionid, pack(tone(2.0))) == {"code": 0, "msg": "ok"}
        await session.wait_event("speaking", 20)
        await session.wait_event("silent", 20)
        await asyncio.sleep(0.5)
        assert [e["event"] for e in session.events] == ["speaking", "silent"]
    report = analyse(session.recording)
    assert report.speech == pytest.approx(2.0, abs=0.5), report
    assert report.peak > 0.05, report
    assert report.correlation > 0.6, report


async def test_recordings_wait_for_their_turn_and_have_an_end(shared_runtime: Running) -> None:
    async with AvatarSession.connect(shared_runtime.url) as session:
        await session.say("A sentence first.")
        await session.wait_event("speaking", 20)
        # One is in hand, and two wait: five minutes are the most.
        answers = [await send(shared_runtime, session.sessionid, tone(140)) for _ in range(4)]
        assert [a["code"] for a in answers] == [0, 0, 0, -1]
        assert "too much waits" in answers[-1]["msg"]
        assert await session.is_speaking()
        said = len(session.events)
        await session.interrupt()
        await session.wait_event("silent", 20, since=said)
        assert not await session.is_speaking()
        assert (await send(shared_runtime, session.sessionid, tone(0.5)))["code"] == 0


async def test_what_is_no_recording_is_refused(shared_runtime: Running) -> None:
    async with AvatarSession.connect(shared_runtime.url) as session:
        sid = session.sessionid
        for data, words in (
            (b"RIFF nonsense", "not a sound file"),
            (b"", "not a sound file"),
            (tone(301, rate=8000), "more than 300 seconds"),
            (bytes(10 << 20) + b"x", "larger than"),
        ):
            answer = await send(shared_runtime, sid, data)
            assert (answer["code"], words in answer["msg"]) == (-1, True), answer
        assert "no session" in (await send(shared_runtime, "nobody", tone(0.2)))["msg"]
        for raw in (b"", b"{}"):
            assert (await call("POST", f"{shared_runtime.url}/humanaudio", raw=raw))[1]["code"] == -1
        assert await session.is_speaking() is False


async def test_hanging_up_frees_the_slot_at_once(shared_runtime: Running) -> None:
    async with AvatarSession.connect(shared_runtime.url) as session:
        body = {"sessionid": session.sessionid}
        assert await call("POST", f"{shared_runtime.url}/hangup", body) == (200, {"code": 0, "msg": "ok"})
        assert await sessions(shared_runtime) == 0
        assert (await call("POST", f"{shared_runtime.url}/hangup", body))[1]["code"] == -1
        await session.wait_closed(10)


# ---- subtitles by the word -----------------------------------------------------------

TEXT = "The fox jumps over twenty-five dogs."


async def test_words_come_with_their_times(tts: Running, shared_runtime: Running) -> None:
    async with TtsClient(tts.url, "en-US-AvaNeural") as client:
        [utterance] = [piece async for piece in client.speak(TEXT)]
    times = [at for at, _ in utterance.words]
    assert "".join(word for _, word in utterance.words).replace(" ", "").startswith("Thefoxjumpsover")
    assert times == sorted(times)
    assert 0 <= times[0] < times[-1] < utterance.duration
    async with AvatarSession.connect(shared_runtime.url) as session:
        await session.say(TEXT)
        event = await session.wait_event("subtitle", 20)
    assert event["text"] == TEXT
    assert [w["text"] for w in event["words"]][:4] == ["The", "fox", "jumps", "over"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0:0+2,300:3+5", ((0.0, "Hi"), (0.3, "there"))),
        # Inside the word before; outside of the text; not readable; blank.
        ("0:0+2,10:1+1,20:99+3,x:0+1,30:2+1,-5:3+5", ((0.0, "Hi"), (0.0, "there"))),
        ("", ()),
    ],
)
def test_words_are_read(line: str, words: tuple[tuple[float, str], ...]) -> None:
    assert parse_words(line, "Hi there") == words


@given(st.text(alphabet="0123456789:+,-x", max_size=60), st.text(max_size=30))
def test_no_header_is_too_strange(line: str, text: str) -> None:
    assert all(word in text for _, word in parse_words(line, text))


# ---- /record -------------------------------------------------------------------------


async def test_a_session_is_recorded(make_runtime: MakeRuntime, tmp_path: Path) -> None:
    """The file has what was seen and heard, in sync to the frame; and only once it has ended."""
    runtime = make_runtime("--record_dir", str(tmp_path / "some" / "where"))
    async with AvatarSession.connect(runtime.url) as session:
        body = {"sessionid": session.sessionid}
        where = f"{runtime.url}/record/{session.sessionid}"

        async def ask(kind: str) -> tuple[int, str]:
            answer = (await call("POST", f"{runtime.url}/record", {**body, "type": kind}))[1]
            return answer["code"], answer["msg"]

        assert (await ask("end_record"))[0] == -1
        assert (await ask("pause_record")) == (-1, "type is start_record or end_record")
        assert await ask("start_record") == (0, "ok")
        assert (await ask("start_record"))[0] == -1
        assert (await call("GET", where))[0] == 404
        assert (await send(runtime, session.sessionid, tone(2.0)))["code"] == 0
        _, listed = await call("GET", f"{runtime.url}/api/admin/sessions")
        assert [s["recording"] for s in listed["data"]["sessions"]] == [True]
        await session.wait_event("silent", 30)
        assert await ask("end_record") == (0, "ok")
        async with aiohttp.ClientSession() as http, http.get(where) as answer:
            assert (answer.status, answer.content_type) == (200, "video/mp4")
            film = await answer.read()
        for path in ("..%2Fada.json", "nobody", "0" * 36):
            assert (await call("GET", f"{runtime.url}/record/{path}"))[0] == 404
        assert await ask("start_record") == (0, "ok")
    # Its viewer left: what there was is kept.
    folder = tmp_path / "some" / "where"
    await until("the file of the session that ended", lambda: _only(folder), 20)
    with av.open(io.BytesIO(film)) as file:
        pictures = [frame.time for frame in file.decode(video=0)]
    heard = decode_file(film)
    loud = np.flatnonzero(np.abs(heard) > 500) / RATE
    assert pictures == sorted(pictures)
    assert pictures[-1] >= 2
    assert loud[-1] - loud[0] == pytest.approx(2.0, abs=0.4)
    assert len(heard) / RATE == pytest.approx(pictures[-1], abs=0.6)


async def _only(folder: Path) -> bool:
    return [path.suffix for path in folder.iterdir()] == [".mp4"]


async def test_a_folder_that_cannot_be_written_is_said(make_runtime: MakeRuntime, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    runtime = make_runtime("--record_dir", str(tmp_path / "file"))
    async with AvatarSession.connect(runtime.url) as session:
        body = {"sessionid": session.sessionid, "type": "start_record"}
        answer = (await call("POST", f"{runtime.url}/record", body))[1]
        assert (answer["code"], "--record_dir" in answer["msg"]) == (-1, True)
        await session.say("It goes on.")
        await session.wait_event("speaking", 20)
