"""Draws what does not move by itself: background, clothes, hair and head. Done once per process, in layers."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from avatar_runtime.avatar import Face
from avatar_runtime.drawing import Point, ellipse, mask, mix, radial, rgb, soft_shade, spline, vertical

OVERSAMPLE = 2
"""Layers are kept at twice the picture's size, so that turning them does not blur the edges."""


@dataclass(frozen=True)
class Layers:
    """RGBA layers from back to front; the head's layers move, the others stand still."""

    background: Image.Image
    back_hair: Image.Image
    body: Image.Image
    head: Image.Image
    features: Image.Image


class _Geometry:
    """Places (u, v), in half widths and half heights of the head, on the picture."""

    def __init__(self, face: Face) -> None:
        self.face = face

    def __call__(self, u: float, v: float) -> Point:
        f = self.face
        return f.centre_x + u * f.face_width / 2, f.centre_y + v * f.face_height / 2

    def outline(self, grow: float = 0.0) -> list[Point]:
        points = []
        for i in range(96):
            angle = 2 * math.pi * i / 96
            u, v = math.sin(angle), -math.cos(angle)
            u = math.copysign(abs(u) ** 0.88, u)
            u *= 1 - self.face.jaw * max(0.0, v) ** 1.7
            points.append(self(u * (1 + grow), v * (1 + grow)))
        return points


def paint(face: Face, size: int) -> Layers:
    """Draw all layers of a face for pictures of `size` pixels a side."""
    big = size * OVERSAMPLE
    at = _Geometry(face)
    return Layers(
        background=_background(face, big),
        back_hair=_back_hair(face, at, big),
        body=_body(face, at, big),
        head=_head(face, at, big),
        features=_features(face, big),
    )


def _layer(size: int) -> Image.Image:
    return Image.new("RGBA", (size, size), (0, 0, 0, 0))


def _put(layer: Image.Image, fill: Image.Image | tuple[int, int, int], shape: Image.Image) -> None:
    """Lay a colour or picture over the layer where the mask says so."""
    paint = fill if isinstance(fill, Image.Image) else Image.new("RGB", layer.size, fill)
    over = paint.convert("RGBA")
    over.putalpha(shape)
    layer.alpha_composite(over)


def _background(face: Face, size: int) -> Image.Image:
    image = radial(size, (0.5, 0.42), 0.78, rgb(face.background), rgb(face.background_edge))
    glow = mask(ellipse(0.5, 0.44, 0.33, 0.36), size, blur=0.07)
    image.paste(Image.new("RGB", image.size, (255, 255, 255)), (0, 0), glow.point(lambda v: v * 0.35))
    return image


def _back_hair(face: Face, at: _Geometry, size: int) -> Image.Image:
    layer = _layer(size)
    dark = mix(rgb(face.hair), (0, 0, 0), 0.22)
    if face.hair_style in ("long", "bob"):
        low = 1.75 if face.hair_style == "long" else 1.12
        points = spline([
            at(0, -1.20), at(0.78, -1.04), at(1.22, -0.42), at(1.27, 0.25), at(1.24, low * 0.7), at(1.32, low),
            at(0.62, low * 1.03), at(0, low * 0.98), at(-0.62, low * 1.03), at(-1.32, low), at(-1.24, low * 0.7),
            at(-1.27, 0.25), at(-1.22, -0.42), at(-0.78, -1.04),
        ])  # fmt: skip
        _put(layer, vertical(size, rgb(face.hair), dark, 0.2, 0.85), mask(points, size))
    if face.hair_style == "bun":
        x, y = at(0, -1.28)
        _put(layer, rgb(face.hair), mask(ellipse(x, y, 0.09, 0.075), size))
    return layer


def _body(face: Face, at: _Geometry, size: int) -> Image.Image:
    layer = _layer(size)
    x = face.centre_x
    chin = at(0, 1)[1]
    skin, shadow = rgb(face.skin), rgb(face.skin_shadow)
    half = face.face_width * (0.19 if face.jaw > 0.3 else 0.235)
    neck = spline([
        (x - half, chin - 0.10), (x + half, chin - 0.10), (x + half, chin + 0.05), (x + half + 0.045, chin + 0.105),
        (x, chin + 0.20), (x - half - 0.045, chin + 0.105), (x - half, chin + 0.05),
    ])  # fmt: skip
    neck_mask = mask(neck, size)
    _put(layer, mix(skin, shadow, 0.35), neck_mask)
    under_chin = mask(ellipse(x, chin - 0.015, half * 1.7, 0.075), size, blur=0.018)
    _put(layer, mix(shadow, (60, 25, 20), 0.18), ImageChops.multiply(neck_mask, under_chin).point(lambda v: v * 0.8))
    wide = 0.40 if face.jaw > 0.3 else 0.45
    shoulders = spline([
        (x - half - 0.055, chin + 0.088), (x - 0.6 * wide, chin + 0.135), (x - wide, chin + 0.23),
        (x - wide - 0.05, 1.12), (x + wide + 0.05, 1.12),
        (x + wide, chin + 0.23), (x + 0.6 * wide, chin + 0.135), (x + half + 0.055, chin + 0.088),
        (x + half * 0.8, chin + 0.135), (x, chin + (0.155 if face.clothes_style == "crew" else 0.215)),
        (x - half * 0.8, chin + 0.135),
    ])  # fmt: skip
    cloth_mask = mask(shoulders, size)
    cloth, light = rgb(face.clothes), rgb(face.clothes_light)
    _put(layer, vertical(size, light, cloth, chin + 0.08, 1.0), cloth_mask)
    _put(layer, mix(cloth, (0, 0, 0), 0.35), soft_shade(cloth_mask, 0.03, (0.01, 0.015)).point(lambda v: v * 0.55))
    if face.clothes_style == "collar":
        for side in (-1, 1):
            flap = [
                (x + side * (half + 0.052), chin + 0.070), (x + side * 0.005, chin + 0.205),
                (x + side * 0.105, chin + 0.255), (x + side * (half + 0.085), chin + 0.125),
            ]  # fmt: skip
            _put(
                layer, (0, 0, 0), mask([(px, py + 0.008) for px, py in flap], size, blur=0.006).point(lambda v: v * 0.3)
            )
            _put(layer, mix(light, (255, 255, 255), 0.72), mask(flap, size))
    else:
        line = spline([
            (x - half - 0.055, chin + 0.088), (x - half * 0.8, chin + 0.135),
            (x, chin + (0.155 if face.clothes_style == "crew" else 0.215)),
            (x + half * 0.8, chin + 0.135), (x + half + 0.055, chin + 0.088),
        ], closed=False)  # fmt: skip
        draw = ImageDraw.Draw(layer)
        draw.line(
            [(px * size, py * size) for px, py in line], fill=mix(cloth, (0, 0, 0), 0.25), width=round(size * 0.011)
        )
    return layer


def _head(face: Face, at: _Geometry, size: int) -> Image.Image:
    layer = _layer(size)
    skin, shadow = rgb(face.skin), rgb(face.skin_shadow)
    for side in (-1, 1):
        cx, cy = at(side * 1.0, 0.02)
        _put(layer, mix(skin, shadow, 0.45), mask(ellipse(cx, cy, 0.030, 0.052), size))
        _put(
            layer,
            mix(shadow, (120, 50, 40), 0.25),
            mask(ellipse(cx + side * 0.003, cy, 0.014, 0.030), size, blur=0.005),
        )
    shape = mask(at.outline(), size)
    _put(layer, skin, shape)
    _put(layer, shadow, soft_shade(shape, 0.035, (0.018, 0.020)).point(lambda v: v * 0.75))
    light = mask(ellipse(*at(-0.25, -0.42), face.face_width * 0.26, face.face_height * 0.16), size, blur=0.05)
    _put(layer, mix(skin, (255, 255, 255), 0.6), ImageChops.multiply(shape, light).point(lambda v: v * 0.35))
    if face.stubble:
        lower = mask(
            [at(-1.2, 0.15), at(-0.5, 0.42), at(0, 0.34), at(0.5, 0.42), at(1.2, 0.15), at(1.2, 1.2), at(-1.2, 1.2)],
            size,
            0.028,
        )
        lips = mask(ellipse(face.centre_x, face.mouth_y + 0.005, face.mouth_width * 0.62, 0.036), size, blur=0.014)
        area = ImageChops.multiply(shape, ImageChops.multiply(lower, ImageChops.invert(lips)))
        _put(layer, mix(shadow, rgb(face.hair), 0.55), area.point(lambda v: v * 0.34))
    _front_hair(layer, face, at, shape)
    return layer


def _front_hair(layer: Image.Image, face: Face, at: _Geometry, head: Image.Image) -> None:
    size = layer.width
    if face.hair_style in ("long", "bob"):
        # parted on the left, swept over the forehead and down both temples
        right = spline([
            at(-0.30, -1.17), at(0.30, -1.19), at(0.86, -0.98), at(1.20, -0.40), at(1.22, 0.22), at(1.08, 0.62),
            at(1.00, 0.16), at(0.90, -0.28), at(0.62, -0.58), at(0.15, -0.80), at(-0.34, -0.93),
        ])  # fmt: skip
        left = spline([
            at(-0.30, -1.17), at(-0.84, -1.00), at(-1.20, -0.40), at(-1.22, 0.22), at(-1.08, 0.62), at(-1.00, 0.16),
            at(-0.93, -0.22), at(-0.74, -0.58), at(-0.34, -0.93),
        ])  # fmt: skip
        locks = [left, right]
        parting: list[Point] = spline([at(-0.32, -1.16), at(-0.35, -1.05), at(-0.34, -0.92)], closed=False)
    else:
        top = spline([
            at(-1.07, -0.08), at(-1.13, -0.52), at(-0.98, -0.98), at(-0.42, -1.24), at(0.30, -1.27), at(0.92, -1.06),
            at(1.14, -0.55), at(1.07, -0.08), at(0.97, -0.12), at(0.91, -0.34), at(0.80, -0.56), at(0.58, -0.69),
            at(0.18, -0.65), at(-0.30, -0.74), at(-0.62, -0.67), at(-0.82, -0.54), at(-0.91, -0.34), at(-0.97, -0.12),
        ])  # fmt: skip
        locks = [top]
        parting = []
    whole = Image.new("L", layer.size, 0)
    for lock in locks:
        whole = ImageChops.lighter(whole, mask(lock, size))
    fallen = ImageChops.offset(
        whole.filter(ImageFilter.GaussianBlur(0.012 * size)), round(0.004 * size), round(0.014 * size)
    )
    _put(
        layer, mix(rgb(face.skin_shadow), (50, 20, 10), 0.3), ImageChops.multiply(fallen, head).point(lambda v: v * 0.5)
    )
    _put(layer, vertical(size, rgb(face.hair_light), rgb(face.hair), 0.12, 0.42), whole)
    _put(layer, mix(rgb(face.hair), (0, 0, 0), 0.4), soft_shade(whole, 0.014, (0.006, 0.008)).point(lambda v: v * 0.6))
    shine = mask(
        spline([at(-0.1, -1.02), at(0.42, -1.02), at(0.82, -0.72), at(0.70, -0.74), at(0.30, -0.92)]), size, 0.010
    )
    _put(
        layer,
        mix(rgb(face.hair_light), (255, 255, 255), 0.35),
        ImageChops.multiply(whole, shine).point(lambda v: v * 0.45),
    )
    if parting:
        draw = ImageDraw.Draw(layer)
        draw.line(
            [(x * size, y * size) for x, y in parting],
            fill=(*mix(rgb(face.hair), (0, 0, 0), 0.35), 150),
            width=round(size * 0.004),
        )


def _features(face: Face, size: int) -> Image.Image:
    """Cheeks and nose: they move a little more than the head's outline, which gives it depth."""
    layer = _layer(size)
    x, shadow = face.centre_x, rgb(face.skin_shadow)
    for side in (-1, 1):
        cheek = mask(ellipse(x + side * face.face_width * 0.29, face.nose_y + 0.012, 0.045, 0.030), size, blur=0.022)
        _put(layer, rgb(face.blush), cheek.point(lambda v: v * 0.42))
    ny = face.nose_y
    bridge = mask(
        spline(
            [(x + 0.012, face.eye_y - 0.01), (x + 0.019, ny - 0.04), (x + 0.032, ny - 0.006), (x + 0.010, ny - 0.012)]
        ),
        size,
        0.009,
    )
    _put(layer, shadow, bridge.point(lambda v: v * 0.75))
    base = mask(
        spline([(x - 0.030, ny + 0.003), (x, ny + 0.017), (x + 0.030, ny + 0.003), (x, ny + 0.006)]), size, blur=0.004
    )
    _put(layer, mix(shadow, (110, 40, 30), 0.28), base)
    for side in (-1, 1):
        nostril = mask(ellipse(x + side * 0.015, ny + 0.007, 0.0075, 0.0042), size, blur=0.002)
        _put(layer, mix(shadow, (70, 20, 15), 0.6), nostril.point(lambda v: v * 0.8))
    tip = mask(ellipse(x - 0.006, ny - 0.014, 0.013, 0.011), size, blur=0.008)
    _put(layer, mix(rgb(face.skin), (255, 255, 255), 0.6), tip.point(lambda v: v * 0.5))
    return layer


def as_array(image: Image.Image) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    """Return the picture's RGB values."""
    return np.asarray(image.convert("RGB"), dtype=np.uint8)
