"""Layers of arms, legs and hands, and of the clothes on them."""

from collections.abc import Sequence

import numpy as np

from mimicmotion_jax.synthetic.appearance import Character, Colour
from mimicmotion_jax.synthetic.drawing import LIGHTS, RIM_LIGHT, Layer, capsule, fill
from mimicmotion_jax.synthetic.kinematics import smooth_step
from mimicmotion_jax.synthetic.parts import RIM, SHOULDER, SLEEVE, Part, View, limb
from mimicmotion_jax.synthetic.skeleton import SIDES, Joints
from mimicmotion_jax.synthetic.trunk import trunk_depth

# Half widths at each finger's four points from the thumb on, and the offset of the lit side, in lengths of the hand.
_FINGER_RADII = np.array(
    [
        [0.115, 0.1, 0.09, 0.075],
        [0.1, 0.085, 0.075, 0.062],
        [0.1, 0.085, 0.075, 0.062],
        [0.1, 0.085, 0.075, 0.062],
        [0.088, 0.075, 0.066, 0.055],
    ]
)
_HAND_LIGHT = np.array([-0.035, -0.05])


def arm(view: View, character: Character, joints: Joints, side: int) -> list[Layer]:
    """Return upper arm and forearm with the sleeve."""
    shoulder, elbow, wrist = joints.shoulders[:, side], joints.elbows[:, side], joints.wrists[:, side]
    # Hanging arms are in front of the body's edge; an arm wholly in front of or behind the body is one piece.
    depths = [(shoulder[:, 2] + elbow[:, 2]) / 2 - 0.012, (elbow[:, 2] + wrist[:, 2]) / 2 - 0.012]
    if joints.sway:
        # Each half has its own depth, so that none jumps. An upper arm beside the body is in front unless in profile.
        aside = SIDES[side] * np.einsum("fi,fi->f", elbow - joints.neck, joints.chest_rotation[..., 0])
        depths[0] = depths[0] - 0.05 * smooth_step((aside - 0.06) / 0.06)
        return _blended(_arm(view, character, joints, side, depths), side, [0.7, 1.0])
    torso = trunk_depth(joints)
    depths[0] = np.where((depths[0] < torso) == (depths[1] < torso), depths[1], depths[0])
    return _arm(view, character, joints, side, depths)


def _arm(view: View, character: Character, joints: Joints, side: int, depths: list[np.ndarray]) -> list[Layer]:
    girth = character.body.girth
    shoulder, elbow, wrist = joints.shoulders[:, side], joints.elbows[:, side], joints.wrists[:, side]
    group, skin, top = f"arm {side}", character.skin, character.top
    upper, lower = Part.UPPER_ARM + side, Part.FOREARM + side
    if character.sleeves > 1:
        end = elbow + 0.97 * (wrist - elbow)
        radii = (SLEEVE * girth, 0.034 * girth, 0.029 * girth)
        return [
            limb(view, upper, group, (shoulder, elbow), radii[:2], top.colour, depths[0], top, outlined=0.25),
            limb(view, lower, group, (elbow, end), radii[1:], top.colour, depths[1], top),
        ]
    radii = (SHOULDER * girth, 0.029 * girth, 0.022 * girth)
    layers = [
        limb(view, upper, group, (shoulder, elbow), radii[:2], skin, depths[0], outlined=0.25),
        limb(view, lower, group, (elbow, wrist), radii[1:], skin, depths[1]),
    ]
    if character.sleeves > 0:
        end = shoulder + 0.72 * character.sleeves * (elbow - shoulder)
        ends = (SLEEVE * girth, 0.039 * girth)
        _cover(layers[0], limb(view, upper, group, (shoulder, end), ends, top.colour, depths[0], top, outlined=0.4))
    return layers


def leg(view: View, character: Character, joints: Joints, side: int) -> list[Layer]:
    """Return thigh, calf and foot with their clothes."""
    girth = character.body.girth
    hip, knee, ankle = joints.hips[:, side], joints.knees[:, side], joints.ankles[:, side]
    group, skin, bottom = f"leg {side}", character.skin, character.bottom
    thigh, calf = Part.THIGH + side, Part.CALF + side
    # Legs are under the shirt however high the knee is.
    depth = joints.pelvis[:, 2] + 0.06 + 0.15 * (knee[:, 2] - joints.pelvis[:, 2])
    ends = joints.heels[:, side], joints.toes[:, side]
    foot = limb(view, Part.FOOT + side, group, ends, (0.028, 0.023), character.shoes, depth)
    if character.legs > 1:
        hem = ankle + 0.1 * (knee - ankle)
        radii = (0.052 * girth, 0.041 * girth, 0.037 * girth)
        return [
            foot,
            limb(view, calf, group, (knee, hem), radii[1:], bottom.colour, depth, bottom),
            limb(view, thigh, group, (hip, knee), radii[:2], bottom.colour, depth, bottom),
        ]
    radii = (0.049 * girth, 0.034 * girth, 0.023 * girth)
    layers = [
        foot,
        limb(view, calf, group, (knee, ankle), radii[1:], skin, depth),
        limb(view, thigh, group, (hip, knee), radii[:2], skin, depth),
    ]
    shin = ankle + 0.22 * (knee - ankle)
    _cover(layers[1], limb(view, calf, group, (shin, ankle), (0.027 * girth, 0.026 * girth), character.socks, depth))
    if character.legs > 0:
        end = hip + character.legs * (knee - hip)
        ends = (0.054 * girth, 0.053 * girth)
        _cover(layers[2], limb(view, thigh, group, (hip, end), ends, bottom.colour, depth, bottom))
    return layers


def _cover(layer: Layer, cloth: Layer) -> None:
    """Put a piece of cloth over a limb, with an outline against it."""
    layer.rim += cloth.rim
    layer.body += cloth.rim + cloth.body


def hand(view: View, character: Character, joints: Joints, side: int) -> list[Layer]:
    """Return a palm and five fingers; no other part comes between them."""
    points, group = joints.hands[:, side], f"hand {side}"
    pixels = view.project(points)
    unit, rim = character.body.hand * view.scale, 0.8 * RIM * view.scale
    palm = Layer(Part.PALM + side, group, points[:, [0, 9], 2].mean(1) - 0.02)
    wrist = pixels[:, 0]
    lit = _HAND_LIGHT * unit
    bones = [(pixels[:, knuckle], 0.2, 0.125) for knuckle in (5, 9, 13, 17)] + [(pixels[:, 2], 0.17, 0.11)]
    for knuckle, *radii in bones:
        a, b = np.array(radii) * unit
        palm.rim.append(fill(capsule(wrist, knuckle, a + rim, b + rim), character.skin, RIM_LIGHT))
        palm.body.append(fill(capsule(wrist, knuckle, a, b), character.skin, LIGHTS[1]))
    for knuckle, *_ in bones[:4]:
        shine = capsule(wrist + lit, knuckle + lit, 0.13 * unit, 0.07 * unit)
        palm.body.append(fill(shine, None, LIGHTS[2]))
    layers = [palm]
    for finger, radii in enumerate(_FINGER_RADII):
        bent = points[:, 4 * finger + 2 : 4 * finger + 5, 2].mean(1) - points[:, 9, 2]
        layer = Layer(Part.FINGER + 5 * side + finger, group, palm.depth + np.clip(0.2 * bent, -0.004, 0.004))
        layers.append(
            _finger(layer, pixels[:, 4 * finger + 1 : 4 * finger + 5], radii * unit, rim, lit, character.skin)
        )
    return _blended(layers, side, [1.0] * 6) if joints.sway else layers


def _blended(layers: list[Layer], side: int, sizes: Sequence[float]) -> list[Layer]:
    """Let layers change places with others gradually; those of both sides do so in opposite directions."""
    for layer, size in zip(layers, sizes, strict=True):
        layer.blend, layer.follows = float(SIDES[side]) * size, layer.part >= Part.FINGER
    return layers


def _finger(layer: Layer, joints: np.ndarray, radii: np.ndarray, rim: float, lit: np.ndarray, skin: Colour) -> Layer:
    bones = [(joints[:, i], joints[:, i + 1], radii[i], radii[i + 1]) for i in range(3)]
    layer.rim += [fill(capsule(a, b, ra + rim, rb + rim), skin, RIM_LIGHT) for a, b, ra, rb in bones]
    # The first bone grows out of the palm; the others have an outline.
    layer.body += layer.rim[1:] + [fill(capsule(*bone), skin, LIGHTS[1]) for bone in bones]
    shines = [capsule(a + 0.5 * lit, b + 0.5 * lit, 0.6 * ra, 0.6 * rb) for a, b, ra, rb in bones]
    layer.body += [fill(shine, None, LIGHTS[2]) for shine in shines]
    return layer
