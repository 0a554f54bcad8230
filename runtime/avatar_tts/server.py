"""The HTTP contract: ``POST /generate``, ``GET /health``."""

import asyncio
import base64
import json
import logging
import time
from array import array
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiohttp import BodyPartReader, web

from avatar_tts.audio import resample, wav
from avatar_tts.espeak import Engine, EspeakError, Speech
from avatar_tts.voices import Voice, resolve

RATE = 24000
MAX_TEXT = 5000
MAX_BODY = 8 * 1024 * 1024
_MAX_FIELD = 64 * 1024

log = logging.getLogger("avatar_tts")
ENGINE: web.AppKey[Engine] = web.AppKey("engine", Engine)
LANE: web.AppKey[ThreadPoolExecutor] = web.AppKey("lane", ThreadPoolExecutor)


class BadRequest(ValueError):
    """The caller's mistake; the text goes to the caller."""


async def _read_fields(request: web.Request) -> dict[str, str]:
    """Return the form's text fields. Files (`prompt_wav`) are read past and ignored: espeak-ng clones nothing."""
    fields: dict[str, str] = dict(request.query.items())
    content_type = request.content_type
    if content_type == "application/json":
        try:
            body = json.loads(await request.text())
        except (ValueError, UnicodeDecodeError) as error:
            raise BadRequest(f"the body is not JSON: {error}") from error
        if not isinstance(body, dict):
            raise BadRequest("the JSON body must be an object")
        fields.update({str(k): str(v) for k, v in body.items() if v is not None})
    elif content_type == "application/x-www-form-urlencoded":
        fields.update({k: v for k, v in (await request.post()).items() if isinstance(v, str)})
    elif content_type == "multipart/form-data":
        try:
            async for part in await request.multipart():
                # A nested multipart has no name and nothing for us.
                if isinstance(part, BodyPartReader) and part.name is not None and part.filename is None:
                    fields[part.name] = (await _read_field(part)).decode("utf-8")
                elif part is not None:
                    await part.release()
        except BadRequest:
            raise
        except (ValueError, AssertionError, RuntimeError) as error:
            raise BadRequest(f"the multipart form cannot be read: {error}") from error
    else:
        raise BadRequest(f"send a multipart form with tts_text, not {content_type}")
    return fields


async def _read_field(part: BodyPartReader) -> bytes:
    raw = await part.read(decode=True)
    if len(raw) > _MAX_FIELD:
        raise BadRequest(f"field {part.name} is longer than {_MAX_FIELD} bytes")
    return bytes(raw)


def _clean_text(fields: dict[str, str]) -> str:
    text = fields.get("tts_text", "").strip()
    if not text:
        raise BadRequest("tts_text is missing or empty")
    if len(text) > MAX_TEXT:
        raise BadRequest(f"tts_text has {len(text)} characters; the limit is {MAX_TEXT}: send it in sentences")
    return text


def _synthesise(engine: Engine, text: str, voice: Voice) -> tuple[Speech, "array[int]"]:
    speech = engine.speak(text, voice)
    return speech, resample(speech.samples, speech.rate, RATE)


async def generate(request: web.Request) -> web.Response:
    """Speak ``tts_text``: WAV (24 kHz mono s16), or JSON with the phoneme timeline for ``timeline=1``."""
    started = time.monotonic()
    try:
        fields = await _read_fields(request)
        text = _clean_text(fields)
    except BadRequest as error:
        return _error(400, str(error))
    voice = resolve(fields.get("voice"))
    loop = asyncio.get_running_loop()
    try:
        speech, samples = await loop.run_in_executor(request.app[LANE], _synthesise, request.app[ENGINE], text, voice)
    except EspeakError as error:
        log.exception("synthesis failed")
        return _error(500, str(error))
    duration = len(samples) / RATE
    log.info(
        "spoke chars=%d voice=%s speech_seconds=%.2f took_ms=%.0f",
        len(text), voice.espeak, duration, (time.monotonic() - started) * 1000,
    )  # fmt: skip
    audio = wav(samples, RATE)
    if fields.get("timeline") != "1":
        return web.Response(body=audio, content_type="audio/wav")
    body: dict[str, Any] = {
        "sample_rate": RATE,
        "duration": round(duration, 4),
        "phonemes": [{"t": round(p.t, 4), "ipa": p.ipa} for p in speech.phonemes],
        "audio": base64.b64encode(audio).decode("ascii"),
    }
    return web.json_response(body)


async def health(_: web.Request) -> web.Response:
    """Say that the server runs; it listens only after espeak-ng is loaded."""
    return web.json_response({"status": "running", "engine": "espeak-ng", "sample_rate": RATE})


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"status": "error", "message": message}, status=status)


def build(engine: Engine) -> web.Application:
    """Return the application. Synthesis runs on one thread of its own, so the event loop never blocks."""
    app = web.Application(client_max_size=MAX_BODY)
    app[ENGINE] = engine
    app[LANE] = ThreadPoolExecutor(max_workers=1, thread_name_prefix="espeak")
    app.add_routes([web.get("/health", health), web.post("/generate", generate)])

    async def close(app: web.Application) -> None:
        app[LANE].shutdown(wait=False, cancel_futures=True)

    app.on_cleanup.append(close)
    return app
