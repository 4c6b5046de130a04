"""Compared regions of true and generated frames: crop and resize, frame by frame."""

import dataclasses
from collections.abc import Iterable

import numpy as np
from jaxtyping import UInt8

from mimicmotion_jax.evaluation.protocols import Protocol
from mimicmotion_jax.pose.crop import crop_keypoints
from mimicmotion_jax.pose.keypoints import Keypoints
from mimicmotion_jax.video.image import Crop, resize

Size = tuple[int, int]  # height, width in pixels


@dataclasses.dataclass(frozen=True)
class Region:
    """A crop of a picture, resized to `size`."""

    crop: Crop
    size: Size

    def frames(self, frames: Iterable[UInt8[np.ndarray, "h w 3"]]) -> UInt8[np.ndarray, "n height width 3"]:
        """Crop and resize frames."""
        (top, left), (height, width) = self.crop.offset, self.crop.target
        return np.stack([resize(frame[top : top + height, left : left + width], *self.size) for frame in frames])

    def keypoints(self, keypoints: Keypoints) -> Keypoints:
        """Crop keypoints accordingly."""
        return crop_keypoints(keypoints, self.crop)


def compared_regions(protocol: Protocol, true: Size, generated: Size) -> tuple[Region, Region]:
    """Return the regions of true and of generated frames that show the same content at the same size.

    Args:
        protocol: region and size of the comparison.
        true: size of the true frames.
        generated: size of the generated frames; parts of the true frames outside their aspect ratio are cropped.
    """
    visible = _central(true, true, generated)
    shown = Crop(generated, (0, 0), generated)
    if protocol.region == "square":
        visible, shown = _central(true, visible.target, (1, 1)), _central(generated, generated, (1, 1))
    height, width = size = visible.target
    if protocol.size is not None:
        short = min(size)
        size = round(height * protocol.size / short), round(width * protocol.size / short)
    return Region(visible, size), Region(shown, size)


def central_square(size: Size) -> Region:
    """Return the central square of a picture, not resized."""
    crop = _central(size, size, (1, 1))
    return Region(crop, crop.target)


def _central(picture: Size, within: Size, shape: Size) -> Crop:
    """Return the largest central crop of the central `within` pixels that has the aspect ratio of `shape`."""
    scale = min(within[0] / shape[0], within[1] / shape[1])
    height, width = min(within[0], round(shape[0] * scale)), min(within[1], round(shape[1] * scale))
    return Crop(picture, (round((picture[0] - height) / 2), round((picture[1] - width) / 2)), (height, width))
