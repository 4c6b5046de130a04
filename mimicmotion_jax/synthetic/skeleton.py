"""Joints of a person in three dimensions: bones of fixed length, posed by the tracks of a motion.

Lengths are in heights of the person. The origin is on the floor; x points to the picture's right, y down, z away from
the viewer. The person faces the viewer, so their left is at positive x. Index 0 of a pair is the left side.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mimicmotion_jax.synthetic.kinematics import moved, rotation, soft_limit, turned, two_bones, upright, yaw_matrix

SIDES = np.array([1.0, -1.0])  # the sign of x on the person's left and right
HIP_WIDTH = 0.046

# For each finger from the thumb on: its start along and across the palm (towards the thumb), its three bones, all in
# lengths of the hand, and the angle by which it points to the thumb's side.
_FINGERS = (
    ((0.14, 0.16), (0.2, 0.17, 0.15), 0.75),
    ((0.46, 0.155), (0.21, 0.15, 0.12), 0.16),
    ((0.48, 0.045), (0.235, 0.165, 0.12), 0.03),
    ((0.46, -0.065), (0.22, 0.15, 0.12), -0.1),
    ((0.42, -0.165), (0.17, 0.12, 0.11), -0.26),
)
_FINGER_BEND = np.array([1.25, 1.6, 0.9])  # radians at each joint of a closed hand
_THUMB_BEND = np.array([0.35, 0.5, 0.8])


@dataclass(frozen=True)
class Proportions:
    """Lengths of bones and sizes of parts, in heights of an average person."""

    head: float = 1.0  # times the average size
    shoulder: float = 0.105
    spine: float = 0.285  # from the hips to the base of the neck
    upper_arm: float = 0.155
    forearm: float = 0.14
    hand: float = 0.12  # a little larger than life
    thigh: float = 0.235
    calf: float = 0.235
    ankle: float = 0.045
    girth: float = 1.0  # times the average thickness
    waist: float = 1.0  # times the average width
    hips: float = 1.0

    @property
    def pelvis_height(self) -> float:
        """Height of the hips in a relaxed stance."""
        return self.ankle + 0.985 * (self.thigh + self.calf)


@dataclass(frozen=True, eq=False)
class Tracks:
    """Motion over time; radians and heights. A turn is (yaw to the person's right, nod, tilt to the left).

    `wrists` are cylinder coordinates about the upper body's axis: the angle from straight sideways (0) over the front
    (pi / 2), the distance from the axis, and the height above the shoulders.
    """

    pelvis: Float[np.ndarray, "frames 3"]
    pelvis_turn: Float[np.ndarray, "frames 3"]
    chest_turn: Float[np.ndarray, "frames 3"]  # relative to the pelvis
    head_turn: Float[np.ndarray, "frames 3"]  # relative to the chest
    wrists: Float[np.ndarray, "frames 2 3"]
    pronation: Float[np.ndarray, "frames 2"]
    wrist_bend: Float[np.ndarray, "frames 2"]
    curl: Float[np.ndarray, "frames 2 5"]  # of each finger: 0 stretched, 1 closed
    spread: Float[np.ndarray, "frames 2"]
    feet: Float[np.ndarray, "frames 2 3"]  # outwards, up, forwards
    foot_pitch: Float[np.ndarray, "frames 2"]  # toes downwards
    heading: Float[np.ndarray, " frames"]  # yaw of the whole body to the person's right, without a limit
    path: Float[np.ndarray, "frames 3"]  # of the whole body, in the skeleton's coordinates
    mouth: Float[np.ndarray, " frames"]  # 0 closed, 1 open
    blink: Float[np.ndarray, " frames"]  # 0 open, 1 shut


@dataclass(frozen=True, eq=False)
class Sway:
    """Displacement of hair and skirt by inertia."""

    hair: Float[np.ndarray, "frames 3"]  # of its tips
    hem: Float[np.ndarray, "frames 3"]
    twist: Float[np.ndarray, " frames"]  # yaw of the hem, relative to the pelvis


@dataclass(frozen=True, eq=False)
class Joints:
    """Positions of all joints, and rotations of pelvis, chest and head; `sway` if the person moves freely."""

    pelvis: Float[np.ndarray, "frames 3"]
    waist: Float[np.ndarray, "frames 3"]
    neck: Float[np.ndarray, "frames 3"]  # middle of the shoulders
    head: Float[np.ndarray, "frames 3"]  # middle of the head
    shoulders: Float[np.ndarray, "frames 2 3"]
    elbows: Float[np.ndarray, "frames 2 3"]
    wrists: Float[np.ndarray, "frames 2 3"]
    hands: Float[np.ndarray, "frames 2 21 3"]
    hips: Float[np.ndarray, "frames 2 3"]
    knees: Float[np.ndarray, "frames 2 3"]
    ankles: Float[np.ndarray, "frames 2 3"]
    toes: Float[np.ndarray, "frames 2 3"]
    heels: Float[np.ndarray, "frames 2 3"]
    pelvis_rotation: Float[np.ndarray, "frames 3 3"]
    chest_rotation: Float[np.ndarray, "frames 3 3"]
    head_rotation: Float[np.ndarray, "frames 3 3"]
    sway: Sway | None = None


@dataclass(frozen=True, eq=False)
class Trunk:
    """Positions and rotations of pelvis, chest and head."""

    pelvis: Float[np.ndarray, "frames 3"]
    waist: Float[np.ndarray, "frames 3"]
    neck: Float[np.ndarray, "frames 3"]
    head: Float[np.ndarray, "frames 3"]
    pelvis_rotation: Float[np.ndarray, "frames 3 3"]
    chest_rotation: Float[np.ndarray, "frames 3 3"]
    head_rotation: Float[np.ndarray, "frames 3 3"]


def pose_trunk(body: Proportions, tracks: Tracks) -> Trunk:
    """Pose pelvis, chest and head."""
    whole = yaw_matrix(tracks.heading)
    pelvis = moved(whole, tracks.pelvis) + tracks.path + np.array([0, -body.pelvis_height, 0])
    pelvis_rotation = whole @ rotation(tracks.pelvis_turn)
    chest_rotation = pelvis_rotation @ rotation(tracks.chest_turn)
    head_rotation = chest_rotation @ rotation(tracks.head_turn)
    waist = pelvis + pelvis_rotation @ np.array([0, -0.35 * body.spine, 0])
    neck = waist + chest_rotation @ np.array([0, -0.65 * body.spine, 0])
    head = neck + chest_rotation @ np.array([0, -0.055, 0]) + head_rotation @ np.array([0, -0.08, -0.012]) * body.head
    return Trunk(pelvis, waist, neck, head, pelvis_rotation, chest_rotation, head_rotation)


def pose(body: Proportions, tracks: Tracks, window: tuple[float, float]) -> Joints:
    """Pose a body; a soft limit keeps wrists in a window of the picture (half its width, its top above the floor)."""
    trunk = pose_trunk(body, tracks)
    pelvis, neck = trunk.pelvis, trunk.neck
    pelvis_rotation, chest_rotation = trunk.pelvis_rotation, trunk.chest_rotation
    lateral = SIDES[:, None] * np.array([1.0, 0, 0])  # [2, 3]
    shoulders = neck[:, None] + turned(chest_rotation, body.shoulder * lateral)
    angle, radius, height = np.moveaxis(tracks.wrists, -1, 0)
    offset = np.stack([SIDES * radius * np.cos(angle), -height, -radius * np.sin(angle)], axis=-1)
    target = neck[:, None] + np.einsum("fij,fsj->fsi", chest_rotation, offset)
    target[..., 0] = soft_limit(target[..., 0], window[0])
    target[..., 1] = -soft_limit(-target[..., 1], window[1])
    pole = turned(chest_rotation, lateral * 0.8 + np.array([0, 0.45, 0.6]))
    elbows, wrists, bulge = two_bones(shoulders, target, pole, body.upper_arm, body.forearm)
    hands = _hands(body.hand, wrists, wrists - elbows, -bulge, tracks)

    hips = pelvis[:, None] + turned(pelvis_rotation, HIP_WIDTH * body.hips * lateral)
    outwards, up, forwards = np.moveaxis(tracks.feet, -1, 0)
    whole = yaw_matrix(tracks.heading)
    target = moved(whole, np.stack([SIDES * outwards, -body.ankle - up, -forwards], axis=-1)) + tracks.path[:, None]
    pole = turned(pelvis_rotation, 0.35 * lateral + np.array([0, 0, -1.0]))
    knees, ankles, _ = two_bones(hips, target, pole, body.thigh, body.calf)
    toes = ankles + moved(whole, lateral * 0.028 + _pitched(tracks.foot_pitch, 0.022, -0.085))
    heels = ankles + moved(whole, _pitched(tracks.foot_pitch, 0.016, 0.012))
    return Joints(
        pelvis, trunk.waist, neck, trunk.head, shoulders, elbows, wrists, hands, hips, knees, ankles, toes, heels,
        pelvis_rotation, chest_rotation, trunk.head_rotation,
    )  # fmt: skip


def _pitched(pitch: Float[np.ndarray, "frames 2"], down: float, back: float) -> Float[np.ndarray, "frames 2 3"]:
    """Turn a point of a foot about its ankle."""
    cos, sin = np.cos(pitch), np.sin(pitch)
    return np.stack([0 * pitch, cos * down - sin * back, sin * down + cos * back], axis=-1)


def _hands(
    length: float, wrists: np.ndarray, forearm: np.ndarray, inwards: np.ndarray, tracks: Tracks
) -> Float[np.ndarray, "frames 2 21 3"]:
    """Return the points of both hands; the elbow bends `inwards`."""
    forearm = forearm / np.linalg.norm(forearm, axis=-1, keepdims=True)
    # With the forearm half turned, the thumb lies in the plane of the arm, on the side to which the elbow bends.
    flexion = upright(inwards, forearm)
    angle = (tracks.pronation * SIDES)[..., None]
    thumbwards = np.cos(angle) * flexion + np.sin(angle) * np.cross(forearm, flexion)
    palm = np.cross(forearm, thumbwards) * SIDES[:, None]
    bend = tracks.wrist_bend[..., None]
    along, palm = np.cos(bend) * forearm + np.sin(bend) * palm, np.cos(bend) * palm - np.sin(bend) * forearm

    points = [wrists]
    for finger, ((reach, across), bones, splay) in enumerate(_FINGERS):
        curl = tracks.curl[..., finger, None]
        point = wrists + length * (reach * along + across * thumbwards)
        opening = splay * (0.35 + tracks.spread[..., None]) * (1 - 0.8 * curl) if finger else splay * (1 - 0.7 * curl)
        straight = np.cos(opening) * along + np.sin(opening) * thumbwards
        points.append(point)
        total = 0.0
        for bone, most in zip(bones, _FINGER_BEND if finger else _THUMB_BEND, strict=True):
            total = total + curl * most
            closing = upright(palm if finger else palm - thumbwards, straight)
            point = point + length * bone * (np.cos(total) * straight + np.sin(total) * closing)
            points.append(point)
    return np.stack(points, axis=-2)
