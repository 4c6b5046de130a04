"""Preflight: what it finds in inputs whose every keypoint is known, and its page, which needs nothing but itself."""

import base64
import dataclasses
import re
import sys

import numpy as np
import pytest
from PIL import Image

from mimicmotion_jax import InputError
from mimicmotion_jax.app.preflight import Checker
from mimicmotion_jax.app.preflight_page import preflight_page
from mimicmotion_jax.app.preflight_pictures import people_picture, person_at
from mimicmotion_jax.cli import check
from mimicmotion_jax.inference.options import PipelineOptions
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.pose.files import save_keypoints
from mimicmotion_jax.pose.keypoints import ARRAYS, Keypoints
from mimicmotion_jax.synthetic.world import Scene, render
from mimicmotion_jax.video.decode import open_video
from mimicmotion_jax.video.encode import open_writer

FPS = 15.0
NAME = "<script>alert(1)<&.npz"
OPTIONS = PipelineOptions(width=128, height=192, align="limb")


@pytest.fixture(scope="module")
def world():
    """A person in a picture, and a motion of 45 frames in which every point is seen."""
    look = render(Scene(21, 3, 21, "full", 128, 192, 1, FPS))
    motion = render(Scene(7, 7, 9, "full", 128, 192, 45, FPS)).keypoints
    seen = {name: np.ones_like(getattr(motion, name)) for name in ARRAYS if name.endswith("_score")}
    return look.frames[0], look.keypoints, dataclasses.replace(motion, **seen)


@pytest.fixture(scope="module")
def page(checker, world, tmp_path_factory) -> str:
    """The page of inputs with many faults, each of which has a test; to draw a page takes most of the time here."""
    picture, pose, motion = world
    hands, other = motion.hands_score.copy(), moved(motion, -0.5, 0.6)
    hands[10:18, :, 0] = 0
    arrays = {name: np.concatenate([getattr(motion, name)[:20], getattr(other, name)[20:]]) for name in ARRAYS}
    path = tmp_path_factory.mktemp("motions") / NAME
    save_keypoints(dataclasses.replace(motion, **arrays | {"hands_score": hands})[:30], path)
    return preflight_page(checker(np.tile(picture, (1, 3, 1)), path, OPTIONS, pose, progress=False))


@pytest.fixture(scope="module")
def checker():
    return Checker(ModelConfig.tiny())


def look(checker, world, motion, options=OPTIONS):
    picture, pose, _ = world
    return checker(picture, motion, options, pose, progress=False)


def crowd(*people: Keypoints) -> Keypoints:
    columns = {name: np.concatenate([getattr(person, name) for person in people], axis=1) for name in ARRAYS}
    return dataclasses.replace(people[0], **columns)


def moved(keypoints: Keypoints, x: float, scale: float = 1.0) -> Keypoints:
    groups = {
        name: getattr(keypoints, name) * np.float32(scale) + np.float32([x, 0]) for name in ("body", "hands", "faces")
    }
    return dataclasses.replace(keypoints, **groups)


class Scripted:
    """Detector that sees the people of a motion whose keypoints are known, picture by picture."""

    def __init__(self, keypoints):
        self.keypoints, self.count = keypoints, 0

    def detect(self, frame):
        found = self.keypoints
        height, width = frame.shape[:2]
        index = self.count % found.num_frames
        self.count += 1
        points, scores = np.zeros((1, 133, 2)), np.zeros((1, 133))
        coco = [0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10]  # COCO's 17 points in OpenPose's body
        points[0, :17], scores[0, :17] = found.body[index, 0, coco] * (width, height), 1
        points[0, 91:] = (found.hands[index, 0] * (width, height)).reshape(42, 2)
        scores[0, 91:] = 1
        return points, scores

    def track(self, frames):
        return map(self.detect, frames)


def test_confidence_and_lost_hands_are_those_of_the_motion(checker, world, page):
    """The left hand is out of sight from frame 10 to 24, the right one for two frames, the face is half sure."""
    *_, motion = world
    hands, faces = motion.hands_score.copy(), np.full_like(motion.faces_score, 0.5)
    hands[10:25, :, 0], hands[30:32, :, 1] = 0, 0.1
    preflight = look(checker, world, dataclasses.replace(motion, hands_score=hands, faces_score=faces))
    left, right, face = (preflight.parts[name] for name in ("left hand", "right hand", "face"))
    assert left.lost == ((pytest.approx(10 / FPS), pytest.approx(25 / FPS)),)
    assert left.seen == pytest.approx(30 / 45)
    np.testing.assert_allclose(left.confidence, [*[1] * 10, *[0] * 15, *[1] * 20])
    assert right.lost == ()  # shorter than 0.2 s
    np.testing.assert_allclose(right.confidence[28:34], [1, 1, 0.1, 0.1, 1, 1], rtol=1e-6)
    np.testing.assert_allclose(face.confidence, 0.5)
    assert preflight.parts["legs"].seen == 1
    assert "0.7–1.2 s" in page


def test_people_are_listed_from_left_to_right_with_their_boxes(checker, world):
    *_, motion = world
    motion = motion[:6]
    small = moved(motion, 0.75, 0.2)
    absent = dataclasses.replace(small, body_score=small.body_score * (np.arange(6) >= 4)[:, None, None])
    people = crowd(absent, motion)
    preflight = look(checker, world, people)
    assert [person.number for person in preflight.people] == [1, 0]
    assert [person.seen for person in preflight.people] == [1, pytest.approx(2 / 6)]
    assert (preflight.taken, preflight.people_frame) == (1, 4)
    points = people.body[4]  # [P, 18, 2]
    for person in preflight.people:
        expected = (*points[person.number].min(0), *points[person.number].max(0))
        assert person.box == pytest.approx(expected, abs=1e-6)
        left, top, right, bottom = person.box
        assert person_at(preflight, (left + right) / 2, (top + bottom) / 2) == person.number
    assert person_at(preflight, 0.999, 0.999) is None
    assert people_picture(preflight).shape[0] > people_picture(preflight).shape[1]
    other = checker.judge(preflight.survey, dataclasses.replace(OPTIONS, person=0))
    assert other.taken == 0
    assert "Person 0 is followed" in preflight_page(other)


def test_points_outside_the_picture_are_counted(checker, world):
    """Moved to the right by 0.35 as filmed: the points beyond the edge are known."""
    *_, motion = world
    shifted = moved(motion, 0.35)
    preflight = look(checker, world, shifted, dataclasses.replace(OPTIONS, align="none"))
    outside = (shifted.body[..., 0] > 1) | (shifted.body[..., 1] > 1)
    assert 0.1 < outside.mean() < 0.9
    assert preflight.fits["none"].outside == pytest.approx(outside.mean(), abs=1e-6)
    assert any("leave the picture" in problem for problem in preflight.problems)
    assert preflight.fits["limb"].outside < 0.05


def test_the_crop_keeps_what_arithmetic_says(checker, world, page):
    """384x192 in a portrait of 2 to 3: 128 of 384 columns remain."""
    picture, pose, motion = world
    wide = np.tile(picture, (1, 3, 1))
    preflight = checker(wide, motion, OPTIONS, pose, progress=False)
    assert preflight.kept == pytest.approx(1 / 3)
    assert "384x192 pixels become 128x192; 67% falls away." in page
    assert "only 33% of the picture fits" in page


def test_cuts_of_keypoints_are_their_jumps(checker, world, page):
    *_, motion = world
    other = moved(motion, -0.5, 0.6)
    arrays = {name: np.concatenate([getattr(motion, name)[:20], getattr(other, name)[20:]]) for name in ARRAYS}
    preflight = look(checker, world, dataclasses.replace(motion, **arrays))
    assert preflight.cuts == (pytest.approx(20 / FPS),)
    assert "at 1.33 s" in page


def test_length_work_and_memory(world):
    """Windows of 16 frames of which 6 are shared advance by 10; the memory of the full model at 576x1024."""
    picture, pose, motion = world
    options = PipelineOptions(aspect="portrait", stride=1, num_inference_steps=10)
    preflight = Checker()(picture, motion, options, pose, progress=False)
    assert preflight.num_windows == 1 + -(-(46 - 16) // 9)  # the reference's slot is in each window
    assert preflight.memory == pytest.approx(9.35e9, rel=0.07)  # as compiled for an H100: benchmarks/results/compiled
    low = Checker()(picture, motion, dataclasses.replace(options, memory="low"), pose, progress=False)
    assert low.memory < preflight.memory - 1e9  # the image encoder waits in the host's memory
    page = preflight_page(preflight)
    assert f"{preflight.num_windows * 20} calls" in page
    assert "not known on this device" in page
    small = Checker(ModelConfig.tiny())(picture, motion[:2], OPTIONS, pose, progress=False)
    assert small.memory is None
    assert "about 7.0 s" in preflight_page(small, 7.0)


def video(path, num_frames, fps=FPS, size=(64, 96)):
    frames = np.zeros((100, size[1], size[0], 3), np.uint8) + np.arange(100, dtype=np.uint8)[:, None, None, None]
    with open_writer(path, fps, *size, crf=40, progress=False) as writer:
        for first in range(0, num_frames, 100):
            writer.write(frames[: num_frames - first])
    return path


@pytest.mark.slow
def test_of_a_long_video_a_bounded_part_is_looked_at(world, tmp_path):
    """Three hours at a frame each two seconds: 120 frames are looked at, spread over the first hour."""
    picture, pose, motion = world
    detector = Scripted(motion)
    checker = Checker(ModelConfig.tiny())
    checker._preparer.survey._detectors["auto", None, None] = detector
    preflight = checker(picture, video(tmp_path / "long.mp4", 5400, 0.5, (32, 48)), OPTIONS, pose, progress=False)
    assert detector.count == 120
    assert (preflight.survey.num_frames, len(preflight.survey.wanted)) == (5400, 120)
    assert preflight.survey.wanted == range(0, 1800, 15)
    page = preflight_page(preflight)
    assert "120 of 5400 frames looked at: one of 15, from 0.0 s to 3600.0 s" in page
    assert "3 h 0 min" in page


def test_a_change_of_person_or_alignment_detects_nothing_again(world, tmp_path):
    picture, pose, motion = world
    detector, checker = Scripted(motion), Checker(ModelConfig.tiny())
    checker._preparer.survey._detectors["auto", None, None] = detector
    Image.fromarray(picture).save(tmp_path / "person.png")
    save_keypoints(pose, tmp_path / "pose.npz")
    path = video(tmp_path / "a.mp4", 20)
    first = checker(tmp_path / "person.png", path, OPTIONS, tmp_path / "pose.npz", progress=False)
    assert (detector.count, len(first.survey.frames)) == (20, 20)
    changed = dataclasses.replace(OPTIONS, align="affine", person=0, seed=5)
    again = checker(tmp_path / "person.png", path, changed, tmp_path / "pose.npz", progress=False)
    assert (detector.count, again.taken) == (20, 0)
    checker(
        tmp_path / "person.png", path, dataclasses.replace(OPTIONS, start=1.0), tmp_path / "pose.npz", progress=False
    )
    assert detector.count == 25


def test_a_part_of_the_frames_gives_what_all_of_them_give(world, tmp_path):
    """Looking at each second frame finds the fit of the whole motion."""
    picture, pose, motion = world
    fits = []
    for frames in (sys.maxsize, 20):
        checker = Checker(ModelConfig.tiny(), frames)
        path = video(tmp_path / f"{frames}.mp4", 40)
        checker._preparer.survey._detectors["auto", None, None] = Scripted(motion[:: 2 if frames == 20 else 1])
        fits.append(checker(picture, path, OPTIONS, pose, progress=False).fits["affine"].prepared.keypoints)
    assert (fits[0].num_frames, fits[1].num_frames, fits[1].fps) == (40, 20, FPS / 2)
    np.testing.assert_allclose(fits[1].body, fits[0].body[::2], atol=0.02)


def test_the_page_holds_all_that_it_shows(checker, world, tmp_path):
    """No address but data, and in them videos whose bright strokes lie on the known joints."""
    *_, motion = world
    preflight = look(checker, world, motion[:12])
    page = preflight_page(preflight)
    assert not re.search(r"https?:|//[a-z]", re.sub(r"data:[^\"]*", "", page))
    assert all(value.startswith("data:") for value in re.findall(r'(?:src|href)="([^"]*)"', page))
    videos = re.findall(r'src="data:video/mp4;base64,([^"]*)"', page)
    assert len(videos) == 4  # the motion, and three alignments
    assert len(page) < 2_000_000
    (tmp_path / "limb.mp4").write_bytes(base64.b64decode(videos[3]))
    reader = open_video(tmp_path / "limb.mp4")
    assert (reader.num_frames, reader.fps) == (12, FPS)
    frame = list(reader.frames())[8].astype(float)
    joints = preflight.fits["limb"].prepared.keypoints.body[8, 0] * (reader.width, reader.height)
    colours = [frame[int(y), int(x)] for x, y in joints if 0 <= x < reader.width and 0 <= y < reader.height]
    saturation = [colour.max() - colour.min() for colour in colours]
    assert np.mean(np.array(saturation) > 60) > 0.7
    ground = frame.max(-1) - frame.min(-1)
    assert np.mean(ground > 60) < 0.25


def test_names_of_files_cannot_put_anything_into_the_page(page, tmp_path_factory):
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;&amp;.npz" in page
    assert str(tmp_path_factory.getbasetemp()) not in page


@pytest.fixture
def files(world, tmp_path):
    picture, pose, motion = world
    Image.fromarray(picture).save(tmp_path / "person.png")
    save_keypoints(pose, tmp_path / "person.npz")
    save_keypoints(motion[:6], tmp_path / "dance.npz")
    return tmp_path


def run(files, *more, image="person.png", motion="dance.npz", output="check.html", pose=("--image-pose", "person.npz")):
    pose = [pose[0], str(files / pose[1])] if pose else []
    given = ["--image", files / image, "--motion", files / motion, "--output", files / output]
    return check.main([*map(str, given), *pose, "width=128", "height=192", *more])


def test_the_command_writes_the_page(files, capsys):
    assert run(files, "align=limb", output="new/check.html") == 0
    page = (files / "new" / "check.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "align=limb</b> (chosen)" in page
    assert "wrote" in capsys.readouterr().out
    assert run(files, output="new/check.html") == 0  # our own page is replaced


def test_what_is_wrong_is_one_sentence_and_leaves_no_file(files):
    (files / "text.mp4").write_text("no video")
    (files / "mine.html").write_text("<html>")
    Image.fromarray(np.full((192, 128, 3), 200, np.uint8)).save(files / "empty.png")
    before = sorted(files.iterdir())
    for message, arguments in {
        r"text\.mp4": {"motion": "text.mp4"},
        r"there is no picture": {"image": "nobody.png"},
        r"ends in \.html, not check\.mp4": {"output": "check.mp4"},
        r"mine\.html is not a page that mimicmotion wrote": {"output": "mine.html"},
    }.items():
        with pytest.raises(InputError, match=message):
            run(files, **arguments)
    with pytest.raises(InputError, match="there is no person 3"):
        run(files, "person=3")
    assert sorted(files.iterdir()) == before
    assert (files / "mine.html").read_text() == "<html>"


def test_a_picture_without_a_person_is_told(files):
    Image.fromarray(np.full((192, 128, 3), 200, np.uint8)).save(files / "empty.png")
    with pytest.raises(InputError, match=r"nobody was found in the 128x192 crop of .*empty\.png"):
        run(files, image="empty.png", pose=None)
    assert run(files, "align=none", image="empty.png", pose=None) == 0
    page = (files / "check.html").read_text()
    assert "only align=none is possible" in page
    assert page.count("<video") == 2
