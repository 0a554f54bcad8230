"""Saves a recording as a clip and a still picture."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import av.container
import numpy as np
from PIL import Image

from avatar_client.analysis import Report
from avatar_client.recording import Recording

AROUND = 0.5
"""Seconds of the clip before and after the speech."""


@dataclass(frozen=True)
class Form:
    """The codecs of a clip; without ``video`` it is sound alone."""

    video: str
    audio: str
    options: tuple[tuple[str, str], ...] = ()


_H264 = Form("libx264", "aac", (("crf", "18"), ("preset", "fast")))

FORMS = {
    ".mp4": _H264,
    ".mkv": _H264,
    ".webm": Form("libvpx", "libopus", (("crf", "10"), ("b", "2M"))),
    ".wav": Form("", "pcm_s16le"),
    ".ogg": Form("", "libopus"),
    ".flac": Form("", "flac"),
}
"""What a clip may be, by the suffix of its name."""

_VIDEO_CLOCK = Fraction(1, 90000)
_PIECE = 960


def save_still(recording: Recording, report: Report, path: Path) -> Path:
    """Write the picture with the widest mouth as PNG."""
    Image.fromarray(recording.pictures[report.widest].rgb).save(path)
    return path


def save_clip(recording: Recording, report: Report, folder: Path) -> Path:
    """Write the speech as ``clip.mp4`` (H.264, AAC), or ``clip.webm`` where the bundled ffmpeg lacks those.

    Needs a recording with colour.
    """
    name = "clip.mp4" if _has("libx264") and _has("aac") else "clip.webm"
    return write_clip(recording, report, folder / name)


def form_of(path: Path) -> Form:
    """The codecs for a file of that name; ValueError names the suffixes that there are."""
    form = FORMS.get(path.suffix.lower())
    if form is None:
        raise ValueError(f"{path.name}: a clip's name ends with one of {', '.join(FORMS)}")
    missing = [codec for codec in (form.video, form.audio) if codec and not _has(codec)]
    if missing:
        raise ValueError(f"{path.name}: the ffmpeg of this installation has no {' and no '.join(missing)}")
    return form


def write_clip(recording: Recording, report: Report, path: Path) -> Path:
    """Write the speech to ``path``, in the form that its suffix says; ValueError when there is none.

    Sound and picture lie as they came, on the recording's common timeline. Pictures need a recording with colour.
    """
    form = form_of(path)
    video, (samples, rate, audio_zero) = recording.video_times(), recording.audio_track()
    zero = min(float(video[0]), audio_zero)
    begin, end = zero + max(0.0, report.start - AROUND), zero + report.end + AROUND
    shown = [i for i, t in enumerate(video) if begin <= t <= end] if form.video else []
    left = max(0, round((begin - audio_zero) * rate))
    heard = samples[left : max(left, round((end - audio_zero) * rate))]
    audio_start = audio_zero + left / rate - begin
    with av.open(str(path), "w") as container:
        picture = _video_stream(container, form, report) if form.video else None
        sound = cast(av.AudioStream, container.add_stream(form.audio, rate=rate))
        sound.layout = "mono"
        if picture is not None:
            for index in shown:
                frame = _copy(recording.pictures[index].frame, report)
                frame.pts, frame.time_base = round(float(video[index] - begin) / _VIDEO_CLOCK), _VIDEO_CLOCK
                container.mux(picture.encode(frame))
            container.mux(picture.encode(None))
        for at in range(0, len(heard), _PIECE):
            block = np.ascontiguousarray(heard[at : at + _PIECE]).reshape(1, -1)
            audio = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
            audio.sample_rate, audio.time_base = rate, Fraction(1, rate)
            audio.pts = round(audio_start * rate) + at
            container.mux(sound.encode(audio))
        container.mux(sound.encode(None))
    return path


def _video_stream(container: av.container.OutputContainer, form: Form, report: Report) -> av.VideoStream:
    picture = cast(av.VideoStream, container.add_stream(form.video, rate=25, options=dict(form.options)))
    picture.width, picture.height, picture.pix_fmt = report.width, report.height, "yuv420p"
    picture.time_base = _VIDEO_CLOCK
    return picture


def _copy(frame: av.VideoFrame | None, report: Report) -> av.VideoFrame:
    """A frame of the clip's size with timestamps of its own: the received one belongs to the recording."""
    if frame is None:
        raise ValueError("this recording keeps no colour: connect with colour=True")
    if (frame.width, frame.height, frame.format.name) != (report.width, report.height, "yuv420p"):
        return frame.reformat(width=report.width, height=report.height, format="yuv420p")
    return av.VideoFrame.from_ndarray(frame.to_ndarray(), format="yuv420p")


def _has(codec: str) -> bool:
    try:
        av.Codec(codec, "w")
    except (ValueError, av.FFmpegError):
        return False
    return True
