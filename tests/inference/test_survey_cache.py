"""Surveys that are kept: what they depend on, and what a complete one is good for."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from mimicmotion_jax.inference.options import PipelineOptions
from mimicmotion_jax.inference.preparing import Preparer
from mimicmotion_jax.inference.survey_cache import SurveyCache, survey_key
from mimicmotion_jax.pose.files import save_keypoints
from mimicmotion_jax.synthetic.dancer import demo_motion, demo_reference
from mimicmotion_jax.video.encode import open_writer

OPTIONS = PipelineOptions(height=64, width=64)


class Counting:
    """Detector that counts the frames it sees, and sees the same person in each."""

    def __init__(self):
        self.count = 0

    def detect(self, frame):
        self.count += 1
        height, width = frame.shape[:2]
        points = np.random.default_rng(0).uniform(0.2, 0.8, (1, 133, 2)) * (width, height)
        return points, np.ones((1, 133))

    def track(self, frames):
        return map(self.detect, frames)


@pytest.fixture
def files(tmp_path):
    picture, pose = demo_reference(64, 64)
    Image.fromarray(picture).save(tmp_path / "person.png")
    save_keypoints(pose, tmp_path / "person.npz")
    save_keypoints(demo_motion(4, 10, 640, 640), tmp_path / "dance.npz")
    with open_writer(tmp_path / "dance.mp4", 10, 64, 64, progress=False) as writer:
        writer.write(np.repeat(picture[None], 12, axis=0))
    return tmp_path


@pytest.fixture
def survey():
    surveyor = Preparer(16).survey
    surveyor._detectors["auto", None, None] = Counting()
    return surveyor


def count(survey):
    return survey._detectors["auto", None, None].count


def inputs(files, motion="dance.mp4"):
    return files / "person.png", files / motion


def test_options_of_sampling_and_drawing_detect_nothing_again(files, survey):
    first = survey(*inputs(files), OPTIONS, progress=False)
    assert count(survey) == 13
    changed = dataclasses.replace(OPTIONS, seed=5, align="limb", person=0, num_inference_steps=3, stroke_width=2.0)
    assert survey(*inputs(files), changed, progress=False) is first
    assert count(survey) == 13


@pytest.mark.parametrize(
    "change",
    [{"height": 128}, {"num_frames": 5}, {"start": 0.5}, {"stride": 2}, {"scenes": "first"}, {"align": "none"}],
    ids=lambda change: next(iter(change)),
)
def test_options_that_decide_what_is_looked_at_detect_again(files, survey, change):
    survey(*inputs(files), OPTIONS, progress=False)
    survey(*inputs(files), dataclasses.replace(OPTIONS, **change), progress=False)
    assert count(survey) > 13


def test_a_file_that_changes_is_read_again(files, survey):
    survey(*inputs(files), OPTIONS, files / "person.npz", progress=False)
    with open_writer(files / "dance.mp4", 10, 64, 64, progress=False) as writer:
        writer.write(np.zeros((3, 64, 64, 3), np.uint8))
    assert survey(*inputs(files), OPTIONS, files / "person.npz", progress=False).found.num_frames == 3


def test_a_part_is_no_substitute_for_the_whole_but_all_of_it_is(files, survey):
    part = survey(*inputs(files), OPTIONS, progress=False, max_frames=6)
    assert (len(part.wanted), len(part.frames), part.is_complete) == (6, 6, False)
    assert len(survey(*inputs(files), OPTIONS, progress=False).wanted) == 12
    enough = survey(*inputs(files), dataclasses.replace(OPTIONS, num_frames=4), progress=False, max_frames=6)
    assert enough.is_complete
    before = count(survey)
    assert survey(*inputs(files), dataclasses.replace(OPTIONS, num_frames=4), progress=False) is enough
    assert count(survey) == before


def test_keypoints_are_complete_and_arrays_are_not_kept(files):
    survey = Preparer(16).survey
    kept = survey(*inputs(files, "dance.npz"), OPTIONS, files / "person.npz", progress=False, max_frames=2)
    assert survey(*inputs(files, "dance.npz"), OPTIONS, files / "person.npz", progress=False) is kept
    assert survey_key(np.zeros((64, 64, 3), np.uint8), files / "dance.npz", OPTIONS, None) is None


def test_the_last_ones_used_are_kept(files, survey):
    whole = survey(*inputs(files), OPTIONS, progress=False)
    part = dataclasses.replace(whole, is_complete=False)
    cache = SurveyCache(2)
    for name in "ab":
        cache.put((name,), 6, part)
    assert cache.get(("a",), 6) is part
    assert cache.get(("a",), None) is None
    cache.put(("c",), 6, part)
    assert cache.get(("b",), 6) is None
    assert cache.get(("a",), 6) is part
