"""Objects in a room: on a wall or on the floor."""

import numpy as np

from mimicmotion_jax.synthetic.room import THINGS, Room

OBJECTS = ("window", "picture", "pictures", "plant", "lamp", "shelf", "pennants", "clock", "none")


def place_object(room: Room, name: str, side: int) -> None:
    """Place an object on one side of the room: -1 is left, 1 is right."""
    x = side * min(max(0.36, 0.72 * room.right), 0.75) + room.random.uniform(-0.04, 0.04)
    colour, other = (
        0.62 * np.array(THINGS[i]) + 0.38 * room.wall for i in room.random.choice(len(THINGS), 2, replace=False)
    )
    light, wood = np.array([248, 244, 236]), 0.8 * np.array([168, 128, 96]) + 0.2 * room.wall
    y = room.random.uniform(0.72, 0.86)
    match name:
        case "window":
            room.box(x, y - 0.2, 0.36, 0.5, light)
            room.box(x, y - 0.17, 0.3, 0.44, (196, 222, 236))
            room.disc(x + 0.06, y - 0.1, 0.15, (190, 212, 182), 0.09)
            room.box(x, y - 0.17, 0.3, 0.04, (182, 206, 172))
            room.box(x, y - 0.17, 0.014, 0.44, light)
            room.box(x, y + 0.04, 0.3, 0.014, light)
        case "picture":
            room.box(x, y - 0.1, 0.24, 0.32, wood)
            room.box(x, y - 0.08, 0.2, 0.28, light)
            room.disc(x, y + 0.07, 0.06, colour)
            room.box(x, y - 0.08, 0.2, 0.1, other)
        case "pictures":
            for dx, dy, size in ((-0.08, 0.12, 0.13), (0.09, 0.1, 0.15), (-0.07, -0.08, 0.15), (0.09, -0.09, 0.12)):
                room.box(x + dx, y + dy, size, size, light)
                room.box(x + dx, y + dy + 0.015, size - 0.03, size - 0.03, colour if dx * dy > 0 else other)
        case "plant":
            green = 0.7 * np.array([120, 160, 116]) + 0.3 * room.wall
            for angle in np.linspace(-1.1, 1.1, 7):
                tip = np.array([x + 0.26 * np.sin(angle), 0.24 + 0.38 * np.cos(angle)])
                base, bend = np.array([x, 0.2]), 0.045 * np.array([np.cos(angle), -np.sin(angle)])
                middle = (base + tip) / 2
                room.shape(
                    [tuple(base), tuple(middle + bend), tuple(tip), tuple(middle - bend)],
                    green * room.random.uniform(0.92, 1.08),
                )
            room.shape([(x - 0.09, 0.22), (x + 0.09, 0.22), (x + 0.065, -0.03), (x - 0.065, -0.03)], colour)
        case "lamp":
            room.box(x, 0, 0.016, 0.85, wood)
            room.disc(x, 0, 0.09, wood, 0.02)
            room.shape([(x - 0.15, 0.78), (x + 0.15, 0.78), (x + 0.09, 1.0), (x - 0.09, 1.0)], (252, 226, 170))
        case "shelf":
            for level in (y - 0.16, y + 0.1):
                left = x - 0.15
                while left < x + 0.12:
                    thick, tall = room.random.uniform(0.025, 0.05), room.random.uniform(0.1, 0.17)
                    tint = 0.6 * np.array(THINGS[room.random.integers(len(THINGS))]) + 0.4 * room.wall
                    room.box(left + thick / 2, level, thick * 0.92, tall, tint)
                    left += thick
                room.box(x, level - 0.022, 0.36, 0.024, wood)
        case "pennants":
            for i, at in enumerate(room.steps(0.12, -room.right - 0.06, room.right)):
                height = 1.12 + 0.05 * np.cos(at * 6)
                room.shape(
                    [(at - 0.05, height), (at + 0.05, height), (at, height - 0.12)], (colour, other, light)[i % 3]
                )
        case "clock":
            room.disc(x, y + 0.08, 0.12, wood)
            room.disc(x, y + 0.08, 0.1, light)
            room.box(x, y + 0.08, 0.012, 0.075, wood * 0.6)
            room.box(x + 0.025, y + 0.074, 0.05, 0.012, wood * 0.6)
