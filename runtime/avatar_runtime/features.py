"""Draws what moves by itself: the mouth and the eyes, straight into a small crop of the posed head."""

import math
from dataclasses import dataclass

from avatar_runtime.avatar import Face
from avatar_runtime.drawing import Pen, Point, ellipse, mix, rgb, spline
from avatar_runtime.motion import LIDS

CAVITY = (62, 14, 22)
"""The dark of an open mouth: much darker than any lip, so that an opening can be measured in a picture."""

_TEETH = (247, 243, 236)
_TONGUE = (196, 84, 88)


@dataclass(frozen=True)
class Mouth:
    """A mouth shape in steps (hashable, so that its picture can be kept): each 0–`STEPS`."""

    STEPS = 12

    open: int
    width: int
    round: int

    @classmethod
    def of(cls, opening: float, width: float, rounding: float) -> "Mouth":
        """Quantise a shape. Width and rounding matter less to the eye and get fewer steps."""
        coarse = cls.STEPS // 4
        return cls(
            _step(opening, cls.STEPS), _step(width, cls.STEPS // 2) * 2, _step(rounding, cls.STEPS // coarse) * coarse
        )


def _step(value: float, steps: int) -> int:
    return round(max(0.0, min(1.0, value)) * steps)


def draw_mouth(pen: Pen, face: Face, mouth: Mouth) -> None:
    """Draw lips, teeth and tongue."""
    opening, spread, rounding = (v / Mouth.STEPS for v in (mouth.open, mouth.width, mouth.round))
    x, y = face.centre_x, face.mouth_y
    half = face.mouth_width / 2 * (0.84 + 0.32 * spread) * (1 - 0.36 * rounding) * (1 - 0.06 * opening)
    gap = opening * face.mouth_height * (1 - 0.15 * rounding)
    lip = face.lip_thickness * (1 + 0.25 * rounding)
    corner = y - 0.010 * (1 - 0.6 * opening) * (1 - rounding)  # a friendly mouth at rest
    upper, lower = y - gap * 0.34, y + gap * 0.66
    colour = rgb(face.lip)
    dark, light = mix(colour, (70, 10, 20), 0.32), mix(colour, (255, 235, 230), 0.28)

    shadow_y = lower + lip * 1.9 + 0.006
    pen.fill(ellipse(x, shadow_y, half * 0.55, 0.007, 24), rgb(face.skin_shadow), 0.55)
    for side in (-1, 1):
        pen.fill(ellipse(x + side * (half + 0.006), corner, 0.006, 0.005, 12), rgb(face.skin_shadow), 0.6)

    inner_top = [_arc(x, corner, half * 0.94, upper, u) for u in _range()]
    inner_low = [_arc(x, corner, half * 0.94, lower, u) for u in _range()]
    bow = 0.0035
    outer_top = spline([
        (x - half, corner), (x - half * 0.55, upper - lip * 0.75), (x - half * 0.20, upper - lip - bow),
        (x, upper - lip + bow * 0.4), (x + half * 0.20, upper - lip - bow), (x + half * 0.55, upper - lip * 0.75),
        (x + half, corner),
    ], closed=False, steps=6)  # fmt: skip
    outer_low = spline([
        (x - half, corner), (x - half * 0.55, lower + lip * 0.95), (x, lower + lip * 1.45),
        (x + half * 0.55, lower + lip * 0.95), (x + half, corner),
    ], closed=False, steps=6)  # fmt: skip
    pen.fill(outer_top + inner_top[::-1], mix(colour, dark, 0.35))
    pen.fill(outer_low + inner_low[::-1], colour)
    pen.fill(ellipse(x - half * 0.12, lower + lip * 0.72, half * 0.30, lip * 0.26, 20), light, 0.75)
    if gap * 352 < 1.2:
        pen.line(inner_top, mix(dark, CAVITY, 0.45), 0.0058)
        return
    hole = inner_top + inner_low[::-1]
    teeth_low = upper + min(0.017, gap * 0.27)
    teeth = [
        (x - half, upper - 0.03),
        (x + half, upper - 0.03),
        *(_arc(x, upper, half * 1.05, teeth_low, u) for u in _range()[::-1]),
    ]
    tongue = ellipse(x, lower + 0.010 - 0.004 * opening, half * 0.58, 0.010 + gap * 0.22, 28)
    layers: list[tuple[list[Point], tuple[int, int, int]]] = [(hole, CAVITY)]
    if opening > 0.3:
        layers.append((tongue, mix(CAVITY, _TONGUE, min(1.0, (opening - 0.3) * 2.5))))
    if opening > 0.12 and rounding < 0.7:
        layers.append((teeth, mix(CAVITY, _TEETH, min(1.0, (opening - 0.08) * 5) * (1 - rounding * 0.8))))
    pen.fill_inside(hole, layers)


def _range() -> list[float]:
    return [i / 12 - 1 for i in range(25)]


def _arc(x: float, y: float, half: float, top: float, u: float) -> Point:
    return x + half * u, y + (top - y) * (1 - u * u) ** 0.75


def draw_eyes(pen: Pen, face: Face, lid: int, gaze: int, brow: int) -> None:
    """Draw both eyes, the brows and the glasses.

    `lid` runs from 0 (open) to LIDS − 1 (shut), `gaze` is −1, 0 or 1, `brow` 0 (at rest) to 2 (raised).
    """
    shut = lid / (LIDS - 1)
    for side in (-1, 1):
        x = face.centre_x + side * face.eye_gap / 2
        _draw_eye(pen, face, x, side, shut, gaze)
        rise = 0.004 * brow
        y = face.eye_y - face.eye_size * 1.12 - rise
        wide = face.eye_size * 1.05
        line = spline([
            (x - side * wide * 0.92, y + 0.003), (x - side * wide * 0.2, y - 0.005), (x + side * wide * 0.5, y - 0.006),
            (x + side * wide * 1.08, y + 0.011),
        ], closed=False, steps=8)  # fmt: skip
        thick = face.brow_thickness
        under = [(px, py + thick * (0.95 - 0.65 * i / len(line))) for i, (px, py) in enumerate(line)]
        pen.fill(line + under[::-1], rgb(face.brow), 0.92)
    if face.glasses:
        _draw_glasses(pen, face)


def _draw_eye(pen: Pen, face: Face, x: float, side: int, shut: float, gaze: int) -> None:
    y, wide = face.eye_y, face.eye_size
    open_up, open_low = wide * 0.52 * (1 - shut), wide * 0.43 * (1 - 0.55 * shut)
    line = mix(rgb(face.brow), (20, 10, 10), 0.5)
    steps = [i / 10 - 1 for i in range(21)]
    tilt = -0.004 * side
    up = [(x + wide * u, y + tilt * u - open_up * (1 - abs(u) ** 2.3) + 0.012 * shut * (1 - u * u)) for u in steps]
    low = [(x + wide * u, y + tilt * u + open_low * (1 - abs(u) ** 2.0)) for u in steps]
    fold = [(px, py - wide * 0.24 * (1 - 0.5 * shut)) for px, py in up[2:-2]]
    pen.line(fold, rgb(face.skin_shadow), 0.0045, 0.75)
    if shut < 0.95:
        # The upper lid covers the top of the iris: with all of it to be seen a face stares.
        ix, iy = x + gaze * wide * 0.16, y - wide * 0.06
        radius = wide * 0.54
        iris = rgb(face.eye)
        layers: list[tuple[list[Point], tuple[int, int, int]]] = [
            (up + low[::-1], (250, 249, 247)),
            (
                [(px, py + wide * 0.14) for px, py in up] + [(px, py - wide * 0.3) for px, py in up[::-1]],
                (214, 212, 214),
            ),
            (ellipse(ix, iy, radius, radius), mix(iris, (0, 0, 0), 0.55)),
            (ellipse(ix, iy, radius * 0.88, radius * 0.88), iris),
            (ellipse(ix, iy + radius * 0.28, radius * 0.58, radius * 0.50), mix(iris, (255, 255, 255), 0.28)),
            (ellipse(ix, iy, radius * 0.46, radius * 0.46), (22, 16, 18)),
            (ellipse(ix - radius * 0.34, iy - radius * 0.36, radius * 0.24, radius * 0.24, 20), (255, 255, 255)),
            (ellipse(ix + radius * 0.34, iy + radius * 0.36, radius * 0.11, radius * 0.11, 16), (235, 240, 245)),
        ]
        pen.fill_inside(up + low[::-1], layers)
        pen.line(low[3:-3], mix(rgb(face.skin_shadow), line, 0.35), 0.003, 0.8)
    lash_y = 0.010 if face.jaw > 0.3 else 0.003
    lash = (
        [*up, (x + side * wide * 1.14, y + tilt * side - lash_y)]
        if side > 0
        else [(x - wide * 1.14, y - tilt - lash_y), *up]
    )
    pen.line(lash, line, 0.0085 if face.jaw > 0.3 else 0.0065)


def _square(value: float) -> float:
    """Push a cosine outwards: a circle drawn with it has flat sides."""
    return math.copysign(abs(value) ** 0.7, value)


def _draw_glasses(pen: Pen, face: Face) -> None:
    frame = (52, 44, 44)
    wide, high = face.eye_size * 1.42, face.eye_size * 1.12
    y = face.eye_y + 0.006
    for side in (-1, 1):
        x = face.centre_x + side * face.eye_gap / 2
        rim = [
            (x + wide * _square(math.cos(a)), y + high * _square(math.sin(a)))
            for a in (2 * math.pi * i / 56 for i in range(57))
        ]
        pen.fill(rim, (255, 255, 255), 0.10)
        pen.line(rim, frame, 0.0085)
        pen.line(
            [(x + side * wide, y - 0.012), (face.centre_x + side * face.face_width * 0.49, y - 0.020)], frame, 0.0085
        )
    inner = face.eye_gap / 2 - wide
    pen.line(
        spline(
            [(face.centre_x - inner, y - 0.006), (face.centre_x, y - 0.016), (face.centre_x + inner, y - 0.006)],
            closed=False,
        ),
        frame,
        0.008,
    )
