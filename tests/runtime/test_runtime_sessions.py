"""Sessions are counted, limited and freed: real processes, real offers."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import aiohttp
import pytest

from avatar_client import AvatarSession, ClientError, Refused
from avatar_client.analysis import analyse
from tests.runtime.conftest import MakeRuntime
from tests.runtime.launch import AVATARS, RUNTIME, Running, call, launch, offer, sessions, until

SENTENCE = "A sentence that has begun is said to its end, whatever happens to the pod."


async def test_ten_offers_at_once_into_three_slots(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime("--max_session", "3", "--connect_timeout", "2")
    offers = [await offer() for _ in range(10)]
    began = time.monotonic()
    answers = await asyncio.gather(*(call("POST", f"{runtime.url}/offer", body) for body in offers))
    assert {status for status, _ in answers} == {200}
    accepted = [body for _, body in answers if "sdp" in body]
    refused = [body for _, body in answers if "sdp" not in body]
    assert len(accepted) == 3
    assert len({a["sessionid"] for a in accepted}) == 3
    assert {(r["code"], r["msg"]) for r in refused} == {(-1, "Maximum session limit reached (3/3)")}

    # Nobody has connected yet; they count all the same, until the deadline frees their slots.
    _, health = await call("GET", f"{runtime.url}/health")
    assert (health["sessions"], health["max_sessions"], health["idle_seconds"]) == (3, 3, 0)
    _, listed = await call("GET", f"{runtime.url}/api/admin/sessions")
    assert {s["sessionid"] for s in listed["data"]["sessions"]} == {a["sessionid"] for a in accepted}
    assert {s["state"] for s in listed["data"]["sessions"]} == {"connecting"}

    async def freed() -> bool:
        return await sessions(runtime) == 0

    await until("freed slots", freed, 12)
    assert time.monotonic() - began >= 2
    async with AvatarSession.connect(runtime.url):
        assert await sessions(runtime) == 1


async def test_a_full_runtime_refuses_and_a_hang_up_makes_room(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime("--max_session", "1")
    async with AvatarSession.connect(runtime.url):
        assert (await call("GET", f"{runtime.url}/health"))[1]["idle_seconds"] == 0
        with pytest.raises(Refused, match=r"limit reached \(1/1\)"):
            async with AvatarSession.connect(runtime.url):
                pass

    async def freed() -> bool:
        return await sessions(runtime) == 0

    ended = time.monotonic()
    assert await until("the freed slot", freed, 5) < 5
    await asyncio.sleep(0.7)
    _, health = await call("GET", f"{runtime.url}/health")
    assert health["idle_seconds"] == pytest.approx(time.monotonic() - ended, abs=0.6)
    async with AvatarSession.connect(runtime.url):
        _, listed = await call("GET", f"{runtime.url}/api/admin/sessions")
        assert [s["state"] for s in listed["data"]["sessions"]] == ["connected"]


async def test_a_killed_client_is_noticed(make_runtime: MakeRuntime, tmp_path: Path) -> None:
    runtime = make_runtime("--peer_timeout", "3")
    flags = ("--url", runtime.url, "--text", SENTENCE * 5, "--out", str(tmp_path))
    client = launch(tmp_path, "avatar_client", *flags, port=0)
    try:

        async def speaks() -> bool:
            return int((await call("GET", f"{runtime.url}/health"))[1]["speaking"]) == 1

        await until("the client's conversation", speaks, 30)
    finally:
        client.stop()  # SIGKILL: no goodbye

    async def freed() -> bool:
        return await sessions(runtime) == 0

    assert await until("the dead client's slot", freed, 15) > 1.5


async def test_drain_by_route_refuses_and_comes_back(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime()
    drain = f"{runtime.url}/api/admin/drain"
    async with AvatarSession.connect(runtime.url) as session:
        for _ in range(2):
            assert await call("POST", drain, {"drain": True}) == (
                200,
                {"code": 0, "msg": "ok", "data": {"sessions": 1}},
            )
        assert (await call("GET", f"{runtime.url}/health"))[1]["status"] == "draining"
        await session.wait_event("draining", 10)
        with pytest.raises(Refused, match="draining"):
            async with AvatarSession.connect(runtime.url):
                pass
        await session.say("Hello.")
        await session.wait_speech_end(20)
        assert (await call("POST", drain, {"drain": False}))[1]["data"] == {"sessions": 1}
    async with AvatarSession.connect(runtime.url):
        assert (await call("GET", f"{runtime.url}/health"))[1]["status"] == "healthy"
    for nonsense in ({}, {"drain": "yes"}, {"drain": 1}):
        assert (await call("POST", drain, nonsense))[1]["code"] == -1


async def test_sigterm_lets_a_sentence_finish(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime("--drain_seconds", "30")
    async with AvatarSession.connect(runtime.url) as session:
        await session.say(SENTENCE)
        await session.wait_event("speaking", 20)
        runtime.terminate()
        await session.wait_event("draining", 10)
        assert (await call("POST", f"{runtime.url}/offer", await offer()))[1]["msg"].startswith("draining")
        await session.wait_speech_end(30)
    assert await runtime.exit(15) == 0
    report = analyse(session.recording)
    assert report.speech > 3
    assert [e["event"] for e in session.events if e["event"] != "subtitle"] == ["speaking", "draining", "silent"]


async def test_sigterm_ends_those_who_stay(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime("--drain_seconds", "1")
    async with AvatarSession.connect(runtime.url) as session:
        runtime.terminate()
        began = time.monotonic()
        assert await runtime.exit(15) == 0
        assert time.monotonic() - began >= 0.8
        await session.wait_closed(10)
        assert not session.alive


async def test_a_second_sigterm_ends_the_drain_at_once(make_runtime: MakeRuntime) -> None:
    busy = make_runtime("--drain_seconds", "60")
    async with AvatarSession.connect(busy.url) as session:
        busy.terminate()
        await session.wait_event("draining", 10)
        busy.terminate()
        assert await busy.exit(15) == 0


def _run(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "avatar_runtime", *args]
    return subprocess.run(command, cwd=RUNTIME, capture_output=True, text=True, timeout=60, check=False)


def test_an_unknown_avatar_is_a_configuration_error() -> None:
    done = _run("--avatar_id", "nobody", "--data_dir", str(AVATARS))
    assert done.returncode == 78
    last = done.stderr.strip().splitlines()[-1]
    assert "unknown avatar 'nobody'" in last
    assert "ada, bruno" in last


def test_a_taken_port_has_its_own_exit_status(tts: Running) -> None:
    done = _run("--avatar_id", "ada", "--data_dir", str(AVATARS), "--listenport", str(tts.port))
    assert done.returncode == 98
    assert f"port {tts.port} is in use" in done.stderr.strip().splitlines()[-1]


async def test_names_with_spaces_work(make_runtime: MakeRuntime, tmp_path: Path) -> None:
    data = tmp_path / "my avatars"
    shutil.copytree(AVATARS / "bruno", data / "test   4")
    runtime = make_runtime(avatar="test   4", data=data)
    assert (await call("GET", f"{runtime.url}/health"))[1]["avatar"] == "test   4"
    _, config = await call("GET", f"{runtime.url}/api/admin/config")
    assert config["data"]["config"]["avatar_id"] == "test   4"
    runtime.terminate()  # nobody is here: nothing to wait for
    assert await runtime.exit(5) == 0


async def test_bad_requests_are_refused_and_take_no_slot(shared_runtime: Running) -> None:
    good = await offer()
    bodies = [
        b"", b"x", b"[]", b"null", b"{}", b"\xff\xfe\x00", b"[" * 20000,
        json.dumps({"sdp": 1, "type": "offer"}).encode(),
        json.dumps({"sdp": "nonsense", "type": "offer"}).encode(),
        json.dumps({"sdp": "", "type": "offer"}).encode(),
        json.dumps({"sdp": good["sdp"], "type": "answer"}).encode(),
        json.dumps({"sdp": good["sdp"].split("a=fingerprint")[0], "type": "offer"}).encode(),
        json.dumps({"sdp": "v=0\r\nm=audio x y z\r\n", "type": "offer"}).encode(),
    ]  # fmt: skip
    for route in ("/offer", "/human", "/interrupt_talk", "/is_speaking", "/api/admin/drain"):
        for raw in bodies:
            status, body = await call("POST", f"{shared_runtime.url}{route}", raw=raw)
            assert (status, body["code"]) == (200, -1), (route, raw[:60])
            assert body["msg"]
            assert "internal" not in body["msg"], (route, raw[:60], body)
    assert await sessions(shared_runtime) == 0


async def test_large_bodies_are_refused(shared_runtime: Running) -> None:
    raw = json.dumps({"sdp": "v" * 70_000, "type": "offer"}).encode()
    _, body = await call("POST", f"{shared_runtime.url}/offer", raw=raw)
    assert body["code"] == -1
    assert "65536" in body["msg"]


@pytest.mark.parametrize(
    "body",
    [
        {"text": "   "},
        {"text": 5},
        {"text": "x" * 5001},
        {"text": "hello", "type": "chat"},
        {"text": "hello", "sessionid": None},
        {"text": "hello", "sessionid": {"a": 1}},
    ],
)
async def test_bad_texts_are_refused(shared_runtime: Running, body: dict[str, object]) -> None:
    async with AvatarSession.connect(shared_runtime.url) as session:
        status, answer = await call("POST", f"{shared_runtime.url}/human", {"sessionid": session.sessionid, **body})
        assert (status, answer["code"]) == (200, -1)


async def test_unknown_routes(shared_runtime: Running) -> None:
    status, body = await call("GET", f"{shared_runtime.url}/nothing")
    assert (status, body["code"]) == (404, -1)
    status, body = await call("GET", f"{shared_runtime.url}/offer")
    assert (status, body["code"]) == (405, -1)


async def test_pages_of_other_origins_may_call(shared_runtime: Running) -> None:
    async with aiohttp.ClientSession() as http:
        async with http.options(f"{shared_runtime.url}/offer") as answer:
            assert answer.status == 204
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
        async with http.post(f"{shared_runtime.url}/offer", data=b"x") as answer:
            assert answer.headers["Access-Control-Allow-Origin"] == "*"


async def test_a_client_that_reaches_no_runtime_says_so(shared_runtime: Running) -> None:
    with pytest.raises(ClientError, match="HTTP 404"):
        async with AvatarSession.connect(f"{shared_runtime.url}/wrong/path"):
            pass
    with pytest.raises(ClientError, match="cannot be reached"):
        async with AvatarSession.connect("http://127.0.0.1:1"):
            pass


async def test_frames_are_counted_for_those_who_watch_and_never_fewer(make_runtime: MakeRuntime) -> None:
    """What an operator needs to tell a zombie from a runtime that works."""
    runtime = make_runtime()

    async def health() -> tuple[int, int]:
        _, said = await call("GET", f"{runtime.url}/health")
        return said["viewers"], said["frames"]

    async def first_frame() -> float | None:
        _, said = await call("GET", f"{runtime.url}/health")
        return said["first_frame_at"]

    assert await health() == (0, 0)
    assert await first_frame() is None
    before = time.time()
    async with AvatarSession.connect(runtime.url):
        viewers, first = await health()
        assert viewers == 1
        shown = await first_frame()
        assert shown is not None
        assert before <= shown <= time.time()

        async def more() -> bool:
            return (await health())[1] >= first + 5

        await until("more frames", more, 15)
        _, last = await health()

    async def left() -> bool:
        return (await health())[0] == 0

    await until("nobody watching", left, 10)
    assert (await health())[1] >= last
    async with AvatarSession.connect(runtime.url):
        assert await first_frame() == shown, "the first one stays the first"
