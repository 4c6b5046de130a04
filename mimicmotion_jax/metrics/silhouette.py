"""A person's silhouette in front of a known background, and the overlap of two silhouettes."""

import numpy as np
from beartype import beartype
from jaxtyping import Bool, Float64, UInt8, jaxtyped

from mimicmotion_jax.runtime.errors import InputError


@jaxtyped(typechecker=beartype)
def foreground(
    frames: UInt8[np.ndarray, "f h w 3"], background: UInt8[np.ndarray, "h2 w2 3"], threshold: int
) -> Bool[np.ndarray, "f h w"]:
    """Find the pixels that differ from the background by more than `threshold` levels (0 to 255) in any channel.

    Raises:
        InputError: the background has another size, or the threshold is outside 0 to 254.
    """
    if background.shape != frames.shape[1:]:
        raise InputError(
            f"the background is {background.shape[1]}x{background.shape[0]} pixels but the video "
            f"{frames.shape[2]}x{frames.shape[1]}; resize one of them."
        )
    if not 0 <= threshold < 255:
        raise InputError(f"the foreground threshold must be from 0 to 254 levels, not {threshold}.")
    backdrop = background.astype(np.int16)
    return np.stack([(np.abs(frame - backdrop) > threshold).any(axis=-1) for frame in frames])


@jaxtyped(typechecker=beartype)
def intersection_over_union(
    mask: Bool[np.ndarray, "f h w"], reference: Bool[np.ndarray, "f2 h2 w2"]
) -> Float64[np.ndarray, " f"]:
    """Compute the intersection over union of two masks, per frame, 0 to 1; 1 if both are empty.

    Raises:
        InputError: the masks have different shapes.
    """
    if mask.shape != reference.shape:
        raise InputError(f"masks of shapes {mask.shape} and {reference.shape} cannot be compared; make them the same.")
    union = (mask | reference).sum((1, 2))
    return np.where(union == 0, 1.0, (mask & reference).sum((1, 2)) / np.maximum(union, 1))
