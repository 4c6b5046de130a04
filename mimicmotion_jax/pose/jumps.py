"""Jumps of a skeleton: moves between two frames that no body can make, so a cut, another person, or an error."""

import numpy as np
from jaxtyping import Float, Int

from mimicmotion_jax.pose.keypoints import Keypoints

_SEEN = 0.3
_MIN_JOINTS = 3
_SPEED = 8.0  # body sizes per second; a sprinter makes 6
_LEAST = 0.35  # body sizes; less can be an error in one frame, such as left and right confused
_GROWTH = 0.5  # logarithm of the ratio of sizes, so 1.65 times; less can be an error
_GROWTH_SPEED = 4.0  # the same per second


def find_jumps(keypoints: Keypoints, lasting: bool = False) -> list[int]:
    """Return the frames at which a person is somewhere else than the frame before, or of another size.

    A jump is a median move of the joints by more than 0.35 body sizes and by more than 8 body sizes per second, or a
    change of size by more than 1.65 times and faster than e^4 times per second. The size is the longer side of the box
    around the joints that both frames show. Where the person was lost in between, the last sight of them counts.

    Args:
        keypoints: one person.
        lasting: leave out frames in which the detector erred for a moment: the frames around must jump as well.

    Returns:
        Numbers of the first frames after a jump, in ascending order.
    """
    points = keypoints.body[:, 0].astype(np.float64) * (keypoints.width, keypoints.height)
    seen = keypoints.body_score[:, 0] > _SEEN
    present = np.flatnonzero(seen.sum(-1) >= _MIN_JOINTS)
    if len(present) < 2:
        return []

    seconds = np.diff(present) / keypoints.fps

    def jumps(before: Int[np.ndarray, " n"], after: Int[np.ndarray, " n"]) -> np.ndarray:
        shared = seen[before] & seen[after]
        masked = np.where(shared[..., None], np.stack([points[before], points[after]]), np.nan)  # [2, n, 18, 2]
        enough = shared.sum(-1) >= _MIN_JOINTS
        masked[:, ~enough] = 0
        sizes = _size(masked)
        move = np.nanmedian(np.linalg.norm(masked[1] - masked[0], axis=-1), axis=-1)
        far = move > np.maximum(_LEAST, _SPEED * seconds) * sizes.max(0)
        grown = np.abs(np.log(sizes[1] / sizes[0])) > np.maximum(_GROWTH, _GROWTH_SPEED * seconds)
        return enough & (far | grown)

    before, after = present[:-1], present[1:]
    jumped = jumps(before, after)
    if lasting:
        jumped &= jumps(np.concatenate([before[:1], before[:-1]]), np.concatenate([after[1:], after[-1:]]))
    return after[jumped].tolist()


def _size(points: Float[np.ndarray, "*frames joints 2"]) -> Float[np.ndarray, "*frames"]:
    """Longer side of the box around the joints, at least one pixel."""
    return (np.nanmax(points, axis=-2) - np.nanmin(points, axis=-2)).max(-1).clip(1)
