"""Signalling through the API: real offers, a real runtime behind a pod's address, a real operator."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from avatar_client import AvatarSession
from tests.api.conftest import MakeServer
from tests.runtime.launch import Running, call, offer, start_runtime, start_tts, tone
from tests.support.api import Json, until
from tests.support.operator import Operator
from tests.support.rest import Rest, RestServer
from tests.support.runtime import FakeRuntime, own_address, pods_at
from tests.support.tokens import SECRET, hs256
from tests.support.world import World

pytestmark = pytest.mark.cluster
MakePod = Callable[..., Awaitable[Running]]


@pytest.fixture(scope="module")
def tts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A TTS server."""
    one = start_tts(tmp_path_factory.mktemp("tts"))
    yield one
    one.stop()


@pytest.fixture
def make_pod(world: World, operator: Operator, tmp_path: Path, tts: Running) -> Iterator[MakePod]:
    """``await make_pod("--max_session", "3", sessions={…})``: the pool and avatar g, whose pod is a real runtime."""
    made: list[Running] = []

    async def make(*flags: str, **pool: Any) -> Running:
        host = own_address()
        one = await asyncio.to_thread(start_runtime, tmp_path, *flags, tts=tts.url, host=host, port=8615)
        made.append(one)
        await world.pool(runtime=pods_at(host), **pool)
        await world.avatar("g")
        return one

    yield make
    for one in made:
        one.stop()


async def only(world: World) -> Json:
    [status] = (await world.statuses()).values()
    return dict(status)


def ids(status: Json) -> list[str]:
    return [s["id"] for s in status.get("sessions", [])]


async def started(rest: Rest, world: World) -> str:
    """g runs, and nobody is counted; the instance's name."""
    assert (await rest.start("first", "g")).code == 200
    assert (await rest.disconnect(avatar_id="first")).data["disconnected"]
    [name] = await world.statuses()
    return name


async def sessions_of(runtime: Running) -> list[str]:
    _, found = await call("GET", f"{runtime.url}/api/admin/sessions")
    return [s["sessionid"] for s in found["data"]["sessions"]]


async def test_an_offer_connects_counts_and_ends_with_its_peer(
    world: World, make_pod: MakePod, rest: Rest, server: RestServer
) -> None:
    runtime = await make_pod()
    name = await started(rest, world)
    assert (await rest.post("/avatar/nobody/offer", await offer())).code == 404
    async with AvatarSession.connect(f"{server.url}/avatar/g") as session:
        status = await only(world)
        [record] = status["sessions"]
        assert (status["connections"], record["runtimeSessionId"]) == (1, session.sessionid)
        assert "expires" not in record
        assert await sessions_of(runtime) == [session.sessionid]
        await session.say("Good morning.")
        await session.wait_event("speaking", 20)
        assert await session.is_speaking()
        await session.interrupt()
        await session.wait_event("silent", 20)
        form = aiohttp.FormData({"sessionid": session.sessionid})
        form.add_field("file", tone(1.0), filename="voice.wav", content_type="audio/wav")
        assert (await rest.call("POST", "/avatar/g/humanaudio", data=form)).body == {"status": "success"}
        since = len(session.events)
        await session.wait_event("silent", 20, since=since)
        broken = aiohttp.FormData({"sessionid": session.sessionid})
        broken.add_field("file", b"no sound", filename="voice.wav")
        refused = await rest.call("POST", "/avatar/g/humanaudio", data=broken)
        assert (refused.code, "not a sound file" in refused.body["message"]) == (400, True)
        assert (await rest.post("/avatar/g/humanaudio", {"sessionid": session.sessionid})).code == 415
        # By the instance's name and by the session's id, too.
        for text in (name, record["id"]):
            spoken = await rest.post(f"/avatar/{text}/is_speaking", {"sessionid": session.sessionid})
            assert (spoken.code, spoken.body) == (200, {"status": "success", "data": False})
    after = await until("the end of the record", lambda: only(world), lambda s: not s.get("sessions"), timeout=30)
    assert after["connections"] == 0
    assert (await rest.get("/avatar/info/g")).data["running"]
    assert await server.metric("avatar_operator_api_peers_gone_total") == 1


async def test_what_is_answered_when_it_cannot_be(
    world: World, make_pod: MakePod, rest: Rest, server: RestServer
) -> None:
    await make_pod("--max_session", "2", sessions={"connectSeconds": 5})
    body = await offer()
    missing = await rest.post("/avatar/g/offer", body)
    assert (missing.code, "start it first" in missing.body["message"]) == (404, True)
    name = await started(rest, world)

    for nonsense in ({}, {"sdp": body["sdp"]}, {"sdp": 1, "type": "offer"}, {"sdp": body["sdp"], "type": "answer"}):
        assert (await rest.post("/avatar/g/offer", nonsense)).code == 400
    broken = await rest.post("/avatar/g/offer", {"sdp": "v=0\r\nm=audio x y z\r\n", "type": "offer"})
    assert (broken.code, "SDP" in broken.body["message"]) == (400, True)
    assert (await rest.post("/avatar/g/offer", {"sdp": "v=0" + "x" * 70_000, "type": "offer"})).code == 413
    assert (await only(world)).get("sessions", []) == []

    async with (
        AvatarSession.connect(f"{server.url}/avatar/g") as first,
        AvatarSession.connect(f"{server.url}/avatar/{name}"),
    ):
        full = await rest.post("/avatar/g/offer", body)
        assert (full.code, full.headers["Retry-After"]) == (409, "10")
        assert full.body["message"] == "the avatar is full: Maximum session limit reached (2/2)"
        assert len(ids(await only(world))) == 2

        base = f"/avatar/{name}"
        speaker = {"sessionid": first.sessionid}
        assert (await rest.post(f"{base}/human", {**speaker, "text": ""})).code == 400
        chat = await rest.post(f"{base}/human", {**speaker, "text": "Who are you?", "type": "chat"})
        assert (chat.code, "no language model" in chat.body["message"]) == (400, True)
        gone = await rest.post(f"{base}/interrupt_talk", {"sessionid": "11111111-2222"})
        assert (gone.code, "no session" in gone.body["message"]) == (404, True)
        assert (await rest.post("/avatar/nobody/is_speaking", speaker)).code == 404

    await world.patch_pod("avatar-8615", labels={"avatars.test/unready": "true"})
    await world.until(name, "not serving", lambda s: s.get("phase") != "Running")
    later = await rest.post("/avatar/g/offer", body)
    assert later.code == 503
    assert int(later.headers["Retry-After"]) > 0


async def test_a_runtime_that_cannot_be_reached(world: World, operator: Operator, rest: Rest) -> None:
    """Nothing is left of the session; and it is asked where the runtime is by now."""
    async with FakeRuntime() as fake:
        await world.pool(runtime=pods_at(fake.address))
        await world.avatar("g")
        await started(rest, world)
        body = await offer()
        no_such_route = await rest.post("/avatar/g/offer", body)
        assert (no_such_route.code, "no such route" in no_such_route.body["message"]) == (501, True)
        await fake.down()
        unreachable = await rest.post("/avatar/g/offer", body)
        assert (unreachable.code, "cannot be reached" in unreachable.body["message"]) == (502, True)
        assert (await only(world)).get("sessions", []) == []
        await fake.up()


async def test_a_page_that_is_loaded_again_is_one_session(
    world: World, make_pod: MakePod, rest: Rest, server: RestServer
) -> None:
    """Also where a start had counted it before: never twice, and the old peer is hung up at once."""
    runtime = await make_pod("--peer_timeout", "60")
    await rest.start("ann", "g")
    old = await call("POST", f"{server.url}/avatar/g/offer", {**await offer(), "avatar_id": "ann"})
    assert (await only(world))["connections"] == 1
    async with AvatarSession.connect(f"{server.url}/avatar/ann") as session:
        status = await only(world)
        assert (ids(status), status["connections"]) == (["ann"], 1)
        assert status["sessions"][0]["runtimeSessionId"] == session.sessionid != old[1]["sessionid"]
        assert await sessions_of(runtime) == [session.sessionid]
    await until("the end of the record", lambda: only(world), lambda s: not s.get("sessions"), timeout=30)


async def test_a_peer_that_never_comes_ends(world: World, make_pod: MakePod, rest: Rest, servers: MakeServer) -> None:
    """And it does not matter which replica took the offer: that one is dead."""
    runtime = await make_pod("--connect_timeout", "600", sessions={"connectSeconds": 3})
    await started(rest, world)
    first = await servers()
    code, answer = await call("POST", f"{first.url}/avatar/g/offer", await offer())
    assert code == 200
    first.kill()
    assert ids(await only(world)) == [answer["avatar_id"]]
    assert await sessions_of(runtime) == [answer["sessionid"]]
    # The runtime would wait for ten minutes; the pool says three seconds.
    await until("the end of the record", lambda: only(world), lambda s: not s.get("sessions"), timeout=40)
    assert await sessions_of(runtime) == []


async def test_whose_session_it_is(world: World, make_pod: MakePod, servers: MakeServer, tmp_path: Path) -> None:
    await make_pod()
    (tmp_path / "secret").write_text(SECRET)
    server = await servers(
        "--auth=jwt", f"--jwt-secret-file={tmp_path / 'secret'}", "--start-rate=6/3600", "--log-format=json"
    )
    async with (
        Rest(server.url, hs256("ann", "user")) as ann,
        Rest(server.url, hs256("bob", "user")) as bob,
        Rest(server.url, hs256("eve", "viewer")) as eve,
        Rest(server.url, hs256("root", "admin")) as root,
        Rest(server.url) as nobody,
    ):
        assert (await ann.start("ann-1", "g")).code == 200
        body = {**await offer(), "avatar_id": "ann-1"}
        assert (await eve.post("/avatar/g/offer", body)).code == 403
        assert (await nobody.post("/avatar/g/offer", body)).code == 401
        assert (await bob.post("/avatar/g/offer", body)).code == 403
        mine = await ann.post("/avatar/g/offer", body)
        assert (mine.code, mine.body["avatar_id"]) == (200, "ann-1")
        speaker = {"sessionid": mine.body["sessionid"]}
        for route in ("human", "interrupt_talk", "is_speaking"):
            told = {**speaker, "text": "Hello."} if route == "human" else speaker
            assert (await ann.post(f"/avatar/g/{route}", told)).code == 200
            assert (await root.post(f"/avatar/g/{route}", told)).code == 200
            assert (await bob.post(f"/avatar/g/{route}", told)).code == 403
            assert (await eve.post(f"/avatar/g/{route}", told)).code == 403
        assert (await bob.call("DELETE", "/avatar/g/whep/ann-1")).code == 403
        codes = [(await bob.post("/avatar/nobody/offer", await offer())).code for _ in range(7)]
        assert codes == [404] * 5 + [429] * 2
        # What somebody did by the instance's own port is no user's, but an administrator's to steer.
        direct = await call("POST", f"http://{(await _address(world))}:8615/offer", await offer())
        assert (await ann.post("/avatar/g/is_speaking", {"sessionid": direct[1]["sessionid"]})).code == 404
        assert (await root.post("/avatar/g/is_speaking", {"sessionid": direct[1]["sessionid"]})).code == 200
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    audit = {(x["subject"], x["message"], x["code"]) for x in lines if x["logger"] == "avatar_operator.audit"}
    assert {("ann", "offer", 200), ("bob", "offer", 403), ("root", "human", 200), ("bob", "whep-end", 403)} <= audit
    assert speaker["sessionid"] in {x.get("runtime_session") for x in lines}


async def _address(world: World) -> str:
    [pod] = await world.pods()
    return str(pod["status"]["podIP"])


async def test_a_player_that_speaks_whep_alone(
    world: World, make_pod: MakePod, rest: Rest, servers: MakeServer
) -> None:
    """POST, media, DELETE; CORS with its headers; no trickle."""
    turn = [{"urls": ["stun:stun.test:3478"]}, {"urls": ["turn:turn.test:3478"], "username": 'a"b', "credential": "c"}]
    runtime = await make_pod(network={"iceServers": turn})
    await started(rest, world)
    page = {"Origin": "https://player.test"}
    server = await servers("--auth=none", "--cors-origin=https://player.test")
    url = f"{server.url}/avatar/g/whep"
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    frames: asyncio.Queue[Any] = asyncio.Queue()

    @peer.on("track")
    def _(track: Any) -> None:
        async def read() -> None:
            frames.put_nowait(await track.recv())

        frames.put_nowait(asyncio.ensure_future(read()))

    async with aiohttp.ClientSession(headers=page) as http:
        async with http.options(url, headers={"Access-Control-Request-Method": "DELETE"}) as answer:
            assert answer.status == 204
            assert "DELETE" in answer.headers["Access-Control-Allow-Methods"]
        async with aiohttp.ClientSession() as plain, plain.options(url) as answer:
            assert (answer.status, answer.headers["Accept-Post"]) == (204, "application/sdp")
        for kind, sdp, code in (
            ("application/json", "{}", 415),
            ("application/sdp", "nonsense", 400),
            ("application/sdp", "", 400),
        ):
            async with http.post(url, data=sdp.encode(), headers={"Content-Type": kind}) as answer:
                assert answer.status == code, await answer.text()
        peer.addTransceiver("video", direction="recvonly")
        peer.addTransceiver("audio", direction="recvonly")
        await peer.setLocalDescription(await peer.createOffer())
        sdp = {"Content-Type": "application/sdp"}
        async with http.post(url, data=peer.localDescription.sdp.encode(), headers=sdp) as answer:
            assert (answer.status, answer.content_type) == (201, "application/sdp")
            where = answer.headers["Location"]
            assert answer.headers.getall("Link") == [
                '<stun:stun.test:3478>; rel="ice-server"',
                '<turn:turn.test:3478>; rel="ice-server"; username="a\\"b"; credential="c"; credential-type="password"',
            ]
            assert "Location" in answer.headers["Access-Control-Expose-Headers"]
            assert "Link" in answer.headers["Access-Control-Expose-Headers"]
            text = await answer.text()
            assert text.count("a=end-of-candidates") == text.count("m=") == 2
            await peer.setRemoteDescription(RTCSessionDescription(text, "answer"))
        try:
            seen = 0
            async with asyncio.timeout(30):
                while seen < 2:
                    seen += not isinstance(await frames.get(), asyncio.Future)
            assert len(ids(await only(world))) == 1
            for _ in range(1):
                async with http.patch(server.url + where, data=b"", headers=sdp) as answer:
                    assert (answer.status, "DELETE" in answer.headers["Allow"]) == (405, True)
            async with http.delete(server.url + where) as answer:
                assert answer.status == 200
            assert ids(await only(world)) == []
            assert await sessions_of(runtime) == []
            async with http.delete(server.url + where) as answer:
                assert answer.status == 404
        finally:
            await peer.close()


async def test_a_lease_keeps_a_session_whose_peer_is_gone(world: World, make_pod: MakePod, rest: Rest) -> None:
    """Its client says when it ends."""
    await make_pod()
    assert (await rest.start("leased", "g", ttl_seconds=600)).code == 200
    async with AvatarSession.connect(f"{rest.url}/avatar/leased"):
        [record] = (await only(world))["sessions"]
        assert record["ttlSeconds"] == 600
        assert record["runtimeSessionId"]
        assert "expires" in record
    status = await until(
        "the peer being forgotten",
        lambda: only(world),
        lambda s: not s["sessions"][0].get("runtimeSessionId"),
        timeout=30,
    )
    assert (ids(status), status["connections"]) == (["leased"], 1)


VIEWERS = 20


async def test_twenty_viewers_and_no_more(world: World, make_pod: MakePod, rest: Rest, server: RestServer) -> None:
    """Each sees moving pictures; the next one is refused, through the API and by the instance's own port."""
    runtime = await make_pod("--max_session", str(VIEWERS))
    await started(rest, world)
    url = f"{server.url}/avatar/g"
    async with contextlib.AsyncExitStack() as stack:
        peers = [AvatarSession.connect(url, timeout=120, limit=4) for _ in range(VIEWERS)]
        viewers = list(await asyncio.gather(*(stack.enter_async_context(peer) for peer in peers)))
        status = await only(world)
        assert status["connections"] == VIEWERS
        assert {s["runtimeSessionId"] for s in status["sessions"]} == {v.sessionid for v in viewers}
        body = await offer()
        refused = await rest.post("/avatar/g/offer", body)
        assert (refused.code, refused.body["message"]) == (
            409,
            f"the avatar is full: Maximum session limit reached ({VIEWERS}/{VIEWERS})",
        )
        direct = await call("POST", f"{runtime.url}/offer", body)
        assert direct == (200, {"code": -1, "msg": f"Maximum session limit reached ({VIEWERS}/{VIEWERS})"})

        async def moving() -> int:
            shown = [v.recording.pictures for v in viewers]
            return sum(any((p.luma != of[0].luma).any() for p in of[1:]) for of in shown)

        await until("pictures that move for all of them", moving, lambda count: count == VIEWERS, timeout=60)
        print("first pictures after", sorted(round(v.first_frame, 2) for v in viewers))
    await until("the end of the records", lambda: only(world), lambda s: not s.get("sessions"), timeout=60)
