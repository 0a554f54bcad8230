"""How far a mouth is open, measured in the pixels alone. Pure numpy.

Nothing is known about the face but that it looks at the camera: the mouth is where the lower part of the picture
changes fastest, and its opening is what is dark there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.uint8]
Series = NDArray[np.float64]

# Where a mouth can be in a portrait: parts of height and width.
_TOP, _BOTTOM, _LEFT, _RIGHT = 0.45, 0.88, 0.22, 0.78
_SAMPLES = 120


@dataclass(frozen=True)
class Box:
    """A part of a picture in pixels; ends are exclusive."""

    top: int
    bottom: int
    left: int
    right: int

    def of(self, luma: Plane) -> Plane:
        """Cut it out."""
        return luma[self.top : self.bottom, self.left : self.right]


def find(pictures: Sequence[Plane]) -> Box:
    """Return the box around the mouth: where consecutive pictures differ most in the lower middle.

    Slow movement (the head sways) changes little from one picture to the next, light that comes and goes changes
    all pixels alike; a talking mouth does neither. With a still face the whole search area is returned.
    """
    height, width = pictures[0].shape
    area = Box(int(height * _TOP), int(height * _BOTTOM), int(width * _LEFT), int(width * _RIGHT))
    activity = np.zeros((area.bottom - area.top, area.right - area.left))
    step = max(1, len(pictures) // _SAMPLES)
    for index in range(0, len(pictures) - 1, step):
        before, after = area.of(pictures[index]).astype(np.int16), area.of(pictures[index + 1]).astype(np.int16)
        difference = np.abs(after - before)
        activity += np.where(difference > 12, difference, 0)
    # Edges that sway are thin lines of activity, a mouth is a patch: a blur of its size tells them apart.
    activity = _blur(_blur(activity, height // 30).T, height // 30).T
    peak = float(activity.max())
    if peak <= 0:
        return area
    row, column = np.unravel_index(int(activity.argmax()), activity.shape)
    active = activity > 0.3 * peak
    rows, columns = _run(active[:, column], int(row)), _run(active[row], int(column))
    margin = max(2, height // 50)
    return Box(
        max(area.top, area.top + rows[0] - margin), min(area.bottom, area.top + rows[1] + margin),
        max(area.left, area.left + columns[0] - margin), min(area.right, area.left + columns[1] + margin),
    )  # fmt: skip


def _blur(values: Series, size: int) -> Series:
    """A moving average over ``size`` rows."""
    window = np.ones(max(1, size)) / max(1, size)
    return np.apply_along_axis(lambda column: np.convolve(column, window, mode="same"), 0, values)


def _run(active: NDArray[np.bool_], at: int) -> tuple[int, int]:
    """The unbroken run of true values around an index: its first index and the one after its last."""
    idle = np.flatnonzero(~active)
    before, after = idle[idle < at], idle[idle > at]
    return (int(before[-1]) + 1 if len(before) else 0), (int(after[0]) if len(after) else len(active))


def opening(pictures: Sequence[Plane], box: Box | None = None) -> Series:
    """Return how far the mouth is open in each picture: the dark part of the mouth's box, 0–1.

    What counts as dark lies half way between the skin (the box's median) and its darkest moments. Teeth and tongue
    lie inside the dark and are counted with it: in each column everything between its first and last dark pixel.
    """
    if not pictures:
        return np.zeros(0)
    box = find(pictures) if box is None else box
    cut = np.stack([box.of(p) for p in pictures])
    skin, darkest = float(np.median(cut)), float(np.percentile(cut, 0.3))
    dark = cut < (skin + darkest) / 2 - 0.1 * (skin - darkest)
    rows = cut.shape[1]
    first = np.where(dark.any(axis=1), dark.argmax(axis=1), rows)
    last = np.where(dark.any(axis=1), rows - dark[:, ::-1].argmax(axis=1), rows)
    areas = (last - first).sum(axis=1)
    result: Series = areas / (cut.shape[1] * cut.shape[2])
    return result
