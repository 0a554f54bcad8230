"""Gets speech from a speech server, by the contract that ``--tts`` names, as it is made."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import replace
from urllib.parse import unquote

import aiohttp
import numpy as np

from avatar_runtime.pcm import RATE, AudioError, Samples
from avatar_runtime.sounds import LIMIT, Decoder, Resampler
from avatar_runtime.speech import Utterance, prepare
from avatar_runtime.tts_contracts import CONTRACTS

TIMEOUT = aiohttp.ClientTimeout(total=120, connect=2, sock_read=20)

PATIENCE = 5.0
"""Seconds for which a server that takes no connection is asked again: an engine may start beside the avatar."""

RETRY = 0.2
KEEPALIVE = 3600.0
FIRST_PIECE, PIECE = 0.5, 2.0
"""Seconds of speech that are said as one piece while the rest is still on its way."""

PHONEMES = "X-Phonemes"
"""The reference server tells the phonemes of a sentence in this header if it is asked by the same; others do not."""

WORDS = "X-Words"
"""The reference server's header with the words of the same sentence: ``ms:first+length`` in characters."""


class TtsError(Exception):
    """The engine gave no speech; the text is for the client who asked for it."""


class TtsClient:
    """One session's way to the speech server. Use as an async context manager, or close() it.

    It keeps its connection through pauses: a conversation stays with the engine that it began with, even if
    another one answers at the same address for those who come new.
    """

    def __init__(self, server: str, voice: str, engine: str = "edgetts") -> None:
        self._server = server
        self._voice = voice
        self._contract = CONTRACTS[engine]
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "TtsClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connection; safe to call twice."""
        if self._session is not None:
            await self._session.close()

    async def speak(self, text: str) -> AsyncGenerator[Utterance, None]:
        """Yield the speech of one sentence, in pieces while it is made; `TtsError` says why it ends early.

        Closing the iterator ends the request, and the engine's work.
        """
        if not self._server:
            raise TtsError("no TTS server: start the runtime with --TTS_SERVER http://HOST:PORT")
        url = f"{self._server}{self._contract.path}"
        try:
            response = await self._ask(url, text)
            try:
                async with contextlib.aclosing(self._read(url, response, text)) as pieces:
                    async for utterance in pieces:
                        yield utterance
            finally:
                # Unless all was read the connection goes with it, and the engine hears of that.
                response.close()
        except AudioError as error:
            raise TtsError(f"{url}: the audio cannot be used: {error}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise TtsError(f"{url}: {type(error).__name__} {error}".rstrip()) from error

    async def _ask(self, url: str, text: str) -> aiohttp.ClientResponse:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=1, keepalive_timeout=KEEPALIVE)
            self._session = aiohttp.ClientSession(connector=connector)
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE
        fresh = False
        while True:
            contract = self._contract
            arguments = contract.body(text, self._voice)
            try:
                return await self._session.request(
                    contract.method, url, headers={PHONEMES: "1"}, timeout=TIMEOUT, **arguments
                )
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
                if loop.time() >= until:
                    raise
                await asyncio.sleep(RETRY)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                # The kept connection was dead: nothing was heard on it, so nothing is said twice.
                if fresh:
                    raise
                fresh = True

    async def _read(self, url: str, response: aiohttp.ClientResponse, text: str) -> AsyncGenerator[Utterance, None]:
        if response.status >= 400:
            body = await response.content.read(200)
            raise TtsError(f"{url}: HTTP {response.status} {body.decode(errors='replace')}")
        decoder = self._contract.decoder()
        if PHONEMES in response.headers:
            # Whoever tells these has the whole sentence ready.
            body = await response.read()
            phonemes = parse_phonemes(response.headers[PHONEMES])
            made = await asyncio.to_thread(_whole, decoder, body, text, phonemes)
            yield replace(made, words=parse_words(response.headers.get(WORDS, ""), text))
            return
        resampler, ready, first, size = Resampler(), np.zeros(0, np.int16), True, 0
        async for data, whole in response.content.iter_chunks():
            size += len(data)
            if size > LIMIT:
                raise TtsError(f"{url}: more than {LIMIT} bytes for one sentence")
            # Some milliseconds of computing for a long piece: not in the loop that paces frames.
            more = await asyncio.to_thread(_convert, decoder, resampler, data, whole)
            ready = np.concatenate([ready, more])
            if len(ready) >= (FIRST_PIECE if first else PIECE) * RATE:
                yield await asyncio.to_thread(_piece, text, ready, first)
                ready, first = ready[:0], False
        more = await asyncio.to_thread(_finish, decoder, resampler)
        ready = np.concatenate([ready, more])
        if len(ready) or first:
            yield await asyncio.to_thread(_piece, text, ready, first)


def _convert(decoder: Decoder, resampler: Resampler, data: bytes, whole: bool) -> Samples:
    samples = decoder.feed(data, whole=whole)
    return resampler.feed(samples, decoder.rate) if len(samples) else samples


def _finish(decoder: Decoder, resampler: Resampler) -> Samples:
    rest = decoder.finish()
    return resampler.feed(rest, decoder.rate or RATE, last=True)


def _whole(decoder: Decoder, body: bytes, text: str, phonemes: list[tuple[float, str]]) -> Utterance:
    resampler = Resampler()
    return prepare(
        text,
        np.concatenate([_convert(decoder, resampler, body, True), _finish(decoder, resampler)]),
        phonemes,
    )


def _piece(text: str, samples: Samples, first: bool) -> Utterance:
    made = prepare(text if first else "", samples, None)
    return Utterance(made.text, made.samples, made.curve, made.stresses, continues=not first)


def parse_phonemes(line: str) -> list[tuple[float, str]]:
    """Return (seconds, IPA) of each phoneme; what cannot be read is left out, as the sound is good without."""
    found: list[tuple[float, str]] = []
    for part in line.split(","):
        at, _, ipa = part.partition(":")
        with contextlib.suppress(ValueError):
            found.append((max(0, min(int(at), 600_000)) / 1000, unquote(ipa)))
    return found


def parse_words(line: str, text: str) -> tuple[tuple[float, str], ...]:
    """Return (seconds, word) of each word of `text`; what cannot be read, or is not in the text, is left out.

    espeak-ng speaks of parts of a number, and of a syllable's second half, as if they were words: what begins
    inside the word before is none.
    """
    found: list[tuple[float, str]] = []
    end = 0
    for part in line.split(","):
        at, _, place = part.partition(":")
        first, _, length = place.partition("+")
        with contextlib.suppress(ValueError):
            start = int(first)
            word = text[start : start + int(length)] if start >= end else ""
            if word.strip():
                found.append((max(0, min(int(at), 600_000)) / 1000, word))
                end = start + len(word)
    return tuple(found)
