"""The real TTS server and the real runtime as processes, and questions to them."""

from __future__ import annotations

import asyncio
import io
import signal
import socket
import subprocess
import sys
import time
import wave
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = ROOT / "runtime"
AVATARS = RUNTIME / "data" / "avatars"


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Running:
    """A process that serves on a port of a loopback address."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    host: str = "127.0.0.1"

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    async def exit(self, timeout: float) -> int:
        """Its exit status, once it has ended by itself."""
        return await asyncio.to_thread(self.process.wait, timeout)

    def stop(self) -> None:
        """End it, by force if it must be."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)

    def until_serving(self, timeout: float = 40) -> None:
        deadline = time.monotonic() + timeout
        while True:
            if self.process.poll() is not None:
                raise AssertionError(f"exited with {self.process.returncode}:\n{self.text()}")
            with socket.socket() as probe:
                if probe.connect_ex((self.host, self.port)) == 0:
                    return
            if time.monotonic() > deadline:
                raise AssertionError(f"does not listen on {self.port} after {timeout} s:\n{self.text()}")
            time.sleep(0.05)


def launch(folder: Path, module: str, *args: str, port: int, host: str = "127.0.0.1") -> Running:
    """Start ``python -m module`` with its output in a file."""
    log = folder / f"{module}-{port}-{time.monotonic_ns()}.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *args], cwd=RUNTIME, stdout=sink, stderr=subprocess.STDOUT
        )
    return Running(process, port, log, host)


def start_tts(folder: Path, port: int | None = None) -> Running:
    """The TTS server, serving."""
    port = port or free_port()
    one = launch(folder, "avatar_tts", "--host", "127.0.0.1", "--port", str(port), port=port)
    one.until_serving()
    return one


def start_runtime(
    folder: Path,
    *args: str,
    avatar: str = "ada",
    tts: str = "",
    data: Path = AVATARS,
    host: str = "127.0.0.1",
    port: int | None = None,
) -> Running:
    """A runtime, serving."""
    port = port or free_port()
    flags = ["--avatar_id", avatar, "--listenport", str(port), "--listenhost", host, "--data_dir", str(data)]
    one = launch(folder, "avatar_runtime", *flags, "--TTS_SERVER", tts, *args, port=port, host=host)
    one.until_serving()
    return one


async def call(
    method: str, url: str, body: Any = None, *, raw: bytes | None = None, timeout: float = 20
) -> tuple[int, Any]:
    """HTTP status and JSON of a call."""
    limit = aiohttp.ClientTimeout(total=timeout)
    async with (
        aiohttp.ClientSession(timeout=limit) as http,
        http.request(method, url, json=body if raw is None else None, data=raw) as answer,
    ):
        return answer.status, await answer.json()


async def sessions(runtime: Running) -> int:
    """How many sessions /health counts."""
    return int((await call("GET", f"{runtime.url}/health"))[1]["sessions"])


async def until(what: str, look: Callable[[], Awaitable[bool]], timeout: float) -> float:
    """Wait for ``look`` to be true; the seconds that it took."""
    began = time.monotonic()
    while not await look():
        assert time.monotonic() - began < timeout, f"after {timeout} s still no sign of: {what}"
        await asyncio.sleep(0.05)
    return time.monotonic() - began


async def offer() -> dict[str, str]:
    """A complete offer of a client that will never use the answer: its ICE agent is closed at once."""
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    try:
        pc.addTransceiver("audio", direction="recvonly")
        pc.addTransceiver("video", direction="recvonly")
        pc.createDataChannel("events")
        await pc.setLocalDescription(await pc.createOffer())
        return {"sdp": pc.localDescription.sdp, "type": pc.localDescription.type}
    finally:
        await pc.close()


def tone(seconds: float, rate: int = 22050) -> bytes:
    """A WAV file of a voice-like buzz that swells and fades three times a second."""
    t = np.arange(int(seconds * rate)) / rate
    loud = np.clip(np.sin(2 * np.pi * 3 * t), 0.05, 1)
    samples = (9000 * loud * np.sign(np.sin(2 * np.pi * 140 * t))).astype("<i2")
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return target.getvalue()
