"""The synthetic world: pictures against masks and backgrounds, keypoints against pixels and bones."""

import dataclasses
from functools import cache

import cv2
import numpy as np
import pytest

from mimicmotion_jax.pose.keypoints import ARRAYS, Body
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.synthetic.appearance import make_character
from mimicmotion_jax.synthetic.motion import KINDS, kind_of, make_tracks
from mimicmotion_jax.synthetic.parts import View
from mimicmotion_jax.synthetic.skeleton import Joints, Proportions, pose
from mimicmotion_jax.synthetic.world import Rendered, Scene, make_scenes, render

WIDTH, HEIGHT, FRAMES = 128, 192, 4
SIZE = np.array([WIDTH, HEIGHT])


@cache
def rendered(split: str = "train") -> list[tuple[Scene, Rendered]]:
    """Scenes whose four frames are spread over the time of eight at 15 frames per second."""
    return [(scene, render(scene)) for scene in make_scenes(16, 3, split, WIDTH, HEIGHT, FRAMES, fps=7.5)]


def motion_of(kind: str) -> int:
    return next(number for number in range(1000) if kind_of(number) == kind)


def one_scene(**changes) -> Scene:
    scene = Scene(
        character=4, motion=6, background=8, framing="half", width=WIDTH, height=HEIGHT, num_frames=FRAMES, fps=15
    )
    return dataclasses.replace(scene, **changes)


def points_and_scores(video: Rendered) -> tuple[np.ndarray, np.ndarray]:
    """Return all points in pixels [F, 128, 2] and their scores."""
    keypoints, frames = video.keypoints, len(video.frames)
    groups = ("body", "hands", "faces")
    points = np.concatenate([getattr(keypoints, name).reshape(frames, -1, 2) for name in groups], axis=1)
    scores = np.concatenate([getattr(keypoints, f"{name}_score").reshape(frames, -1) for name in groups], axis=1)
    return points * video.frames.shape[2:0:-1], scores


def look_up(pictures: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the pixels [F, N, ...] of pictures [F, H, W, ...] at points [F, N, 2] that are inside."""
    x, y = np.floor(points).astype(int).transpose(2, 0, 1)
    frame = np.arange(len(pictures))[:, None]
    return pictures[frame, np.clip(y, 0, pictures.shape[1] - 1), np.clip(x, 0, pictures.shape[2] - 1)]


def is_skin(pixels: np.ndarray, skin: tuple[int, int, int]) -> np.ndarray:
    """Return True for pixels with the hue of skin at a light of 45 to 104 per cent."""
    light = pixels / np.array(skin)
    return (np.ptp(light, axis=-1) < 0.12) & (light > 0.45).all(-1) & (light < 1.04).all(-1)


def test_a_scene_is_determined_by_its_values():
    first, second = render(one_scene()), render(one_scene())
    for name in ("frames", "foreground", "background"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(first.keypoints, name), getattr(second.keypoints, name))
    for part in ("character", "motion", "background"):
        assert (render(one_scene(**{part: 100})).frames != first.frames).any()


def test_more_frames_go_on_from_the_same_start():
    short, long = render(one_scene(num_frames=3)), render(one_scene(num_frames=6))
    np.testing.assert_array_equal(long.frames[:3], short.frames)
    halved = render(one_scene(num_frames=3, fps=7.5))
    np.testing.assert_array_equal(halved.frames, long.frames[::2][:3])


def test_training_and_test_have_nothing_in_common():
    drawn = {
        split: [scene for seed in range(5) for scene in make_scenes(200, seed, split, WIDTH, HEIGHT, FRAMES)]
        for split in ("train", "test")
    }
    for part in ("character", "motion", "background"):
        train, test = ({getattr(scene, part) for scene in drawn[split]} for split in ("train", "test"))
        assert len(train) == len(test) == 1000
        assert not train & test
    framings = [scene.framing for scenes in drawn.values() for scene in scenes]
    assert 0.45 < framings.count("half") / len(framings) < 0.55  # 4.5 standard deviations
    assert make_scenes(3, 1, "test", 64, 64, 2) == make_scenes(3, 1, "test", 64, 64, 2)
    assert {kind_of(scene.motion) for scene in drawn["test"]} == set(KINDS)


@pytest.mark.parametrize("split", ["train", "test"])
def test_beyond_the_figure_there_is_nothing_but_background(split):
    for _, video in rendered(split):
        away = ~np.stack([cv2.dilate(mask.astype(np.uint8), np.ones((5, 5))) for mask in video.foreground]).astype(bool)
        background = np.broadcast_to(video.background, video.frames.shape)
        np.testing.assert_array_equal(video.frames[away], background[away])
        inside = np.stack([cv2.erode(mask.astype(np.uint8), np.ones((3, 3))) for mask in video.foreground]).astype(bool)
        differs = abs(video.frames[inside].astype(int) - background[inside]).max(-1) > 12
        assert differs.mean() > 0.85
        assert 0.04 < video.foreground.mean() < 0.6


def test_visible_points_lie_on_the_figure_and_hidden_ones_occur():
    on_figure, hidden = [], []
    for _, video in rendered():
        points, scores = points_and_scores(video)
        near = np.stack([cv2.dilate(mask.astype(np.uint8), np.ones((3, 3))) for mask in video.foreground])
        on_figure.append(look_up(near, points)[scores == 1])
        assert set(np.unique(scores)) <= {0, 1}
        inside = ((points >= 0) & (points < SIZE)).all(-1)
        assert not scores[~inside].any()
        hidden.append((scores[:, 18:60] == 0)[inside[:, 18:60]])
    assert np.concatenate(on_figure).mean() > 0.995
    assert 0.08 < np.concatenate(hidden).mean() < 0.6


def test_a_hand_is_skin_where_it_is_seen_and_covered_where_it_is_not():
    """At 256 x 384 pixels, with long sleeves in a colour unlike skin."""
    scores_of_skin, covered = [], []
    for character in range(60):
        look = make_character(character)
        if look.sleeves < 2 or is_skin(np.array(look.top.colour), look.skin):
            continue
        for kind in ("behind", "wave"):
            scene = one_scene(character=character, motion=motion_of(kind), width=256, height=384, num_frames=4)
            video = render(scene)
            points, scores = points_and_scores(video)
            skin = is_skin(look_up(video.frames, points), look.skin)[:, 18:60]
            inside = ((points > 2) & (points < [253, 381])).all(-1)[:, 18:60]
            scores_of_skin.append(skin[scores[:, 18:60] == 1])
            if kind == "behind":
                wholly = (scores[:, 18:60].reshape(-1, 2, 21).sum(-1) == 0).repeat(21, axis=1)
                covered.append(skin[wholly & inside])
        if len(scores_of_skin) >= 12:
            break
    assert len(np.concatenate(scores_of_skin)) > 500
    assert np.concatenate(scores_of_skin).mean() > 0.93
    assert len(np.concatenate(covered)) > 100
    assert np.concatenate(covered).mean() < 0.1


def test_eyes_are_dark_in_the_middle_of_their_points():
    for character in range(6):
        video = render(one_scene(character=character, width=256, height=384, num_frames=6))
        face, score = video.keypoints.faces[:, 0], video.keypoints.faces_score[:, 0]
        for start in (36, 42):
            corners = face[:, start : start + 6] * [256, 384]
            is_open = np.ptp(corners[..., 1], axis=1) > 0.6 * np.ptp(corners[..., 0], axis=1)
            seen = is_open & score[:, start : start + 6].all(1)
            pupils = look_up(video.frames, corners.mean(1, keepdims=True))[:, 0]
            assert (pupils[seen].max(-1) < 110).all()


def test_left_is_left():
    """A person who faces the viewer has the left on the picture's right; the face's points start at its left."""
    for _, video in rendered():
        body, faces, hands = video.keypoints.body[:, 0], video.keypoints.faces[:, 0], video.keypoints.hands[:, 0]
        assert (body[:, Body.L_SHOULDER, 0] > body[:, Body.R_SHOULDER, 0]).mean() > 0.9
        assert (faces[:, 16, 0] > faces[:, 0, 0]).all()
        assert (faces[:, 45, 0] > faces[:, 36, 0]).all()
        assert (faces[:, 8, 1] > faces[:, 27, 1]).all()
        np.testing.assert_allclose(faces[:, 30], body[:, Body.NOSE], atol=1e-6)
        np.testing.assert_allclose(hands[:, :, 0], body[:, [Body.L_WRIST, Body.R_WRIST]], atol=1e-6)
        middle = body[:, [Body.L_SHOULDER, Body.R_SHOULDER]].mean(1)
        np.testing.assert_allclose(body[:, Body.NECK], middle, atol=1e-6)  # DWPose's neck


def test_people_move_and_no_point_jumps():
    """At 15 frames per second no point moves by a seventh of the person's height per frame."""
    for number in range(60):
        body = make_character(number).body
        points = every_joint(pose(body, make_tracks(number, 60, 15.0), (1.0, 2.0)))
        speed = np.linalg.norm(np.diff(points, axis=0), axis=-1)
        assert 0.01 < speed.max() < 1 / 7


def every_joint(joints: Joints) -> np.ndarray:
    arrays = [joints.neck, joints.head, joints.shoulders, joints.elbows, joints.wrists, joints.hands]
    arrays += [joints.hips, joints.knees, joints.ankles]
    return np.concatenate([array.reshape(len(array), -1, 3) for array in arrays], axis=1)


def test_bones_keep_their_length_and_never_look_longer():
    body = Proportions(upper_arm=0.15, forearm=0.13, thigh=0.24, calf=0.23)
    view = View(scale=100.0, x=0.0, y=0.0)
    for number in range(20):
        joints = pose(body, make_tracks(number, 20, 15.0), (0.4, 1.1))
        for near, far, length in (
            (joints.shoulders, joints.elbows, 0.15),
            (joints.elbows, joints.wrists, 0.13),
            (joints.hips, joints.knees, 0.24),
            (joints.knees, joints.ankles, 0.23),
            (joints.shoulders[:, 0], joints.shoulders[:, 1], 2 * body.shoulder),
        ):
            np.testing.assert_allclose(np.linalg.norm(far - near, axis=-1), length, atol=1e-9)
            seen = np.linalg.norm(view.project(far) - view.project(near), axis=-1)
            assert (seen <= 100 * length + 1e-6).all()
        bones = np.linalg.norm(np.diff(joints.hands[:, :, 1:].reshape(20, 2, 5, 4, 3), axis=3), axis=-1)
        np.testing.assert_allclose(bones, np.broadcast_to(bones[:1, :1], bones.shape), atol=1e-9)


@pytest.mark.parametrize(("width", "height"), [(96, 128), (128, 128), (192, 128), (144, 256)])
def test_framing_fits_every_shape(width, height):
    """`full` shows the whole body at 50 to 95 per cent of the height; `half` cuts the legs and enlarges the rest."""
    for number in range(4):
        look = {"character": number, "motion": 2 * number, "width": width, "height": height, "num_frames": 2}
        scene = one_scene(**look, framing="full")
        full, half = render(scene), render(dataclasses.replace(scene, framing="half"))
        points = full.keypoints.body[:, 0]
        assert ((points > 0) & (points < 1)).all(-1).mean() > 0.97
        rows = full.foreground.any(axis=2)
        head = (points[:, Body.NOSE, 1] * height).astype(int)
        ankles = points[:, [Body.L_ANKLE, Body.R_ANKLE], 1].max(1) * height
        top = np.array([np.flatnonzero(row[: at + 1])[0] for row, at in zip(rows, head, strict=True)])
        assert 0.5 < np.mean(ankles - top) / height < 0.95
        assert (half.keypoints.body[:, 0, [Body.L_ANKLE, Body.R_ANKLE], 1] > 1).all()
        assert (half.keypoints.body[:, 0, Body.NOSE] > 0).all()
        assert (half.keypoints.body[:, 0, [Body.L_HIP, Body.R_HIP], 1] < 1).all()
        shoulders = [np.ptp(video.keypoints.body[0, 0, [2, 5], 0]) for video in (full, half)]
        assert shoulders[1] > 1.15 * shoulders[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"width": 31},
        {"height": 0},
        {"num_frames": 0},
        {"fps": 0.0},
        {"fps": float("nan")},
        {"motion": -1},
        {"framing": "x"},
        {"movement": "x"},
    ],
)
def test_bad_scenes_say_what_is_wrong(changes):
    with pytest.raises(InputError, match=r"^a scene.*\.$"):
        one_scene(**changes)


def test_bad_draws_say_what_is_wrong():
    with pytest.raises(InputError, match="count and a seed"):
        make_scenes(-1, 0, "train", WIDTH, HEIGHT, FRAMES)
    with pytest.raises(InputError, match="32 pixels"):
        make_scenes(1, 0, "train", 16, HEIGHT, FRAMES)


def test_a_scene_is_the_same_in_a_larger_set():
    size = {"seed": 3, "split": "train", "width": 64, "height": 96, "num_frames": 2}
    assert make_scenes(40, **size)[:10] == make_scenes(10, **size)
