"""The HTTP server: every contract on one port, ``GET /health``, ``GET /metrics``."""

import asyncio
import itertools
import logging
import time
from collections.abc import Callable
from urllib.parse import quote

from aiohttp import web

from avatar_tts import contracts
from avatar_tts.audio import RATE
from avatar_tts.backends import Backend, SpeechError, Spoken
from avatar_tts.contracts import Answer
from avatar_tts.forms import BadRequest, read_fields
from avatar_tts.metrics import Metrics

MAX_BODY = 8 * 1024 * 1024
MAX_HEADER = 7500
"""Bytes of a header that every client takes."""

PHONEMES = "X-Phonemes"
"""A caller that sends this header gets the phonemes of a single sentence in the same header: ``ms:ipa,ms:ipa …``,
percent-encoded. The reference runtime moves the mouth by them; other callers never know."""

WORDS = "X-Words"
"""With them come the words: ``ms:first+length``, in characters of the text. Subtitles are timed by them."""

CHUNK = 9600
"""Bytes that are written at once (0.2 s): a caller that goes away is noticed between two."""

GONE = 499
Read = Callable[[dict[str, str], str], Answer]

log = logging.getLogger("avatar_tts")
BACKEND: web.AppKey[Backend] = web.AppKey("backend")
METRICS: web.AppKey[Metrics] = web.AppKey("metrics", Metrics)
MODEL: web.AppKey[str] = web.AppKey("model", str)


def _handler(contract: str, read: Read) -> Callable[[web.Request], "asyncio.Future[web.StreamResponse]"]:
    async def handle(request: web.Request) -> web.StreamResponse:
        began, code = time.monotonic(), GONE
        try:
            response = await _answer(request, contract, read)
            code = response.status
        except (ConnectionResetError, asyncio.CancelledError):
            log.info("caller went away contract=%s", contract)
            raise
        finally:
            request.app[METRICS].observe(contract, code, time.monotonic() - began)
        return response

    return handle  # type: ignore[return-value]


async def _answer(request: web.Request, contract: str, read: Read) -> web.StreamResponse:
    began = time.monotonic()
    try:
        answer = read(await read_fields(request), request.app[MODEL])
        texts = contracts.pieces(answer)
        spoken = await _speak(request, answer, next(texts))
    except BadRequest as error:
        return _error(contract, 400, str(error))
    except SpeechError as error:
        log.warning("no speech contract=%s error=%s", contract, error)
        return _error(contract, 503 if error.busy else 500, str(error))
    second = next(texts, None)
    headers = {"Content-Type": answer.content_type}
    if second is None and request.headers.get(PHONEMES) and len(line := phoneme_header(spoken)) <= MAX_HEADER:
        headers[PHONEMES] = line
        if len(words := word_header(spoken)) <= MAX_HEADER:
            headers[WORDS] = words
    log.info(
        "speaking contract=%s chars=%d voice=%r took_ms=%.0f",
        contract, len(answer.text), answer.timbre, (time.monotonic() - began) * 1000,
    )  # fmt: skip
    if not answer.streams:
        return web.Response(body=answer.head + await asyncio.to_thread(answer.pack, spoken.samples), headers=headers)
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    if answer.head:
        await response.write(answer.head)
    await _send(response, answer, spoken)
    for text in itertools.chain([] if second is None else [second], texts):
        try:
            spoken = await _speak(request, answer, text)
        except SpeechError as error:
            # Too late for another status: a stream that breaks off is the only way to say it.
            log.warning("speech broke off contract=%s error=%s", contract, error)
            if request.transport is not None:
                request.transport.close()
            return response
        await _send(response, answer, spoken)
    await response.write_eof()
    return response


async def _speak(request: web.Request, answer: Answer, text: str) -> Spoken:
    spoken = await request.app[BACKEND].speak(text, answer.timbre, answer.pitch)
    request.app[METRICS].speech_seconds += len(spoken.samples) / RATE
    return spoken


async def _send(response: web.StreamResponse, answer: Answer, spoken: Spoken) -> None:
    data = await asyncio.to_thread(answer.pack, spoken.samples)
    if answer.content_type == "audio/ogg":
        # A chunk is a file: that is what its callers read.
        await response.write(data)
        return
    for start in range(0, len(data), CHUNK):
        await response.write(data[start : start + CHUNK])


def phoneme_header(spoken: Spoken) -> str:
    """Return the phonemes as `PHONEMES` has them."""
    return ",".join(f"{round(p.t * 1000)}:{quote(p.ipa, safe='')}" for p in spoken.phonemes)


def word_header(spoken: Spoken) -> str:
    """Return the words as `WORDS` has them."""
    return ",".join(f"{round(w.t * 1000)}:{w.start}+{w.length}" for w in spoken.words)


def _error(contract: str, status: int, message: str) -> web.Response:
    if contract == "openai":
        kind = "invalid_request_error" if status == 400 else "server_error"
        return web.json_response({"error": {"message": message, "type": kind}}, status=status)
    return web.json_response({"status": "error", "message": message}, status=status)


async def health(request: web.Request) -> web.Response:
    """Say that the server runs; it listens only after its voices are loaded."""
    name = request.app[BACKEND].name
    body = {"status": "running", "engine": name, "model": request.app[MODEL], "sample_rate": RATE}
    return web.json_response({**body, "stand_in": name == "espeak-ng"})


async def metrics(request: web.Request) -> web.Response:
    """Prometheus' page."""
    return web.Response(text=request.app[METRICS].text(), content_type="text/plain")


def build(backend: Backend, model: str) -> web.Application:
    """Return the application. `model` is the engine that it stands for; its contract is one of several here."""
    app = web.Application(client_max_size=MAX_BODY)
    app[BACKEND], app[MODEL] = backend, model
    app[METRICS] = Metrics(backend.name, model)
    zero_shot = _handler("cosyvoice", contracts.cosyvoice)
    tts = _handler("gpt-sovits", contracts.sovits)
    app.add_routes(
        [
            web.get("/health", health),
            web.get("/metrics", metrics),
            web.post("/generate", _handler("generate", contracts.generate)),
            # LiveTalking asks by GET with a form in the body, others by POST; the old server knew only one of them.
            web.get("/inference_zero_shot", zero_shot),
            web.post("/inference_zero_shot", zero_shot),
            web.get("/tts", tts),
            web.post("/tts", tts),
            web.post("/v1/audio/speech", _handler("openai", contracts.openai)),
        ]
    )

    async def close(app: web.Application) -> None:
        await app[BACKEND].close()

    app.on_cleanup.append(close)
    return app
