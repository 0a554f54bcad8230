"""Repairs of offers; WAV files, rates and loudness; the TTS server's voices."""

from __future__ import annotations

import io
import struct
import wave
from array import array

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avatar_runtime import pcm, sdp
from avatar_tts import audio, voices

SESSION = ["v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=-", "t=0 0", "a=group:BUNDLE 0"]
MEDIA = ["m=audio 9 UDP/TLS/RTP/SAVPF 111", "c=IN IP4 0.0.0.0", "a=mid:0"]
HOST = "a=candidate:1 1 udp 2113937151 192.0.2.7 50000 typ host"
MDNS = "a=candidate:2 1 udp 2113937151 5f1c0f1e-aaaa-bbbb-cccc-0123456789ab.local 50001 typ host"
END = "a=end-of-candidates"


def offer(*candidates: str) -> str:
    return "".join(f"{line}\r\n" for line in [*SESSION, *MEDIA, *candidates])


@pytest.mark.parametrize(
    ("candidates", "left"),
    [
        ((HOST,), (HOST, END)),
        ((HOST, END), (HOST, END)),
        ((MDNS,), ()),
        ((MDNS, END), ()),
        ((HOST, MDNS, END), (HOST,)),
        ((), ()),
        ((END,), ()),
    ],
)
def test_the_end_of_candidates_is_said_where_it_is_true(candidates: tuple[str, ...], left: tuple[str, ...]) -> None:
    repaired = sdp.repair_offer(offer(*candidates))
    assert repaired == offer(*left)
    assert sdp.repair_offer(offer(*candidates).replace("\r\n", "\n")) == repaired


@given(st.text(max_size=300))
def test_any_text_can_be_repaired(text: str) -> None:
    sdp.repair_offer(text)
    sdp.has_media(text)


def test_every_section_is_repaired_once() -> None:
    video = "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\n"
    once = sdp.repair_offer(offer(HOST) + video)
    assert once == offer(HOST, END) + video
    assert sdp.repair_offer(once) == once


def test_media_is_asked_for() -> None:
    assert sdp.has_media(offer())
    assert not sdp.has_media("v=0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n")


def wav_file(samples: bytes, rate: int = 16000, width: int = 2, channels: int = 1) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(samples)
    return buffer.getvalue()


def sine(rate: int, hertz: float = 440, seconds: float = 0.5) -> pcm.Samples:
    return (12000 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)).astype(np.int16)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_wav_of_all_widths(width: int) -> None:
    wanted = sine(16000)
    if width == 1:
        raw = ((wanted >> 8) + 128).astype(np.uint8).tobytes()
    else:
        wide = (wanted.astype("<i4") << 16).view(np.uint8).reshape(-1, 4)
        raw = wide[:, 4 - width :].tobytes()
    got, rate = pcm.decode_wav(wav_file(raw, width=width))
    assert rate == 16000
    assert np.abs(got.astype(int) - wanted).max() <= (256 if width == 1 else 1)


def test_stereo_becomes_mono_and_streamed_headers_are_mended() -> None:
    wanted = sine(24000)
    raw = np.repeat(wanted, 2).tobytes()
    for size in (None, 0, 0xFFFFFFFF):
        data = bytearray(wav_file(raw, 24000, channels=2))
        if size is not None:
            struct.pack_into("<I", data, 40, size)
        got, rate = pcm.decode_wav(bytes(data))
        assert rate == 24000
        assert np.abs(got.astype(int) - wanted).max() <= 1


@pytest.mark.parametrize(
    "data", [b"", b"RIFF", b"ID3" + bytes(100), b"RIFF\0\0\0\0WAVE" + bytes(60), wav_file(b"", 100)]
)
def test_what_is_no_wav_is_an_error(data: bytes) -> None:
    with pytest.raises(pcm.AudioError):
        pcm.decode_wav(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_audio_or_an_error(data: bytes) -> None:
    for raw in (data, wav_file(b"\0" * 8)[:36] + data, b"RIFF\0\0\0\0WAVEfmt " + data):
        try:
            samples, rate = pcm.decode_wav(raw)
        except pcm.AudioError:
            continue
        assert len(pcm.resample(samples, rate)) <= len(samples) * 4 + 4


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 24000, 32000, 44100, 48000, 12345])
def test_resampling_keeps_pitch_length_and_time(rate: int) -> None:
    got, wanted = pcm.resample(sine(rate), rate), sine(16000)
    assert abs(len(got) - len(wanted)) <= 2
    inner = slice(800, len(wanted) - 800)
    assert np.abs(got[inner].astype(int) - wanted[inner]).max() < 700


def test_resampling_down_leaves_no_alias() -> None:
    got = pcm.resample(sine(48000, hertz=11000), 48000)
    assert np.abs(got[800:-800].astype(int)).max() < 300


def test_loudness_knows_silence_from_speech() -> None:
    sound = np.concatenate([np.zeros(8000, np.int16), sine(16000), np.zeros(8000, np.int16)])
    loud = pcm.loudness(sound)
    assert len(loud) == 150
    assert loud[:40].max() < 0.05
    assert loud[60:90].min() > 0.9
    assert not pcm.loudness(np.full(16000, 3, np.int16)).any()


def test_the_tts_servers_resampler() -> None:
    got = np.array(audio.resample(array("h", sine(22050).tobytes()), 22050, 24000))
    wanted = sine(24000)
    assert abs(len(got) - len(wanted)) <= 1
    assert np.abs(got[10:-10] - wanted[10 : len(got) - 10]).max() < 60


@pytest.mark.parametrize(
    ("name", "espeak"),
    [
        ("en-US-BrianNeural", "en-us+m3"),
        ("brian", "en-us+m3"),
        ("en-GB-SoniaNeural", "en-gb+f2"),
        ("de-DE-KatjaNeural", "de+f2"),
        ("zh-CN-YunxiaNeural", "cmn+m7"),
        ("en-US-AvaMultilingualNeural", "en-us+f4"),
        ("fr+f3", "fr+f3"),
        ("", voices.DEFAULT.espeak),
        (None, voices.DEFAULT.espeak),
        ("../../etc/passwd", voices.DEFAULT.espeak),
        ("no such voice", voices.DEFAULT.espeak),
    ],
)
def test_timbres_become_voices(name: str | None, espeak: str) -> None:
    assert voices.resolve(name).espeak == espeak
