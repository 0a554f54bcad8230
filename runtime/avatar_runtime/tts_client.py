"""Gets speech from the TTS server: the old engines' ``POST /generate``, with a phoneme timeline if there is one."""

import asyncio
import base64
import binascii
import io
import json
import wave
from typing import Any

import aiohttp

from avatar_runtime.pcm import AudioError, Samples, decode_wav, resample
from avatar_runtime.speech import Utterance, prepare

TIMEOUT = aiohttp.ClientTimeout(total=30, connect=5)


class TtsError(Exception):
    """The engine gave no speech; the text is for the client who asked for it."""


class TtsClient:
    """One TTS server. Use as an async context manager."""

    def __init__(self, server: str, voice: str) -> None:
        self._server = server
        self._voice = voice
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "TtsClient":
        self._session = aiohttp.ClientSession(timeout=TIMEOUT)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def speak(self, text: str) -> Utterance:
        """Return the speech of one sentence; `TtsError` says why there is none."""
        if not self._server or self._session is None:
            raise TtsError("no TTS server: start the runtime with --TTS_SERVER http://HOST:PORT")
        form = aiohttp.FormData()
        form.add_field("tts_text", text)
        form.add_field("prompt_text", "")
        form.add_field("voice", self._voice)
        # The old engines refuse a request without this file, though not all read it.
        form.add_field("prompt_wav", _SILENCE, filename="prompt.wav", content_type="audio/wav")
        url = f"{self._server}/generate"
        try:
            async with self._session.post(url, params={"timeline": "1"}, data=form) as response:
                body = await response.read()
                if response.status >= 400:
                    raise TtsError(f"{url}: HTTP {response.status} {body[:200].decode(errors='replace')}")
                # Both take some milliseconds of computing for a long sentence: not in the loop that paces frames.
                if response.content_type == "application/json":
                    return await asyncio.to_thread(_from_json, text, body)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise TtsError(f"{url}: {type(error).__name__} {error}".rstrip()) from error
        return await asyncio.to_thread(_from_wav, text, body)


def _from_wav(text: str, body: bytes) -> Utterance:
    return prepare(text, _samples(body), None)


def _from_json(text: str, raw: bytes) -> Utterance:
    try:
        body: Any = json.loads(raw)
        audio = base64.b64decode(body["audio"], validate=True)
        phonemes = [(float(p["t"]), str(p["ipa"])) for p in body.get("phonemes") or []]
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise TtsError(f"the TTS server's answer cannot be used: {type(error).__name__} {error}") from error
    return prepare(text, _samples(audio), phonemes)


def _samples(audio: bytes) -> Samples:
    try:
        samples, rate = decode_wav(audio)
        return resample(samples, rate)
    except AudioError as error:
        raise TtsError(f"the TTS server's audio cannot be used: {error}") from error


def _silence() -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(bytes(3200))
    return buffer.getvalue()


_SILENCE = _silence()
