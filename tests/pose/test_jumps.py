"""Skeletons that jump, and those that only dance: truth by construction, and real detections without cuts."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mimicmotion_jax.pose.files import load_keypoints
from mimicmotion_jax.pose.jumps import find_jumps
from mimicmotion_jax.pose.keypoints import GROUPS, Keypoints
from mimicmotion_jax.pose.select import diagnose
from mimicmotion_jax.synthetic.dancer import demo_motion

POSES = Path(__file__).parents[3] / "shared" / "media" / "poses"


def moved(keypoints: Keypoints, frames, x=0.0, scale=1.0) -> Keypoints:
    """Scale and shift some frames, normalised to the picture."""
    arrays = {name: getattr(keypoints, name).copy() for name in GROUPS}
    for array in arrays.values():
        array[frames] = array[frames] * scale + np.float32([x, 0])
    return dataclasses.replace(keypoints, **arrays)


@pytest.fixture(scope="module")
def dance() -> Keypoints:
    return demo_motion(40, 24, 1080, 1920)


@pytest.mark.parametrize("fps", [8, 24, 60])
@pytest.mark.parametrize("change", [{"x": 1.5}, {"x": -1.5}, {"scale": 2.5}, {"scale": 0.4}])
def test_places_and_sizes_that_nobody_reaches_in_a_frame(dance, fps, change):
    """A picture is 1080 wide and the dancer about as tall: 1.5 pictures are more than a body."""
    cut = dataclasses.replace(moved(dance, slice(20, None), **change), fps=fps)
    assert find_jumps(cut) == find_jumps(cut, lasting=True) == [20]


def test_an_error_of_one_frame_is_a_jump_but_does_not_last(dance):
    wrong = moved(dance, slice(20, 21), x=1.5)
    assert find_jumps(wrong) == [20, 21]
    assert find_jumps(wrong, lasting=True) == []


def test_a_dancer_who_returns_elsewhere_after_a_while(dance):
    """Away for 3 frames and then 1.5 pictures aside: a jump. Away for 2 seconds: time enough to walk there."""
    cut = moved(dance, slice(20, None), x=1.5)
    score = cut.body_score.copy()
    score[17:20] = 0
    assert find_jumps(dataclasses.replace(cut, body_score=score)) == [20]
    score[4:36] = 0
    assert find_jumps(dataclasses.replace(cut, body_score=score, fps=16)) == []


def test_motion_is_no_jump(dance):
    """A run at 4 body lengths per second, and real dances with all and with a quarter of their frames."""
    run = dataclasses.replace(dance, body=dance.body + np.arange(40)[:, None, None, None] * np.float32([0.16, 0]))
    assert find_jumps(run) == []
    for path in sorted(POSES.glob("*.npz")):
        keypoints = load_keypoints(path, fps=30)
        assert find_jumps(keypoints) == []
        assert find_jumps(dataclasses.replace(keypoints[::4], fps=7.5)) == []


def test_the_report_warns(dance):
    twice = moved(moved(dance, slice(12, 18), x=1.5), slice(30, None), x=-1.5)
    report = diagnose(twice)
    assert report.jumps == (12, 18, 30)
    (problem,) = [problem for problem in report.problems() if "jump" in problem]
    assert problem.startswith("the skeleton jumps at 0.50 s and 2 more times, farther than a person can")
    assert diagnose(dance).jumps == ()
    assert not [problem for problem in diagnose(dance).problems() if "jump" in problem]


def test_nobody_jumps(dance):
    nobody = dataclasses.replace(dance, body_score=0 * dance.body_score)
    assert find_jumps(nobody) == find_jumps(dance[:1]) == find_jumps(dance[:0]) == []
