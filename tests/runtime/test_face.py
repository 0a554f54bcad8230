"""The drawn face: what moves, what stays, and what it costs."""

from __future__ import annotations

import itertools

import av
import numpy as np
import pytest

from avatar_client import mouth as measured
from avatar_runtime import avatar, motion
from avatar_runtime.drawing import to_yuv
from avatar_runtime.features import Mouth
from avatar_runtime.renderer import Frame, Picture, Renderer
from tests.runtime.launch import AVATARS

REST = Mouth.of(0, 0.5, 0)


@pytest.fixture(scope="module", params=["ada", "bruno"])
def renderer(request: pytest.FixtureRequest) -> Renderer:
    return Renderer(avatar.load(AVATARS, request.param))


def luma(frame: Frame) -> Frame:
    return frame[: frame.shape[1]]


def changed(a: Frame, b: Frame) -> tuple[slice, slice]:
    rows, columns = np.nonzero(np.abs(luma(a).astype(int) - luma(b)) > 25)
    return slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)


def test_a_wider_mouth_is_wider_in_pixels(renderer: Renderer) -> None:
    frames = [luma(renderer.frame(Picture(3, Mouth.of(o / 12, 0.5, 0)))) for o in range(13)]
    opening = measured.opening(frames)
    assert (np.diff(opening) >= -0.005).all()
    assert np.corrcoef(opening, np.arange(13))[0, 1] > 0.97


def test_rounding_narrows_the_mouth(renderer: Renderer) -> None:
    rest = renderer.frame(Picture(0, REST))
    spread = changed(rest, renderer.frame(Picture(0, Mouth.of(0.5, 0.9, 0))))[1]
    pursed = changed(rest, renderer.frame(Picture(0, Mouth.of(0.5, 0.2, 1))))[1]
    width = spread.stop - spread.start
    assert renderer.size * 0.08 < width < renderer.size * 0.3
    assert (
        renderer.frame(Picture(0, Mouth.of(0.5, 0.9, 0))).tobytes()
        != renderer.frame(Picture(0, Mouth.of(0.5, 0.2, 1))).tobytes()
    )
    assert pursed.stop <= spread.stop + 6


def test_a_blink_changes_the_eyes_alone(renderer: Renderer) -> None:
    rest = renderer.frame(Picture(0, REST))
    rows, _ = changed(rest, renderer.frame(Picture(0, REST, lid=motion.LIDS - 1)))
    assert renderer.size * 0.3 < rows.start
    assert rows.stop < renderer.size * 0.55


def test_the_mouth_changes_the_lower_face_alone(renderer: Renderer) -> None:
    rest = renderer.frame(Picture(0, REST))
    rows, columns = changed(rest, renderer.frame(Picture(0, Mouth.of(1, 0.5, 0))))
    assert renderer.size * 0.55 < rows.start
    assert rows.stop < renderer.size * 0.76
    assert abs((columns.start + columns.stop) / 2 / renderer.size - 0.5) < 0.05


def test_the_head_moves_in_steps_too_small_to_jump() -> None:
    poses = [motion.pose(i) for i in range(motion.POSES)]
    for before, after in zip(poses, poses[1:] + poses[:1], strict=True):
        assert abs(after.dx - before.dx) * 352 < 0.7
        assert abs(after.dy - before.dy) * 352 < 0.7


def test_frames_are_the_callers_own(renderer: Renderer) -> None:
    first = renderer.frame(Picture(0, REST))
    first[:] = 0
    assert renderer.frame(Picture(0, REST)).any()


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (200, 30, 40), (20, 180, 60), (40, 60, 220)])
def test_colours_arrive_as_a_decoder_reads_them(colour: tuple[int, int, int]) -> None:
    picture = np.tile(np.array(colour, np.uint8), (32, 32, 1))
    planes = np.concatenate([p.reshape(-1) for p in to_yuv(picture)]).reshape(48, 32)
    back = av.VideoFrame.from_ndarray(planes, format="yuv420p").to_ndarray(format="rgb24")
    assert np.abs(back.astype(int) - picture).max() <= 4


def test_lids_close_and_open_about_once_in_four_seconds() -> None:
    lids = [motion.lid_at(t / 100, seed=5) for t in range(6000)]
    blinks = sum(1 for a, b in itertools.pairwise(lids) if a == 0 and b > 0)
    assert 12 <= blinks <= 16
    assert max(lids) == motion.LIDS - 1
    assert sum(1 for v in lids if v) / len(lids) < 0.1


def test_two_viewers_see_blinks_of_their_own() -> None:
    times = [t / 25 for t in range(1500)]
    assert [motion.lid_at(t, 1) for t in times] != [motion.lid_at(t, 2) for t in times]
