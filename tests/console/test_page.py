"""The page around the avatars: what roles see, what happens when the stream breaks, keys, files."""

from __future__ import annotations

import gzip
from pathlib import Path

import aiohttp
import pytest

from avatar_operator.api.console import POLICY, Bundle
from tests.api.conftest import MakeServer
from tests.console.conftest import MakePod
from tests.console.test_talk import sign_in
from tests.support.browser import Page
from tests.support.operator import Operator
from tests.support.rest import RestServer
from tests.support.tokens import hs256
from tests.support.world import World

pytestmark = pytest.mark.cluster
GZIP_MOST = 300_000


async def test_who_may_not_is_told_why(
    world: World, operator: Operator, make_pod: MakePod, server: RestServer, page: Page
) -> None:
    await make_pod()
    await world.instance("one")
    await world.phase("one", "Running")
    await page.open(f"{server.url}/console")
    await page.text("Sign in with a token")
    for token, told in (
        (hs256("eve", "admin", secret="another secret, which is thirty-two bytes long"), "not valid"),
        (hs256("eve", exp=1), "run out"),
    ):
        await page.focus("#token")
        await page.js("document.querySelector('#token').select()")
        await page.type(token)
        await page.click("Sign in")
        await page.until(f"document.querySelector('#token-told').innerText.toLowerCase().includes('{told}')")
    page.complaints.clear()

    await sign_in(page, server, hs256("vic", "viewer"))
    await page.text("Needs the role user; yours is viewer".replace("Needs", "needs"))
    start = "[...document.querySelectorAll('button')].find(b => b.innerText === 'Start avatar')"
    assert await page.js(f"({start}).disabled")
    assert not await page.js("document.querySelector('.acts')")
    await page.click("ada", "a")
    await page.text("Stop and restart: needs the role admin; yours is viewer")
    await page.until("document.querySelector('.curtain button').disabled")

    await page.click("Sign out")
    await page.text("Sign in with a token")
    assert await page.js("sessionStorage.getItem('avatar-console-token')") is None
    await sign_in(page, server, hs256("uma", "user"))
    assert await page.js(
        "[...document.querySelectorAll('button')].some(b => b.innerText === 'Start avatar' && !b.disabled)"
    )
    # The token lives as long as the tab, and nowhere else.
    assert await page.js("Object.keys(localStorage).length") == 0
    await page.open(f"{server.url}/console/?again")
    await page.text("Live")
    assert page.complaints == []


async def test_a_broken_stream_leaves_what_was_known_and_says_so(
    world: World, operator: Operator, make_pod: MakePod, server: RestServer, page: Page
) -> None:
    await make_pod()
    await world.instance("one")
    await world.phase("one", "Running")
    await sign_in(page, server, hs256("ann", "admin"))
    await page.text("ada")
    await world.connections("one", 3)
    await page.until("[...document.querySelectorAll('td')].some(cell => /^3 \\/ /.test(cell.innerText))")
    server.kill()
    await page.text("Out of date", 60)
    assert "ada" in await page.js("document.querySelector('table').innerText")
    await world.connections("one", 4)
    await server.start()
    await page.until("[...document.querySelectorAll('td')].some(cell => /^4 \\/ /.test(cell.innerText))", 60)
    await page.text("Live")
    assert not await page.js("document.querySelector('.banner')")


async def test_everything_can_be_done_by_keys(
    world: World, operator: Operator, make_pod: MakePod, server: RestServer, page: Page
) -> None:
    await make_pod()
    await world.instance("one")
    await world.phase("one", "Running")
    await world.connections("one", 2)
    await sign_in(page, server, hs256("ann", "admin"))
    await page.text("one")
    await page.js("document.activeElement.blur()")
    await page.key("Tab", 9)
    assert await page.js("document.activeElement.innerText") == "Skip to content"
    await page.key("Enter", 13, "\r")
    assert await page.js("document.activeElement.tagName") == "H1"
    stop = "[...document.querySelectorAll('.acts button')].find(b => b.innerText.startsWith('Stop'))"
    await page.until(f"({stop})?.focus() ?? !!({stop})")
    await page.key("Enter", 13, "\r")
    await page.text("2 people are connected and will be cut off.")
    for _ in range(8):
        await page.key("Tab", 9)
        assert await page.js("!!document.activeElement.closest('dialog') || document.activeElement === document.body")
    await page.key("Escape", 27)
    await page.until("!document.querySelector('dialog')")
    # The focus goes back to where it was.
    await page.until(f"document.activeElement === ({stop})")
    assert (await world.status("one"))["connections"] == 2
    for view, heading in (("#/gpus", "GPUs"), ("#/engines", "Speech engines"), ("#/events", "Events")):
        await page.focus(f"nav a[href='{view}']")
        await page.key("Enter", 13, "\r")
        await page.until(f"document.activeElement.innerText === '{heading}'")
        await page.until(f"document.title === '{heading} · Avatars'")


async def test_files_are_few_kept_and_under_a_strict_policy(server: RestServer, bundle: Path) -> None:
    files = [path for path in bundle.rglob("*") if path.is_file()]
    assert sum(len(gzip.compress(path.read_bytes())) for path in files) <= GZIP_MOST
    page = (bundle / "index.html").read_text()
    assert "<style" not in page
    assert "style=" not in page
    assert not [part for part in page.split("<script")[1:] if "src=" not in part.split(">")[0]]
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{server.url}/console", allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (307, "console/")
        async with session.get(f"{server.url}/console/") as answer:
            assert (answer.status, answer.content_type) == (200, "text/html")
            assert answer.headers["Content-Security-Policy"] == POLICY
            assert "unsafe" not in POLICY
            assert answer.headers["Cache-Control"] == "no-cache"
            tag = answer.headers["ETag"]
        async with session.get(f"{server.url}/console/", headers={"If-None-Match": tag}) as answer:
            assert (answer.status, await answer.read()) == (304, b"")
        for path in (bundle / "assets").iterdir():
            async with session.get(f"{server.url}/console/assets/{path.name}") as answer:
                assert answer.status == 200
                assert "immutable" in answer.headers["Cache-Control"]
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert await answer.read() == path.read_bytes()
        for wrong in ("assets/none.js", "../app.py", "%2e%2e/app.py", ".source"):
            async with session.get(f"{server.url}/console/{wrong}") as answer:
                assert answer.status == 404, wrong
        async with session.get(f"{server.url}/console/live") as answer:
            assert answer.status == 401


def test_a_console_that_was_not_built_is_no_bundle(tmp_path: Path) -> None:
    assert Bundle.read(tmp_path / "none").files == {}


async def test_on_one_machine_nobody_signs_in(servers: MakeServer, bundle: Path, world: World, page: Page) -> None:
    await world.pool()
    server = await servers("--auth=none")
    await page.open(f"{server.url}/console")
    await page.until("document.querySelector('h1')?.textContent === 'Overview'")
    await page.text("this API answers to its own machine only")
    assert not await page.js("[...document.querySelectorAll('button')].some(b => b.innerText === 'Sign out')")
    assert page.complaints == []
