"""Boxes of clearly visible hands, where the loss weighs more (paper section 3.4, hand region enhancement)."""

import numpy as np
from beartype import beartype
from jaxtyping import Bool, Float32, jaxtyped

from mimicmotion_jax.pose.keypoints import Keypoints
from mimicmotion_jax.runtime.errors import InputError

# The paper names no number. Half of what a detector gives to a point it is sure of; DWPose's scores of hidden or
# blurred fingers lie below that, and one such finger is enough for a hand not to count.
THRESHOLD = 0.5
PADDING = 0.25


def hand_boxes(
    keypoints: Keypoints, threshold: float | int = THRESHOLD, padding: float | int = PADDING
) -> tuple[Float32[np.ndarray, "frames people 2 4"], Bool[np.ndarray, "frames people 2"]]:
    """The padded bounding box of every hand of which all 21 keypoints have a score above `threshold`.

    Args:
        keypoints: of P people over F frames.
        threshold: detector's confidence, at least 0.
        padding: on every side, as a fraction of the box's longer side in pixels; at least 0.

    Returns:
        boxes (left, top, right, bottom) as fractions of the picture, clipped to it and 0 where there is no hand to
        count, and whether there is one. A hand that lies outside the picture does not count.

    Raises:
        InputError: a negative threshold or padding.
    """
    if not threshold >= 0 or not padding >= 0:
        raise InputError(f"hand threshold and padding must be 0 or more, not {threshold} and {padding}.")
    size = np.array([keypoints.width, keypoints.height], np.float32)
    low, high = keypoints.hands.min(-2) * size, keypoints.hands.max(-2) * size  # [F, P, 2, 2] pixels
    margin = padding * (high - low).max(-1, keepdims=True)
    boxes = np.concatenate([low - margin, high + margin], axis=-1) / np.tile(size, 2)
    boxes = np.clip(boxes, 0, 1).astype(np.float32)
    inside = np.all(boxes[..., 2:] > boxes[..., :2], axis=-1)
    valid = np.all(keypoints.hands_score > threshold, axis=-1) & inside
    return np.where(valid[..., None], boxes, np.float32(0)), valid


@jaxtyped(typechecker=beartype)
def hand_mask(
    keypoints: Keypoints, height: int, width: int, threshold: float | int = THRESHOLD, padding: float | int = PADDING
) -> Bool[np.ndarray, "frames {height} {width}"]:
    """The cells of a `height` x `width` grid over the picture (its latents) that a hand's box overlaps.

    Raises:
        InputError: as `hand_boxes`.
    """
    boxes, valid = hand_boxes(keypoints, threshold, padding)
    left, top, right, bottom = np.moveaxis(boxes, -1, 0)[..., None]  # [F, P, 2, 1]
    rows, columns = np.arange(height), np.arange(width)
    in_row = (rows < bottom * height) & (rows + 1 > top * height)  # [F, P, 2, h]
    in_column = (columns < right * width) & (columns + 1 > left * width)
    in_row &= valid[..., None]
    return (in_row[..., :, None] & in_column[..., None, :]).any(axis=(1, 2))
