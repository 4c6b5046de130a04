"""Cartoons and animals of the synthetic world, for test sets."""

import numpy as np
import pytest

from mimicmotion_jax.pose.keypoints import Body
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.synthetic.cast import CARTOONS
from mimicmotion_jax.synthetic.config import WorldConfig
from mimicmotion_jax.synthetic.source import draw_scenes, scene_digest
from mimicmotion_jax.synthetic.world import Scene, make_scenes, render


def cartoon(character: int, **changes) -> Scene:
    style = {"motion": 7, "background": 3, "framing": "full", "width": 96, "height": 128, "num_frames": 1, "fps": 10.0}
    return Scene(character, **style | {"cast": "cartoons"} | changes)


@pytest.mark.parametrize("character", range(len(CARTOONS)))
def test_their_limbs_have_their_own_proportions(character):
    """Nobody has longer limbs in the picture than in the description."""
    rendered = render(cartoon(character))
    body, seen = rendered.keypoints.body[0, 0] * [96, 128], rendered.keypoints.body_score[0, 0] > 0
    own = CARTOONS[character].body
    tall = own.pelvis_height + own.spine + 0.055 + 0.16 * own.head
    # The figure is 0.7 to 0.8 of the picture high (`world._framing`), or 1.12 of its width.
    largest = min(0.8 * 128, 1.12 * 96) / tall
    limbs = ((Body.R_HIP, Body.R_KNEE, own.thigh), (Body.R_SHOULDER, Body.R_ELBOW, own.upper_arm))
    for start, end, length in limbs:
        if seen[start] and seen[end]:
            assert np.linalg.norm(body[start] - body[end]) <= 1.02 * length * largest
    assert rendered.foreground.any()


def test_a_large_head_and_short_legs_are_larger_and_shorter():
    def ratio(scene: Scene) -> float:
        """Distance of the eyes over the height of the hips above the ankles."""
        body = render(scene).keypoints.body[0, 0] * [scene.width, scene.height]
        legs = body[Body.R_ANKLE, 1] - body[Body.R_HIP, 1]
        return np.linalg.norm(body[Body.L_EYE] - body[Body.R_EYE]) / legs

    people = [ratio(cartoon(number, cast="people")) for number in range(8)]
    assert ratio(cartoon(0)) > 2 * max(people)  # the toddler
    assert ratio(cartoon(2)) < min(people)  # the beanpole


def test_they_are_in_test_sets_only():
    scenes = draw_scenes(WorldConfig(cast="cartoons", width=64, height=64), 4, "test")
    assert {scene.cast for scene in scenes} == {"cartoons"}
    assert scene_digest(cartoon(1)) != scene_digest(cartoon(1, cast="people"))
    with pytest.raises(InputError, match="for test sets only"):
        make_scenes(1, 0, "train", 64, 64, 1, cast="cartoons")
    with pytest.raises(InputError, match="cartoons have no backs"):
        cartoon(0, movement="free")
    with pytest.raises(InputError, match="'people' or 'cartoons', not 'robots'"):
        cartoon(0, cast="robots")
