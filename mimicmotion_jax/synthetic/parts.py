"""Basics of a figure's parts: their names, the camera, and limbs between two joints."""

import enum
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mimicmotion_jax.synthetic.appearance import Colour, Fabric
from mimicmotion_jax.synthetic.drawing import RIM_LIGHT, Layer, capsule, fill, shaded_capsule
from mimicmotion_jax.synthetic.surface import Strip, pattern

RIM = 0.006  # width of the outline, in heights
SHOULDER, SLEEVE = 0.031, 0.035  # half widths of an upper arm and of its sleeve
_CAMERA_PITCH = np.radians(8)


class Part(enum.IntEnum):
    """Parts of a figure; a pair has two numbers, the left one and then the right one."""

    NONE = 0
    TORSO = 1
    PELVIS = 2
    SKIRT = 3
    NECK = 4
    HEAD = 5
    HAIR = 6
    UPPER_ARM = 10
    FOREARM = 12
    THIGH = 14
    CALF = 16
    FOOT = 18
    PALM = 20
    FINGER = 30  # left thumb to little finger, then the right ones


@dataclass(frozen=True)
class View:
    """Orthographic camera that looks down a little: pixels per height, and the floor's origin in pixels."""

    scale: float
    x: float
    y: float

    def project(self, points: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 2"]:
        """Project points to pixels."""
        down = points[..., 1] * np.cos(_CAMERA_PITCH) - points[..., 2] * np.sin(_CAMERA_PITCH)
        return np.stack([self.x + self.scale * points[..., 0], self.y + self.scale * down], axis=-1)


def silhouette(
    view: View, rotation: Float[np.ndarray, "*batch 3 3"], width: np.ndarray | float, depth: np.ndarray | float
) -> tuple[Float[np.ndarray, "*batch 2"], Float[np.ndarray, "*batch"]]:
    """Return the edge of an elliptical section to the picture's right, from its middle, and the turn of its front.

    Args:
        view: camera.
        rotation: of the part; its columns 0 and 2 span the section.
        width: half axis along column 0, in heights.
        depth: half axis along column 2.
    """
    x_axis, z_axis = rotation[..., 0], rotation[..., 2]
    wide, deep = width * x_axis[..., 0], depth * z_axis[..., 0]
    edge = (width * wide)[..., None] * x_axis + (depth * deep)[..., None] * z_axis
    edge = edge / np.maximum(np.hypot(wide, deep), 1e-6)[..., None]
    return view.project(edge) - view.project(np.zeros(3)), np.arctan2(-deep, wide)


def limb(
    view: View,
    part: int,
    group: str,
    ends: tuple[np.ndarray, np.ndarray],
    radii: tuple[float, float],
    colour: Colour,
    depth: Float[np.ndarray, " frames"],
    fabric: Fabric | None = None,
    outlined: float = 0.0,
) -> Layer:
    """Return a rounded limb between two joints; its outline begins at the fraction `outlined` of its length."""
    a, b = (view.project(end) for end in ends)
    ra, rb = (radius * view.scale for radius in radii)
    rim = RIM * view.scale
    layer = Layer(part, group, depth)
    start, radius = a + outlined * (b - a), ra + outlined * (rb - ra)
    layer.rim.append(fill(capsule(start, b, radius + rim, rb + rim), colour, RIM_LIGHT))
    layer.body += shaded_capsule(a, b, ra, rb, fabric.colour if fabric else colour)
    if fabric and fabric.pattern != "plain":
        way = b - a
        normal = np.stack([way[:, 1], -way[:, 0]], axis=-1) / np.maximum(np.hypot(*way.T), 1e-6)[:, None]
        # Longitudes run towards the picture's right when the limb hangs.
        rows = np.stack([normal * ra, normal * rb], axis=1)
        length = float(np.linalg.norm(ends[1][0] - ends[0][0]))
        strip = Strip(np.stack([a, b], axis=1), rows, np.zeros(len(a)))
        layer.body += pattern(strip, fabric, length, (radii[0] + radii[1]) / 2)
    return layer
