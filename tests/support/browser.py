"""Debian's Chromium, driven by its own protocol (CDP): pages, real clicks and keys, screenshots.

Input goes through the browser as a person's does: where something lies over a button, the click lands on that.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

import aiohttp

Json = dict[str, Any]
START_SECONDS = 60.0
CALL_SECONDS = 30.0
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--mute-audio",
    # A microphone that beeps, and nobody who must be asked for it.
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)


def program() -> str | None:
    """Where Chromium is."""
    return shutil.which("chromium")


class Browser:
    """One browser. Use as ``async with Browser.started()``."""

    def __init__(self, process: subprocess.Popen[bytes], socket: aiohttp.ClientWebSocketResponse) -> None:
        self._process, self._socket = process, socket
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Json]] = {}
        self.pages: dict[str, Page] = {}
        self._reader = asyncio.create_task(self._read())

    @classmethod
    @contextlib.asynccontextmanager
    async def started(cls) -> AsyncIterator[Self]:
        """A browser with a profile of its own."""
        path = program()
        assert path is not None, "there is no chromium: scripts/apt-install chromium"
        with tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as profile:
            log = Path(profile, "log")
            with log.open("wb") as sink:
                process = subprocess.Popen(
                    [path, *FLAGS, f"--user-data-dir={profile}", "about:blank"], stdout=sink, stderr=sink
                )
            try:
                address = await _address(Path(profile, "DevToolsActivePort"), process, log)
                async with (
                    aiohttp.ClientSession() as session,
                    session.ws_connect(address, max_msg_size=0, heartbeat=None) as socket,
                ):
                    browser = cls(process, socket)
                    try:
                        yield browser
                    finally:
                        with contextlib.suppress(Exception):
                            await browser.call("Browser.close")
                        browser._reader.cancel()
            finally:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(5)
                process.kill()
                process.wait(10)

    async def call(self, method: str, session: str = "", **params: Any) -> Json:
        """One command; its error is an AssertionError."""
        number = next(self._ids)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        message: Json = {"id": number, "method": method, "params": params}
        await self._socket.send_str(json.dumps(message | ({"sessionId": session} if session else {})))
        async with asyncio.timeout(CALL_SECONDS):
            found = await answer
        assert "error" not in found, f"{method}: {found['error']}"
        return dict(found["result"])

    async def page(self, width: int = 1440, height: int = 900, *, mobile: bool = False) -> Page:
        """A new page in a context of its own: no storage shared with another."""
        context = (await self.call("Target.createBrowserContext"))["browserContextId"]
        target = (await self.call("Target.createTarget", url="about:blank", browserContextId=context))["targetId"]
        session = (await self.call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        page = self.pages[session] = Page(self, session, context)
        for domain in ("Page", "Runtime", "Log", "Network"):
            await page.call(f"{domain}.enable")
        await page.size(width, height, mobile=mobile)
        return page

    async def _read(self) -> None:
        async for message in self._socket:
            told = json.loads(message.data)
            if "id" in told:
                waiting = self._waiting.pop(told["id"], None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(told)
            elif page := self.pages.get(told.get("sessionId", "")):
                page.hear(told["method"], told["params"])


async def _address(file: Path, process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(OSError, ValueError):
            port, path = file.read_text().split()
            return f"ws://127.0.0.1:{port}{path}"
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"chromium does not start:\n{log.read_text(errors='replace')[-2000:]}")
        await asyncio.sleep(0.05)


class Page:
    """One page. ``complaints``: what the browser found wrong (errors, exceptions, what a policy forbade)."""

    def __init__(self, browser: Browser, session: str, context: str) -> None:
        self.browser, self._session, self._context = browser, session, context
        self.complaints: list[str] = []
        self._loaded = asyncio.Event()

    async def call(self, method: str, **params: Any) -> Json:
        """A command to this page."""
        return await self.browser.call(method, self._session, **params)

    def hear(self, method: str, params: Json) -> None:
        """What the browser tells by itself."""
        if method == "Page.loadEventFired":
            self._loaded.set()
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.complaints.append(" ".join(str(a.get("value", a.get("description"))) for a in params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            entry = params["entry"]
            self.complaints.append(f"{entry['text']} {entry.get('url', '')}")

    async def close(self) -> None:
        """Close it, with what it stored."""
        self.browser.pages.pop(self._session, None)
        await self.browser.call("Target.disposeBrowserContext", browserContextId=self._context)

    # ---- looking -------------------------------------------------------------------

    async def open(self, url: str) -> None:
        """Go there, and wait until it has loaded."""
        self._loaded.clear()
        found = await self.call("Page.navigate", url=url)
        assert not found.get("errorText"), f"{url}: {found['errorText']}"
        async with asyncio.timeout(CALL_SECONDS):
            await self._loaded.wait()

    async def size(self, width: int, height: int, *, mobile: bool = False) -> None:
        """The window; ``mobile``: a phone's, with touch."""
        scale = 2 if mobile else 1
        metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": mobile}
        await self.call("Emulation.setDeviceMetricsOverride", **metrics)

    async def scheme(self, name: str) -> None:
        """The system's colours: light or dark."""
        features = [{"name": "prefers-color-scheme", "value": name}]
        await self.call("Emulation.setEmulatedMedia", features=features)

    async def js(self, expression: str) -> Any:
        """The value of an expression in the page; promises are waited for."""
        found = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"].get("exception", found)
        return found["result"].get("value")

    async def until(self, expression: str, timeout: float = 30) -> Any:
        """Wait until an expression is true in the page; its value."""
        deadline = time.monotonic() + timeout
        while not (value := await self.js(expression)):
            if time.monotonic() > deadline:
                text = await self.js("document.body.innerText")
                raise AssertionError(f"not within {timeout} s: {expression}\n{self.complaints}\nthe page:\n{text}")
            await asyncio.sleep(0.1)
        return value

    async def text(self, content: str, timeout: float = 30) -> None:
        """Wait until the page shows a text."""
        await self.until(f"document.body.innerText.includes({json.dumps(content)})", timeout)

    async def screenshot(self, file: Path, *, whole: bool = True) -> None:
        """A picture of the page; ``whole``: what is below the window, too."""
        file.parent.mkdir(parents=True, exist_ok=True)
        shot = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(shot["data"]))

    # ---- acting --------------------------------------------------------------------

    async def click(self, name: str, role: str = "button", timeout: float = 30) -> None:
        """Click what has this role (a tag, or `role=`) and this name, once it is there and may be used."""
        find = f"""(() => {{
            const wanted = {json.dumps(name)};
            const named = e => (e.getAttribute('aria-label') || e.textContent).replace(/\\s+/g, ' ').trim();
            const open = document.querySelector('dialog[open]') || document;
            const found = [...open.querySelectorAll({json.dumps(role)})].find(e => named(e) === wanted && !e.disabled);
            if (!found) return null;
            found.scrollIntoView({{block: 'center'}});
            const box = found.getBoundingClientRect();
            const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
            const hit = document.elementFromPoint(x, y);
            return found.contains(hit) ? [x, y] : null;
        }})()"""
        x, y = await self.until(find, timeout)
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def type(self, text: str) -> None:
        """Into what has the focus."""
        await self.call("Input.insertText", text=text)

    async def key(self, name: str, code: int, text: str = "") -> None:
        """Press one key: ``key("Tab", 9)``."""
        common = {"key": name, "code": name, "windowsVirtualKeyCode": code}
        await self.call("Input.dispatchKeyEvent", type="keyDown", **common, **({"text": text} if text else {}))
        await self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    async def focus(self, selector: str) -> None:
        """Give something the focus."""
        await self.until(f"document.querySelector({json.dumps(selector)})?.focus() ?? true")
