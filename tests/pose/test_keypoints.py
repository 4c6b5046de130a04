"""Keypoints: conversion from COCO, mirroring, joining, files in and out, and what happens to bad ones."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from mimicmotion_jax.pose.files import load_keypoints, save_keypoints
from mimicmotion_jax.pose.keypoints import ARRAYS, Body, Keypoints
from mimicmotion_jax.runtime.errors import InputError

SHARED = Path(__file__).parents[3] / "shared"


def random_keypoints(num_frames=3, num_people=2, width=640, height=480, fps=24.0, seed=0) -> Keypoints:
    rng = np.random.default_rng(seed)
    shapes = {"body": (18,), "hands": (2, 21), "faces": (68,)}
    arrays = {}
    for name, points in shapes.items():
        arrays[name] = rng.uniform(-0.1, 1.1, (num_frames, num_people, *points, 2)).astype(np.float32)
        arrays[f"{name}_score"] = rng.uniform(0.1, 1.2, (num_frames, num_people, *points)).astype(np.float32)
    return Keypoints(**arrays, width=width, height=height, fps=fps)


def assert_same(a: Keypoints, b: Keypoints, pixels: float = 0.0, scores: float = 0.0) -> None:
    assert (a.width, a.height, a.fps) == (b.width, b.height, b.fps)
    for name in ARRAYS:
        x, y = getattr(a, name), getattr(b, name)
        assert x.shape == y.shape
        assert x.dtype == y.dtype == np.float32
        tolerance = scores if name.endswith("_score") else pixels / min(a.width, a.height)
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance + (2e-7 if tolerance else 0))


def coco_cases():
    """COCO points with the expected OpenPose body, in pixels: hand-worked, and recorded from the official release."""
    points = np.stack([np.arange(133.0), 1000 + np.arange(133.0)], axis=-1)[None]
    scores = np.linspace(0.31, 0.9, 133)[None]
    scores[0, 0] = -0.5  # a SimCC head's "not found"
    order = [0, None, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3]
    body = np.array([[5.5, 1005.5] if i is None else points[0, i] for i in order])[None]
    body_score = np.array([1.0 if i is None else max(scores[0, i], 0) for i in order])[None]
    rest, rest_score = points[:, 23:], scores[:, 23:]
    yield points, scores, np.concatenate([body, rest], axis=1), np.concatenate([body_score, rest_score], axis=1)
    weak = scores.copy()
    weak[0, 6] = 0.29  # one shoulder in doubt: no neck
    weak_score = np.concatenate([body_score, rest_score], axis=1)
    weak_score[0, [1, 2]] = 0, 0.29
    yield points, weak, np.concatenate([body, rest], axis=1), weak_score
    if not SHARED.exists():
        yield pytest.param(None, id="recorded", marks=pytest.mark.skip("no recorded outputs in ../shared/golden"))
    else:
        golden = np.load(SHARED / "golden/official/pose.npz")
        keep = [*range(18), *range(24, 134)]  # without the feet
        expected = golden["openpose_keypoints"][:, keep], golden["openpose_scores"][:, keep]
        yield golden["coco_keypoints"], golden["coco_scores"], *expected


@pytest.mark.parametrize("case", list(coco_cases()))
def test_from_coco_is_the_official_conversion(case):
    points, scores, expected, expected_scores = case
    k = Keypoints.from_coco(points[None], scores[None], width=1000, height=500, fps=30)
    people = len(points)
    faces_then_hands = [k.faces[0], k.hands[0].reshape(people, 42, 2)]
    got = np.concatenate([k.body[0], *faces_then_hands], axis=1) * (1000, 500)
    got_scores = np.concatenate([k.body_score[0], k.faces_score[0], k.hands_score[0].reshape(people, 42)], axis=1)
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-4)
    np.testing.assert_allclose(got_scores, expected_scores, rtol=0, atol=1e-6)


def test_left_and_right_follow_coco():
    # COCO: 9 is the left wrist and 91 the left hand's; the person's left is our hand 0 and Body.L_WRIST.
    points = np.zeros((1, 1, 133, 2))
    points[0, 0, [9, 91]], points[0, 0, [10, 112]] = (90, 10), (10, 10)
    k = Keypoints.from_coco(points, np.ones((1, 1, 133)), 100, 100, 30)
    np.testing.assert_allclose(k.body[0, 0, Body.L_WRIST], k.hands[0, 0, 0, 0])
    np.testing.assert_allclose(k.body[0, 0, Body.R_WRIST], (0.1, 0.1))
    np.testing.assert_allclose(k.hands[0, 0, 1, 0], (0.1, 0.1))


def test_mirroring_a_symmetric_figure_changes_nothing():
    from mimicmotion_jax.synthetic.dancer import demo_reference

    # The drawn person stands symmetrically, so every point must land on its partner: that checks all permutations.
    _, k = demo_reference(576, 1024)
    assert_same(k, k.mirrored(), pixels=1e-2)


def test_mirroring_twice_is_the_identity_and_once_moves_scores_too():
    k = random_keypoints()
    assert_same(k, k.mirrored().mirrored(), pixels=1e-3)
    once = k.mirrored()
    np.testing.assert_array_equal(once.body_score[..., Body.L_KNEE], k.body_score[..., Body.R_KNEE])
    np.testing.assert_array_equal(once.hands_score[:, :, 0], k.hands_score[:, :, 1])
    np.testing.assert_allclose(once.faces[..., 0, 0], 1 - k.faces[..., 16, 0], atol=1e-6)


def test_slicing_joining_and_choosing_a_person():
    k = random_keypoints(num_frames=5)
    assert len(k) == k.num_frames == 5
    assert k.num_people == 2
    assert_same(Keypoints.concatenate([k[:2], k[2:]]), k)
    np.testing.assert_array_equal(k[1:4].hands, k.hands[1:4])
    assert k[::2].fps == k.fps
    np.testing.assert_array_equal(k.person(1).faces[:, 0], k.faces[:, 1])
    assert k[5:].num_frames == 0
    still = random_keypoints(num_frames=1, fps=1.0)
    assert Keypoints.concatenate([still, k]).fps == 24.0
    with pytest.raises(InputError, match="no person 2"):
        k.person(2)
    with pytest.raises(InputError, match="one picture size"):
        Keypoints.concatenate([k, random_keypoints(width=10)])
    with pytest.raises(InputError):
        Keypoints.concatenate([])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("body", np.zeros((3, 2, 25, 2)), "3 x 2 x 25 x 2|shape"),
        ("body_score", np.zeros((3, 2)), "body_score"),
        ("hands", np.zeros((4, 2, 2, 21, 2)), "hands"),
        ("faces", np.full((3, 2, 68, 2), np.nan), "NaN"),
        ("faces_score", np.full((3, 2, 68), -0.1), "negative"),
        ("hands_score", np.full((3, 2, 2, 21), np.inf), "infinity"),
        ("width", 0, "1 to 65536 pixels"),
        ("height", float("inf"), "1 to 65536 pixels"),
        ("fps", float("nan"), "frames per second"),
        ("fps", 1e12, "frames per second"),
    ],
)
def test_bad_values_are_refused(name, value, message):
    k = random_keypoints()
    fields = {key: getattr(k, key) for key in (*ARRAYS, "width", "height", "fps")} | {name: value}
    with pytest.raises(InputError, match=message):
        Keypoints(**fields)


@pytest.mark.parametrize(("suffix", "pixels", "scores"), [("npz", 0.0, 0.0), ("json", 1e-4, 1e-4)])
def test_round_trip_through_a_file(tmp_path, suffix, pixels, scores):
    k = random_keypoints()
    k.body_score[1, 0, 4] = 0
    k.body[1, 0, 4] = 0
    path = tmp_path / f"motion.{suffix}"
    save_keypoints(k, path)
    assert_same(load_keypoints(path), k, pixels, scores)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_what_the_caller_says_goes_before_the_file(tmp_path):
    save_keypoints(random_keypoints(), tmp_path / "motion.npz")
    k = load_keypoints(tmp_path / "motion.npz", width=100, height=50, fps=12)
    assert (k.width, k.height, k.fps) == (100, 50, 12.0)


def assert_foreign_file_is_read(path):
    k, raw = load_keypoints(path, fps=25), np.load(path)
    assert k.fps == 25
    assert (k.height, k.width) == tuple(raw["image_size"])
    for name in ARRAYS:
        expected = raw[name].astype(np.float32) if name in raw else np.zeros_like(getattr(k, name)[:, 0])
        np.testing.assert_array_equal(getattr(k, name)[:, 0], expected)


@pytest.mark.skipif(not SHARED.is_dir(), reason="no sample media in ../shared/media")
def test_real_foreign_npz():
    paths = sorted((SHARED / "media/poses").glob("*.npz"))
    assert paths
    for path in paths:
        assert_foreign_file_is_read(path)


def test_foreign_npz(tmp_path, caplog):
    """Other tools write one person without a people axis."""
    caplog.set_level(logging.INFO)
    rng = np.random.default_rng(1)
    raw = {"body": rng.random((4, 18, 2)), "body_score": rng.random((4, 18)), "image_size": np.array([30, 40])}
    np.savez(tmp_path / "foreign.npz", **raw)
    assert_foreign_file_is_read(tmp_path / "foreign.npz")
    del raw["image_size"]
    np.savez(tmp_path / "no_size.npz", **raw)
    assert not caplog.text
    k = load_keypoints(tmp_path / "no_size.npz")
    assert (k.width, k.height, k.fps) == (1024, 1024, 30.0)
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'no_size.npz'} does not record the picture's size: 1024x1024 assumed.",
        f"{tmp_path / 'no_size.npz'} does not record its frame rate: 30 assumed; motion_fps sets another.",
    ]


def test_openpose_folder_of_body_25(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    # x = 10 * index and y = index in pixels, so that the mapping can be read off; nobody in the second frame.
    pose = [number for i in range(25) for number in (10 * i, i, 0.9)]
    face = [number for i in range(70) for number in (i, 2 * i, 0.8)]
    people = [{"person_id": [-1], "pose_keypoints_2d": pose, "face_keypoints_2d": face}, {"pose_keypoints_2d": []}]
    for frame, listed in enumerate((people, [], people)):
        (tmp_path / f"clip_{frame:012d}_keypoints.json").write_text(json.dumps({"version": 1.3, "people": listed}))
    with pytest.raises(InputError, match="pass the width and height"):
        load_keypoints(tmp_path)
    k = load_keypoints(tmp_path, width=500, height=100, fps=50)
    assert (k.num_frames, k.num_people, k.fps) == (3, 2, 50.0)
    assert not caplog.text
    assert {load_keypoints(tmp_path, 500, 100).fps for _ in range(2)} == {30}
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path} does not record its frame rate: 30 assumed; motion_fps sets another."
    ]
    assert load_keypoints(tmp_path / "clip_000000000000_keypoints.json", 500, 100).fps == 30
    assert len(caplog.records) == 1  # the rate of a single pose does not matter
    body_25 = [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18]
    np.testing.assert_allclose(k.body[0, 0] * (500, 100), [(10 * i, i) for i in body_25], atol=1e-4)
    np.testing.assert_allclose(k.faces[2, 0, 67] * (500, 100), (67, 134), atol=1e-4)
    np.testing.assert_array_equal(k.body_score[:, :, 5], np.float32([[0.9, 0], [0, 0], [0.9, 0]]))
    assert not k.hands_score.any()


def test_json_names_the_persons_own_left_hand(tmp_path):
    k = random_keypoints(num_frames=1, num_people=1, width=100, height=100)
    save_keypoints(k, tmp_path / "k.json")
    content = json.loads((tmp_path / "k.json").read_text())
    assert {"version", "width", "height", "fps", "frames"} == set(content)
    left = np.reshape(content["frames"][0]["people"][0]["hand_left_keypoints_2d"], (21, 3))
    np.testing.assert_allclose(left[:, :2], k.hands[0, 0, 0] * 100, atol=1e-3)
    assert len(content["frames"][0]["people"][0]["pose_keypoints_2d"]) == 54


def damaged_files(folder: Path) -> None:
    save_keypoints(random_keypoints(), folder / "whole.npz")
    content = (folder / "whole.npz").read_bytes()
    (folder / "cut.npz").write_bytes(content[: len(content) // 2])
    flipped = bytearray(content)
    flipped[200:260] = bytes(60)
    (folder / "flipped.npz").write_bytes(flipped)
    (folder / "empty.npz").write_bytes(b"")
    (folder / "text.npz").write_text("not a zip")
    np.savez(folder / "other.npz", a=np.zeros(3))
    np.savez(folder / "pickle.npz", body=np.array([{}], dtype=object), body_score=np.zeros(1))
    np.savez(folder / "shape.npz", body=np.zeros((3, 17, 2)), body_score=np.zeros((3, 17)))
    np.savez(folder / "letters.npz", body=np.full((3, 18, 2), "a"), body_score=np.zeros((3, 18)))
    np.savez(folder / "scalar.npz", body=np.zeros(()), body_score=np.zeros(()))
    np.savez(
        folder / "halfhands.npz", body=np.zeros((3, 18, 2)), body_score=np.zeros((3, 18)), hands=np.zeros((3, 2, 21, 2))
    )
    np.savez(folder / "size.npz", body=np.zeros((3, 18, 2)), body_score=np.zeros((3, 18)), image_size=np.array(["big"]))
    sized = {"body": np.zeros((3, 18, 2)), "body_score": np.zeros((3, 18))}
    np.savez(folder / "endless.npz", **sized, width=np.inf, height=9)
    np.savez(folder / "sizes.npz", **sized, width=np.array([9, 9]), height=9)
    with open(folder / "array.npz", "wb") as file:
        np.save(file, np.zeros(3))
    (folder / "cut.json").write_text('{"width": 3, "frames": [')
    (folder / "other.json").write_text('{"a": 1}')
    (folder / "list.json").write_text("[1, 2]")
    (folder / "binary.json").write_bytes(bytes(range(256)))
    (folder / "count.json").write_text('{"width":9,"height":9,"frames":[{"people":[{"pose_keypoints_2d":[1,2,3]}]}]}')
    nan = ["NaN"] + [0] * 53
    (folder / "nan.json").write_text(
        json.dumps({"width": 9, "height": 9, "frames": [{"people": [{"pose_keypoints_2d": nan}]}]})
    )
    (folder / "wide.json").write_text('{"width":1' + "0" * 400 + ',"height":9,"frames":[{"people":[]}]}')
    (folder / "fast.json").write_text('{"width":9,"height":9,"fps":1e308,"frames":[{"people":[]}]}')
    (folder / "folder").mkdir()


def test_damaged_files_are_refused_in_one_sentence(tmp_path):
    damaged_files(tmp_path)
    load_keypoints(tmp_path / "whole.npz")
    (tmp_path / "whole.npz").unlink()
    bad = sorted(tmp_path.iterdir())
    assert len(bad) == 23
    for path in [*bad, tmp_path / "missing.npz"]:
        with pytest.raises(InputError) as caught:
            load_keypoints(path)
        assert path.name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_saving_elsewhere_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"\.npz or a \.json"):
        save_keypoints(random_keypoints(), tmp_path / "motion.txt")
