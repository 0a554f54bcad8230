"""What a server that the internet reaches must stand: each answered as it should be, with memory bounded."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.api.conftest import MakeServer
from tests.conftest import Cluster, RunKubectl
from tests.support.api import Api, until
from tests.support.operator import Operator
from tests.support.rest import Rest, RestServer
from tests.support.tokens import SECRET, Issuer, hs256, unsigned
from tests.support.world import World

pytestmark = pytest.mark.cluster
MUTATIONS = ["/avatar/start", "/avatar/disconnect", "/avatar/heartbeat", "/avatar/stop", "/avatar/restart"]
ASK = {"avatar_id": "x", "avatar_name": "g"}
ORIGIN = "https://console.test"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(
    cluster: Cluster, shared_operator: Operator, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[World, RestServer]]:
    """A namespace with the avatar g, and a server with a shared secret."""
    async with Api(cluster.kubeconfig) as api:
        namespace = f"t-attacks-{shared_operator.port}"
        await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        world = World(api, namespace)
        await world.pool()
        await world.avatar("g")
        folder = tmp_path_factory.mktemp("api")
        secret = folder / "secret"
        secret.write_text(SECRET)
        options = (
            "--auth=jwt",
            f"--jwt-secret-file={secret}",
            "--audience=avatars",
            "--start-rate=20/60",
            f"--cors-origin={ORIGIN}",
            "--log-format=json",
        )
        server = RestServer(cluster.kubeconfig, namespace, folder / "api.log", options)
        await shared_operator.until_ready()
        try:
            await server.start()
            yield world, server
        finally:
            server.stop()
            await api.delete("namespaces", "", namespace)


def token(subject: str | None = "ann", role: str | None = "user", **claims: Any) -> str:
    return hs256(subject, role, **{"aud": "avatars", **claims})


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


# ---- who ------------------------------------------------------------------------------

TOKENS: dict[str, str | None] = {
    "none": None,
    "empty": "",
    "garbage": "garbage",
    "three empty parts": "..",
    "expired": token(exp=int(time.time()) - 120),
    "not yet valid": token(nbf=int(time.time()) + 600),
    "without an end": token(exp=None),
    "without a subject": token(subject=None),
    "of another issuer's secret": token(secret="another secret, which is thirty-two bytes long"),
    "for another audience": token(aud="something else"),
    "without an audience": token(aud=None),
    "alg none": unsigned(),
    "alg NONE": unsigned(algorithm="NONE"),
    "a subject with a line break": token(subject="ann\nrole=admin"),
    "a subject that is no text": token(subject=["ann"]),  # type: ignore[arg-type]
    "too long": "a" * 9000,
    "cut": token()[:-4],
}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("kind", TOKENS)
async def test_tokens_that_are_none(place: tuple[World, RestServer], kind: str) -> None:
    text = TOKENS[kind]
    async with Rest(place[1].url) as rest:
        headers = {} if text is None else bearer(text)
        for verb, path in (("POST", "/avatar/start"), ("GET", "/avatar/list"), ("POST", "/avatar/stop-all")):
            answer = await rest.call(verb, path, ASK if verb == "POST" else None, headers=headers)
            assert answer.code == 401, answer
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.asyncio(loop_scope="module")
async def test_roles(place: tuple[World, RestServer]) -> None:
    async with Rest(place[1].url) as rest:
        for path in MUTATIONS:
            answer = await rest.post(path, ASK, headers=bearer(token(role="viewer")))
            assert (path, answer.code) == (path, 403)
            # Whoever brings no role, or one that nobody knows, may look.
            for role in (None, "root", "Admin "):
                assert (await rest.post(path, ASK, headers=bearer(token(role=role)))).code == 403
        assert (await rest.get("/avatar/list", headers=bearer(token(role=None)))).code == 200
        for path in ("/avatar/stop", "/avatar/restart", "/avatar/stop-all"):
            assert (await rest.post(path, {"avatar_id": "g"}, headers=bearer(token()))).code == 403
        for path in ("/health", "/openapi.json"):
            async with rest.session.get(rest.url + path) as answer:
                assert answer.status == 200


@pytest.mark.asyncio(loop_scope="module")
async def test_another_users_session(place: tuple[World, RestServer]) -> None:
    ann, bob, admin = bearer(token("ann")), bearer(token("bob")), bearer(token("backend", "admin"))
    async with Rest(place[1].url) as rest:
        mine = {"avatar_id": "of-ann", "avatar_name": "g"}
        assert (await rest.post("/avatar/start", mine, headers=ann)).code == 200
        for path in ("/avatar/start", "/avatar/disconnect", "/avatar/heartbeat"):
            answer = await rest.post(path, {"avatar_id": "of-ann"} if "beat" in path else mine, headers=bob)
            assert (path, answer.code) == (path, 403)
        async with rest.session.get(f"{rest.url}/avatar/events/of-ann", headers=bob) as answer:
            assert answer.status == 403
        # By the avatar's name alone: of bob's own he has none.
        answer = await rest.post("/avatar/disconnect", {"avatar_name": "g"}, headers=bob)
        assert (answer.data["disconnected"], answer.data["connections"]) == (False, 1)
        assert (await rest.get("/avatar/info/g", headers=bob)).data["sessions"] == []
        assert [s["avatar_id"] for s in (await rest.get("/avatar/info/g", headers=ann)).data["sessions"]] == ["of-ann"]
        assert (await rest.post("/avatar/disconnect", mine, headers=admin)).data["disconnected"] is True
        assert (await rest.post("/avatar/start", mine, headers=bob)).code == 200
        assert (await rest.post("/avatar/disconnect", mine, headers=bob)).code == 200


# ---- bodies ---------------------------------------------------------------------------

BODIES: dict[str, tuple[bytes, int]] = {
    "nothing": (b"", 400),
    "not JSON": (b"{", 400),
    "a list": (b"[]", 400),
    "not UTF-8": (b'{"avatar_id": "\xff"}', 400),
    "deep lists": (b"[" * 20000, 400),
    "deep in an unknown field": (b'{"avatar_id":"x","y":' + b"[" * 20000 + b"]" * 20000 + b"}", 400),
    "deep objects": (b'{"a":' * 8000 + b"1" + b"}" * 8000, 400),
    "too large": (b'{"avatar_id":"' + b"x" * 70000 + b'"}', 413),
    "a number for a name": (b'{"avatar_id": 7}', 400),
    "a huge number": (b'{"avatar_id":"x","ttl_seconds":1' + b"0" * 400 + b"}", 400),
    "not a number": (b'{"avatar_id":"x","wait_seconds":NaN}', 400),
    "an id too long": (json.dumps({"avatar_id": "x" * 129}).encode(), 400),
    "an id with a line break": (json.dumps({"avatar_id": "x\ny"}).encode(), 400),
    "an id with a line break at its end": (json.dumps({"avatar_id": "x\n"}).encode(), 400),
    "an id with a null": (json.dumps({"avatar_id": "x\0"}).encode(), 400),
    "an id with an escape sequence": (json.dumps({"avatar_id": "\x1b[31mx"}).encode(), 400),
    "a path for a name": (json.dumps({"avatar_id": "x", "avatar_name": "../../etc"}).encode(), 400),
    "dots for a name": (json.dumps({"avatar_id": "x", "avatar_name": ".."}).encode(), 400),
    "an option for a name": (json.dumps({"avatar_id": "x", "avatar_name": "--model"}).encode(), 400),
    "a path for a pool": (json.dumps({"avatar_id": "x", "avatar_name": "g", "pool": "../pods"}).encode(), 400),
    "no lease": (json.dumps({"avatar_id": "x", "avatar_name": "g", "ttl_seconds": 0}).encode(), 400),
}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("kind", BODIES)
async def test_bodies(place: tuple[World, RestServer], kind: str) -> None:
    body, code = BODIES[kind]
    headers = {**bearer(token("backend", "admin")), "Content-Type": "application/json"}
    async with Rest(place[1].url) as rest:
        answer = await rest.call("POST", "/avatar/start", data=body, headers=headers)
        assert answer.code == code, answer
        assert len(answer.body["message"]) < 400


@pytest.mark.asyncio(loop_scope="module")
async def test_bodies_by_other_ways(place: tuple[World, RestServer]) -> None:
    admin = bearer(token("backend", "admin"))

    head = f"POST /avatar/start HTTP/1.1\r\nHost: x\r\nAuthorization: {admin['Authorization']}\r\n"
    chunks = (b"2000\r\n" + b" " * 0x2000 + b"\r\n") * 9
    assert b" 413 " in await raw_answer(place[1], head.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
    async with Rest(place[1].url) as rest:
        kind = {"Content-Type": "application/json"}
        for other in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
            answer = await rest.call(
                "POST", "/avatar/start", data=json.dumps(ASK).encode(), headers=admin | {"Content-Type": other}
            )
            assert answer.code == 415
        # Who may not come in is not read at all.
        answer = await rest.call("POST", "/avatar/start", data=b"x" * 60000, headers=kind)
        assert answer.code == 401


# ---- headers, paths, origins ------------------------------------------------------------


@pytest.mark.asyncio(loop_scope="module")
async def test_ids_and_logs_cannot_be_forged(place: tuple[World, RestServer]) -> None:
    _, server = place
    user = bearer(token("mallory \u00e9"))
    async with Rest(server.url) as rest:
        known = user | {"X-Request-ID": "good-1.2_3"}
        kept = await rest.post("/avatar/disconnect", {"avatar_name": "g"}, headers=known)
        assert kept.headers["X-Request-ID"] == "good-1.2_3"
        for bad in ("x" * 65, 'a" level="error', "a b", "é", "{}"):
            answer = await rest.get("/avatar/list", headers=user | {"X-Request-ID": bad})
            assert answer.headers["X-Request-ID"] != bad
            assert len(answer.headers["X-Request-ID"]) == 32
        answer = await rest.post("/avatar/start", {"avatar_name": "g"}, headers=user | {"Idempotency-Key": "\u00e9"})
        assert answer.code == 400
    raw = b"POST /avatar/start HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nX-Request-ID: a\x00b\r\n\r\n"
    assert b" 400 " in await raw_answer(server, raw)
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    audit = [line for line in lines if line["logger"] == "avatar_operator.audit"]
    assert {"request_id", "subject", "role", "address", "code", "message"} <= set(audit[-1])
    assert any(line["request_id"] == "good-1.2_3" and line["message"] == "disconnect" for line in audit)


@pytest.mark.asyncio(loop_scope="module")
async def test_no_secret_gets_into_the_log(place: tuple[World, RestServer]) -> None:
    _, server = place
    good = token("careful")
    async with Rest(server.url) as rest:
        await rest.post("/avatar/start", ASK, headers=bearer(good))
        await rest.post("/avatar/start", ASK, headers=bearer(good[:-3]))
        await rest.get(f"/avatar/list?access_token={good}", headers=bearer(good))
    log = server.log.read_text()
    assert good not in log
    assert good[:-3] not in log
    assert SECRET not in log


async def raw_answer(server: RestServer, data: bytes, timeout: float = 10) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(data)
    answer = b""
    try:
        async with asyncio.timeout(timeout):
            while chunk := await reader.read(4096):
                answer += chunk
                if b"\r\n\r\n" in answer and b"connection: close" not in data.lower():
                    break
    except ConnectionError:
        pass
    finally:
        writer.close()
    return answer


PATHS = [
    "/avatar/info/..%2f..%2fetc%2fpasswd",
    "/avatar/info/../../status",
    "/avatar/info/%2e%2e",
    "/avatar/info/%00",
    "/avatar/info/",
    "//avatar/list",
    "/avatar/list/",
    "/avatar/info/" + "x" * 3000,
    "/avatar/events/%0d%0aSet-Cookie:x",
    "/avatar/info/%ff%fe",
    "/AVATAR/LIST",
    "/docs",
    "/metrics",
    "/.env",
]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("path", PATHS)
async def test_paths(place: tuple[World, RestServer], path: str) -> None:
    head = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token()}\r\n\r\n"
    answer = await raw_answer(place[1], head.encode())
    status, _, rest = answer.partition(b"\r\n")
    assert status.startswith(b"HTTP/1.1 404"), answer
    assert b"set-cookie" not in rest.partition(b"\r\n\r\n")[0].lower()
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] == "error"


@pytest.mark.asyncio(loop_scope="module")
async def test_methods(place: tuple[World, RestServer]) -> None:
    async with Rest(place[1].url) as rest:
        for verb in ("PUT", "DELETE", "PATCH", "GET"):
            answer = await rest.call(verb, "/avatar/start", headers=bearer(token()))
            assert answer.code == 405
            assert answer.headers["Allow"] == "POST"


@pytest.mark.asyncio(loop_scope="module")
async def test_origins(place: tuple[World, RestServer]) -> None:
    _, server = place
    user = bearer(token("origin"))
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    async with Rest(server.url) as rest:
        for foreign in ("https://evil.test", "null", f"{ORIGIN}.evil.test", ORIGIN.replace("https", "http")):
            origin = {"Origin": foreign}
            assert (await rest.call("OPTIONS", "/avatar/start", headers=ask | origin)).code == 403
            answer = await rest.post("/avatar/disconnect", {"avatar_name": "g"}, headers=user | origin)
            assert answer.code == 403
            answer = await rest.get("/avatar/list", headers=user | origin)
            assert "Access-Control-Allow-Origin" not in answer.headers
        answer = await rest.call("OPTIONS", "/avatar/start", headers=ask | {"Origin": ORIGIN})
        assert (answer.code, answer.headers["Access-Control-Allow-Origin"]) == (204, ORIGIN)
        assert answer.headers["Access-Control-Allow-Headers"] == "authorization,content-type"
        answer = await rest.post("/avatar/disconnect", {"avatar_name": "g"}, headers=user | {"Origin": ORIGIN})
        assert (answer.code, answer.headers["Access-Control-Allow-Origin"]) == (200, ORIGIN)
        assert "Access-Control-Allow-Credentials" not in answer.headers


# ---- floods ---------------------------------------------------------------------------


@pytest.mark.asyncio(loop_scope="module")
async def test_a_user_who_starts_too_often(place: tuple[World, RestServer]) -> None:
    if (left := 60 - time.time() % 60) < 20:
        # At a window's border some are let in again.
        await asyncio.sleep(left + 0.1)
    async with Rest(place[1].url) as rest:
        ask = {"avatar_id": "flood", "avatar_name": "g"}
        answers = [await rest.post("/avatar/start", ask, headers=bearer(token("flooder"))) for _ in range(25)]
        assert Counter(a.code for a in answers) == {200: 20, 429: 5}
        # The rest of this window, and as much of the next as it takes for one of the twenty to fall out of sight.
        assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60 + 60 / 20 + 1
        # Others are not hurt, and neither is a backend.
        other = {"avatar_id": "other", "avatar_name": "g"}
        assert (await rest.post("/avatar/start", other, headers=bearer(token("quiet")))).code == 200
        backend = bearer(token("backend", "admin"))
        assert {(await rest.post("/avatar/start", ASK, headers=backend)).code for _ in range(25)} == {200}


@pytest.mark.asyncio(loop_scope="module")
async def test_a_flood_leaves_memory_bounded(place: tuple[World, RestServer]) -> None:
    """Guessed tokens, half heads, endless heads, slow bodies: the server goes on, and does not grow."""
    _, server = place
    async with Rest(server.url) as rest:
        before = server.rss_mib()
        codes: Counter[int] = Counter()
        for batch in range(20):
            guesses = [bearer(f"{batch}.{n}." + "x" * 2000) for n in range(100)]
            answers = await asyncio.gather(*(rest.post("/avatar/start", ASK, headers=h) for h in guesses))
            codes.update(a.code for a in answers)
        assert set(codes) == {401, 429}
        assert codes[429] > 1500
        writers = []
        for n in range(300):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            kinds = [
                b"GET /health HTTP/1.1\r\nX-Slow: ",
                b"POST /avatar/start HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n{",
                b"GET /" + b"x" * 20000,
            ]
            writer.write(kinds[n % 3])
            writers.append(writer)
        endless = b"GET /health HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 40000
        assert b" 431 " in await raw_answer(server, endless)
        many = b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"X-Many: x\r\n" * 4000
        assert b" 431 " in await raw_answer(server, many)
        assert (await rest.get("/health")).code == 200
        await until("room", lambda: asyncio.sleep(0, server.rss_mib() - before), lambda grown: grown < 60, timeout=5)
        for writer in writers:
            writer.close()


# ---- other ways to come in --------------------------------------------------------------


async def test_keys_by_address(world: World, servers: MakeServer) -> None:
    """RS256 and ES256, rotation, an outage of the provider; HS256 with the public key is nothing."""
    await world.pool()
    async with Issuer() as issuer:
        server = await servers("--auth=jwt", f"--jwks-url={issuer.url}")
        async with Rest(server.url) as rest:

            async def look(text: str) -> int:
                return (await rest.get("/avatar/list", headers=bearer(text))).code

            assert await look(issuer.token("RS256")) == 200
            assert await look(issuer.token("ES256")) == 200
            assert await look(hs256()) == 401
            assert await look(unsigned()) == 401
            forged = Issuer()
            forged.rsa = (issuer.rsa[0], forged.rsa[1])
            assert await look(forged.token("RS256")) == 401
            asked = issuer.asked
            assert [await look(Issuer().token("ES256")) for _ in range(20)] == [401] * 20
            assert issuer.asked - asked <= 1, "unknown keys must not become a load on the provider"
            old = issuer.token("RS256", subject="old")
            issuer.rotate()
            await until("the new keys", lambda: look(issuer.token("RS256")), lambda c: c == 200, timeout=25, interval=1)
            assert await look(old) == 401
            issuer.broken = True
            assert await look(issuer.token("ES256", subject="other")) == 200


async def test_kubernetes_tokens(world: World, servers: MakeServer, kubectl: RunKubectl) -> None:
    await world.pool()
    for name in ("backend", "stranger"):
        await world.api.create("serviceaccounts", world.namespace, {"metadata": {"name": name}})
    account = f"system:serviceaccount:{world.namespace}:backend"
    server = await servers("--auth=tokenreview", f"--role={account}=admin", "--audience=avatars")

    def make(name: str, audience: str) -> str:
        return kubectl(
            "create", "token", name, "-n", world.namespace, f"--audience={audience}", check=True
        ).stdout.strip()

    async with Rest(server.url) as rest:

        async def stop(text: str) -> int:
            return (await rest.post("/avatar/stop-all", headers=bearer(text))).code

        assert await stop(make("backend", "avatars")) == 200
        assert await stop(make("stranger", "avatars")) == 403
        assert await stop(make("backend", "other")) == 401
        assert await stop("nonsense") == 401


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--auth=none", "--listen=0.0.0.0:0"), "--auth none lets everybody do everything"),
        (("--auth=none", "--listen=:0"), "--auth none lets everybody do everything"),
        (("--auth=jwt",), "needs one of --jwt-secret-file and --jwks-url"),
        (("--auth=jwt", "--jwks-url=http://keys.test/"), "keys come by https only"),
        (("--auth=jwt", "--jwt-secret-file=/nonexistent"), "/nonexistent"),
        (("--auth=tokenreview", "--jwks-url=https://keys.test/"), "go with --auth jwt only"),
        (("--auth=none", "--tls-key=/x"), "are needed both"),
        (("--auth=jwt", "--role=boss=king"), "--role boss=king"),
        (("--auth=none", "--start-rate=often"), "often"),
        ((), "--auth"),
    ],
)
def test_options_that_are_unsafe(cluster: Cluster, tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    server = RestServer(cluster.kubeconfig, "default", tmp_path / "log", options)
    server.launch()
    assert server.process is not None
    assert server.process.wait(60) == 2
    assert words in " ".join(server.tail().split())


async def test_only_this_machine_without_authentication(world: World, servers: MakeServer) -> None:
    await world.pool()
    server = await servers()
    async with Rest(server.url) as rest:
        for host in ("evil.test", "evil.test:8607", "169.254.169.254", "localhost.evil.test", ""):
            assert (await rest.get("/avatar/list", headers={"Host": host})).code == 403
        for host in ("localhost:8607", "127.0.0.1", "[::1]:8607"):
            assert (await rest.get("/avatar/list", headers={"Host": host})).code == 200
        for origin in ("https://evil.test", "null"):
            answer = await rest.post("/avatar/stop-all", headers={"Origin": origin})
            assert answer.code == 403


async def test_tls_is_renewed(world: World, servers: MakeServer, tmp_path: Path) -> None:
    await world.pool()
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"

    def issue(name: str) -> None:
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        command += ["-days", "1", "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
        subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)

    async def seen() -> str:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        _, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        command = ["openssl", "x509", "-noout", "-subject"]
        text = ssl.DER_cert_to_PEM_cert(der)
        return subprocess.run(command, input=text, text=True, capture_output=True, check=True).stdout

    issue("first")
    server = await servers("--auth=none", f"--tls-certificate={certificate}", f"--tls-key={key}")
    assert "first" in await seen()
    key.write_text("half of a pair")
    issue("second")
    await until("the new certificate", seen, lambda text: "second" in text, timeout=30, interval=1)
