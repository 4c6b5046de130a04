"""Detection over videos: what comes in is checked, people keep their column, frames are not kept."""

import builtins
import weakref

import numpy as np
import pytest

from mimicmotion_jax.pose.detect import detect_image, detect_video, load_detector
from mimicmotion_jax.pose.tracking import assign_columns
from mimicmotion_jax.runtime.errors import InputError


def person(x, y, size=40.0, score=1.0):
    """133 points on the diagonal of a square with its corner at (x, y), in pixels."""
    offsets = np.linspace(0, size, 133, dtype=np.float32)[:, None]
    return np.float32([x, y]) + offsets, np.full(133, score, np.float32)


def people(*persons):
    if not persons:
        return np.zeros((0, 133, 2), np.float32), np.zeros((0, 133), np.float32)
    points, scores = zip(*persons, strict=True)
    return np.stack(points), np.stack(scores)


class Scripted:
    """A detector whose answer for each frame is written down: the frame's first pixel is an index into it."""

    def __init__(self, script):
        self.script = script

    def detect(self, frame):
        return self.script[frame[0, 0, 0]]

    def track(self, frames):
        return map(self.detect, frames)


def frames(count, height=60, width=100):
    for index in range(count):
        yield np.full((height, width, 3), index, np.uint8)


def test_columns_follow_people_who_cross_in_the_list():
    """The detector lists A and B in either order; both move."""
    a = [person(10 + 5 * step, 10) for step in range(4)]
    b = [person(300 - 5 * step, 10) for step in range(4)]
    listed = [people(a[0], b[0]), people(b[1], a[1]), people(a[2], b[2]), people(b[3], a[3])]
    assert assign_columns(listed) == [[0, 1], [1, 0], [0, 1], [1, 0]]


def test_the_larger_overlap_wins():
    """Both overlap the first person's place: [0, 40]^2 with [4, 44]^2 (IoU 0.68) and with [20, 60]^2 (IoU 0.14)."""
    assert assign_columns([people(person(0, 0)), people(person(20, 20), person(4, 4))]) == [[0], [1, 0]]


def test_who_returns_without_overlap_takes_the_nearest_column_and_size_counts():
    first = people(person(0, 0), person(500, 0))
    assert assign_columns([first, people(), people(person(400, 0))]) == [[0, 1], [], [1]]
    # A child beside an adult, then one of them somewhat nearer to where the adult was: the size decides.
    sizes = people(person(0, 0, size=100), person(200, 37.5, size=25))
    assert assign_columns([sizes, people(person(106, 31, size=30))]) == [[0, 1], [1]]


def test_a_cut_keeps_a_lone_dancer_in_one_column():
    cut = [people(person(0, 0)), people(person(900, 500, size=10)), people(person(400, 0, size=200))]
    assert assign_columns(cut) == [[0], [0], [0]]


def test_unsure_points_do_not_count_for_the_place():
    points, scores = person(0, 0)
    points[100:], scores[100:] = 5000, 0.1
    assert assign_columns([people((points, scores), person(2000, 2000)), people(person(2, 2))]) == [[0, 1], [0]]


def test_video_of_a_varying_number_of_people():
    script = [
        people(),
        people(person(10, 10)),
        people(person(60, 20, score=0.5), person(11, 10)),
        people(person(62, 20)),
    ]
    keypoints = detect_video(frames(4), Scripted(script), fps=12.5, num_frames=4, progress=False)
    assert (keypoints.num_frames, keypoints.num_people, keypoints.width, keypoints.height) == (4, 2, 100, 60)
    assert keypoints.fps == 12.5
    np.testing.assert_array_equal(keypoints.body_score[:, :, 0], [[0, 0], [1, 0], [1, 0.5], [0, 1]])
    np.testing.assert_allclose(keypoints.body[1:3, 0, 0], [[0.1, 10 / 60], [0.11, 10 / 60]], rtol=1e-6)
    np.testing.assert_allclose(keypoints.body[2:, 1, 0], [[0.6, 20 / 60], [0.62, 20 / 60]], rtol=1e-6)
    # COCO's 91 is the left hand's wrist: 91 / 132 along the diagonal of 40 pixels.
    np.testing.assert_allclose(keypoints.hands[1, 0, 0, 0], (10 + 40 * 91 / 132) / np.array([100, 60]), rtol=1e-6)


def test_image_and_nobody():
    keypoints = detect_image(next(frames(1)), Scripted([people(person(5, 6), person(50, 6))]))
    assert (keypoints.num_frames, keypoints.num_people, keypoints.fps) == (1, 2, 1)
    nobody = detect_video(frames(3), Scripted([people()] * 3), fps=25, progress=False)
    assert (nobody.num_frames, nobody.num_people) == (3, 0)


def test_frames_are_not_kept():
    """When a frame is asked for, of all before it at most the last and the first (which gave the size) are left."""
    given: list[weakref.ref] = []
    left = []

    def watched():
        for frame in frames(20):
            left.append(sum(reference() is not None for reference in given))
            given.append(weakref.ref(frame))
            yield frame

    detect_video(watched(), Scripted([people()] * 20), fps=25, progress=False)
    assert len(left) == 20
    assert max(left) <= 2


def test_progress_bar(capsys):
    detect_video(frames(3), Scripted([people()] * 3), fps=25, num_frames=3)
    assert "poses: 100%" in capsys.readouterr().err
    detect_video(frames(3), Scripted([people()] * 3), fps=25, progress=False)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "the video has no frames"),
        (
            [np.zeros((60, 100, 3), np.uint8), np.zeros((60, 90, 3), np.uint8)],
            "frame 1 is 90x60 and the first was 100x60",
        ),
        ([np.zeros((60, 100, 3), np.float32)], "frame 0 is not an RGB picture of type uint8"),
        ([np.zeros((60, 100), np.uint8)], "frame 0 is not an RGB picture of type uint8"),
        ([np.zeros((60, 100, 4), np.uint8)], "frame 0 is not an RGB picture of type uint8"),
    ],
)
def test_bad_frames(given, message):
    with pytest.raises(InputError, match=message):
        detect_video(given, Scripted([people()]), fps=25, progress=False)


@pytest.mark.parametrize("fps", [0, -24.0, float("nan"), float("inf")])
def test_bad_frame_rate_is_told_before_any_work(fps):
    with pytest.raises(InputError, match="the frame rate must be above 0"):
        detect_video((pytest.fail("a frame was read") for _ in range(1)), Scripted([]), fps=fps)


def test_missing_packages_name_their_extra(monkeypatch, tmp_path):
    real_import = builtins.__import__

    def without(name, *args, **kwargs):
        if name.partition(".")[0] in ("mediapipe", "rtmlib"):
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r'pip install "mimicmotion_jax\[mediapipe\]"'):
        load_detector("mediapipe")
    with pytest.raises(InputError, match=r'DWPose needs rtmlib; run pip install "mimicmotion_jax\[dwpose\]"'):
        load_detector("dwpose", person_model=tmp_path / "a", pose_model=tmp_path / "b")
    monkeypatch.setattr("mimicmotion_jax.pose.detect.find_spec", lambda name: None)
    with pytest.raises(
        InputError, match=r"no pose detector is installed: .* get yolox_l.onnx and dw-ll_ucoco_384.onnx"
    ):
        load_detector("auto")
