"""Decoded frames as upright RGB pictures with square pixels, as FFmpeg's own command shows them."""

import struct
from dataclasses import dataclass, field

import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import UInt8

from mimicmotion_jax.video.ffmpeg import SWSCALE_QUALITY, shown_size
from mimicmotion_jax.video.hdr import ColourMap

Pixels = UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True)
class Look:
    """Orientation and colours of a video, which all its frames share."""

    matrix: np.ndarray = field(default_factory=lambda: np.eye(2))
    """float64 [2, 2]: a stored point (x, y) is shown at `matrix @ (x, y)`."""
    colour_map: ColourMap | None = None
    """Conversion of HDR and wide gamuts."""
    to_rgb: VideoReformatter = field(default_factory=VideoReformatter)
    """Conversion of other colours; a frame's own would be set up anew for each, which takes longer than converting."""

    @classmethod
    def of(cls, first: VideoFrame, stream: VideoStream) -> "Look":
        """Read them from the first frame."""
        # Of no other: a frame whose side data were read stays in memory until Python looks for cycles.
        return cls(_display_matrix(first), ColourMap.of(first, *shown_size(stream)))


def upright_rgb(frame: VideoFrame, stream: VideoStream, look: Look) -> Pixels:
    """Convert a frame to RGB with square pixels, transparency laid over white, turned and mirrored as `look` says."""
    width, height = shown_size(stream)
    size = {"width": width, "height": height, "interpolation": SWSCALE_QUALITY}
    if look.colour_map is not None:
        pixels = look.colour_map(frame)
    elif any(component.is_alpha for component in frame.format.components):
        rgba = look.to_rgb.reformat(frame, format="rgba", **size).to_ndarray().astype(np.uint16)
        alpha = rgba[..., 3:]
        pixels = ((rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    else:
        pixels = look.to_rgb.reformat(frame, format="rgb24", **size).to_ndarray()
    return np.ascontiguousarray(_oriented(pixels, look.matrix))


def _display_matrix(frame: VideoFrame) -> np.ndarray:
    side_data = frame.side_data.get("DISPLAYMATRIX")
    if side_data is None:
        return np.eye(2)
    # Nine numbers in 16.16 fixed point; the rows are those of the transposed matrix.
    a, b, _, c, d, *_ = (value / 65536 for value in struct.unpack("=9i", bytes(side_data)))
    return np.array([[a, c], [b, d]])


def _oriented(pixels: Pixels, matrix: np.ndarray) -> Pixels:
    """Turn and mirror a picture; like FFmpeg, by quarters where the angle is within a degree of one."""
    matrix = matrix / (np.linalg.norm(matrix, axis=0, keepdims=True).clip(1e-9))
    quarters = np.round(matrix)
    if np.abs(matrix - quarters).max() > np.sin(np.radians(1)):
        # Any other angle turns the picture within its frame, the corners black.
        centre = (np.array(pixels.shape[1::-1]) - 1) / 2
        affine = np.column_stack([matrix, centre - matrix @ centre])
        return np.asarray(cv2.warpAffine(pixels, affine, pixels.shape[1::-1], flags=cv2.INTER_LINEAR))
    if quarters[0, 1]:
        pixels = pixels.swapaxes(0, 1)
    flip_x, flip_y = quarters.sum(1) < 0
    return pixels[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
