"""PSNR and SSIM of each frame against the true frame, as DisCo's evaluation computes them."""

import cv2
import numpy as np
from beartype import beartype
from jaxtyping import Bool, Float64, UInt8, jaxtyped

from mimicmotion_jax.runtime.errors import InputError

PSNR_LIMIT = 100.0
"""Largest PSNR of a frame in an average, dB; frames without any error count as this."""

SSIM_WINDOW = 7
"""Side of SSIM's windows, in pixels."""


@jaxtyped(typechecker=beartype)
def psnr(
    frames: UInt8[np.ndarray, "f h w 3"],
    reference: UInt8[np.ndarray, "f2 h2 w2 3"],
    mask: Bool[np.ndarray, "f3 h3 w3"] | None = None,
) -> Float64[np.ndarray, " f"]:
    """Compute the peak signal-to-noise ratio of each frame, 20 log10(255 / root mean square error) dB, in float64.

    Equal frames give infinity, which `average_psnr` limits.

    Args:
        frames: RGB, 0 to 255.
        reference: as many frames of the same size.
        mask: pixels to compare (for example hands); a frame without any gives NaN. None compares all pixels.

    Raises:
        InputError: the videos, or video and mask, have different shapes.
    """
    check_same_shape(frames, reference, mask)
    values = np.empty(len(frames))
    for index, (frame, truth) in enumerate(zip(frames, reference, strict=True)):
        error = (frame.astype(np.float64) - truth) ** 2
        inside = error if mask is None else error[mask[index]]
        mean = inside.mean() if inside.size else np.nan
        values[index] = np.inf if mean == 0 else 20 * np.log10(255 / np.sqrt(mean))
    return values


@jaxtyped(typechecker=beartype)
def average_psnr(values: Float64[np.ndarray, " n"]) -> float:
    """Average the PSNR values (dB) of any number of frames.

    A frame counts at most 100 dB, as in DisCo's code (an error of one level in one sample of a 256 x 256 frame is
    101 dB). NaN values are ignored; if all are NaN, so is the mean.
    """
    counted = values[~np.isnan(values)]
    return float(np.minimum(counted, PSNR_LIMIT).mean()) if len(counted) else float("nan")


@jaxtyped(typechecker=beartype)
def ssim(frames: UInt8[np.ndarray, "f h w 3"], reference: UInt8[np.ndarray, "f2 h2 w2 3"]) -> Float64[np.ndarray, " f"]:
    """Compute the structural similarity of each frame, -1 to 1, in 8-bit greyscale (OpenCV's weights).

    Scikit-image's defaults: float64, uniform windows of 7 x 7, sample covariance, K1 = 0.01, K2 = 0.03, and a mean that
    leaves out the border.

    Raises:
        InputError: the videos have different shapes, frames are smaller than a window, or scikit-image is missing.
    """
    try:
        from skimage.metrics import structural_similarity
    except ImportError:
        raise InputError('SSIM needs scikit-image: pip install "mimicmotion_jax[evaluate]".') from None
    check_same_shape(frames, reference)
    height, width = frames.shape[1:3]
    if min(height, width) < SSIM_WINDOW:
        raise InputError(f"SSIM needs frames of at least {SSIM_WINDOW}x{SSIM_WINDOW} pixels, not {width}x{height}.")
    scores = []
    for pair in zip(frames, reference, strict=True):
        grey = (cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in pair)
        scores.append(structural_similarity(*grey, win_size=SSIM_WINDOW, data_range=255))
    return np.array(scores)


def check_same_shape(frames: np.ndarray, reference: np.ndarray, mask: np.ndarray | None = None) -> None:
    """Check that two videos `[f, h, w, 3]`, and a mask `[f, h, w]` if given, have the same frames and size.

    Raises:
        InputError: the numbers of frames or their sizes differ.
    """
    for what, other in (("the reference", reference), ("the mask", mask)):
        if other is not None and other.shape[:3] != frames.shape[:3]:
            raise InputError(
                f"the video is {_describe(frames)} but {what} is {_describe(other)}; "
                "crop, resize and cut them alike before comparing them."
            )


def _describe(video: np.ndarray) -> str:
    frames, height, width = video.shape[:3]
    return f"{frames} frames of {width}x{height}"
