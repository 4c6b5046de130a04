"""Shapes of hair and hats all around the head, for people who turn their backs."""

import numpy as np
from jaxtyping import Float

from mimicmotion_jax.synthetic.appearance import Colour
from mimicmotion_jax.synthetic.drawing import LIGHTS, RIM_LIGHT, Fill, ellipse, fill
from mimicmotion_jax.synthetic.hair import line_over_brow, shine
from mimicmotion_jax.synthetic.kinematics import smooth_step
from mimicmotion_jax.synthetic.parts import RIM, silhouette
from mimicmotion_jax.synthetic.skeleton import Joints, Sway
from mimicmotion_jax.synthetic.skull import EARS, SKULL, UNIT, Brush, head_yaw, in_space
from mimicmotion_jax.synthetic.surface import Strip, grown, resampled

_NAPE = -34.0  # latitude of the hairline at the back
HEAD_NEARER = 0.04
"""Distance by which the head's layer is nearer than its middle, in heights."""


def hair_depth(joints: Joints, style: str) -> Float[np.ndarray, " frames"]:
    """Return the depth of the hair behind the head.

    Buns and tails are before it when the person turns their back. The two change places in profile, where they hardly
    overlap.
    """
    if style not in ("bun", "ponytail"):
        return joints.head[:, 2] + 0.1
    return joints.head[:, 2] - HEAD_NEARER + 0.1 * joints.head_rotation[:, 2, 2]


def hair_around(brush: Brush, sway: Sway) -> tuple[list[Fill], list[Fill]]:
    """Return hair at the back of the head, which swings, and hair or a hat on it."""
    style = brush.character.hair_style
    behind: list[Fill] = []
    over: list[Fill] = []
    match style:
        case "afro":
            behind = _blob(brush, 0, -0.33, 0.1, 1.22, 1.15)
        case "bun":
            behind = _blob(brush, 0, -1.15, 0.25, 0.4, 0.38)
        case "ponytail":
            behind = _tail(brush, sway, [(0.2, -0.35, 0.75), (0.42, 0.1, 1.05), (0.5, 0.7, 1.1), (0.5, 1.35, 1.0)])
        case "long" | "bob":
            behind, over = _curtain(brush, sway, 1.75 if style == "long" else 0.85)
    before = _hat(brush) if style in ("cap", "beanie") else _hairline(brush)
    return behind, before + over + (_ears(brush) if style not in ("long", "bob", "afro") else [])


def _blob(brush: Brush, x: float, y: float, z: float, width: float, height: float) -> list[Fill]:
    centre = brush.at(np.array([[x, y, z]]))[:, 0]
    rim, colour = RIM * brush.view.scale, brush.character.hair
    return [
        fill(ellipse(centre, *brush.axes(width, height, rim)), colour, RIM_LIGHT),
        fill(ellipse(centre, *brush.axes(width, height)), colour, LIGHTS[1]),
    ]


def _hanging(brush: Brush, sway: Sway, points: np.ndarray) -> Float[np.ndarray, "frames rows 3"]:
    """Convert rows (in the head's coordinates) to space; they hang down from the first one, and swing."""
    joints = brush.joints
    rows = in_space(brush.character, joints, points)
    unit = UNIT * brush.character.body.head
    down = (points[:, 1] - points[0, 1]) * unit
    down = rows[:, :1, 1] + down  # gravity takes the lower rows
    part = np.linspace(0, 1, len(points)) ** 1.5
    rows[..., 1] += part * (down - rows[..., 1])
    return rows + part[:, None] * sway.hair[:, None]


def _tail(brush: Brush, sway: Sway, points: list[tuple[float, float, float]]) -> list[Fill]:
    """Return a tail that hangs from the back of the head."""
    rows = brush.view.project(_hanging(brush, sway, np.array(points)))
    place = np.linspace(0, 1, len(points))
    centre = resampled(rows, place, 13)
    way = np.gradient(centre, axis=1)
    normal = np.stack([way[..., 1], -way[..., 0]], axis=-1) / np.maximum(np.linalg.norm(way, axis=-1), 1e-6)[..., None]
    half = np.interp(np.linspace(0, 1, 13), [0, 0.12, 0.5, 0.85, 1], [0.1, 0.2, 0.27, 0.17, 0.03]) * brush.unit
    strip = Strip(centre, normal * half[:, None], np.zeros(len(centre)))
    colour = brush.character.hair
    return [
        fill(grown(strip, RIM * brush.view.scale), colour, RIM_LIGHT, convex=False),
        fill(strip.band(0, 1), colour, LIGHTS[0], convex=False),
        fill(strip.band(0, 0.97, -0.9, 0.55), None, LIGHTS[1], convex=False),
    ]


def _curtain(brush: Brush, sway: Sway, low: float) -> tuple[list[Fill], list[Fill]]:
    """Return loose hair from the crown down to `low`: what is behind the body, and what is over the head and the back.

    The latter is the rear half of an elliptical strip: it comes round the edge as the head turns.
    """
    y = np.array([-0.6, -0.1, 0.5, low])
    points = np.stack([0 * y, y, np.array([0.12, 0.2, 0.32, 0.5])], axis=-1)
    wide, deep = np.array([0.6, 0.94, 0.98, 0.86 if low > 1 else 1.0]), np.array([0.5, 0.7, 0.5, 0.34])
    rotation = np.broadcast_to(brush.joints.head_rotation[:, None], (len(brush.joints.head), 4, 3, 3))
    unit = UNIT * brush.character.body.head
    across, _ = silhouette(brush.view, rotation, wide * unit, deep * unit)
    rows = brush.view.project(_hanging(brush, sway, points))
    place = y - y[0]
    strip = Strip(resampled(rows, place), resampled(across, place), -head_yaw(brush.joints))
    colour, rim = brush.character.hair, grown(strip, RIM * brush.view.scale)
    behind = [fill(rim, colour, RIM_LIGHT, convex=False), fill(strip.band(0, 1), colour, LIGHTS[0], convex=False)]
    edge = Strip(strip.centre + np.array([0, RIM * brush.view.scale]), strip.across, strip.turn)
    over = [
        fill(edge.column(0.6, 1, np.pi - 1.3, np.pi + 1.3), colour, RIM_LIGHT, convex=False),
        fill(strip.column(0, 1, np.pi - 1.3, np.pi + 1.3), colour, LIGHTS[1], convex=False),
        *(
            fill(strip.column(0.35, 0.98, np.pi + lock, np.pi + lock + 0.12), colour, LIGHTS[0], convex=False)
            for lock in (-1.0, -0.45, 0.1, 0.7)
        ),
    ]
    return behind, over


def _longitudes(brush: Brush, count: int = 33) -> Float[np.ndarray, "frames count"]:
    """Return longitudes in degrees across the visible side."""
    return np.degrees(head_yaw(brush.joints))[:, None] + np.linspace(-90, 90, count)


def _wrapped(longitude: np.ndarray) -> np.ndarray:
    return (longitude + 180) % 360 - 180


def _hairline(brush: Brush) -> list[Fill]:
    """Return hair down to a line above the brow, over the ears and in the nape."""
    style, colour = brush.character.hair_style, brush.character.hair
    longitude = _longitudes(brush)
    line = _with_nape(_wrapped(longitude), *line_over_brow(style, _wrapped(longitude)))
    # Hair that continues behind the head has no outline against itself.
    rim_light = {"long": 190, "bob": 190, "afro": LIGHTS[1]}.get(style, RIM_LIGHT)
    grown_by = 1.0 if style == "afro" else 1.07
    return [*_cap(brush, longitude, line, grown_by, colour, rim_light), shine(brush, grown_by)]


def _with_nape(longitude: np.ndarray, line: np.ndarray, low: float) -> np.ndarray:
    """Return the latitude of a line that falls from `low` at the ears to the nape."""
    back = smooth_step((abs(longitude) - 100) / 30)
    return np.where(back > 0, low + back * (_NAPE - low), line)


def _hat(brush: Brush) -> list[Fill]:
    """Return a cap with a brim, or a knitted hat with a band, over the hair."""
    character = brush.character
    colour, dark = character.hat, tuple(int(0.8 * c) for c in character.hat)
    longitude = _longitudes(brush)
    side = _wrapped(longitude)
    line = _with_nape(side, np.where(abs(side) > 56, -2.0, 30.0), -2.0)
    fills = _cap(brush, longitude, line, 1.02, character.hair, LIGHTS[1])
    edge = 27 + 4 * np.cos(np.radians(side))
    fills += _cap(brush, longitude, edge, 1.13, colour, RIM_LIGHT)
    if character.hair_style == "beanie":
        band = [brush.on_skull(longitude, edge - 1, 1.15), brush.on_skull(longitude[:, ::-1], edge[:, ::-1] + 13, 1.16)]
        return [*fills, fill(np.concatenate(band, axis=1), dark, LIGHTS[2], convex=False)]
    front = np.linspace(-62, 62, 17)
    shown = abs(head_yaw(brush.joints)) < np.radians(90 + front[-1])
    far = brush.on_skull(front[::-1], 27 - 15 * np.cos(np.radians(1.3 * front)), 1.28)
    brim = np.concatenate([brush.on_skull(front, np.full(17, 31.0), 1.12), far], axis=1)
    return [*fills, fill(brim, dark, LIGHTS[2], False, shown)]


def _cap(
    brush: Brush, longitude: np.ndarray, latitude: np.ndarray, grown_by: float, colour: Colour, rim_light: int
) -> list[Fill]:
    """Return a cover of the visible side of the skull above a line, each [frames, points] in degrees."""
    part = np.linspace(0, 1, 25)
    right, left = latitude[:, -1:], 180 - latitude[:, :1]
    arc = np.radians(right + (left - right) * part)
    yaw = head_yaw(brush.joints)[:, None]
    top = np.stack([np.cos(arc) * np.cos(yaw), -1.03 * np.sin(arc), np.cos(arc) * np.sin(yaw)], axis=-1)
    outline = np.concatenate(
        [brush.on_skull(longitude, latitude, grown_by), brush.at(top * SKULL * grown_by + np.array([0, 0, 0.02]))],
        axis=1,
    )
    middle = brush.at(np.array([[0, -0.5, 0]]))
    reach = np.linalg.norm(outline - middle, axis=-1, keepdims=True)
    rim = middle + (outline - middle) * (1 + RIM * brush.view.scale / reach)
    return [fill(rim, colour, rim_light, convex=False), fill(outline, colour, LIGHTS[1], convex=False)]


def _ears(brush: Brush) -> list[Fill]:
    """Return the ear on the visible side; at the head's edge it has no width, so that none appears at once."""
    fills: list[Fill] = []
    skin = brush.character.skin
    for ear in EARS:
        normal = ear / SKULL**2
        towards = -(brush.joints.head_rotation[:, 2] @ (normal / np.linalg.norm(normal)))
        width = np.clip(1.5 * towards, 0, 1)[:, None]
        centre = brush.at(ear[None])[:, 0]
        for size, more, light in (
            (1.0, RIM * brush.view.scale, RIM_LIGHT),
            (1.0, 0.0, LIGHTS[1]),
            (0.55, 0.0, LIGHTS[0]),
        ):
            across, upright = brush.axes(0.13 * size, 0.2 * size, more)
            fills.append(fill(ellipse(centre, width * across, upright), skin, light, shown=towards > 0.02))
    return fills
