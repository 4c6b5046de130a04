"""Picture of a dressed person painted on given keypoints: the reference picture of the demo."""

import cv2
import numpy as np
from beartype import beartype
from jaxtyping import Float, UInt8, jaxtyped

from mimicmotion_jax.pose.keypoints import Body, Keypoints

_SUPERSAMPLING = 3

Colour = tuple[int, int, int]
Point = Float[np.ndarray, " 2"]

_SKIN, _SHADE, _CHEEK, _LIPS, _HAIR = (236, 188, 160), (214, 152, 126), (240, 158, 140), (196, 84, 86), (74, 46, 42)
_INK, _WHITE = (58, 40, 44), (255, 252, 248)
_JUMPER, _SLEEVE, _TROUSERS, _SHOES = (38, 132, 130), (30, 110, 112), (44, 54, 92), (250, 244, 234)
_WALL, _FLOOR, _SUN, _SHADOW = (244, 231, 211), (219, 184, 150), (246, 190, 120), (184, 148, 120)


class _Brush:
    """Brush for filled, smooth shapes; lengths are in half widths of a face."""

    def __init__(self, picture: UInt8[np.ndarray, "height width 3"], unit: float):
        self.picture, self.unit = picture, unit

    def at(self, origin: Point, x: float, y: float) -> Point:
        return origin + self.unit * np.array([x, y])

    def blob(self, centre: Point, width: float, height: float, colour: Colour, start: int = 0, end: int = 360) -> None:
        x, y = np.round(centre).astype(int)
        half_width, half_height = np.maximum(1, np.round(np.array([width, height]) * self.unit)).astype(int)
        cv2.ellipse(
            self.picture,
            (int(x), int(y)),
            (int(half_width), int(half_height)),
            0,
            start,
            end,
            colour,
            cv2.FILLED,
            cv2.LINE_AA,
        )

    def area(self, corners: list[Point], colour: Colour) -> None:
        cv2.fillPoly(self.picture, [np.round(corners).astype(np.int32)], colour, cv2.LINE_AA)

    def line(self, points: Float[np.ndarray, "points 2"], width: float, colour: Colour) -> None:
        thickness = max(1, round(width * self.unit))
        cv2.polylines(self.picture, [np.round(points).astype(np.int32)], False, colour, thickness, cv2.LINE_AA)

    def limb(self, a: Point, b: Point, width_a: float, width_b: float, colour: Colour) -> None:
        """Paint a rounded limb from `a` to `b` with the half widths at both ends."""
        along = (b - a) / max(np.hypot(*(b - a)), 1e-6)
        across = np.array([-along[1], along[0]]) * self.unit
        self.area([a + across * width_a, b + across * width_b, b - across * width_b, a - across * width_a], colour)
        self.blob(a, width_a, width_a, colour)
        self.blob(b, width_b, width_b, colour)


@jaxtyped(typechecker=beartype)
def paint_person(keypoints: Keypoints) -> UInt8[np.ndarray, "height width 3"]:
    """Paint the first person of the first frame in front of a wall with a large sun, at the keypoints' picture size.

    All points must be present and the person must face the viewer.
    """
    size = np.array([keypoints.width, keypoints.height]) * _SUPERSAMPLING
    body, hands, face = (part[0, 0] * size for part in (keypoints.body, keypoints.hands, keypoints.faces))
    brush = _Brush(np.empty((size[1], size[0], 3), np.uint8), float(np.ptp(face[:17, 0])) / 2)
    _room(brush, body)
    _hair_behind(brush, body)
    _legs(brush, body)
    _torso(brush, body)
    for side, arm in enumerate((body[5:8], body[2:5])):
        _arm(brush, arm, hands[side])
    _head(brush, body[Body.NOSE], face)
    return cv2.resize(brush.picture, (keypoints.width, keypoints.height), interpolation=cv2.INTER_AREA)


def _room(brush: _Brush, body: np.ndarray) -> None:
    height = len(brush.picture)
    feet = (body[Body.R_ANKLE] + body[Body.L_ANKLE]) / 2
    floor = int(brush.at(feet, 0, -0.6)[1])
    brush.picture[:] = _WALL
    brush.blob(brush.at(body[Body.NECK], 0, 0.4), 4.4, 4.4, _SUN)
    brush.picture[floor:] = _FLOOR
    brush.blob(brush.at(feet, 0, 0.75), 2.9, 0.45, _SHADOW)
    light = np.linspace(1.03, 0.95, height, dtype=np.float32)[:, None, None]
    brush.picture[:] = np.minimum(brush.picture * light, 255)


def _hair_behind(brush: _Brush, body: np.ndarray) -> None:
    nose = body[Body.NOSE]
    brush.blob(brush.at(nose, 0, -0.25), 1.3, 1.5, _HAIR)
    brush.limb(brush.at(nose, -0.75, 0), brush.at(nose, -0.7, 1.05), 0.55, 0.5, _HAIR)
    brush.limb(brush.at(nose, 0.75, 0), brush.at(nose, 0.7, 1.05), 0.55, 0.5, _HAIR)


def _legs(brush: _Brush, body: np.ndarray) -> None:
    brush.limb(body[Body.R_HIP], body[Body.L_HIP], 0.62, 0.62, _TROUSERS)
    for outwards, (hip, knee, ankle) in ((-1, body[8:11]), (1, body[11:14])):
        brush.blob(brush.at(ankle, outwards * 0.25, 0.52), 0.58, 0.3, _SHOES)
        brush.limb(hip, knee, 0.68, 0.46, _TROUSERS)
        brush.limb(knee, brush.at(ankle, 0, 0.15), 0.46, 0.34, _TROUSERS)


def _torso(brush: _Brush, body: np.ndarray) -> None:
    neck, right, left, right_hip, left_hip = body[[Body.NECK, 2, 5, 8, 11]]
    brush.limb(brush.at(neck, 0, -0.9), neck, 0.36, 0.42, _SHADE)
    brush.limb(right, left, 0.34, 0.34, _JUMPER)
    brush.area(
        [
            brush.at(right, -0.1, -0.2),
            brush.at(left, 0.1, -0.2),
            brush.at(left_hip, 0.62, 0),
            brush.at(right_hip, -0.62, 0),
        ],
        _JUMPER,
    )
    brush.limb(brush.at(right_hip, -0.25, -0.1), brush.at(left_hip, 0.25, -0.1), 0.42, 0.42, _JUMPER)
    brush.blob(brush.at(neck, 0, -0.28), 0.5, 0.36, _SHADE)


def _arm(brush: _Brush, arm: np.ndarray, hand: np.ndarray) -> None:
    shoulder, elbow, wrist = arm
    for finger in hand[1:].reshape(5, 4, 2):
        brush.line(np.stack([wrist, *finger]), 0.2, _SKIN)
        brush.blob(finger[-1], 0.1, 0.1, _SKIN)
    brush.limb(wrist, hand[[5, 9, 13, 17]].mean(0), 0.19, 0.27, _SKIN)
    brush.limb(shoulder, elbow, 0.38, 0.31, _SLEEVE)
    brush.limb(elbow, wrist, 0.31, 0.23, _SLEEVE)


def _head(brush: _Brush, nose: np.ndarray, face: np.ndarray) -> None:
    brush.blob(brush.at(nose, 0, -0.3), 1.0, 1.08, _SKIN)
    brush.area(list(face[:17]), _SKIN)
    # Hair parted at one side; the line of the fringe stays above the brows.
    brush.blob(brush.at(nose, 0, -0.62), 1.12, 0.98, _HAIR, 180, 360)
    fringe = [
        (-1.12, -0.63),
        (-1.02, -0.1),
        (-0.82, -0.62),
        (-0.2, -0.88),
        (0.35, -1.02),
        (0.85, -0.68),
        (1.02, -0.1),
        (1.12, -0.63),
    ]
    brush.area([brush.at(nose, x, y) for x, y in fringe], _HAIR)
    for outwards, brow, eye in ((-1, face[17:22], face[36:42]), (1, face[22:27], face[42:48])):
        brush.blob(brush.at(nose, outwards * 0.58, 0.3), 0.19, 0.13, _CHEEK)
        brush.line(brow, 0.07, _HAIR)
        middle = eye.mean(0)
        brush.blob(middle, 0.18, 0.17, _WHITE)
        brush.blob(middle, 0.11, 0.15, _INK)
        brush.blob(brush.at(middle, 0.04, -0.06), 0.04, 0.045, _WHITE)
        brush.line(eye[:4] - np.array([0, 0.07 * brush.unit]), 0.06, _INK)
    brush.blob(brush.at(nose, 0, 0.08), 0.1, 0.06, _SHADE)
    brush.blob(brush.at(face[48:60].mean(0), 0, -0.06), 0.28, 0.19, _LIPS, 0, 180)
