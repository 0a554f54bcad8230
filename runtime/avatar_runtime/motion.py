"""The small movements that make a face look alive: sway, blinks, glances. Pure functions of time.

Poses lie on one closed loop and are numbered, so that every pose is drawn once and then reused.
"""

import math
import random
from dataclasses import dataclass
from functools import lru_cache

POSES = 48
"""Positions of the head along its loop."""

SWAY_PERIOD = 9.6
"""Seconds of one round: five poses a second, each a third of a pixel from the last."""

BLINK = 0.22
"""Seconds from the lid's first movement to its last."""

LIDS = 4
"""Steps of the eyelid: 0 open … 3 shut."""


@dataclass(frozen=True)
class Pose:
    """Where the head is: shift in parts of the picture's side, roll in radians."""

    dx: float
    dy: float
    roll: float


def pose(number: int) -> Pose:
    """Return a pose of the loop, a flat figure of eight."""
    angle = 2 * math.pi * (number % POSES) / POSES
    return Pose(dx=0.011 * math.sin(angle), dy=0.0045 * math.sin(2 * angle + 0.6), roll=0.016 * math.sin(angle + 0.9))


def pose_at(t: float) -> int:
    """Return the pose's number at time `t`."""
    return int(t / SWAY_PERIOD * POSES) % POSES


@lru_cache(maxsize=64)
def _blink_start(window: int, seed: int) -> float:
    """Return the start of the one blink of a 4-second window: people blink 15–20 times a minute."""
    return random.Random(window * 7919 + seed).uniform(0.3, 3.4)  # noqa: S311 - decoration, not security


def lid_at(t: float, seed: int = 0) -> int:
    """Return the eyelid's step at time `t`."""
    window = int(t // 4)
    local = (t - window * 4 - _blink_start(window, seed)) / BLINK
    if not 0 <= local < 1:
        return 0
    # Lids close twice as fast as they open.
    shut = local / 0.35 if local < 0.35 else (1 - local) / 0.65
    return min(LIDS - 1, round(shut * (LIDS - 1) + 0.3))


@lru_cache(maxsize=64)
def _glance(window: int, seed: int) -> int:
    return random.Random(window * 104729 + seed + 1).choice((0, 0, 0, 0, -1, 1))  # noqa: S311


def gaze_at(t: float, seed: int = 0) -> int:
    """Return where the eyes look: −1 left, 0 at the viewer, 1 right. They change about once in 2.5 s."""
    return _glance(int(t / 2.5), seed)
