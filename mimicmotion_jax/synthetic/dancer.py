"""Drawn dancer and reference person made from formulas, to try everything without any file."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from beartype import beartype
from jaxtyping import Float, UInt8

from mimicmotion_jax.pose.keypoints import Body, Keypoints
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.synthetic.dancer_picture import paint_person

_BAR_SECONDS = 2.4  # one step to the left and back
_SCORE = 0.95


@dataclass(frozen=True)
class _Build:
    """Lengths of body parts in heights of the dancer."""

    head: float = 1.0  # times the dancer's size
    neck: float = 0.085
    shoulder: float = 0.11
    hip: float = 0.058
    upper_arm: float = 0.165
    lower_arm: float = 0.14
    hand: float = 0.085
    torso: float = 0.3
    upper_leg: float = 0.25
    lower_leg: float = 0.245


class _Figure(NamedTuple):
    """Points of a figure in heights of the dancer; the origin is on the floor, y points down."""

    body: Float[np.ndarray, "frames 18 2"]
    hands: Float[np.ndarray, "frames 2 21 2"]
    faces: Float[np.ndarray, "frames 68 2"]


@beartype
def demo_motion(num_frames: int, fps: float | int = 15.0, width: int = 576, height: int = 1024) -> Keypoints:
    """Return keypoints of a dancer who steps from side to side and waves, seen in full over `num_frames` frames.

    Raises:
        InputError: fewer than one frame, or a size or frame rate that is not positive.
    """
    if num_frames < 1 or fps <= 0:
        raise InputError("a demo motion needs at least one frame and a frame rate above 0.")
    return _keypoints(_figure(np.arange(num_frames) / fps, _Build(), energy=1.0), width, height, fps)


@beartype
def demo_reference(width: int = 576, height: int = 1024) -> tuple[UInt8[np.ndarray, "height width 3"], Keypoints]:
    """Return a picture of a drawn person, RGB, and that person's keypoints.

    Raises:
        InputError: a size that is not positive.
    """
    build = _Build(head=1.3, neck=0.1, shoulder=0.1, upper_arm=0.15, lower_arm=0.13, hand=0.075, torso=0.27)
    keypoints = _keypoints(_figure(np.zeros(1), build, energy=0.0), width, height, fps=1)
    return paint_person(keypoints), keypoints


def _keypoints(figure: _Figure, width: int, height: int, fps: float) -> Keypoints:
    if width < 1 or height < 1:
        raise InputError(f"a demo picture needs both sides above 0, not {width} x {height} pixels.")
    scale = min(0.82 * height, 1.02 * width)
    floor = (0.5 * width, 0.5 * height + 0.53 * scale)
    parts = {name: (points * scale + floor) / (width, height) for name, points in figure._asdict().items()}
    arrays = {name: part[:, None] for name, part in parts.items()}
    scores = {f"{name}_score": np.full(part.shape[:-1], _SCORE) for name, part in arrays.items()}
    return Keypoints(**arrays, **scores, width=width, height=height, fps=fps)


def _figure(seconds: Float[np.ndarray, " frames"], build: _Build, energy: float) -> _Figure:
    """Return the pose at each time; `energy` 0 is standing, 1 is the dance."""
    phase = seconds / _BAR_SECONDS
    turn = 2 * np.pi * phase
    body = np.zeros((len(seconds), 18, 2))
    hands = np.zeros((len(seconds), 2, 21, 2))

    # The left foot steps out, the right one follows; then the way back.
    at = phase % 1
    steps = {+1: _ramp(at, 0, 0.25) - _ramp(at, 0.75, 1), -1: _ramp(at, 0.25, 0.5) - _ramp(at, 0.5, 0.75)}
    middle = energy * 0.16 * ((steps[1] + steps[-1]) / 2 - 0.5)
    stand = 0.035 + 0.975 * (build.upper_leg + build.lower_leg)
    pelvis = np.stack([middle, energy * 0.012 * np.cos(8 * np.pi * phase) - stand + energy * 0.012], axis=-1)
    lean = energy * 0.07 * np.sin(turn)
    neck = pelvis + _turned(0, -build.torso, lean)
    tilt = lean + energy * 0.12 * np.sin(turn + 1)
    nose = neck + _turned(0, -build.neck, tilt)
    body[:, Body.NECK], body[:, Body.NOSE] = neck, nose

    for side, first in ((-1, Body.R_SHOULDER), (1, Body.L_SHOULDER)):  # the person's right is on the picture's left
        shoulder = neck + _turned(side * build.shoulder, 0.012, lean)
        upper = 0.22 + energy * (0.75 + 0.75 * np.sin(turn + side * 0.9))
        lower = upper - 0.1 + energy * (0.75 + 0.45 * np.sin(2 * turn + side))
        fist = lower - 0.05 + energy * 0.35 * np.sin(4 * turn + side)
        elbow = shoulder + build.upper_arm * _downward(upper, side)
        wrist = elbow + build.lower_arm * _downward(lower, side)
        body[:, first : first + 3] = np.stack([shoulder, elbow, wrist], axis=1)
        hands[:, (1 - side) // 2] = _hand(wrist, fist, side, build.hand, 1 + 0.3 * energy * np.sin(2 * turn))

        hip = pelvis + _turned(side * build.hip, 0, lean / 2)
        lift = energy * 0.045 * np.sin(4 * np.pi * at) ** 2 * _foot_moves(at, side)
        x = side * (0.075 + 0.02 * energy) + energy * 0.16 * (steps[side] - 0.5)
        ankle = np.stack([x, -0.035 - lift], axis=-1)
        knee = _knee(hip, ankle, build.upper_leg, build.lower_leg, side)
        leg = Body.R_HIP if side < 0 else Body.L_HIP
        body[:, leg : leg + 3] = np.stack([hip, knee, ankle], axis=1)
        head = build.head * side
        body[:, Body.R_EYE if side < 0 else Body.L_EYE] = nose + _turned(0.02 * head, -0.02 * build.head, tilt)
        body[:, Body.R_EAR if side < 0 else Body.L_EAR] = nose + _turned(0.045 * head, -0.008 * build.head, tilt)

    shape = build.head * _face_shape()
    cos, sin = np.cos(tilt)[:, None], np.sin(tilt)[:, None]
    turned = np.stack([cos * shape[:, 0] - sin * shape[:, 1], sin * shape[:, 0] + cos * shape[:, 1]], axis=-1)
    return _Figure(body, hands, nose[:, None] + turned)


def _ramp(at: np.ndarray, start: float, end: float) -> np.ndarray:
    u = np.clip((at - start) / (end - start), 0, 1)
    return u * u * (3 - 2 * u)


def _turned(x: float, y: float, angle: np.ndarray) -> Float[np.ndarray, "frames 2"]:
    return np.stack([x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)], axis=-1)


def _downward(angle: np.ndarray, side: int) -> np.ndarray:
    """Return the direction that points down at angle 0 and away from the body at a right angle."""
    return np.stack([side * np.sin(angle), np.cos(angle)], axis=-1)


def _foot_moves(at: np.ndarray, side: int) -> np.ndarray:
    return (abs(at - 0.5) > 0.25) if side > 0 else (abs(at - 0.5) <= 0.25)


def _knee(hip: np.ndarray, ankle: np.ndarray, upper: float, lower: float, side: int) -> Float[np.ndarray, "frames 2"]:
    way = ankle - hip
    distance = np.minimum(np.hypot(*way.T), upper + lower)
    cosine = (upper**2 + distance**2 - lower**2) / (2 * upper * distance)
    # A knee bends mostly towards the viewer: a quarter of the bulge shows, to the outside.
    bulge = 0.25 * upper * np.sqrt(np.maximum(0, 1 - cosine**2))
    return hip + way * upper / (upper + lower) + np.stack([side * bulge, 0 * bulge], axis=-1)


def _hand(wrist: np.ndarray, angle: np.ndarray, side: int, length: float, spread: np.ndarray) -> np.ndarray:
    points = [wrist]
    for offset, reach in ((-0.75, 0.62), (-0.28, 0.95), (-0.05, 1.0), (0.17, 0.94), (0.4, 0.78)):
        finger = _downward(angle + offset * spread, side) * length * reach
        points += [wrist + finger * part for part in (0.5, 0.7, 0.86, 1.0)]
    return np.stack(points, axis=1)


def _face_shape() -> Float[np.ndarray, "68 2"]:
    """Return the 68 points around the tip of the nose, in heights of the dancer."""
    jaw, brow = np.linspace(np.pi, 0, 17), np.linspace(0, 1, 5)
    brows = [np.stack([x + 0.027 * brow, -0.034 - 0.005 * np.sin(np.pi * brow)], axis=-1) for x in (-0.036, 0.009)]
    bridge = np.stack([np.zeros(4), np.linspace(-0.02, 0, 4)], axis=-1)
    nostrils = np.stack([np.linspace(-0.01, 0.01, 5), 0.006 + 0.003 * np.sin(np.pi * brow)], axis=-1)

    def ring(x: float, y: float, width: float, height: float, count: int) -> np.ndarray:
        angle = np.pi - 2 * np.pi * np.arange(count) / count  # from the picture's left, over the top
        return np.stack([x + width * np.cos(angle), y - height * np.sin(angle)], axis=-1)

    return np.concatenate([
        np.stack([0.047 * np.cos(jaw), -0.008 + 0.06 * np.sin(jaw)], axis=-1),
        *brows, bridge, nostrils,
        ring(-0.02, -0.02, 0.008, 0.004, 6), ring(0.02, -0.02, 0.008, 0.004, 6),
        ring(0, 0.027, 0.015, 0.006, 12), ring(0, 0.027, 0.011, 0.0025, 8),
    ])  # fmt: skip
