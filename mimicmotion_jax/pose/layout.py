"""A table of all 128 points of a person: 18 of the body, 21 of the left and of the right hand, 68 of the face."""

import dataclasses

import numpy as np
from jaxtyping import Float

from mimicmotion_jax.pose.keypoints import GROUPS, Body, Keypoints

HANDS, FACE, NUM_POINTS = 18, 60, 128
"""Index of the first point of the hands and of the face, and the number of points."""

WRISTS = {Body.L_WRIST: HANDS, Body.R_WRIST: HANDS + 21}
"""Index of each hand's own wrist, by that of the body."""


def to_table(keypoints: Keypoints) -> tuple[Float[np.ndarray, "frames 128 2"], Float[np.ndarray, "frames 128"]]:
    """Join the points of one person, normalised to the picture, and their scores; float64."""
    frames = keypoints.num_frames
    points = [getattr(keypoints, name).reshape(frames, -1, 2) for name in GROUPS]
    scores = [getattr(keypoints, f"{name}_score").reshape(frames, -1) for name in GROUPS]
    return np.concatenate(points, axis=1).astype(np.float64), np.concatenate(scores, axis=1).astype(np.float64)


def from_table(
    keypoints: Keypoints,
    points: Float[np.ndarray, "frames 128 2"],
    scores: Float[np.ndarray, "frames 128"] | None = None,
) -> Keypoints:
    """Replace the points of `keypoints`, which hold one person, and the scores if given."""
    arrays = dict(zip(GROUPS, np.split(points, [HANDS, FACE], axis=1), strict=True))
    if scores is not None:
        parts = np.split(scores, [HANDS, FACE], axis=1)
        arrays |= {f"{name}_score": part for name, part in zip(GROUPS, parts, strict=True)}
    return dataclasses.replace(
        keypoints, **{name: array.reshape(getattr(keypoints, name).shape) for name, array in arrays.items()}
    )
