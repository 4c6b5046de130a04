"""Layers of upper body, pelvis, neck and skirt."""

import numpy as np
from jaxtyping import Float

from mimicmotion_jax.synthetic.appearance import Character
from mimicmotion_jax.synthetic.drawing import LIGHTS, RIM_LIGHT, Fill, Layer, capsule, fill, shaded_capsule
from mimicmotion_jax.synthetic.parts import RIM, SHOULDER, SLEEVE, Part, View, limb, silhouette
from mimicmotion_jax.synthetic.skeleton import HIP_WIDTH, SIDES, Joints, Sway
from mimicmotion_jax.synthetic.surface import Strip, grown, pattern, resampled

# Half widths and half depths of the upper body, from the neck down to the hem, in heights.
_WIDTHS = np.array([0.04, 0.1, 0.108, 0.1, 0.082, 0.1, 0.102])
_DEPTHS = np.array([0.036, 0.045, 0.055, 0.065, 0.058, 0.065, 0.062])


def trunk_depth(joints: Joints) -> Float[np.ndarray, " frames"]:
    """Return the depth of the upper body."""
    return (joints.neck[:, 2] + joints.waist[:, 2]) / 2


def trunk(view: View, character: Character, joints: Joints) -> list[Layer]:
    """Return pelvis, upper body, neck, and the skirt if there is one."""
    body, top, scale = character.body, character.top, view.scale
    strip = _torso_strip(view, character, joints)
    rim = RIM * scale
    torso = Layer(Part.TORSO, "torso", trunk_depth(joints))
    torso.rim.append(fill(grown(strip, rim), top.colour, RIM_LIGHT, convex=False))
    radius = (SLEEVE if character.sleeves else SHOULDER) * body.girth * scale
    for side in range(len(SIDES)):
        ball = view.project(joints.shoulders[:, side])
        torso.rim.append(fill(capsule(ball, ball, radius + rim, radius + rim), top.colour, RIM_LIGHT))
        torso.body += shaded_capsule(ball, ball, radius, radius, top.colour if character.sleeves else character.skin)
    torso.body.append(fill(strip.band(0, 1), top.colour, LIGHTS[0], convex=False))
    torso.body.append(fill(strip.band(0, 0.98, -0.96, 0.66), None, LIGHTS[1], convex=False))
    torso.body.append(fill(strip.band(0, 0.97, -0.85, 0.25), None, LIGHTS[2], convex=False))
    torso.body += pattern(strip, top, body.spine + 0.11, 0.085 * body.girth)
    torso.body += _collar(character, strip)

    radii = (0.052 * body.girth, 0.052 * body.girth)
    depth = joints.pelvis[:, 2] + 0.03
    ends = (joints.hips[:, 0], joints.hips[:, 1])
    pelvis = limb(view, Part.PELVIS, "pelvis", ends, radii, character.bottom.colour, depth)
    neck = limb(
        view, Part.NECK, "neck", (joints.neck, joints.head), (0.033, 0.029), character.skin, joints.neck[:, 2] + 0.02
    )
    # Shadow of the chin.
    chin, throat = (view.project(point) for point in (joints.head, 0.45 * joints.head + 0.55 * joints.neck))
    neck.body.append(fill(capsule(chin, throat, 0.03 * scale, 0.03 * scale), None, 186))
    layers = [pelvis, torso, neck]
    if character.skirt:
        layers.append(_skirt(view, character, joints, strip))
    return layers


def _torso_strip(view: View, character: Character, joints: Joints) -> Strip:
    """Return the upper body's surface from the neck to a hem below the hips."""
    body = character.body
    chest_rows = np.array([-0.056, -0.026, 0.012, 0.24 * body.spine])
    pelvis_rows = np.array([0.0, 0.055])
    down = np.array([0.0, 1.0, 0.0])
    chest = joints.neck[:, None] + (joints.chest_rotation @ down)[:, None] * chest_rows[:, None]
    pelvis = joints.pelvis[:, None] + (joints.pelvis_rotation @ down)[:, None] * pelvis_rows[:, None]
    centre = np.concatenate([chest, joints.waist[:, None], pelvis], axis=1)  # [F, 7, 3]
    place = np.concatenate([chest_rows, [0.65 * body.spine], body.spine + pelvis_rows])
    broad = body.shoulder / 0.105
    width = _WIDTHS * [1, broad, broad, body.girth, body.waist * body.girth, body.hips, body.hips * body.girth]
    depth = _DEPTHS * body.girth
    rotations = np.stack([*[joints.chest_rotation] * 5, *[joints.pelvis_rotation] * 2], axis=1)
    if joints.sway:
        across, turns = silhouette(view, rotations, width, depth)
        return Strip(resampled(view.project(centre), place), resampled(across, place), turns[:, 3])
    x_axis, z_axis = rotations[..., 0], rotations[..., 2]
    # Silhouette of an elliptical section: the width of both half axes as seen from the camera.
    half = np.hypot(width * x_axis[..., 0], depth * z_axis[..., 0])
    direction = view.project(x_axis) - view.project(np.zeros(3))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    across = direction * (half * view.scale)[..., None]
    turn = np.arctan2(-depth[3] * z_axis[:, 3, 0], width[3] * x_axis[:, 3, 0])
    return Strip(resampled(view.project(centre), place), resampled(across, place), turn)


def _collar(character: Character, strip: Strip) -> list[Fill]:
    """Return the neckline: an opening with a trim."""
    trim = tuple(int(0.82 * c) for c in character.top.colour)
    if character.collar == "high":
        return [fill(strip.band(0, 0.06), trim, LIGHTS[1], convex=False)]
    across = np.linspace(-1, 1, 13)
    curve = np.sqrt(1 - across**2) if character.collar == "round" else 1 - abs(across)
    depth, wide = {"round": (0.17, 0.66), "v": (0.29, 0.55)}[character.collar]

    def opening(more: float) -> np.ndarray:
        t, longitude = curve * (depth + more), across * (wide + 2.5 * more)
        return strip.at(np.append(t, [0, 0]), np.append(longitude, longitude[[-1, 0]]))

    return [
        fill(opening(0.035), trim, LIGHTS[1], convex=False),
        fill(opening(0), character.skin, LIGHTS[1], convex=False),
    ]


def _skirt(view: View, character: Character, joints: Joints, torso: Strip) -> Layer:
    """Return a skirt from the waist over the hips to a hem at the thighs; it is over the shirt."""
    body, fabric = character.body, character.bottom
    strip = (
        _swinging_skirt(view, character, joints, torso, joints.sway)
        if joints.sway
        else _hanging_skirt(view, character, joints, torso)
    )
    layer = Layer(Part.SKIRT, "skirt", trunk_depth(joints) - 0.002)
    layer.rim.append(fill(grown(strip, RIM * view.scale), fabric.colour, RIM_LIGHT, convex=False))
    layer.body.append(fill(strip.band(0, 1), fabric.colour, LIGHTS[0], convex=False))
    layer.body.append(fill(strip.band(0, 1, -0.96, 0.66), None, LIGHTS[1], convex=False))
    layer.body.append(fill(strip.band(0, 0.98, -0.85, 0.25), None, LIGHTS[2], convex=False))
    layer.body += pattern(strip, fabric, 0.07 + character.skirt * body.thigh, 0.1)
    longitudes = (-0.9, -0.2, 0.55, 1.5, 2.3, 3.1, 3.9, 4.6) if joints.sway else (-0.9, -0.2, 0.55)
    layer.body += [
        fill(strip.column(0.4, 1, fold, fold + 0.08), None, LIGHTS[0] - 10, convex=False) for fold in longitudes
    ]
    return layer


def _hanging_skirt(view: View, character: Character, joints: Joints, torso: Strip) -> Strip:
    body = character.body
    hem = view.project(joints.hips + character.skirt * (joints.knees - joints.hips))
    centre = hem.mean(1)
    half = abs(hem[:, 0, 0] - hem[:, 1, 0]) / 2 + view.scale * body.girth * (0.05 + 0.035 * character.skirt)
    waist, waist_across = torso.centre[:, 13], torso.across[:, 13] * 1.03
    direction = waist_across / np.maximum(np.linalg.norm(waist_across, axis=-1, keepdims=True), 1e-6)
    hips = view.project(joints.pelvis + np.array([0, 0.015, 0]))
    hip_half = np.maximum(abs(torso.across[:, 18]).max(-1), view.scale * (HIP_WIDTH * body.hips + 0.054 * body.girth))
    half = np.maximum(half, 1.05 * hip_half)
    rows = np.stack([waist, hips, centre], axis=1)
    across = np.stack([waist_across, direction * hip_half[:, None], direction * half[:, None]], axis=1)
    place = np.array([0, 0.07, 0.07 + character.skirt * body.thigh])
    return Strip(resampled(rows, place), resampled(across, place), torso.turn)


def _swinging_skirt(view: View, character: Character, joints: Joints, torso: Strip, sway: Sway) -> Strip:
    """Return a skirt with elliptical sections; its hem covers both thighs, swings, and widens when the body turns."""
    body = character.body
    legs = joints.hips + character.skirt * (joints.knees - joints.hips)
    middle = legs.mean(1)
    spread = np.einsum("fij,fi->fj", joints.pelvis_rotation, (legs[:, 0] - legs[:, 1]) / 2)
    flare = 0.03 * (sway.twist / 0.6) ** 2
    loose = body.girth * (0.05 + 0.035 * character.skirt) + flare
    wide, deep = abs(spread[:, 0]) + loose, abs(spread[:, 2]) + loose
    shirt = max(body.girth, 1.0) * np.array([0.106 * body.hips, 0.068])  # over its hem
    hip_wide = max(HIP_WIDTH * body.hips + 0.056 * body.girth, shirt[0])
    wide = np.maximum(wide, 1.05 * hip_wide)
    hips, turn = silhouette(view, joints.pelvis_rotation, hip_wide, shirt[1])
    hem, _ = silhouette(view, joints.pelvis_rotation, wide, deep)
    waist, waist_across = torso.centre[:, 13], torso.across[:, 13] * 1.03
    rows = [waist, view.project(joints.pelvis + np.array([0, 0.015, 0])), view.project(middle + sway.hem)]
    place = np.array([0, 0.07, 0.07 + character.skirt * body.thigh])
    across = np.stack([waist_across, hips, hem], axis=1)
    return Strip(resampled(np.stack(rows, axis=1), place), resampled(across, place), turn, -sway.twist)
