"""The espeak-ng library through ctypes.

The library keeps its state in globals and is not re-entrant: one `Engine` per process, and its calls are
serialised by a lock. Synthesis takes about 2 ms per second of speech, so one lane is enough for hundreds of
avatars. ctypes releases the GIL while the library computes.
"""

import ctypes
import threading
from array import array
from typing import Any

import espeakng_loader

from avatar_tts.speech import EspeakError, Phoneme, Speech, Word
from avatar_tts.voices import DEFAULT, Voice

_OUTPUT_SYNCHRONOUS = 2
# phoneme events, spelled in IPA, and no exit() from inside the library
_INIT_FLAGS = 0x0001 | 0x0002 | 0x8000
_CHARS_UTF8 = 1
_EVENT_END_OF_LIST = 0
_EVENT_WORD = 1
_EVENT_PHONEME = 7
_PARAM_RATE, _PARAM_PITCH, _PARAM_RANGE = 1, 3, 4


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class Engine:
    """The one espeak-ng of this process."""

    def __init__(self) -> None:
        try:
            lib: Any = ctypes.CDLL(espeakng_loader.get_library_path())
        except OSError as error:
            raise EspeakError(f"espeak-ng cannot be loaded: {error}") from error
        data = espeakng_loader.get_data_path().encode()
        rate = int(lib.espeak_Initialize(_OUTPUT_SYNCHRONOUS, 0, data, _INIT_FLAGS))
        if rate <= 0:
            raise EspeakError(f"espeak-ng found no voice data in {data.decode()}")
        self._lib = lib
        self._lock = threading.Lock()
        self._samples: array[int] = array("h")
        self._phonemes: list[Phoneme] = []
        self._words: list[Word] = []
        self.rate = rate
        # The library keeps the pointer: without this reference it would call freed memory.
        self._callback = _Callback(self._receive)
        lib.espeak_SetSynthCallback(self._callback)

    def _receive(self, wave: Any, count: int, events: Any) -> int:
        if wave and count > 0:
            self._samples.frombytes(ctypes.string_at(wave, count * 2))
        index = 0
        while events[index].type != _EVENT_END_OF_LIST:
            event = events[index]
            if event.type == _EVENT_PHONEME:
                # The field holds at most eight bytes of UTF-8 and may cut the last character.
                ipa = event.id.decode("utf-8", "ignore")
                self._phonemes.append(Phoneme(event.audio_position / 1000, ipa))
            elif event.type == _EVENT_WORD:
                # The library counts characters from 1.
                self._words.append(Word(event.audio_position / 1000, event.text_position - 1, event.length))
            index += 1
        return 0

    def speak(self, text: str, voice: Voice) -> Speech:
        """Synthesise `text`. Blocks for about 1/500 of the speech's length; safe from any thread.

        Raises `EspeakError` when the library refuses.
        """
        raw = text.replace("\0", " ").encode()
        with self._lock:
            if self._lib.espeak_SetVoiceByName(voice.espeak.encode()) != 0:
                self._lib.espeak_SetVoiceByName(DEFAULT.espeak.encode())
            self._lib.espeak_SetParameter(_PARAM_RATE, voice.rate, 0)
            self._lib.espeak_SetParameter(_PARAM_PITCH, voice.pitch, 0)
            self._lib.espeak_SetParameter(_PARAM_RANGE, voice.range, 0)
            self._samples, self._phonemes, self._words = array("h"), [], []
            code = self._lib.espeak_Synth(raw, len(raw) + 1, 0, 0, 0, _CHARS_UTF8, None, None)
            samples, phonemes, words = self._samples, tuple(self._phonemes), tuple(self._words)
        if code != 0:
            raise EspeakError(f"espeak-ng refused the text (code {code})")
        return Speech(self.rate, samples, phonemes, words)
