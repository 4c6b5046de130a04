"""Hand boxes and masks against boxes worked out by hand."""

import numpy as np
import pytest

from mimicmotion_jax.pose.hands import hand_boxes, hand_mask
from mimicmotion_jax.pose.keypoints import GROUPS, Keypoints
from mimicmotion_jax.runtime.errors import InputError

WIDTH, HEIGHT = 320, 160


def person(left: tuple[float, ...], right: tuple[float, ...], scores: np.ndarray | float = 1.0) -> Keypoints:
    """One frame with two hands that span these boxes (x0, y0, x1, y1 as fractions)."""
    arrays = {name: np.zeros((1, 1, *points, 2)) for name, points in GROUPS.items()}
    arrays |= {f"{name}_score": np.zeros((1, 1, *points)) for name, points in GROUPS.items()}
    random = np.random.default_rng(0)
    for hand, box in enumerate((left, right)):
        low, high = np.array(box[:2]), np.array(box[2:])
        points = random.uniform(low, high, (21, 2))
        points[0], points[1] = low, high
        arrays["hands"][0, 0, hand] = points
    arrays["hands_score"][:] = scores
    return Keypoints(**arrays, width=WIDTH, height=HEIGHT, fps=1)


def test_boxes_are_padded_by_the_longer_side_in_pixels():
    # Left: 32 x 32 pixels, so 8 on every side. Right: 64 x 16, so 16 on every side.
    keypoints = person((0.2, 0.2, 0.3, 0.4), (0.5, 0.5, 0.7, 0.6))
    boxes, valid = hand_boxes(keypoints, padding=0.25)
    assert valid.all()
    np.testing.assert_allclose(boxes[0, 0, 0], [0.2 - 8 / 320, 0.2 - 8 / 160, 0.3 + 8 / 320, 0.4 + 8 / 160], atol=1e-6)
    np.testing.assert_allclose(boxes[0, 0, 1], [0.5 - 0.05, 0.5 - 0.1, 0.7 + 0.05, 0.6 + 0.1], atol=1e-6)


def test_a_hand_counts_only_with_all_its_points():
    scores = np.full((1, 1, 2, 21), 0.9)
    scores[0, 0, 0, 7] = 0.5  # not above the threshold
    scores[0, 0, 1, 7] = 0.51
    keypoints = person((0.2, 0.2, 0.3, 0.4), (0.5, 0.5, 0.7, 0.6), scores)
    assert hand_boxes(keypoints, threshold=0.5)[1].tolist() == [[[False, True]]]
    assert hand_boxes(keypoints, threshold=0.4)[1].all()
    assert not hand_boxes(keypoints, threshold=0.9)[1].any()
    assert hand_boxes(keypoints, threshold=0.5)[0][0, 0, 0].tolist() == [0, 0, 0, 0]
    mask = hand_mask(keypoints, 20, 40, threshold=0.5)
    assert not mask[:, :8].any()
    assert mask.any()


def test_cells_that_a_box_overlaps_are_in_the_mask():
    # 20 x 40 cells of 8 pixels. Left: x 64..96, y 32..64, no padding: cells 8..11 x 4..7, edges touched only.
    # Right: x 161..223, y 81..95: cells 20..27 x 10..11, the outer ones in part.
    keypoints = person((0.2, 0.2, 0.3, 0.4), (161 / 320, 81 / 160, 223 / 320, 95 / 160))
    keypoints.hands[0, 0, 0] = np.clip(keypoints.hands[0, 0, 0], [0.2001, 0.2001], [0.2999, 0.3999])
    expected = np.zeros((20, 40), bool)
    expected[4:8, 8:12] = True
    expected[10:12, 20:28] = True
    np.testing.assert_array_equal(hand_mask(keypoints, 20, 40, padding=0)[0], expected)
    # Another size of latents over the same picture.
    np.testing.assert_array_equal(hand_mask(keypoints, 2, 2, padding=0)[0], [[True, False], [False, True]])


def test_boxes_are_clipped_and_hands_outside_do_not_count():
    boxes, valid = hand_boxes(person((-0.1, 0.9, 0.1, 1.2), (1.5, 0.5, 1.6, 0.6)))
    assert valid.tolist() == [[[True, False]]]
    assert boxes[0, 0, 0, 0] == 0
    assert boxes[0, 0, 0, 3] == 1
    assert boxes.min() >= 0
    assert boxes.max() <= 1


def test_numbers_out_of_range():
    keypoints = person((0.2, 0.2, 0.3, 0.4), (0.5, 0.5, 0.7, 0.6))
    with pytest.raises(InputError, match="0 or more"):
        hand_boxes(keypoints, padding=-1)
    with pytest.raises(InputError, match="0 or more"):
        hand_mask(keypoints, 2, 2, threshold=float("nan"))
