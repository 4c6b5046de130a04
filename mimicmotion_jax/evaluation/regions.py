"""Which part of true and generated frames is compared, and at which size: geometry, applied frame by frame."""

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
    """A part of a picture, shown at a size."""

    crop: Crop
    size: Size

    def frames(self, frames: Iterable[UInt8[np.ndarray, "h w 3"]]) -> UInt8[np.ndarray, "n height width 3"]:
        """Cut and resize frames as they come."""
        (top, left), (height, width) = self.crop.offset, self.crop.target
        return np.stack([resize(frame[top : top + height, left : left + width], *self.size) for frame in frames])

    def keypoints(self, keypoints: Keypoints) -> Keypoints:
        """Let keypoints follow."""
        return crop_keypoints(keypoints, self.crop)


def compared_regions(protocol: Protocol, true: Size, generated: Size) -> tuple[Region, Region]:
    """The regions of true and of generated frames that show the same, at one size.

    Args:
        protocol: says which part and which size.
        true: size of the true frames.
        generated: size of the generated frames; what they cannot show of the true ones is left out.
    """
    visible = _central(true, true, generated)
    shown = Crop(generated, (0, 0), generated)
    if protocol.region == "square":
        visible, shown = _central(true, visible.target, (1, 1)), _central(generated, generated, (1, 1))
    size = visible.target
    if protocol.size is not None:
        size = tuple(round(side * protocol.size / min(size)) for side in size)
    return Region(visible, size), Region(shown, size)


def central_square(size: Size) -> Region:
    """The central square of a picture, not resized."""
    crop = _central(size, size, (1, 1))
    return Region(crop, crop.target)


def _central(picture: Size, within: Size, shape: Size) -> Crop:
    """The largest central part of the central `within` pixels of a picture that has the aspect ratio of `shape`."""
    scale = min(within[0] / shape[0], within[1] / shape[1])
    target = tuple(min(have, round(want * scale)) for have, want in zip(within, shape, strict=True))
    offset = tuple(round((have - want) / 2) for have, want in zip(picture, target, strict=True))
    return Crop(picture, offset, target)
