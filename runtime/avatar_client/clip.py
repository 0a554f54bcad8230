"""Saves a recording as a clip and a still picture."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from PIL import Image

from avatar_client.analysis import Report
from avatar_client.recording import Recording

AROUND = 0.5
"""Seconds of the clip before and after the speech."""

_VIDEO_CLOCK = Fraction(1, 90000)
_PIECE = 960


def save_still(recording: Recording, report: Report, path: Path) -> Path:
    """Write the picture with the widest mouth as PNG."""
    Image.fromarray(recording.pictures[report.widest].rgb).save(path)
    return path


def save_clip(recording: Recording, report: Report, folder: Path) -> Path:
    """Write the speech as ``clip.mp4`` (H.264, AAC), or ``clip.webm`` where the bundled ffmpeg lacks those.

    Sound and picture lie as they came, on the recording's common timeline. Needs a recording with colour.
    """
    if _has("libx264") and _has("aac"):
        path, video_codec, audio_codec, options = folder / "clip.mp4", "libx264", "aac", {"crf": "18", "preset": "fast"}
    else:
        path, video_codec, audio_codec, options = folder / "clip.webm", "libvpx", "libopus", {"crf": "10", "b": "2M"}
    video, (samples, rate, audio_zero) = recording.video_times(), recording.audio_track()
    zero = min(float(video[0]), audio_zero)
    begin, end = zero + max(0.0, report.start - AROUND), zero + report.end + AROUND
    shown = [i for i, t in enumerate(video) if begin <= t <= end]
    left = max(0, round((begin - audio_zero) * rate))
    heard = samples[left : max(left, round((end - audio_zero) * rate))]
    audio_start = audio_zero + left / rate - begin
    with av.open(str(path), "w") as container:
        picture = cast(av.VideoStream, container.add_stream(video_codec, rate=25, options=options))
        picture.width, picture.height, picture.pix_fmt = report.width, report.height, "yuv420p"
        picture.time_base = _VIDEO_CLOCK
        sound = cast(av.AudioStream, container.add_stream(audio_codec, rate=rate))
        sound.layout = "mono"
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
