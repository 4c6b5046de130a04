"""Dancers who cross, hide one another and are listed in any order keep their columns; it is known who is who."""

import json

import numpy as np
import pytest

from mimicmotion_jax.pose.files import load_keypoints
from mimicmotion_jax.pose.keypoints import ARRAYS, Keypoints
from mimicmotion_jax.pose.tracking import assign_columns, follow_people

# Of the body's 17 points: joints in body heights, from the middle of the hips; the same for both dancers.
_REST = np.float32([
    (0, -0.5), (0.02, -0.52), (-0.02, -0.52), (0.05, -0.5), (-0.05, -0.5),  # head
    (0.1, -0.35), (-0.1, -0.35), (0.15, -0.2), (-0.15, -0.2), (0.17, -0.05), (-0.17, -0.05),  # arms
    (0.06, 0), (-0.06, 0), (0.07, 0.22), (-0.07, 0.22), (0.08, 0.44), (-0.08, 0.44),  # legs
])  # fmt: skip


def dancer(x, seed, height=400.0, frames=60, noise=0.005):
    """Points [F, 133, 2] of somebody whose hips are at `x` [F]: swinging limbs, a bounce, and the detector's noise."""
    random = np.random.default_rng(seed)
    t = np.arange(frames)[:, None, None]
    swing = 0.12 * np.sin(2 * np.pi * t * random.uniform(0.5, 2, 17)[:, None] / 30 + random.uniform(0, 6.3, (17, 2)))
    swing[:, :7] *= 0.15
    points = np.empty((frames, 133, 2))
    points[:, :17] = _REST + swing * (1, 0.5)
    points[:, 17:23] = points[:, [15, 15, 15, 16, 16, 16]] + (0, 0.03)
    points[:, 23:91] = points[:, :1] + random.uniform(-0.04, 0.04, (68, 2))
    points[:, 91:112] = points[:, 9:10] + random.uniform(-0.04, 0.04, (21, 2))
    points[:, 112:] = points[:, 10:11] + random.uniform(-0.04, 0.04, (21, 2))
    points += noise * random.normal(size=points.shape)
    bounce = 0.03 * np.sin(t[..., 0] * 0.7 + random.uniform(0, 6.3))
    place = np.stack([np.broadcast_to(x, frames), np.full(frames, 500.0)], -1)[:, None]
    return (points * height + place + height * np.stack([0 * bounce, bounce], -1)).astype(np.float32)


def listed(dancers, present, seed=0):
    """Frames as a detector lists them, in any order, and the dancer behind each entry."""
    random = np.random.default_rng(seed)
    people, truth = [], []
    for frame in range(len(present)):
        order = random.permutation(np.flatnonzero(present[frame]))
        points = np.stack([dancers[d][frame] for d in order]) if len(order) else np.zeros((0, 133, 2), np.float32)
        people.append((points, np.ones(points.shape[:2], np.float32)))
        truth.append(order.tolist())
    return people, truth


def swaps(columns, truth):
    """Number of sightings in another column than the one in which the dancer was first seen."""
    home: dict[int, int] = {}
    pairs = [pair for frame in zip(truth, columns, strict=True) for pair in zip(*frame, strict=True)]
    return sum(home.setdefault(who, column) != column for who, column in pairs)


def crossing(speed, frames=60):
    """Two dancers who walk towards each other and meet half-way."""
    way = speed * (np.arange(frames) - frames / 2)
    return [500 + way, 510 - way]


@pytest.mark.parametrize("speed", [2, 6, 15, 30])  # pixels per frame; a dancer is about 140 wide
@pytest.mark.parametrize("hidden", [0, 1, 4, 12])  # frames
@pytest.mark.parametrize("who", [0, 1])
def test_dancers_who_cross_keep_their_columns(speed, hidden, who):
    for seed in range(3):
        dancers = [dancer(x, 10 * seed + number) for number, x in enumerate(crossing(speed))]
        present = np.ones((60, 2), bool)
        present[30 - hidden // 2 : 30 - hidden // 2 + hidden, who] = False
        people, truth = listed(dancers, present, seed)
        assert swaps(assign_columns(people), truth) == 0


@pytest.mark.parametrize("hidden", [0, 3, 6])
def test_three_dancers_who_change_places(hidden):
    """Two circle around a third, so that everybody passes before everybody; sizes differ as with depth."""
    turn = np.arange(90) * 2 * np.pi / 60
    dancers = [dancer(600 + 250 * np.sin(turn + phase), seed, frames=90) for seed, phase in ((1, 0), (2, np.pi))]
    dancers.append(dancer(620, 3, height=350, frames=90))
    present = np.ones((90, 3), bool)
    for start, who in ((12, 2), (28, 0), (58, 1)):
        present[start : start + hidden, who] = False
    people, truth = listed(dancers, present)
    assert swaps(assign_columns(people), truth) == 0


def test_both_are_lost_where_they_cross():
    """For four frames the detector sees nobody: they are expected to have walked on."""
    dancers = [dancer(x, number) for number, x in enumerate(crossing(20))]
    present = np.ones((60, 2), bool)
    present[28:32] = False
    people, truth = listed(dancers, present)
    assert swaps(assign_columns(people), truth) == 0


def test_dancers_who_turn_back_are_not_swapped():
    """They meet and part again, each to the side that they came from."""
    way = 8 * np.abs(np.arange(60) - 30)
    dancers = [dancer(470 - way, 1), dancer(530 + way, 2)]
    people, truth = listed(dancers, np.ones((60, 2), bool))
    assert swaps(assign_columns(people), truth) == 0


def test_half_a_body_is_the_same_person():
    """Behind the other one, only head and arms are seen for a while."""
    dancers = [dancer(x, number) for number, x in enumerate(crossing(6))]
    people, truth = listed(dancers, np.ones((60, 2), bool))
    for frame in range(22, 38):
        people[frame][1][truth[frame].index(1), 11:23] = 0
    assert swaps(assign_columns(people), truth) == 0


def test_a_cut_does_not_confuse_two_dancers_afterwards():
    """Both leap, the camera changes: that is no velocity; whoever has which column then keeps it."""
    dancers = [dancer(np.where(np.arange(60) < 30, a, b), s) for s, (a, b) in enumerate([(200, 900), (500, 1300)])]
    people, truth = listed(dancers, np.ones((60, 2), bool))
    columns = assign_columns(people)
    for half in (slice(30), slice(30, None)):
        assert swaps(columns[half], truth[half]) == 0


@pytest.mark.parametrize("named", [(), ("hands", "faces")])
def test_people_whom_a_file_lists_in_any_order(named):
    """The two who cross, listed in random order, one missing for a while; also bodies alone."""
    coco = np.stack([dancer(x, number) for number, x in enumerate(crossing(8))], axis=1)
    scores = np.ones(coco.shape[:3], np.float32)
    scores[28:31, 1] = 0
    expected = Keypoints.from_coco(coco, scores, width=1000, height=1000, fps=25)
    dark = {name: 0 * getattr(expected, name) for part in named for name in (part, f"{part}_score")}
    expected = Keypoints(**{**vars(expected), **dark})
    flip = np.random.default_rng(0).permutation(60) % 2 == 1
    flip[0] = False
    shuffled = {}
    for name in ARRAYS:
        array = getattr(expected, name).copy()
        array[28:31, 1] = 0
        array[flip] = array[flip][:, ::-1]
        shuffled[name] = array
    followed = follow_people(Keypoints(**{**vars(expected), **shuffled}))
    for name in ARRAYS:
        kept = np.ones(60, bool)
        kept[28:31] = False
        np.testing.assert_array_equal(getattr(followed, name)[kept], getattr(expected, name)[kept])
        np.testing.assert_array_equal(getattr(followed, name)[~kept, 0], getattr(expected, name)[~kept, 0])
    assert not followed.body_score[28:31, 1].any()


def test_openposes_folder_of_two_who_cross(tmp_path):
    """OpenPose numbers nobody: in every second file the two are listed the other way round."""
    dancers = [dancer(x, number, frames=40)[:, :17] for number, x in enumerate(crossing(8, frames=40))]
    for frame in range(40):
        people = []
        for points in dancers if frame % 2 == 0 else dancers[::-1]:
            body = np.zeros((18, 3))
            body[[0, 14, 15, 16, 17, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10], :2] = points[frame]
            body[:, 2] = (body[:, :2] != 0).any(-1)
            people.append({"person_id": [-1], "pose_keypoints_2d": body.ravel().tolist()})
        (tmp_path / f"v_{frame:03d}_keypoints.json").write_text(json.dumps({"version": 1.3, "people": people}))
    followed = load_keypoints(tmp_path, width=1000, height=1000, fps=25, follow=True)
    for column, points in enumerate(dancers):
        np.testing.assert_allclose(followed.body[:, column, 0] * 1000, points[:, 0], atol=0.01)
