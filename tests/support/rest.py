"""The REST API as a process of its own, and a client that says what it got."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import aiohttp

from tests.support.operator import _CACHE, _MAIN, ROOT, free_port, total

Json = dict[str, Any]


class RestServer:
    """One replica; ``start`` again after ``kill`` gives the same address."""

    def __init__(self, kubeconfig: Path, namespace: str, log: Path, options: tuple[str, ...] = ("--auth=none",)):
        self.log = log
        self.port, self.inner = free_port(), free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._tls = any(o.startswith("--tls-") for o in options)
        self._command = [sys.executable, "-c", _MAIN, "api", f"--kubeconfig={kubeconfig}", f"--namespace={namespace}"]
        self._command += [f"--listen=127.0.0.1:{self.port}", f"--metrics-listen=127.0.0.1:{self.inner}", *options]

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self.process is not None and self.process.poll() is None

    def launch(self) -> None:
        """Start the process and do not wait for it."""
        env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        env |= {"PYTHONPATH": str(ROOT / "operator"), "PYTHONPYCACHEPREFIX": _CACHE, "PYTHONUNBUFFERED": "1"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log, env=env, cwd=ROOT)

    async def start(self, timeout: float = 60) -> Self:
        """Start the process and wait until it serves."""
        self.launch()
        deadline = time.monotonic() + timeout
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            while True:
                try:
                    async with session.get(f"{self.url}/health", ssl=False) as answer:
                        if answer.status == 200:
                            return self
                except (aiohttp.ClientError, TimeoutError):
                    pass
                if not self.running:
                    raise AssertionError(f"the API ended:\n{self.tail()}")
                if time.monotonic() > deadline:
                    raise AssertionError(f"the API does not serve after {timeout} s:\n{self.tail()}")
                await asyncio.sleep(0.05)

    async def metric(self, name: str) -> float:
        """The sum over all label sets of a metric."""
        return total(await self.page(), name)

    async def page(self) -> str:
        """Its metrics, all of them."""
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self.inner}/metrics") as page:
            return await page.text()

    def rss_mib(self) -> float:
        """Resident memory of the process."""
        assert self.process is not None
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)

    def kill(self) -> None:
        """SIGKILL, and wait until the process is gone."""
        if self.process is not None:
            if self.running:
                self.process.send_signal(signal.SIGKILL)
            self.process.wait(10)

    def stop(self) -> int:
        """SIGTERM and the exit code; SIGKILL after fifteen seconds."""
        if self.process is None:
            return 0
        if self.running:
            self.process.terminate()
        try:
            return self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.process.returncode

    def tail(self, lines: int = 60) -> str:
        """The end of the log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])


class Answer:
    """Status, headers and JSON of an answer."""

    def __init__(self, code: int, headers: Any, body: Any) -> None:
        self.code, self.headers, self.body = code, headers, body

    @property
    def data(self) -> Json:
        """The data of a success."""
        assert self.code in (200, 202), self
        return dict(self.body["data"])

    def __repr__(self) -> str:
        return f"{self.code} {self.body}"


class Rest:
    """A client of one server. Use as ``async with Rest(url)``."""

    def __init__(self, url: str, token: str = "", timeout: float = 60) -> None:
        self.url, self._timeout = url, timeout
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    async def __aenter__(self) -> Self:
        self.session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self._timeout),
            connector=aiohttp.TCPConnector(limit=0),
            headers=self._headers,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()

    async def call(self, verb: str, path: str, body: Any = None, **kwargs: Any) -> Answer:
        """One request; every answer must be JSON, with an id, and errors must have their shape."""
        async with self.session.request(verb, self.url + path, json=body, **kwargs) as response:
            text = await response.read()
            answer = Answer(response.status, response.headers, None)
            if response.status != 204:
                assert response.content_type == "application/json", (response.status, text)
                answer.body = await response.json()
            assert response.headers["X-Request-ID"]
            if response.status >= 400:
                assert set(answer.body) == {"status", "message"}, answer
                assert answer.body["status"] == "error", answer
            return answer

    async def get(self, path: str, **kwargs: Any) -> Answer:
        """GET."""
        return await self.call("GET", path, **kwargs)

    async def post(self, path: str, body: Any = None, **kwargs: Any) -> Answer:
        """POST of JSON."""
        return await self.call("POST", path, body, **kwargs)

    async def start(self, avatar_id: str, avatar_name: str | None = None, **fields: Any) -> Answer:
        """A start."""
        headers = fields.pop("headers", {})
        body = {"avatar_id": avatar_id, **({"avatar_name": avatar_name} if avatar_name else {}), **fields}
        return await self.post("/avatar/start", body, headers=headers)

    async def disconnect(self, **fields: Any) -> Answer:
        """A disconnect."""
        return await self.post("/avatar/disconnect", fields)
