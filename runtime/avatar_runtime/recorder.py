"""A session's pictures and sound as an MP4 file, encoded in a thread of its own."""

import contextlib
import logging
import queue
import threading
from fractions import Fraction
from pathlib import Path

import av
import av.container
import av.error
import numpy as np
from av import AudioFrame, VideoFrame
from numpy.typing import NDArray

from avatar_runtime.pcm import RATE, Samples

log = logging.getLogger("avatar_runtime")

LONGEST = 600.0
"""Seconds after which a recording ends by itself."""

KEPT = 20
"""Recordings that stay in the folder; the oldest go first."""

WAITING = 150
"""Frames that may wait for the encoder (2 s of both kinds). What comes beyond them is left out of the file."""

_VIDEO, _AUDIO = Fraction(1, 90000), Fraction(1, RATE)
_Item = tuple[float, NDArray[np.uint8] | None, Samples | None]


class RecordError(Exception):
    """There is no recording; the text is for the client."""


def path_of(folder: Path, sessionid: str) -> Path:
    """Where the recording of a session is, once it has ended."""
    return folder / f"{sessionid}.mp4"


class Recorder:
    """Takes frames until `stop`; none of its methods but that waits. Times are seconds of the session's media."""

    def __init__(self, folder: Path, sessionid: str) -> None:
        self._target = path_of(folder, sessionid)
        self._part = self._target.with_suffix(".part")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file: av.container.OutputContainer = av.open(str(self._part), "w", format="mp4")
        except (OSError, av.error.FFmpegError) as error:
            raise RecordError(f"cannot record to {folder}: {error}; start the runtime with --record_dir") from error
        self._items: queue.Queue[_Item | None] = queue.Queue(WAITING)
        self._began: float | None = None
        self._broken = ""
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def video(self, t: float, planes: NDArray[np.uint8]) -> None:
        """A picture as YUV planes, shown from `t` on."""
        self._put((t, planes, None))

    def audio(self, t: float, samples: Samples) -> None:
        """16 kHz samples that are heard from `t` on."""
        self._put((t, None, samples))

    def _put(self, item: _Item) -> None:
        if self._began is None:
            self._began = item[0]
        # The other track may be a frame behind the first one.
        if 0 <= item[0] - self._began <= LONGEST:
            with contextlib.suppress(queue.Full):
                self._items.put_nowait((item[0] - self._began, *item[1:]))

    def stop(self) -> Path:
        """Finish the file and return where it is; blocks until it is written. `RecordError` when there is none."""
        while self._thread.is_alive():
            with contextlib.suppress(queue.Full):
                self._items.put(None, timeout=1)
                break
        self._thread.join(30)
        if self._broken or self._thread.is_alive():
            self._part.unlink(missing_ok=True)
            raise RecordError(f"the recording failed: {self._broken or 'the encoder does not end'}")
        self._part.replace(self._target)
        _forget(self._target.parent)
        return self._target

    def _run(self) -> None:
        try:
            with self._file as file:
                _encode(file, self._items)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            log.warning("recording failed file=%s error=%s", self._target, error)
            self._broken = f"{type(error).__name__} {error}"


def _encode(file: av.container.OutputContainer, items: "queue.Queue[_Item | None]") -> None:
    """Write what comes until None comes."""
    sound = file.add_stream("aac", rate=RATE, layout="mono")
    picture = file.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "26"})
    picture.pix_fmt, picture.time_base = "yuv420p", _VIDEO
    sized = False
    # An encoder must know the size of the pictures before the file begins: the sound that came first waits for it.
    early: list[AudioFrame] = []
    while (item := items.get()) is not None:
        t, planes, samples = item
        if planes is not None:
            if not sized:
                picture.height, picture.width = planes.shape[0] * 2 // 3, planes.shape[1]
                sized = True
                for frame in early:
                    file.mux(sound.encode(frame))
            shown = VideoFrame.from_ndarray(planes, format="yuv420p")
            shown.pts, shown.time_base = round(t / _VIDEO), _VIDEO
            file.mux(picture.encode(shown))
        elif samples is not None:
            heard = AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
            heard.sample_rate, heard.pts, heard.time_base = RATE, round(t / _AUDIO), _AUDIO
            if sized:
                file.mux(sound.encode(heard))
            elif len(early) < WAITING:
                early.append(heard)
    if not sized:
        raise ValueError("no picture came")
    file.mux(picture.encode(None))
    file.mux(sound.encode(None))


def _forget(folder: Path) -> None:
    """Keep the newest recordings only."""
    found = sorted(folder.glob("*.mp4"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in found[KEPT:]:
        old.unlink(missing_ok=True)
