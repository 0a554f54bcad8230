"""The HTTP contracts, one function each: what is said with which voice, and in which form it goes back."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from avatar_tts import codec
from avatar_tts.audio import RATE, Samples, resample, wav, wav_header
from avatar_tts.forms import BadRequest, is_true, text_of
from avatar_tts.voices import timbre_of

SOVITS_RATE = 32000
"""What GPT-SoVITS' own model makes; ``raw`` has no header to say so."""


@dataclass(frozen=True)
class Answer:
    """How a text is spoken and sent. ``pack`` makes of the samples of one piece what goes over the wire.

    ``streams``: piece by piece as each is ready, after ``head``; else all in one.
    """

    text: str
    timbre: str
    content_type: str
    pack: Callable[[Samples], bytes]
    streams: bool = False
    head: bytes = b""
    pitch: int | None = None


def generate(fields: dict[str, str], model: str) -> Answer:
    """``/generate`` of the old manager's four servers: a form in, a WAV of 24 kHz out."""
    prompt = fields.get("prompt_text", "").strip()
    # Tacotron's prompt is a number: the pitch.
    pitch = int(prompt) if model == "tacotron" and prompt.isascii() and prompt.isdigit() and len(prompt) < 4 else None
    text = text_of(fields, "tts_text")
    return Answer(text, _timbre(fields, "prompt_wav"), "audio/wav", lambda samples: wav(samples, RATE), pitch=pitch)


def cosyvoice(fields: dict[str, str], _: str) -> Answer:
    """``/inference_zero_shot`` of CosyVoice: a form in, bare samples of 24 kHz out, as they are made."""
    text = text_of(fields, "tts_text")
    return Answer(text, _timbre(fields, "prompt_wav"), "application/octet-stream", _raw, streams=True)


def sovits(fields: dict[str, str], _: str) -> Answer:
    """``/tts`` of GPT-SoVITS' api_v2: JSON in; wav, raw or ogg out. In a stream each ogg is a file of its own."""
    text = text_of(fields, "text")
    timbre = _timbre(fields, "ref_audio_path")
    streams = is_true(fields.get("streaming_mode", ""))
    match fields.get("media_type", "wav"):
        case "raw":
            return Answer(text, timbre, "audio/raw", lambda s: _raw(resample(s, RATE, SOVITS_RATE)), streams)
        case "ogg":
            return Answer(text, timbre, "audio/ogg", lambda s: codec.encode(s, RATE, "ogg"), streams)
        case "wav" if streams:
            return Answer(text, timbre, "audio/wav", _raw, streams, wav_header(RATE))
        case "wav":
            return Answer(text, timbre, "audio/wav", lambda s: wav(s, RATE))
        case other:
            raise BadRequest(f"media_type {other!r} is not supported here: use wav, raw or ogg")


def openai(fields: dict[str, str], _: str) -> Answer:
    """``/v1/audio/speech`` as OpenAI has it."""
    text = text_of(fields, "input")
    timbre = _timbre(fields, "voice")
    match fields.get("response_format", "mp3"):
        case "pcm":
            return Answer(text, timbre, "audio/pcm", _raw, streams=True)
        case "wav":
            return Answer(text, timbre, "audio/wav", _raw, streams=True, head=wav_header(RATE))
        case name if name in codec.NAMES and name != "ogg":
            return Answer(text, timbre, codec.content_type(name), lambda s: codec.encode(s, RATE, name))
        case other:
            raise BadRequest(f"response_format {other!r} is not supported here: use mp3, opus, flac, wav or pcm")


def pieces(answer: Answer, longest: int = 300) -> Iterator[str]:
    """Cut the text of a stream at its sentences, so that the first is heard while the next is made.

    One at least, though it may hold nothing that can be said: that is silence, not a mistake.
    """
    if not answer.streams:
        yield answer.text
        return
    current = ""
    for place, char in enumerate(answer.text):
        current += char
        following = answer.text[place + 1 : place + 2]
        ends = char in "。！？；…\n" or (char in ".!?;" and (not following or following.isspace()))
        if (ends or (len(current) >= longest and char.isspace())) and any(c.isalnum() for c in current):
            yield current.strip()
            current = ""
    # What is left may be a bracket or a smile; a text that is nothing else is sent whole.
    if any(c.isalnum() for c in current) or current == answer.text:
        yield current.strip()


def _timbre(fields: dict[str, str], reference: str) -> str:
    """The voice: by our own field ``voice``, else the one that the reference recording is called after."""
    return fields.get("voice") or timbre_of(fields.get(reference, ""))


def _raw(samples: Samples) -> bytes:
    return samples.tobytes()
