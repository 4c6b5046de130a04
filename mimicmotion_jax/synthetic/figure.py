"""Posed character: its layers, and exact position and visibility of its 128 points.

The points are 18 of the body, 21 of the left hand, 21 of the right hand and 68 of the face.
"""

import numpy as np
from jaxtyping import Bool, Float

from mimicmotion_jax.pose.keypoints import Body
from mimicmotion_jax.pose.layout import FACE, HANDS, NUM_POINTS
from mimicmotion_jax.synthetic.appearance import Character
from mimicmotion_jax.synthetic.drawing import Layer
from mimicmotion_jax.synthetic.head import head
from mimicmotion_jax.synthetic.limbs import arm, hand, leg
from mimicmotion_jax.synthetic.parts import Part, View
from mimicmotion_jax.synthetic.skeleton import SIDES, Joints
from mimicmotion_jax.synthetic.skull import EARS, in_space, seen_from_front
from mimicmotion_jax.synthetic.trunk import trunk

_SIDES = ((Body.L_SHOULDER, Body.L_HIP), (Body.R_SHOULDER, Body.R_HIP))

_FACE_TURNED_AWAY = -0.3  # cosine of the head's yaw, a little beyond profile


def figure_layers(
    view: View, character: Character, joints: Joints, face: Float[np.ndarray, "frames 68 3"]
) -> list[Layer]:
    """Return all layers to paint; `face` is in the head's coordinates."""
    layers = trunk(view, character, joints)
    for side in range(len(SIDES)):
        layers += leg(view, character, joints, side) + arm(view, character, joints, side)
        layers += hand(view, character, joints, side)
    return layers + head(view, character, joints, face)


def figure_points(
    character: Character, joints: Joints, face: Float[np.ndarray, "frames 68 3"]
) -> Float[np.ndarray, "frames 128 3"]:
    """Return all points in space; `face` is in the head's coordinates."""
    face = in_space(character, joints, face)
    body = np.zeros((len(face), len(Body), 3))
    body[:, Body.NECK] = joints.neck
    body[:, Body.NOSE] = face[:, 30]
    body[:, Body.R_EYE], body[:, Body.L_EYE] = face[:, 36:42].mean(1), face[:, 42:48].mean(1)
    body[:, [Body.L_EAR, Body.R_EAR]] = in_space(character, joints, EARS)
    for side, (shoulder, hip) in enumerate(_SIDES):
        for i, joint in enumerate((joints.shoulders, joints.elbows, joints.wrists)):
            body[:, shoulder + i] = joint[:, side]
        for i, joint in enumerate((joints.hips, joints.knees, joints.ankles)):
            body[:, hip + i] = joint[:, side]
    hands = joints.hands.reshape(len(face), FACE - HANDS, 3)
    return np.concatenate([body, hands, face], axis=1)


def owning_parts(under_hair: bool = False) -> Bool[np.ndarray, "128 256"]:
    """Return True for the parts on which a point is visible when they are on top. A hand counts as one part.

    `under_hair` says that hair may be in front of the body, where it hides nothing.

    `folded_away` has the exception for fingers behind a palm.
    """
    own = np.zeros((NUM_POINTS, 256), bool)
    own[Body.NECK, [Part.NECK, Part.TORSO, Part.HEAD]] = True
    own[[Body.NOSE, Body.R_EYE, Body.L_EYE, Body.R_EAR, Body.L_EAR], Part.HEAD] = True
    own[FACE:, Part.HEAD] = True
    for side, (shoulder, hip) in enumerate(_SIDES):
        upper_arm, forearm, thigh, calf, foot, palm = (
            part + side for part in (Part.UPPER_ARM, Part.FOREARM, Part.THIGH, Part.CALF, Part.FOOT, Part.PALM)
        )
        hand_parts = [palm, *(Part.FINGER + 5 * side + np.arange(5))]
        first = HANDS + 21 * side
        own[shoulder, [upper_arm, Part.TORSO]] = True
        own[shoulder + 1, [upper_arm, forearm]] = True
        own[shoulder + 2, [forearm, *hand_parts]] = True
        own[first, forearm] = True
        own[first : first + 21, hand_parts] = True
        own[hip, [Part.TORSO, Part.PELVIS, Part.SKIRT, thigh]] = True
        own[hip + 1, [thigh, calf, Part.SKIRT]] = True
        own[hip + 2, [calf, foot]] = True
    if under_hair:
        own[[Body.NECK, Body.L_SHOULDER, Body.R_SHOULDER, Body.L_EAR, Body.R_EAR], Part.HAIR] = True
    return own


def folded_away(character: Character, joints: Joints) -> Bool[np.ndarray, "frames 128"]:
    """Return True for points of a hand so far behind its palm that they are hidden wherever the palm is on top."""
    depth = joints.hands[..., 2]  # [F, 2, 21]
    folded = np.zeros((len(depth), NUM_POINTS), bool)
    behind = depth - depth[:, :, [0, 5, 17]].mean(2, keepdims=True) > 0.22 * character.body.hand
    folded[:, HANDS:FACE] = behind.reshape(len(depth), FACE - HANDS)
    return folded


def turned_to_us(joints: Joints, face: Float[np.ndarray, "frames 68 3"]) -> Bool[np.ndarray, "frames 128"]:
    """Return False for points on the side of the head that is turned away."""
    towards = np.ones((len(face), NUM_POINTS), bool)
    towards[:, FACE:] = seen_from_front(joints, face)
    towards[:, [Body.R_EYE, Body.L_EYE]] = towards[:, [FACE + 36, FACE + 45]]  # the outer corners
    towards[:, [Body.L_EAR, Body.R_EAR]] = seen_from_front(joints, EARS)
    if joints.sway:
        towards[:, FACE:] &= (joints.head_rotation[:, 2, 2] > _FACE_TURNED_AWAY)[:, None]
        towards[:, Body.NOSE] = towards[:, FACE + 30]
    return towards
