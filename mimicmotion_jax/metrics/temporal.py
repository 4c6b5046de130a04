"""Smoothness over time: differences of consecutive frames, jumps between segments, and y-t slices."""

import itertools
from collections.abc import Sequence

import numpy as np
from beartype import beartype
from jaxtyping import Float64, UInt8, jaxtyped

from mimicmotion_jax.runtime.errors import InputError


@jaxtyped(typechecker=beartype)
def frame_differences(frames: UInt8[np.ndarray, "f h w 3"]) -> Float64[np.ndarray, " f-1"]:
    """Compute the mean absolute difference of consecutive frames, 0 to 1 (the curve of the paper's figure 5).

    Raises:
        InputError: the video has fewer than two frames.
    """
    if len(frames) < 2:
        raise InputError("frame differences need a video of at least two frames.")
    pairs = itertools.pairwise(frames)
    return np.array([np.abs(after.astype(np.int16) - before).mean() / 255 for before, after in pairs])


@jaxtyped(typechecker=beartype)
def seam_discontinuity(differences: Float64[np.ndarray, " n"], seams: Sequence[int]) -> float:
    """Compute the ratio of the mean frame difference at seams between segments to that elsewhere.

    1 means that seams cannot be told from other frames. A video that stands still elsewhere gives infinity, or 1 if it
    stands still at the seams too.

    Args:
        differences: result of `frame_differences`.
        seams: index of the first frame after each seam, from 1 to the index of the last frame.

    Raises:
        InputError: there is no seam, an index is out of range, or every frame is a seam.
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
    """Cut out one column of pixels over time as a picture, time to the right (the paper's figure 9).

    Raises:
        InputError: the column is outside the frames.
    """
    width = frames.shape[2]
    if not 0 <= column < width:
        raise InputError(f"there is no column {column} in frames of {width} pixels; give one from 0 to {width - 1}.")
    return frames[:, :, column].swapaxes(0, 1).copy()
