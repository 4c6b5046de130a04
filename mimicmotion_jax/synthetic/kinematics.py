"""Rotations, the joint between two bones, and a smooth step from one place to another.

Coordinates are those of the skeleton: x to the picture's right, y down, z away from the viewer.
"""

import numpy as np
from jaxtyping import Float


def yaw_matrix(yaw: Float[np.ndarray, " frames"]) -> Float[np.ndarray, "frames 3 3"]:
    """Return the matrix of a turn about the vertical axis."""
    zero = np.zeros_like(yaw)
    return rotation(np.stack([yaw, zero, zero], axis=-1))


def rotation(turn: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3 3"]:
    """Return the matrix that tilts, then nods, then turns by (yaw, nod, tilt)."""
    (cy, cn, ct), (sy, sn, st) = (np.moveaxis(f(turn), -1, 0) for f in (np.cos, np.sin))
    zero, one = np.zeros_like(cy), np.ones_like(cy)

    def matrix(*rows: tuple[np.ndarray, ...]) -> np.ndarray:
        return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)

    yaw = matrix((cy, zero, sy), (zero, one, zero), (-sy, zero, cy))
    nod = matrix((one, zero, zero), (zero, cn, -sn), (zero, sn, cn))
    return yaw @ nod @ matrix((ct, -st, zero), (st, ct, zero), (zero, zero, one))


def moved(matrices: np.ndarray, points: Float[np.ndarray, "frames *pair 3"]) -> Float[np.ndarray, "frames *pair 3"]:
    """Rotate points that differ from frame to frame."""
    return np.einsum("fij,f...j->f...i", matrices, points)


def turned(matrices: np.ndarray, vectors: Float[np.ndarray, "2 3"]) -> Float[np.ndarray, "frames 2 3"]:
    """Rotate a pair of vectors that is the same in all frames."""
    return np.einsum("fij,sj->fsi", matrices, vectors)


def soft_limit(values: np.ndarray, limit: float) -> np.ndarray:
    """Keep values up to 0.8 of the limit, and press larger ones smoothly below the limit."""
    knee = 0.8 * limit
    beyond = np.maximum(abs(values) - knee, 0) / (limit - knee)
    return np.sign(values) * (np.minimum(abs(values), knee) + (limit - knee) * np.tanh(beyond))


def two_bones(
    root: np.ndarray, target: np.ndarray, pole: np.ndarray, first: float, second: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the joint between two bones, their end (the target if it is in reach), and the joint's direction.

    The joint points to the pole's side, across the line from the root to the end.
    """
    way = target - root
    distance = np.linalg.norm(way, axis=-1, keepdims=True)
    along = way / np.maximum(distance, 1e-6)
    distance = np.clip(distance, 0.35 * (first + second), 0.998 * (first + second))
    part = (first**2 - second**2 + distance**2) / (2 * distance)
    height = np.sqrt(np.maximum(first**2 - part**2, 0))
    side = upright(pole, along)
    return root + along * part + side * height, root + along * distance, side


def upright(vector: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Return the unit vector perpendicular to `axis` nearest to `vector`."""
    across = vector - (vector * axis).sum(-1, keepdims=True) * axis
    return across / np.maximum(np.linalg.norm(across, axis=-1, keepdims=True), 1e-6)


def smooth_step(x: np.ndarray) -> np.ndarray:
    """Return 0 below 0, 1 above 1, and a smooth rise between."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)
