"""Where places on a head are seen.

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
    """Points in the head's coordinates (the same in every frame, or one set each) in those of the skeleton."""
    return joints.head[:, None] + UNIT * character.body.head * points @ joints.head_rotation.swapaxes(1, 2)


def seen_from_front(joints: Joints, points: Float[np.ndarray, "*frames points 3"]) -> Bool[np.ndarray, "frames points"]:
    """Whether points on the head's surface (in its coordinates) are on the side that we see, or just on its edge."""
    normal = points / SKULL**2
    return (normal @ joints.head_rotation[:, 2, :, None])[..., 0] < 0.12


class Brush:
    """Places on a head in pixels."""

    def __init__(self, view: View, character: Character, joints: Joints):
        self.view, self.character, self.joints = view, character, joints
        self.unit = UNIT * character.body.head * view.scale

    def at(self, points: Float[np.ndarray, "*frames points 3"]) -> Polygon:
        """Where points in the head's coordinates are seen."""
        return self.view.project(in_space(self.character, self.joints, points))

    def axes(self, width: float, height: float, more: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Half axes in the picture's plane, tilted with the head; `more` is in pixels."""
        upright = self.view.project(self.joints.head_rotation[:, :, 1]) - self.view.project(np.zeros(3))
        upright /= np.linalg.norm(upright, axis=-1, keepdims=True)
        sideways = np.stack([upright[:, 1], -upright[:, 0]], axis=-1)
        return sideways * (width * self.unit + more), upright * (height * self.unit + more)

    def on_skull(self, longitude: np.ndarray, latitude: np.ndarray, grown: float = 1.0) -> Polygon:
        """Where places on the skull, in degrees, are seen; what is turned away lies on the edge."""
        yaw = np.arctan2(self.joints.head_rotation[:, 0, 2], self.joints.head_rotation[:, 2, 2])[:, None]
        turned = np.clip(np.radians(longitude) - yaw, -np.pi / 2, np.pi / 2) + yaw
        latitude = np.broadcast_to(np.radians(latitude), turned.shape)
        points = np.stack(
            [np.cos(latitude) * np.sin(turned), -np.sin(latitude), -np.cos(latitude) * np.cos(turned)], axis=-1
        )
        return self.at(points * SKULL * grown)
