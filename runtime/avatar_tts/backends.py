"""What makes the speech: espeak-ng in this process, or Microsoft's voices over the internet."""

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from avatar_tts.audio import RATE, Samples, resample
from avatar_tts.speech import EspeakError, Phoneme, Word
from avatar_tts.voices import default_for, resolve

if TYPE_CHECKING:
    # The image with Microsoft's voices has no espeak-ng.
    from avatar_tts.espeak import Engine

MAX_WAITING = 200
"""Texts that may wait for the synthesiser; more would be spoken when nobody listens any more."""


class SpeechError(Exception):
    """There is no speech; the text goes to the caller. ``busy``: a later try may do."""

    def __init__(self, message: str, *, busy: bool = False) -> None:
        super().__init__(message)
        self.busy = busy


@dataclass(frozen=True)
class Spoken:
    """Mono signed 16-bit samples at `audio.RATE`, and where each phoneme and word starts (none: nobody knows)."""

    samples: Samples
    phonemes: tuple[Phoneme, ...] = ()
    words: tuple[Word, ...] = ()


class Backend(Protocol):
    """Something that speaks."""

    name: str

    async def speak(self, text: str, timbre: str, pitch: int | None) -> Spoken:
        """Speak `text` with the voice of that name; `pitch` 0–100 where the contract has one. `SpeechError`."""

    async def close(self) -> None:
        """Let go of what it holds."""


class EspeakBackend:
    """espeak-ng. One thread: its calls take about 2 ms per second of speech and cannot overlap."""

    name = "espeak-ng"

    def __init__(self, engine: "Engine", model: str) -> None:
        self._engine = engine
        self._default = default_for(model)
        self._lane = ThreadPoolExecutor(max_workers=1, thread_name_prefix="espeak")
        self._waiting = 0

    async def speak(self, text: str, timbre: str, pitch: int | None) -> Spoken:
        """Speak; unknown voices get the engine's default."""
        if self._waiting >= MAX_WAITING:
            raise SpeechError(f"{self._waiting} texts wait already; try later", busy=True)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._lane, self._speak, text, timbre, pitch)
        except EspeakError as error:
            raise SpeechError(str(error)) from error
        finally:
            self._waiting -= 1

    def _speak(self, text: str, timbre: str, pitch: int | None) -> Spoken:
        voice = resolve(timbre, self._default)
        if pitch is not None:
            voice = voice.at_pitch(pitch)
        speech = self._engine.speak(text, voice)
        return Spoken(resample(speech.samples, speech.rate, RATE), speech.phonemes, speech.words)

    async def close(self) -> None:
        """End the thread."""
        self._lane.shutdown(wait=False, cancel_futures=True)


_AMERICANS = {
    "Ana", "Andrew", "Aria", "Ava", "Brian", "Christopher", "Emma", "Eric", "Guy", "Jenny", "Michelle", "Roger",
}  # fmt: skip
_NEURAL = re.compile(r"^[a-z]{2,3}-[A-Z]{2}(-[a-z]+)?-\w+Neural$")


class EdgeBackend:
    """Microsoft Edge's read-aloud service by the package edge-tts. Needs internet; nothing is kept here."""

    name = "edge-tts"

    def __init__(self, communicate: Any = None) -> None:
        if communicate is None:
            # Imported here: the offline image does not have it.
            from edge_tts import Communicate

            communicate = Communicate
        self._communicate = communicate

    async def speak(self, text: str, timbre: str, pitch: int | None) -> Spoken:
        """Fetch the speech as MP3 and decode it."""
        from avatar_tts.codec import decode

        shift = "+0Hz" if pitch is None else f"{round((min(100, pitch) - 50) * 0.8):+d}Hz"
        data = bytearray()
        try:
            async for part in self._communicate(text, neural(timbre), pitch=shift).stream():
                if part["type"] == "audio":
                    data += part["data"]
        except Exception as error:
            # The package raises its own errors, aiohttp's and the socket's.
            raise SpeechError(f"Microsoft's service: {type(error).__name__} {error}".rstrip()) from error
        if not data:
            raise SpeechError(f"Microsoft's service sent no sound for voice {neural(timbre)}")
        samples, rate = await asyncio.to_thread(decode, bytes(data))
        return Spoken(await asyncio.to_thread(resample, samples, rate, RATE))

    async def close(self) -> None:
        """Nothing to do: each text has its own connection."""


def neural(timbre: str) -> str:
    """Microsoft's name of a voice: as it is, or that of a friendly name; unknown ones get Brian."""
    if _NEURAL.match(timbre):
        return timbre
    person = timbre.strip().capitalize()
    if person in ("Ryan", "Thomas", "Sonia", "Libby"):
        return f"en-GB-{person}Neural"
    if person in ("Xiaoxiao", "Yunxi", "Yunxia"):
        return f"zh-CN-{person}Neural"
    known = {
        "Ana",
        "Andrew",
        "Aria",
        "Ava",
        "Brian",
        "Christopher",
        "Emma",
        "Eric",
        "Guy",
        "Jenny",
        "Michelle",
        "Roger",
    }
    return f"en-US-{person if person in known else 'Brian'}Neural"
