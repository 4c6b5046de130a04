"""Training samples: random choices, the common crop of pictures and keypoints, and configurations that are refused."""

import collections

import numpy as np
import pytest
from counted import counted_keypoints

from mimicmotion_jax.config import load_config
from mimicmotion_jax.data.clips import DataConfig, plan_clip
from mimicmotion_jax.pose.crop import crop_keypoints
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.image import Crop, crop_resize


def plans(count: int, length: int, **options):
    return [plan_clip(DataConfig(**options), length, seed=1, sample=sample) for sample in range(count)]


def test_intervals_starts_and_references_are_uniform_and_independent():
    drawn = plans(4000, 12, num_frames=3, interval=(2, 4))
    intervals = collections.Counter(plan.frames[1] - plan.frames[0] for plan in drawn)
    assert set(intervals) == {2, 3, 4}
    assert all(abs(count - 4000 / 3) < 150 for count in intervals.values())  # 5 standard deviations
    assert all(plan.frames[2] - plan.frames[1] == plan.frames[1] - plan.frames[0] for plan in drawn)
    starts = collections.Counter(plan.frames[0] for plan in drawn if plan.frames[1] - plan.frames[0] == 2)
    assert set(starts) == set(range(8))
    references = np.array([plan.reference for plan in drawn])
    assert set(references) == set(range(12))
    correlation = np.corrcoef(references, [plan.frames[0] for plan in drawn])[0, 1]
    assert abs(correlation) < 0.08


def test_intervals_are_limited_by_the_video():
    assert {plan.frames for plan in plans(50, 5, num_frames=3, interval=(1, 9))} == {
        (0, 1, 2), (1, 2, 3), (2, 3, 4), (0, 2, 4)
    }  # fmt: skip
    assert {len(plan.frames) for plan in plans(5, 1, num_frames=1)} == {1}


def test_reference_slot():
    for plan in plans(50, 30, num_frames=5, interval=(2, 2), reference_slot=True):
        assert len(plan.frames) == 5
        assert plan.frames[0] == plan.reference
        assert np.diff(plan.frames[1:]).tolist() == [2, 2, 2]
    assert DataConfig(num_frames=5, interval=(2, 4), reference_slot=True).min_video_frames == 7
    assert DataConfig(num_frames=5, interval=(2, 4)).min_video_frames == 9


def test_half_is_flipped():
    assert 400 < sum(plan.flip for plan in plans(1000, 30, num_frames=2, flip=True)) < 600
    assert not any(plan.flip for plan in plans(100, 30, num_frames=2))


@pytest.mark.parametrize("target", [(64, 128), (128, 64), (96, 96), (200, 320)])
@pytest.mark.parametrize("source", [(96, 160), (161, 97)])
def test_the_crop_equals_that_of_sampling_and_keypoints_follow(source, target):
    pixels = np.random.default_rng(0).integers(0, 256, (2, *source, 3), np.uint8)
    crop = Crop.plan(source, target)
    np.testing.assert_array_equal(crop.pixels(pixels), crop_resize(pixels, *target))
    # The left edge of the visible part, and the middle of the picture, in pixels of the source.
    scale = max(target[0] / source[0], target[1] / source[1])
    keypoints = counted_keypoints(1)
    keypoints.body[0, 0, :2] = [[0.5, 0.5], [0.5 - target[1] / scale / source[1] / 2, 0.5]]
    moved = crop_keypoints(keypoints, crop)
    assert (moved.width, moved.height) == target[::-1]
    # Sides round up and offsets to whole pixels.
    np.testing.assert_allclose(
        moved.body[0, 0, :2] * target[::-1], [[target[1] / 2, target[0] / 2], [0, target[0] / 2]], atol=1.1
    )


def test_random_crops_stay_inside():
    drawn = plans(200, 30, num_frames=2, random_crop=True)
    offsets = {Crop.plan((96, 160), (64, 64), plan.crop).offset for plan in drawn}
    columns = [column for _, column in offsets]
    assert {row for row, _ in offsets} == {0}
    assert min(columns) >= 0
    assert max(columns) <= 107 - 64  # 160 * 64 / 96, rounded up
    assert len(columns) > 35


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["interval=[3,2]"], "interval"),
        (["encodings=true", "flip=true"], "flip"),
        (["width=32"], "width"),
        (["reference_slot=true", "num_frames=1"], "reference_slot"),
        (["num_frame=8"], "num_frames"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        load_config(DataConfig, overrides=options)
