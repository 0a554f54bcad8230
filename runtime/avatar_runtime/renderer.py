"""Puts pictures together: a posed head (kept), a mouth (kept) and eyes (kept), as YUV planes.

A frame whose parts are all kept costs about 0.1 ms. The first frames of a new pose or mouth shape draw it.
One renderer serves all sessions of an avatar. It is not thread-safe: call it from one thread.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from avatar_runtime import head, motion
from avatar_runtime.avatar import Avatar
from avatar_runtime.drawing import Pen, Point, to_yuv
from avatar_runtime.features import Mouth, draw_eyes, draw_mouth
from avatar_runtime.head import Layers

Frame = NDArray[np.uint8]
Box = tuple[int, int, int, int]
_Planes = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]
K = TypeVar("K")
V = TypeVar("V")


class _Kept(Generic[K, V]):
    """A cache that forgets what was not used for longest."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K, make: Callable[[], V]) -> V:
        found = self._items.get(key)
        if found is None:
            found = self._items[key] = make()
            if len(self._items) > self._limit:
                self._items.popitem(last=False)
        else:
            self._items.move_to_end(key)
        return found


@dataclass(frozen=True)
class Picture:
    """What a frame shows."""

    pose: int
    mouth: Mouth
    lid: int = 0
    gaze: int = 0
    brow: int = 0


@dataclass(frozen=True)
class _Layer:
    """A layer cut to what it shows, with room to move: oversampled, premultiplied, and where its corner lies."""

    image: Image.Image
    left: int
    top: int

    @classmethod
    def of(cls, layer: Image.Image) -> "_Layer":
        box = layer.getbbox() or (0, 0, 1, 1)
        room, step = layer.width // 24, head.OVERSAMPLE
        left, top = (max(0, (v - room) // step * step) for v in box[:2])
        right, bottom = (min(layer.width, -(-(v + room) // step) * step) for v in box[2:])
        # A pose takes one sample of each OVERSAMPLE²: the blur makes it stand for all of them.
        cut = layer.crop((left, top, right, bottom)).convert("RGBa").filter(ImageFilter.GaussianBlur(0.55))
        return cls(cut, left, top)


@dataclass(frozen=True)
class _Stack:
    """The layers of a head, from back to front."""

    background: Image.Image
    back_hair: _Layer
    body: Image.Image
    head: _Layer
    features: _Layer

    @classmethod
    def of(cls, layers: Layers) -> "_Stack":
        return cls(
            layers.background.reduce(head.OVERSAMPLE).convert("RGBA"),
            _Layer.of(layers.back_hair),
            layers.body.reduce(head.OVERSAMPLE),
            _Layer.of(layers.head),
            _Layer.of(layers.features),
        )


class Renderer:
    """Draws the frames of one avatar."""

    def __init__(self, avatar: Avatar) -> None:
        self.size = avatar.size
        self.face = avatar.face
        self._stack: _Stack | None = None
        self._bases: _Kept[int, tuple[Image.Image, Frame]] = _Kept(motion.POSES)
        self._mouths: _Kept[tuple[int, Mouth], _Planes] = _Kept(2000)
        self._eyes: _Kept[tuple[int, int, int, int], _Planes] = _Kept(800)
        f = self.face
        sway = 0.022
        self._mouth_box = self._even_box(
            f.centre_x - f.mouth_width * 0.72 - sway, f.mouth_y - f.mouth_height * 0.34 - 0.032 - sway,
            f.centre_x + f.mouth_width * 0.72 + sway, f.mouth_y + f.mouth_height * 0.66 + 0.045 + sway,
        )  # fmt: skip
        reach = max(f.eye_gap / 2 + f.eye_size * 1.5, f.face_width * 0.5 if f.glasses else 0.0)
        self._eyes_box = self._even_box(
            f.centre_x - reach - sway, f.eye_y - f.eye_size * 1.35 - 0.03 - sway,
            f.centre_x + reach + sway, f.eye_y + f.eye_size * 1.25 + sway,
        )  # fmt: skip

    def _even_box(self, left: float, top: float, right: float, bottom: float) -> Box:
        """Return a box in pixels on even coordinates, because the colour planes have half the size."""
        return (
            max(0, int(left * self.size) // 2 * 2),
            max(0, int(top * self.size) // 2 * 2),
            min(self.size, -(-int(right * self.size + 1) // 2) * 2),
            min(self.size, -(-int(bottom * self.size + 1) // 2) * 2),
        )

    def frame(self, picture: Picture) -> Frame:
        """Return a new YUV 4:2:0 picture as one array of shape (size * 3 / 2, size)."""
        _, base = self._base(picture.pose)
        result = base.copy()
        mouth = self._mouths.get((picture.pose, picture.mouth), lambda: self._draw_mouth(picture))
        self._paste(result, self._mouth_box, mouth)
        eyes_key = (picture.pose, picture.lid, picture.gaze, picture.brow)
        self._paste(result, self._eyes_box, self._eyes.get(eyes_key, lambda: self._draw_eyes(picture)))
        return result

    def _paste(self, frame: Frame, box: Box, planes: _Planes) -> None:
        left, top, right, bottom = box
        size, half = self.size, self.size // 2
        frame[top:bottom, left:right] = planes[0]
        for start, plane in ((size, planes[1]), (size + size // 4, planes[2])):
            colour = frame[start : start + size // 4].reshape(half, half)
            colour[top // 2 : bottom // 2, left // 2 : right // 2] = plane

    def _base(self, number: int) -> tuple[Image.Image, Frame]:
        return self._bases.get(number, lambda: self._draw_base(number))

    def _draw_base(self, number: int) -> tuple[Image.Image, Frame]:
        if self._stack is None:
            self._stack = _Stack.of(head.paint(self.face, self.size))
        stack, pose = self._stack, motion.pose(number)
        image = stack.background.copy()
        # What lies further back moves less: that gives the head its depth.
        outer = motion.Pose(pose.dx * 0.62, pose.dy * 0.8, pose.roll)
        self._lay(image, stack.back_hair, motion.Pose(outer.dx * 0.7, outer.dy * 0.7, pose.roll * 0.7))
        image.alpha_composite(stack.body)
        self._lay(image, stack.head, outer)
        self._lay(image, stack.features, pose)
        small = image.convert("RGB")
        y, u, v = to_yuv(np.asarray(small, dtype=np.uint8))
        planes = [y.reshape(-1), u.reshape(-1), v.reshape(-1)]
        return small, np.concatenate(planes).reshape(self.size * 3 // 2, self.size)

    def _pivot(self) -> Point:
        """Return the point about which the head rolls: the top of the neck."""
        return self.face.centre_x, self.face.centre_y + self.face.face_height * 0.45

    def _lay(self, image: Image.Image, layer: _Layer, pose: motion.Pose) -> None:
        """Lay a layer over the image, moved into a pose."""
        step = head.OVERSAMPLE
        big = image.width * step
        # All in the layer's own pixels.
        px, py = self._pivot()[0] * big - layer.left, self._pivot()[1] * big - layer.top
        cos, sin = math.cos(pose.roll), math.sin(pose.roll)
        dx, dy = px + pose.dx * big, py + pose.dy * big
        # Pillow wants the way back: from a place in the result to one in the layer.
        back = (
            step * cos, step * sin, px - cos * dx - sin * dy,
            -step * sin, step * cos, py + sin * dx - cos * dy,
        )  # fmt: skip
        size = (layer.image.width // step, layer.image.height // step)
        moved = layer.image.transform(size, Image.Transform.AFFINE, back, Image.Resampling.BILINEAR)
        image.alpha_composite(moved.convert("RGBA"), (layer.left // step, layer.top // step))

    def _placed(self, number: int) -> Callable[[Point], Point]:
        pose = motion.pose(number)
        px, py = self._pivot()
        cos, sin = math.cos(pose.roll), math.sin(pose.roll)

        def place(point: Point) -> Point:
            x, y = point[0] - px, point[1] - py
            return px + pose.dx + cos * x - sin * y, py + pose.dy + sin * x + cos * y

        return place

    def _draw_mouth(self, picture: Picture) -> _Planes:
        pen = Pen(self._base(picture.pose)[0], self._mouth_box, self._placed(picture.pose))
        draw_mouth(pen, self.face, picture.mouth)
        return to_yuv(head.as_array(pen.result()))

    def _draw_eyes(self, picture: Picture) -> _Planes:
        pen = Pen(self._base(picture.pose)[0], self._eyes_box, self._placed(picture.pose))
        draw_eyes(pen, self.face, picture.lid, picture.gaze, picture.brow)
        return to_yuv(head.as_array(pen.result()))
