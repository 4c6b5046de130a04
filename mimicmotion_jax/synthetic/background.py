"""Rooms: a papered wall, things on it and a floor, drawn from a background's number.

Colours are pale and soft, so that people stand out. Sizes are in heights of a person, as for people.
"""

from itertools import pairwise

import cv2
import numpy as np
from jaxtyping import UInt8

_TAG = 0x6267
_SUPERSAMPLING = 3

# Wall, floor, and a second colour of the wall.
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
# What hangs on walls or stands in rooms.
_THINGS = (
    (214, 132, 108),
    (128, 164, 150),
    (232, 188, 112),
    (126, 148, 180),
    (186, 140, 160),
    (152, 122, 100),
    (246, 240, 228),
)
_WALLS = ("plain", "stripes", "panels", "dots", "wainscot", "bricks", "scallops", "sun", "hills")
_FLOORS = ("planks", "tiles", "plain", "boards")
_OBJECTS = ("window", "picture", "pictures", "plant", "lamp", "shelf", "pennants", "clock", "none")


def make_background(
    number: int, width: int, height: int, floor: float, scale: float
) -> UInt8[np.ndarray, "height width 3"]:
    """The room of a number, RGB.

    Args:
        number: of the background.
        width, height: of the picture in pixels.
        floor: where the wall meets the floor, in pixels from the top; beyond `height` the floor is out of view.
        scale: pixels per height of a person.
    """
    random = np.random.default_rng([_TAG, number])
    room = _Room(random, width, height, floor, scale)
    getattr(room, f"wall_{random.choice(_WALLS)}")()
    for side in random.permutation([-1, 1]):
        room.thing(str(random.choice(_OBJECTS)), int(side))
    room.ground(str(random.choice(_FLOORS)))
    return room.finished()


class _Room:
    """A canvas with the wall's and the floor's colours; its coordinates are heights from the floor's middle, y up."""

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
        self.right = width / scale / 2  # of the picture, in heights
        self.top = floor / scale

    def shape(self, points: list[tuple[float, float]] | np.ndarray, colour: np.ndarray | tuple[int, ...]) -> None:
        """A filled polygon."""
        pixels = self.origin + np.asarray(points, float) * (self.unit, -self.unit)
        corners = np.rint(np.clip(pixels, -9999, 9999) * 8).astype(np.int32)
        cv2.fillPoly(self.picture, [corners], [float(c) for c in colour], cv2.LINE_AA, 3)

    def box(self, x: float, y: float, width: float, height: float, colour: np.ndarray | tuple[int, ...]) -> None:
        """A rectangle with its lower edge at `y` and its middle at `x`."""
        half = width / 2
        self.shape([(x - half, y), (x + half, y), (x + half, y + height), (x - half, y + height)], colour)

    def disc(
        self, x: float, y: float, width: float, colour: np.ndarray | tuple[int, ...], height: float | None = None
    ) -> None:
        """An ellipse of the given half width and half height."""
        angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        self.shape(np.stack([x + width * np.cos(angle), y + (height or width) * np.sin(angle)], axis=-1), colour)

    def steps(self, period: float, start: float, end: float) -> np.ndarray:
        """Places `period` apart from `start` to `end`."""
        return np.arange(start, end + period, period)

    def wall_plain(self) -> None:
        """Nothing on it."""

    def wall_stripes(self) -> None:
        """Wide upright stripes."""
        period = self.random.uniform(0.14, 0.26)
        for x in self.steps(period, -self.right - self.random.uniform(0, period), self.right):
            self.box(x, 0, period / 2, self.top, self.second)

    def wall_panels(self) -> None:
        """Large framed panels."""
        period = self.random.uniform(0.4, 0.55)
        for x in self.steps(period, -self.right - self.random.uniform(0, period), self.right):
            self.box(x, 0.12, 0.82 * period, 1.25, self.second)
            self.box(x, 0.15, 0.82 * period - 0.06, 1.19, (self.wall + self.second) / 2)

    def wall_dots(self) -> None:
        """A paper with dots."""
        period = self.random.uniform(0.13, 0.2)
        for row, y in enumerate(self.steps(period, 0.05, self.top)):
            for x in self.steps(period, -self.right - period, self.right):
                self.disc(x + (row % 2) * period / 2, y, 0.2 * period, self.second)

    def wall_wainscot(self) -> None:
        """Panelling on its lower part."""
        height = self.random.uniform(0.34, 0.62)
        self.box(0, 0, 3 * self.right, height, self.second)
        for x in self.steps(0.16, -self.right - 0.1, self.right):
            self.box(x, 0, 0.012, height, self.second * 0.95)
        self.box(0, height, 3 * self.right, 0.03, np.minimum(self.wall * 1.04, 255))

    def wall_bricks(self) -> None:
        """Painted bricks."""
        for row, y in enumerate(self.steps(0.085, 0, self.top)):
            for x in self.steps(0.21, -self.right - 0.2, self.right):
                shade = self.random.uniform(0.1, 0.75)
                self.box(x + (row % 2) * 0.105, y, 0.198, 0.074, self.wall + shade * (self.second - self.wall))

    def wall_scallops(self) -> None:
        """Overlapping scales."""
        period = self.random.uniform(0.16, 0.24)
        rows = self.steps(period / 2, 0, self.top)[::-1]
        for row, y in enumerate(rows):
            for x in self.steps(period, -self.right - period, self.right):
                self.disc(x + (row % 2) * period / 2, y, 0.5 * period, self.second)
                self.disc(x + (row % 2) * period / 2, y, 0.43 * period, self.wall)

    def wall_sun(self) -> None:
        """A large painted disc in another."""
        x, y = self.random.uniform(-0.15, 0.15), self.random.uniform(0.6, 0.85)
        radius = self.random.uniform(0.36, 0.48)
        accent = np.array(_THINGS[self.random.integers(4)]) * 0.35 + self.wall * 0.65
        self.disc(x, y, radius * 1.25, self.second)
        self.disc(x, y, radius, accent)

    def wall_hills(self) -> None:
        """Soft painted waves."""
        x = np.linspace(-self.right, self.right, 60)
        for level in (0.85, 0.6, 0.35):
            wave = level + 0.08 * np.sin(x * self.random.uniform(3, 7) + self.random.uniform(0, 6))
            colour = self.wall + (1.15 - level) * (self.second * 0.98 - self.wall)
            self.shape(
                np.concatenate([np.stack([x, wave], axis=-1), [(self.right, -0.1), (-self.right, -0.1)]]), colour
            )

    def thing(self, name: str, side: int) -> None:
        """Something on one side of the room."""
        x = side * min(max(0.36, 0.72 * self.right), 0.75) + self.random.uniform(-0.04, 0.04)
        colour, other = (
            0.62 * np.array(_THINGS[i]) + 0.38 * self.wall for i in self.random.choice(len(_THINGS), 2, replace=False)
        )
        light, wood = np.array([248, 244, 236]), 0.8 * np.array([168, 128, 96]) + 0.2 * self.wall
        y = self.random.uniform(0.72, 0.86)
        match name:
            case "window":
                self.box(x, y - 0.2, 0.36, 0.5, light)
                self.box(x, y - 0.17, 0.3, 0.44, (196, 222, 236))
                self.disc(x + 0.06, y - 0.1, 0.15, (190, 212, 182), 0.09)
                self.box(x, y - 0.17, 0.3, 0.04, (182, 206, 172))
                self.box(x, y - 0.17, 0.014, 0.44, light)
                self.box(x, y + 0.04, 0.3, 0.014, light)
            case "picture":
                self.box(x, y - 0.1, 0.24, 0.32, wood)
                self.box(x, y - 0.08, 0.2, 0.28, light)
                self.disc(x, y + 0.07, 0.06, colour)
                self.box(x, y - 0.08, 0.2, 0.1, other)
            case "pictures":
                for dx, dy, size in ((-0.08, 0.12, 0.13), (0.09, 0.1, 0.15), (-0.07, -0.08, 0.15), (0.09, -0.09, 0.12)):
                    self.box(x + dx, y + dy, size, size, light)
                    self.box(x + dx, y + dy + 0.015, size - 0.03, size - 0.03, colour if dx * dy > 0 else other)
            case "plant":
                green = 0.7 * np.array([120, 160, 116]) + 0.3 * self.wall
                for angle in np.linspace(-1.1, 1.1, 7):
                    tip = np.array([x + 0.26 * np.sin(angle), 0.24 + 0.38 * np.cos(angle)])
                    base, bend = np.array([x, 0.2]), 0.045 * np.array([np.cos(angle), -np.sin(angle)])
                    middle = (base + tip) / 2
                    self.shape(
                        [tuple(base), tuple(middle + bend), tuple(tip), tuple(middle - bend)],
                        green * self.random.uniform(0.92, 1.08),
                    )
                self.shape([(x - 0.09, 0.22), (x + 0.09, 0.22), (x + 0.065, -0.03), (x - 0.065, -0.03)], colour)
            case "lamp":
                self.box(x, 0, 0.016, 0.85, wood)
                self.disc(x, 0, 0.09, wood, 0.02)
                self.shape([(x - 0.15, 0.78), (x + 0.15, 0.78), (x + 0.09, 1.0), (x - 0.09, 1.0)], (252, 226, 170))
            case "shelf":
                for level in (y - 0.16, y + 0.1):
                    left = x - 0.15
                    while left < x + 0.12:
                        thick, tall = self.random.uniform(0.025, 0.05), self.random.uniform(0.1, 0.17)
                        tint = 0.6 * np.array(_THINGS[self.random.integers(len(_THINGS))]) + 0.4 * self.wall
                        self.box(left + thick / 2, level, thick * 0.92, tall, tint)
                        left += thick
                    self.box(x, level - 0.022, 0.36, 0.024, wood)
            case "pennants":
                for i, at in enumerate(self.steps(0.12, -self.right - 0.06, self.right)):
                    height = 1.12 + 0.05 * np.cos(at * 6)
                    self.shape(
                        [(at - 0.05, height), (at + 0.05, height), (at, height - 0.12)], (colour, other, light)[i % 3]
                    )
            case "clock":
                self.disc(x, y + 0.08, 0.12, wood)
                self.disc(x, y + 0.08, 0.1, light)
                self.box(x, y + 0.08, 0.012, 0.075, wood * 0.6)
                self.box(x + 0.025, y + 0.074, 0.05, 0.012, wood * 0.6)

    def ground(self, name: str) -> None:
        """The floor in perspective, with a skirting board above it."""
        depth = self.picture.shape[0] / self.unit - self.top
        if depth <= 0:
            return
        colour, dark, light = self.ground_colour, self.ground_colour * 0.93, np.minimum(self.ground_colour * 1.05, 255)
        self.box(0, -depth - 1, 3 * self.right, depth + 1, colour)
        # Lines to a vanishing point; rows come closer together towards the wall.
        eye = 0.85
        spread = 1 + (depth + 0.05) / eye
        rows = eye * (1 / (1 - np.linspace(0, 1 - 1 / spread, 7)) - 1)
        columns = self.steps(0.17, -self.right * 1.2, self.right * 1.2)

        def cell(x0: float, x1: float, y0: float, y1: float, tint: np.ndarray) -> None:
            near, far = 1 + y1 / eye, 1 + y0 / eye
            self.shape([(x0 * far, -y0), (x1 * far, -y0), (x1 * near, -y1), (x0 * near, -y1)], tint)

        match name:
            case "planks":
                for x in columns:
                    cell(x, x + 0.17, 0, rows[-1], colour + self.random.uniform(-1, 1) * (light - colour))
                    cell(x, x + 0.008, 0, rows[-1], dark)
            case "tiles":
                for i, (y0, y1) in enumerate(pairwise(rows)):
                    for j, x in enumerate(columns):
                        cell(x, x + 0.17, y0, y1, light if (i + j) % 2 else dark)
            case "boards":
                for i, (y0, y1) in enumerate(pairwise(rows)):
                    cell(-3 * self.right, 3 * self.right, y0, y1, light if i % 2 else colour)
            case "plain":
                rug = 0.4 * np.array(_THINGS[self.random.integers(len(_THINGS))]) + 0.6 * colour
                self.disc(0, -0.5 * depth, min(0.9 * self.right, 0.5), rug, 0.36 * depth)
                self.disc(0, -0.5 * depth, min(0.9 * self.right, 0.5) * 0.86, (rug + colour) / 2, 0.29 * depth)
        self.box(0, 0, 3 * self.right, 0.035, np.minimum(self.wall * 1.05, 254))
        self.box(0, -0.006, 3 * self.right, 0.008, self.ground_colour * 0.8)

    def finished(self) -> UInt8[np.ndarray, "height width 3"]:
        """The picture in its size, in soft light from the upper left."""
        picture = cv2.resize(self.picture, self.size, interpolation=cv2.INTER_AREA).astype(np.float32)
        width, height = self.size
        x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
        light = 1.01 - 0.035 * (x + y) - 0.03 * (x**2 + y**2)
        return np.clip(picture * light[..., None], 0, 255).round().astype(np.uint8)
