"""Compressed sound by libsndfile, for the contracts that ask for it."""

import io
from array import array

from avatar_tts.audio import Samples

_FORMATS = {
    "ogg": ("OGG", "VORBIS", "audio/ogg"),
    "opus": ("OGG", "OPUS", "audio/ogg"),
    "mp3": ("MP3", "MPEG_LAYER_III", "audio/mpeg"),
    "flac": ("FLAC", "PCM_16", "audio/flac"),
}
NAMES = tuple(_FORMATS)


def content_type(name: str) -> str:
    """The MIME type of a format."""
    return _FORMATS[name][2]


def warm() -> None:
    """Load the library now, so that nobody waits for it later."""
    encode(array("h", bytes(960)), 24000, "ogg")


def encode(samples: Samples, rate: int, name: str) -> bytes:
    """Return a whole file of the format `name` (of NAMES)."""
    # Here and not above: it brings numpy along, which doubles the time of a start that most engines need not pay.
    import soundfile

    container, codec, _ = _FORMATS[name]
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", rate, 1, subtype=codec, format=container) as file:
        file.buffer_write(samples.tobytes(), "int16")
    return buffer.getvalue()


def decode(data: bytes) -> tuple[Samples, int]:
    """Return (mono samples, rate) of a file that libsndfile knows. `ValueError` when it is none."""
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            channels, rate = file.channels, file.samplerate
            raw = array("h", bytes(file.buffer_read(-1, "int16")))
    except soundfile.LibsndfileError as error:
        raise ValueError(f"not a sound file: {error}") from error
    return raw[::channels], rate
