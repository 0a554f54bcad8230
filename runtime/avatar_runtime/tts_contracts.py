"""What the runtime sends to a speech server for each value of ``--tts``, as LiveTalking does, and what comes back."""

import io
import wave
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from avatar_runtime.sounds import Decoder, OggFiles, Pcm, WavStream


@dataclass(frozen=True)
class Contract:
    """How to ask for a text, and what decodes the answer. ``body`` makes the request's keyword arguments."""

    method: str
    path: str
    body: Callable[[str, str], dict[str, Any]]
    decoder: Callable[[], Decoder]


def _form(text: str, voice: str, prompt: str = "") -> dict[str, Any]:
    form = aiohttp.FormData()
    form.add_field("tts_text", text)
    form.add_field("prompt_text", prompt)
    form.add_field("voice", voice)
    # The engines refuse a request without this file, though not all read it.
    name, recording = _recording(voice)
    form.add_field("prompt_wav", recording, filename=name, content_type="audio/wav")
    return {"data": form}


def _form_of_tacotron(text: str, voice: str) -> dict[str, Any]:
    """Tacotron's prompt is its pitch, 0–100; 45 is what the old client sent."""
    return _form(text, voice, "45")


def _sovits(text: str, voice: str) -> dict[str, Any]:
    body = {
        "text": text,
        "text_lang": "auto",
        # A path on the server's side; the reference server takes the name of a voice.
        "ref_audio_path": voice,
        "prompt_text": "",
        "prompt_lang": "auto",
        "media_type": "ogg",
        "streaming_mode": True,
    }
    return {"json": body}


def _openai(text: str, voice: str) -> dict[str, Any]:
    return {"json": {"model": "tts-1", "input": text, "voice": voice, "response_format": "wav"}}


def _recording(voice: str) -> tuple[str, bytes]:
    """The reference recording that ``--REF_FILE`` names; a moment of silence where it names a voice."""
    path = Path(voice)
    if path.suffix.lower() == ".wav" and path.is_file():
        return path.name, path.read_bytes()
    return "prompt.wav", _SILENCE


def _silence() -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(bytes(3200))
    return buffer.getvalue()


_SILENCE = _silence()

CONTRACTS = {
    "edgetts": Contract("POST", "/generate", _form, WavStream),
    "tacotron": Contract("POST", "/generate", _form_of_tacotron, WavStream),
    # LiveTalking asks by GET with a form in the body; both CosyVoice's own server and ours take that.
    "cosyvoice": Contract("GET", "/inference_zero_shot", _form, lambda: Pcm(24000)),
    "sovits": Contract("POST", "/tts", _sovits, OggFiles),
    "omnitts": Contract("POST", "/v1/audio/speech", _openai, WavStream),
}
