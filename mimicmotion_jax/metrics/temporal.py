"""Smoothness over time: how much neighbouring frames differ, whether segments join without a jump, and y-t slices."""

import itertools
from collections.abc import Sequence

import numpy as np
from beartype import beartype
from jaxtyping import Float64, UInt8, jaxtyped

from mimicmotion_jax.runtime.errors import InputError


@jaxtyped(typechecker=beartype)
def frame_differences(frames: UInt8[np.ndarray, "f h w 3"]) -> Float64[np.ndarray, " f-1"]:
    """Mean absolute difference between consecutive frames, 0 to 1 (the curve of the paper's figure 5).

    Raises:
        InputError: fewer than two frames.
    """
    if len(frames) < 2:
        raise InputError("frame differences need a video of at least two frames.")
    pairs = itertools.pairwise(frames)
    return np.array([np.abs(after.astype(np.int16) - before).mean() / 255 for before, after in pairs])


@jaxtyped(typechecker=beartype)
def seam_discontinuity(differences: Float64[np.ndarray, " n"], seams: Sequence[int]) -> float:
    """How many times larger the frame difference is at the seams between segments than elsewhere, on average.

    1 is a seam like any other place. A video that stands still elsewhere gives infinity, or 1 if it does so at the
    seams too.

    Args:
        differences: of `frame_differences`.
        seams: number of the first frame after each seam, 1 to the number of the last frame.

    Raises:
        InputError: no seam, a frame that does not exist or has none before it, or nothing but seams.
    """
    if not seams or not all(1 <= seam <= len(differences) for seam in seams):
        raise InputError(f"seams must be one or more frame numbers from 1 to {len(differences)}, not {list(seams)}.")
    at_seam = np.zeros(len(differences), bool)
    at_seam[np.asarray(seams) - 1] = True
    if at_seam.all():
        raise InputError("every frame is a seam; there is nothing to compare the seams with.")
    inside, elsewhere = differences[at_seam].mean(), differences[~at_seam].mean()
    if elsewhere == 0:
        return 1.0 if inside == 0 else float("inf")
    return float(inside / elsewhere)


@jaxtyped(typechecker=beartype)
def yt_slice(frames: UInt8[np.ndarray, "f h w 3"], column: int) -> UInt8[np.ndarray, "h f 3"]:
    """One column of pixels over time as a picture, time to the right (the paper's figure 9).

    Raises:
        InputError: a column outside the frames.
    """
    width = frames.shape[2]
    if not 0 <= column < width:
        raise InputError(f"there is no column {column} in frames of {width} pixels; give one from 0 to {width - 1}.")
    return frames[:, :, column].swapaxes(0, 1).copy()
