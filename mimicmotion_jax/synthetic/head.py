"""Face: its 68 points, and the layers of the head painted on them."""

import numpy as np
from jaxtyping import Bool, Float

from mimicmotion_jax.synthetic.appearance import Character
from mimicmotion_jax.synthetic.drawing import LIGHTS, RIM_LIGHT, Fill, Layer, Polygon, ellipse, fill
from mimicmotion_jax.synthetic.hair import hair
from mimicmotion_jax.synthetic.hair_around import hair_around, hair_depth
from mimicmotion_jax.synthetic.parts import RIM, Part, View
from mimicmotion_jax.synthetic.skeleton import Joints
from mimicmotion_jax.synthetic.skull import EARS, SKULL, Brush, head_yaw, rolled_to_edge, seen_from_front

_EYE = (0.33, 0.1)  # distance from the middle, and below it
_INK = (48, 34, 38)


def face_points(
    mouth: Float[np.ndarray, " frames"], blink: Float[np.ndarray, " frames"], smile: float
) -> Float[np.ndarray, "frames 68 3"]:
    """Return the 68 points in the head's coordinates; at 1 `mouth` is open and `blink` shut."""
    angle = np.linspace(np.pi, 0, 17)
    jaw = np.stack([0.78 * np.cos(angle), 0.05 + 0.93 * np.sin(angle) ** 0.9, 0.05 - 0.72 * np.sin(angle)], axis=-1)
    arch = np.linspace(0, 1, 5)
    brows = [
        _on_skull(np.stack([x + 0.34 * arch, -0.16 - 0.05 * np.sin(np.pi * arch)], axis=-1)) for x in (-0.53, 0.19)
    ]
    bridge = np.stack([np.zeros(4), np.linspace(0.06, 0.4, 4), np.linspace(-0.82, -1.0, 4)], axis=-1)
    nostrils = np.stack(
        [np.linspace(-0.14, 0.14, 5), 0.47 + 0.03 * np.sin(np.pi * arch), -0.78 - 0.12 * np.sin(np.pi * arch)], axis=-1
    )
    still = np.concatenate([jaw, *brows, bridge, nostrils])
    opened = 1 - 0.9 * blink
    corners = -0.11 * smile
    moving = [
        _ring(-_EYE[0], _EYE[1], 0.165, 0.165 * opened, 0.165 * opened, 6),
        _ring(_EYE[0], _EYE[1], 0.165, 0.165 * opened, 0.165 * opened, 6),
        _ring(0, 0.66, 0.27, 0.035 + 0.02 * mouth, 0.05 + 0.17 * mouth, 12, corners),
        _ring(0, 0.66, 0.23, 0.008 + 0.01 * mouth, 0.01 + 0.15 * mouth, 8, corners),
    ]
    return np.concatenate([np.broadcast_to(still, (len(opened), *still.shape)), *moving], axis=1)


def head(view: View, character: Character, joints: Joints, face: Float[np.ndarray, "frames 68 3"]) -> list[Layer]:
    """Return the layers of the head with its hair; `face` is in the head's coordinates."""
    brush = Brush(view, character, joints)
    skin = character.skin
    layer = Layer(Part.HEAD, "head", joints.head[:, 2] - 0.04)
    rim = RIM * view.scale
    contour = _contour(brush, face)
    middle = contour.mean(1, keepdims=True)
    reach = np.linalg.norm(contour - middle, axis=-1, keepdims=True)
    for ear in EARS:
        shown = None if joints.sway else seen_from_front(joints, ear[None])[:, 0]
        centre = brush.at(ear[None])[:, 0]
        layer.rim.append(fill(ellipse(centre, *brush.axes(0.13, 0.2, rim)), skin, RIM_LIGHT, shown=shown))
        layer.rim.append(fill(ellipse(centre, *brush.axes(0.13, 0.2)), skin, LIGHTS[0], shown=shown))
    if joints.sway:  # a nose in profile
        layer.rim += [
            fill(ellipse(brush.at(np.array([[0, 0.39, -0.85]]))[:, 0], *brush.axes(0.1, 0.12, more)), skin, light)
            for more, light in ((rim, RIM_LIGHT), (0, LIGHTS[1]))
        ]
    layer.rim.append(fill(middle + (contour - middle) * (1 + rim / reach), skin, RIM_LIGHT, convex=False))
    layer.body.append(fill(contour, skin, LIGHTS[0], convex=False))
    lit = np.array([-0.05, -0.05]) * brush.unit
    layer.body.append(fill(middle + lit + (contour - middle) * 0.9, skin, LIGHTS[1], convex=False))
    layer.body.append(fill(middle + 2.2 * lit + (contour - middle) * 0.74, skin, LIGHTS[2], convex=False))
    layer.body += _features(brush, face)
    behind, before = hair_around(brush, joints.sway) if joints.sway else hair(brush)
    layer.body += before
    hair_behind = Layer(
        Part.HAIR, "hair", hair_depth(joints, character.hair_style) if joints.sway else joints.head[:, 2] + 0.1
    )
    hair_behind.body += behind
    return [hair_behind, layer]


def _contour(brush: Brush, face: Float[np.ndarray, "frames 68 3"]) -> Polygon:
    """Return the outline of skull and jaw: the convex hull of both."""
    latitude = np.concatenate([np.linspace(-35, 88, 12), np.linspace(88, -35, 12)])
    edge = brush.on_skull(np.repeat([-1000.0, 1000.0], 12), latitude)
    points = np.concatenate([edge, brush.at(face[:, :17])], axis=1)
    # The farthest point in each of many directions.
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    farthest = (points @ np.stack([np.cos(angle), np.sin(angle)])).argmax(1)  # [F, 40]
    return np.take_along_axis(points, farthest[..., None], axis=1)


def _on_skull(xy: np.ndarray) -> np.ndarray:
    z = -SKULL[2] * np.sqrt(np.maximum(1 - (xy[..., 0] / SKULL[0]) ** 2 - (xy[..., 1] / 1.15) ** 2, 0.02))
    return np.concatenate([xy, z[..., None]], axis=-1)


def _ring(
    x: float, y: float, width: float, above: np.ndarray, below: np.ndarray, count: int, corners: float = 0.0
) -> Float[np.ndarray, "frames count 3"]:
    """Return a ring of points from the picture's left over the top; `corners` moves its ends down."""
    angle = np.pi - 2 * np.pi * np.arange(count) / count
    height = np.where(np.sin(angle) > 0, above[:, None], below[:, None])
    rows = y - height * np.sin(angle) + corners * np.cos(angle) ** 2
    return _on_skull(np.stack([np.broadcast_to(x + width * np.cos(angle), rows.shape), rows], axis=-1))


def _features(brush: Brush, face: np.ndarray) -> list[Fill]:
    """Return cheeks, eyes, brows, nose and mouth, painted on their points."""
    character, points = brush.character, brush.at(face)
    fills: list[Fill] = []
    shown, nose_shown, mouth_shown = seen_from_front(brush.joints, face), None, None
    if brush.joints.sway:
        points = brush.at(rolled_to_edge(brush.joints, face))
        shown, nose_shown, mouth_shown = _partly_seen(brush.joints, face)
    blush = tuple(
        int(np.clip(c + character.blush * d, 0, 255)) for c, d in zip(character.skin, (24, -48, -34), strict=True)
    )
    for eye, brow, side in ((slice(36, 42), slice(17, 22), -1), (slice(42, 48), slice(22, 27), 1)):
        cheek = np.array([[side * 0.47, 0.42, -0.6]])
        seen = seen_from_front(brush.joints, cheek)[:, 0]
        fills.append(fill(ellipse(brush.at(cheek)[:, 0], *brush.axes(0.15, 0.1)), blush, shown=seen))
        fills += _eye(points[:, eye], character, np.all(shown[:, eye], axis=1))
        arch = points[:, brow]
        thick = brush.axes(0, 1)[1][:, None] * np.array([0.025, 0.04, 0.045, 0.04, 0.025])[::-side, None]
        colour = tuple(int(0.62 * c) for c in character.hair)
        outline = np.concatenate([arch - thick, (arch + thick)[:, ::-1]], axis=1)
        fills.append(fill(outline, colour, 255, False, np.all(shown[:, brow], axis=1)))
    nose = np.concatenate([points[:, 29:30], points[:, 31:36]], axis=1)
    fills.append(fill(nose, tuple(int(0.84 * c) for c in character.skin), 240, False, nose_shown))
    lips = tuple(round(0.5 * c + 0.5 * d) for c, d in zip(character.skin, (196, 64, 74), strict=True))
    teeth = np.concatenate([points[:, 60:65], 0.6 * points[:, 63:60:-1] + 0.4 * points[:, 65:68]], axis=1)
    fills.append(fill(points[:, 48:60], lips, 255, False, mouth_shown))
    fills.append(fill(points[:, 60:68], (104, 34, 44), 255, False, mouth_shown))
    fills.append(fill(teeth, (252, 248, 242), 255, False, mouth_shown))
    return fills


def _partly_seen(
    joints: Joints, face: np.ndarray
) -> tuple[Bool[np.ndarray, "frames 68"], Bool[np.ndarray, " frames"], Bool[np.ndarray, " frames"]]:
    """Return True for every point of a feature of which any point is seen, and the same for nose and mouth."""
    beyond = abs(np.arctan2(face[..., 0], -face[..., 2]) - head_yaw(joints)[:, None])
    seen = np.minimum(beyond, 2 * np.pi - beyond) < np.pi / 2
    for feature in (slice(17, 22), slice(22, 27), slice(27, 36), slice(36, 42), slice(42, 48), slice(48, 68)):
        seen[:, feature] = seen[:, feature].any(1, keepdims=True)
    return seen, seen[:, 30], seen[:, 48]


def _eye(
    corners: Float[np.ndarray, "frames 6 2"], character: Character, shown: Bool[np.ndarray, " frames"]
) -> list[Fill]:
    centre = corners.mean(1)
    wide = (corners[:, 3] - corners[:, 0]) / 2
    tall = (corners[:, 4:6].mean(1) - corners[:, 1:3].mean(1)) / (2 * np.sin(np.pi / 3))
    is_open = shown & (np.linalg.norm(tall, axis=-1) > 0.3 * np.linalg.norm(wide, axis=-1))
    lid = fill(ellipse(centre - 0.1 * tall, wide * 1.14, tall * 1.1), _INK, 255, shown=shown)
    ball = fill(ellipse(centre + 0.05 * tall, wide, tall * 0.96), (255, 253, 250), 255, shown=is_open)
    rings = [
        fill(ellipse(centre + 0.04 * tall, wide * width, tall * height), colour, shown=is_open)
        for width, height, colour in ((0.72, 0.88, character.iris), (0.46, 0.6, _INK))
    ]
    glint = fill(ellipse(centre - 0.36 * tall - 0.26 * wide, wide * 0.21, tall * 0.22), (255, 255, 255), shown=is_open)
    return [lid, ball, *rings, glint]
