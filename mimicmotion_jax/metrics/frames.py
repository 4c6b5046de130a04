"""Frame by frame against the truth: PSNR and SSIM, as DisCo's evaluation computes them."""

import cv2
import numpy as np
from beartype import beartype
from jaxtyping import Bool, Float64, UInt8, jaxtyped

from mimicmotion_jax.runtime.errors import InputError

PSNR_LIMIT = 100.0
"""dB; what a frame without any error counts in an average."""

SSIM_WINDOW = 7
"""Side of the windows of SSIM, pixels."""


@jaxtyped(typechecker=beartype)
def psnr(
    frames: UInt8[np.ndarray, "f h w 3"],
    reference: UInt8[np.ndarray, "f2 h2 w2 3"],
    mask: Bool[np.ndarray, "f3 h3 w3"] | None = None,
) -> Float64[np.ndarray, " f"]:
    """Peak signal-to-noise ratio of each frame, 20 log10(255 / root mean square error) dB, in float64.

    Equal frames have infinity; `average_psnr` says what becomes of them.

    Args:
        frames: RGB, 0 to 255.
        reference: as many frames of the same size.
        mask: pixels that count (hands, say); a frame in which none does gets NaN. None is all pixels.

    Raises:
        InputError: videos, or video and mask, of different shapes.
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
    """Mean of PSNR values (dB) of any number of frames.

    A frame counts for at most 100 dB, and so do equal frames, as in DisCo's code (one level's error in one sample of a
    256 x 256 frame is 101 dB). Frames without a value (NaN) do not count; without any frame that does, the mean is NaN.
    """
    counted = values[~np.isnan(values)]
    return float(np.minimum(counted, PSNR_LIMIT).mean()) if len(counted) else float("nan")


@jaxtyped(typechecker=beartype)
def ssim(frames: UInt8[np.ndarray, "f h w 3"], reference: UInt8[np.ndarray, "f2 h2 w2 3"]) -> Float64[np.ndarray, " f"]:
    """Structural similarity of each frame, -1 to 1, of 8-bit greyscale (OpenCV's weights), by scikit-image's defaults.

    That is: float64, uniform windows of 7 x 7, sample covariance, K1 = 0.01, K2 = 0.03, and a mean without the border.

    Raises:
        InputError: videos of different shapes, frames smaller than a window, or no scikit-image.
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
    """Compare videos `[f, h, w, 3]`, and a mask `[f, h, w]` if there is one.

    Raises:
        InputError: different numbers of frames, or frames of different sizes.
    """
    for what, other in (("the reference", reference), ("the mask", mask)):
        if other is not None and other.shape[:3] != frames.shape[:3]:
            raise InputError(
                f"the video is {_describe(frames)} but {what} is {_describe(other)}; "
                "crop, resize and cut them to the same before they are compared."
            )


def _describe(video: np.ndarray) -> str:
    frames, height, width = video.shape[:3]
    return f"{frames} frames of {width}x{height}"
