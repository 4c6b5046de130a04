"""Stand-ins for the networks of FVD and FID-VID: what they notice, their file, and how they are trained."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stand_in as script
import torch
from card import stand_in
from card.stand_in import FID_VID, FVD, HEIGHT, KINDS, TEMPORAL, WIDTH, WINDOW, StandIn
from flax import nnx

from mimicmotion_jax.synthetic.motion import kind_of


@pytest.fixture(scope="module")
def unseen():
    """Videos of people and motions that the stand-ins were not trained on."""
    scenes = script.draw(24, "test")
    frames = np.stack([script.render_small(scene) for scene in scenes])
    return frames, np.array([KINDS.index(kind_of(scene.motion, "free")) for scene in scenes])


@pytest.mark.parametrize("name", TEMPORAL)
def test_motions_of_unseen_people_are_told_apart(unseen, name):
    """Who knows nothing gives the true kind a mean logarithm of at most -ln 15 = -2.7, by Gibbs' inequality."""
    frames, kinds = unseen
    network = stand_in.load()[name]
    logits = network.classify(jnp.asarray(stand_in.window_features(network, list(frames))))
    of_videos = jax.nn.log_softmax(logits.reshape(len(frames), -1, len(KINDS)).mean(1))
    assert np.mean(of_videos[np.arange(len(kinds)), kinds]) > -2.4


def test_distances_grow_with_what_is_spoilt(unseen):
    truths = list(unseen[0][::2])
    spoilt = {what: [spoil(frames) for frames in truths] for what, spoil in script.SPOILT.items()}
    found = {what: stand_in.distances(videos, truths) for what, videos in spoilt.items()}
    same = found.pop("the same videos")
    assert same == pytest.approx({FVD: 0, FID_VID: 0}, abs=1e-4)
    assert all(min(distances.values()) > 0.01 for what, distances in found.items() if "order" not in what)
    # Another order changes no frame: a network that does not know the order notices only what each window holds.
    shuffled = found["frames in another order"]
    assert shuffled[FVD] > 2 * shuffled[FID_VID]


def test_a_block_is_pytorchs():
    """Its step over time is `nn.Conv3d(kernel_size=(3, 1, 1))`."""
    block = stand_in.Block(8, 16, 3, nnx.Rngs(0))
    x = np.random.default_rng(0).standard_normal((2, 5, 6, 4, 8), np.float32)

    def weight(layer):
        return torch.tensor(np.asarray(layer.kernel[...]))

    def convolve(conv, x, **options):
        kernel = weight(conv).permute(3, 2, 0, 1)[:, :, None]
        return torch.nn.functional.conv3d(x, kernel, **options)

    def norm(x):
        return torch.relu(torch.nn.functional.group_norm(x, 8, eps=1e-6))

    given = torch.tensor(x).permute(0, 4, 1, 2, 3)
    inner = convolve(block.conv1, norm(given), stride=(1, 2, 2), padding=(0, 1, 1))
    over_time = weight(block.time).reshape(3, 16, 16).permute(2, 1, 0)[..., None, None]
    inner = torch.nn.functional.conv3d(torch.relu(inner), over_time, padding=(1, 0, 0))
    inner = convolve(block.conv2, norm(inner), padding=(0, 1, 1))
    expected = convolve(block.shortcut, given, stride=(1, 2, 2)) + inner
    np.testing.assert_allclose(block(x), expected.permute(0, 2, 3, 4, 1).numpy(), atol=1e-4)


def test_windows_have_features_in_order():
    network = StandIn(TEMPORAL[FVD], nnx.Rngs(0))
    frames = np.random.default_rng(0).integers(0, 256, (WINDOW + 3, HEIGHT, WIDTH, 3), np.uint8)
    found = stand_in.window_features(network, [frames])
    assert found.shape == (4, 96)
    np.testing.assert_allclose(found[2], network.features(frames[None, 2 : 2 + WINDOW])[0], atol=1e-4)


def test_the_script_renders_trains_and_writes(tmp_path, monkeypatch):
    weights, output = tmp_path / "weights.npz", tmp_path / "results.json"
    options = ["--scenes", "8", "--epochs", "2", "--weights", str(weights), "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["stand_in.py", *options])
    script.main()
    report = json.loads(output.read_text())
    assert report["unseen_scenes"] == 4
    assert report["distance_to_true_videos"]["the same videos"] == {FVD: 0, FID_VID: 0}
    assert min(report["distance_to_true_videos"]["other people and motions"].values()) > 0
    kernel = np.asarray(stand_in.load(weights)[FVD].blocks[0].conv1.kernel[...])
    np.testing.assert_array_equal(kernel, kernel.astype(np.float16))  # as it is in the file
    assert np.std(kernel) > 0
