"""Geometry and colour helpers for drawing with Pillow. Points are (x, y) in parts of the picture's side."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Point = tuple[float, float]
Colour = tuple[int, int, int]


def rgb(text: str) -> Colour:
    """Return the colour of ``#rrggbb``."""
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def mix(a: Colour, b: Colour, part: float) -> Colour:
    """Return `a` with `part` (0–1) of `b`."""
    return (
        round(a[0] + (b[0] - a[0]) * part),
        round(a[1] + (b[1] - a[1]) * part),
        round(a[2] + (b[2] - a[2]) * part),
    )


def spline(points: Sequence[Point], *, closed: bool = True, steps: int = 10) -> list[Point]:
    """Return a smooth line (Catmull-Rom) through the points."""
    count = len(points)
    result: list[Point] = []
    for i in range(count if closed else count - 1):
        if closed:
            p0, p1, p2, p3 = (points[(i + k - 1) % count] for k in range(4))
        else:
            p0, p1, p2, p3 = (points[min(max(i + k - 1, 0), count - 1)] for k in range(4))
        for step in range(steps):
            t = step / steps
            result.append((_catmull(p0[0], p1[0], p2[0], p3[0], t), _catmull(p0[1], p1[1], p2[1], p3[1], t)))
    if not closed:
        result.append(points[-1])
    return result


def _catmull(a: float, b: float, c: float, d: float, t: float) -> float:
    return b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))


def ellipse(cx: float, cy: float, rx: float, ry: float, steps: int = 48) -> list[Point]:
    """Return an ellipse's outline."""
    return [
        (cx + rx * math.cos(2 * math.pi * i / steps), cy + ry * math.sin(2 * math.pi * i / steps)) for i in range(steps)
    ]


def mask(points: Sequence[Point], size: int, blur: float = 0.0) -> Image.Image:
    """Return an antialiased mask (mode L, `size` square) of a polygon; `blur` in parts of the side."""
    big = Image.new("L", (size * 2, size * 2), 0)
    ImageDraw.Draw(big).polygon([(x * size * 2, y * size * 2) for x, y in points], fill=255)
    small = big.reduce(2)
    return small.filter(ImageFilter.GaussianBlur(blur * size)) if blur else small


def vertical(size: int, top: Colour, bottom: Colour, start: float = 0.0, end: float = 1.0) -> Image.Image:
    """Return a square that fades from `top` at height `start` to `bottom` at height `end`."""
    ramp = np.clip((np.linspace(0, 1, size, dtype=np.float32) - start) / (end - start), 0, 1)[:, None, None]
    column = np.array(top, np.float32) * (1 - ramp) + np.array(bottom, np.float32) * ramp
    return Image.fromarray(np.broadcast_to(column, (size, size, 3)).astype(np.uint8), "RGB")


def radial(size: int, centre: Point, radius: float, inner: Colour, outer: Colour) -> Image.Image:
    """Return a square that fades from `inner` at the centre to `outer` at the radius."""
    axis = np.linspace(0, 1, size, dtype=np.float32)
    distance = np.hypot(axis[None, :] - centre[0], axis[:, None] - centre[1]) / radius
    part = np.clip(distance, 0, 1)[..., None] ** 1.4
    values = np.array(inner, np.float32) * (1 - part) + np.array(outer, np.float32) * part
    return Image.fromarray(values.astype(np.uint8), "RGB")


def soft_shade(shape: Image.Image, reach: float, shift: Point) -> Image.Image:
    """Return a mask that is strong near the edge of `shape`, more so on the side that `shift` points to."""
    size = shape.width
    blurred = shape.filter(ImageFilter.GaussianBlur(reach * size))
    # A shape that leaves the picture has no edge there: rows and columns from outside repeat the last ones.
    right, down = round(shift[0] * size), round(shift[1] * size)
    moved = np.pad(np.asarray(blurred, np.float32), ((0, down), (0, right)), mode="edge")[down:, right:]
    values = moved / 255
    edge = np.clip((0.98 - values) / 0.55, 0, 1) * (np.asarray(shape, np.float32) / 255)
    return Image.fromarray((edge * 255).astype(np.uint8), "L")


def to_yuv(picture: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """Convert RGB (h, w, 3), h and w even, to planes Y, U, V (4:2:0, BT.601, limited range)."""
    values = picture.astype(np.float32)
    red, green, blue = values[..., 0], values[..., 1], values[..., 2]
    y = 16 + 0.25679 * red + 0.50413 * green + 0.09791 * blue
    small = (values[::2, ::2] + values[1::2, ::2] + values[::2, 1::2] + values[1::2, 1::2]) * np.float32(0.25)
    red, green, blue = small[..., 0], small[..., 1], small[..., 2]
    u = 128 - 0.14822 * red - 0.29099 * green + 0.43922 * blue
    v = 128 + 0.43922 * red - 0.36779 * green - 0.07143 * blue
    return _bytes(y), _bytes(u), _bytes(v)


def _bytes(plane: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.clip(np.round(plane), 0, 255).astype(np.uint8)


class Pen:
    """Draws antialiased polygons into a crop of a picture: everything happens at four times the size."""

    SCALE = 4

    def __init__(self, picture: Image.Image, box: tuple[int, int, int, int], place: Callable[[Point], Point]) -> None:
        self._box = box
        self._place = place
        self._size = picture.width
        crop = picture.crop(box)
        self._image = crop.resize((crop.width * self.SCALE, crop.height * self.SCALE), Image.Resampling.NEAREST)
        self._draw = ImageDraw.Draw(self._image, "RGBA")

    def _pixels(self, points: Sequence[Point]) -> list[Point]:
        result = []
        for point in points:
            x, y = self._place(point)
            result.append(((x * self._size - self._box[0]) * self.SCALE, (y * self._size - self._box[1]) * self.SCALE))
        return result

    def fill(self, points: Sequence[Point], colour: Colour, alpha: float = 1.0) -> None:
        """Fill a polygon."""
        self._draw.polygon(self._pixels(points), fill=(*colour, round(255 * alpha)))

    def line(self, points: Sequence[Point], colour: Colour, width: float, alpha: float = 1.0) -> None:
        """Draw a line with round ends; `width` in parts of the picture's side."""
        thick = max(1, round(width * self._size * self.SCALE))
        pixels = self._pixels(points)
        paint = (*colour, round(255 * alpha))
        self._draw.line(pixels, fill=paint, width=thick, joint="curve")
        if alpha >= 1:
            radius = thick / 2
            for x, y in (pixels[0], pixels[-1]):
                self._draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=paint)

    def fill_inside(self, outline: Sequence[Point], layers: Sequence[tuple[Sequence[Point], Colour]]) -> None:
        """Fill polygons one over the other, all clipped to `outline`."""
        stencil = Image.new("L", self._image.size, 0)
        ImageDraw.Draw(stencil).polygon(self._pixels(outline), fill=255)
        layer = self._image.copy()
        draw = ImageDraw.Draw(layer)
        for points, colour in layers:
            draw.polygon(self._pixels(points), fill=colour)
        self._image.paste(layer, (0, 0), stencil)

    def result(self) -> Image.Image:
        """Return the crop in its real size."""
        return self._image.reduce(self.SCALE)
