"""Motions with cuts: where they are is in the report, and `scenes` takes one."""

import dataclasses

import cv2
import numpy as np
import pytest
from PIL import Image

from mimicmotion_jax import InputError
from mimicmotion_jax.inference.job import Prepared
from mimicmotion_jax.inference.options import PipelineOptions
from mimicmotion_jax.inference.preparing import Preparer
from mimicmotion_jax.pose.keypoints import ARRAYS, Keypoints
from mimicmotion_jax.synthetic.dancer import demo_motion, demo_reference
from mimicmotion_jax.video.encode import open_writer

SIZE = {"width": 64, "height": 128}
LENGTHS = (10, 24, 15)  # frames of the three scenes


@pytest.fixture(scope="module")
def person():
    return demo_reference(64, 128)


def prepare(motion, reference, **options) -> Prepared:
    picture, pose = reference
    return Preparer()(Image.fromarray(picture), motion, PipelineOptions(**SIZE, **options), pose, progress=False)


@pytest.fixture(scope="module")
def keypoints() -> Keypoints:
    """A dancer at 10 frames per second who is first at the left, then at the right, then closer."""
    dance = demo_motion(sum(LENGTHS), 10, 1920, 1080)
    scale = np.repeat([0.4, 0.4, 1.0], LENGTHS)
    x = np.repeat([-0.1, 0.6, 0.0], LENGTHS)
    moved = {}
    for name in ("body", "hands", "faces"):
        axes = (-1, *[1] * (getattr(dance, name).ndim - 1))
        moved[name] = getattr(dance, name) * scale.reshape(axes) + np.stack([x, 0 * x], -1).reshape(*axes[:-1], 2)
    return dataclasses.replace(dance, **moved)


class ByBrightness:
    """A detector of the bright figure in `video`: all 133 points around its middle."""

    def detect(self, frame):
        rows, columns = np.nonzero(frame.min(-1) > 190)
        centre, around = np.float32([columns.mean(), rows.mean()]), np.linspace(-20, 20, 133)[:, None]
        return (centre + around * np.float32([0.3, 1])).astype(np.float32)[None], np.ones((1, 133), np.float32)

    def track(self, frames):
        return map(self.detect, frames)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """The same three scenes as a video at 10 frames per second: rooms in which a bright figure sways."""
    path, random = tmp_path_factory.mktemp("video") / "edited.mp4", np.random.default_rng(0)
    with open_writer(path, 10, 160, 120, progress=False) as writer:
        for length in LENGTHS:
            room = cv2.resize(random.integers(0, 180, (6, 8, 3), dtype=np.uint8), (160, 120), interpolation=0)
            middle = int(random.integers(60, 100))
            for frame in range(length):
                picture = room.copy()
                cv2.ellipse(picture, (middle + frame % 5, 60), (12, 30), 0, 0, 360, (250, 245, 240), -1)
                writer.write(picture[None])
    return path


@pytest.fixture(params=["keypoints", "video"])
def motion(request, monkeypatch):
    monkeypatch.setattr(PipelineOptions, "load_detector", lambda self: ByBrightness())
    return request.getfixturevalue(request.param)


def test_cuts_are_in_the_report(motion, person):
    made = prepare(motion, person)
    assert made.keypoints.num_frames == sum(LENGTHS)
    (note,) = [note for note in made.report.notes if "cut" in note]
    assert "is cut at 1.00 s, 3.40 s: its 3 scenes are used as one motion; scenes=first, scenes=longest" in note
    assert note in str(made.report)


@pytest.mark.parametrize(
    ("options", "start", "stop", "number"),
    [
        ({"scenes": "first"}, 0, 10, 0),
        ({"scenes": "longest"}, 10, 34, 1),
        ({"scenes": 0}, 0, 10, 0),
        ({"scenes": 2}, 34, 49, 2),
        ({"scenes": 2, "num_frames": 5}, 34, 39, 2),
        ({"scenes": "first", "num_frames": 14}, 0, 10, 0),
        ({"scenes": "first", "start": 0.4}, 4, 10, 0),
        ({"scenes": 1, "start": 1.4}, 34, 49, 1),
        ({"scenes": "longest", "stride": 2, "num_frames": 7}, 10, 24, 1),
    ],
)
def test_scenes_chooses(motion, person, options, start, stop, number):
    made = prepare(motion, person, **options, align="none")
    stride = options.get("stride", 1)
    assert made.keypoints.num_frames == (stop - start) / stride
    assert made.fps == 10 / stride
    whole = prepare(motion, person, align="none").keypoints
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(made.keypoints, name), getattr(whole, name)[start:stop:stride])
    (note,) = [note for note in made.report.notes if "scene" in note]
    assert f"scene {number}, from {start / 10:.2f} s" in note
    assert "cut at" not in note
    assert made.sound_start == pytest.approx(start / 10)


def test_a_scene_that_is_not_there(motion, person):
    with pytest.raises(InputError, match=r"has 3 scenes from start=0 on, counted from 0; there is no scenes=3\."):
        prepare(motion, person, scenes=3)
    with pytest.raises(InputError, match=r"has 2 scenes from start=1 on"):
        prepare(motion, person, scenes=2, start=1.0)


def test_one_scene_is_all_of_it(keypoints, person):
    """Without cuts every choice is the whole motion, and nothing is said."""
    shot = keypoints[:10]
    for choice in ("all", "first", "longest", 0):
        made = prepare(shot, person, scenes=choice)
        assert made.keypoints.num_frames == 10
        assert not [note for note in made.report.notes if "scene" in note]


def crowd(*people: Keypoints) -> Keypoints:
    columns = {name: np.concatenate([getattr(one, name) for one in people], axis=1) for name in ARRAYS}
    return dataclasses.replace(people[0], **columns)


def aside(keypoints: Keypoints, scale: float, x: float) -> Keypoints:
    moved = {name: getattr(keypoints, name) * scale + np.float32([x, 0]) for name in ("body", "hands", "faces")}
    return dataclasses.replace(keypoints, **moved)


def test_who_of_several_people_was_taken_is_in_the_report(keypoints, person):
    picture, pose = person
    others = crowd(aside(pose, 0.5, 0.5), pose, aside(pose, 0.4, -0.3))
    trio = crowd(aside(keypoints[:10], 0.5, 0.6), keypoints[:10])
    made = prepare(trio, (picture, others))
    notes = "\n".join(made.report.notes)
    assert "shows 3 people, from left to right 2, 1, 0: 1, the largest one, is taken; reference_person takes" in notes
    assert "shows 2 people, from left to right 1, 0: 1, the largest one, is taken; person takes another" in notes
    assert not [
        note for note in prepare(trio, (picture, others), person=0, reference_person=1).report.notes if "people" in note
    ]
    assert not [note for note in prepare(keypoints, person).report.notes if "people" in note]


def test_the_report_is_about_the_person_who_is_followed(keypoints, person):
    """Person 0 leaps at the cuts, the larger person 1 does not."""
    still = demo_motion(sum(LENGTHS), 10, 1920, 1080)
    both = crowd(keypoints, still)
    assert prepare(both, person, person=0).report.pose.jumps == (10, 34)
    assert prepare(both, person, person=1).report.pose.jumps == ()
