"""Preparing inputs: the person in the reference, the person in the motion, and how one is fitted to the other."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mimicmotion_jax import InputError
from mimicmotion_jax.inference.job import Job, Prepared
from mimicmotion_jax.inference.options import PipelineOptions
from mimicmotion_jax.inference.preparing import Preparer
from mimicmotion_jax.pose.files import load_keypoints, save_keypoints
from mimicmotion_jax.pose.keypoints import ARRAYS, Keypoints
from mimicmotion_jax.synthetic.dancer import demo_motion, demo_reference

WIDTH, HEIGHT = 64, 128


@pytest.fixture
def job(tmp_path) -> Job:
    """A portrait of one person with its keypoints, and a dance of one in a wide picture."""
    picture, pose = demo_reference(WIDTH, HEIGHT)
    Image.fromarray(picture).save(tmp_path / "person.png")
    save_keypoints(pose, tmp_path / "person.npz")
    save_keypoints(demo_motion(5, 10, 1920, 1080), tmp_path / "dance.npz")
    return Job(tmp_path / "person.png", tmp_path / "dance.npz", tmp_path / "out.mp4", tmp_path / "person.npz")


def prepare(job: Job, **options) -> Prepared:
    config = PipelineOptions(width=WIDTH, height=HEIGHT, **options)
    return Preparer()(job.image, job.motion, config, job.image_pose, progress=False)


def poses(job: Job, **options) -> Keypoints:
    """The poses that are drawn: the reference's, then the motion's."""
    prepared = prepare(job, **options)
    return Keypoints.concatenate([prepared.reference, prepared.keypoints])


def hide(path: Path, to: Path, seen: int = 0) -> Path:
    """The same keypoints with only the first `seen` points of the body in view."""
    keypoints = load_keypoints(path)
    dark = {name: np.zeros_like(getattr(keypoints, name)) for name in ARRAYS if name.endswith("_score")}
    dark["body_score"][..., :seen] = 1
    save_keypoints(dataclasses.replace(keypoints, **dark), to)
    return to


def crowd(*people: Keypoints) -> Keypoints:
    """All of them in one picture."""
    columns = {name: np.concatenate([getattr(person, name) for person in people], axis=1) for name in ARRAYS}
    return dataclasses.replace(people[0], **columns)


def proportions(keypoints: Keypoints) -> np.ndarray:
    """Width to height of the body's bounding box in pixels, by frame."""
    width, height = np.ptp(keypoints.body[:, 0] * (keypoints.width, keypoints.height), axis=1).T
    return width / height


@pytest.mark.parametrize("seen", [0, 2])
def test_a_motion_keeps_its_proportions_where_the_reference_shows_nobody(job, tmp_path, seen):
    nobody = dataclasses.replace(job, image_pose=hide(job.image_pose, tmp_path / "nobody.npz", seen))
    made = poses(nobody, align="none")
    assert (made.width, made.height, made.num_frames) == (WIDTH, HEIGHT, 6)
    driver = proportions(load_keypoints(job.motion))
    np.testing.assert_allclose(proportions(made)[1:], driver, rtol=1e-5)
    np.testing.assert_allclose(made.body, poses(job, align="none").body[[1, 1, 2, 3, 4, 5]], atol=1e-6)


def test_nobody_in_the_reference_is_told_with_its_file(job, tmp_path):
    hidden = hide(job.image_pose, tmp_path / "hidden.npz", 2)
    with pytest.raises(InputError, match=r"hidden\.npz.* align=none"):
        prepare(dataclasses.replace(job, image_pose=hidden))


def test_whom_to_follow_is_not_who_moves(job, tmp_path):
    """The second dancer of two is for a portrait of one; the reference has a choice of its own."""
    dancer = load_keypoints(job.motion)
    mirrored = dancer.mirrored()
    save_keypoints(crowd(dancer, mirrored), job.motion)
    made = poses(job, person=1, align="none")
    save_keypoints(mirrored, job.motion)
    np.testing.assert_array_equal(made.body, poses(job, align="none").body)

    portrait = load_keypoints(job.image_pose)
    aside = dataclasses.replace(portrait, body=portrait.body * np.float32(0.5))
    save_keypoints(crowd(portrait, aside), job.image_pose)
    for choice, expected in (("largest", portrait), (1, aside)):
        reference = poses(job, reference_person=choice)[:1]
        np.testing.assert_array_equal(reference.body, expected.body)


@pytest.mark.parametrize(("option", "file"), [("person", "dance.npz"), ("reference_person", "person.npz")])
def test_a_person_who_is_not_there_is_told_with_the_file(job, option, file):
    with pytest.raises(InputError, match=rf"{file}: there is no person 1; these keypoints hold 1"):
        prepare(job, **{option: 1})


def openpose(keypoints: Keypoints, folder: Path, width: int, height: int) -> Path:
    """OpenPose's own files, a frame each: pixels of a picture whose size they do not say."""
    folder.mkdir()
    for frame, (body, scores) in enumerate(zip(keypoints.body[:, 0], keypoints.body_score[:, 0], strict=True)):
        numbers = np.column_stack([body * (width, height), scores]).ravel().tolist()
        person = {"person_id": [-1], "pose_keypoints_2d": numbers}
        (folder / f"a_{frame:012d}_keypoints.json").write_text(json.dumps({"version": 1.3, "people": [person]}))
    return folder


def test_openposes_own_files_need_the_size_of_the_video(job, tmp_path):
    dance = load_keypoints(job.motion, fps=30)  # what is taken where a file does not say
    bare = dataclasses.replace(dance, **{n: 0 * getattr(dance, n) for n in ARRAYS if not n.startswith("body")})
    save_keypoints(bare, job.motion)
    expected = poses(job)
    folder = openpose(dance, tmp_path / "op", 1920, 1080)
    theirs = dataclasses.replace(job, motion=folder)
    for work in (Preparer(), Preparer().check):
        with pytest.raises(InputError, match=r"op does not give the size .*; set motion_size=\[width,height\]\."):
            work(theirs.image, theirs.motion, PipelineOptions(width=WIDTH, height=HEIGHT), theirs.image_pose)
    np.testing.assert_allclose(poses(theirs, motion_size=(1920, 1080)).body, expected.body, atol=1e-5)
    # What the file records is what holds.
    np.testing.assert_array_equal(poses(job, motion_size=(7, 7)).body, expected.body)


@pytest.mark.parametrize("kind", ["openpose", "npz", "npz of no size"])
def test_keypoints_of_the_whole_reference_are_cropped_with_it(job, tmp_path, kind):
    """A white dot at the nose stays at the nose, whatever falls away around it."""
    picture, pose = np.zeros((96, 256, 3), np.uint8), load_keypoints(job.image_pose)
    picture[30:34, 118:122] = 255  # around (120, 32)
    Image.fromarray(picture).save(job.image)
    body = pose.body.copy()
    body[:, :, 0] = (120 / 256, 32 / 96)
    whole = dataclasses.replace(pose, body=body, width=256, height=96)
    file = tmp_path / "whole.npz"
    if kind == "openpose":
        file = openpose(whole, tmp_path / "op", 256, 96)
    elif kind == "npz":
        save_keypoints(whole, file)
    else:
        np.savez(file, body=whole.body, body_score=whole.body_score)
    made = prepare(dataclasses.replace(job, image_pose=file))
    rows, columns = np.nonzero(made.image[..., 0] > 128)
    dot = np.array([columns.mean() + 0.5, rows.mean() + 0.5])
    np.testing.assert_allclose(made.reference.body[0, 0, 0] * (WIDTH, HEIGHT), dot, atol=0.6)


def test_keypoints_of_the_cropped_reference_stay(job):
    Image.fromarray(np.zeros((96, 256, 3), np.uint8)).save(job.image)
    made = poses(job)
    np.testing.assert_array_equal(made.body[0], load_keypoints(job.image_pose).body[0])


@pytest.mark.parametrize("name", ["DANCE.NPZ", "DANCE.JSON", "dance.Npz"])
def test_keypoints_may_have_a_name_in_upper_case(job, tmp_path, name):
    dance = load_keypoints(job.motion)
    save_keypoints(dance, tmp_path / name)
    made = poses(dataclasses.replace(job, motion=tmp_path / name))
    np.testing.assert_allclose(made.body, poses(job).body, atol=1e-5)


def test_a_rate_that_no_video_has_is_told_without_detecting(job):
    for work in (Preparer().check, Preparer()):
        with pytest.raises(
            InputError, match=r"dance\.npz has 10 frames per second, which with stride=2000 gives 0\.005"
        ):
            work(job.image, job.motion, PipelineOptions(stride=2000), job.image_pose)


def test_a_skeleton_as_motion_is_told_what_to_give_instead(job, tmp_path):
    nobody = dataclasses.replace(job, motion=hide(job.motion, tmp_path / "drawn.npz"))
    with pytest.raises(InputError, match=r"drawn\.npz: nobody .* drawn skeleton give the video .* or its keypoints\."):
        prepare(nobody)
