"""Canvas of a room: filled shapes in heights of a person, in the room's colours, under soft light."""

import cv2
import numpy as np
from jaxtyping import UInt8

_SUPERSAMPLING = 3

Tint = np.ndarray | tuple[int, ...]
"""RGB colour; may have fractions."""

# Colours of wall and floor, and a second one of the wall.
_ROOMS = (
    ((238, 228, 212), (206, 172, 138), (224, 208, 186)),
    ((206, 222, 228), (196, 170, 146), (190, 210, 220)),
    ((234, 214, 204), (170, 146, 142), (224, 198, 188)),
    ((206, 220, 202), (206, 184, 152), (190, 208, 188)),
    ((222, 218, 236), (178, 168, 186), (208, 202, 226)),
    ((246, 232, 202), (194, 158, 124), (238, 216, 176)),
    ((196, 210, 222), (160, 168, 176), (180, 198, 214)),
    ((228, 212, 192), (156, 132, 114), (214, 194, 170)),
    ((204, 224, 218), (222, 206, 184), (186, 212, 206)),
    ((240, 222, 224), (208, 184, 172), (230, 206, 210)),
    ((250, 242, 226), (222, 190, 150), (240, 226, 200)),
    ((188, 200, 198), (184, 160, 140), (174, 188, 188)),
)
THINGS = (
    (214, 132, 108),
    (128, 164, 150),
    (232, 188, 112),
    (126, 148, 180),
    (186, 140, 160),
    (152, 122, 100),
    (246, 240, 228),
)
"""Colours of objects."""


class Room:
    """Canvas with colours of wall and floor; coordinates are in heights of a person from the floor's middle, y up."""

    def __init__(self, random: np.random.Generator, width: int, height: int, floor: float, scale: float):
        self.random, self.size = random, (width, height)
        self.unit = scale * _SUPERSAMPLING
        self.origin = np.array([width / 2, floor]) * _SUPERSAMPLING
        wall, ground, second = _ROOMS[random.integers(len(_ROOMS))]
        shift = random.normal(0, 5, 3)
        self.wall, self.ground_colour, self.second = (
            np.clip(np.add(c, shift), 60, 252) for c in (wall, ground, second)
        )
        self.picture = np.empty((height * _SUPERSAMPLING, width * _SUPERSAMPLING, 3), np.uint8)
        self.picture[:] = self.wall
        self.right = width / scale / 2  # edge of the picture
        self.top = floor / scale

    def shape(self, points: list[tuple[float, float]] | np.ndarray, colour: Tint) -> None:
        """Fill a polygon."""
        pixels = self.origin + np.asarray(points, float) * (self.unit, -self.unit)
        corners = np.rint(np.clip(pixels, -9999, 9999) * 8).astype(np.int32)
        cv2.fillPoly(self.picture, [corners], [float(c) for c in colour], cv2.LINE_AA, 3)

    def box(self, x: float, y: float, width: float, height: float, colour: Tint) -> None:
        """Fill a rectangle with its lower edge at `y` and its middle at `x`."""
        half = width / 2
        self.shape([(x - half, y), (x + half, y), (x + half, y + height), (x - half, y + height)], colour)

    def disc(self, x: float, y: float, width: float, colour: Tint, height: float | None = None) -> None:
        """Fill an ellipse with the given half width and half height."""
        angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        self.shape(np.stack([x + width * np.cos(angle), y + (height or width) * np.sin(angle)], axis=-1), colour)

    def steps(self, period: float, start: float, end: float) -> np.ndarray:
        """Return positions `period` apart from `start` to `end`."""
        return np.arange(start, end + period, period)

    def finished(self) -> UInt8[np.ndarray, "height width 3"]:
        """Return the picture at its size, in soft light from the upper left."""
        picture = cv2.resize(self.picture, self.size, interpolation=cv2.INTER_AREA).astype(np.float32)
        width, height = self.size
        x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
        light = 1.01 - 0.035 * (x + y) - 0.03 * (x**2 + y**2)
        return np.clip(picture * light[..., None], 0, 255).round().astype(np.uint8)
