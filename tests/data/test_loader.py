"""Batches: frames with their poses, equal for any number of shards and workers and after resuming."""

import dataclasses
import shutil

import numpy as np
import pytest
from counted import HEIGHT, SIZE, WIDTH, blue_of, counted_keypoints, is_mirrored, number_of

from mimicmotion_jax.data import record
from mimicmotion_jax.data.clips import DataConfig
from mimicmotion_jax.data.loader import ClipLoader
from mimicmotion_jax.models import encode
from mimicmotion_jax.pose.hands import hand_mask
from mimicmotion_jax.pose.render import draw_poses
from mimicmotion_jax.runtime.errors import InputError

BATCH = 4


@pytest.fixture(scope="module")
def config(dataset) -> DataConfig:
    return DataConfig(dataset=dataset, width=WIDTH, height=HEIGHT, num_frames=4, interval=(2, 3))


def take(count: int, config: DataConfig, seed: int = 5, batches: int = 0, **options) -> list[dict]:
    loader = ClipLoader(config, options.pop("batch_size", BATCH), seed, **options)
    loader.set_state({"batches": batches})
    taken = [next(loader) for _ in range(count)]
    assert loader.get_state() == {"batches": batches + count}
    loader.close()
    return taken


def assert_same(a: dict, b: dict) -> None:
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def drawn(numbers: list[int], mirrored: bool = False) -> np.ndarray:
    """Draw the poses of these frames of a counted video, at its own size."""
    keypoints = counted_keypoints(max(numbers) + 1)
    keypoints = keypoints.mirrored() if mirrored else keypoints
    return np.concatenate([draw_poses(keypoints, HEIGHT, WIDTH, number, number + 1) for number in numbers])


@pytest.fixture(scope="module")
def batches(config) -> list[dict]:
    return take(6, config)


def test_frames_poses_and_masks_belong_together(batches, config):
    assert np.concatenate([batch["index"] for batch in batches]).tolist() == list(range(24))
    assert batches[0]["index"].dtype == np.uint32
    references = set()
    for batch in batches:
        assert batch["frames"].shape == batch["poses"].shape == (BATCH, 4, HEIGHT, WIDTH, 3)
        for frames, reference, poses, mask in zip(
            batch["frames"], batch["reference"], batch["poses"], batch["hand_mask"], strict=True
        ):
            numbers = [number_of(frame) for frame in frames]
            assert set(np.diff(numbers)) in ({2}, {3})
            # A part's keypoints begin at its first frame: the drawn pose is that of the frame in the whole video.
            np.testing.assert_array_equal(poses, drawn(numbers))
            expected = hand_mask(counted_keypoints(numbers[-1] + 1), HEIGHT // 8, WIDTH // 8)[numbers]
            np.testing.assert_array_equal(mask, expected)
            assert mask.any()
            assert not mask.all()
            references.add(number_of(reference) - numbers[0])
    assert len(references) > 10


def test_every_epoch_has_every_video_once_in_another_order(dataset):
    one = DataConfig(dataset=dataset, width=WIDTH, height=HEIGHT, num_frames=1)
    loader = ClipLoader(one, batch_size=4, seed=5)
    assert loader.num_videos == 4
    orders = set()
    for _ in range(12):
        frames = next(loader)["frames"][:, 0]
        epoch = [(round(blue_of(frame) / 70), number_of(frame) >= 30) for frame in frames]
        assert {video for video, _ in epoch} == {1, 2, 3}
        assert sorted(late for video, late in epoch if video == 3) == [False, True]  # its two parts
        orders.add(tuple(video if not late else 4 for video, late in epoch))
    loader.close()
    assert len(orders) > 4
    other = take(1, one, seed=6)[0]
    assert [blue_of(f[0]) for f in other["frames"]] != [blue_of(f[0]) for f in take(1, one)[0]["frames"]]


def test_resuming_is_exact(batches, config):
    assert_same(take(1, config, batches=3)[0], batches[3])
    loader = ClipLoader(config, BATCH, seed=5)
    next(loader)
    state = loader.get_state()
    assert state == {"batches": 1}
    next(loader)
    loader.set_state(state)
    assert_same(next(loader), batches[1])
    loader.close()
    assert_same(next(loader), batches[2])
    with pytest.raises(InputError, match="not the state"):
        loader.set_state({"step": 1})


@pytest.mark.parametrize("prefetch", [0, 3])
def test_shards_share_a_batch(batches, config, prefetch):
    config = dataclasses.replace(config, prefetch=prefetch)
    shards = [take(2, config, batches=2, shard=shard, num_shards=2) for shard in range(2)]
    for k in range(2):
        for shard in range(2):
            expected = {key: value[shard::2] for key, value in batches[2 + k].items()}
            assert_same(shards[shard][k], expected)


def test_batches_of_one(batches, config):
    taken = take(2, config, batch_size=1, batches=3)
    assert_same(taken[0], {key: value[3:] for key, value in batches[0].items()})
    assert_same(taken[1], {key: value[:1] for key, value in batches[1].items()})


def test_worker_processes_give_the_same(batches, config):
    taken = take(5, dataclasses.replace(config, num_workers=2), batches=1)
    for ours, expected in zip(taken, batches[1:], strict=True):
        assert_same(ours, expected)


def test_mirrored_samples(batches, config):
    flipped = take(3, dataclasses.replace(config, flip=True))
    mirrored = 0
    for batch in flipped:
        for frames, reference, poses in zip(batch["frames"], batch["reference"], batch["poses"], strict=True):
            flip = is_mirrored(reference)
            mirrored += flip
            assert all(is_mirrored(frame) == flip for frame in frames)
            numbers = [number_of(frame, mirrored=flip) for frame in frames]
            np.testing.assert_array_equal(poses, drawn(numbers, mirrored=flip))
    assert 0 < mirrored < 12
    # The drawing of a mirrored figure is not the mirrored drawing: left and right have colours of their own.
    assert (drawn([3], mirrored=True) != drawn([3])[:, :, ::-1]).any()


def test_reference_slot_shows_the_reference(config):
    for batch in take(2, dataclasses.replace(config, reference_slot=True)):
        np.testing.assert_array_equal(batch["frames"][:, 0], batch["reference"])
        for frames, poses in zip(batch["frames"], batch["poses"], strict=True):
            np.testing.assert_array_equal(poses, drawn([number_of(frame) for frame in frames]))


def test_encodings_equal_those_of_the_networks_on_the_same_frames(dataset, tiny_pipeline):
    config = DataConfig(dataset=dataset, width=SIZE[0], height=SIZE[1], num_frames=3, reference_slot=True)
    seen = take(1, config)[0]
    encoded = take(1, dataclasses.replace(config, encodings=True))[0]
    assert encoded.keys() == {"index", "poses", "hand_mask", "latents", "reference_latents", "embedding"}
    for key in ("index", "poses", "hand_mask"):
        np.testing.assert_array_equal(encoded[key], seen[key])
    frames = seen["frames"].reshape(-1, *seen["frames"].shape[2:])
    latents = np.asarray(encode.encode_image(tiny_pipeline.vae, frames, np.zeros(frames.shape, np.float32)))
    embedding = np.asarray(encode.embed_image(tiny_pipeline.image_encoder, seen["reference"]))
    assert encoded["latents"].dtype == encoded["embedding"].dtype == np.float32
    assert encoded["latents"].std() > 0.1
    np.testing.assert_allclose(encoded["latents"].reshape(latents.shape), latents, rtol=1e-3, atol=2e-3)  # float16
    np.testing.assert_array_equal(encoded["reference_latents"], encoded["latents"][:, 0])
    np.testing.assert_allclose(encoded["embedding"], embedding, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        ({"num_frames": 30}, {}, "longest has 40"),
        ({"encodings": True}, {}, "width=128 height=64"),
        ({"dataset": "/nowhere"}, {}, "no dataset"),
        ({}, {"num_shards": 3}, "shared by 3"),
        ({}, {"shard": 2, "num_shards": 2}, "out of range"),
        ({"width": 100}, {}, "multiple of 8"),
    ],
)
def test_impossible_options_are_refused_at_once(config, change, arguments, message):
    with pytest.raises(InputError, match=message):
        ClipLoader(dataclasses.replace(config, **change), BATCH, 5, **arguments)


def test_other_versions_and_damage_are_reported(config, dataset, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(dataset, copy, ignore=shutil.ignore_patterns(".work"))
    config = dataclasses.replace(config, dataset=str(copy))
    (shard,) = (copy / record.NAME / record.VERSION).glob("*array_record*")
    content = bytearray(shard.read_bytes())
    content[200:-66000] = bytes(len(content) - 66200)  # the index of the records is in the last 64 KiB
    shard.write_bytes(content)
    for num_workers in (0, 1):
        with pytest.raises(InputError, match="damaged"):
            take(1, dataclasses.replace(config, num_workers=num_workers))
    (copy / record.NAME / record.VERSION).rename(copy / record.NAME / "2.0.0")
    with pytest.raises(InputError, match=f"format 2.0.0, but this version reads {record.VERSION}"):
        ClipLoader(config, BATCH, 5)
