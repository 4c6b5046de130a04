"""Choosing a person, filling gaps and the report, against numbers worked out by hand."""

from pathlib import Path

import numpy as np
import pytest

from mimicmotion_jax.pose.files import load_keypoints
from mimicmotion_jax.pose.keypoints import Keypoints
from mimicmotion_jax.pose.select import diagnose, fill_gaps, select_person
from mimicmotion_jax.runtime.errors import InputError

POSES = Path(__file__).parents[3] / "shared" / "media" / "poses"


def make(body_score, boxes=None, fps=10.0, width=200, height=100, hands_score=0.0, faces_score=0.0):
    """Keypoints from `body_score` [F, P, 18] whose body points lie on the corners of `boxes` [F, P, 4] in [0, 1]."""
    body_score = np.asarray(body_score, np.float32)
    frames, people, _ = body_score.shape
    boxes = np.broadcast_to(np.float32([0.4, 0.4, 0.6, 0.6]) if boxes is None else boxes, (frames, people, 4))
    body = np.where((np.arange(18) % 2 == 0)[:, None], boxes[:, :, None, :2], boxes[:, :, None, 2:])
    shapes = {"hands": (frames, people, 2, 21), "faces": (frames, people, 68)}
    return Keypoints(
        body=body.astype(np.float32),
        body_score=body_score,
        hands=np.zeros((*shapes["hands"], 2), np.float32),
        hands_score=np.broadcast_to(np.float32(hands_score), shapes["hands"]),
        faces=np.zeros((*shapes["faces"], 2), np.float32),
        faces_score=np.broadcast_to(np.float32(faces_score), shapes["faces"]),
        width=width,
        height=height,
        fps=fps,
    )


def present(table):
    """Body scores [F, P, 18] from a table [F][P] of one score for all points."""
    return np.repeat(np.float32(table)[..., None], 18, axis=-1)


SMALL_IN_THE_MIDDLE, LARGE_AT_THE_EDGE = [0.45, 0.4, 0.55, 0.6], [0.0, 0.0, 0.3, 0.9]


def test_largest_and_central():
    keypoints = make(present([[1, 1]] * 3), [[SMALL_IN_THE_MIDDLE, LARGE_AT_THE_EDGE]] * 3)
    assert chosen(keypoints, "largest") == 1
    assert chosen(keypoints, "central") == 0


def chosen(keypoints, choice):
    one = select_person(keypoints, choice)
    assert one.num_people == 1
    (same,) = [p for p in range(keypoints.num_people) if np.array_equal(one.body, keypoints.body[:, p : p + 1])]
    return same


def test_decision_is_per_clip_and_weighted():
    """Person 1 is 13.5 times as large (0.27 to 0.02 of the picture) and person 0 is there all the time."""
    boxes = [[SMALL_IN_THE_MIDDLE, LARGE_AT_THE_EDGE]] * 20
    once, twice = present([[1, 1]] + [[1, 0]] * 19), present([[1, 1]] * 2 + [[1, 0]] * 18)
    assert chosen(make(once, boxes), "largest") == 0  # 20 * 0.02 = 0.40 against 0.27
    assert chosen(make(twice, boxes), "largest") == 1  # 0.40 against 0.54
    unsure = present([[1, 0.7]] * 2 + [[1, 0]] * 18)
    assert chosen(make(unsure, boxes), "largest") == 0  # 0.40 against 0.38
    # Scores above 1 count as 1: otherwise 20 * 0.02 * 1.5 = 0.60.
    assert chosen(make(np.where(twice == 1, [[1.5], [1.0]], twice), boxes), "largest") == 1


def test_centre_is_measured_in_pixels():
    """In a 200 x 100 picture, 0.2 to the side is 40 pixels and 0.3 down is 30."""
    aside, below = [0.6, 0.4, 0.8, 0.6], [0.4, 0.7, 0.6, 0.9]
    keypoints = make(present([[1, 1]]), [[aside, below]])
    assert chosen(keypoints, "central") == 1
    square = make(present([[1, 1]]), [[aside, below]], width=100)
    assert chosen(square, "central") == 0


def test_unseen_points_do_not_make_a_person_larger():
    scores = present([[1, 1]])
    scores[0, 0, 1] = 0.2
    keypoints = make(scores, [[SMALL_IN_THE_MIDDLE, [0.4, 0.4, 0.6, 0.6]]])
    body = keypoints.body.copy()
    body[0, 0, 1] = 0, 9  # a wild guess of the detector
    assert chosen(Keypoints(**{**vars(keypoints), "body": body}), "largest") == 1


def test_choice_by_number_and_bad_choices():
    keypoints = make(present([[1, 1]]), [[SMALL_IN_THE_MIDDLE, LARGE_AT_THE_EDGE]])
    assert chosen(keypoints, 0) == 0
    assert chosen(keypoints, 1) == 1
    for number in (2, -1):
        with pytest.raises(InputError, match=f"there is no person {number}"):
            select_person(keypoints, number)
    with pytest.raises(InputError, match="give largest, central or a number"):
        select_person(keypoints, "tallest")


@pytest.mark.parametrize(
    "scores", [present([[0.2], [0.3]]), np.zeros((2, 0, 18)), np.eye(18)[None, None, 0].repeat(2, 0)]
)
def test_nobody(scores):
    """All unsure, no columns at all, one lone point."""
    with pytest.raises(InputError, match="nobody was found in any of the 2 frames"):
        select_person(make(scores))


def gap(scores, positions=None):
    """One person whose points all share a score per frame and move along x."""
    x = np.float32(np.arange(len(scores)) if positions is None else positions) / 10
    return make(present([[score] for score in scores]), np.stack([x, x, x, x], -1)[:, None])


def test_gap_is_bridged_in_a_line_and_darkened_towards_its_middle():
    """Lost in frames 1 to 3: t = 1/4, 1/2, 3/4; from 0.8 to 0.4 the line is 0.7, 0.6, 0.5; factors 3/4, 1/2, 3/4."""
    filled = fill_gaps(gap([0.8, 0, 0.1, 0.3, 0.4], positions=[0, 7, 7, 7, 8]), max_gap_seconds=0.3)
    np.testing.assert_allclose(filled.body_score[:, 0, 5], [0.8, 0.525, 0.3, 0.375, 0.4], rtol=1e-5)
    np.testing.assert_allclose(filled.body[:, 0, 5, 0], [0, 0.2, 0.4, 0.6, 0.8], rtol=1e-5)


def test_long_gaps_and_ends_stay():
    scores = [0, 0.9, 0, 0.9, 0, 0, 0.9, 0.2]
    keypoints = gap(scores)
    filled = fill_gaps(keypoints, max_gap_seconds=0.1)  # one frame at 10 fps
    np.testing.assert_allclose(filled.body_score[:, 0, 0], [0, 0.9, 0.45, 0.9, 0, 0, 0.9, 0.2], rtol=1e-6)
    longer = fill_gaps(keypoints, max_gap_seconds=0.25)  # two frames: factors 2/3
    np.testing.assert_allclose(longer.body_score[:, 0, 0], [0, 0.9, 0.45, 0.9, 0.6, 0.6, 0.9, 0.2], rtol=1e-5)
    dark = fill_gaps(keypoints, "dark")
    np.testing.assert_array_equal(dark.body_score, keypoints.body_score)
    np.testing.assert_array_equal(dark.body, keypoints.body)


def test_gaps_of_each_point_and_person_by_themselves():
    keypoints = make(np.ones((3, 2, 18)), hands_score=1.0)
    hands_score, hands = keypoints.hands_score.copy(), keypoints.hands.copy()
    hands_score[1, 1, 0, 8] = 0
    hands[:, 1, 0, 8, 1] = 0.2, 9, 0.6
    filled = fill_gaps(Keypoints(**{**vars(keypoints), "hands": hands, "hands_score": hands_score}))
    assert filled.hands_score[1, 1, 0, 8] == 0.5
    assert filled.hands[1, 1, 0, 8, 1] == pytest.approx(0.4)
    untouched = np.ones_like(hands_score, bool)
    untouched[1, 1, 0, 8] = False
    np.testing.assert_array_equal(filled.hands_score[untouched], 1)
    np.testing.assert_array_equal(filled.body, keypoints.body)


def test_bad_gap_options():
    keypoints = gap([1, 0, 1])
    with pytest.raises(InputError, match="choose interpolate or dark"):
        fill_gaps(keypoints, "hold")
    for seconds in (-0.1, float("nan")):
        with pytest.raises(InputError, match="max_gap_seconds must be 0 or more"):
            fill_gaps(keypoints, max_gap_seconds=seconds)


def test_report():
    """Ten frames at 10 fps: nobody in 3 to 5 and in 9, two people in 7, scores 1.2 (counts as 1) and 0.5 by turns."""
    scores = present([[1.2, 0], [0.5, 0], [1.2, 0], [0, 0], [0, 0], [0, 0], [0.5, 0], [1.2, 0.9], [0.5, 0], [0, 0]])
    scores[8, 0, 13] = 0.1  # the left ankle
    boxes = [[[0, 0, 1, 1], [0.4, 0.4, 0.5, 0.5]]] * 10
    hands = np.zeros((10, 2, 2, 21))
    hands[:6, 0, 0] = 0.8  # the left hand in 0 to 2, where there is a person
    hands[0, 0, 1, :10] = 0.8  # less than half of the right one
    report = diagnose(make(scores, boxes, hands_score=hands, faces_score=0.6))
    assert (report.num_frames, report.fps, report.crowded_frames) == (10, 10, 1)
    assert report.person_fraction == pytest.approx(0.6)
    assert (report.longest_gap_start, report.longest_gap) == (3, 3)
    body = (3 * 1 + 3 * 0.5) / 6 - (0.5 - 0.1) / (6 * 18)
    assert report.body_confidence == pytest.approx(body)
    assert report.hands_confidence == pytest.approx(0.8 * (3 * 21 + 10) / (6 * 42))
    assert report.faces_confidence == pytest.approx(0.6)
    assert report.left_hand_fraction == pytest.approx(0.3)
    assert report.right_hand_fraction == 0
    assert report.legs_fraction == pytest.approx(0.5)
    summary = report.summary()
    assert (
        "10 frames (1.0 s): a person in 60%, the longest gap 0.3 s from 0.3 s on; frames with several people: 1."
        in summary
    )
    assert "Left hand seen in 30%, right hand in 0%, legs in 50% of the frames" in summary
    assert report.problems() == [
        "the person is often lost: use a steadier, better lit or larger view",
        "there are several people: check that the right one is chosen",
        "the left hand is mostly unseen: expect an invented one",
        "the right hand is mostly unseen: expect an invented one",
    ]


def test_report_on_a_good_video_and_on_nobody():
    good = diagnose(make(np.ones((5, 1, 18)), hands_score=0.9, faces_score=1.0))
    assert good.problems() == []
    assert good.summary().endswith("Good to go.")
    assert "no gaps" in good.summary()
    for people in (0, 2):
        nobody = diagnose(make(np.zeros((5, people, 18))))
        assert (nobody.person_fraction, nobody.longest_gap, nobody.body_confidence) == (0, 5, 0)
        assert nobody.problems() == ["nobody was found: use a clearer view of the person or another detector"]
    away = diagnose(make(present([[1]] * 30 + [[0]] * 11 + [[1]] * 100), hands_score=1.0, faces_score=1.0))
    assert away.problems() == ["the person is away for over a second: cut that part out"]
    with pytest.raises(InputError, match="hold no frames"):
        diagnose(make(np.ones((0, 1, 18))))


@pytest.mark.parametrize(
    "source",
    ["made", pytest.param("recorded", marks=pytest.mark.skipif(not POSES.is_dir(), reason="no ../shared/media"))],
)
def test_half_bodies_without_gaps(source):
    found = [make(np.ones((5, 1, 18)), hands_score=0.9, faces_score=1.0)]
    if source == "recorded":
        found = [load_keypoints(path) for path in sorted(POSES.glob("dwpose_*.npz"))]
        assert found
    for keypoints in found:
        report = diagnose(keypoints)
        assert (report.person_fraction, report.longest_gap, report.crowded_frames) == (1, 0, 0)
        assert min(report.left_hand_fraction, report.right_hand_fraction) > 0.9
        assert select_person(keypoints).num_people == 1
        filled = fill_gaps(keypoints)
        assert ((filled.body_score > 0.3) >= (keypoints.body_score > 0.3)).all()
