"""Still pictures: read any of them as RGB, choose the model's size for one, and crop and resize to it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, Self

import numpy as np
from beartype import beartype
from jaxtyping import UInt8, jaxtyped
from PIL import Image, ImageOps

from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.colour import to_srgb
from mimicmotion_jax.video.picture_files import (
    ANIMATED,
    DAMAGED,
    animation_pictures,
    explain_damage,
    name_unread,
    open_picture,
)

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".jfif", ".avif", ".heic", ".heif"})
"""File names that count as pictures in a folder of frames."""

MIN_SIDE = 16
"""Pictures with a shorter side than this (pixels) are refused: no person can be made out in them."""

SIZE_MULTIPLE = 64
"""Sides are multiples of this: 8 (VAE) times 8 (three halvings in the UNet)."""

MAX_PIXELS = 2 * 89_478_485
"""Larger pictures are refused: Pillow's own limit, of half a gigabyte of RGB."""

Aspect = Literal["auto", "portrait", "landscape", "square"]


def read_image(path: str | Path) -> UInt8[np.ndarray, "height width 3"]:
    """Read a picture as 8-bit RGB, upright.

    EXIF orientation is applied, transparency is laid over white, palettes, greyscale and CMYK become RGB, 16-bit
    samples are scaled to 8 bits, and colours with an ICC profile or in Display P3 become sRGB (`colour.to_srgb`). Of an
    animation the first frame counts. HEIC needs the extra `heic`.

    Raises:
        InputError: missing, empty, damaged or unknown file, a side shorter than `MIN_SIDE`, more than `MAX_PIXELS`, an
            HDR picture, or real numbers that are no brightness.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no picture {path}; check the path.")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes); copy or download it again.")
    if kind := name_unread(path):
        raise InputError(f"{path} is {kind}.")
    try:
        with open_picture(path) as image:
            image.load()
            pixels = rgb_pixels(image)
    except InputError as error:
        raise InputError(f"{path} {error}") from None
    except Image.DecompressionBombError:
        raise InputError(
            f"{path} is too large, a picture may have {MAX_PIXELS // 10**6} million pixels; make it smaller."
        ) from None
    except DAMAGED as error:
        if isinstance(error, PermissionError):
            raise InputError(f"{path} may not be read (permission denied); change its permissions.") from None
        raise InputError(
            f"{path} is damaged or not a picture; give a PNG, JPEG, WebP, AVIF, HEIC or TIFF file."
        ) from None
    height, width = pixels.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise InputError(f"{path} is only {width}x{height} pixels; give a picture of at least {MIN_SIDE} on each side.")
    return pixels


def rgb_pixels(image: Image.Image) -> UInt8[np.ndarray, "height width 3"]:
    """Pixels of an opened picture as 8-bit RGB, upright; see `read_image`.

    Raises:
        InputError: real numbers that are no brightness, or an HDR picture.
    """
    return np.asarray(to_srgb(ImageOps.exif_transpose(image)))


def is_still(path: str | Path) -> bool:
    """Return True if the file is a picture that does not move (an animated GIF, PNG, WebP or AVIF is a video)."""
    if name_unread(Path(path)):
        return True
    try:
        with open_picture(path) as image:
            return not _is_animated(image)
    except Image.DecompressionBombError:
        return True  # `read_image` tells what is wrong with it
    except DAMAGED:
        return False


def is_animation(path: Path) -> bool:
    """Return True if the file is an animated PNG, WebP or AVIF, which Pillow reads better than FFmpeg."""
    try:
        with open_picture(path) as image:
            return _is_animated(image) and image.format != "GIF"
    except (*DAMAGED, Image.DecompressionBombError):
        return False


def animation_frames(path: Path) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """Yield the pictures of an animation as `read_image` reads the first.

    Raises:
        InputError: damage.
    """
    for picture in animation_pictures(path):
        with explain_damage(path):
            pixels = rgb_pixels(picture)
        yield pixels


def read_comment(file: IO[bytes]) -> str | bytes | None:
    """Read the comment of an open picture file; None if it has none or is damaged."""
    try:
        with open_picture(file) as image:
            return image.info.get("Comment") or image.info.get("comment")
    except (*DAMAGED, Image.DecompressionBombError):
        return None


@dataclass(frozen=True)
class Crop:
    """Resize a picture so that it covers the target, then cut the target out of it; sizes are (height, width), pixels.

    The sides round up and the offset rounds half to even, as in the official release (torchvision `resize` and
    `center_crop`).
    """

    resized: tuple[int, int]
    """Before cutting."""
    offset: tuple[int, int]
    """Rows and columns that are cut away at the top and on the left."""
    target: tuple[int, int]

    @classmethod
    def plan(cls, source: tuple[int, int], target: tuple[int, int], place: tuple[float, float] = (0.5, 0.5)) -> Self:
        """For a picture of the size `source`; `place` in what sticks out is (x, y) in [0, 1], by default the middle."""
        ratio = source[0] / source[1]
        too_flat = ratio < target[0] / target[1]
        resized = (target[0], math.ceil(target[0] / ratio)) if too_flat else (math.ceil(target[1] * ratio), target[1])
        top, left = (round((have - want) * at) for have, want, at in zip(resized, target, place[::-1], strict=True))
        return cls(resized, (top, left), target)

    @jaxtyped(typechecker=beartype)
    def pixels(
        self, pixels: UInt8[np.ndarray, "*frames h w 3"]
    ) -> UInt8[np.ndarray, "*frames {self.target[0]} {self.target[1]} 3"]:
        """Crop one picture, or frames."""
        (top, left), (height, width) = self.offset, self.target
        frames = pixels.reshape(-1, *pixels.shape[-3:])
        output = np.empty((len(frames), height, width, 3), np.uint8)
        for frame, into in zip(frames, output, strict=True):
            into[...] = resize(frame, *self.resized)[top : top + height, left : left + width]
        return output.reshape(*pixels.shape[:-3], height, width, 3)


@jaxtyped(typechecker=beartype)
def crop_resize(
    pixels: UInt8[np.ndarray, "*frames h w 3"], height: int, width: int
) -> UInt8[np.ndarray, "*frames {height} {width} 3"]:
    """Resize so that the picture covers `height` x `width`, then crop the centre: the official preprocessing.

    Pillow's bilinear filter widens with the reduction, which is torchvision's `antialias=True`; the two differ by at
    most one level.

    Args:
        pixels: one picture `[h, w, 3]` or frames `[n, h, w, 3]`.
        height: rows of the result, pixels.
        width: columns of the result, pixels.

    Raises:
        InputError: a size that is not positive, or an empty picture.
    """
    h, w = pixels.shape[-3:-1]
    if min(h, w, height, width) < 1:
        raise InputError(f"cannot make a {width}x{height} picture out of a {w}x{h} one; sizes must be positive.")
    return Crop.plan((h, w), (height, width)).pixels(pixels)


@jaxtyped(typechecker=beartype)
def resize(pixels: UInt8[np.ndarray, "h w 3"], height: int, width: int) -> UInt8[np.ndarray, "{height} {width} 3"]:
    """Resize one picture, bilinear with antialiasing; the aspect ratio is the caller's business."""
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))


def target_size(
    image_height: int,
    image_width: int,
    resolution: int = 576,
    aspect: Aspect | tuple[int, int] = "auto",
    multiple: int = SIZE_MULTIPLE,
) -> tuple[int, int]:
    """The size (height, width), in pixels, at which to generate for a reference picture.

    The short side is `resolution`, the long side 16/9 of it rounded down to a `multiple` (576x1024 as published).
    "auto" follows the picture: portrait where it is higher than wide, else landscape, as the official release does.

    Args:
        image_height: of the reference picture, pixels.
        image_width: of the reference picture, pixels.
        resolution: the short side.
        aspect: "auto", "portrait", "landscape", "square", or an explicit (width, height).
        multiple: what both sides must be multiples of, pixels (`ModelConfig.size_multiple`).

    Raises:
        InputError: a side that is not a positive `multiple` (the nearest valid ones are named), or another word.
    """
    if isinstance(aspect, tuple):
        width, height = aspect
        nearest = tuple(_nearest_multiple(side, multiple) for side in aspect)
        if nearest != aspect:
            raise InputError(
                f"the size {width}x{height} does not work, both sides must be multiples of {multiple}; "
                f"the nearest is {nearest[0]}x{nearest[1]}."
            )
        return height, width

    if (nearest := _nearest_multiple(resolution, multiple)) != resolution:
        raise InputError(f"resolution {resolution} is not a multiple of {multiple}; the nearest is {nearest}.")
    long_side = resolution * 16 // 9 // multiple * multiple
    if aspect == "auto":
        aspect = "portrait" if image_height > image_width else "landscape"
    sizes = {
        "portrait": (long_side, resolution),
        "landscape": (resolution, long_side),
        "square": (resolution, resolution),
    }
    if aspect not in sizes:
        raise InputError(f"unknown aspect '{aspect}'; use auto, {', '.join(sizes)} or a width and height.")
    return sizes[aspect]


def _nearest_multiple(side: int, multiple: int) -> int:
    return max(multiple, (side + multiple // 2) // multiple * multiple)


def _is_animated(image: Image.Image) -> bool:
    return image.format in ANIMATED and getattr(image, "is_animated", False)
