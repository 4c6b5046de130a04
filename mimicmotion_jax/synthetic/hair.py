"""Shapes of hair and hats, behind the body and in front of the head."""

import numpy as np

from mimicmotion_jax.synthetic.appearance import Colour
from mimicmotion_jax.synthetic.drawing import LIGHTS, RIM_LIGHT, Fill, ellipse, fill
from mimicmotion_jax.synthetic.parts import RIM
from mimicmotion_jax.synthetic.skull import SKULL, Brush

# Ears of animals: distance from the middle, place below the head's centre, width and height.
_EARS = {
    "bear": (0.75, -0.9, 0.3, 0.3),
    "cat": (0.62, -0.95, 0.2, 0.42),
    "rabbit": (0.36, -1.6, 0.2, 0.75),
    "mouse": (0.95, -0.8, 0.48, 0.48),
}


def hair(brush: Brush) -> tuple[list[Fill], list[Fill]]:
    """Return hair behind the body, and hair or a hat in front of the head."""
    character = brush.character
    style = character.hair_style
    behind: list[Fill] = []

    def blob(x: float, y: float, z: float, width: float, height: float, light: int = LIGHTS[1]) -> None:
        centre = brush.at(np.array([[x, y, z]]))[:, 0]
        rim = RIM * brush.view.scale
        behind.append(fill(ellipse(centre, *brush.axes(width, height, rim)), character.hair, RIM_LIGHT))
        behind.append(fill(ellipse(centre, *brush.axes(width, height)), character.hair, light))

    match style:
        case "afro":
            blob(0, -0.33, 0.1, 1.22, 1.15)
        case "bear" | "cat" | "rabbit" | "mouse":
            x, y, width, height = _EARS[style]
            for side in (-x, x):
                blob(side, y, 0.1, width, height)
        case "bun":
            blob(0, -1.15, 0.25, 0.4, 0.38)
        case "ponytail":
            blob(0.85, 0.35, 0.6, 0.26, 0.8, LIGHTS[0])
        case "long" | "bob":
            low = 1.6 if style == "long" else 0.75
            for x in (-0.5, 0.5):
                blob(x, 0.5 * low, 0.15, 0.44, 0.5 * low + 0.3, LIGHTS[0])
            blob(0, -0.1, 0.2, 0.96, 0.97, LIGHTS[0])
    behind.sort(key=lambda shape: shape.light != RIM_LIGHT)  # all outlines first, so that none cuts through the locks
    return behind, _hat(brush) if style in ("cap", "beanie") else _hairline(brush)


def _hairline(brush: Brush) -> list[Fill]:
    """Return hair on the head's upper part, down to a line above the brow that depends on the style."""
    style, colour = brush.character.hair_style, brush.character.hair
    longitude = np.linspace(-100, 100, 33)
    line, _ = line_over_brow(style, longitude)
    grown = 1.0 if style == "afro" else 1.07
    # Hair that continues behind the head has no outline against itself.
    rim_light = 190 if style in ("long", "bob", "afro") else RIM_LIGHT
    return [*_cap(brush, longitude, line, grown, colour, rim_light), shine(brush, grown)]


def line_over_brow(style: str, longitude: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the latitude of the hairline at longitudes up to 100 degrees, and that at the ears."""
    turns = np.radians(longitude)
    over_brow = {
        "side": 30 + 20 * np.sin(1.6 * turns + 0.5),
        "bob": np.full(longitude.shape, 22.0),
        "spiky": 32 + 10 * abs((longitude / 25) % 1 * 2 - 1),
        "ponytail": 46 - 12 * np.cos(turns) ** 2 * np.sin(turns),
        "bun": 44 + 6 * np.cos(2 * turns),
        "long": 26 + 26 * np.exp(-((turns - 0.25) ** 2) / 0.06),
        "afro": 36 + 4 * np.cos(4 * turns),
    }.get(style, 36 + 6 * np.cos(3 * turns))
    low = -12 if style in ("bob", "long") else 6
    temples = 1 / (1 + np.exp(-(abs(longitude) - 58) / 3))
    return over_brow + temples * (low - over_brow), low


def shine(brush: Brush, grown: float) -> Fill:
    """Return a light stripe on the hair."""
    across = np.linspace(-62, 4, 9)
    rows = [brush.on_skull(across[::step], np.full(9, lat), grown) for step, lat in ((1, 63.0), (-1, 54.0))]
    colour = tuple(min(255, int(1.12 * c + 14)) for c in brush.character.hair)
    return fill(np.concatenate(rows, axis=1), colour, 255, convex=False)


def _hat(brush: Brush) -> list[Fill]:
    """Return a cap with a brim, or a knitted hat with a band."""
    colour = brush.character.hat
    dark = tuple(int(0.8 * c) for c in colour)
    longitude = np.linspace(-100, 100, 33)
    # Hair that the hat does not cover.
    hair = _cap(brush, longitude, np.where(abs(longitude) > 56, -2.0, 30.0), 1.02, brush.character.hair, LIGHTS[1])
    fills = hair + _cap(brush, longitude, 27 + 4 * np.cos(np.radians(longitude)), 1.13, colour, RIM_LIGHT)
    if brush.character.hair_style == "beanie":
        band = np.concatenate(
            [
                brush.on_skull(longitude, np.full(33, 28.0), 1.15),
                brush.on_skull(longitude[::-1], np.full(33, 42.0), 1.16),
            ],
            axis=1,
        )
        fills.append(fill(band, dark, LIGHTS[2], convex=False))
    else:
        front = np.linspace(-62, 62, 17)
        edge = brush.on_skull(front[::-1], 27 - 15 * np.cos(np.radians(1.3 * front)), 1.28)
        brim = np.concatenate([brush.on_skull(front, np.full(17, 31.0), 1.12), edge], axis=1)
        fills += [fill(brim, dark, LIGHTS[2], convex=False)]
    return fills


def _cap(
    brush: Brush, longitude: np.ndarray, latitude: np.ndarray, grown: float, colour: Colour, rim_light: int
) -> list[Fill]:
    """Return a cover of the skull above a line."""
    arc = np.radians(np.linspace(latitude[-1], 180 - latitude[0], 25))
    top = np.stack([SKULL[0] * np.cos(arc), -1.03 * SKULL[1] * np.sin(arc), 0 * arc + 0.02], axis=-1) * grown
    outline = np.concatenate([brush.on_skull(longitude, latitude, grown), brush.at(top)], axis=1)
    middle = brush.at(np.array([[0, -0.5, 0]]))
    reach = np.linalg.norm(outline - middle, axis=-1, keepdims=True)
    rim = middle + (outline - middle) * (1 + RIM * brush.view.scale / reach)
    return [fill(rim, colour, rim_light, convex=False), fill(outline, colour, LIGHTS[1], convex=False)]
