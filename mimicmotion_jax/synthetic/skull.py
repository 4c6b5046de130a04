"""Projection of points on a head to pixels.

The head's own coordinates are in head units (about half its height) from its middle: x to the person's left, y down,
z to the back.
"""

import numpy as np
from jaxtyping import Bool, Float

from mimicmotion_jax.synthetic.appearance import Character
from mimicmotion_jax.synthetic.drawing import Polygon
from mimicmotion_jax.synthetic.parts import View
from mimicmotion_jax.synthetic.skeleton import Joints

UNIT = 0.085  # heights
SKULL = np.array([0.78, 0.92, 0.82])  # half axes
EARS = np.array([[0.77, 0.12, 0.08], [-0.77, 0.12, 0.08]])


def in_space(
    character: Character, joints: Joints, points: Float[np.ndarray, "*frames points 3"]
) -> Float[np.ndarray, "frames points 3"]:
    """Convert points from the head's coordinates (the same for all frames, or one set each) to the skeleton's."""
    return joints.head[:, None] + UNIT * character.body.head * points @ joints.head_rotation.swapaxes(1, 2)


def seen_from_front(joints: Joints, points: Float[np.ndarray, "*frames points 3"]) -> Bool[np.ndarray, "frames points"]:
    """Return True for points on the head's surface (in its coordinates) on the visible side or just on its edge."""
    normal = points / SKULL**2
    return (normal @ joints.head_rotation[:, 2, :, None])[..., 0] < 0.12


def rolled_to_edge(
    joints: Joints, points: Float[np.ndarray, "frames points 3"]
) -> Float[np.ndarray, "frames points 3"]:
    """Move points (in the head's coordinates) that are turned away about the head's axis, to the edge that is seen."""
    yaw = head_yaw(joints)[:, None]
    beyond = np.arctan2(points[..., 0], -points[..., 2]) - yaw
    beyond -= 2 * np.pi * np.rint(beyond / (2 * np.pi))
    turned = np.clip(beyond, -np.pi / 2, np.pi / 2) + yaw
    radius = np.hypot(points[..., 0], points[..., 2])
    return np.stack([radius * np.sin(turned), points[..., 1], -radius * np.cos(turned)], axis=-1)


def head_yaw(joints: Joints) -> Float[np.ndarray, " frames"]:
    """Return the longitude of the head that faces the viewer, in radians."""
    return np.arctan2(joints.head_rotation[:, 0, 2], joints.head_rotation[:, 2, 2])


class Brush:
    """Converter of positions on a head to pixels."""

    def __init__(self, view: View, character: Character, joints: Joints):
        self.view, self.character, self.joints = view, character, joints
        self.unit = UNIT * character.body.head * view.scale

    def at(self, points: Float[np.ndarray, "*frames points 3"]) -> Polygon:
        """Project points in the head's coordinates."""
        return self.view.project(in_space(self.character, self.joints, points))

    def axes(self, width: float, height: float, more: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Return half axes in the picture's plane, tilted with the head; `more` is in pixels."""
        upright = self.view.project(self.joints.head_rotation[:, :, 1]) - self.view.project(np.zeros(3))
        upright /= np.linalg.norm(upright, axis=-1, keepdims=True)
        sideways = np.stack([upright[:, 1], -upright[:, 0]], axis=-1)
        return sideways * (width * self.unit + more), upright * (height * self.unit + more)

    def on_skull(self, longitude: np.ndarray, latitude: np.ndarray, grown: float = 1.0) -> Polygon:
        """Project positions on the skull, in degrees; those turned away are put on the edge."""
        yaw = head_yaw(self.joints)[:, None]
        turned = np.clip(np.radians(longitude) - yaw, -np.pi / 2, np.pi / 2) + yaw
        latitude = np.broadcast_to(np.radians(latitude), turned.shape)
        points = np.stack(
            [np.cos(latitude) * np.sin(turned), -np.sin(latitude), -np.cos(latitude) * np.cos(turned)], axis=-1
        )
        return self.at(points * SKULL * grown)
