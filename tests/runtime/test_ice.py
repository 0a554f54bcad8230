"""STUN and TURN servers apart from the offer: a silent one costs half a second once, and is left out."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from aioice import stun
from aiortc import RTCConfiguration, RTCPeerConnection

from avatar_operator.domain.sdp import rewritten
from avatar_runtime import ice
from avatar_runtime.addresses import MediaHost, told
from avatar_runtime.config import IceServer, parse
from avatar_runtime.errors import ConfigError
from avatar_runtime.ice import IceServers
from tests.runtime.conftest import MakeRuntime
from tests.runtime.launch import call, offer


class _Answering(asyncio.DatagramProtocol):
    asked = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.asked += 1
        request = stun.parse_message(data)
        answer = stun.Message(request.message_method, stun.Class.RESPONSE, request.transaction_id)
        answer.attributes["XOR-MAPPED-ADDRESS"] = addr
        self.transport.sendto(bytes(answer), addr)


@asynccontextmanager
async def server() -> AsyncIterator[tuple[str, _Answering]]:
    """A STUN server's host:port, and what it was asked."""
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
        _Answering, local_addr=("127.0.0.1", 0)
    )
    try:
        yield f"127.0.0.1:{transport.get_extra_info('sockname')[1]}", protocol
    finally:
        transport.close()


@pytest.fixture
def silent() -> object:
    """host:port of a socket that answers nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{sink.getsockname()[1]}"


async def test_the_first_of_each_kind_that_answers(silent: str) -> None:
    async with server() as (good, _), server() as (other, _):
        servers = IceServers((
            IceServer((f"stun:{silent}", f"stun:{good}", f"stun:{other}")),
            IceServer((f"turn:{other}?transport=udp",), "user", "word"),
            IceServer(("stuns:127.0.0.1:9", "nonsense:1", "stun:[::1]:9")),
        ))  # fmt: skip
        assert await servers.usable() == [
            IceServer((f"stun:{good}",)),
            IceServer((f"turn:{other}?transport=udp",), "user", "word"),
        ]
        await servers.close()


async def test_what_is_known_is_not_asked_again() -> None:
    async with server() as (good, asked):
        servers = IceServers((IceServer((f"stun:{good}",)),))
        await asyncio.gather(*(servers.usable() for _ in range(5)))
        await servers.usable()
        assert asked.asked == 1
        await servers.close()


async def test_a_silent_server_is_not_waited_for_twice(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    servers = IceServers((IceServer((f"stun:{silent}",)),))
    assert await servers.usable() == []
    # It is asked again after a while; no offer waits for that.
    monkeypatch.setattr(servers._servers[0], "until", 0.0)
    monkeypatch.setattr(ice, "CHECK", 600.0)
    async with asyncio.timeout(10):
        assert await servers.usable() == []
    assert servers._servers[0].check is not None
    assert not servers._servers[0].check.done()
    await servers.close()


async def test_an_offer_does_not_wait_for_a_silent_server(make_runtime: MakeRuntime, silent: str) -> None:
    runtime = make_runtime("--stun", f"stun:{silent}")
    began = time.monotonic()
    for _ in range(3):
        status, answer = await call("POST", f"{runtime.url}/offer", await offer())
        assert (status, "srflx" in answer["sdp"]) == (200, False)
    # The ICE agent itself would take 5 s each time.
    assert time.monotonic() - began < 15
    assert runtime.text().count("does not answer") == 1


async def test_credentials_are_made_from_the_secret_as_it_is_now(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    async with server() as (good, _):
        servers = IceServers((IceServer((f"turn:{good}",)),), file)
        [without] = await servers.usable()
        assert (without.username, without.credential) == ("", "")
        for secret in (b"one", b"another"):
            file.write_bytes(secret + b"\n")
            [found] = await servers.usable()
            wanted = base64.b64encode(hmac.new(secret, found.username.encode(), hashlib.sha1).digest()).decode()
            assert found.credential == wanted
            assert int(found.username.split(":")[0]) > time.time() + 80000
        await servers.close()


@pytest.mark.parametrize("addresses", [["203.0.113.5"], ["203.0.113.5", "2001:db8::5"], []])
async def test_runtime_and_operator_rewrite_alike(addresses: list[str]) -> None:
    pc = RTCPeerConnection(RTCConfiguration([]))
    try:
        pc.addTransceiver("audio")
        pc.addTransceiver("video")
        await pc.setLocalDescription(await pc.createOffer())
        sdp = pc.localDescription.sdp
    finally:
        await pc.close()
    assert "typ host" in sdp
    assert told(sdp, [ip_address(a) for a in addresses]) == rewritten(sdp, addresses)


async def test_a_name_is_looked_up_and_its_last_addresses_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    host = MediaHost(["localhost"])
    assert ip_address("127.0.0.1") in await host.addresses()
    known = await host.addresses()
    monkeypatch.setattr(host, "_until", 0.0)
    monkeypatch.setattr(host, "_hosts", ("nowhere.invalid",))
    assert await host.addresses() == known
    assert await MediaHost(["203.0.113.5", "2001:db8::5"]).addresses() == [
        ip_address("203.0.113.5"),
        ip_address("2001:db8::5"),
    ]


def test_the_environment() -> None:
    env = {
        "AVATAR_ICE_SERVERS": '[{"urls": ["turn:t"], "username": "u", "credential": "c"}]',
        "AVATAR_MEDIA_HOST": "192.0.2.7, 2001:db8::7",
        "AVATAR_ICE_USE": "probe",
        "AVATAR_TURN_SECRET_FILE": "/run/secret",
    }
    media = parse(["--avatar_id", "ada", "--stun", "stun:s"], env).media
    assert media.ice_servers == (IceServer(("stun:s",)), IceServer(("turn:t",), "u", "c"))
    assert (media.hosts, media.use) == (("192.0.2.7", "2001:db8::7"), "probe")
    assert media.secret_file == Path("/run/secret")


@pytest.mark.parametrize(
    ("name", "value"), [("AVATAR_ICE_SERVERS", "{"), ("AVATAR_ICE_SERVERS", '["stun:s"]'), ("AVATAR_ICE_USE", "some")]
)
def test_a_wrong_environment_names_the_variable(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        parse(["--avatar_id", "ada"], {name: value})
