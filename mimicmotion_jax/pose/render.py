"""Confidence-aware drawing of keypoints (paper section 3.4): the brightness of a stroke is the detector's confidence.

Everything is rasterised on a canvas whose short side is 2160 pixels and then resized to the target, as the official
release does, so that strokes keep their width relative to the picture. Limbs are opaque and nothing is blended, hence
their dimming by 0.6 can be folded into their colour, and only the part of the canvas that holds the figure has to be
cleared, drawn and resized: the result is the same to the last bit.
"""

import colorsys
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import cv2
import numpy as np
from beartype import beartype
from jaxtyping import Int, UInt8, jaxtyped

from mimicmotion_jax.pose.keypoints import Body, Keypoints
from mimicmotion_jax.runtime.errors import InputError

_CANVAS_SHORT_SIDE = 2160
_LIMB_HALF_WIDTH = 4
_LIMB_DIMMING = 0.6
_JOINT_RADIUS = 4
_FINGER_WIDTH = 2
_HAND_RADIUS = 4
_FACE_RADIUS = 3
# Zeros kept around the figure: the widest stroke beyond its points, and one pixel for the interpolation.
_MARGIN = 6
_MAX_STROKE_WIDTH = 20

LIMBS = (
    *((Body.NECK, Body.R_SHOULDER), (Body.NECK, Body.L_SHOULDER)),
    *((Body.R_SHOULDER, Body.R_ELBOW), (Body.R_ELBOW, Body.R_WRIST)),
    *((Body.L_SHOULDER, Body.L_ELBOW), (Body.L_ELBOW, Body.L_WRIST)),
    *((Body.NECK, Body.R_HIP), (Body.R_HIP, Body.R_KNEE), (Body.R_KNEE, Body.R_ANKLE)),
    *((Body.NECK, Body.L_HIP), (Body.L_HIP, Body.L_KNEE), (Body.L_KNEE, Body.L_ANKLE)),
    *((Body.NECK, Body.NOSE), (Body.NOSE, Body.R_EYE), (Body.R_EYE, Body.R_EAR)),
    *((Body.NOSE, Body.L_EYE), (Body.L_EYE, Body.L_EAR)),
)
HAND_EDGES = tuple((0 if point % 4 == 1 else point - 1, point) for point in range(1, 21))

Colour = tuple[float, float, float]


def _hues(count: int) -> list[Colour]:
    # Reversed, because the official release swaps red and blue after drawing with OpenPose's colours.
    return [(b, g, r) for r, g, b in (colorsys.hsv_to_rgb(i / count, 1, 1) for i in range(count))]


_BODY_COLOURS: list[Colour] = [(round(255 * b), round(255 * g), round(255 * r)) for b, g, r in _hues(len(Body))]
_FINGER_HUES = _hues(len(HAND_EDGES))


@dataclass(frozen=True)
class DrawStyle:
    """Style of drawn keypoints; `OFFICIAL` is what the released checkpoints were trained on.

    Attributes:
        confidence: "brightness" multiplies every colour by its points' scores; "threshold" draws points above
            `threshold` at full brightness and drops the others (the baseline of the paper's ablation).
        threshold: Body points at or below this score are dropped, in both modes.
        antialias: Average over a target pixel's area instead of interpolating at its centre, so that thin strokes do
            not break up on targets far below 2160 pixels.
        stroke_width: How many times as thick as the official release's strokes are, above 0; about 6 where the target's
            short side is 100 pixels. The canvas is smaller by as much.
        draw_hands: Draw the hands.
        draw_face: Draw the face points.
    """

    confidence: Literal["brightness", "threshold"] = "brightness"
    threshold: float = 0.3
    antialias: bool = False
    stroke_width: float = 1.0
    draw_hands: bool = True
    draw_face: bool = True

    def __post_init__(self) -> None:
        if self.confidence not in ("brightness", "threshold"):
            raise InputError(f"confidence is drawn as 'brightness' or by 'threshold', not {self.confidence!r}.")
        if not 0 < self.stroke_width <= _MAX_STROKE_WIDTH:
            raise InputError(
                f"stroke_width must lie above 0 and be at most {_MAX_STROKE_WIDTH}, not {self.stroke_width}."
            )


OFFICIAL = DrawStyle()


class DrawnPoses:
    """The drawn frames of a motion as a lazy sequence: `poses[i:j]` draws only frames i to j."""

    def __init__(self, keypoints: Keypoints, height: int, width: int, style: DrawStyle = OFFICIAL):
        self._keypoints, self._style = keypoints, style
        self.shape = (keypoints.num_frames, height, width, 3)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, frames: slice) -> UInt8[np.ndarray, "frames height width 3"]:
        """Draw the frames of a slice, uint8 RGB."""
        _, height, width, _ = self.shape
        return draw_poses(self._keypoints[frames], height, width, style=self._style)


@jaxtyped(typechecker=beartype)
def draw_poses(
    keypoints: Keypoints,
    height: int,
    width: int,
    start: int = 0,
    stop: int | None = None,
    style: DrawStyle = OFFICIAL,
) -> UInt8[np.ndarray, "frames height width 3"]:
    """Draw frames `start` to `stop` (default: all) on black, uint8 RGB.

    Raises:
        InputError: a target size that is not positive.
    """
    frames = range(keypoints.num_frames)[start:stop]
    canvas = _Canvas(height, width, style)
    drawn = np.zeros((len(frames), height, width, 3), np.uint8)
    # One frame after the other: with some 200 strokes of microseconds each, threads lose more to the interpreter's
    # lock than they gain, and the one long call, the resize, already runs on all cores.
    for frame, target in zip(frames, drawn, strict=True):
        canvas.draw(_strokes(keypoints, frame, canvas.size, style), target)
    return drawn


@jaxtyped(typechecker=beartype)
def draw_pose(
    keypoints: Keypoints, frame: int, height: int, width: int, style: DrawStyle = OFFICIAL
) -> UInt8[np.ndarray, "height width 3"]:
    """Draw one frame on black, uint8 RGB.

    Raises:
        InputError: no such frame, or a target size that is not positive.
    """
    if not 0 <= frame < keypoints.num_frames:
        raise InputError(f"there is no frame {frame}; these keypoints hold {keypoints.num_frames}, counted from 0.")
    return draw_poses(keypoints, height, width, frame, frame + 1, style)[0]


class _Stroke(NamedTuple):
    """A disc (one point), a line (two points) or a filled convex polygon, in canvas pixels."""

    points: Int[np.ndarray, "points 2"]
    colour: Colour
    size: int = 0  # radius or thickness


class _Canvas:
    """The large picture that strokes are drawn on; its memory is used again for every frame."""

    def __init__(self, height: int, width: int, style: DrawStyle):
        if height < 1 or width < 1:
            raise InputError(f"a pose cannot be drawn at {width} x {height} pixels; both sides must be at least 1.")
        scale = _CANVAS_SHORT_SIDE / style.stroke_width / min(height, width)
        self.size = (int(width * scale), int(height * scale))
        self._target_size = (width, height)
        self._interpolation = cv2.INTER_AREA if style.antialias else cv2.INTER_LINEAR
        self._memory = np.empty(self.size[0] * self.size[1] * 3, np.uint8)

    def draw(self, strokes: list[_Stroke], target: UInt8[np.ndarray, "height width 3"]) -> None:
        """Draw strokes, in canvas pixels, onto the black picture `target`."""
        if not strokes:
            return
        points = np.concatenate([stroke.points for stroke in strokes])
        (left, right, x0, x1), (top, bottom, y0, y1) = (self._extent(points[:, axis], axis) for axis in (0, 1))
        if left >= right or top >= bottom:
            return
        part = self._memory[: (bottom - top) * (right - left) * 3].reshape(bottom - top, right - left, 3)
        part.fill(0)
        origin = np.array([left, top], np.int32)
        for points, colour, size in strokes:
            points = points - origin
            if len(points) == 1:
                cv2.circle(part, points[0], size, colour, cv2.FILLED)
            elif len(points) == 2:
                cv2.line(part, points[0], points[1], colour, size)
            else:
                cv2.fillConvexPoly(part, points, colour)
        target[y0:y1, x0:x1] = cv2.resize(part, (x1 - x0, y1 - y0), interpolation=self._interpolation)

    def _extent(self, coordinates: Int[np.ndarray, " points"], axis: int) -> tuple[int, int, int, int]:
        """Range on the canvas, and on the target, of the fewest whole resampling periods that hold `coordinates`."""
        size, target_size = self.size[axis], self._target_size[axis]
        periods = math.gcd(size, target_size)
        step, target_step = size // periods, target_size // periods
        first = max(0, (int(coordinates.min()) - _MARGIN) // step)
        last = min(periods, -(-(int(coordinates.max()) + _MARGIN + 1) // step))
        return first * step, last * step, first * target_step, last * target_step


def _strokes(keypoints: Keypoints, frame: int, size: tuple[int, int], style: DrawStyle) -> list[_Stroke]:
    """One frame's strokes in canvas pixels, in drawing order."""
    strokes = list(_body_strokes(keypoints, frame, size, style))
    if style.draw_hands:
        strokes += _hand_strokes(keypoints, frame, size, style)
    if style.draw_face:
        strokes += _face_strokes(keypoints, frame, size, style)
    return strokes


def _body_strokes(keypoints: Keypoints, frame: int, size: tuple[int, int], style: DrawStyle) -> Iterator[_Stroke]:
    points = _on_canvas(keypoints.body[frame], size)  # [P, 18, 2]
    scores = _shown(keypoints.body_score[frame], style)
    scores = np.where(scores > style.threshold, scores, 0)
    for (a, b), colour in zip(LIMBS, _BODY_COLOURS[: len(LIMBS)], strict=True):
        brightness = scores[:, a] * scores[:, b]
        for person in np.flatnonzero(brightness):
            red, green, blue = _scaled(colour, float(brightness[person]))
            dimmed = int(_LIMB_DIMMING * red), int(_LIMB_DIMMING * green), int(_LIMB_DIMMING * blue)
            yield _Stroke(_ellipse(*points[person, [a, b]]), dimmed)
    discs = points[:, :, None].astype(np.int32)
    for joint, colour in enumerate(_BODY_COLOURS):
        for person in np.flatnonzero(scores[:, joint]):
            yield _Stroke(discs[person, joint], _scaled(colour, float(scores[person, joint])), _JOINT_RADIUS)


def _hand_strokes(keypoints: Keypoints, frame: int, size: tuple[int, int], style: DrawStyle) -> Iterator[_Stroke]:
    points = _on_canvas(keypoints.hands[frame], size).astype(np.int32)  # [P, 2, 21, 2]
    scores = _shown(keypoints.hands_score[frame], style)
    seen = (scores > 0) & (points > 0).all(-1)
    for hand, person in np.ndindex(2, keypoints.num_people):  # all left hands first, as the official release does
        at, score, is_seen = points[person, hand], scores[person, hand].tolist(), seen[person, hand].tolist()
        for (a, b), hue in zip(HAND_EDGES, _FINGER_HUES, strict=True):
            if is_seen[a] and is_seen[b]:
                level = int(255 * score[a] * score[b])
                yield _Stroke(at[[a, b]], (level * hue[0], level * hue[1], level * hue[2]), _FINGER_WIDTH)
        for i in range(21):
            if is_seen[i]:
                yield _Stroke(at[i : i + 1], (int(255 * score[i]), 0, 0), _HAND_RADIUS)


def _face_strokes(keypoints: Keypoints, frame: int, size: tuple[int, int], style: DrawStyle) -> Iterator[_Stroke]:
    points = _on_canvas(keypoints.faces[frame], size).astype(np.int32)  # [P, 68, 2]
    scores = _shown(keypoints.faces_score[frame], style)
    for person, i in np.argwhere((scores > 0) & (points > 0).all(-1)):
        level = int(255 * float(scores[person, i]))
        yield _Stroke(points[person, i, None], (level, level, level), _FACE_RADIUS)


def _on_canvas(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    # Beyond ten pictures away nothing is visible, and OpenCV's integers overflow.
    return np.clip(points.astype(np.float64), -10, 10) * size


def _shown(scores: np.ndarray, style: DrawStyle) -> np.ndarray:
    """Brightness of each point, float64."""
    return (scores > style.threshold if style.confidence == "threshold" else scores).astype(np.float64)


def _scaled(colour: Colour, brightness: float) -> Colour:
    red, green, blue = (min(255, int(channel * brightness)) for channel in colour)
    return red, green, blue


def _ellipse(a: np.ndarray, b: np.ndarray) -> Int[np.ndarray, "points 2"]:
    """The outline of the ellipse that stands for the limb from `a` to `b`."""
    (x, y), (dx, dy) = (a + b) / 2, a - b
    half_length, angle = math.hypot(dx, dy) / 2, math.degrees(math.atan2(dy, dx))
    return np.asarray(cv2.ellipse2Poly((int(x), int(y)), (int(half_length), _LIMB_HALF_WIDTH), int(angle), 0, 360, 1))
