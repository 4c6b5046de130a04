"""Backgrounds: a papered wall, objects on it and a floor, drawn from a background's number.

Colours are pale and soft, so that people stand out.
"""

from itertools import pairwise

import numpy as np
from jaxtyping import UInt8

from mimicmotion_jax.synthetic.furniture import OBJECTS, place_object
from mimicmotion_jax.synthetic.room import THINGS, Room

_TAG = 0x6267
_FLOORS = ("planks", "tiles", "plain", "boards")


def make_background(
    number: int, width: int, height: int, floor: float, scale: float
) -> UInt8[np.ndarray, "height width 3"]:
    """Draw the background of a number, RGB.

    Args:
        number: number of the background.
        width: width of the picture in pixels.
        height: height of the picture in pixels.
        floor: row where the wall meets the floor, in pixels from the top; beyond `height` the floor is out of view.
        scale: pixels per height of a person.
    """
    random = np.random.default_rng([_TAG, number])
    room = Room(random, width, height, floor, scale)
    _WALLS[str(random.choice(list(_WALLS)))](room)
    for side in random.permutation([-1, 1]):
        place_object(room, str(random.choice(OBJECTS)), int(side))
    _ground(room, str(random.choice(_FLOORS)))
    return room.finished()


def _plain(room: Room) -> None:
    """Leave the wall plain."""


def _stripes(room: Room) -> None:
    """Paint wide upright stripes."""
    period = room.random.uniform(0.14, 0.26)
    for x in room.steps(period, -room.right - room.random.uniform(0, period), room.right):
        room.box(x, 0, period / 2, room.top, room.second)


def _panels(room: Room) -> None:
    """Paint large framed panels."""
    period = room.random.uniform(0.4, 0.55)
    for x in room.steps(period, -room.right - room.random.uniform(0, period), room.right):
        room.box(x, 0.12, 0.82 * period, 1.25, room.second)
        room.box(x, 0.15, 0.82 * period - 0.06, 1.19, (room.wall + room.second) / 2)


def _dots(room: Room) -> None:
    """Paint dots."""
    period = room.random.uniform(0.13, 0.2)
    for row, y in enumerate(room.steps(period, 0.05, room.top)):
        for x in room.steps(period, -room.right - period, room.right):
            room.disc(x + (row % 2) * period / 2, y, 0.2 * period, room.second)


def _wainscot(room: Room) -> None:
    """Panel the lower part."""
    height = room.random.uniform(0.34, 0.62)
    room.box(0, 0, 3 * room.right, height, room.second)
    for x in room.steps(0.16, -room.right - 0.1, room.right):
        room.box(x, 0, 0.012, height, room.second * 0.95)
    room.box(0, height, 3 * room.right, 0.03, np.minimum(room.wall * 1.04, 255))


def _bricks(room: Room) -> None:
    """Paint bricks."""
    for row, y in enumerate(room.steps(0.085, 0, room.top)):
        for x in room.steps(0.21, -room.right - 0.2, room.right):
            shade = room.random.uniform(0.1, 0.75)
            room.box(x + (row % 2) * 0.105, y, 0.198, 0.074, room.wall + shade * (room.second - room.wall))


def _scallops(room: Room) -> None:
    """Paint overlapping scales."""
    period = room.random.uniform(0.16, 0.24)
    rows = room.steps(period / 2, 0, room.top)[::-1]
    for row, y in enumerate(rows):
        for x in room.steps(period, -room.right - period, room.right):
            room.disc(x + (row % 2) * period / 2, y, 0.5 * period, room.second)
            room.disc(x + (row % 2) * period / 2, y, 0.43 * period, room.wall)


def _sun(room: Room) -> None:
    """Paint a large disc in another."""
    x, y = room.random.uniform(-0.15, 0.15), room.random.uniform(0.6, 0.85)
    radius = room.random.uniform(0.36, 0.48)
    accent = np.array(THINGS[room.random.integers(4)]) * 0.35 + room.wall * 0.65
    room.disc(x, y, radius * 1.25, room.second)
    room.disc(x, y, radius, accent)


def _hills(room: Room) -> None:
    """Paint soft waves."""
    x = np.linspace(-room.right, room.right, 60)
    for level in (0.85, 0.6, 0.35):
        wave = level + 0.08 * np.sin(x * room.random.uniform(3, 7) + room.random.uniform(0, 6))
        colour = room.wall + (1.15 - level) * (room.second * 0.98 - room.wall)
        room.shape(np.concatenate([np.stack([x, wave], axis=-1), [(room.right, -0.1), (-room.right, -0.1)]]), colour)


_WALLS = {
    "plain": _plain,
    "stripes": _stripes,
    "panels": _panels,
    "dots": _dots,
    "wainscot": _wainscot,
    "bricks": _bricks,
    "scallops": _scallops,
    "sun": _sun,
    "hills": _hills,
}


def _ground(room: Room, name: str) -> None:
    """Paint the floor in perspective, with a skirting board above it."""
    depth = room.picture.shape[0] / room.unit - room.top
    if depth <= 0:
        return
    colour, dark, light = room.ground_colour, room.ground_colour * 0.93, np.minimum(room.ground_colour * 1.05, 255)
    room.box(0, -depth - 1, 3 * room.right, depth + 1, colour)
    # Lines to a vanishing point; rows come closer together towards the wall.
    eye = 0.85
    spread = 1 + (depth + 0.05) / eye
    rows = eye * (1 / (1 - np.linspace(0, 1 - 1 / spread, 7)) - 1)
    columns = room.steps(0.17, -room.right * 1.2, room.right * 1.2)

    def cell(x0: float, x1: float, y0: float, y1: float, tint: np.ndarray) -> None:
        near, far = 1 + y1 / eye, 1 + y0 / eye
        room.shape([(x0 * far, -y0), (x1 * far, -y0), (x1 * near, -y1), (x0 * near, -y1)], tint)

    match name:
        case "planks":
            for x in columns:
                cell(x, x + 0.17, 0, rows[-1], colour + room.random.uniform(-1, 1) * (light - colour))
                cell(x, x + 0.008, 0, rows[-1], dark)
        case "tiles":
            for i, (y0, y1) in enumerate(pairwise(rows)):
                for j, x in enumerate(columns):
                    cell(x, x + 0.17, y0, y1, light if (i + j) % 2 else dark)
        case "boards":
            for i, (y0, y1) in enumerate(pairwise(rows)):
                cell(-3 * room.right, 3 * room.right, y0, y1, light if i % 2 else colour)
        case "plain":
            rug = 0.4 * np.array(THINGS[room.random.integers(len(THINGS))]) + 0.6 * colour
            room.disc(0, -0.5 * depth, min(0.9 * room.right, 0.5), rug, 0.36 * depth)
            room.disc(0, -0.5 * depth, min(0.9 * room.right, 0.5) * 0.86, (rug + colour) / 2, 0.29 * depth)
    room.box(0, 0, 3 * room.right, 0.035, np.minimum(room.wall * 1.05, 254))
    room.box(0, -0.006, 3 * room.right, 0.008, room.ground_colour * 0.8)
