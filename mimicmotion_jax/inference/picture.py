"""The reference image: from a path, a PIL image or an array to upright 8-bit RGB at the size of the video."""

import os
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.image import read_image, rgb_pixels

Picture = str | os.PathLike[str] | Image.Image | UInt8[np.ndarray, "height width 3"]


def load_picture(image: Picture) -> UInt8[np.ndarray, "height width 3"]:
    """RGB pixels of a reference image.

    Raises:
        InputError: a file that is missing or no picture, or an array that is not uint8 [H, W, 3].
    """
    if isinstance(image, str | os.PathLike):
        return read_image(local_path(image))
    if isinstance(image, Image.Image):
        return rgb_pixels(image)
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] != 3:
        raise InputError(
            f"image must be a path, a PIL image or a uint8 array [H, W, 3], not {pixels.dtype} {list(pixels.shape)}."
        )
    return pixels


def local_path(path: str | os.PathLike[str]) -> Path:
    """Path of an input file.

    Raises:
        InputError: a URL.
    """
    if "://" in os.fspath(path):
        raise InputError(f"{os.fspath(path)} is not on this machine; copy it to a local file first.")
    return Path(path)


def picture_name(image: Picture) -> str:
    """Name of an image for messages."""
    return os.fspath(image) if isinstance(image, str | os.PathLike) else "the image"


def crop_note(original: tuple[int, int], size: tuple[int, int]) -> str | None:
    """Warn if much of the picture falls away, for example a square one's head in landscape; sizes (height, width)."""
    ratio = (original[0] / original[1]) / (size[0] / size[1])
    kept = min(ratio, 1 / ratio)
    if kept >= 0.7:
        return None
    return (
        f"only {kept:.0%} of the picture fits into {size[1]}x{size[0]}, the rest is cropped; aspect=portrait, "
        "landscape or square may keep more."
    )
