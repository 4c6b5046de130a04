"""The drawn dancer and person: in view, smooth, of constant size, and painted at their keypoints."""

import numpy as np
import pytest

from mimicmotion_jax.pose.keypoints import Body
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.synthetic.dancer import demo_motion, demo_reference


@pytest.mark.parametrize(("width", "height"), [(576, 1024), (1024, 576), (512, 512)])
def test_the_dancer_stays_in_view_and_moves_smoothly(width, height):
    k = demo_motion(72, fps=30.0, width=width, height=height)
    points = np.concatenate([part.reshape(72, -1, 2) for part in (k.body, k.hands, k.faces)], axis=1)
    assert points.min() > -0.05
    assert points.max() < 1.05
    pixels = points * (width, height) / min(width, height)
    assert np.abs(np.diff(pixels, axis=0)).max() < 0.08  # at 30 frames per second
    assert np.ptp(pixels[:, Body.L_WRIST], axis=0).max() > 0.2


def test_the_dancers_arms_keep_their_length_and_the_feet_the_floor():
    k = demo_motion(72)
    body = k.body[:, 0] * (576, 1024)
    upper_arm = np.linalg.norm(body[:, Body.L_ELBOW] - body[:, Body.L_SHOULDER], axis=-1)
    np.testing.assert_allclose(upper_arm, upper_arm[0], rtol=1e-4)
    lowest = body[:, [Body.L_ANKLE, Body.R_ANKLE], 1].max(-1)
    np.testing.assert_allclose(lowest, lowest[0], atol=1e-2)  # one foot is always down
    np.testing.assert_allclose(k.hands[:, 0, 0, 0], k.body[:, 0, Body.L_WRIST], atol=1e-6)


@pytest.mark.parametrize(("width", "height"), [(576, 1024), (1024, 576), (64, 64)])
def test_the_picture_shows_the_person_where_the_keypoints_are(width, height):
    picture, k = demo_reference(width, height)
    assert picture.shape == (height, width, 3)
    assert picture.dtype == np.uint8

    def colour(point) -> np.ndarray:
        x, y = (point * (width, height)).astype(int)
        return picture[y, x].astype(int)

    chest = (k.body[0, 0, Body.NECK] + k.body[0, 0, [Body.R_HIP, Body.L_HIP]].mean(0)) / 2
    shin = k.body[0, 0, [Body.R_KNEE, Body.R_ANKLE]].mean(0)
    assert np.abs(colour(chest) - (38, 132, 130)).max() < 20  # jumper
    assert np.abs(colour(shin) - (44, 54, 92)).max() < 20  # trousers
    assert colour(np.array([0.02, 0.02])).min() > 200  # wall


def test_bad_values_are_refused():
    for make in (lambda: demo_motion(0), lambda: demo_motion(3, fps=0), lambda: demo_reference(0, 5)):
        with pytest.raises(InputError):
            make()
